"""What the programs under test have in common: one event loop a program, and a session with delegated authority."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from caracalai import Authority, Caracal, CaracalContext, DelegationConstraints

from edge import APPLICATION, ECHO, ZONE, Edge

LABELS = [APPLICATION]
READ = ["echo:read"]


def use_variables_of(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a program the variables that `caracal env` prints for this edge, and none of another."""
    for name in [name for name in os.environ if name.startswith("CARACAL_")]:
        monkeypatch.delenv(name)
    for name, value in edge.sdk_variables().items():
        monkeypatch.setenv(name, value)


def run(caracal: Caracal, program: Callable[[], Awaitable[None]]) -> None:
    """Runs a program to its end and closes its client in the same event loop."""

    async def whole() -> None:
        try:
            await program()
        finally:
            await caracal.aclose()

    asyncio.run(whole())


def narrow(**constraints: int) -> Authority:
    """`echo:read` on the echo resource, with the hops a test asks for."""
    limits = DelegationConstraints(**constraints) if constraints else None
    return Authority.narrow(READ, ttl_seconds=300, resource_id=ECHO, constraints=limits)


class Agent:
    """Two sessions and a delegation, as the application transport makes them; a mandate for each call."""

    def __init__(self, caracal: Caracal, resource: str, scopes: list[str]) -> None:
        self.caracal, self.resource, self.scopes = caracal, resource, scopes
        held = caracal._app_mandate(resource, scopes, LABELS, 300)
        self.session, self.delegation = held.target_session_id, held.delegation_id

    def mandate(self) -> str:
        minted = self.caracal.config.exchanger.mint_mandate(
            resource=self.resource,
            scopes=self.scopes,
            session_id=self.session,
            delegation_id=self.delegation,
            cache=False,
        )
        return minted.token

    def reusable_mandate(self, edge: Edge) -> str:
        """For a client that keeps the key it was given; the resource must allow it."""
        answer = httpx.post(
            f"{edge.authority}/oauth/2/token",
            data={
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "zone_id": ZONE,
                "application_id": APPLICATION,
                "client_secret": edge.client_secret,
                "resource": self.resource,
                "scope": " ".join(self.scopes),
                "agent_session_id": self.session,
                "delegation_edge_id": self.delegation,
                "reusable": "true",
                "ttl_seconds": "120",
            },
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]


@asynccontextmanager
async def delegated(
    caracal: Caracal, *, parent_ctx: CaracalContext | None = None, **constraints: int
) -> AsyncIterator[CaracalContext]:
    """A session below a root session, holding `echo:read` for as long as the block lasts."""
    async with (
        caracal.session(labels=LABELS, ttl_seconds=300, parent_ctx=parent_ctx),
        caracal.session(authority=narrow(**constraints), labels=LABELS, ttl_seconds=300) as child,
    ):
        yield child


async def mint(caracal: Caracal, ctx: CaracalContext, ttl_seconds: int | None = None) -> str:
    """A fresh single-use mandate for `echo:read`."""
    minted = await asyncio.to_thread(caracal.mint_mandate, ECHO, READ, ctx=ctx, ttl_seconds=ttl_seconds)
    return minted.token


async def present(edge: Edge, token: str, path: str = "/read/x", method: str = "GET") -> httpx.Response:
    """Presents a mandate as a bare HTTP client would."""
    headers = {"Authorization": f"Bearer {token}", "X-Caracal-Resource": ECHO}
    async with httpx.AsyncClient() as client:
        return await client.request(method, f"{edge.gateway}{path}", headers=headers)
