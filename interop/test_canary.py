"""Injected secrets are found at their upstream and nowhere else; mandates and client secrets stay put too."""

from __future__ import annotations

import httpx
import pytest
from caracalai import AccessDenied, Caracal

from edge import APPLICATION, ECHO, Edge
from upstream import Upstream, forms


def test_the_injected_secret_is_found_only_at_the_upstream(
    caracal: Caracal, edge: Edge, upstream: Upstream
) -> None:
    answers: list[httpx.Response] = []
    with caracal.sync_application_transport(ECHO, scopes=["echo:read"]) as client:
        answers.append(client.get(f"{upstream.url}/read/canary", headers={"Cookie": "a=b"}))
        answers.append(client.get(f"{upstream.url}/admin"))
    with (
        caracal.sync_application_transport(ECHO, scopes=["echo:write"]) as client,
        pytest.raises(AccessDenied),
    ):
        client.post(f"{upstream.url}/write/canary")
    answers.append(httpx.get(f"{edge.gateway}/read/canary", headers={"X-Caracal-Resource": ECHO}))
    answers.append(httpx.get(f"{edge.gateway}/echo/read/canary", headers={"X-Api-Key": "not-a-mandate"}))

    # The upstream got it, and echoed it in every form: without that the rest would prove nothing.
    seen = [one for one in upstream.received if one.path == "/read/canary"]
    assert len(seen) == 1
    assert seen[0].header("x-api-key") == edge.api_key
    assert seen[0].header("cookie") is None
    assert [answer.status_code for answer in answers] == [200, 403, 401, 401]
    count = len(forms(edge.api_key))
    echoed = [answers[0].headers[f"x-echo-{number}"] for number in range(count)]
    assert [len(value) for value in echoed] == [len(f"key={form};") for form in forms(edge.api_key)]
    assert "set-cookie" not in answers[0].headers

    places = {f"answer {number}": raw(answer) for number, answer in enumerate(answers)}
    places["metrics"] = edge.metrics().encode()
    places["status"] = edge.run("status", "--config", str(edge.config)).encode()
    places["audit"] = edge.run("audit", "tail", "--config", str(edge.config), "-n", "1000").encode()
    places.update(edge.written())
    places["keys"] = edge.run("keys", "list", "--config", str(edge.config)).encode()
    places["secrets"] = edge.run("secrets", "list", "--config", str(edge.config)).encode()
    assert b"DEBUG" in places["edge.log"], "the log was to say all it can"
    assert any(b"/read/" in text or ECHO.encode() in text for text in places.values()), "nothing was recorded"
    for name, text in places.items():
        for form in forms(edge.api_key) + forms(edge.provider_key):
            assert form.encode() not in text, f"the secret is in {name}"


def test_the_clients_secret_and_its_mandates_are_kept_nowhere(
    caracal: Caracal, edge: Edge, upstream: Upstream
) -> None:
    with caracal.sync_application_transport(ECHO, scopes=["echo:read"]) as client:
        answer = client.get(f"{upstream.url}/read/mandate")
    assert answer.status_code == 200
    mandate = answer.request.headers["authorization"].removeprefix("Bearer ")
    signature = mandate.rsplit(".", 1)[1].encode()
    for name, text in edge.written().items():
        assert signature not in text, f"a mandate is in {name}"
        assert edge.client_secret.encode() not in text, f"the secret of {APPLICATION} is in {name}"
    for seen in upstream.received:
        assert signature.decode() not in str(seen), "a mandate reached the upstream"


def raw(answer: httpx.Response) -> bytes:
    head = b"\n".join(name + b": " + value for name, value in answer.headers.raw)
    return head + b"\n\n" + answer.content
