"""Sessions and delegations: authority that narrows on the way down and ends when it is taken back."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

import httpx
import pytest
from caracalai import AccessDenied, Authority, Caracal, CoordinatorError
from caracalai_oauth import decode_jwt_payload

from edge import ECHO, Edge
from programs import LABELS, READ, delegated, mint, narrow, present, run
from upstream import Upstream


def test_a_narrowed_session_calls_and_an_ended_one_does_not(
    caracal: Caracal, edge: Edge, upstream: Upstream
) -> None:
    async def program() -> None:
        async with delegated(caracal) as child:
            answer = await caracal.fetch(ECHO, "/read/session", scopes=READ)
            assert answer.status_code == 200, answer.text
            assert upstream.received[-1].path == "/read/session"
            kept = await mint(caracal, child)
        # The session ended with its block; a mandate minted before dies with it.
        late = await present(edge, kept)
        assert (late.status_code, late.json()["error"]) == (401, "invalid_token")
        with pytest.raises(AccessDenied):
            await mint(caracal, child)

    run(caracal, program)


def test_a_session_without_a_delegation_holds_lifecycle_authority_only(caracal: Caracal) -> None:
    async def program() -> None:
        async with caracal.session(labels=LABELS, ttl_seconds=300):
            with pytest.raises(AccessDenied):
                await caracal.fetch(ECHO, "/read/bare", scopes=READ)

    run(caracal, program)


def test_a_session_without_the_role_in_its_labels_is_denied(caracal: Caracal) -> None:
    async def program() -> None:
        async with caracal.session(labels=LABELS, ttl_seconds=300):
            async with caracal.session(authority=narrow(), labels=["other"], ttl_seconds=300):
                with pytest.raises(AccessDenied) as refused:
                    await caracal.fetch(ECHO, "/read/other", scopes=READ)
        assert refused.value.description == "policy denied (role_scope_mismatch)"

    run(caracal, program)


def test_a_grandchild_inherits_where_hops_are_left(caracal: Caracal, upstream: Upstream) -> None:
    async def program() -> None:
        async with delegated(caracal, max_hops=3) as child:
            async with caracal.session(labels=LABELS, ttl_seconds=300) as grandchild:
                assert grandchild.delegation_id
                assert grandchild.delegation_id != child.delegation_id
                answer = await caracal.fetch(ECHO, "/read/inherited", scopes=READ)
                assert answer.status_code == 200, answer.text
                assert upstream.received[-1].path == "/read/inherited"

    run(caracal, program)


def test_a_delegation_is_accepted_used_and_revoked(caracal: Caracal, edge: Edge) -> None:
    async def program() -> None:
        async with (
            caracal.session(labels=LABELS, ttl_seconds=300) as issuer,
            caracal.session(authority=Authority.none(), labels=LABELS, ttl_seconds=300) as receiver,
        ):
            async with caracal.bind(issuer):
                handed = await caracal.delegate(
                    to_session_id=receiver.session_id, scopes=READ, ttl_seconds=120, resource_id=ECHO
                )
            assert handed.scopes == tuple(READ)
            async with caracal.accept_delegation(handed.delegation_id, validate=True) as accepted:
                answer = await caracal.fetch(ECHO, "/read/accepted", scopes=READ)
                assert answer.status_code == 200, answer.text
                in_hand = await mint(caracal, accepted)
            async with caracal.bind(issuer):
                await caracal.revoke_delegation(handed.delegation_id)
            late = await present(edge, in_hand)
            assert (late.status_code, late.json()["error"]) == (401, "invalid_token")
            with pytest.raises(AccessDenied):
                await mint(caracal, accepted)
            with pytest.raises(RuntimeError):
                async with caracal.accept_delegation(handed.delegation_id, validate=True):
                    pass
        # Revoking took the receiver's session, not the application's own authority: both blocks ended cleanly.

    run(caracal, program)


def test_a_delegation_cannot_give_what_its_parent_does_not_hold(caracal: Caracal) -> None:
    async def program() -> None:
        async with delegated(caracal, max_hops=3):
            wider = Authority.narrow(["echo:write"], ttl_seconds=60, resource_id=ECHO)
            with pytest.raises(CoordinatorError) as refused:
                async with caracal.session(authority=wider, labels=LABELS, ttl_seconds=60):
                    pass
        assert (refused.value.status, refused.value.code) == (403, "delegation_exceeds_parent_authority")

    run(caracal, program)


def test_an_idempotency_key_replays_one_session_and_refuses_another(caracal: Caracal) -> None:
    key = "interop-one-operation"

    async def program() -> None:
        async with caracal.session(labels=LABELS, ttl_seconds=300, idempotency_key=key) as first:
            # The same request again, as a process would send it that has lost the answer.
            lost = replace(first, session_id=None)
            with pytest.raises(CoordinatorError) as refused:
                async with caracal.session(
                    labels=["other"], ttl_seconds=300, idempotency_key=key, parent_ctx=lost
                ):
                    pass
            async with caracal.session(
                labels=LABELS, ttl_seconds=300, idempotency_key=key, parent_ctx=lost
            ) as again:
                assert again.session_id == first.session_id
        assert (refused.value.status, refused.value.code) == (409, "idempotency_key_conflict")

    run(caracal, program)


class LosesTheFirstAnswer(httpx.AsyncBaseTransport):
    """The request arrives and is answered, and the answer to the first start of a session is lost on the way."""

    def __init__(self) -> None:
        self.inner = httpx.AsyncHTTPTransport()
        self.starts: list[tuple[httpx.Request, httpx.Response]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self.inner.handle_async_request(request)
        if request.method == "POST" and request.url.path.endswith("/agents"):
            self.starts.append((request, answer))
            await answer.aread()
            if len(self.starts) == 1:
                raise httpx.ReadError("the answer is lost", request=request)
        return answer


def test_a_start_whose_answer_was_lost_is_retried_and_starts_one_session(caracal: Caracal) -> None:
    async def program() -> None:
        lossy = LosesTheFirstAnswer()
        caracal.config.coordinator.http_client = httpx.AsyncClient(transport=lossy)
        async with caracal.session(labels=LABELS, ttl_seconds=300) as started:
            (lost, first), (retry, second) = lossy.starts
            assert first.json() == second.json()
            assert second.json()["agent_session_id"] == started.session_id
            assert "idempotency-replayed" not in first.headers
            assert second.headers["idempotency-replayed"] == "true"
            # The retry used the key that the SDK had made up for the first attempt.
            assert lost.headers["idempotency-key"] == retry.headers["idempotency-key"]
            assert lost.headers["idempotency-key-kind"] == "generated"

    run(caracal, program)


def test_an_idempotency_key_of_an_ended_session_starts_nothing(caracal: Caracal) -> None:
    async def program() -> None:
        async with caracal.session(labels=LABELS, ttl_seconds=300, idempotency_key="interop-ended"):
            pass
        with pytest.raises(CoordinatorError) as refused:
            async with caracal.session(labels=LABELS, ttl_seconds=300, idempotency_key="interop-ended"):
                pass
        assert (refused.value.status, refused.value.code) == (409, "idempotency_result_inactive")
        assert refused.value.request_id

    run(caracal, program)


def test_children_hold_what_they_were_given(caracal: Caracal, edge: Edge) -> None:
    async def program() -> None:
        async with delegated(caracal, max_hops=3) as child:
            async with caracal.session(authority=Authority.none(), labels=LABELS, ttl_seconds=60) as bare:
                assert bare.delegation_id is None
                with pytest.raises(AccessDenied):
                    await mint(caracal, bare)
            narrowed = Authority.narrow(READ, ttl_seconds=60, resource_id=ECHO)
            async with caracal.session(authority=narrowed, labels=LABELS, ttl_seconds=60) as grandchild:
                token = await mint(caracal, grandchild)
                claims = decode_jwt_payload(token)
                assert claims
                assert claims["delegation_path"] == [child.delegation_id, grandchild.delegation_id]
                assert claims["hop_count"] == 2
                assert len(claims["delegation_chain"]) == 3
                assert (await present(edge, token)).status_code == 200

    run(caracal, program)


def test_only_revocation_raises_the_epoch(caracal: Caracal) -> None:
    async def epoch() -> int:
        async with delegated(caracal) as child:
            claims = decode_jwt_payload(await mint(caracal, child))
        assert claims
        return claims["delegation_graph_epoch"]

    async def program() -> None:
        async with delegated(caracal) as child:
            before = decode_jwt_payload(await mint(caracal, child))
            async with delegated(caracal, parent_ctx=replace(child, session_id=None, delegation_id=None)):
                after_creating = decode_jwt_payload(await mint(caracal, child))
        assert before and after_creating
        assert after_creating["delegation_graph_epoch"] == before["delegation_graph_epoch"]
        # Ending those sessions ended their delegations.
        assert await epoch() > before["delegation_graph_epoch"]

    run(caracal, program)


def test_a_zone_holds_more_than_fifty_sessions(caracal: Caracal) -> None:
    async def program() -> None:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(caracal.session(labels=LABELS, ttl_seconds=300))
            # Siblings, not a chain: each is started as a program without a session of its own would.
            apart = replace(first, session_id=None)
            for _ in range(60):
                sibling = caracal.session(labels=LABELS, ttl_seconds=300, parent_ctx=apart)
                await stack.enter_async_context(sibling)

    run(caracal, program)
