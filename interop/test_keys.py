"""What verifiers of other makes find: the zone's keys, and mandates that they accept with them."""

from __future__ import annotations

import asyncio

import caracalai_identity
import httpx
import jwt
import pytest
from caracalai import Caracal
from caracalai_fastmcp import CaracalAuth, CaracalAuthError
from caracalai_identity import JwtConfig

from edge import APP, APPLICATION, ZONE, Edge
from resource_app import Server


@pytest.fixture
def mandate(caracal: Caracal, edge: Edge, app_server: Server) -> str:
    """A resource mandate, as the edge sent it to the application."""
    with caracal.sync_application_transport(APP, scopes=["app:use"]) as client:
        assert client.get(f"{edge.gateway}/keys").status_code == 200
    return app_server.mandates[-1]


def test_pyjwt_verifies_a_mandate_with_the_published_keys(mandate: str, edge: Edge) -> None:
    keys = jwt.PyJWKClient(f"{edge.authority}/.well-known/jwks.json?zone_id={ZONE}")
    key = keys.get_signing_key_from_jwt(mandate)
    claims = jwt.decode(mandate, key.key, algorithms=["ES256"], audience=APP, issuer=edge.authority)
    assert jwt.get_unverified_header(mandate) == {"alg": "ES256", "typ": "JWT", "kid": key.key_id}
    assert claims["client_id"] == APPLICATION
    assert claims["aud"] in (APP, [APP])
    with pytest.raises(jwt.InvalidSignatureError):
        other = mandate[:-4] + ("AAAA" if mandate[-4:] != "AAAA" else "BBBB")
        jwt.decode(other, key.key, algorithms=["ES256"], audience=APP, issuer=edge.authority)


def test_the_keys_are_public_and_nothing_more(edge: Edge) -> None:
    answer = httpx.get(f"{edge.authority}/.well-known/jwks.json", params={"zone_id": ZONE})
    assert answer.status_code == 200
    assert "max-age=" in answer.headers["cache-control"]
    for key in answer.json()["keys"]:
        assert set(key) == {"kty", "crv", "use", "alg", "kid", "x", "y"}
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256")
    assert httpx.get(f"{edge.authority}/.well-known/jwks.json").status_code == 400
    unknown = httpx.get(f"{edge.authority}/.well-known/jwks.json", params={"zone_id": "nowhere"})
    assert unknown.status_code == 404


def test_each_zone_has_keys_of_its_own(edge: Edge) -> None:
    kids = []
    for zone in (ZONE, "elsewhere"):
        answer = httpx.get(f"{edge.authority}/.well-known/jwks.json", params={"zone_id": zone})
        kids.append({key["kid"] for key in answer.json()["keys"]})
    assert all(kids)
    assert not kids[0] & kids[1]


def test_the_identity_package_verifies_a_mandate(mandate: str, edge: Edge) -> None:
    config = JwtConfig(issuer=edge.authority, audience=APP, expected_zone_id=ZONE)
    claims = asyncio.run(caracalai_identity.verify_config(mandate, config))
    assert (claims.client_id, claims.use) == (APPLICATION, "resource")
    assert caracalai_identity.has_scope(claims.scope, "app:use")
    assert caracalai_identity.verify_chain_contains(claims, APPLICATION)


def test_the_fastmcp_adapter_accepts_a_mandate_and_says_why_not(
    mandate: str, edge: Edge, app_server: Server
) -> None:
    def auth(**more: object) -> CaracalAuth:
        return CaracalAuth(
            issuer=edge.authority,
            audience=APP,
            revocations=app_server.revocations,
            expected_zone_id=ZONE,
            **more,  # type: ignore[arg-type]
        )

    async def program() -> None:
        # One event loop, as in a server.
        good = auth(required_scopes=["app:use"], require_session=True, require_delegation=True)
        await good.warmup()
        assert (await good(mandate)).client_id == APPLICATION
        with pytest.raises(CaracalAuthError) as refused:
            await auth(required_scopes=["app:admin"])(mandate)
        assert refused.value.code == "insufficient_scope"
        with pytest.raises(CaracalAuthError) as refused:
            await auth()(mandate[:-4] + "AAAA")
        assert refused.value.code == "invalid_token"

    asyncio.run(program())
