"""One HTTP/2 connection on the `h2` package, for what clients hide: trailers, and one stream of several."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events

from certificates import Certificate


class Http2:
    """Speaks to one server until `close`. Blocking, and with a time limit on every read."""

    def __init__(
        self, url: str, certificate: Certificate, patience: float = 5, *, strict: bool = True
    ) -> None:
        where = urlsplit(url)
        assert where.hostname and where.port
        self._authority = where.netloc
        context = certificate.trusted()
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", where.port), timeout=patience)
        self._socket = context.wrap_socket(plain, server_hostname=where.hostname)
        assert self._socket.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                header_encoding="utf-8",
                validate_outbound_headers=strict,
                normalize_outbound_headers=strict,
            )
        )
        self.h2.initiate_connection()
        self.flush()

    def get(self, path: str, headers: dict[str, str]) -> int:
        """Asks, and gives the number of the stream."""
        stream = self.h2.get_next_available_stream_id()
        head = {":method": "GET", ":scheme": "https", ":authority": self._authority, ":path": path}
        self.h2.send_headers(stream, [*head.items(), *headers.items()], end_stream=True)
        self.flush()
        return stream

    def send(
        self, headers: list[tuple[bytes, bytes]], body: bytes, trailers: list[tuple[bytes, bytes]]
    ) -> int:
        """Sends exactly this, and gives the number of the stream."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, headers, end_stream=not body and not trailers)
        if body:
            self.h2.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self.h2.send_headers(stream, trailers, end_stream=True)
        self.flush()
        return stream

    def events(self, stream: int) -> Iterator[h2.events.Event]:
        """What happens on a stream, until it ends or is reset."""
        while True:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("the connection ended")
            happened = self.h2.receive_data(data)
            for event in happened:
                if isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.flush()
            for event in happened:
                if getattr(event, "stream_id", None) == stream:
                    yield event
                    if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                        return
                elif isinstance(event, h2.events.ConnectionTerminated):
                    raise ConnectionResetError(f"the connection ended: {event.error_code}")

    def flush(self) -> None:
        self._socket.sendall(self.h2.data_to_send())

    def close(self) -> None:
        self.h2.close_connection()
        self.flush()
        self._socket.close()
