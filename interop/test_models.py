"""The official clients of two model APIs, unchanged: a base URL, and a mandate where the key would go."""

from __future__ import annotations

import anthropic
import httpx
import httpx2
import openai
import pytest
from caracalai import Caracal

from apis import WORDS, Apis
from edge import ANTHROPIC, AZURE, OPENAI, Edge
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
    openai_agent: Agent, edge: Edge, apis: Apis
) -> None:
    with openai.OpenAI(
        base_url=f"{edge.gateway}/openai/v1", api_key=openai_agent.mandate, max_retries=0
    ) as client:
        plain = client.chat.completions.create(model="m", messages=ASKED)
        streamed = client.chat.completions.create(model="m", messages=ASKED, stream=True)
        said = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert plain.choices[0].message.content == TEXT
    assert said == TEXT
    assert [seen.credentials for seen in apis.received[-2:]] == [{"authorization": f"Bearer {edge.provider_key}"}] * 2


def test_a_mandate_as_a_fixed_key_is_good_once(
    openai_agent: Agent, edge: Edge, apis: Apis
) -> None:
    before = len(apis.received)
    with openai.OpenAI(
        base_url=f"{edge.gateway}/openai/v1", api_key=openai_agent.mandate(), max_retries=0
    ) as client:
        assert client.chat.completions.create(model="m", messages=ASKED).choices
        with pytest.raises(openai.AuthenticationError) as refused:
            client.chat.completions.create(model="m", messages=ASKED)
    assert refused.value.status_code == 401
    assert len(apis.received) == before + 1


def test_the_azure_client_carries_its_mandate_in_a_header_of_its_own(
    caracal: Caracal, edge: Edge, apis: Apis
) -> None:
    agent = Agent(caracal, AZURE, SCOPES)
    with openai.AzureOpenAI(
        azure_endpoint=f"{edge.gateway}/azure", api_version="2026-06-01", api_key=agent.mandate(), max_retries=0
    ) as client:
        plain = client.chat.completions.create(model="m", messages=ASKED)
    assert plain.choices[0].message.content == TEXT
    seen = apis.received[-1]
    assert seen.path == "/openai/deployments/m/chat/completions?api-version=2026-06-01"
    assert seen.credentials == {"api-key": edge.provider_key}


def test_a_retry_of_the_client_carries_a_mandate_of_its_own(
    openai_agent: Agent, edge: Edge, apis: Apis
) -> None:
    before = len(apis.received)
    apis.fail_once("/v1/chat/completions", 429, {"retry-after-ms": "1"}, {"error": {"message": "slow down"}})
    with openai.OpenAI(
        base_url=f"{edge.gateway}/openai/v1", api_key=openai_agent.mandate, max_retries=1
    ) as client:
        assert client.chat.completions.create(model="m", messages=ASKED).choices[0].message.content == TEXT
    assert len(apis.received) == before + 2


@pytest.mark.parametrize("which", ["openai", "anthropic"])
def test_a_stream_that_the_client_gives_up_is_given_up_upstream(
    which: str, openai_agent: Agent, anthropic_agent: Agent, edge: Edge, apis: Apis
) -> None:
    # The model says its first word, and nothing after it.
    if which == "openai":
        with openai.OpenAI(
            base_url=f"{edge.gateway}/openai/v1", api_key=openai_agent.mandate, max_retries=0
        ) as client:
            stream = client.chat.completions.create(model="slow", messages=ASKED, stream=True)
            assert next(stream).choices[0].delta.content == WORDS[0]
            stream.close()
    else:
        key = anthropic_agent.mandate()
        with anthropic.Anthropic(
            base_url=f"{edge.gateway}/anthropic", api_key=key, max_retries=0
        ) as client:
            stream = client.messages.create(model="slow", max_tokens=9, messages=ASKED, stream=True)
            assert next(stream).type == "message_start"
            stream.close()
    answer = stream.response
    assert apis.abandoned.get(timeout=10) is apis.received[-1]
    result = edge.result(answer.headers["x-request-id"])
    assert "cut" not in result["metadata_json"]
    assert result["metadata_json"]["response_bytes"] > 0


def test_a_stream_of_a_revoked_session_is_an_error_of_the_client(
    caracal: Caracal, edge: Edge, apis: Apis
) -> None:
    agent = Agent(caracal, OPENAI, SCOPES)
    with openai.OpenAI(base_url=f"{edge.gateway}/openai/v1", api_key=agent.mandate, max_retries=0) as client:
        stream = client.chat.completions.create(model="slow", messages=ASKED, stream=True)
        assert next(stream).choices[0].delta.content == WORDS[0]
        edge.revoke(agent.session)
        with pytest.raises((openai.APIError, httpx2.TransportError, httpx.TransportError)):
            next(stream)
    assert apis.abandoned.get(timeout=10) is apis.received[-1]
    assert edge.result(stream.response.headers["x-request-id"])["metadata_json"]["cut"] == "revoked"


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
    anthropic_agent: Agent, edge: Edge, apis: Apis
) -> None:
    with anthropic.Anthropic(base_url=f"{edge.gateway}/anthropic", api_key="none", max_retries=0) as client:
        fresh = client.with_options(api_key=anthropic_agent.mandate())
        plain = fresh.messages.create(model="m", max_tokens=9, messages=ASKED)
        fresh = client.with_options(api_key=anthropic_agent.mandate())
        with fresh.messages.stream(model="m", max_tokens=9, messages=ASKED) as stream:
            said = "".join(stream.text_stream)
    assert plain.content[0].text == TEXT
    assert said == TEXT
    assert [seen.credentials for seen in apis.received[-2:]] == [{"x-api-key": edge.provider_key}] * 2


def test_a_reusable_mandate_serves_a_client_with_a_fixed_key(
    anthropic_agent: Agent, edge: Edge, apis: Apis
) -> None:
    with anthropic.Anthropic(
        base_url=f"{edge.gateway}/anthropic", api_key=anthropic_agent.reusable_mandate(edge), max_retries=0
    ) as client:
        for _ in range(3):
            assert client.messages.create(model="m", max_tokens=9, messages=ASKED).content[0].text == TEXT
    assert [seen.credentials for seen in apis.received[-3:]] == [{"x-api-key": edge.provider_key}] * 3


def test_a_client_without_a_mandate_is_unauthenticated(edge: Edge, apis: Apis) -> None:
    before = len(apis.received)
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
    assert len(apis.received) == before
