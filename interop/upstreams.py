"""Every upstream of the edge under test, started together and stopped together."""

from __future__ import annotations

from dataclasses import dataclass, field

import resource_app
from model_upstream import ModelUpstream
from socket_upstream import SocketUpstream
from upstream import Upstream


@dataclass(frozen=True)
class Upstreams:
    """Each listens on a free port of its own from the start."""

    echo: Upstream = field(default_factory=Upstream)
    app: resource_app.Server = field(default_factory=resource_app.Server)
    models: ModelUpstream = field(default_factory=ModelUpstream)
    sockets: SocketUpstream = field(default_factory=SocketUpstream)

    def close(self) -> None:
        for server in (self.echo, self.app, self.models, self.sockets):
            server.close()
