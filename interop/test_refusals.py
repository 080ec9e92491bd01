"""Every refusal a client program is likely to meet, with the code it branches on."""

from __future__ import annotations

import asyncio
import time

import pytest
from caracalai import (
    AccessDenied,
    Authority,
    Caracal,
    CaracalError,
    InvalidToken,
    OperationNotPermitted,
    ZoneMismatch,
)
from caracalai_oauth import ExchangeOptions, OAuthClient, decode_jwt_payload

from edge import APP, APPLICATION, ECHO, UNGRANTED, ZONE, Edge
from programs import delegated, mint, present, run
from upstream import Upstream


def test_a_scope_that_is_not_granted_is_denied_at_the_mint(caracal: Caracal, upstream: Upstream) -> None:
    before = len(upstream.received)
    with (
        caracal.sync_application_transport(ECHO, scopes=["echo:write"]) as client,
        pytest.raises(AccessDenied) as refused,
    ):
        client.post(f"{upstream.url}/write/hello", content=b"x")
    assert (refused.value.http_status, refused.value.code) == (403, "access_denied")
    assert refused.value.description == "policy denied (role_scope_mismatch)"
    assert refused.value.request_id
    assert not refused.value.is_retryable
    assert len(upstream.received) == before


def test_an_operation_that_the_mandate_does_not_cover_is_refused(
    caracal: Caracal, upstream: Upstream
) -> None:
    before = len(upstream.received)
    with caracal.sync_application_transport(ECHO, scopes=["echo:read"]) as client:
        undeclared = client.get(f"{upstream.url}/admin")
        wrong_scope = client.post(f"{upstream.url}/write/hello", content=b"x")
    for answer in (undeclared, wrong_scope):
        assert answer.status_code == 403
        assert answer.json()["error"] == OperationNotPermitted.code
        assert answer.json()["requestId"]
    assert len(upstream.received) == before


def test_a_mandate_is_good_once(caracal: Caracal, edge: Edge, upstream: Upstream) -> None:
    async def program() -> None:
        async with delegated(caracal) as child:
            token = await mint(caracal, child)
            before = len(upstream.received)
            first = await present(edge, token)
            second = await present(edge, token)
        assert first.status_code == 200, first.text
        assert second.status_code == 401
        assert second.json()["error"] == "invalid_token"
        assert second.headers["www-authenticate"].startswith("Bearer")
        assert len(upstream.received) == before + 1

    run(caracal, program)


def test_of_two_simultaneous_uses_exactly_one_passes(caracal: Caracal, edge: Edge) -> None:
    async def program() -> None:
        async with delegated(caracal) as child:
            token = await mint(caracal, child)
            answers = await asyncio.gather(*(present(edge, token) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7

    run(caracal, program)


def test_a_mandate_about_to_expire_is_refused(caracal: Caracal, edge: Edge) -> None:
    async def program() -> None:
        async with delegated(caracal) as child:
            answer = await present(edge, await mint(caracal, child, ttl_seconds=30))
        assert answer.status_code == 401
        assert answer.json()["error"] == "credential_expired_not_renewable"

    run(caracal, program)


def test_an_expired_mandate_is_refused(caracal: Caracal, edge: Edge) -> None:
    async def program() -> None:
        async with delegated(caracal) as child:
            token = await mint(caracal, child, ttl_seconds=1)
            claims = decode_jwt_payload(token)
            assert claims
            while time.time() <= claims["exp"]:
                await asyncio.sleep(0.05)
            answer = await present(edge, token)
        assert answer.status_code == 401
        assert answer.json()["error"] in ("invalid_token", "credential_expired_not_renewable")

    run(caracal, program)


def test_an_expired_delegation_mints_nothing(caracal: Caracal) -> None:
    async def program() -> None:
        short = Authority.narrow(["echo:read"], ttl_seconds=1, resource_id=ECHO)
        async with (
            caracal.session(labels=[APPLICATION], ttl_seconds=300),
            caracal.session(authority=short, labels=[APPLICATION], ttl_seconds=300) as child,
        ):
            deadline = time.monotonic() + 10
            with pytest.raises(AccessDenied) as refused:
                while time.monotonic() < deadline:
                    await mint(caracal, child)
                    await asyncio.sleep(0.1)
        assert refused.value.http_status == 403
        assert refused.value.request_id

    run(caracal, program)


def test_a_forgery_is_refused_and_does_not_burn_the_mandate(caracal: Caracal, edge: Edge) -> None:
    async def program() -> None:
        async with delegated(caracal) as child:
            token = await mint(caracal, child)
            head, payload, signature = token.split(".")
            other = ("A" if signature[0] != "A" else "B") + signature[1:]
            forged = await present(edge, ".".join([head, payload, other]))
            genuine = await present(edge, token)
        assert (forged.status_code, forged.json()["error"]) == (401, "invalid_token")
        assert genuine.status_code == 200, genuine.text

    run(caracal, program)


def test_a_lifecycle_mandate_opens_nothing_at_the_gateway(caracal: Caracal, edge: Edge) -> None:
    answer = asyncio.run(present(edge, caracal.config.subject_token))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")


def test_dot_segments_are_refused_at_any_depth_of_encoding(caracal: Caracal, edge: Edge) -> None:
    async def program() -> None:
        async with delegated(caracal) as child:
            for path in ("/read/%2e%2e/admin", "/read/..%2fadmin", "/read/%252e%252e/admin"):
                answer = await present(edge, await mint(caracal, child), path)
                assert answer.status_code == 400, path
                assert answer.json()["error"] == "invalid_token"

    run(caracal, program)


def test_a_wrong_secret_is_refused(edge: Edge) -> None:
    async def program() -> None:
        client = OAuthClient(edge.authority, ZONE, APPLICATION)
        options = ExchangeOptions(client_secret="not-the-secret", scopes=["agent:lifecycle"])
        try:
            await client.exchange("", ECHO, options)
        finally:
            await client.aclose()

    with pytest.raises(AccessDenied) as refused:
        asyncio.run(program())
    assert (refused.value.http_status, refused.value.code) == (401, "access_denied")
    assert refused.value.request_id


def test_the_zone_of_another_is_told_to_a_holder_of_the_secret_only(edge: Edge) -> None:
    async def program(secret: str) -> None:
        client = OAuthClient(edge.authority, "elsewhere", APPLICATION)
        try:
            await client.exchange("", ECHO, ExchangeOptions(client_secret=secret, scopes=["agent:lifecycle"]))
        finally:
            await client.aclose()

    with pytest.raises(ZoneMismatch) as mismatch:
        asyncio.run(program(edge.client_secret))
    assert (mismatch.value.http_status, mismatch.value.code) == (403, "zone_invalid")
    assert mismatch.value.request_id
    with pytest.raises(AccessDenied):
        asyncio.run(program("not-the-secret"))


def test_a_malformed_request_is_an_invalid_token(edge: Edge) -> None:
    async def program(**more: object) -> None:
        client = OAuthClient(edge.authority, ZONE, APPLICATION)
        options = ExchangeOptions(client_secret=edge.client_secret, scopes=["agent:lifecycle"], **more)
        try:
            await client.exchange("", ECHO, options)
        finally:
            await client.aclose()

    with pytest.raises(InvalidToken) as refused:
        asyncio.run(program(ttl_seconds=1_000_000))
    assert (refused.value.http_status, refused.value.code) == (400, "invalid_token")
    assert refused.value.request_id


def test_a_frozen_zone_refuses_and_recovers(caracal: Caracal, edge: Edge, upstream: Upstream) -> None:
    with caracal.sync_application_transport(ECHO, scopes=["echo:read"]) as client:
        assert client.get(f"{upstream.url}/read/before").status_code == 200
        before = len(upstream.received)
        edge.run("freeze", "--config", str(edge.config), ZONE)
        try:
            with pytest.raises(CaracalError) as refused:
                client.get(f"{upstream.url}/read/frozen")
        finally:
            edge.run("unfreeze", "--config", str(edge.config), ZONE)
        assert refused.value.http_status in (401, 403)
        assert len(upstream.received) == before
    fresh = Caracal()
    with fresh.sync_application_transport(ECHO, scopes=["echo:read"]) as client:
        assert client.get(f"{upstream.url}/read/after").status_code == 200
    asyncio.run(fresh.aclose())


def test_one_denied_resource_denies_the_whole_mint(edge: Edge) -> None:
    async def program(resources: list[str]) -> tuple[str, ...]:
        client = OAuthClient(edge.authority, ZONE, APPLICATION)
        options = ExchangeOptions(client_secret=edge.client_secret, scopes=["agent:lifecycle"])
        try:
            return tuple((await client.exchange("", resources, options)).target_resources)
        finally:
            await client.aclose()

    assert sorted(asyncio.run(program([ECHO, APP]))) == sorted([ECHO, APP])
    with pytest.raises(AccessDenied) as refused:
        asyncio.run(program([ECHO, UNGRANTED]))
    assert refused.value.http_status == 403


def test_unknown_and_not_granted_resources_are_told_the_same(caracal: Caracal) -> None:
    told = []
    for resource in ("resource://unknown", UNGRANTED):
        with pytest.raises(AccessDenied) as refused:
            caracal.mint_mandate(resource, ["agent:lifecycle"])
        told.append((refused.value.http_status, refused.value.description))
    assert told == [(403, "policy denied (resource_not_granted)")] * 2
