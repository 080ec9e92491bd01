"""A person's identity token becomes a session that acts for that person, with the official SDK."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from caracalai import ApprovalRequired, Caracal, CoordinatorError, InvalidToken
from caracalai_oauth import decode_jwt_payload
from cryptography.hazmat.primitives.asymmetric import rsa

from edge import APPLICATION, ECHO, ZONE, Edge
from programs import LABELS, READ, delegated, mint, present, run, use_variables_of
from upstream import Exchange, HttpUpstream
from upstreams import Upstreams

AUDIENCE = "caracal-interop"


class Issuer(HttpUpstream):
    """An identity provider with one key."""

    name = "https://id.example"

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        super().__init__()

    @property
    def jwks_url(self) -> str:
        return f"{self.url}/keys"

    def answer(self, exchange: Exchange) -> None:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        exchange.reply(200, {"keys": [public | {"kid": "k1", "use": "sig", "alg": "RS256"}]})

    def token(self, **changes: Any) -> str:
        now = int(time.time())
        claims = {"iss": self.name, "aud": AUDIENCE, "sub": "alice@example.com", "iat": now, "exp": now + 300}
        return jwt.encode(claims | changes, self._key, algorithm="RS256", headers={"kid": "k1"})


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    server = Issuer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def federated_edge(
    tmp_path_factory: pytest.TempPathFactory, upstreams: Upstreams, issuer: Issuer
) -> Iterator[Edge]:
    running = federated(tmp_path_factory.mktemp("federated"), upstreams, issuer)
    running.start()
    yield running
    running.stop()


def federated(home: Path, upstreams: Upstreams, issuer: Issuer, more: str = "") -> Edge:
    """An edge of its own whose zone knows the issuer, with more of a bundle."""
    home.chmod(0o700)
    running = Edge(home, upstreams)
    with running.config.open("a") as config:
        config.write('\n[federation]\nprivate_hosts = ["127.0.0.1"]\n')
    with (home / f"bundles/{ZONE}.toml").open("a") as bundle:
        bundle.write(
            f'\n[[subject_issuers]]\nissuer = "{issuer.name}"\njwks_url = "{issuer.jwks_url}"\n'
            f'audience = "{AUDIENCE}"\n{more}'
        )
    return running


@pytest.fixture
def two_people_edge(tmp_path: Path, upstreams: Upstreams, issuer: Issuer) -> Iterator[Edge]:
    """One in which another person than the one who asks has to say yes."""
    more = (
        '\n[[risk]]\nscope = "echo:read"\ntier = "two"\n'
        '\n[[approval_tiers]]\ntier = "two"\napprover = "subject"\nself_approval = "forbidden"\n'
    )
    running = federated(tmp_path, upstreams, issuer, more)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def person_client(federated_edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caracal]:
    use_variables_of(federated_edge, monkeypatch)
    client = Caracal()
    yield client
    asyncio.run(client.aclose())


def test_an_identity_token_becomes_the_mandate_of_its_subject(
    person_client: Caracal, issuer: Issuer
) -> None:
    person = person_client.federate_subject(issuer.token(), ttl_seconds=600)
    claims = decode_jwt_payload(person.token)
    assert claims
    assert (claims["sub"], claims["sub_type"], claims["use"]) == ("alice@example.com", "user", "session")
    assert claims["sid"] == person.subject_authority_record_id
    assert claims["client_id"] == APPLICATION
    assert "scope" not in claims and "target" not in claims
    assert 590 < person.expires_in_seconds <= 600


def test_a_session_acts_for_the_person_and_calls_through_the_edge(
    person_client: Caracal, federated_edge: Edge, issuer: Issuer
) -> None:
    async def program() -> None:
        person = await asyncio.to_thread(person_client.federate_subject, issuer.token())
        async with person_client.session(
            subject_authority_record_id=person.subject_authority_record_id,
            subject_authority_record_token=person.token,
            labels=LABELS,
            ttl_seconds=300,
        ) as root:
            row = await read(federated_edge, person_client, root.session_id)
            assert row["subject_authority_record_id"] == person.subject_authority_record_id
            async with delegated(person_client, parent_ctx=root) as child:
                answer = await present(federated_edge, await mint(person_client, child))
                assert answer.status_code == 200, answer.text

    run(person_client, program)


def test_a_session_for_a_person_needs_that_persons_mandate(
    person_client: Caracal, issuer: Issuer
) -> None:
    async def program() -> None:
        alice = await asyncio.to_thread(person_client.federate_subject, issuer.token())
        bob = await asyncio.to_thread(person_client.federate_subject, issuer.token(sub="bob"))
        for proof in (None, bob.token):
            with pytest.raises(CoordinatorError) as refused:
                async with person_client.session(
                    subject_authority_record_id=alice.subject_authority_record_id,
                    subject_authority_record_token=proof,
                    labels=LABELS,
                ):
                    pass
            assert refused.value.status == 403
            assert "subject_proof_required" in str(refused.value)

    run(person_client, program)


def test_a_token_that_is_not_the_issuers_is_refused(person_client: Caracal, issuer: Issuer) -> None:
    now = int(time.time())
    for token in (
        issuer.token(aud="somebody-else"),
        issuer.token(iss="https://other.example"),
        issuer.token(exp=now - 120),
        issuer.token(sub="caracal:shared"),
        Issuer().token(),
        issuer.token() + "x",
    ):
        with pytest.raises(InvalidToken):
            person_client.federate_subject(token)


def test_another_person_than_the_one_who_asks_says_yes(
    two_people_edge: Edge, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_variables_of(two_people_edge, monkeypatch)
    client = Caracal()

    async def answered(asked: ApprovalRequired, name: str) -> httpx.Response:
        person = await asyncio.to_thread(client.federate_subject, issuer.token(sub=name))
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {person.token}"}) as http:
            url = f"{two_people_edge.authority}/approvals/{asked.approval_id}/decision"
            return await http.post(url, json={"decision": "approved", "binding": asked.binding})

    async def program() -> None:
        alice = await asyncio.to_thread(client.federate_subject, issuer.token(sub="alice"))
        async with (
            client.session(
                subject_authority_record_id=alice.subject_authority_record_id,
                subject_authority_record_token=alice.token,
                labels=LABELS,
                ttl_seconds=300,
            ) as root,
            delegated(client, parent_ctx=root) as child,
        ):
            with pytest.raises(ApprovalRequired) as asked:
                await mint(client, child)
            own = await answered(asked.value, "alice")
            assert (own.status_code, own.json()["error"]) == (403, "access_denied")
            assert "another person" in own.json()["error_description"]
            other = await answered(asked.value, "bob")
            assert (other.status_code, other.json()["state"]) == (200, "approved")
            minted = await asyncio.to_thread(
                client.mint_mandate, ECHO, READ, ctx=child, approval_id=asked.value.approval_id
            )
            assert (await present(two_people_edge, minted.token)).status_code == 200

    run(client, program)


async def read(edge: Edge, caracal: Caracal, session_id: str | None) -> dict[str, Any]:
    token = await caracal.config.asubject_token()
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as client:
        answer = await client.get(f"{edge.coordinator}/zones/{ZONE}/agents/{session_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()
