"""A real ASGI application protected by `caracalai-asgi`, on a free port, in a thread of its own."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import uvicorn
from caracalai_asgi import CaracalASGIAuth
from caracalai_revocation import InMemoryRevocationStore
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from edge import APP, APPLICATION, ZONE


async def describe(request: Request) -> JSONResponse:
    """Says what the verifier proved, and remembers the mandate it was proved with."""
    principal = request.state.caracal
    request.app.state.mandates.append(request.headers["authorization"].removeprefix("Bearer "))
    return JSONResponse(
        {
            "application": principal.client_id,
            "zone": principal.zone_id,
            "use": principal.use,
            "scope": principal.scope,
            "session": principal.session_id,
            "delegation": principal.delegation_id,
            "path": request.url.path,
            "query": request.url.query,
            "content_length": request.headers.get("content-length"),
            "transfer_encoding": request.headers.get("transfer-encoding"),
        }
    )


class Server:
    """Listens at once, so that its address can go into a bundle; protected once the issuer is known."""

    def __init__(self) -> None:
        self.revocations = InMemoryRevocationStore()
        self.application = Starlette(routes=[Route("/{path:path}", describe, methods=["GET", "POST"])])
        self.mandates: list[str] = []
        self.application.state.mandates = self.mandates
        self._protected: Any = None
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        config = uvicorn.Config(self._dispatch, log_level="warning", lifespan="off", interface="asgi3")
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

    def protect(self, issuer: str) -> None:
        self._protected = CaracalASGIAuth(
            self.application,
            audience=APP,
            issuer=issuer,
            expected_zone_id=ZONE,
            revocations=self.revocations,
            required_scopes=["app:use"],
            required_targets=[APP],
            require_session=True,
            require_delegation=True,
            require_chain_contains=[APPLICATION],
        )

    async def _dispatch(self, scope: dict, receive: Any, send: Any) -> None:
        await self._protected(scope, receive, send)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=30)
        self._socket.close()
