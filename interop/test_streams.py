"""Bodies that are long, slow or both: nothing is buffered, nothing is lost, and a revocation cuts what is open."""

from __future__ import annotations

import hashlib

import httpx
import pytest
from caracalai import Caracal

from edge import ECHO, FILES
from programs import READ, delegated, run
from upstream import CHUNK, Upstream


def test_events_arrive_one_by_one(caracal: Caracal, upstream: Upstream) -> None:
    async def program() -> None:
        async with (
            caracal.application_transport(ECHO, scopes=READ, timeout=10) as client,
            client.stream("GET", f"{upstream.url}/read/events") as answer,
        ):
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/event-stream"
            lines = answer.aiter_lines()
            for number in range(3):
                # The upstream sends the next one only after this one was read.
                assert [await anext(lines), await anext(lines)] == [f"data: {number}", ""]
                upstream.next_event()

    run(caracal, program)


def test_ending_the_session_cuts_an_open_stream(caracal: Caracal, upstream: Upstream) -> None:
    async def program() -> None:
        async with delegated(caracal) as child:
            client = caracal.transport(ctx=child, scopes=READ, timeout=10)
            request = caracal.gateway_request(ECHO, "/read/events")
            stream = client.stream("GET", request.url, headers=request.headers)
            answer = await stream.__aenter__()
            lines = answer.aiter_lines()
            assert await anext(lines) == "data: 0"
        # Both sessions ended with the block, while the upstream still holds the stream open.
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            async for _ in lines:
                pass
        await stream.__aexit__(None, None, None)
        await client.aclose()

    run(caracal, program)


def test_revoking_a_delegation_cuts_an_open_stream(caracal: Caracal, upstream: Upstream) -> None:
    async def program() -> None:
        async with caracal.session(labels=["agent"], ttl_seconds=300) as issuer:
            async with delegated(caracal, parent_ctx=issuer, max_hops=3) as child:
                client = caracal.transport(ctx=child, scopes=READ, timeout=10)
                request = caracal.gateway_request(ECHO, "/read/events")
                async with client, client.stream("GET", request.url, headers=request.headers) as answer:
                    lines = answer.aiter_lines()
                    assert await anext(lines) == "data: 0"
                    await caracal.revoke_delegation(child.delegation_id)
                    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                        async for _ in lines:
                            pass

    run(caracal, program)


def test_large_bodies_pass_whole_in_both_directions(caracal: Caracal, upstream: Upstream) -> None:
    body = CHUNK * 150
    parts = (CHUNK for _ in range(150))
    with caracal.sync_application_transport(FILES, scopes=["files:use"], timeout=60) as client:
        sized = client.put(f"{upstream.url}/store/sized", content=body)
        unsized = client.put(f"{upstream.url}/store/unsized", content=parts)
        digest = hashlib.sha256()
        size = 0
        with client.stream("GET", f"{upstream.url}/download/1000") as answer:
            assert answer.headers["content-length"] == str(1000 * len(CHUNK))
            for chunk in answer.iter_bytes():
                digest.update(chunk)
                size += len(chunk)
    for told in (sized.json(), unsized.json()):
        assert (told["bytes"], told["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert size == 1000 * len(CHUNK)
    assert digest.hexdigest() == hashlib.sha256(CHUNK * 1000).hexdigest()


def test_a_body_over_the_limit_is_refused(caracal: Caracal, upstream: Upstream) -> None:
    before = len(upstream.received)
    with caracal.sync_application_transport(FILES, scopes=["files:use"], timeout=60) as client:
        answer = client.put(f"{upstream.url}/store/huge", content=CHUNK * 161)
    assert answer.status_code == 413, answer.text
    assert answer.json()["requestId"]
    assert len(upstream.received) == before


def test_what_the_upstream_answers_comes_back(caracal: Caracal, upstream: Upstream) -> None:
    with caracal.sync_application_transport(FILES, scopes=["files:use"]) as client:
        refused = client.get(f"{upstream.url}/refuse")
        moved = client.get(f"{upstream.url}/redirect")
        slash = client.get(f"{upstream.url}/a%2Fb")
    assert (refused.status_code, refused.json()) == (418, {"refused": "by the upstream"})
    # A redirect is not followed, and does not tell the caller a way around the edge.
    assert moved.status_code == 302
    assert "location" not in moved.headers
    assert upstream.received[-1].path == "/a%2Fb"
    assert slash.status_code == 200
