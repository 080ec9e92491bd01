"""Upstreams with parsers of different makes, each of which tells every request that it read on a connection."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

import pytest

from process import free_ports
from upstream import Exchange, HttpUpstream

NAMES = ["python", "node", "nginx", "haproxy"]

# What stands for a request that its upstream could not read.
UNREADABLE = ("-", "-")


class Parser(Protocol):
    address: str

    def parsed(self) -> list[tuple[str, str]]:
        """Method and target of every request so far, `UNREADABLE` for one that could not be read."""

    def readings(self) -> list[str]:
        """The paths as it understood them, where it says so."""

    def close(self) -> None: ...


class HeadsFirst(Exchange):
    """Tells a request when its head is read, as the programs do: its body may be broken off."""

    upstream: PythonParser

    def parse_request(self) -> bool:
        good = super().parse_request()
        if good:
            self.upstream.heads.append((self.command, self.path))
        return good

    def send_error(self, code: int, *_: object) -> None:
        # An unknown method is refused after the head was told.
        if code != HTTPStatus.NOT_IMPLEMENTED:
            self.upstream.heads.append(UNREADABLE)
        super().send_error(code)

    def _answer(self) -> None:
        try:
            super()._answer()
        except (OSError, ValueError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_OPTIONS = _answer


class PythonParser(HttpUpstream):
    """`http.server` of the standard library, which is lenient."""

    exchange = HeadsFirst

    def __init__(self) -> None:
        self.heads: list[tuple[str, str]] = []
        super().__init__()

    def answer(self, exchange: Exchange) -> None:
        exchange.reply(200, exchange.received.path.encode())

    def parsed(self) -> list[tuple[str, str]]:
        return list(self.heads)

    def readings(self) -> list[str]:
        return []


class Program:
    """A server that is a program of its own and writes a line of JSON for each request."""

    def __init__(self, home: Path, command: list[str], port: int, log: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        self._log = log
        log.touch()
        with log.open("ab") as output, (home / "errors.log").open("ab") as errors:
            self._process = subprocess.Popen(command, cwd=home, stdout=output, stderr=errors)
        deadline = time.monotonic() + 10
        while True:
            try:
                # Nothing is sent that it could tell.
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise RuntimeError((home / "errors.log").read_text()) from None
                time.sleep(0.02)

    def parsed(self) -> list[tuple[str, str]]:
        told = map(json.loads, self._log.read_text().splitlines())
        return [(one["method"], one["target"]) if one["target"].strip("-") else UNREADABLE for one in told]

    def readings(self) -> list[str]:
        """What it made of the paths, where it says so."""
        told = map(json.loads, self._log.read_text().splitlines())
        return [one["read"] for one in told if one.get("read")]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


NODE = """
const http = require("http");
const tell = (method, target) => console.log(JSON.stringify({ method, target }));
const server = http.createServer((request, response) => {
  tell(request.method, request.url);
  request.resume().on("end", () => response.end(request.url));
});
server.on("clientError", (error, socket) => {
  // A connection that ends in the middle of a body is no second request.
  if (!["ECONNRESET", "EPIPE", "HPE_INVALID_EOF_STATE"].includes(error.code)) tell("-", "-");
  socket.destroy();
});
server.on("upgrade", (request, socket) => {
  tell(request.method, request.url);
  socket.end("HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 0\\r\\n\\r\\n");
});
server.listen(Number(process.argv[2]), "127.0.0.1");
"""

NGINX = """
daemon off;
master_process off;
pid nginx.pid;
error_log errors.log;
events {{ }}
http {{
    log_format told escape=json '{{"method":"$request_method","target":"$request_uri","read":"$uri"}}';
    access_log {log} told;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {address};
        lingering_close off;
        location / {{ return 200 "$request_uri"; }}
    }}
}}
"""

HAPROXY = """
global
    log stdout format raw local0
defaults
    mode http
    log global
    log-format '{{"method":"%HM","target":"%[capture.req.uri,json(utf8s)]"}}'
    option http-buffer-request
    option dontlognull
    timeout client 30s
    timeout connect 5s
    timeout server 30s
    timeout http-request 30s
frontend told
    bind {address}
    http-request return status 200 content-type text/plain lf-string "%[capture.req.uri]"
"""


def start(name: str, home: Path) -> Parser:
    """Starts one of `NAMES`. Without its program the test is skipped; in CI that is a failure."""
    if name == "python":
        return PythonParser()
    binary = shutil.which(name)
    if binary is None:
        reason = f"{name} is missing: scripts/setup.sh servers installs it"
        if os.environ.get("CI") == "true":
            raise RuntimeError(reason)
        pytest.skip(reason)
    port = free_ports(1)[0]
    told, configuration = home / "told.log", home / name
    text = {"node": NODE, "nginx": NGINX, "haproxy": HAPROXY}[name]
    if name != "node":
        text = text.format(address=f"127.0.0.1:{port}", log=told)
    configuration.write_text(text)
    command = {
        "node": [binary, str(configuration), str(port)],
        "nginx": [binary, "-p", str(home), "-c", str(configuration), "-e", str(home / "errors.log")],
        "haproxy": [binary, "-db", "-f", str(configuration)],
    }[name]
    return Program(home, command, port, told)
