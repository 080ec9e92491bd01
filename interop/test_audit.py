"""What `caracal audit` tells of a ledger that is written to by many requests at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
from caracalai import Caracal

from edge import STRIPE, ZONE, Edge
from programs import Agent


def test_the_tail_shows_every_record(caracal: Caracal, edge: Edge) -> None:
    mandate = Agent(caracal, STRIPE, ["stripe:use"]).reusable_mandate(edge)

    def call(_: int) -> None:
        headers = {"Authorization": f"Bearer {mandate}"}
        assert httpx.get(f"{edge.gateway}/stripe/v1/customers", headers=headers).status_code == 200

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(call, range(400)))
    written = {record["seq"] for record in edge.records()}
    told = edge.run("audit", "tail", "--config", str(edge.config), "--zone", ZONE, "--json", "-n", "100000")
    assert written - {json.loads(line)["seq"] for line in told.splitlines()} == set()
