"""Mints that wait for a person, as the official SDK waits for them; the operator answers on the command line."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest
from caracalai import AccessDenied, ApprovalRequired, Caracal

from edge import APPLICATION, ECHO, ZONE, Edge
from programs import LABELS, present, run
from upstream import Upstream

WRITE = ["echo:write"]
TIER = '\n[[risk]]\nscope = "echo:write"\ntier = "high"\n\n[[approval_tiers]]\ntier = "high"\nttl_seconds = 120\n'


@pytest.fixture
def asking(own_edge: Edge) -> Iterator[Caracal]:
    """A client of an edge whose policy has a person approve what writes."""
    bundle = own_edge.home / "bundles" / f"{ZONE}.toml"
    granted = bundle.read_text().replace('= ["echo:read"] }', '= ["echo:read", "echo:write"] }')
    bundle.write_text(granted + TIER)
    own_edge.run("reload", "--config", str(own_edge.config))
    client = Caracal()
    yield client
    asyncio.run(client.aclose())


def approvals(edge: Edge, *more: str) -> list[dict[str, object]]:
    told = edge.run("--json", "approvals", "list", "--config", str(edge.config), *more)
    return json.loads(told)["approvals"]


def answer(edge: Edge, word: str, count: int = 1) -> threading.Thread:
    """Answers the next approvals as they come, beside the program that waits for them."""

    def work() -> None:
        answered = 0
        for _ in range(600):
            for row in approvals(edge):
                edge.run("approvals", word, str(row["id"]), "--reason", "interop", "--config", str(edge.config))
                answered += 1
            if answered >= count:
                return
        raise AssertionError("nothing ever waited for an answer")

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def held(caracal: Caracal) -> tuple[str, str]:
    """The session and delegation the application transport makes, for the scope that asks."""
    agent = caracal._app_mandate(ECHO, WRITE, LABELS, 300)
    return agent.target_session_id, agent.delegation_id


def mint(caracal: Caracal, agent: tuple[str, str], approval_id: str | None = None) -> str:
    session, delegation = agent
    return caracal.config.exchanger.mint_mandate(
        resource=ECHO, scopes=WRITE, session_id=session, delegation_id=delegation, cache=False, approval_id=approval_id
    ).token


def test_with_approval_runs_an_operation_once_a_person_said_yes(
    asking: Caracal, own_edge: Edge, upstream: Upstream
) -> None:
    agent = held(asking)

    async def program() -> None:
        answering = answer(own_edge, "approve")
        token = await asking.with_approval(
            lambda approval_id: asyncio.to_thread(mint, asking, agent, approval_id), timeout_seconds=60
        )
        answering.join()
        written = await present(own_edge, token, "/write/approved", method="POST")
        assert written.status_code == 200, written.text
        assert upstream.received[-1].path == "/write/approved"
        again = await present(own_edge, token, "/write/approved", method="POST")
        assert again.status_code == 401

    run(asking, program)
    [row] = approvals(own_edge, "--all")
    assert (row["state"], row["application"], row["reason"]) == ("consumed", APPLICATION, "interop")
    assert not approvals(own_edge)


def test_what_the_client_is_told_and_what_a_no_means(asking: Caracal, own_edge: Edge) -> None:
    agent = held(asking)
    with pytest.raises(ApprovalRequired) as asked:
        mint(asking, agent)
    [row] = approvals(own_edge)
    assert (asked.value.approval_id, asked.value.tier, asked.value.state) == (row["id"], "high", "pending")
    assert asked.value.binding == row["binding"]
    assert asking.wait_for_approval(asked.value.approval_id, timeout_seconds=1) == "pending"
    with pytest.raises(ApprovalRequired) as again:
        mint(asking, agent)
    assert again.value.approval_id == asked.value.approval_id
    answer(own_edge, "reject").join()
    assert asking.wait_for_approval(asked.value.approval_id, timeout_seconds=5) == "rejected"
    for approval_id in (None, asked.value.approval_id):
        with pytest.raises(AccessDenied):
            mint(asking, agent, approval_id)
