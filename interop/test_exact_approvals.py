"""Requests that a person approves, to the byte: the official SDK over HTTP, and the official MCP client with a tool."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from caracalai import Caracal
from mcp import MCPError

from edge import ECHO, TOOLS, ZONE, Edge
from mcp_upstream import McpUpstream
from programs import Agent
from test_mcp_tools import connected
from upstream import Upstream

WRITE = ["echo:write"]

TIER = '\n[[approval_tiers]]\ntier = "large"\nttl_seconds = 120\n'
PAYMENTS = """guards = [{ name = "large", when = "has(body.amount) && body.amount > 1000", effect = "approval", \
tier = "large", show = ["/amount"], operations = ["POST /write/**"] }]
"""
SUMS = """guards = [{ name = "large-sums", when = "mcp.arguments.a > 100", tools = ["add"], effect = "approval", \
tier = "large", show = ["/a"] }]
"""


@pytest.fixture
def asking(own_edge: Edge) -> Iterator[Caracal]:
    """A client of an edge whose guards have a person approve large payments and large sums."""
    bundle = own_edge.home / "bundles" / f"{ZONE}.toml"
    text = bundle.read_text().replace('= ["echo:read"] }', '= ["echo:read", "echo:write"] }')
    for resource, guards in ((ECHO, PAYMENTS), (TOOLS, SUMS)):
        text = text.replace(f'identifier = "{resource}"\n', f'identifier = "{resource}"\n{guards}', 1)
    bundle.write_text(text + TIER)
    own_edge.run("reload", "--config", str(own_edge.config))
    client = Caracal()
    yield client
    asyncio.run(client.aclose())


def waiting(edge: Edge) -> dict[str, object]:
    [row] = json.loads(edge.run("--json", "approvals", "list", "--config", str(edge.config)))["approvals"]
    return row


def test_a_payment_waits_for_its_yes_and_is_made_once(
    asking: Caracal, own_edge: Edge, upstream: Upstream
) -> None:
    payment = {"amount": 5000, "to": "acme"}
    before = len(upstream.received)
    with asking.sync_application_transport(ECHO, scopes=WRITE) as client:
        url = f"{upstream.url}/write/pay"
        held = client.post(url, json=payment)
        assert (held.status_code, held.json()["error"]) == (403, "interaction_required"), held.text
        told = held.json()
        row = waiting(own_edge)
        assert (row["id"], row["binding"]) == (told["approval_id"], told["binding"])
        assert row["request"]["shown"] == {"/amount": "5000"}
        assert asking.wait_for_approval(told["approval_id"], timeout_seconds=1) == "pending"
        own_edge.run("approvals", "approve", str(row["id"]), "--config", str(own_edge.config))
        assert asking.wait_for_approval(told["approval_id"], timeout_seconds=10) == "approved"
        on = {"X-Caracal-Approval": told["approval_id"]}
        other = client.post(url, json=payment | {"to": "evil"}, headers=on)
        assert (other.status_code, other.json()["error"]) == (403, "approval_mismatch"), other.text
        assert len(upstream.received) == before
        made = client.post(url, json=payment, headers=on)
        assert made.status_code == 200, made.text
        again = client.post(url, json=payment)
        assert (again.status_code, again.content) == (200, made.content)
        assert again.headers["X-Caracal-Replayed"] == told["approval_id"]
    assert len(upstream.received) == before + 1
    assert upstream.received[-1].path == "/write/pay"


def test_a_tool_is_called_once_a_person_said_yes(
    asking: Caracal, own_edge: Edge, mcp_server: McpUpstream
) -> None:
    mandate = Agent(asking, TOOLS, ["tools:connect", "tools:add"]).reusable_mandate(own_edge)

    async def program() -> None:
        async with connected(own_edge, "auto", mandate) as client:
            assert (await client.call_tool("add", {"a": 1, "b": 2})).content[0].text == "3"
            before = sum("content-length" in headers for headers in mcp_server.headers)
            with pytest.raises(MCPError, match="interaction_required") as held:
                await client.call_tool("add", {"a": 500, "b": 2})
            approval = held.value.error.data["approval_id"]
            row = waiting(own_edge)
            assert (row["id"], row["request"]["tool"], row["request"]["shown"]) == (approval, "add", {"/a": "500"})
            own_edge.run("approvals", "approve", approval, "--config", str(own_edge.config))
            with pytest.raises(MCPError, match="interaction_required") as other:
                await client.call_tool("add", {"a": 500, "b": 3})
            assert other.value.error.data["approval_id"] != approval
            assert sum("content-length" in headers for headers in mcp_server.headers) == before
            assert (await client.call_tool("add", {"a": 500, "b": 2})).content[0].text == "502"

    asyncio.run(program())
