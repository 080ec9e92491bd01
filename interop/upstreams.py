"""Every upstream of the edge under test, started together and stopped together."""

from __future__ import annotations

from dataclasses import dataclass, field

import resource_app
from apis import Apis
from mcp_upstream import McpUpstream
from socket_upstream import SocketUpstream
from upstream import Upstream


@dataclass(frozen=True)
class Upstreams:
    """Each listens on a free port of its own from the start."""

    echo: Upstream = field(default_factory=Upstream)
    app: resource_app.Server = field(default_factory=resource_app.Server)
    apis: Apis = field(default_factory=Apis)
    sockets: SocketUpstream = field(default_factory=SocketUpstream)
    mcp: McpUpstream = field(default_factory=McpUpstream)

    def close(self) -> None:
        for server in (self.echo, self.app, self.apis, self.sockets, self.mcp):
            server.close()
