"""The clients of Stripe, GitHub and Slack, unchanged: a base URL, and a mandate where the key would go."""

from __future__ import annotations

import github
import httpx
import pytest
import slack_sdk
import stripe
from caracalai import Caracal
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler

from apis import PDF, Apis
from edge import GITHUB, SLACK, STRIPE, Edge
from programs import Agent


@pytest.fixture
def stripe_agent(caracal: Caracal) -> Agent:
    return Agent(caracal, STRIPE, ["stripe:use"])


@pytest.fixture
def github_agent(caracal: Caracal) -> Agent:
    return Agent(caracal, GITHUB, ["github:use"])


@pytest.fixture
def slack_agent(caracal: Caracal) -> Agent:
    return Agent(caracal, SLACK, ["slack:use"])


def stripe_client(edge: Edge, key: str, retries: int = 0) -> stripe.StripeClient:
    base = f"{edge.gateway}/stripe"
    return stripe.StripeClient(key, base_addresses={"api": base, "files": base}, max_network_retries=retries)


def github_client(edge: Edge, key: str) -> github.Github:
    """Lazy: what is asked for by name is addressed by the base URL, not by a URL of an answer."""
    auth = github.Auth.Login("caracal", key)
    return github.Github(auth=auth, base_url=f"{edge.gateway}/github", lazy=True, retry=None, timeout=5)


def slack_client(edge: Edge, key: str) -> slack_sdk.WebClient:
    return slack_sdk.WebClient(token=key, base_url=f"{edge.gateway}/slack/api/", timeout=5)


def test_stripe_creates_pages_and_downloads(stripe_agent: Agent, edge: Edge, apis: Apis) -> None:
    client = stripe_client(edge, stripe_agent.reusable_mandate(edge))
    made = client.v1.customers.create({"name": "Ada & Sons", "metadata": {"order id": "a/b"}})
    assert (made.id, made["name"], made["metadata[order id]"]) == ("cus_1", "Ada & Sons", "a/b")
    pages = client.v1.customers.list({"limit": 1}).auto_paging_iter()
    assert [one.id for one in pages] == ["cus_1", "cus_2"]
    assert client.v1.quotes.pdf("qt_1").io.read() == PDF
    assert [seen.credentials for seen in apis.received[-4:]] == [
        {"authorization": f"Bearer {edge.provider_key}"}
    ] * 4


def test_stripes_own_errors_come_back_as_they_are(stripe_agent: Agent, edge: Edge) -> None:
    client = stripe_client(edge, stripe_agent.mandate())
    with pytest.raises(stripe.CardError) as declined:
        client.v1.charges.create({"amount": 1, "currency": "eur"})
    assert (declined.value.http_status, declined.value.code, declined.value.param) == (
        402,
        "card_declined",
        "amount",
    )
    assert declined.value.request_id == "req_upstream"


def test_stripe_without_authority_is_told_so(stripe_agent: Agent, edge: Edge, apis: Apis) -> None:
    before = len(apis.received)
    with pytest.raises(stripe.AuthenticationError) as unknown:
        stripe_client(edge, "sk_test_guessed").v1.customers.list()
    # Stripe's own class keeps the code of this one beside it.
    assert unknown.value.error
    assert (unknown.value.http_status, unknown.value.error.code) == (401, "invalid_token")
    with pytest.raises(stripe.PermissionError) as refused:
        stripe_client(edge, stripe_agent.mandate()).v1.refunds.create({"charge": "ch_1"})
    assert refused.value.error
    assert (refused.value.http_status, refused.value.error.code) == (403, "operation_not_permitted")
    assert refused.value.user_message
    assert refused.value.user_message.startswith("the mandate does not cover this operation; ")
    assert len(apis.received) == before


def test_stripe_retries_with_the_same_idempotency_key(stripe_agent: Agent, edge: Edge, apis: Apis) -> None:
    apis.fail_once("/v1/customers", 503, {"Stripe-Should-Retry": "true"}, {"error": {"message": "later"}})
    client = stripe_client(edge, stripe_agent.reusable_mandate(edge), retries=1)
    assert client.v1.customers.create({"name": "Ada"}).id == "cus_1"
    first, second = apis.received[-2:]
    assert first.header("idempotency-key")
    assert first.header("idempotency-key") == second.header("idempotency-key")
    assert first.body == second.body


def test_github_reads_and_writes(github_agent: Agent, edge: Edge, apis: Apis) -> None:
    with github_client(edge, github_agent.reusable_mandate(edge)) as client:
        assert client.get_user().login == "octo"
        repository = client.get_repo("octo/one")
        assert [issue.number for issue in repository.get_issues(state="all")] == [1, 2]
        assert repository.create_issue("a title", body="ünïcode").number == 3
    seen = apis.received[-3:]
    assert [one.credentials for one in seen] == [{"authorization": f"Bearer {edge.provider_key}"}] * 3
    assert seen[1].query["state"] == "all"
    assert seen[2].json() == {"title": "a title", "body": "ünïcode"}


def test_github_follows_the_links_of_pages_through_the_edge(
    github_agent: Agent, edge: Edge, apis: Apis
) -> None:
    before = len(apis.received)
    with github_client(edge, github_agent.reusable_mandate(edge)) as client:
        assert [issue.number for issue in client.get_repo("octo/one").get_issues()] == [1, 2]
    pages = [(one.route, one.query.get("page"), one.credentials) for one in apis.received[before:]]
    ours = {"authorization": f"Bearer {edge.provider_key}"}
    assert pages == [
        (("GET", "/repos/octo/one/issues"), None, ours),
        (("GET", "/repositories/1/issues"), "2", ours),
    ]


@pytest.mark.parametrize("prefix", ["/github", ""])
def test_links_lead_to_where_the_caller_reaches_the_resource(
    prefix: str, github_agent: Agent, edge: Edge
) -> None:
    headers = {"Authorization": f"Bearer {github_agent.mandate()}"}
    if not prefix:
        headers["X-Caracal-Resource"] = GITHUB
    answer = httpx.get(f"{edge.gateway}{prefix}/repos/octo/one/issues", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.links["next"]["url"] == f"{edge.gateway}{prefix}/repositories/1/issues?page=2"


def test_github_follows_no_other_url_of_an_answer(github_agent: Agent, edge: Edge, apis: Apis) -> None:
    with github_client(edge, github_agent.reusable_mandate(edge)) as client:
        first = client.get_repo("octo/one").get_issues()[0]
        before = len(apis.received)
        # It is at the upstream's own address, which the client was not given.
        with pytest.raises(AssertionError):
            first.add_to_labels("urgent")
    assert len(apis.received) == before


def test_github_tells_refusals_of_its_own_from_those_of_the_edge(
    github_agent: Agent, edge: Edge, apis: Apis
) -> None:
    before = len(apis.received)
    with github_client(edge, github_agent.reusable_mandate(edge)) as client:
        with pytest.raises(github.UnknownObjectException) as missing:
            client.get_repo("octo/none").complete()
        assert missing.value.data["message"] == "Not Found"
        with pytest.raises(github.GithubException) as refused:
            client.get_repo("octo/one").delete()
        assert (refused.value.status, refused.value.data["error"]) == (403, "operation_not_permitted")
    with github_client(edge, "ghp_guessed") as client, pytest.raises(github.GithubException) as unknown:
        _ = client.get_user().login
    assert (unknown.value.status, unknown.value.data["error"]) == (401, "invalid_token")
    assert len(apis.received) == before + 1


def test_slack_posts_and_pages(slack_agent: Agent, edge: Edge, apis: Apis) -> None:
    client = slack_client(edge, slack_agent.reusable_mandate(edge))
    posted = client.chat_postMessage(channel="C1", text="governed")
    assert posted["message"]["text"] == "governed"
    channels = [channel["id"] for page in client.conversations_list(limit=1) for channel in page["channels"]]
    assert channels == ["C1", "C2"]
    seen = apis.received[-3:]
    assert [one.credentials for one in seen] == [{"authorization": f"Bearer {edge.provider_key}"}] * 3
    # Slack would take a token in the form as well; the client puts it into the header only.
    assert all("token" not in one.form for one in seen)


def test_slack_waits_when_it_is_told_to(slack_agent: Agent, edge: Edge, apis: Apis) -> None:
    apis.fail_once("/api/chat.postMessage", 429, {"Retry-After": "0"}, {"ok": False, "error": "ratelimited"})
    client = slack_client(edge, slack_agent.reusable_mandate(edge))
    client.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=1))
    before = len(apis.received)
    assert client.chat_postMessage(channel="C1", text="again")["ok"]
    assert len(apis.received) == before + 2


def test_slack_without_authority_is_told_so(slack_agent: Agent, edge: Edge, apis: Apis) -> None:
    before = len(apis.received)
    for key, method, status in (
        ("xoxb-guessed", "chat.postMessage", 401),
        (slack_agent.mandate(), "chat.delete", 403),
    ):
        with pytest.raises(SlackApiError) as refused:
            slack_client(edge, key).api_call(method, json={"channel": "C1", "text": "t"})
        assert refused.value.response.status_code == status, method
        assert refused.value.response.headers["X-Caracal-Error"]
    assert len(apis.received) == before
