"""What every test may use: the folder of real data, an environment without keys, a small domain and a scripted teacher."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datagen.ask import Asker
from datagen.config import ModelConfig
from datagen.filters import FilterContext
from datagen.records import Request, Response
from datagen.store import Store
from datagen.taxonomy import Taxonomy, load_taxonomy

SHOP = """
name: shop
description: a shop's help desk
task:
  type: extraction
  system: Sort the message. Reply with JSON.
  input: a customer's message
  instructions: Reply with intent and entities.
  label_field: intent
  abstain_label: other
  entities_field: entities
  decision_fields: [decision]
  output_schema:
    type: object
    required: [intent]
    properties: {intent: {enum: [late, broken, other]}, entities: {type: object}, decision: {enum: [wait, act]}}
dimensions:
  tone: {calm: {weight: 3, note: plain words}, cross: {weight: 1}}
topics:
  parcels:
    description: parcels
    topics:
      late: {description: a parcel is late, label: late, weight: 2, seeds: ["Where is my parcel?", It should be here by now]}
      broken: {description: a parcel came broken, label: broken, seeds: [It came in pieces]}
  rest: {description: anything else, label: other}
adversarial:
  noise: {description: typos, expect: topic}
  off_topic: {description: not about parcels, expect: abstain}
  unclear: {description: two readings, expect: open}
facts: {days: {entity: when, parse: days}}
policy:
  - {id: R1, when: {intent: late, days: ">= 5"}, then: {decision: act}}
  - {id: R2, when: {intent: late, days: missing}, then: {decision: wait}}
reasoning: [{label: late, facts: {days: ["2 days", "3 weeks"]}}]
"""

Script = Callable[[Request], str]


class ScriptedTeacher:
    """A teacher that is a function from request to text; counts what it is asked."""

    def __init__(self, script: Script, cost_usd: float = 0.0) -> None:
        self.script = script
        self.cost_usd = cost_usd
        self.requests: list[Request] = []

    async def complete(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(request_id=request.id, text=self.script(request), prompt_tokens=10, completion_tokens=5, cost_usd=self.cost_usd)

    def worst_case_usd(self, request: Request) -> float:
        return self.cost_usd


def answer_anything(request: Request) -> str:
    """Plausible answers to every prompt of the house, told apart by the prompt's name; inputs differ by sample."""
    name = request.prompt.split("@")[0]
    if name in ("write_inputs", "rewrite_input", "write_adversarial"):
        return json.dumps([f"my parcel number {i} of {request.sample} is late" for i in range(4)])
    answer = {"intent": "late", "entities": {}, "decision": "wait"}
    return {
        "answer": json.dumps(answer) if request.role == "teacher" else "no idea",
        "reason": json.dumps({"steps": ["The parcel is late.", "R2: no days are named."], "answer": answer}),
        "judge": json.dumps({"answer": 5, "input": 4, "reason": "right"}),
        "compare": json.dumps({"better": "A" if "chosen first" in request.sample else "B"}),
    }[name]


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test can reach a provider by a key that happens to be set."""
    for name in list(os.environ):
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with slices of public data sets; tests that need it are marked `real_data`."""
    folder = os.environ.get("REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: set REAL_DATA to its folder")
    return Path(folder)


@pytest.fixture
def shop_path(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP)
    return path


@pytest.fixture
def shop(shop_path: Path) -> Taxonomy:
    return load_taxonomy(shop_path)[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "shop.duckdb")


@pytest.fixture
def roles() -> dict[str, ModelConfig]:
    return {"teacher": ModelConfig(model="test/big"), "weak": ModelConfig(model="test/small"), "judge": ModelConfig(model="test/judge")}


@pytest.fixture
def make_asker(shop: Taxonomy, store: Store, roles: dict[str, ModelConfig]) -> Callable[..., Asker]:
    def make(teacher: Any, *, attempts: int = 3, budget_usd: float | None = None) -> Asker:
        variables = {
            "domain": shop.description, "task": shop.task, "labels": shop.labels(), "policy": shop.policy_lines(),
            "dimensions": shop.dimensions, "kinds": shop.adversarial,
            "truth": lambda: FilterContext(task=shop.task, labels=shop.labels(), facts=shop.facts, policy=shop.policy),
        }  # fmt: skip
        return Asker(store, teacher, roles, variables, attempts=attempts, budget_usd=budget_usd)

    return make


@pytest.fixture
def scripted() -> type[ScriptedTeacher]:
    return ScriptedTeacher


@pytest.fixture
def script() -> Script:
    return answer_anything
