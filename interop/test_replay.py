"""What the clients of this whole run did, decided again from the ledger."""

from __future__ import annotations

import json

from caracalai import Caracal

from edge import STRIPE, ZONE, Edge
from programs import Agent


def test_the_bundle_that_decided_answers_every_record_the_same(caracal: Caracal, edge: Edge) -> None:
    Agent(caracal, STRIPE, ["stripe:use"]).reusable_mandate(edge)
    # Gives once everything is written.
    edge.records()
    bundle = edge.config.parent / "bundles" / f"{ZONE}.toml"
    if not bundle.exists():
        bundle = bundle.with_suffix("")
    done = edge.attempt("replay", "--bundle", str(bundle), "--config", str(edge.config), "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["groups"]) == (0, []), told
    assert told["compared"] >= 2 and set(told["not_comparable"]) <= {"before_policy"}, told
