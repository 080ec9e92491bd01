"""Budgets as an official client of a model API meets them, and the mint rate as the official SDK does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import anthropic
import openai
import pytest
from caracalai import Caracal
from caracalai_oauth.errors import CaracalError

from edge import ANTHROPIC, OPENAI, Edge
from programs import Agent, use_variables_of
from upstreams import Upstreams

ASKED = [{"role": "user", "content": "hello"}]
# As the recipe has it.
RECIPE = (Path(__file__).parent.parent / "examples/providers/anthropic/bundles/team.toml").read_text()
[SUMMED] = re.findall(r"^units_pointers = \[\n.*?^\]\n", RECIPE, re.M | re.S)
BUDGETS = f"""
[[budgets]]
name = "tokens"
per = "application"
resource = "{OPENAI}"
units = 200
units_pointer = "/usage/total_tokens"
max_per_call = 100
window_seconds = 31622400

[[rates]]
name = "z-steady"
per = "session"
resource = "{OPENAI}"
calls = 1
window_seconds = 3

[[budgets]]
name = "summed"
per = "application"
resource = "{ANTHROPIC}"
units = 200
{SUMMED}max_per_call = 100
window_seconds = 31622400
"""


@pytest.fixture
def counting(tmp_path: Path, upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    home = tmp_path / "counting"
    home.mkdir(mode=0o700)
    running = Edge(home, upstreams)
    [bundle] = [path for path in (home / "bundles").iterdir() if BUDGETED in path.read_text()]
    bundle.write_text(bundle.read_text() + BUDGETS)
    running.config.write_text(running.config.read_text() + "[limits]\nmints_per_minute = 20\n")
    running.start()
    use_variables_of(running, monkeypatch)
    yield running
    running.stop()


BUDGETED = f'identifier = "{OPENAI}"'


def standing(edge: Edge, name: str) -> dict:
    told = json.loads(edge.run("budgets", name, "--config", str(edge.config), "--json"))
    [budget] = told["budgets"]
    return budget["used"][0] if budget["used"] else {"used": 0}


def settled(edge: Edge, used: int, name: str = "tokens") -> None:
    deadline = time.monotonic() + 10
    while standing(edge, name)["used"] != used:
        assert time.monotonic() < deadline, standing(edge, name)
        time.sleep(0.05)


def test_the_openai_client_spends_tokens_waits_for_a_rate_and_learns_that_a_budget_is_used_up(
    counting: Edge,
) -> None:
    agent = Agent(Caracal(), OPENAI, ["model:use"])
    with openai.OpenAI(
        base_url=f"{counting.gateway}/openai/v1", api_key=agent.mandate, max_retries=3
    ) as client:
        client.chat.completions.create(model="m", messages=ASKED)
        # The second call comes within three seconds of the first, waits as it is told, and passes.
        streamed = client.chat.completions.create(
            model="m", messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
        assert [chunk.usage.total_tokens for chunk in streamed if chunk.usage] == [42]
        assert 'caracal_budget_refusals_total{budget="z-steady"' in counting.metrics()
        settled(counting, 84)
        client.chat.completions.create(model="m", messages=ASKED)
        settled(counting, 126)
        with pytest.raises(openai.RateLimitError) as refused:
            client.with_options(max_retries=0).chat.completions.create(model="m", messages=ASKED)
    answer = refused.value.response
    assert answer.headers["x-caracal-error"] == "budget_exhausted"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["ratelimit"].startswith('"tokens";r=74;t=')
    assert answer.json()["limit"]["name"] == "tokens"
    shown = counting.run("budgets", "--config", str(counting.config))
    assert "used 126, left 74" in shown


def test_a_stream_that_does_not_say_what_it_cost_keeps_what_was_set_aside(counting: Edge) -> None:
    agent = Agent(Caracal(), OPENAI, ["model:use"])
    with openai.OpenAI(
        base_url=f"{counting.gateway}/openai/v1", api_key=agent.mandate, max_retries=0
    ) as client:
        for _ in client.chat.completions.create(model="m", messages=ASKED, stream=True):
            pass
    settled(counting, 100)


def test_the_anthropic_client_spends_what_goes_in_and_what_comes_out(
    counting: Edge, upstreams: Upstreams
) -> None:
    agent = Agent(Caracal(), ANTHROPIC, ["model:use"])
    asked = {"max_tokens": 9, "messages": ASKED}
    with anthropic.Anthropic(
        base_url=f"{counting.gateway}/anthropic", api_key="none", max_retries=0
    ) as client:

        def fresh() -> anthropic.Anthropic:
            return client.with_options(api_key=agent.mandate())

        told = fresh().messages.create(model="m", **asked).usage
        assert (told.input_tokens, told.output_tokens) == (30, 12)
        settled(counting, 42, "summed")
        with fresh().messages.stream(model="m", **asked) as stream:
            assert stream.get_final_message().usage.output_tokens == 12
        settled(counting, 84, "summed")
        # One that its caller leaves after the first event costs what was set aside, not what that event said.
        stream = fresh().messages.create(model="slow", stream=True, **asked)
        assert next(stream).type == "message_start"
        stream.close()
        assert upstreams.apis.abandoned.get(timeout=10) is upstreams.apis.received[-1]
        settled(counting, 184, "summed")
        with pytest.raises(anthropic.RateLimitError) as refused:
            fresh().messages.create(model="m", **asked)
    assert refused.value.response.headers["x-caracal-error"] == "budget_exhausted"


def test_the_sdk_is_told_that_it_mints_too_fast_and_when_to_try_again(counting: Edge) -> None:
    agent = Agent(Caracal(), OPENAI, ["model:use"])
    with pytest.raises(CaracalError) as refused:
        for _ in range(40):
            agent.mandate()
    assert (refused.value.http_status, refused.value.code) == (429, "rate_limited")
    assert refused.value.is_retryable
