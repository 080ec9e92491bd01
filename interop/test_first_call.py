"""The first protected call, with nothing but the documented variables."""

from __future__ import annotations

import asyncio

from caracalai import Caracal
from caracalai_oauth import ExchangeOptions, OAuthClient, decode_jwt_payload

from edge import APPLICATION, ECHO, ZONE, Edge
from programs import run
from upstream import Upstream


def test_a_sync_application_transport_reaches_the_upstream(
    caracal: Caracal, edge: Edge, upstream: Upstream
) -> None:
    with caracal.sync_application_transport(ECHO, scopes=["echo:read"]) as client:
        first = client.get(f"{upstream.url}/read/hello?x=1&x=2&y=%2F")
        second = client.get(f"{upstream.url}/read/a%20b%E2%82%AC")
    assert (first.status_code, second.status_code) == (200, 200), (first.text, second.text)
    assert first.headers["x-request-id"]
    assert int(first.headers["x-caracal-token-expires-in"]) > 0
    seen, again = upstream.received[-2:]
    assert seen.path == "/read/hello?x=1&x=2&y=%2F"
    assert again.path == "/read/a%20b%E2%82%AC"
    assert seen.header("x-api-key") == edge.api_key
    assert seen.header("authorization") is None
    assert not [name for name, _ in seen.headers if name.lower().startswith("x-caracal-")]
    assert "caracal." not in (seen.header("baggage") or "")


def test_no_trailer_is_announced_on_http_1(caracal: Caracal, upstream: Upstream) -> None:
    with caracal.sync_application_transport(ECHO, scopes=["echo:read"]) as client:
        answer = client.get(f"{upstream.url}/read/trailer")
    assert (answer.status_code, answer.http_version) == (200, "HTTP/1.1")
    assert "trailer" not in answer.headers


def test_an_async_application_transport_reaches_the_upstream(
    caracal: Caracal, edge: Edge, upstream: Upstream
) -> None:
    async def program() -> None:
        async with caracal.application_transport(ECHO, scopes=["echo:read"]) as client:
            # Concurrent requests share one delegation and each carry a mandate of their own.
            answers = await asyncio.gather(
                *(client.get(f"{edge.gateway}/read/{number}") for number in range(8))
            )
        assert [answer.status_code for answer in answers] == [200] * 8

    before = len(upstream.received)
    run(caracal, program)
    paths = sorted(seen.path for seen in upstream.received[before:])
    assert paths == [f"/read/{number}" for number in range(8)]


def test_the_oauth_client_gets_a_lifecycle_mandate(edge: Edge) -> None:
    async def program() -> tuple[str, tuple[str, ...]]:
        client = OAuthClient(edge.authority, ZONE, APPLICATION)
        options = ExchangeOptions(client_secret=edge.client_secret, scopes=["agent:lifecycle"])
        answer = await client.exchange("", ECHO, options)
        await client.aclose()
        return answer.access_token, tuple(answer.target_resources)

    token, targets = asyncio.run(program())
    claims = decode_jwt_payload(token)
    assert claims is not None
    assert claims["iss"] == edge.authority
    assert (claims["use"], claims["sub_type"]) == ("session", "application")
    assert (claims["zone_id"], claims["client_id"]) == (ZONE, APPLICATION)
    assert claims["sid"] == claims["root_sid"]
    assert targets == (ECHO,)
