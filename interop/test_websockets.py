"""A WebSocket through the edge, with a real client and a real server: gated like any request, cut like any stream."""

from __future__ import annotations

import os
import threading
import time

import pytest
from caracalai import Caracal
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from edge import SOCKETS, Edge
from programs import Agent
from socket_upstream import FRAME, SocketUpstream

PATIENCE = 5


@pytest.fixture
def agent(caracal: Caracal) -> Agent:
    return Agent(caracal, SOCKETS, ["socket:use"])


def open_socket(edge: Edge, path: str, mandate: str) -> ClientConnection:
    url = edge.gateway.replace("http://", "ws://") + f"/sockets{path}"
    headers = {"Authorization": f"Bearer {mandate}"}
    return connect(url, additional_headers=headers, max_size=None, open_timeout=PATIENCE, close_timeout=PATIENCE)


def request_id(connection: ClientConnection) -> str:
    assert connection.response is not None
    return connection.response.headers["X-Request-Id"]


def test_messages_pass_both_ways_until_either_closes(
    agent: Agent, edge: Edge, sockets: SocketUpstream
) -> None:
    large = os.urandom(1_000_000)
    with open_socket(edge, "/chat", agent.mandate()) as connection:
        for message in ("hello", "", large):
            connection.send(message)
            assert connection.recv(timeout=PATIENCE) == message
        # A message in parts, and a frame of the protocol's own.
        connection.send(["in ", "three ", "parts"])
        assert connection.recv(timeout=PATIENCE) == "in three parts"
        assert connection.ping().wait(timeout=PATIENCE)
        connection.close(4001, "enough")
    closed = sockets.ended.get(timeout=PATIENCE)
    assert closed.rcvd is not None
    assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "enough")
    handshake = sockets.handshakes[-1]
    assert handshake["X-Api-Key"] == edge.api_key
    assert "Authorization" not in handshake

    result = edge.result(request_id(connection))
    metadata = result["metadata_json"]
    assert result["evaluation_status"] == "executed", result
    assert (metadata["upstream_status"], metadata["gateway_status"]) == (101, 101)
    assert metadata["result_class"] == "success"
    assert metadata["request_bytes"] > len(large)
    assert metadata["response_bytes"] > len(large)
    assert "cut" not in metadata


def test_a_handshake_is_gated_like_any_request(agent: Agent, edge: Edge, sockets: SocketUpstream) -> None:
    before = len(sockets.handshakes)
    used = agent.mandate()
    with open_socket(edge, "/chat", used):
        pass
    for path, mandate, status in (
        ("/chat", "not-a-mandate", 401),
        ("/chat", used, 401),
        ("/elsewhere", agent.mandate(), 403),
    ):
        with pytest.raises(InvalidStatus) as refused:
            open_socket(edge, path, mandate)
        assert refused.value.response.status_code == status, path
    assert len(sockets.handshakes) == before + 1
    sockets.ended.get(timeout=PATIENCE)


def test_revoking_its_session_cuts_an_idle_socket(agent: Agent, edge: Edge, sockets: SocketUpstream) -> None:
    with open_socket(edge, "/chat", agent.mandate()) as connection:
        connection.send("before")
        assert connection.recv(timeout=PATIENCE) == "before"
        edge.revoke(agent.session)
        # No close frame: the edge does not read frames, and the end must not look like one of the server's.
        with pytest.raises(ConnectionClosedError) as cut:
            connection.recv(timeout=PATIENCE)
        assert cut.value.rcvd is None
    assert sockets.ended.get(timeout=PATIENCE).rcvd is None
    was_cut(edge, connection, at_least=len("before"))


def test_revoking_its_session_cuts_a_busy_socket(agent: Agent, edge: Edge, sockets: SocketUpstream) -> None:
    received = 0
    ends: list[ConnectionClosed] = []

    def read() -> None:
        nonlocal received
        try:
            while True:
                received += len(connection.recv())
        except ConnectionClosed as end:
            ends.append(end)

    def write() -> None:
        try:
            while True:
                connection.send(FRAME[:1000])
        except ConnectionClosed as end:
            ends.append(end)

    with open_socket(edge, "/flood", agent.mandate()) as connection:
        workers = [threading.Thread(target=work, daemon=True) for work in (read, write)]
        for worker in workers:
            worker.start()
        deadline = time.monotonic() + PATIENCE
        while received < 20 * len(FRAME):
            assert time.monotonic() < deadline, "nothing flows"
            time.sleep(0.005)
        edge.revoke(agent.session)
        for worker in workers:
            worker.join(timeout=PATIENCE)
            assert not worker.is_alive(), "it was not cut"
    assert [end.rcvd for end in ends] == [None, None]
    assert sockets.ended.get(timeout=PATIENCE).rcvd is None
    was_cut(edge, connection, at_least=received)


def was_cut(edge: Edge, connection: ClientConnection, at_least: int) -> None:
    """The record of the call says so, and counts at least what was heard."""
    result = edge.result(request_id(connection))
    metadata = result["metadata_json"]
    assert result["evaluation_status"] == "interrupted", result
    assert (metadata["cut"], metadata["revocation_interrupted"]) == ("revoked", True)
    assert metadata["response_bytes"] >= at_least
    assert metadata["request_bytes"] > 0
