"""An MCP client that lists the tools, calls one, and tries another: MCP_URL and MCP_TOKEN say where and as whom."""

from __future__ import annotations

import asyncio
import os

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client


async def main() -> None:
    headers = {"Authorization": f"Bearer {os.environ['MCP_TOKEN']}"}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(os.environ["MCP_URL"], http_client=http)) as client,
    ):
        print("tools:", ", ".join(tool.name for tool in (await client.list_tools()).tools))
        found = await client.call_tool("search", {"word": "edge"})
        print("search:", found.content[0].text)
        try:
            await client.call_tool("delete", {"word": "edge"})
        except MCPError as refused:
            print("delete:", refused.error.data["error"], refused.error.data["missing"]["scopes"])


asyncio.run(main())
