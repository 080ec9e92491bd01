"""Enough of six APIs for their official clients, on one server: they differ in their paths as in the world."""

from __future__ import annotations

import json
from collections.abc import Callable

from upstream import Exchange, HttpUpstream

WORDS = ("governed ", "calls")
USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
PDF = b"%PDF-1.7 " + b"quote" * 100_000


class Apis(HttpUpstream):
    """OpenAI (and its Azure form), Anthropic, Stripe, GitHub, Slack and Jira.

    A model called `slow` says its first word and then nothing. `fail_once` makes the next request of a path fail.
    """

    def __init__(self) -> None:
        self._failures: dict[str, Callable[[Exchange], None]] = {}
        super().__init__()

    def fail_once(self, path: str, status: int, headers: dict[str, str], told: object) -> None:
        self._failures[path] = lambda exchange: exchange.reply(status, told, headers)

    def answer(self, exchange: Exchange) -> None:
        _, path = exchange.received.route
        fail = self._failures.pop(path, None)
        if fail is not None:
            fail(exchange)
            return
        for prefix, api in APIS.items():
            if path.startswith(prefix):
                api(exchange)
                return
        exchange.reply(404, {"message": f"no API has {path}"})


def openai(exchange: Exchange) -> None:
    asked = exchange.received.json()
    if asked.get("stream"):
        usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        say(exchange, chunks(usage), slow=asked["model"] == "slow")
    else:
        exchange.reply(200, completion())


def anthropic(exchange: Exchange) -> None:
    asked = exchange.received.json()
    if asked.get("stream"):
        say(exchange, events(), slow=asked["model"] == "slow")
    else:
        exchange.reply(200, message())


def say(exchange: Exchange, events: list[str], slow: bool) -> None:
    with exchange.parts("text/event-stream"):
        for number, event in enumerate(events):
            exchange.part(event)
            if slow and number == 0:
                exchange.wait_for_the_end()


def completion() -> dict:
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": "".join(WORDS)},
    }
    told = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return {**told, "usage": USAGE}


def chunks(usage: bool) -> list[str]:
    def chunk(delta: dict, finish: str | None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return f"data: {json.dumps(told)}\n\n"

    last = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": USAGE}
    said = [*(chunk({"content": word}, None) for word in WORDS), chunk({}, "stop")]
    return [*said, *([f"data: {json.dumps(last)}\n\n"] if usage else []), "data: [DONE]\n\n"]


def message() -> dict:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "".join(WORDS)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 30, "output_tokens": 12},
    }


def events() -> list[str]:
    begun = {"input_tokens": 30, "output_tokens": 1}
    start = {**message(), "content": [], "stop_reason": None, "usage": begun}
    told = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
            for word in WORDS
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 12},
        },
        {"type": "message_stop"},
    ]
    return [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in told]


def stripe(exchange: Exchange) -> None:
    """Customers in two pages, a charge that is declined, and the PDF of a quote."""
    received = exchange.received
    match received.route:
        case "POST", "/v1/customers":
            exchange.reply(200, customer("cus_1", **received.form))
        case "GET", "/v1/customers":
            last = received.query.get("starting_after") == "cus_1"
            page = [customer("cus_2" if last else "cus_1")]
            exchange.reply(200, {"object": "list", "url": "/v1/customers", "has_more": not last, "data": page})
        case "POST", "/v1/charges":
            error = {"type": "card_error", "code": "card_declined", "message": "declined", "param": "amount"}
            exchange.reply(402, {"error": error}, {"Request-Id": "req_upstream"})
        case "GET", "/v1/quotes/qt_1/pdf":
            exchange.reply(200, PDF, {"Content-Type": "application/pdf"})
        case _:
            exchange.reply(404, {"error": {"type": "invalid_request_error", "message": "no such thing"}})


def customer(identity: str, **more: str) -> dict:
    return {"id": identity, "object": "customer", **more}


def github(exchange: Exchange) -> None:
    """A repository with issues, the open ones in two pages. Answers and `Link` hold absolute URLs, as GitHub's do, and
    those of pages name the repository by its number."""
    received = exchange.received
    base = f"http://{received.header('host')}"
    repository = f"{base}/repos/octo/one"
    match received.route:
        case "GET", "/user":
            exchange.reply(200, {"login": "octo", "id": 1, "url": f"{base}/users/octo"})
        case "GET", "/repos/octo/one":
            exchange.reply(200, {"id": 1, "name": "one", "full_name": "octo/one", "url": repository})
        case "GET", "/repos/octo/one/issues" | "/repositories/1/issues":
            issues = [{"number": number, "title": "t", "url": f"{repository}/issues/{number}"} for number in (1, 2)]
            if received.query.get("state") == "all":
                exchange.reply(200, issues)
            elif received.query.get("page") == "2":
                exchange.reply(200, issues[1:])
            else:
                exchange.reply(200, issues[:1], {"Link": f'<{base}/repositories/1/issues?page=2>; rel="next"'})
        case "POST", "/repos/octo/one/issues":
            exchange.reply(201, {"number": 3, **received.json(), "url": f"{repository}/issues/3"})
        case _:
            exchange.reply(404, {"message": "Not Found", "documentation_url": "https://docs.github.com/rest"})


def slack(exchange: Exchange) -> None:
    """Slack answers 200 to nearly everything and tells in the body."""
    received = exchange.received
    match received.route:
        case "POST", "/api/chat.postMessage":
            told = {"ok": True, "channel": "C1", "ts": "1.1", "message": {"text": received.json()["text"]}}
        case "POST", "/api/conversations.list":
            last = received.form.get("cursor") == "more"
            channels = [{"id": "C2" if last else "C1"}]
            told = {
                "ok": True,
                "channels": channels,
                "response_metadata": {"next_cursor": "" if last else "more"},
            }
        case _:
            told = {"ok": False, "error": "unknown_method"}
    exchange.reply(200, told)


def jira(exchange: Exchange) -> None:
    match exchange.received.route:
        case "GET", "/rest/api/3/issue/OPS-1":
            exchange.reply(200, {"key": "OPS-1", "fields": {"summary": "the edge is down"}})
        case _:
            exchange.reply(404, {"errorMessages": ["Issue does not exist"], "errors": {}})


APIS: dict[str, Callable[[Exchange], None]] = {
    "/v1/chat/completions": openai,
    "/openai/": openai,
    "/v1/messages": anthropic,
    "/v1/": stripe,
    "/user": github,
    "/repos/": github,
    "/repositories/": github,
    "/api/": slack,
    "/rest/api/3/": jira,
}
