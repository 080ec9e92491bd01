"""The gateway over TLS and HTTP/2, with real clients: streams, several at once, and a cut that says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from caracalai import Caracal
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from certificates import Certificate
from edge import ECHO, FILES, Edge
from http2_client import Http2
from programs import READ, Agent, use_variables_of
from upstream import CHUNK, Upstream
from upstreams import Upstreams


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return Certificate()


@pytest.fixture(scope="module")
def tls_edge(
    tmp_path_factory: pytest.TempPathFactory, upstreams: Upstreams, certificate: Certificate
) -> Iterator[Edge]:
    home: Path = tmp_path_factory.mktemp("tls")
    home.chmod(0o700)
    running = Edge(home, upstreams)
    running.serve_tls(certificate.certificate, certificate.key)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def tls_client(tls_edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Caracal:
    use_variables_of(tls_edge, monkeypatch)
    return Caracal()


@pytest.fixture
def connection(tls_edge: Edge, certificate: Certificate) -> Iterator[Http2]:
    opened = Http2(tls_edge.gateway, certificate)
    yield opened
    opened.close()


def head(mandate: str, resource: str = ECHO, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {mandate}", "x-caracal-resource": resource, **more}


def until(text: bytes, events: Iterator[Event]) -> tuple[dict[str, str], bytes]:
    """The response's head, and its body up to `text`."""
    headers: dict[str, str] = {}
    body = b""
    while text not in body:
        event = next(events)
        if isinstance(event, ResponseReceived):
            headers = dict(event.headers)
        elif isinstance(event, DataReceived):
            body += event.data
    return headers, body


def test_httpx_streams_events_over_http_2(
    tls_client: Caracal, tls_edge: Edge, upstream: Upstream, certificate: Certificate
) -> None:
    agent = Agent(tls_client, ECHO, READ)
    with (
        httpx.Client(http2=True, http1=False, verify=certificate.trusted(), timeout=5) as client,
        client.stream("GET", f"{tls_edge.gateway}/read/events", headers=head(agent.mandate())) as answer,
    ):
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        lines = answer.iter_lines()
        for number in range(3):
            assert [next(lines), next(lines)] == [f"data: {number}", ""]
            upstream.next_event()
    assert upstream.received[-1].header("x-api-key") == tls_edge.api_key


def test_a_revoked_event_stream_ends_with_the_trailer_and_the_others_go_on(
    tls_client: Caracal, tls_edge: Edge, upstream: Upstream, connection: Http2
) -> None:
    # Each client keeps a session of its own.
    agent, other = Agent(tls_client, ECHO, READ), Agent(Caracal(), ECHO, READ)
    stream = connection.get("/read/events", head(agent.mandate(), accept="text/event-stream"))
    events = connection.events(stream)
    headers, _ = until(b"data: 0\n\n", events)
    assert headers[":status"] == "200"
    upstream.next_event()
    until(b"data: 1\n\n", events)

    tls_edge.revoke(agent.session)
    rest = list(events)
    said = b"".join(event.data for event in rest if isinstance(event, DataReceived))
    trailers = [dict(event.headers) for event in rest if isinstance(event, TrailersReceived)]
    assert b"event: caracal-revoked\n" in said
    assert [one["x-caracal-revoked"] for one in trailers] == ["true"]
    assert isinstance(rest[-1], StreamEnded)
    was_cut(tls_edge, headers, at_least=len(b"data: 0\n\ndata: 1\n\n") + len(said))

    # Same connection, another session.
    still = connection.get("/read/after", head(other.mandate()))
    answer, _ = until(b"}", connection.events(still))
    assert answer[":status"] == "200"


def test_a_revoked_download_is_reset_and_its_record_counts(
    tls_client: Caracal, tls_edge: Edge, connection: Http2
) -> None:
    agent = Agent(tls_client, FILES, ["files:use"])
    # Larger than all the buffers on the way, so that it is under way when it is cut.
    stream = connection.get("/download/3000", head(agent.mandate(), FILES))
    events = connection.events(stream)
    headers, body = until(CHUNK, events)
    tls_edge.revoke(agent.session)
    *_, last = events
    assert isinstance(last, StreamReset)
    was_cut(tls_edge, headers, at_least=len(body))


def was_cut(edge: Edge, headers: dict[str, str], at_least: int) -> None:
    result = edge.result(headers["x-request-id"])
    metadata = result["metadata_json"]
    assert result["evaluation_status"] == "interrupted", result
    assert (metadata["cut"], metadata["revocation_interrupted"]) == ("revoked", True)
    assert metadata["response_bytes"] >= at_least
