"""Fixtures: one edge with its upstreams for the whole run, and a fresh SDK client for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from caracalai import Caracal

import resource_app
from apis import Apis
from edge import Edge
from mcp_upstream import McpUpstream
from programs import use_variables_of
from socket_upstream import SocketUpstream
from upstream import Upstream
from upstreams import Upstreams


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The replay and the canary tests come last: they look through everything that the whole run wrote."""
    last = ["test_replay.py", "test_canary.py"]
    items.sort(key=lambda item: last.index(item.path.name) if item.path.name in last else -1)


@pytest.fixture(scope="session")
def upstreams() -> Iterator[Upstreams]:
    servers = Upstreams()
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def upstream(upstreams: Upstreams) -> Upstream:
    return upstreams.echo


@pytest.fixture(scope="session")
def app_server(upstreams: Upstreams) -> resource_app.Server:
    return upstreams.app


@pytest.fixture(scope="session")
def apis(upstreams: Upstreams) -> Apis:
    return upstreams.apis


@pytest.fixture(scope="session")
def sockets(upstreams: Upstreams) -> SocketUpstream:
    return upstreams.sockets


@pytest.fixture(scope="session")
def mcp_server(upstreams: Upstreams) -> McpUpstream:
    return upstreams.mcp


@pytest.fixture(scope="session")
def edge(tmp_path_factory: pytest.TempPathFactory, upstreams: Upstreams) -> Iterator[Edge]:
    home: Path = tmp_path_factory.mktemp("edge")
    # Where the temporary folder itself is shared, the edge insists on a private one.
    home.chmod(0o700)
    running = Edge(home, upstreams)
    running.start()
    upstreams.app.protect(issuer=running.authority)
    yield running
    running.stop()


@pytest.fixture
def own_edge(
    tmp_path: Path, upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Edge]:
    """An edge that a test may stop, with its variables in the environment."""
    home = tmp_path / "own"
    home.mkdir(mode=0o700)
    running = Edge(home, upstreams)
    running.start()
    use_variables_of(running, monkeypatch)
    yield running
    running.stop()


@pytest.fixture
def sdk_environment(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Edge:
    """Exactly the documented variables, as `caracal env` prints them; none from outside."""
    use_variables_of(edge, monkeypatch)
    return edge


@pytest.fixture
def caracal(sdk_environment: Edge) -> Iterator[Caracal]:
    """A client made the way the documentation makes it: no arguments. Closing a closed one does nothing."""
    client = Caracal()
    yield client
    asyncio.run(client.aclose())
