"""The official MCP client and server over streamable HTTP, with the edge between them and a mandate as the token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager

import httpx2
import pytest
from caracalai import Caracal
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from edge import MCP, Edge
from mcp_upstream import McpUpstream
from programs import Agent


@pytest.fixture
def agent(caracal: Caracal) -> Agent:
    return Agent(caracal, MCP, ["mcp:use"])


class FreshMandates(httpx2.Auth):
    """One for each request, as an application would have it that can ask for them."""

    def __init__(self, mandate: Callable[[], str]) -> None:
        self._mandate = mandate

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        request.headers["Authorization"] = f"Bearer {self._mandate()}"
        yield request


@asynccontextmanager
async def connected(edge: Edge, mode: str, **how: object) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(timeout=10, **how) as http,  # type: ignore[arg-type]
        Client(streamable_http_client(f"{edge.gateway}/mcp/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_tools_are_listed_called_and_tell_their_progress(
    mode: str, agent: Agent, edge: Edge, mcp_server: McpUpstream
) -> None:
    before = len(mcp_server.headers)
    told: list[float] = []

    async def remember(progress: float, *_: object) -> None:
        told.append(progress)

    async def program() -> None:
        headers = {"Authorization": f"Bearer {agent.reusable_mandate(edge)}"}
        async with connected(edge, mode, headers=headers) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == {"add", "count", "hang"}
            added = await client.call_tool("add", {"a": 2, "b": 3})
            assert added.content[0].text == "5"
            counted = await client.call_tool("count", {"to": 3}, progress_callback=remember)
            assert counted.content[0].text == "counted"

    asyncio.run(program())
    assert told == [0, 1, 2]
    seen = mcp_server.headers[before:]
    assert {headers["authorization"] for headers in seen} == {f"Bearer {edge.provider_key}"}


def test_a_client_that_can_asks_for_a_mandate_before_each_request(agent: Agent, edge: Edge) -> None:
    async def program() -> None:
        async with connected(edge, "auto", auth=FreshMandates(agent.mandate)) as client:
            for number in range(3):
                added = await client.call_tool("add", {"a": number, "b": 1})
                assert added.content[0].text == str(number + 1)

    asyncio.run(program())


def test_a_call_under_way_ends_with_its_session_and_the_next_one_is_refused(agent: Agent, edge: Edge) -> None:
    began = asyncio.Event()

    async def begin(*_: object) -> None:
        began.set()

    async def program() -> None:
        headers = {"Authorization": f"Bearer {agent.reusable_mandate(edge)}"}
        async with connected(edge, "auto", headers=headers) as client:
            hanging = asyncio.create_task(client.call_tool("hang", progress_callback=begin))
            await asyncio.wait_for(began.wait(), timeout=10)
            await asyncio.to_thread(edge.revoke, agent.session)
            with pytest.raises(MCPError, match="ended without a response"):
                await asyncio.wait_for(hanging, timeout=10)
            with pytest.raises(MCPError, match="error response"):
                await client.call_tool("add", {"a": 1, "b": 1})

    asyncio.run(program())


def test_a_server_is_not_reached_without_a_mandate(edge: Edge, mcp_server: McpUpstream) -> None:
    before = len(mcp_server.headers)

    async def program() -> None:
        async with connected(edge, "auto", headers={"Authorization": "Bearer guessed"}):
            pass

    with pytest.raises(BaseExceptionGroup):
        asyncio.run(program())
    assert len(mcp_server.headers) == before
