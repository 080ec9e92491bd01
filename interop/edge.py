"""The edge under test: what it is told, and what it wrote."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle import BUNDLE, ELSEWHERE
from process import Process

if TYPE_CHECKING:
    from upstreams import Upstreams

ZONE = "interop"
APPLICATION = "agent"
ECHO = "resource://echo"
APP = "resource://app"
UNGRANTED = "resource://vault"
FILES = "resource://files"
OPENAI = "resource://openai"
ANTHROPIC = "resource://anthropic"
SOCKETS = "resource://sockets"
AZURE = "resource://azure"
STRIPE = "resource://stripe"
GITHUB = "resource://github"
SLACK = "resource://slack"
MCP = "resource://mcp"
TOOLS = "resource://tools"
PREFIXES = [
    "/echo", "/openai", "/azure", "/anthropic", "/sockets", "/stripe", "/github", "/slack", "/mcp", "/tools",
]


class Edge(Process):
    """Writes a bundle for its upstreams, starts the binary, and stops it again."""

    def __init__(self, home: Path, upstreams: Upstreams) -> None:
        super().__init__(home)
        self.api_key = f"canary-{secrets.token_urlsafe(24)}"
        self.provider_key = f"canary-model-{secrets.token_urlsafe(24)}"
        self.client_secret = secrets.token_urlsafe(32)
        self.secret_file = home / "agent.secret"
        self._write_files(upstreams)
        self.listen_on_free_ports()

    def join_fleet(self, redis_port: int, stream_key: str) -> None:
        """Makes this edge a node of a fleet; before it starts."""
        self._write("stream.key", stream_key + "\n")
        with self.config.open("a") as config:
            config.write(
                f'[state]\nredis = "redis://127.0.0.1:{redis_port}"\nstream_key_file = "stream.key"\n'
            )

    def serve_tls(self, certificate: str, key: str) -> None:
        """Makes the gateway speak TLS, and with it HTTP/2; before it starts."""
        self._write("cert.pem", certificate)
        self._write("key.pem", key)
        with self.config.open("a") as config:
            config.write('[listeners.gateway.tls]\ncert = "cert.pem"\nkey = "key.pem"\n')
        self.gateway = self.gateway.replace("http://127.0.0.1", "https://127.0.0.1")

    def sdk_variables(self) -> dict[str, str]:
        """What `eval "$(caracal env ...)"` leaves in a shell."""
        script = 'eval "$("$0" env --config "$1" --app "$2" --secret-file "$3")" && env -0'
        clean = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        shell = subprocess.run(
            ["bash", "-c", script, self.binary, str(self.config), APPLICATION, str(self.secret_file)],
            capture_output=True,
            text=True,
            env=clean,
            timeout=60,
            check=True,
        )
        pairs = (line.split("=", 1) for line in shell.stdout.split("\0") if "=" in line)
        return {name: value for name, value in pairs if name.startswith("CARACAL_")}

    def revoke(self, session: str) -> None:
        """What an operator types."""
        self.run("revoke", "--config", str(self.config), "--zone", ZONE, "--session", session)

    def records(self) -> list[dict[str, Any]]:
        """Every record of the zone so far, as it stands in the ledger."""
        files = sorted((self.home / "state/ledger" / ZONE).glob("*.jsonl"))
        lines = b"".join(file.read_bytes() for file in files).splitlines(keepends=True)
        # The last one may be half written.
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def result(self, request_id: str) -> dict[str, Any]:
        """The one result record of a request, once it is written."""
        deadline = time.monotonic() + 10
        while True:
            records = [
                record
                for record in self.records()
                if (record["event_type"], record["request_id"]) == ("gateway_resource_request", request_id)
            ]
            assert len(records) <= 1, f"one request has {len(records)} results"
            if records:
                return records[0]
            assert time.monotonic() < deadline, f"no result of {request_id} was recorded"
            time.sleep(0.02)

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.ops}/metrics", timeout=10) as response:
            return response.read().decode()

    def written(self) -> dict[str, bytes]:
        """Every file the edge may have written, by its name. Not its secrets file and not the caller's own."""
        ours = {"secrets.toml", "agent.secret"}
        return {
            str(path.relative_to(self.home)): path.read_bytes()
            for path in self.home.rglob("*")
            if path.is_file() and path.name not in ours
        }

    def _write_files(self, upstreams: Upstreams) -> None:
        digest = hashlib.sha256(self.client_secret.encode()).digest()
        hashed = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        self._write(
            "caracal.toml",
            'schema = 1\nissuer = "http://127.0.0.1:8080"\nstate_dir = "state"\nbundles_dir = "bundles"\n'
            "shutdown_deadline_seconds = 2\n"
            f'[secrets]\nfile = "secrets.toml"\n[log]\nlevel = "debug"\n[zones.{ZONE}]\n'
            f"prefixes = {json.dumps(PREFIXES)}\nhosts = []\n[zones.elsewhere]\n",
        )
        self._write(
            "secrets.toml",
            f'schema = 1\n[secrets.echo]\nzones = ["{ZONE}"]\n'
            f'hosts = ["{upstreams.echo.address}", "{upstreams.sockets.address}"]\n'
            f'api_key = "{self.api_key}"\n'
            f'[secrets.apis]\nzones = ["{ZONE}"]\n'
            f'hosts = ["{upstreams.apis.address}", "{upstreams.mcp.address}"]\n'
            f'key = "{self.provider_key}"\n',
        )
        self._write("agent.secret", self.client_secret + "\n")
        bundle = BUNDLE.format(
            zone=ZONE, application=APPLICATION, hashed=hashed, echo=upstreams.echo.address,
            app=upstreams.app.address, apis=upstreams.apis.address, sockets=upstreams.sockets.address,
            mcp=upstreams.mcp.address,
        )
        self._write(f"bundles/{ZONE}.toml", bundle)
        self._write("bundles/elsewhere.toml", ELSEWHERE)

    def _write(self, name: str, text: str) -> None:
        path = self.home / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
