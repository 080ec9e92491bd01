"""What a stop ends, and what a restart remembers and forgets."""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest
from caracalai import Caracal

from edge import ECHO, Edge
from programs import LABELS, READ, mint, narrow, present
from upstream import Upstream


def test_sessions_and_used_mandates_survive_a_clean_restart(own_edge: Edge) -> None:
    async def program() -> None:
        caracal = Caracal()
        parent = await caracal.start_session(labels=LABELS, heartbeat_interval=0)
        worker = await caracal.start_session(
            labels=LABELS, authority=narrow(), heartbeat_interval=0, parent_ctx=parent.context
        )
        used = await mint(caracal, worker.context)
        unused = await mint(caracal, worker.context)
        assert (await present(own_edge, used)).status_code == 200

        own_edge.restart()

        again = await present(own_edge, used)
        assert (again.status_code, again.json()["error"]) == (401, "invalid_token")
        assert (await present(own_edge, unused)).status_code == 200
        await worker.heartbeat()
        assert (await present(own_edge, await mint(caracal, worker.context))).status_code == 200
        await parent.aclose()
        await caracal.aclose()

    asyncio.run(program())


def test_after_a_kill_no_old_mandate_is_accepted_and_sessions_are_still_there(own_edge: Edge) -> None:
    async def program() -> None:
        caracal = Caracal()
        parent = await caracal.start_session(labels=LABELS, heartbeat_interval=0)
        worker = await caracal.start_session(
            labels=LABELS, authority=narrow(), heartbeat_interval=0, parent_ctx=parent.context
        )
        used = await mint(caracal, worker.context)
        unused = await mint(caracal, worker.context)
        assert (await present(own_edge, used)).status_code == 200

        own_edge.restart(signal.SIGKILL)

        for token in (used, unused):
            answer = await present(own_edge, token)
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
        await worker.heartbeat()
        assert (await present(own_edge, await mint(caracal, worker.context))).status_code == 200
        await parent.aclose()
        await caracal.aclose()

    asyncio.run(program())


def test_a_stop_lets_streams_run_until_the_deadline_and_says_so(own_edge: Edge, upstream: Upstream) -> None:
    caracal = Caracal()
    with (
        caracal.sync_application_transport(ECHO, scopes=READ, timeout=30) as held,
        held.stream("GET", f"{own_edge.gateway}/read/events") as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == "data: 0"
        assert next(lines) == ""
        own_edge.send_signal(signal.SIGTERM)
        ready = httpx.get(f"{own_edge.ops}/ready")
        while ready.status_code == 200:
            ready = httpx.get(f"{own_edge.ops}/ready")
        assert (ready.status_code, ready.json()["reason"]) == (503, "stopping")
        # Still under way, and the deadline is not.
        upstream.next_event()
        assert next(lines) == "data: 1"
        assert next(lines) == ""
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            next(lines)
    own_edge.wait()
    own_edge.start()
    assert "gap" not in own_edge.run("audit", "tail", "--config", str(own_edge.config), "-n", "1000")
