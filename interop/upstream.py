"""An upstream that remembers what reached it, and echoes its API key in every form it can think of."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK = b"0123456789abcdef" * 4096


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None


@dataclass
class Upstream:
    """Serves on a free port until `close`.

    `/read/events` streams: an event at once, another on each stream for each `next_event()`. `/download/N` answers N chunks.
    `/refuse` answers 418, `/redirect` a redirect. Everything else is answered with what came.
    """

    received: list[Received] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._streams: list[threading.Semaphore] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.body()
                outer.received.append(Received(self.command, self.path, list(self.headers.items()), body))
                path = self.path.partition("?")[0]
                if path == "/read/events":
                    self.stream()
                elif path.startswith("/download/"):
                    self.download(int(path.rsplit("/", 1)[1]))
                elif path == "/refuse":
                    self.reply(418, {"refused": "by the upstream"}, {})
                elif path == "/redirect":
                    self.reply(302, {}, {"Location": f"{outer.url}/read/elsewhere"})
                else:
                    self.tell(body)

            def tell(self, body: bytes) -> None:
                told = {
                    "number": len(outer.received),
                    "path": self.path,
                    "bytes": len(body),
                    "sha256": hashlib.sha256(body).hexdigest(),
                }
                key = self.headers.get("x-api-key") or "nothing"
                more = {f"X-Echo-{number}": f"key={form};" for number, form in enumerate(forms(key))}
                self.reply(200, told, {"Set-Cookie": "session=a-login-of-its-own", **more})

            def reply(self, status: int, told: object, headers: dict[str, str]) -> None:
                body = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def download(self, chunks: int) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(chunks * len(CHUNK)))
                self.end_headers()
                for _ in range(chunks):
                    self.wfile.write(CHUNK)

            def stream(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                number = 0
                wanted = threading.Semaphore(0)
                outer._streams.append(wanted)
                try:
                    while True:
                        event = f"data: {number}\n\n".encode()
                        self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
                        number += 1
                        if not wanted.acquire(timeout=60):
                            break
                except OSError:
                    pass
                self.close_connection = True

            def body(self) -> bytes:
                if self.headers.get("transfer-encoding", "").lower() == "chunked":
                    parts = []
                    while size := int(self.rfile.readline().split(b";")[0], 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(parts)
                return self.rfile.read(int(self.headers.get("content-length") or 0))

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def next_event(self) -> None:
        for wanted in self._streams:
            wanted.release()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


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
