"""An ASGI application on a free port, in a thread of its own."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any, Literal

import uvicorn


class AsgiServer:
    """Listens at once, so that its address can go into a bundle, and until `close`."""

    def __init__(self, application: Any, lifespan: Literal["on", "off"] = "off") -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            application,
            log_level="warning",
            lifespan=lifespan,
            interface="asgi3",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 30
        while not self._server.started:
            assert time.monotonic() < deadline, "the application did not start"
            time.sleep(0.01)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=30)
        self._socket.close()
