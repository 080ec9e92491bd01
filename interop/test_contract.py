"""The decision contract under a second Rego engine: `policies/tests/contract.rego`, evaluated by rego-cpp over the cases
that the tests of `policies` wrote down, with the answers of the edge's own decision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from regopy import Interpreter

TESTS = Path(__file__).parent.parent / "policies/tests"
CONTRACT = (TESTS / "contract.rego").read_text()
CASES = [json.loads(line) for line in (TESTS / "cases/contract.jsonl").read_text().splitlines()]


def answer(case: dict[str, Any]) -> dict[str, Any]:
    rego = Interpreter()
    # As they are written: what the binding escapes, the engine takes for other characters.
    rego.add_data_json(json.dumps({"caracal": {"authz": case["roots"]}}, ensure_ascii=False))
    rego.add_module("contract", CONTRACT)
    rego.set_input_term(json.dumps(case["input"], ensure_ascii=False))
    output = rego.query("data.caracal.oracle.decision")
    if not output.ok():
        # The one failure the contract knows: two tiers for one scope. The engine does not say which it was.
        return {"failed": True}
    (decision,) = json.loads(str(output))["expressions"]
    return in_order(decision)


def in_order(decision: dict[str, Any]) -> dict[str, Any]:
    """Without an order among the declarations of the gate."""
    if "gate" in decision:
        decision["gate"] = sorted(decision["gate"], key=json.dumps)
    return decision


def test_a_second_rego_engine_answers_every_case_as_the_edge_does() -> None:
    assert len(CASES) > 150
    answers = {case["name"]: answer(case) for case in CASES}
    assert answers == {case["name"]: in_order(case["answer"]) for case in CASES}
