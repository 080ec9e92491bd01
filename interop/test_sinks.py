"""A receiver in Python that is told of approvals, and checks what it is told as the guide says."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from caracalai import ApprovalRequired, Caracal

from edge import ZONE, Edge
from programs import use_variables_of
from test_approvals import TIER, answer, held, mint
from upstreams import Upstreams

KEY = "nsk_canary-a-key-that-signs-what-is-told-0123456789"


class Receiver:
    """Takes what is signed with the key and not old."""

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []
        self.deliveries: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.deliveries.append(self.headers["X-Caracal-Delivery"])
                if not receiver.good(self.headers["X-Caracal-Timestamp"], self.headers["X-Caracal-Signature"], body):
                    self.send_response(401)
                else:
                    receiver.events.append(json.loads(body))
                    self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def good(timestamp: str, signature: str, body: bytes) -> bool:
        signed = timestamp.encode() + b"." + body
        expected = "v1=" + hmac.new(KEY.encode(), signed, hashlib.sha256).hexdigest()
        return hmac.compare_digest(expected, signature) and abs(time.time() - int(timestamp)) < 300

    def has(self, count: int) -> list[dict[str, object]]:
        deadline = time.monotonic() + 20
        while len(self.events) < count:
            assert time.monotonic() < deadline, f"told {len(self.events)} of {count}"
            time.sleep(0.02)
        return self.events


@pytest.fixture
def told(tmp_path: Path, upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Edge, Receiver]]:
    receiver = Receiver()
    home = tmp_path / "told"
    home.mkdir(mode=0o700)
    edge = Edge(home, upstreams)
    with edge.config.open("a") as config:
        config.write(
            f'\n[zones.{ZONE}.sinks.python]\nurl = "http://127.0.0.1:{receiver.port}/told"\n'
            'secret = "secret://hooks/key"\n'
        )
    with (home / "secrets.toml").open("a") as secrets:
        secrets.write(
            f'[secrets.hooks]\nzones = ["{ZONE}"]\nhosts = ["127.0.0.1:{receiver.port}"]\nkey = "{KEY}"\n'
        )
    bundle = home / "bundles" / f"{ZONE}.toml"
    granted = bundle.read_text().replace('= ["echo:read"] }', '= ["echo:read", "echo:write"] }')
    bundle.write_text(granted + TIER)
    edge.start()
    use_variables_of(edge, monkeypatch)
    yield edge, receiver
    edge.stop()
    receiver.server.shutdown()


def test_a_receiver_is_told_of_each_step_and_can_prove_who_told_it(told: tuple[Edge, Receiver]) -> None:
    edge, receiver = told
    caracal = Caracal()
    agent = held(caracal)
    with pytest.raises(ApprovalRequired) as asked:
        mint(caracal, agent)
    answer(edge, "approve").join()
    mint(caracal, agent, asked.value.approval_id)
    asyncio.run(caracal.aclose())
    events = receiver.has(3)
    assert [(event["type"], event["decision"]) for event in events] == [
        ("step_up_issued", "pending"),
        ("step_up_decided", "approved"),
        ("step_up_consumed", "consumed"),
    ]
    assert {event["data"]["approval_id"] for event in events} == {asked.value.approval_id}  # type: ignore[index]
    assert receiver.deliveries == [event["id"] for event in events]
    said = json.loads(edge.run("--json", "approvals", "sinks", "test", "python", "--config", str(edge.config)))
    assert (said["outcome"], receiver.has(4)[3]["type"]) == ("delivered", "step_up_test")
    assert not receiver.good(str(int(time.time())), "v1=" + "0" * 64, b"{}")
    for name, text in edge.written().items():
        assert KEY.encode() not in text, name
    assert KEY not in edge.metrics()
