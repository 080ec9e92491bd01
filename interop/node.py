"""A program for Node with packages from npm, which answers each line that it is told with one line of JSON."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
from pathlib import Path
from typing import IO, Any

import pytest

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"


def node_with(package: str) -> str:
    """Node, if it and the package are there. Without them the test is skipped; in CI that is a failure."""
    node = shutil.which("node")
    if node is None or not (MODULES / package).exists():
        reason = f"Node or {package} is missing: scripts/setup.sh node-peers installs them"
        if os.environ.get("CI") == "true":
            raise RuntimeError(reason)
        pytest.skip(reason)
    return node


class NodeProgram:
    """Runs until `close`."""

    def __init__(self, script: str, package: str, log: Path) -> None:
        self._log = log
        self._answers: queue.Queue[str] = queue.Queue()
        command = [node_with(package), str(HERE / script)]
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self._process.stdin and self._process.stdout
        self._questions: IO[str] = self._process.stdin
        self._reader = threading.Thread(target=self._read, args=[self._process.stdout], daemon=True)
        self._reader.start()

    def ask(self, question: str) -> Any:
        self._questions.write(question + "\n")
        self._questions.flush()
        try:
            return json.loads(self._answers.get(timeout=30))
        except (queue.Empty, json.JSONDecodeError):
            raise RuntimeError(f"no answer to {question}:\n{self._log.read_text()}") from None

    def close(self) -> None:
        self._questions.close()
        try:
            self._process.wait(timeout=10)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(timeout=10)

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self._answers.put(line)
        # Whoever waits is told that nothing comes.
        self._answers.put("")
