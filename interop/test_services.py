"""Sessions that outlive a block: leases that are renewed, taken over, lost and ended."""

from __future__ import annotations

import asyncio

import pytest
from caracalai import Authority, Caracal, CoordinatorError

from edge import ECHO, Edge
from programs import LABELS, READ, mint, narrow, present, run


def test_a_service_session_is_started_renewed_and_ended(caracal: Caracal) -> None:
    async def program() -> None:
        handle = await caracal.start_session(labels=LABELS, heartbeat_interval=0)
        assert handle.status == "active"
        assert handle.lease_generation == 1
        before = handle.heartbeat_deadline_at
        assert before
        await handle.heartbeat()
        assert handle.heartbeat_deadline_at >= before
        await handle.aclose()
        with pytest.raises(CoordinatorError) as gone:
            await handle.heartbeat()
        assert (gone.value.status, gone.value.code) == (409, "session_not_live")
        assert gone.value.request_id

    run(caracal, program)


def test_a_service_session_calls_with_what_it_was_given(caracal: Caracal, edge: Edge) -> None:
    async def program() -> None:
        parent = await caracal.start_session(labels=LABELS, heartbeat_interval=0)
        worker = await caracal.start_session(
            labels=LABELS, authority=narrow(), heartbeat_interval=0, parent_ctx=parent.context
        )
        async with caracal.bind(worker.context):
            answer = await caracal.fetch(ECHO, "/read/service", scopes=READ)
        assert answer.status_code == 200, answer.text
        in_hand = await mint(caracal, worker.context)
        # Ending the parent ends what it started.
        await parent.aclose()
        late = await present(edge, in_hand)
        assert (late.status_code, late.json()["error"]) == (401, "invalid_token")
        with pytest.raises(CoordinatorError) as gone:
            await worker.heartbeat()
        assert (gone.value.status, gone.value.code) == (409, "session_not_live")

    run(caracal, program)


def test_a_task_cannot_start_a_service(caracal: Caracal) -> None:
    async def program() -> None:
        async with caracal.session(labels=LABELS, ttl_seconds=300):
            with pytest.raises(CoordinatorError) as refused:
                await caracal.start_session(labels=LABELS, heartbeat_interval=0)
        assert (refused.value.status, refused.value.code) == (409, "task_session_cannot_start_service")

    run(caracal, program)


def test_whoever_attaches_takes_the_lease_over(caracal: Caracal) -> None:
    async def program() -> None:
        first = await caracal.start_session(
            labels=LABELS, authority=Authority.none(), heartbeat_interval=0
        )
        second = await caracal.attach_session(first.session_id, heartbeat_interval=0)
        assert second.session_id == first.session_id
        assert second.lease_generation == first.lease_generation + 1
        await second.heartbeat()
        # The one that was taken over learns it and can end nothing.
        with pytest.raises(CoordinatorError) as fenced:
            await first.heartbeat()
        assert (fenced.value.status, fenced.value.code) == (409, "session_lease_fenced")
        await first.aclose()
        await second.heartbeat()
        await second.aclose()
        with pytest.raises(CoordinatorError) as gone:
            await caracal.attach_session(first.session_id, heartbeat_interval=0)
        assert gone.value.status in (404, 409)

    run(caracal, program)


def test_the_holder_is_told_once_that_its_lease_is_lost(caracal: Caracal) -> None:
    async def program() -> None:
        lost: asyncio.Queue[BaseException] = asyncio.Queue()
        first = await caracal.start_session(
            labels=LABELS, heartbeat_interval=0.05, on_lease_lost=lost.put_nowait
        )
        second = await caracal.attach_session(first.session_id, heartbeat_interval=0)
        reason = await asyncio.wait_for(lost.get(), timeout=10)
        assert isinstance(reason, CoordinatorError)
        assert reason.code == "session_lease_fenced"
        await second.aclose()

    run(caracal, program)


def test_attaching_to_what_is_not_there_fails(caracal: Caracal) -> None:
    async def program() -> None:
        with pytest.raises(CoordinatorError) as refused:
            await caracal.attach_session("01890000-0000-7000-8000-000000000000", heartbeat_interval=0)
        assert (refused.value.status, refused.value.code) == (404, "session_not_found")

    run(caracal, program)


def test_a_task_session_has_no_lease(caracal: Caracal) -> None:
    async def program() -> None:
        async with caracal.session(labels=LABELS, ttl_seconds=300) as task:
            with pytest.raises(CoordinatorError) as refused:
                await caracal.attach_session(task.session_id, heartbeat_interval=0)
            assert refused.value.status == 409

    run(caracal, program)
