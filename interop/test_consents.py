"""`oauth2_authorization_code` against authorization servers that know nothing of the edge."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from caracalai import Caracal

from consents import ConsentEdge, Consents, Orders
from edge import APPLICATION, ZONE
from programs import use_variables_of
from test_canary import raw
from upstream import forms
from upstreams import Upstreams

ANSWERS: list[httpx.Response] = []
PRINTED: list[str] = []
# Every address that a browser saw: with states and codes in them.
SEEN: list[httpx.URL] = []


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consents]:
    running = Consents(tmp_path_factory.mktemp("consents") / "peers.log")
    yield running
    running.close()


@pytest.fixture(scope="module")
def orders(peers: Consents) -> Iterator[Orders]:
    running = Orders(peers)
    yield running
    running.close()


@pytest.fixture(scope="module")
def edge(
    tmp_path_factory: pytest.TempPathFactory, upstreams: Upstreams, peers: Consents, orders: Orders
) -> Iterator[ConsentEdge]:
    home = tmp_path_factory.mktemp("consent-edge")
    home.chmod(0o700)
    running = ConsentEdge(home, upstreams, peers, orders)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def call(edge: ConsentEdge) -> Iterator[Callable[..., httpx.Response]]:
    """An agent's request. A client of its own for each test: its sessions do not outlive a crash."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_variables_of(edge, monkeypatch)
        agent = Caracal()

        def one(name: str) -> httpx.Response:
            with agent.sync_application_transport(f"resource://{name}", scopes=["orders:use"]) as client:
                answer = client.get(f"{edge.orders.url}/orders/1", timeout=30)
            ANSWERS.append(answer)
            return answer

        yield one
        asyncio.run(agent.aclose())


def operate(edge: ConsentEdge, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = edge.attempt("providers", *arguments, "--config", str(edge.config), "--json")
    PRINTED.extend([done.stdout, done.stderr])
    return done.returncode, json.loads(done.stdout or "{}")


class Connecting:
    """`caracal providers connect`, as an operator runs it."""

    def __init__(self, edge: ConsentEdge, name: str, *whose: str) -> None:
        told = [edge.binary, "providers", "connect", ZONE, f"provider://{name}", *whose]
        self._process = subprocess.Popen(
            [*told, "--config", str(edge.config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        self.url = self._process.stdout.readline().strip()

    def browse(self, url: str | None = None) -> httpx.Response:
        with httpx.Client(follow_redirects=True) as browser:
            answer = browser.get(url or self.url)
        SEEN.extend(one.url for one in [*answer.history, answer])
        ANSWERS.append(answer)
        return answer

    def end(self) -> tuple[int, str]:
        stdout, stderr = self._process.communicate(timeout=30)
        PRINTED.extend([stdout, stderr])
        return self._process.returncode, stdout


def connect(edge: ConsentEdge, name: str, *whose: str) -> None:
    connecting = Connecting(edge, name, *(whose or ["--subject", APPLICATION]))
    answer = connecting.browse()
    assert answer.status_code == 200, answer.text
    code, printed = connecting.end()
    assert code == 0 and printed.startswith("connected\n"), printed


def row(edge: ConsentEdge, name: str) -> dict[str, Any]:
    _, told = operate(edge, "connections")
    return next(one for one in told["connections"] if one["provider"] == f"provider://{name}")


def sent(orders: Orders) -> str:
    return (orders.received[-1].header("authorization") or "").removeprefix("Bearer ")


@pytest.mark.parametrize("name", ["basic", "public", "post", "mock"])
def test_ada_connects_and_the_agent_acts_with_her_account(
    name: str, edge: ConsentEdge, call: Callable[..., httpx.Response], peers: Consents, orders: Orders
) -> None:
    refused = call(name)
    assert (refused.status_code, refused.json()["error"]) == (403, "access_denied")
    connect(edge, name)
    answer = call(name)
    assert answer.status_code == 200, answer.text
    assert sent(orders) in [one.get("access_token") for one in peers.ask("issued")]
    record = edge.result(answer.headers["x-request-id"])["metadata_json"]
    assert record["connection_id"] == row(edge, name)["id"]
    assert row(edge, name)["renewable"] == (name != "post")


def test_a_no_and_a_second_return_connect_nothing(edge: ConsentEdge) -> None:
    connecting = Connecting(edge, "denied", "--shared")
    answer = connecting.browse()
    assert (answer.status_code, "provider_oauth_denied" in answer.text) == (403, True)
    assert "canary" not in answer.text
    code, printed = connecting.end()
    assert code == 1 and "access_denied" in printed
    again = connecting.browse(str(SEEN[-1]))
    assert (again.status_code, "oauth_state_used" in again.text) == (400, True)
    changed = str(SEEN[-1]).replace("iss=http", "iss=https")
    assert connecting.browse(changed).status_code == 400


def test_another_issuer_is_not_believed(edge: ConsentEdge) -> None:
    connecting = Connecting(edge, "basic", "--shared")
    state = httpx.URL(connecting.url).params["state"]
    for issuer in ("&iss=https%3A%2F%2Fevil.example", ""):
        answer = connecting.browse(f"{edge.authority}/oauth/2/callback?code=c&state={state}{issuer}")
        assert answer.status_code == 400
    assert "oauth_issuer_mismatch" in connecting.end()[1]


@pytest.mark.parametrize("fault", ["down", "html", "mac", "refused"])
def test_what_goes_wrong_with_the_code_connects_nothing(
    fault: str, edge: ConsentEdge, peers: Consents
) -> None:
    connecting = Connecting(edge, "basic", "--shared")
    peers.ask("fault", fault)
    answer = connecting.browse()
    assert answer.status_code == 502, answer.text
    assert "canary" not in answer.text
    assert connecting.end()[0] == 1


def test_a_rotated_refresh_token_survives_a_kill_right_after_it_was_got(
    edge: ConsentEdge, peers: Consents, orders: Orders
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_variables_of(edge, monkeypatch)

        def one() -> httpx.Response:
            agent = Caracal()
            with agent.sync_application_transport("resource://basic", scopes=["orders:use"]) as client:
                answer = client.get(f"{orders.url}/orders/1", timeout=30)
            asyncio.run(agent.aclose())
            ANSWERS.append(answer)
            return answer

        # Tokens of this life are good for nothing to the edge but to be renewed: every call rotates.
        peers.configure(f"{edge.authority}/oauth/2/callback", life=20)
        connect(edge, "basic")
        tokens = []
        for _ in range(3):
            before = len(peers.asked("refresh_token"))
            assert one().status_code == 200
            assert len(peers.asked("refresh_token")) == before + 1
            tokens.append(sent(orders))
            edge.restart(signal.SIGKILL)
        assert len(set(tokens)) == 3
        shown = [one["form"]["refresh_token"] for one in peers.asked("refresh_token")[-3:]]
        assert len(set(shown)) == 3, "each was shown once"
        # A server that is down, or says nonsense, ends nothing; one that says no ends it.
        peers.ask("fault", "html")
        assert one().status_code == 502
        assert row(edge, "basic")["status"] == "active"
        edge.restart()
        peers.ask("fault", "refused")
        one()
        assert row(edge, "basic")["renewable"] is False


def test_a_token_endpoint_that_is_slow_is_waited_for_and_one_that_hangs_ends_nothing(
    edge: ConsentEdge, call: Callable[..., httpx.Response], peers: Consents, orders: Orders
) -> None:
    # Slow and hanging for the code: the first connects, the second is told to the person in time.
    connecting = Connecting(edge, "public", "--subject", APPLICATION)
    peers.ask("fault", "hangs")
    begun = time.monotonic()
    answer = connecting.browse()
    assert (answer.status_code, time.monotonic() - begun < 15) == (502, True), answer.text
    assert connecting.end()[0] == 1
    peers.configure(f"{edge.authority}/oauth/2/callback", life=20)
    connecting = Connecting(edge, "public", "--subject", APPLICATION)
    peers.ask("fault", "slow")
    assert connecting.browse().status_code == 200
    assert connecting.end()[0] == 0

    # A token of this life is renewed for every call. Several wait for one slow renewal.
    edge.restart()
    before = len(peers.asked("refresh_token"))
    peers.ask("fault", "slow")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(call, ["public"] * 4))
    assert [answer.status_code for answer in answers] == [200] * 4, [answer.text for answer in answers]
    assert peers.asked("refresh_token")[before:]

    # One that hangs is given up while its caller still waits, and the connection stands.
    edge.restart()
    peers.ask("fault", "hangs")
    begun = time.monotonic()
    refused = call("public")
    assert (refused.status_code, refused.json()["error"]) == (502, "http_request_failed"), refused.text
    assert time.monotonic() - begun < 15
    assert row(edge, "public")["status"] == "active"


def test_a_revoked_person_is_disconnected_at_the_server_too(
    edge: ConsentEdge, call: Callable[..., httpx.Response], peers: Consents, orders: Orders
) -> None:
    peers.configure(f"{edge.authority}/oauth/2/callback", life=600)
    connect(edge, "post")
    assert call("post").status_code == 200
    token = sent(orders)
    told = json.loads(edge.run("revoke", "--zone", ZONE, "--subject", APPLICATION, "--config", str(edge.config), "--json"))
    ended = {one["provider"]: one["upstream_revocation"] for one in told["connections"]}
    assert ended["provider://post"] == "revoked", told
    assert httpx.get(orders.url, headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert row(edge, "post")["status"] == "revoked"


def test_an_ended_connection_is_over_at_the_server_too(
    edge: ConsentEdge, call: Callable[..., httpx.Response], peers: Consents, orders: Orders
) -> None:
    assert call("post").status_code in (200, 403)
    peers.configure(f"{edge.authority}/oauth/2/callback", life=600)
    connect(edge, "post")
    assert call("post").status_code == 200
    token = sent(orders)
    code, told = operate(edge, "disconnect", ZONE, "provider://post", "--subject", APPLICATION)
    assert (code, told["upstream_revocation"]) == (0, "revoked")
    assert httpx.get(orders.url, headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert call("post").status_code == 403
    assert operate(edge, "disconnect", ZONE, "provider://post", "--subject", APPLICATION)[0] != 0
    plain = edge.attempt("providers", "connections", "--config", str(edge.config))
    PRINTED.append(plain.stdout)
    assert "revoked" in plain.stdout


def test_no_token_code_state_or_secret_is_found_anywhere_else(edge: ConsentEdge, peers: Consents) -> None:
    kept = [peers.secret]
    for one in peers.ask("issued"):
        kept += [one[name] for name in ("access_token", "refresh_token") if one.get(name)]
    for one in peers.ask("asked"):
        kept += [one["form"][name] for name in ("code", "code_verifier") if one["form"].get(name)]
    kept += [url.params["code"] for url in SEEN if "code" in url.params and len(url.params["code"]) > 5]
    assert len(kept) > 20
    places = {f"answer {number}": raw(answer) for number, answer in enumerate(ANSWERS)}
    places |= {f"command {number}": text.encode() for number, text in enumerate(PRINTED)}
    places["metrics"] = edge.metrics().encode()
    places["audit"] = edge.run("audit", "tail", "--config", str(edge.config), "-n", "1000").encode()
    places |= edge.written()
    assert b"DEBUG" in places["edge.log"]
    wanted = {form.encode() for secret in kept for form in forms(secret)}
    for state in {url.params["state"] for url in SEEN if "state" in url.params}:
        for name, text in edge.written().items():
            assert state.encode() not in text, f"a state is in {name}"
    for name, text in places.items():
        for one in wanted:
            assert one not in text, f"{one[:12]!r}... is in {name}"
