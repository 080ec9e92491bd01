"""gRPC through the edge: a real server behind it in plain HTTP/2, a real client over TLS in front of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from caracalai import Caracal

from certificates import Certificate
from edge import ZONE, Edge
from grpc_upstream import CANCELLED, GrpcUpstream
from programs import Agent, use_variables_of
from upstreams import Upstreams

GRPC = "resource://grpc"
AWAY = "resource://grpc-away"
ASKED = "resource://grpc-asked"
PATIENCE = 5

BUNDLE = """
[[resources]]
identifier = "{name}"
upstream_url = "http://127.0.0.1:{port}"
upstream_protocol = "http2"
scopes = ["grpc:use", "grpc:other"]
credential_provider = "provider://grpc"
reusable_mandates = true
operation_enforcement = "enforced"
operations = [
    {{ method = "POST", path = "/interop.Echo/{{method}}", scope = "grpc:use" }},
    {{ method = "POST", path = "/interop.Other/{{method}}", scope = "grpc:other" }},
]

[[providers]]
identifier = "provider://grpc"
kind = "api_key"
location = "header"
header_name = "X-Api-Key"
secret = "secret://grpc/key"

[grants."{name}"]
application = "main"
roles = {{ agent = ["grpc:use"] }}
"""

AWAY_BUNDLE = """
[[resources]]
identifier = "{name}"
upstream_url = "http://127.0.0.1:{port}"
upstream_protocol = "http2"
scopes = ["grpc:use"]
operation_enforcement = "transport_uniform"
credential_provider = "provider://grpc-away"

[[providers]]
identifier = "provider://grpc-away"
kind = "none"

[grants."{name}"]
application = "main"
roles = {{ agent = ["grpc:use"] }}
"""

ASKED_BUNDLE = """
[[resources]]
identifier = "{name}"
upstream_url = "http://127.0.0.1:{port}"
upstream_protocol = "http2"
scopes = ["grpc:use"]
operations = [{{ method = "POST", path = "/interop.Echo/Once", scope = "grpc:use" }}]
credential_provider = "provider://grpc"
guards = [{{ name = "any", when = "true", effect = "approval", tier = "calls" }}]

[[approval_tiers]]
tier = "calls"

[grants."{name}"]
application = "main"
roles = {{ agent = ["grpc:use"] }}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[GrpcUpstream]:
    upstream = GrpcUpstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def grpc_edge(
    tmp_path_factory: pytest.TempPathFactory, upstreams: Upstreams, upstream: GrpcUpstream
) -> Iterator[tuple[Edge, Certificate]]:
    home = tmp_path_factory.mktemp("grpc")
    home.chmod(0o700)
    certificate = Certificate()
    edge = Edge(home, upstreams)
    edge.serve_tls(certificate.certificate, certificate.key)
    # A port that is taken and that nobody listens on.
    away = socket.socket()
    away.bind(("127.0.0.1", 0))
    with (home / f"bundles/{ZONE}.toml").open("a") as bundle:
        bundle.write(BUNDLE.format(name=GRPC, port=upstream.port))
        bundle.write(ASKED_BUNDLE.format(name=ASKED, port=upstream.port))
        bundle.write(AWAY_BUNDLE.format(name=AWAY, port=away.getsockname()[1]))
    with (home / "secrets.toml").open("a") as secrets:
        secrets.write(
            f'[secrets.grpc]\nzones = ["{ZONE}"]\nhosts = ["127.0.0.1:{upstream.port}"]\nkey = "{edge.api_key}"\n'
        )
    edge.start()
    yield edge, certificate
    edge.stop()
    away.close()


@pytest.fixture
def edge(grpc_edge: tuple[Edge, Certificate]) -> Edge:
    return grpc_edge[0]


@pytest.fixture
def channel(grpc_edge: tuple[Edge, Certificate]) -> Iterator[grpc.Channel]:
    edge, certificate = grpc_edge
    credentials = grpc.ssl_channel_credentials(certificate.certificate.encode())
    with grpc.secure_channel(edge.gateway.removeprefix("https://"), credentials) as opened:
        yield opened


@pytest.fixture
def agent(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Agent:
    use_variables_of(edge, monkeypatch)
    return Agent(Caracal(), GRPC, ["grpc:use"])


def metadata(mandate: str, resource: str = GRPC) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {mandate}"), ("x-caracal-resource", resource)]


def trailing(call: grpc.Call) -> dict[str, str | bytes]:
    return dict(call.trailing_metadata())


def test_a_unary_call_with_metadata_and_trailers(channel: grpc.Channel, agent: Agent, edge: Edge) -> None:
    sent = [*metadata(agent.mandate()), ("note-bin", b"\x00\xff")]
    answer, call = channel.unary_unary("/interop.Echo/Once").with_call(b"hello", metadata=sent, timeout=PATIENCE)
    assert (answer, call.code()) == (b"hello", grpc.StatusCode.OK)
    told = trailing(call)
    # The server saw the key; the caller does not, not even where it is repeated.
    assert told["seen-key"] == "*" * len(edge.api_key)
    assert (told["seen-note"], told["seen-mandate"]) == ("00ff", "False")
    result = edge.result(dict(call.initial_metadata())["x-request-id"])["metadata_json"]
    assert (result["upstream_status"], result["result_class"]) == (200, "success")


def test_a_call_is_made_once_a_person_approved_exactly_it(
    channel: grpc.Channel, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_variables_of(edge, monkeypatch)
    asked = Agent(Caracal(), ASKED, ["grpc:use"])
    once = channel.unary_unary("/interop.Echo/Once")

    def refused(body: bytes) -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as told:
            once(body, metadata=metadata(asked.mandate(), ASKED), timeout=PATIENCE)
        return told.value

    held = refused(b"pay")
    assert held.code() == grpc.StatusCode.PERMISSION_DENIED
    assert "a person has to approve" in held.details()
    approval = trailing(held)["x-caracal-approval"]
    edge.run("approvals", "approve", approval, "--config", str(edge.config))
    assert trailing(refused(b"Pay"))["x-caracal-approval"] != approval
    answer, call = once.with_call(b"pay", metadata=metadata(asked.mandate(), ASKED), timeout=PATIENCE)
    assert (answer, call.code()) == (b"pay", grpc.StatusCode.OK)
    again = refused(b"pay")
    assert "was used by this request before" in again.details()


def test_messages_stream_in_every_direction(channel: grpc.Channel, agent: Agent) -> None:
    large = b"x" * 1_000_000
    many = channel.unary_stream("/interop.Echo/Many")(large, metadata=metadata(agent.mandate()), timeout=PATIENCE)
    assert list(many) == [large] * 3
    assert many.code() == grpc.StatusCode.OK
    collect = channel.stream_unary("/interop.Echo/Collect")
    joined = collect(iter([b"a", b"b", b"c"]), metadata=metadata(agent.mandate()), timeout=PATIENCE)
    assert joined == b"a,b,c"
    heard: list[bytes] = []

    def said() -> Iterator[bytes]:
        for word in (b"one", b"two", b"three"):
            yield word
            deadline = time.monotonic() + PATIENCE
            while word not in heard and time.monotonic() < deadline:
                time.sleep(0.005)

    chat = channel.stream_stream("/interop.Echo/Chat")(
        said(), metadata=metadata(agent.mandate()), timeout=PATIENCE
    )
    # Each is said only when the one before was heard: nothing waits for the end.
    for word in chat:
        heard.append(word)
    assert heard == [b"one", b"two", b"three"]


def test_a_failure_of_the_server_comes_as_it_is(channel: grpc.Channel, agent: Agent) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/interop.Echo/Fail")(b"", metadata=metadata(agent.mandate()), timeout=PATIENCE)
    assert failed.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failed.value.details() == "not today: ü"


def test_the_edge_says_no_in_statuses_that_clients_know(
    channel: grpc.Channel, agent: Agent, upstream: GrpcUpstream
) -> None:
    before = len(upstream.peers)
    for mandate, method, status, code in (
        ("guessed", "/interop.Echo/Once", grpc.StatusCode.UNAUTHENTICATED, "invalid_token"),
        (agent.mandate(), "/interop.Other/Once", grpc.StatusCode.PERMISSION_DENIED, "operation_not_permitted"),
        (agent.mandate(), "/interop.Unknown/Once", grpc.StatusCode.PERMISSION_DENIED, "operation_not_permitted"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(method)(b"", metadata=metadata(mandate), timeout=PATIENCE)
        assert refused.value.code() == status, method
        told = trailing(refused.value)
        # A client that maps HTTP itself would have no words of ours, and none of these.
        assert "; " in refused.value.details() and "HTTP" not in refused.value.details()
        assert (told["x-caracal-error"], told["grpc-retry-pushback-ms"]) == (code, "-1")
        assert told["x-request-id"]
    # A stream that is refused before its messages ends as well.
    refused_stream = channel.stream_stream("/interop.Other/Chat")(
        iter([b"a"] * 100), metadata=metadata(agent.mandate()), timeout=PATIENCE
    )
    with pytest.raises(grpc.RpcError) as over:
        next(refused_stream)
    assert over.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert len(upstream.peers) == before


def test_the_evidence_of_a_refused_call_keeps_the_status_of_http(
    channel: grpc.Channel, agent: Agent, edge: Edge
) -> None:
    away = Agent(Caracal(), AWAY, ["grpc:use"])
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/interop.Echo/Once")(b"", metadata=metadata(away.mandate(), AWAY), timeout=PATIENCE)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    told = trailing(refused.value)
    assert (told["x-caracal-error"], told["grpc-retry-pushback-ms"]) == ("internal_error", "1000")
    result = edge.result(str(told["x-request-id"]))
    assert (result["metadata_json"]["gateway_status"], result["evaluation_status"]) == (502, "upstream_error")


def test_a_deadline_and_a_cancellation_reach_the_server(
    channel: grpc.Channel, agent: Agent, upstream: GrpcUpstream
) -> None:
    with pytest.raises(grpc.RpcError) as late:
        channel.unary_unary("/interop.Echo/Late")(b"", metadata=metadata(agent.mandate()), timeout=1)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0 < upstream.remaining.get(timeout=PATIENCE) <= 1
    assert upstream.ended.get(timeout=PATIENCE) == CANCELLED
    call = channel.unary_stream("/interop.Echo/Forever")(b"x", metadata=metadata(agent.mandate()))
    assert next(call) == b"x"
    call.cancel()
    assert upstream.ended.get(timeout=PATIENCE) == CANCELLED


def test_a_revocation_ends_a_stream_on_both_sides_and_nothing_else(
    channel: grpc.Channel, agent: Agent, edge: Edge, upstream: GrpcUpstream
) -> None:
    other = Agent(Caracal(), GRPC, ["grpc:use"])
    going_on = channel.unary_stream("/interop.Echo/Forever")(b"y", metadata=metadata(other.mandate()))
    assert next(going_on) == b"y"
    call = channel.unary_stream("/interop.Echo/Forever")(b"x", metadata=metadata(agent.mandate()))
    assert next(call) == b"x"
    request_id = dict(call.initial_metadata())["x-request-id"]
    edge.revoke(agent.session)
    with pytest.raises(grpc.RpcError) as cut:
        next(call)
    assert cut.value.code() == grpc.StatusCode.CANCELLED
    assert upstream.ended.get(timeout=PATIENCE) == CANCELLED
    assert edge.result(request_id)["metadata_json"]["cut"] == "revoked"
    once = channel.unary_unary("/interop.Echo/Once")
    assert once(b"after", metadata=metadata(other.mandate()), timeout=PATIENCE) == b"after"
    assert going_on.is_active()
    going_on.cancel()
    assert upstream.ended.get(timeout=PATIENCE) == CANCELLED


def test_many_calls_share_few_connections(channel: grpc.Channel, agent: Agent, edge: Edge, upstream: GrpcUpstream) -> None:
    mandate = agent.reusable_mandate(edge)
    before = len(upstream.peers)
    once = channel.unary_unary("/interop.Echo/Once")

    def call(number: int) -> bytes:
        return once(str(number).encode(), metadata=metadata(mandate), timeout=PATIENCE)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(call, range(200)))
    assert answers == [str(number).encode() for number in range(200)]
    assert len(set(upstream.peers[before:])) < 20
