"""The official MCP client and server with an edge between them that decides tool by tool."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from caracalai import Caracal
from mcp import Client, MCPError
from mcp.client.auth.utils import (
    build_protected_resource_metadata_discovery_urls,
    extract_resource_metadata_from_www_auth,
    handle_protected_resource_response,
)
from mcp.client.streamable_http import streamable_http_client

from edge import TOOLS, Edge
from mcp_upstream import McpUpstream
from node import MODULES, node_with
from process import Process, free_ports
from programs import Agent

EXAMPLES = Path(__file__).parent.parent / "examples"

MODES = pytest.mark.parametrize("mode", ["auto", "legacy"])


@asynccontextmanager
async def connected(edge: Edge, mode: str, mandate: str) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {mandate}"}
    async with (
        httpx2.AsyncClient(timeout=10, headers=headers) as http,
        Client(streamable_http_client(f"{edge.gateway}/tools/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


@MODES
def test_a_client_sees_and_calls_the_tools_of_its_mandate_and_is_told_of_others(
    mode: str, caracal: Caracal, edge: Edge, mcp_server: McpUpstream
) -> None:
    mandate = Agent(caracal, TOOLS, ["tools:connect", "tools:add"]).reusable_mandate(edge)

    async def program() -> None:
        async with connected(edge, mode, mandate) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["add"]
            added = await client.call_tool("add", {"a": 2, "b": 3})
            assert added.content[0].text == "5"
            before = len(mcp_server.headers)
            with pytest.raises(MCPError, match="operation_not_permitted") as lacking:
                await client.call_tool("count", {"to": 1})
            assert lacking.value.error.data["missing"] == {"scopes": ["tools:count"]}
            with pytest.raises(MCPError, match="operation_not_permitted") as unlisted:
                await client.call_tool("hang")
            assert "missing" not in unlisted.value.error.data
            for denied in (client.list_resources, client.list_prompts):
                with pytest.raises(MCPError, match="operation_not_permitted"):
                    await denied()
            # The client keeps a stream of the server open beside its calls, and may open it again.
            posted = [headers for headers in mcp_server.headers[before:] if "content-length" in headers]
            assert not posted

    asyncio.run(program())


@MODES
def test_more_scopes_show_more_tools_and_progress_is_told(mode: str, caracal: Caracal, edge: Edge) -> None:
    mandate = Agent(caracal, TOOLS, ["tools:connect", "tools:add", "tools:count"]).reusable_mandate(edge)
    told: list[float] = []

    async def remember(progress: float, *_: object) -> None:
        told.append(progress)

    async def program() -> None:
        async with connected(edge, mode, mandate) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == {"add", "count"}
            counted = await client.call_tool("count", {"to": 3}, progress_callback=remember)
            assert counted.content[0].text == "counted"

    asyncio.run(program())
    assert told == [0, 1, 2]


def test_the_ledger_says_which_tool_was_called(caracal: Caracal, edge: Edge) -> None:
    mandate = Agent(caracal, TOOLS, ["tools:connect", "tools:add"]).reusable_mandate(edge)
    called = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "hang", "arguments": {}}}
    answer = httpx2.post(
        f"{edge.gateway}/tools/mcp", json=called, headers={"Authorization": f"Bearer {mandate}"}
    )
    refused = answer.json()["error"]
    assert (answer.status_code, refused["data"]["error"]) == (403, "operation_not_permitted")
    records = [record for record in edge.records() if record["event_type"] == "gateway_decision"]
    names = [(record["decision"], record["metadata_json"].get("mcp_tool")) for record in records]
    assert ("deny", "hang") in names


def test_the_official_client_discovers_the_authority(edge: Edge) -> None:
    url = f"{edge.gateway}/tools/mcp"
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    refused = httpx2.post(url, json=ping)
    assert refused.status_code == 401
    told = extract_resource_metadata_from_www_auth(refused)
    assert told == f"{edge.gateway}/.well-known/oauth-protected-resource/tools/mcp"
    assert build_protected_resource_metadata_discovery_urls(told, url)[0] == told
    metadata = asyncio.run(handle_protected_resource_response(httpx2.get(told)))
    assert metadata is not None
    assert str(metadata.resource) == url
    authority = str(metadata.authorization_servers[0]).rstrip("/")
    assert authority == edge.authority
    with urllib.request.urlopen(f"{edge.authority}/.well-known/oauth-authorization-server", timeout=10) as answer:
        assert json.load(answer)["issuer"] == authority


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Process]:
    """`examples/mcp` as its page says, with both sides on ports that are free."""
    process = Process(tmp_path / "mcp")
    shutil.copytree(EXAMPLES / "mcp", process.home)
    process.home.chmod(0o700)
    (port,) = free_ports(1)
    for name in ("secrets.toml", "bundles/team.toml"):
        file = process.home / name
        file.write_text(file.read_text().replace("127.0.0.1:9100", f"127.0.0.1:{port}"))
        file.chmod(0o600)
    line = process.run("secret", "new", "--secret-file", str(process.home / "agent.secret"))
    bundle = process.home / "bundles/team.toml"
    bundle.write_text(bundle.read_text().replace("secrets = []\n", line))
    process.listen_on_free_ports()
    server = subprocess.Popen([sys.executable, str(process.home / "server.py"), str(port)])
    try:
        process.start()
        deadline = time.monotonic() + 30
        while not listens(port):
            assert server.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        yield process
        process.stop()
    finally:
        server.kill()
        server.wait()


CLIENTS = {"python": "python3 client.py", "typescript": "node client.mjs"}


@pytest.mark.parametrize("client", CLIENTS)
def test_the_example_does_what_its_page_says(client: str, example: Process) -> None:
    assert "all good: 7 passed" in example.run("test", "--config", str(example.config))
    if client == "typescript":
        node_with("@modelcontextprotocol/sdk")
        # What `npm install` would leave there.
        (example.home / "node_modules").symlink_to(MODULES)
    script = f"""
        set -eu
        cd "{example.home}"
        eval "$("{example.binary}" env --config caracal.toml --app agent --secret-file agent.secret)"
        export MCP_URL={example.gateway}/docs/mcp
        export MCP_TOKEN=$(python3 "{EXAMPLES}/providers/mandate.py" resource://docs docs:connect docs:read)
        {CLIENTS[client]}
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    clean = {"PATH": path, "HOME": str(example.home)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=clean, timeout=60)
    page = (EXAMPLES / "mcp/README.md").read_text()
    assert done.returncode == 0, done.stderr
    # Node shows an array in its own way.
    told = done.stdout.replace("[ 'docs:write' ]", "['docs:write']")
    assert told.count("\n") == 3
    assert all(f"    {line}\n" in page for line in told.splitlines()), told
