"""`oauth2_client_credentials` against authorization servers and a resource server that know nothing of the edge."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import jwt
import pytest
from caracalai import Caracal

from peers import JWT, JWT_BEARER, OPAQUE, Issued, Peers
from peers_edge import (
    AUDIENCE,
    CLIENTS,
    FAULTS,
    ODDITIES,
    THUMBPRINT,
    FaultProxy,
    PeersEdge,
    ResourceServer,
)
from programs import use_variables_of
from test_canary import raw
from upstream import forms
from upstreams import Upstreams

# Every answer that an agent got here; the last test looks through them.
ANSWERS: list[httpx.Response] = []
# What the operator's commands printed.
PRINTED: list[str] = []
# How the operator's commands name what a record calls otherwise.
OUTCOMES = {
    "provider_unavailable": "unreachable",
    "provider_answer_invalid": "malformed",
    "provider_rate_limited": "rate_limited",
    "provider_refused": "refused",
}


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    running = Peers(tmp_path_factory.mktemp("peers") / "peers.log", list(CLIENTS.values()))
    yield running
    running.close()


@pytest.fixture(scope="module")
def server(peers: Peers) -> Iterator[ResourceServer]:
    running = ResourceServer(peers, CLIENTS["basic"])
    yield running
    running.close()


@pytest.fixture(scope="module")
def proxy(peers: Peers, server: ResourceServer) -> Iterator[FaultProxy]:
    running = FaultProxy(peers, server)
    yield running
    running.close()


@pytest.fixture(scope="module")
def edge(
    tmp_path_factory: pytest.TempPathFactory,
    upstreams: Upstreams,
    peers: Peers,
    server: ResourceServer,
    proxy: FaultProxy,
) -> Iterator[PeersEdge]:
    home = tmp_path_factory.mktemp("peers-edge")
    home.chmod(0o700)
    running = PeersEdge(home, upstreams, peers, server, proxy)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def agent(edge: PeersEdge) -> Iterator[Caracal]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_variables_of(edge, monkeypatch)
        client = Caracal()
        yield client
        asyncio.run(client.aclose())


@pytest.fixture
def call(agent: Caracal, edge: PeersEdge) -> Callable[..., httpx.Response]:
    """An agent's request to the resource of a provider."""

    def one(name: str, method: str = "GET", content: bytes | None = None) -> httpx.Response:
        with agent.sync_application_transport(f"resource://{name}", scopes=["orders:use"]) as client:
            # The edge waits five seconds for a token endpoint, as httpx would for the edge.
            answer = client.request(method, f"{edge.server.url}/orders/1", content=content, timeout=30)
        ANSWERS.append(answer)
        return answer

    return one


def sent(server: ResourceServer) -> str:
    """The token of the last request that reached the resource server."""
    value = server.received[-1].header("authorization")
    assert value and value.startswith("Bearer ")
    return value.removeprefix("Bearer ")


def operate(edge: PeersEdge, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code of `caracal providers`, and what it says to a program."""
    told = ["providers", *arguments, "--config", str(edge.config)]
    done, plain = edge.attempt(*told, "--json"), edge.attempt(*told)
    PRINTED.extend([done.stdout, done.stderr, plain.stdout, plain.stderr])
    assert done.returncode == plain.returncode
    return done.returncode, json.loads(done.stdout)


def listed(edge: PeersEdge, name: str) -> dict[str, Any]:
    _, told = operate(edge, "list")
    return next(row for row in told["providers"] if row["provider"] == f"provider://{name}")


def tried(edge: PeersEdge, name: str) -> tuple[int, dict[str, Any]]:
    return operate(edge, "test", f"provider://{name}")


def signed(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a JWT that somebody else has verified."""
    return jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})


def only(issued: list[Issued]) -> Issued:
    assert len(issued) == 1, issued
    return issued[0]


@pytest.mark.parametrize(
    "name", ["basic", "post", "none", "rs256", "es256", "es384", "es512", "assertion", "assertion-basic"]
)
def test_every_way_to_prove_a_client_brings_the_peers_token(
    name: str, call: Callable[..., httpx.Response], peers: Peers, server: ResourceServer
) -> None:
    client = CLIENTS[name]
    answers = [call(name), call(name)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    # Asked once, and what the upstream got is what the peer gave to this client.
    issued = only(peers.issued_to(client))
    assert sent(server) == issued.token
    found = answers[0].json()["found"]
    assert found["client_id"] == client.id
    assert found["scope"] == "orders:read orders:write"
    assert found["iss"] == peers.oidc
    assert issued.form["scope"] == "orders:read orders:write"
    if client.grant == JWT_BEARER:
        assert issued.form["grant_type"] == JWT_BEARER
    else:
        assert found["aud"] == issued.form["resource"]
        assert issued.form["resource"] in (JWT, OPAQUE)
        assert (issued.token.count(".") == 2) == (issued.form["resource"] == JWT)


@pytest.mark.parametrize("name", ["rs256", "es256", "es384", "es512", "certified"])
def test_a_signed_client_says_what_the_rfc_asks_for(
    name: str, call: Callable[..., httpx.Response], peers: Peers
) -> None:
    assert call(name).status_code == 200
    issued = peers.issued_to(CLIENTS[name])[-1]
    header, claims = signed(issued.form["client_assertion"])
    algorithm = "ES256" if name == "certified" else name.upper()
    assert (header["alg"], header["kid"]) == (algorithm, name)
    assert claims["iss"] == claims["sub"] == CLIENTS[name].id
    assert claims["aud"] == f"{peers.oidc}/token"
    assert (claims["exp"] - claims["iat"], bool(claims["jti"])) == (60, True)
    assert header.get("x5t#S256") == (THUMBPRINT if name == "certified" else None)


def test_an_assertion_that_asks_for_a_token_names_whom_it_acts_for(
    call: Callable[..., httpx.Response], peers: Peers
) -> None:
    for name, subject in [("assertion", CLIENTS["assertion"].id), ("assertion-basic", "ada@example.com")]:
        assert call(name).status_code == 200
        header, claims = signed(peers.issued_to(CLIENTS[name])[-1].form["assertion"])
        assert header["kid"] == name
        assert (claims["iss"], claims["sub"]) == (CLIENTS[name].id, subject)
        assert (claims["aud"], claims["scope"]) == (f"{peers.oidc}/token", "orders:read orders:write")


def test_another_server_gets_an_audience_and_its_tokens_are_verified_by_its_keys(
    call: Callable[..., httpx.Response], peers: Peers, server: ResourceServer
) -> None:
    answer = call("mock")
    assert answer.status_code == 200, answer.text
    # It shows what came as Basic credentials: both parts are form-encoded (RFC 6749 section 2.3.1).
    client = CLIENTS["basic"]
    shown = f"{quote(client.id, safe='')}:{quote(client.secret, safe='')}"
    issued = only([one for one in peers.issued() if one.client == shown])
    assert sent(server) == issued.token
    found = answer.json()["found"]
    assert (found["iss"], found["aud"]) == (peers.mock, AUDIENCE)
    assert found["scope"] == issued.form["scope"] == "orders:read orders:write"
    assert issued.form["audience"] == AUDIENCE


@pytest.mark.parametrize("name", ["short", "mock-short"])
def test_a_token_is_replaced_before_it_expires(
    name: str, call: Callable[..., httpx.Response], edge: PeersEdge, server: ResourceServer
) -> None:
    assert call(name).status_code == 200
    first, before = sent(server), listed(edge, name)["token"]
    assert 0 < before["expires_in_seconds"] <= 37
    # It is in the last fifth of its use: still used, and replaced behind the scenes.
    assert call(name).status_code == 200
    assert sent(server) == first
    deadline = time.monotonic() + 5
    while (after := listed(edge, name)["token"])["fingerprint"] == before["fingerprint"]:
        assert time.monotonic() < deadline, "it was not replaced"
        time.sleep(0.02)
    answer = call(name)
    assert (answer.status_code, sent(server) != first) == (200, True)
    metadata = edge.result(answer.headers["x-request-id"])["metadata_json"]
    assert metadata["credential_fingerprint"] == after["fingerprint"]


def test_a_token_that_is_nearly_over_is_not_kept(
    call: Callable[..., httpx.Response], edge: PeersEdge, peers: Peers, server: ResourceServer
) -> None:
    tokens = []
    for _ in range(2):
        assert call("brief").status_code == 200
        tokens.append(sent(server))
    assert [one.token for one in peers.issued_to(CLIENTS["brief"])] == tokens
    assert tokens[0] != tokens[1]
    assert listed(edge, "brief")["token"] is None


def test_rotated_keys_of_the_peer_are_not_seen_by_the_agent(
    call: Callable[..., httpx.Response], peers: Peers, server: ResourceServer
) -> None:
    assert call("rotating").status_code == 200
    first = sent(server)
    kids = peers.ask("rotate")
    assert signed(first)[0]["kid"] in kids[1:]
    # The old key is still published, and nothing has to change.
    assert call("rotating").status_code == 200
    assert sent(server) == first
    assert peers.ask("withdraw") == kids[:1]
    before = len(server.received)
    assert call("rotating").status_code == 200
    again = [one.header("authorization") for one in server.received[before:]]
    assert again == [f"Bearer {first}", f"Bearer {sent(server)}"]
    assert signed(sent(server))[0]["kid"] == kids[0]


def test_a_body_is_not_sent_twice_when_the_peer_has_withdrawn_its_key(
    call: Callable[..., httpx.Response], peers: Peers, server: ResourceServer
) -> None:
    assert call("posting", "POST", b"one").status_code == 200
    peers.ask("rotate")
    peers.ask("withdraw")
    before = len(server.received)
    assert call("posting", "POST", b"two").status_code == 401
    assert call("posting", "POST", b"three").status_code == 200
    assert [one.body for one in server.received[before:]] == [b"two", b"three"]


def test_an_operator_sees_the_peers_token_as_a_fingerprint(
    call: Callable[..., httpx.Response], edge: PeersEdge, peers: Peers
) -> None:
    code, told = tried(edge, "tried")
    assert (code, told["outcome"]) == (0, "ok")
    assert any(text.startswith("the token endpoint gives a token\n") for text in PRINTED[-4:])
    assert 590 <= told["expires_in_seconds"] <= 600
    # It was fetched for the operator, and dropped.
    assert listed(edge, "tried")["token"] is None
    answer = call("tried")
    assert answer.status_code == 200
    row = listed(edge, "tried")
    assert (row["kind"], row["issuer"], row["resources"]) == ("oauth2_client_credentials", peers.oidc, 1)
    assert (row["failures"], row["last_failure"], row["circuit_open"]) == (0, None, False)
    assert row["token"]["fingerprint"] != told["fingerprint"]
    metadata = edge.result(answer.headers["x-request-id"])["metadata_json"]
    assert metadata["credential_fingerprint"] == row["token"]["fingerprint"]
    assert (metadata["auth_mode"], metadata["provider_id"]) == ("provider_oauth", "provider://tried")
    assert listed(edge, "post")["token_endpoint"] == f"{peers.oidc}/token"


@pytest.mark.parametrize(
    ("name", "kind", "detail"),
    [
        ("wrong-secret", "provider_refused", "the answer is 401, invalid_client"),
        ("wrong-key", "provider_refused", "the answer is 401, invalid_client"),
        ("wrong-method", "provider_refused", "the answer is 401, invalid_client"),
        ("wrong-scope", "provider_refused", "the answer is 400, invalid_scope"),
        ("wrong-target", "provider_refused", "the answer is 400, invalid_target"),
        ("wrong-issuer", "provider_answer_invalid", "the metadata is another issuer's"),
    ],
)
def test_what_the_peer_refuses_is_told_in_its_own_words(
    name: str,
    kind: str,
    detail: str,
    call: Callable[..., httpx.Response],
    edge: PeersEdge,
    server: ResourceServer,
) -> None:
    refused(name, 502, kind, detail, call, edge, server)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_on_the_way_has_its_refusal(
    fault: str,
    call: Callable[..., httpx.Response],
    edge: PeersEdge,
    server: ResourceServer,
    proxy: FaultProxy,
) -> None:
    status, kind, detail = FAULTS[fault]
    refused(f"fault-{fault}", status, kind, detail, call, edge, server)
    # Once by the agent, twice by the operator, whose command is run twice; a failure of the server is tried again.
    assert proxy.asked[fault] == (4 if kind == "provider_unavailable" else 3)


def refused(
    name: str,
    status: int,
    kind: str,
    detail: str,
    call: Callable[..., httpx.Response],
    edge: PeersEdge,
    server: ResourceServer,
) -> None:
    before = len(server.received)
    answer = call(name)
    assert answer.status_code == status, answer.text
    assert edge.result(answer.headers["x-request-id"])["metadata_json"]["error_kind"] == kind
    assert len(server.received) == before, "it went upstream without a token"
    code, told = tried(edge, name)
    assert (code, told["outcome"]) == (1, OUTCOMES[kind])
    assert any(text.startswith("there is no token to be had\n") for text in PRINTED[-4:])
    assert told["detail"].startswith(detail)
    row = listed(edge, name)
    assert (row["token"], row["failures"], row["last_failure"]) == (None, 1, OUTCOMES[kind])


@pytest.mark.parametrize("oddity", ODDITIES)
def test_what_is_odd_but_clear_is_taken(
    oddity: str, call: Callable[..., httpx.Response], edge: PeersEdge, proxy: FaultProxy
) -> None:
    answer = call(f"fault-{oddity}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["found"]["client_id"] == CLIENTS["faulty"].id
    assert proxy.asked[oddity] == (2 if oddity == "hiccup" else 1)
    longest = 3600 if oddity == "eternal" else 600
    assert longest - 30 < listed(edge, f"fault-{oddity}")["token"]["expires_in_seconds"] <= longest


def test_a_peer_that_does_not_answer_is_given_up(
    call: Callable[..., httpx.Response], edge: PeersEdge, proxy: FaultProxy
) -> None:
    started = time.monotonic()
    answer = call("fault-slow")
    proxy.over.set()
    assert 4 < time.monotonic() - started < 9
    assert (answer.status_code, answer.json()["error"]) == (502, "http_request_failed")
    assert (
        edge.result(answer.headers["x-request-id"])["metadata_json"]["error_kind"] == "provider_unavailable"
    )
    assert proxy.asked["slow"] == 1, "whoever is slow is not asked twice"


def test_nothing_that_proves_or_is_proved_is_found_anywhere_else(
    call: Callable[..., httpx.Response], edge: PeersEdge, peers: Peers
) -> None:
    for name in ("basic", "post", "rs256", "assertion", "assertion-basic", "mock", "fault-telltale"):
        call(name)
    kept = [client.secret for client in CLIENTS.values() if client.has_secret]
    for client in CLIENTS.values():
        if client.key:
            kept += [line for line in client.pem.splitlines() if len(line) > 40 and "-" not in line]
    issued = peers.issued()
    kept += [one.token for one in issued]
    jwts = [one.token for one in issued if one.token.count(".") == 2]
    jwts += [
        one.form[name] for one in issued for name in ("client_assertion", "assertion") if name in one.form
    ]
    kept += [token.rsplit(".", 1)[1] for token in jwts]

    places = {f"answer {number}": raw(answer) for number, answer in enumerate(ANSWERS)}
    places |= {f"command {number}": text.encode() for number, text in enumerate(PRINTED)}
    places["metrics"] = edge.metrics().encode()
    places["status"] = edge.run("status", "--config", str(edge.config)).encode()
    places["audit"] = edge.run("audit", "tail", "--config", str(edge.config), "-n", "1000").encode()
    places["secrets"] = edge.run("secrets", "list", "--config", str(edge.config)).encode()
    places |= edge.written()
    # The upstream repeated the token, the proxy everything, and the log says all it can.
    good = [answer for answer in ANSWERS if answer.status_code == 200]
    assert good and all(set(answer.headers["x-token"]) == {"*"} for answer in good)
    assert all(set(answer.json()["token"]) == {"*"} for answer in good)
    assert b"DEBUG" in places["edge.log"]
    assert b"provider://fault-telltale" in places["edge.log"]
    assert len(jwts) >= 4
    wanted = {form.encode() for secret in kept for form in forms(secret)}
    for name, text in places.items():
        for one in wanted:
            assert one not in text, f"{one[:12]!r}... is in {name}"
