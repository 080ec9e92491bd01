"""The official clients of two model APIs, unchanged: a base URL, and a mandate where the key would go."""

from __future__ import annotations

import anthropic
import openai
import pytest
from caracalai import Caracal

from edge import ANTHROPIC, OPENAI, Edge
from model_upstream import WORDS, ModelUpstream
from programs import Agent

SCOPES = ["model:use"]
TEXT = "".join(WORDS)
ASKED = [{"role": "user", "content": "hello"}]


@pytest.fixture
def openai_agent(caracal: Caracal) -> Agent:
    return Agent(caracal, OPENAI, SCOPES)


@pytest.fixture
def anthropic_agent(caracal: Caracal) -> Agent:
    return Agent(caracal, ANTHROPIC, SCOPES)


def test_the_openai_client_asks_for_a_mandate_before_each_call(
    openai_agent: Agent, edge: Edge, models: ModelUpstream
) -> None:
    with openai.OpenAI(
        base_url=f"{edge.gateway}/openai/v1", api_key=openai_agent.mandate, max_retries=0
    ) as client:
        plain = client.chat.completions.create(model="m", messages=ASKED)
        streamed = client.chat.completions.create(model="m", messages=ASKED, stream=True)
        said = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert plain.choices[0].message.content == TEXT
    assert said == TEXT
    assert models.keys[-2:] == [{"authorization": f"Bearer {edge.model_key}"}] * 2


def test_a_mandate_as_a_fixed_key_is_good_once(
    openai_agent: Agent, edge: Edge, models: ModelUpstream
) -> None:
    before = len(models.keys)
    with openai.OpenAI(
        base_url=f"{edge.gateway}/openai/v1", api_key=openai_agent.mandate(), max_retries=0
    ) as client:
        assert client.chat.completions.create(model="m", messages=ASKED).choices
        with pytest.raises(openai.AuthenticationError) as refused:
            client.chat.completions.create(model="m", messages=ASKED)
    assert refused.value.status_code == 401
    assert len(models.keys) == before + 1


def test_an_operation_that_was_not_declared_is_the_clients_permission_error(
    openai_agent: Agent, edge: Edge
) -> None:
    with (
        openai.OpenAI(
            base_url=f"{edge.gateway}/openai/v1", api_key=openai_agent.mandate, max_retries=0
        ) as client,
        pytest.raises(openai.PermissionDeniedError) as refused,
    ):
        client.models.delete("m")
    # The client takes `error` for the body.
    assert refused.value.body == "operation_not_permitted"
    assert refused.value.request_id


def test_the_anthropic_client_carries_a_mandate_as_its_key(
    anthropic_agent: Agent, edge: Edge, models: ModelUpstream
) -> None:
    with anthropic.Anthropic(base_url=f"{edge.gateway}/anthropic", api_key="none", max_retries=0) as client:
        fresh = client.with_options(api_key=anthropic_agent.mandate())
        plain = fresh.messages.create(model="m", max_tokens=9, messages=ASKED)
        fresh = client.with_options(api_key=anthropic_agent.mandate())
        with fresh.messages.stream(model="m", max_tokens=9, messages=ASKED) as stream:
            said = "".join(stream.text_stream)
    assert plain.content[0].text == TEXT
    assert said == TEXT
    assert models.keys[-2:] == [{"x-api-key": edge.model_key}] * 2


def test_a_reusable_mandate_serves_a_client_with_a_fixed_key(
    anthropic_agent: Agent, edge: Edge, models: ModelUpstream
) -> None:
    with anthropic.Anthropic(
        base_url=f"{edge.gateway}/anthropic", api_key=anthropic_agent.reusable_mandate(edge), max_retries=0
    ) as client:
        for _ in range(3):
            assert client.messages.create(model="m", max_tokens=9, messages=ASKED).content[0].text == TEXT
    assert models.keys[-3:] == [{"x-api-key": edge.model_key}] * 3


def test_a_client_without_a_mandate_is_unauthenticated(edge: Edge, models: ModelUpstream) -> None:
    before = len(models.keys)
    with (
        openai.OpenAI(base_url=f"{edge.gateway}/openai/v1", api_key="sk-guessed", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(model="m", messages=ASKED)
    with (
        anthropic.Anthropic(base_url=f"{edge.gateway}/anthropic", api_key="guess", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(model="m", max_tokens=9, messages=ASKED)
    assert len(models.keys) == before
