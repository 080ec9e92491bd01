"""The official TypeScript client for MCP, unmodified, with an edge between it and the official server for Python."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from caracalai import Caracal

from edge import MCP, TOOLS, Edge
from mcp_upstream import McpUpstream
from node import NodeProgram
from programs import Agent


class Client(NodeProgram):
    """`mcp_client.mjs`: a step and what came of it."""

    def __init__(self, log: Path) -> None:
        super().__init__("mcp_client.mjs", "@modelcontextprotocol/sdk", log)

    def do(self, step: str, **more: Any) -> Any:
        answer = self.ask(json.dumps({"do": step, **more}))
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def refused(self, step: str, **more: Any) -> dict[str, Any]:
        """The refusal of the edge, as the SDK passes it on: the status, and the answer within the message."""
        error = self.ask(json.dumps({"do": step, **more}))["error"]
        _, _, answer = error["message"].partition("Error POSTing to endpoint: ")
        told = json.loads(answer)
        assert told.get("jsonrpc", "2.0") == "2.0"
        return {"status": error["code"], **told}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    running = Client(tmp_path / "client.log")
    yield running
    running.close()


def connect(client: Client, edge: Edge, agent: Agent, path: str = "tools") -> Any:
    return client.do("connect", url=f"{edge.gateway}/{path}/mcp", mandate=agent.reusable_mandate(edge))


def test_it_sees_and_calls_the_tools_of_its_mandate_and_is_told_of_others(
    client: Client, caracal: Caracal, edge: Edge, mcp_server: McpUpstream
) -> None:
    connected = connect(client, edge, Agent(caracal, TOOLS, ["tools:connect", "tools:add"]))
    assert connected["server"] == "interop"
    assert connected["session"]
    assert client.do("tools") == ["add"]
    assert client.do("call", name="add", **{"with": {"a": 2, "b": 3}})["text"] == "5"
    before = len(mcp_server.headers)
    lacking = client.refused("call", name="count", **{"with": {"to": 1}})
    assert (lacking["status"], lacking["error"]["data"]["error"]) == (403, "operation_not_permitted")
    assert lacking["error"]["data"]["missing"] == {"scopes": ["tools:count"]}
    unlisted = client.refused("call", name="hang")
    assert unlisted["error"]["data"]["error"] == "operation_not_permitted"
    assert "missing" not in unlisted["error"]["data"]
    assert all(type(told["id"]) is int for told in (lacking, unlisted))
    posted = [headers for headers in mcp_server.headers[before:] if "content-length" in headers]
    assert not posted


@pytest.mark.parametrize("step", ["resources", "prompts"])
def test_methods_that_are_not_listed_are_denied(client: Client, caracal: Caracal, edge: Edge, step: str) -> None:
    connect(client, edge, Agent(caracal, TOOLS, ["tools:connect"]))
    assert client.do("tools") == []
    assert client.refused(step)["error"]["data"]["error"] == "operation_not_permitted"


def test_progress_is_told_and_the_server_gets_its_own_credential(
    client: Client, caracal: Caracal, edge: Edge, mcp_server: McpUpstream
) -> None:
    before = len(mcp_server.headers)
    connect(client, edge, Agent(caracal, TOOLS, ["tools:connect", "tools:add", "tools:count"]))
    assert sorted(client.do("tools")) == ["add", "count"]
    counted = client.do("call", name="count", **{"with": {"to": 3}})
    assert (counted["text"], counted["progress"]) == ("counted", [0, 1, 2])
    seen = mcp_server.headers[before:]
    assert {headers["authorization"] for headers in seen} == {f"Bearer {edge.provider_key}"}


def test_a_call_that_is_given_up_is_cancelled_at_the_server(
    client: Client, caracal: Caracal, edge: Edge, mcp_server: McpUpstream
) -> None:
    connect(client, edge, Agent(caracal, MCP, ["mcp:use"]), path="mcp")
    assert client.do("begin", name="hang") == "began"
    assert "no longer needed" in client.ask(json.dumps({"do": "abort"}))["error"]["message"]
    assert mcp_server.cancelled.wait(10)
    # The session goes on.
    assert client.do("call", name="add", **{"with": {"a": 1, "b": 1}})["text"] == "2"


def test_a_call_under_way_is_cut_when_its_session_ends_and_the_next_one_is_refused(
    client: Client, caracal: Caracal, edge: Edge
) -> None:
    agent = Agent(caracal, MCP, ["mcp:use"])
    connect(client, edge, agent, path="mcp")
    assert client.do("begin", name="hang") == "began"
    edge.revoke(agent.session)
    # The SDK has no event to resume from and waits on; that the call was cut stands in the ledger.
    wait_for_cut(edge, agent.session)
    refused = client.refused("call", name="add", **{"with": {"a": 1, "b": 1}})
    assert (refused["status"], refused["error"]) == (401, "invalid_token")


def wait_for_cut(edge: Edge, session: str) -> None:
    deadline = time.monotonic() + 10
    while True:
        records = edge.records()
        requests = {
            record["request_id"]
            for record in records
            if record["metadata_json"].get("agent_session_id") == session
        }
        ours = [record["metadata_json"] for record in records if record["request_id"] in requests]
        if any((metadata.get("method"), metadata.get("cut")) == ("POST", "revoked") for metadata in ours):
            return
        assert time.monotonic() < deadline, ours
        time.sleep(0.02)


def test_a_session_is_ended_at_the_server(client: Client, caracal: Caracal, edge: Edge) -> None:
    agent = Agent(caracal, TOOLS, ["tools:connect", "tools:add"])
    headers = {"Mcp-Session-Id": connect(client, edge, agent)["session"]}
    headers["Authorization"] = f"Bearer {agent.reusable_mandate(edge)}"
    headers["Accept"] = "application/json, text/event-stream"
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    url = f"{edge.gateway}/tools/mcp"
    assert httpx.post(url, json=ping, headers=headers).status_code == 200
    assert client.do("terminate") == {"session": None}
    assert httpx.post(url, json=ping, headers=headers).status_code == 404


def test_it_discovers_the_authority(client: Client, edge: Edge) -> None:
    url = f"{edge.gateway}/tools/mcp"
    found = client.do("discover", url=url)
    assert found["at"] == f"{edge.gateway}/.well-known/oauth-protected-resource/tools/mcp"
    assert found["resource"]["resource"] == url
    assert found["resource"]["authorization_servers"] == [edge.authority]
    assert found["authority"]["issuer"] == edge.authority
