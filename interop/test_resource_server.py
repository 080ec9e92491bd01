"""An application that verifies mandates itself sits behind a `caracal_mandate` provider."""

from __future__ import annotations

import asyncio

import httpx
from caracalai import Caracal
from caracalai_oauth import decode_jwt_payload
from caracalai_verify import AuthOptions, MandateVerifier

from edge import APP, APPLICATION, ZONE, Edge
from resource_app import Server


def test_the_application_is_reached_with_a_resource_mandate_it_can_verify(
    caracal: Caracal, edge: Edge, app_server: Server
) -> None:
    with caracal.sync_application_transport(APP, scopes=["app:use"]) as client:
        answer = client.post(f"{edge.gateway}/things/1?x=%20", content=b"body")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["application"], told["zone"], told["use"]) == (APPLICATION, ZONE, "resource")
    assert told["scope"] == "app:use"
    assert told["session"] and told["delegation"]
    assert (told["path"], told["query"]) == ("/things/1", "x=%20")


def test_a_sized_upload_keeps_its_content_length(
    caracal: Caracal, edge: Edge, app_server: Server
) -> None:
    with caracal.sync_application_transport(APP, scopes=["app:use"]) as client:
        told = client.post(f"{edge.gateway}/upload", content=b"x" * 70_000).json()
    assert told["content_length"] == "70000"
    assert told["transfer_encoding"] is None


def test_a_resource_mandate_never_outlives_the_mandate_it_came_from(
    caracal: Caracal, edge: Edge, app_server: Server
) -> None:
    # Shorter than the 60 s that a resource mandate would get by itself.
    with caracal.sync_application_transport(APP, scopes=["app:use"], mandate_ttl_seconds=45) as client:
        answer = client.get(f"{edge.gateway}/things/short")
    assert answer.status_code == 200, answer.text
    presented = decode_jwt_payload(answer.request.headers["authorization"].removeprefix("Bearer "))
    derived = decode_jwt_payload(app_server.mandates[-1])
    assert presented and derived
    assert derived["root_sid"] == presented["root_sid"]
    assert derived["exp"] <= presented["exp"]


def test_the_application_cannot_be_reached_around_the_edge(
    caracal: Caracal, app_server: Server, sdk_environment: Edge
) -> None:
    bare = httpx.get(f"http://{app_server.address}/things/1")
    assert (bare.status_code, bare.json()["error"]) == (401, "missing_token")
    lifecycle = caracal.config.subject_token
    answer = httpx.get(
        f"http://{app_server.address}/things/1", headers={"Authorization": f"Bearer {lifecycle}"}
    )
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")


def test_a_resource_mandate_names_one_audience_and_is_refused_by_the_gateway(
    caracal: Caracal, edge: Edge, app_server: Server
) -> None:
    with caracal.sync_application_transport(APP, scopes=["app:use"]) as client:
        assert client.get(f"{edge.gateway}/things/2").status_code == 200
    token = app_server.mandates[-1]

    def verified(audience: str) -> object:
        options = AuthOptions(
            issuer=edge.authority,
            audience=audience,
            expected_zone_id=ZONE,
            revocations=app_server.revocations,
            required_scopes=["app:use"],
        )
        return asyncio.run(MandateVerifier(options).authenticate(token))

    assert verified(APP).ok  # type: ignore[attr-defined]
    assert verified("resource://echo").error.code == "invalid_token"  # type: ignore[attr-defined]
    back = httpx.get(
        f"{edge.gateway}/things/3",
        headers={"Authorization": f"Bearer {token}", "X-Caracal-Resource": APP},
    )
    assert (back.status_code, back.json()["error"]) == (401, "invalid_token")


def test_revoked_authority_is_refused_by_the_application_itself(
    caracal: Caracal, edge: Edge, app_server: Server
) -> None:
    with caracal.sync_application_transport(APP, scopes=["app:use"]) as client:
        told = client.get(f"{edge.gateway}/things/4").json()
        app_server.revocations.mark_revoked(told["delegation"])
        refused = client.get(f"{edge.gateway}/things/5")
    assert (refused.status_code, refused.json()["error"]) == (401, "session_revoked")
