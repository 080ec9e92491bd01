"""A WebSocket server: `/chat` answers every message with itself, `/flood` sends without being asked."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from dataclasses import dataclass, field

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

# Random: what a WebSocket compresses does not fill it.
FRAME = os.urandom(16_384)


@dataclass
class SocketUpstream:
    """Serves on a free port until `close`. Remembers the head of every handshake, and how each connection ended."""

    handshakes: list[Headers] = field(default_factory=list)
    ended: queue.Queue[ConnectionClosed] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self._server = serve(self._talk, "127.0.0.1", 0, max_size=None)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.socket.getsockname()[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def _talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.handshakes.append(connection.request.headers)
        try:
            if connection.request.path == "/flood":
                self._flood(connection)
            else:
                while True:
                    connection.send(connection.recv())
        except ConnectionClosed as closed:
            self.ended.put(closed)

    def _flood(self, connection: ServerConnection) -> None:
        """Sends and reads at the same time, so that neither waits for the other."""

        def drain() -> None:
            with contextlib.suppress(ConnectionClosed):
                for _ in connection:
                    pass

        reader = threading.Thread(target=drain, daemon=True)
        reader.start()
        while True:
            connection.send(FRAME)
