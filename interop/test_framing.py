"""Requests that two parsers could read differently. Whatever the edge makes of them, the upstream parsed exactly the
requests that the edge authorized: the ledger and the upstream's own log are compared."""

from __future__ import annotations

import re
import socket
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from caracalai import Caracal
from h2.exceptions import H2Error

import parsers
from certificates import Certificate
from edge import ZONE, Edge
from http2_client import Http2
from parsers import UNREADABLE
from programs import Agent, use_variables_of
from upstreams import Upstreams

# How long a connection may say nothing, before and after its first byte.
SILENCE, QUIET = 2, 0.03
AT_ONCE = 8

Requests = Counter[tuple[str, str]]

BUNDLE = """
[[providers]]
identifier = "provider://nothing"
kind = "none"

[[resources]]
identifier = "resource://{name}"
upstream_url = "http://{address}"
scopes = ["parse:use"]
credential_provider = "provider://nothing"
operation_enforcement = "enforced"
operations = [{{ method = "*", path = "/read/**", scope = "parse:use" }}]
hosts = ["edge.test"]
reusable_mandates = true

[grants."resource://{name}"]
application = "main"
roles = {{ agent = ["parse:use"] }}
"""


def table(name: str) -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / name).read_text())


class Line:
    """An upstream, the edge before it, and a mandate that is good for it."""

    def __init__(
        self, name: str, upstream: parsers.Parser, edge: Edge, certificate: Certificate | None
    ) -> None:
        self.name, self.upstream, self.edge = name, upstream, edge
        self.resource = f"resource://{name}"
        self.mandate = Agent(Caracal(), self.resource, ["parse:use"]).reusable_mandate(edge)
        self.host, port = edge.gateway.partition("://")[2].split(":")
        self.port = int(port)
        self.certificate = certificate
        self.client = httpx.Client(verify=certificate.trusted() if certificate else True, timeout=10)

    def filled(self, text: str, name: str) -> bytes:
        auth = f"Host: edge\r\nX-Caracal-Resource: {self.resource}\r\nAuthorization: Bearer {self.mandate}\r\n"
        second = f"GET /read/{name}_smuggled HTTP/1.1\r\nHost: edge\r\n\r\n"
        for word, meaning in {
            "second": second,
            "second_length": str(len(second)),
            "second_hex": f"{len(second):x}",
            "pipelined": f"GET /read/{name}_pipelined HTTP/1.1\r\n{auth}\r\n",
            "auth": auth,
            "name": name,
            "resource": self.resource,
            "mandate": self.mandate,
        }.items():
            text = text.replace("{" + word + "}", meaning)
        return text.encode("latin-1")

    def exchange(self, sent: bytes) -> list[int]:
        """Sends bytes on a connection of their own; the statuses of what comes back."""
        answer = b""
        with socket.create_connection((self.host, self.port), timeout=SILENCE) as connection:
            try:
                connection.sendall(sent)
                while more := connection.recv(65536):
                    answer += more
                    connection.settimeout(QUIET)
            except OSError:
                pass
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", answer)]

    def probe(self, path: str) -> None:
        """An ordinary request gets its own answer, whatever was before it on the upstream's connections."""
        headers = {"X-Caracal-Resource": self.resource, "Authorization": f"Bearer {self.mandate}"}
        answer = self.client.get(f"{self.edge.gateway}{path}", headers=headers)
        assert (answer.status_code, answer.text) == (200, path)

    def authorized(self) -> Requests:
        """Method and path of what the ledger says was allowed."""
        return Counter(
            (record["metadata_json"]["method"], record["metadata_json"]["path"])
            for record in self.edge.records()
            if (record["event_type"], record["decision"]) == ("gateway_decision", "allow")
        )

    def parsed(self) -> Requests:
        return Counter((method, target.partition("?")[0]) for method, target in self.upstream.parsed())

    def settled(self, right: Callable[[Requests, Requests], bool]) -> tuple[Requests, Requests]:
        """What was authorized and what was parsed, once both are right or no longer become so."""
        deadline = time.monotonic() + 5
        while True:
            authorized, parsed = self.authorized(), self.parsed()
            if right(authorized, parsed) or time.monotonic() > deadline:
                return authorized, parsed
            time.sleep(0.05)


def replay(line: Line, cases: list[dict[str, Any]], send: Callable[[dict[str, Any]], object]) -> None:
    """Sends every case, an ordinary request after each, and compares what was authorized with what was parsed."""

    def one(case: dict[str, Any]) -> None:
        send(case)
        line.probe(f"/read/{case['name']}_probe")

    def counted(authorized: Requests) -> dict[str, int]:
        """How many requests of each case were authorized."""
        of_cases: Counter[str] = Counter()
        for (_, path), count in authorized.items():
            name, _, kind = path.removeprefix("/read/").partition("_")
            of_cases[name] += 0 if kind == "probe" else count
        return {case["name"]: of_cases[case["name"]] for case in cases}

    def expected(authorized: Requests) -> Requests:
        """Everything that was authorized, but for what this upstream is known to refuse to read."""
        refused = {f"/read/{case['name']}_" for case in cases if line.name in case.get("unreadable", [])}
        unreadable = Counter({one: count for one, count in authorized.items() if one[1] in refused})
        return authorized - unreadable + Counter({UNREADABLE: unreadable.total()})

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, cases))
    pinned = {case["name"]: case["authorized"] for case in cases}
    authorized, parsed = line.settled(
        lambda authorized, parsed: parsed == expected(authorized) and counted(authorized) == pinned
    )
    assert parsed == expected(authorized)
    assert counted(authorized) == pinned


@contextmanager
def opened(
    name: str, factory: pytest.TempPathFactory, upstreams: Upstreams, certificate: Certificate | None = None
) -> Iterator[Line]:
    upstream = parsers.start(name, factory.mktemp(name))
    home = factory.mktemp("framing")
    home.chmod(0o700)
    edge = Edge(home, upstreams)
    config = edge.config.read_text()
    edge.config.write_text(config.replace("hosts = []", 'hosts = ["edge.test"]'))
    with (home / f"bundles/{ZONE}.toml").open("a") as bundle:
        bundle.write(BUNDLE.format(name=name, address=upstream.address))
    if certificate is not None:
        edge.serve_tls(certificate.certificate, certificate.key)
    edge.start()
    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            use_variables_of(edge, monkeypatch)
            line = Line(name, upstream, edge, certificate)
        with line.client:
            yield line
    finally:
        edge.stop()
        upstream.close()


@pytest.fixture(params=parsers.NAMES)
def line(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstreams: Upstreams
) -> Iterator[Line]:
    with opened(request.param, tmp_path_factory, upstreams) as line:
        yield line


def test_the_upstream_parsed_exactly_what_was_authorized(line: Line) -> None:
    replay(
        line,
        table("framing.toml")["cases"],
        lambda case: line.exchange(line.filled(case["send"], case["name"])),
    )


@pytest.mark.parametrize("name", parsers.NAMES)
def test_nothing_of_http_2_means_another_request_over_http_1(
    name: str, tmp_path_factory: pytest.TempPathFactory, upstreams: Upstreams
) -> None:
    certificate = Certificate()

    def send(case: dict[str, Any]) -> None:
        def fields(pairs: list[list[str]]) -> list[tuple[bytes, bytes]]:
            return [(line.filled(key, case["name"]), line.filled(value, case["name"])) for key, value in pairs]

        usual = {
            ":method": "POST",
            ":scheme": "https",
            ":authority": "edge",
            ":path": "/read/{name}_",
            "x-caracal-resource": "{resource}",
            "authorization": "Bearer {mandate}",
        }
        head = [[key, value] for key, value in {**usual, **case.get("set", {})}.items() if value != []]
        connection = Http2(line.edge.gateway, certificate, SILENCE, strict=False)
        try:
            stream = connection.send(
                fields(head + case.get("headers", [])),
                line.filled(case["body"], case["name"]),
                fields(case.get("trailers", [])),
            )
            for _ in connection.events(stream):
                pass
            connection.close()
        except (OSError, H2Error):
            pass

    with opened(name, tmp_path_factory, upstreams, certificate) as line:
        replay(line, table("framing_http2.toml")["cases"], send)


def test_a_place_is_written_in_one_way_or_refused(line: Line) -> None:
    addresses = table("addresses.toml")
    answered = []
    passed: Requests = Counter()
    for target, _ in addresses["targets"]:
        written = target.replace("{8192}", "a" * 8192)
        sent = f"GET {written} HTTP/1.1\r\n{{auth}}Connection: close\r\n\r\n"
        statuses = line.exchange(line.filled(sent, "target"))
        answered.append([target, statuses[-1] if statuses else 0])
        if answered[-1][1] == 200:
            passed["GET", written.partition("?")[0]] += 1
    assert line.settled(lambda *both: both == (passed, passed)) == (passed, passed)
    assert answered == addresses["targets"]
    assert all(reading.startswith("/read/") for reading in line.upstream.readings())


def test_a_host_is_written_in_one_way_or_refused(line: Line) -> None:
    answered = []
    for host, _ in table("addresses.toml")["hosts"]:
        sent = f"GET /read/host HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        sent += "Authorization: Bearer {mandate}\r\n\r\n"
        statuses = line.exchange(line.filled(sent, "host"))
        answered.append([host, statuses[-1] if statuses else 0])
    assert answered == table("addresses.toml")["hosts"]
