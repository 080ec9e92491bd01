"""The official Redis consumers and store read what a node of a fleet says."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from caracalai import AccessDenied, Caracal, CaracalContext
from caracalai_oauth import decode_jwt_payload
from caracalai_revocation import InMemoryRevocationStore
from caracalai_revocation_redis import (
    DELEGATION_INVALIDATION_STREAM,
    REVOCATION_STREAM,
    RedisDelegationInvalidationConsumer,
    RedisRevocationConsumer,
    RedisRevocationStore,
)

from edge import ECHO, ZONE, Edge
from process import free_ports
from programs import READ, delegated, mint, present, run, use_variables_of
from redis_server import RedisServer
from upstreams import Upstreams

KEY = secrets.token_bytes(32)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), free_ports(1)[0])
    yield server
    server.close()


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory,
    upstreams: Upstreams,
    redis_server: RedisServer,
) -> Iterator[Edge]:
    home: Path = tmp_path_factory.mktemp("node")
    home.chmod(0o700)
    edge = Edge(home, upstreams)
    edge.join_fleet(redis_server.port, KEY.hex())
    edge.start()
    yield edge
    edge.stop()


@pytest.fixture
def client(node: Edge, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caracal]:
    use_variables_of(node, monkeypatch)
    caracal = Caracal()
    yield caracal


def consumers(server: RedisServer, store: object, key: bytes = KEY, group: str = "test") -> list:
    """Both consumers, as a resource server would run them, in groups of this test's own."""
    made = [
        RedisRevocationConsumer(
            server.client, store, "me", group=group, block_ms=1, stream_hmac_key=key
        ),
        RedisDelegationInvalidationConsumer(
            server.client, store, "me", group=group, block_ms=1, stream_hmac_key=key
        ),
    ]
    for consumer in made:
        consumer.ensure_group()
    return made


def until(condition, consumers: list) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the consumers never heard of it"
        for consumer in consumers:
            consumer.poll_once()


def ended_claims(client: Caracal, node: Edge) -> dict:
    """The claims of a mandate whose session and delegation have ended."""
    found: dict = {}

    async def program() -> None:
        async with delegated(client) as child:
            answer = await client.fetch(ECHO, "/read/fleet", scopes=READ)
            assert answer.status_code == 200, answer.text
            kept = await mint(client, child)
            found.update(decode_jwt_payload(kept))
        late = await present(node, kept)
        assert late.status_code == 401

    run(client, program)
    return found


def test_a_store_of_its_own_learns_of_sessions_delegations_and_epochs(
    client: Caracal, node: Edge, redis_server: RedisServer
) -> None:
    store = InMemoryRevocationStore()
    reading = consumers(redis_server, store, group="own-store")
    claims = ended_claims(client, node)
    until(lambda: store.is_revoked(claims["agent_session_id"]), reading)
    until(lambda: store.is_revoked(claims["delegation_edge_id"]), reading)
    until(lambda: store.current_delegation_epoch(ZONE) > claims.get("delegation_graph_epoch", 0), reading)
    # The application's own record is shared by its other sessions and stays good.
    assert not store.is_revoked(claims["sid"])
    for stream in (REVOCATION_STREAM, DELEGATION_INVALIDATION_STREAM):
        assert not redis_server.client.exists(f"{stream}.dead"), "every message was understood"


def test_the_shared_store_knows_without_any_consumer(
    client: Caracal, node: Edge, redis_server: RedisServer
) -> None:
    store = RedisRevocationStore(redis_server.client)
    claims = ended_claims(client, node)
    until(lambda: store.is_revoked(claims["agent_session_id"]), [])
    until(lambda: store.is_revoked(claims["delegation_edge_id"]), [])
    until(lambda: store.current_delegation_epoch(ZONE) > claims.get("delegation_graph_epoch", 0), [])
    left = redis_server.client.pttl(f"caracal:revoked:sessions:{claims['agent_session_id']}")
    assert 86_000_000 < left <= 86_400_000


def test_with_another_key_nothing_is_believed(
    client: Caracal, node: Edge, redis_server: RedisServer
) -> None:
    store = InMemoryRevocationStore()
    reading = consumers(redis_server, store, key=secrets.token_bytes(32), group="another-key")
    claims = ended_claims(client, node)
    until(lambda: redis_server.client.exists(f"{REVOCATION_STREAM}.dead"), reading)
    assert not store.is_revoked(claims["agent_session_id"])
    redis_server.client.delete(f"{REVOCATION_STREAM}.dead", f"{DELEGATION_INVALIDATION_STREAM}.dead")


def test_what_another_producer_says_ends_a_session_here(
    client: Caracal, node: Edge, redis_server: RedisServer
) -> None:
    async def refused(child: CaracalContext) -> bool:
        try:
            await mint(client, child)
        except AccessDenied:
            return True
        return False

    async def program() -> None:
        async with delegated(client) as child:
            kept = await mint(client, child)
            fields = {
                "zone_id": ZONE,
                "agent_session_id": decode_jwt_payload(kept)["agent_session_id"],
                "reason": "requested",
                "dedupe_key": "one",
            }
            redis_server.client.xadd(REVOCATION_STREAM, signed(REVOCATION_STREAM, fields))
            deadline = time.monotonic() + 10
            while not await refused(child):
                assert time.monotonic() < deadline, "the edge never heard of it"
            late = await present(node, kept)
            assert (late.status_code, late.json()["error"]) == (401, "invalid_token")

    run(client, program)


def signed(stream: str, fields: dict[str, str]) -> dict[str, str]:
    """The published canonical form: the stream, then each field in the order of its name."""
    lines = "".join(f"{name}={fields[name]}\n" for name in sorted(fields))
    signature = hmac.new(KEY, f"{stream}\n{lines}".encode(), hashlib.sha256).hexdigest()
    return {**fields, "_sig": signature}
