"""An MCP server with two tools: server.py [PORT]. It takes only requests that carry its own key."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer

KEY = "the-servers-own-key"
NOTES = {"edge": "what stands between agents and APIs", "mandate": "a signed grant"}

server = MCPServer("docs")


@server.tool()
def search(word: str) -> str:
    """Notes about a word."""
    return NOTES.get(word, "nothing")


@server.tool()
def delete(word: str) -> str:
    """Deletes a note."""
    return "deleted " + NOTES.pop(word, "nothing")


inner = server.streamable_http_app()


async def guarded(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http" and (b"authorization", f"Bearer {KEY}".encode()) not in scope["headers"]:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"a stranger"})
        return
    await inner(scope, receive, send)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9100
    uvicorn.run(guarded, host="127.0.0.1", port=port, log_level="warning")
