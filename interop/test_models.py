"""The official clients of two model APIs, unchanged: a base URL, and a mandate where the key would go."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import httpx
import openai
import pytest
from caracalai import Caracal

from edge import ANTHROPIC, APPLICATION, OPENAI, ZONE, Edge
from model_upstream import WORDS, ModelUpstream
from programs import LABELS, run

SCOPES = ["model:use"]
TEXT = "".join(WORDS)
ASKED = [{"role": "user", "content": "hello"}]


class Authority:
    """Two sessions and a delegation, as the application transport makes them; a mandate for each call."""

    def __init__(self, caracal: Caracal, resource: str) -> None:
        self.caracal, self.resource = caracal, resource
        self.held = caracal._app_mandate(resource, SCOPES, LABELS, 300)

    def mandate(self) -> str:
        minted = self.caracal.config.exchanger.mint_mandate(
            resource=self.resource,
            scopes=SCOPES,
            session_id=self.held.target_session_id,
            delegation_id=self.held.delegation_id,
            cache=False,
        )
        return minted.token


@pytest.fixture
def openai_authority(caracal: Caracal) -> Iterator[Authority]:
    yield Authority(caracal, OPENAI)


@pytest.fixture
def anthropic_authority(caracal: Caracal) -> Iterator[Authority]:
    yield Authority(caracal, ANTHROPIC)


def test_the_openai_client_asks_for_a_mandate_before_each_call(
    openai_authority: Authority, edge: Edge, models: ModelUpstream
) -> None:
    with openai.OpenAI(
        base_url=f"{edge.gateway}/openai/v1", api_key=openai_authority.mandate, max_retries=0
    ) as client:
        plain = client.chat.completions.create(model="m", messages=ASKED)
        streamed = client.chat.completions.create(model="m", messages=ASKED, stream=True)
        said = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert plain.choices[0].message.content == TEXT
    assert said == TEXT
    assert models.keys[-2:] == [{"authorization": f"Bearer {edge.model_key}"}] * 2


def test_a_mandate_as_a_fixed_key_is_good_once(
    openai_authority: Authority, edge: Edge, models: ModelUpstream
) -> None:
    before = len(models.keys)
    with openai.OpenAI(
        base_url=f"{edge.gateway}/openai/v1", api_key=openai_authority.mandate(), max_retries=0
    ) as client:
        assert client.chat.completions.create(model="m", messages=ASKED).choices
        with pytest.raises(openai.AuthenticationError) as refused:
            client.chat.completions.create(model="m", messages=ASKED)
    assert refused.value.status_code == 401
    assert len(models.keys) == before + 1


def test_an_operation_that_was_not_declared_is_the_clients_permission_error(
    openai_authority: Authority, edge: Edge
) -> None:
    with (
        openai.OpenAI(
            base_url=f"{edge.gateway}/openai/v1", api_key=openai_authority.mandate, max_retries=0
        ) as client,
        pytest.raises(openai.PermissionDeniedError) as refused,
    ):
        client.models.delete("m")
    # The client takes `error` for the body.
    assert refused.value.body == "operation_not_permitted"
    assert refused.value.request_id


def test_the_anthropic_client_carries_a_mandate_as_its_key(
    anthropic_authority: Authority, edge: Edge, models: ModelUpstream
) -> None:
    with anthropic.Anthropic(base_url=f"{edge.gateway}/anthropic", api_key="none", max_retries=0) as client:
        fresh = client.with_options(api_key=anthropic_authority.mandate())
        plain = fresh.messages.create(model="m", max_tokens=9, messages=ASKED)
        fresh = client.with_options(api_key=anthropic_authority.mandate())
        with fresh.messages.stream(model="m", max_tokens=9, messages=ASKED) as stream:
            said = "".join(stream.text_stream)
    assert plain.content[0].text == TEXT
    assert said == TEXT
    assert models.keys[-2:] == [{"x-api-key": edge.model_key}] * 2


def test_a_reusable_mandate_serves_a_client_with_a_fixed_key(
    anthropic_authority: Authority, edge: Edge, models: ModelUpstream
) -> None:
    token = httpx.post(
        f"{edge.authority}/oauth/2/token",
        data={
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "zone_id": ZONE,
            "application_id": APPLICATION,
            "client_secret": edge.client_secret,
            "resource": ANTHROPIC,
            "scope": "model:use",
            "agent_session_id": anthropic_authority.held.target_session_id,
            "delegation_edge_id": anthropic_authority.held.delegation_id,
            "reusable": "true",
            "ttl_seconds": "120",
        },
    )
    assert token.status_code == 200, token.text
    with anthropic.Anthropic(
        base_url=f"{edge.gateway}/anthropic", api_key=token.json()["access_token"], max_retries=0
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
