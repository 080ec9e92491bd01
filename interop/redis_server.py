"""A Redis server of the run's own, on a free port, without a file."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import redis


class RedisServer:
    """`scripts/setup.sh tests` installs the program; nothing else of it runs."""

    def __init__(self, home: Path, port: int) -> None:
        self.port = port
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("redis-server is missing: scripts/setup.sh tests installs it")
        self._process = subprocess.Popen(
            [
                program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home),
                "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction",
            ],
            stdout=subprocess.DEVNULL,
        )
        self.client = redis.Redis(port=port)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    self.close()
                    raise
                time.sleep(0.02)

    def close(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()
