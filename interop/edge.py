"""One edge under test: its configuration, its process, and what it wrote."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle import BUNDLE, ELSEWHERE

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
PREFIXES = ["/echo", "/openai", "/azure", "/anthropic", "/sockets", "/stripe", "/github", "/slack", "/mcp"]


class Edge:
    """Writes a bundle for its upstreams, starts the binary, and stops it again."""

    def __init__(self, home: Path, upstreams: Upstreams) -> None:
        self.binary = os.environ["CARACAL_BIN"]
        self.home = home
        self.config = home / "caracal.toml"
        self.log = home / "edge.log"
        self.api_key = f"canary-{secrets.token_urlsafe(24)}"
        self.provider_key = f"canary-model-{secrets.token_urlsafe(24)}"
        self.client_secret = secrets.token_urlsafe(32)
        self.secret_file = home / "agent.secret"
        ports = free_ports(4)
        self.gateway, self.authority, self.coordinator, self.ops = (
            f"http://127.0.0.1:{port}" for port in ports
        )
        self._write_files(ports, upstreams)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.run("check", "--config", str(self.config))
        self.log.write_bytes(b"")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.binary, "serve", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env=self._environment(),
            )
        deadline = time.monotonic() + 30
        while b"caracal: ready" not in self.log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the edge is not ready:\n{self.log.read_text()}")
            time.sleep(0.02)

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

    def stop(self) -> None:
        """A clean stop, and a complaint if it is not clean."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        self.wait()

    def wait(self) -> None:
        """Until it has ended, cleanly."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        self._process = None
        assert code == 0, f"the edge ended with {code}:\n{self.log.read_text()}"

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stops it with a signal and starts it again on the same state."""
        if number == signal.SIGTERM:
            self.stop()
        elif self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=30)
        self.start()

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.binary, *arguments], capture_output=True, text=True, env=self._environment(), timeout=60
        )
        assert done.returncode == 0, f"caracal {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

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

    def _environment(self) -> dict[str, str]:
        # Whatever the binary keeps per user stays in this run's folder.
        home = str(self.home)
        return {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "XDG_CONFIG_HOME": f"{home}/.config",
            "XDG_DATA_HOME": f"{home}/.local/share",
            "XDG_STATE_HOME": f"{home}/.local/state",
        }

    def _write_files(self, ports: list[int], upstreams: Upstreams) -> None:
        names = ("gateway", "authority", "coordinator", "ops")
        listeners = "\n".join(
            f'[listeners.{name}]\naddress = "127.0.0.1:{port}"' for name, port in zip(names, ports)
        )
        digest = hashlib.sha256(self.client_secret.encode()).digest()
        hashed = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        self._write(
            "caracal.toml",
            f'schema = 1\nissuer = "{self.authority}"\nstate_dir = "state"\nbundles_dir = "bundles"\n'
            "shutdown_deadline_seconds = 2\n"
            f'[secrets]\nfile = "secrets.toml"\n[log]\nlevel = "debug"\n{listeners}\n[zones.{ZONE}]\n'
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


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago. All are held at once, so they differ."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
