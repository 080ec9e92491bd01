"""The official MCP conformance suite: a server behind the edge passes exactly what it passes without it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from caracalai import Caracal

from edge import APPLICATION, ZONE, Edge
from node import MODULES, NodeProgram, node_with
from programs import Agent, use_variables_of
from test_mcp_typescript import Client
from upstreams import Upstreams

SUITE = "@modelcontextprotocol/conformance"
# The suite has no place for a token, so the mandate is in the query of the URL that it is given.
ADDED = """
[[providers]]
identifier = "provider://server"
kind = "bearer_token"
secret = "secret://server/key"
key_slots = [{{ query = "mandate" }}]

[[resources]]
identifier = "resource://plain"
upstream_url = "http://{address}"
scopes = ["plain:use"]
credential_provider = "provider://server"
operation_enforcement = "enforced"
operations = [{{ method = "*", path = "/mcp", scope = "plain:use" }}]
prefixes = ["/plain"]
reusable_mandates = true
query_key_slots = true

[[resources]]
identifier = "resource://by-tool"
upstream_url = "http://{address}"
scopes = ["tool:connect", "tool:call", "tool:rest"]
credential_provider = "provider://server"
prefixes = ["/by-tool"]
reusable_mandates = true
query_key_slots = true

[resources.mcp]
path = "/mcp"
scope = "tool:connect"
tools = [{tools}]
methods = [{methods}]

[grants."resource://plain"]
application = "main"
roles = {{ {application} = ["plain:use"] }}

[grants."resource://by-tool"]
application = "main"
roles = {{ {application} = ["tool:connect", "tool:call", "tool:rest"] }}
"""
METHODS = [
    "logging/setLevel", "completion/complete", "prompts/list", "prompts/get", "resources/list",
    "resources/templates/list", "resources/read", "resources/subscribe", "resources/unsubscribe",
]
RESOURCES = {"plain": ["plain:use"], "by-tool": ["tool:connect", "tool:call", "tool:rest"]}


class ConformanceEdge(Edge):
    """Two resources for one server: one takes whatever is sent to its endpoint, one goes tool by tool."""

    def __init__(self, home: Path, upstreams: Upstreams, server: NodeProgram) -> None:
        self._server = server
        super().__init__(home, upstreams)

    def _write_files(self, upstreams: Upstreams) -> None:
        super()._write_files(upstreams)
        address = self._server.ask("address")
        secret = f'[secrets.server]\nzones = ["{ZONE}"]\nhosts = ["{address}"]\nkey = "{self.provider_key}"\n'
        tools = entries(self._server.ask("tools"), "tool:call")
        added = ADDED.format(application=APPLICATION, address=address, tools=tools, methods=entries(METHODS, "tool:rest"))
        for name, more in (("secrets.toml", secret), (f"bundles/{ZONE}.toml", added)):
            self._write(name, (self.home / name).read_text() + more)
        config = self.config.read_text().replace('prefixes = [', 'prefixes = ["/plain", "/by-tool", ')
        self._write("caracal.toml", config)


def entries(names: list[str], scope: str) -> str:
    return ", ".join(f'{{ name = "{name}", scope = "{scope}" }}' for name in names)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NodeProgram]:
    running = NodeProgram("mcp_conformance.mjs", "@modelcontextprotocol/sdk", tmp_path / "server.log")
    yield running
    running.close()


@pytest.fixture
def edge(
    server: NodeProgram, tmp_path: Path, upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Edge]:
    home = tmp_path / "edge"
    home.mkdir(mode=0o700)
    running = ConformanceEdge(home, upstreams, server)
    running.start()
    use_variables_of(running, monkeypatch)
    yield running
    running.stop()


def checks(url: str, results: Path) -> dict[str, str]:
    """Each check of each scenario, and how it went. Notes of what was sent are left out."""
    node = node_with(SUITE)
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip("v").split(".")[0]) < 20:
        pytest.skip(f"the conformance suite needs Node 20, and this is {version.strip()}")
    program = [node, MODULES / SUITE / "dist/index.js", "server", "--url", url, "--suite", "all", "-o", results]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    found = {}
    for file in sorted(results.glob("*/checks.json")):
        scenario = re.sub(r"-\d{4}-\d\d-\d\dT.*", "", file.parent.name)
        for check in json.loads(file.read_text()):
            if check["status"] != "INFO":
                found[f"{scenario}: {check['id']}"] = check["status"]
    assert found, done.stdout + done.stderr
    return found


@pytest.mark.parametrize("resource", RESOURCES)
def test_what_passes_without_the_edge_passes_behind_it(
    resource: str, server: NodeProgram, edge: Edge, tmp_path: Path
) -> None:
    direct = checks(f"http://{server.ask('address')}/mcp", tmp_path / "direct")
    assert len([status for status in direct.values() if status == "SUCCESS"]) >= 40
    assert "FAILURE" not in direct.values()
    mandate = Agent(Caracal(), f"resource://{resource}", RESOURCES[resource]).reusable_mandate(edge)
    through = checks(f"{edge.gateway}/{resource}/mcp?mandate={mandate}", tmp_path / "through")
    assert through == direct


@pytest.mark.parametrize("resource", RESOURCES)
def test_the_typescript_client_takes_a_stream_up_again(resource: str, edge: Edge, tmp_path: Path) -> None:
    agent = Agent(Caracal(), f"resource://{resource}", RESOURCES[resource])
    client = Client(tmp_path / "client.log")
    try:
        client.do("connect", url=f"{edge.gateway}/{resource}/mcp", mandate=agent.reusable_mandate(edge))
        # The server ends the stream before it answers; the client comes back with `Last-Event-ID`.
        assert client.do("call", name="test_reconnection")["text"] == "resumed"
    finally:
        client.close()
    deadline = time.monotonic() + 10
    while len(streams(edge)) < 2:
        assert time.monotonic() < deadline, "only the server's own stream was asked for"
        time.sleep(0.02)


def streams(edge: Edge) -> set[str]:
    return {record["request_id"] for record in edge.records() if record["metadata_json"].get("method") == "GET"}
