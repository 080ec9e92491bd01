"""The upstreams' one HTTP server, and the plain one of them: it echoes its API key in every form it can think of."""

from __future__ import annotations

import base64
import hashlib
import json
import queue
import select
import socket
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHUNK = b"0123456789abcdef" * 4096

# Where the clients under test carry a credential.
CREDENTIALS = ("authorization", "x-api-key", "api-key", "cookie")


@dataclass(frozen=True)
class Received:
    """One request as it reached an upstream."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def credentials(self) -> dict[str, str]:
        """Every header that could carry one."""
        return {name: value for name in CREDENTIALS if (value := self.header(name))}

    @property
    def route(self) -> tuple[str, str]:
        """The method, and the path without its query."""
        return self.method, self.path.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(self.path.partition("?")[2]))

    @property
    def form(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(self.body.decode()))

    def json(self) -> Any:
        return json.loads(self.body)


class Exchange(BaseHTTPRequestHandler):
    """A request, and the ways to answer it."""

    protocol_version = "HTTP/1.1"
    upstream: HttpUpstream
    received: Received

    def reply(self, status: int, told: object, headers: Mapping[str, str] | None = None) -> None:
        """Bytes as they are, anything else as JSON."""
        body = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @contextmanager
    def parts(self, kind: str) -> Iterator[Exchange]:
        """An answer in parts, complete at the end of the block. A caller that goes away ends the block."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            yield self
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def part(self, data: str | bytes) -> None:
        data = data.encode() if isinstance(data, str) else data
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def wait_for_the_end(self) -> None:
        """Until the caller goes away, which `upstream.abandoned` then tells."""
        readable, _, _ = select.select([self.connection], [], [], 60)
        if readable and self.connection.recv(1, socket.MSG_PEEK) == b"":
            self.upstream.abandoned.put(self.received)
        raise ConnectionAbortedError

    def _answer(self) -> None:
        self.received = Received(self.command, self.path, list(self.headers.items()), self._body())
        self.upstream.received.append(self.received)
        self.upstream.answer(self)

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        pass


class HttpUpstream:
    """Serves on a free port until `close`, and remembers what reached it."""

    exchange: type[Exchange] = Exchange

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.abandoned: queue.Queue[Received] = queue.Queue()
        handler = type("Handler", (self.exchange,), {"upstream": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answer(self, exchange: Exchange) -> None:
        raise NotImplementedError

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Upstream(HttpUpstream):
    """Answers with what came, but for a few paths.

    `/read/events` streams: an event at once, another on each stream for each `next_event()`. `/download/N` answers
    N chunks. `/refuse` answers 418, `/redirect` a redirect.
    """

    def __init__(self) -> None:
        self._streams: list[threading.Semaphore] = []
        super().__init__()

    def next_event(self) -> None:
        for wanted in self._streams:
            wanted.release()

    def answer(self, exchange: Exchange) -> None:
        _, path = exchange.received.route
        if path == "/read/events":
            self._stream(exchange)
        elif path.startswith("/download/"):
            self._download(exchange, chunks=int(path.rsplit("/", 1)[1]))
        elif path == "/refuse":
            exchange.reply(418, {"refused": "by the upstream"})
        elif path == "/redirect":
            exchange.reply(302, {}, {"Location": f"{self.url}/read/elsewhere"})
        else:
            self._tell(exchange)

    def _stream(self, exchange: Exchange) -> None:
        wanted = threading.Semaphore(0)
        self._streams.append(wanted)
        with exchange.parts("text/event-stream"):
            number = 0
            while number == 0 or wanted.acquire(timeout=60):
                exchange.part(f"data: {number}\n\n")
                number += 1

    def _download(self, exchange: Exchange, chunks: int) -> None:
        exchange.send_response(200)
        exchange.send_header("Content-Type", "application/octet-stream")
        exchange.send_header("Content-Length", str(chunks * len(CHUNK)))
        exchange.end_headers()
        try:
            for _ in range(chunks):
                exchange.wfile.write(CHUNK)
        except OSError:
            exchange.close_connection = True

    def _tell(self, exchange: Exchange) -> None:
        received = exchange.received
        told = {
            "number": len(self.received),
            "path": received.path,
            "bytes": len(received.body),
            "sha256": hashlib.sha256(received.body).hexdigest(),
        }
        key = received.header("x-api-key") or "nothing"
        more = {f"X-Echo-{number}": f"key={form};" for number, form in enumerate(forms(key))}
        exchange.reply(200, told, {"Set-Cookie": "session=a-login-of-its-own", **more})


def forms(secret: str) -> list[str]:
    """The shapes in which a secret may turn up again."""
    raw = secret.encode()
    return [
        secret,
        urllib.parse.quote(secret, safe=""),
        raw.hex(),
        raw.hex().upper(),
        *(base64.b64encode(b"x" * pad + raw).decode() for pad in range(3)),
        base64.urlsafe_b64encode(raw).decode(),
    ]
