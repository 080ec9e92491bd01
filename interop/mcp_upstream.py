"""A server of the official MCP package, over streamable HTTP."""

from __future__ import annotations

import threading
from typing import Any

import anyio
from mcp.server.mcpserver import Context, MCPServer

from asgi import AsgiServer


class McpUpstream(AsgiServer):
    """`add` adds, `count` tells its progress, `hang` says that it began and never ends."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.cancelled = threading.Event()
        server = MCPServer("interop")

        @server.tool()
        def add(a: int, b: int) -> int:
            return a + b

        @server.tool()
        async def count(to: int, context: Context) -> str:
            for number in range(to):
                await context.report_progress(number, to)
            return "counted"

        @server.tool()
        async def hang(context: Context) -> str:
            await context.report_progress(0)
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                self.cancelled.set()
                raise
            return "never"

        self._application = server.streamable_http_app()
        super().__init__(self._remember, lifespan="on")

    async def _remember(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        await self._application(scope, receive, send)
