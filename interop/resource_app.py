"""A real ASGI application protected by `caracalai-asgi`."""

from __future__ import annotations

from typing import Any

from caracalai_asgi import CaracalASGIAuth
from caracalai_revocation import InMemoryRevocationStore
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi import AsgiServer
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


class Server(AsgiServer):
    """Listens at once, so that its address can go into a bundle; protected once the issuer is known."""

    def __init__(self) -> None:
        self.revocations = InMemoryRevocationStore()
        self.application = Starlette(routes=[Route("/{path:path}", describe, methods=["GET", "POST"])])
        self.mandates: list[str] = []
        self.application.state.mandates = self.mandates
        self._protected: Any = None
        super().__init__(self._dispatch)

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
