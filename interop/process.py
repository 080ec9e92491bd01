"""The binary on a folder of files: started, stopped, asked."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

LISTENERS = ("gateway", "authority", "coordinator", "ops")


class Process:
    """The folder holds a `caracal.toml` and what it names; before it starts, listeners may get free ports."""

    def __init__(self, home: Path) -> None:
        self.binary = os.environ["CARACAL_BIN"]
        self.home = home
        self.config = home / "caracal.toml"
        self.log = home / "edge.log"
        self._process: subprocess.Popen[bytes] | None = None

    def listen_on_free_ports(self) -> None:
        """Writes them into the configuration, and the issuer with them."""
        ports = free_ports(len(LISTENERS))
        self.gateway, self.authority, self.coordinator, self.ops = (
            f"http://127.0.0.1:{port}" for port in ports
        )
        text = self.config.read_text().replace("http://127.0.0.1:8080", self.authority)
        for name, port in zip(LISTENERS, ports, strict=True):
            text += f'\n[listeners.{name}]\naddress = "127.0.0.1:{port}"\n'
        self.config.write_text(text)

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

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.binary, *arguments], capture_output=True, text=True, env=self._environment(), timeout=60
        )

    def run(self, *arguments: str) -> str:
        done = self.attempt(*arguments)
        assert done.returncode == 0, f"caracal {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

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


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago. All are held at once, so they differ."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
