"""What the tests of the offline teacher share: the demo's taxonomy, rendered prompts, and the teacher behind litellm."""

import json
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

from datagen.offline import register
from datagen.prompts import render
from datagen.records import PlanItem
from datagen.taxonomy import Taxonomy, load_taxonomy

ROOT = Path(__file__).resolve().parents[3]
TAXONOMY = ROOT / "taxonomies" / "banking_support.yaml"
EVALUATION = ROOT / "taxonomies" / "banking_support.eval.jsonl"

Call = Callable[..., Awaitable[str]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def banking() -> Taxonomy:
    return load_taxonomy(TAXONOMY)[0]


@pytest.fixture(scope="session")
def handwritten() -> list[dict[str, str]]:
    return [json.loads(line) for line in EVALUATION.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def prompt(banking: Taxonomy) -> Callable[..., list[dict[str, str]]]:
    """prompt(name, **variables) -> chat messages, rendered from the real prompt files."""

    def rendered(name: str, **variables: Any) -> list[dict[str, str]]:
        shared = {
            "domain": banking.description, "task": banking.task, "labels": banking.labels(), "policy": banking.policy_lines(),
            "dimensions": banking.dimensions, "kinds": banking.adversarial, "notes": {}, "examples": (),
        }  # fmt: skip
        return [message.model_dump() for message in render(name, {**shared, **variables})[1]]

    return rendered


@pytest.fixture
def side_file(tmp_path: Path) -> Path:
    path = tmp_path / "faults.jsonl"
    register(path)
    return path


@pytest.fixture
def call(side_file: Path) -> Call:
    """call(model, messages, request_id, **params) -> the text, straight from the provider that litellm was given."""
    from datagen.offline.provider import OfflineTeacher

    teacher = OfflineTeacher()
    teacher.side_file = side_file

    async def called(model: str, messages: list[dict[str, str]], request_id: str, **params: Any) -> str:
        response = await teacher.acompletion(
            model, messages, optional_params=params, litellm_params={"metadata": {"request_id": request_id}}
        )
        return str(response.choices[0].message.content)

    return called


@pytest.fixture
def faults(side_file: Path) -> Callable[[], list[dict[str, Any]]]:
    """faults() -> what the side file holds now."""
    return lambda: [json.loads(line) for line in side_file.read_text(encoding="utf-8").splitlines()] if side_file.exists() else []


@pytest.fixture(scope="session")
def drawn_dimensions(banking: Taxonomy) -> Callable[[random.Random], dict[str, str]]:
    return lambda rng: {
        name: rng.choices(list(values), [value.weight for value in values.values()])[0] for name, values in banking.dimensions.items()
    }


@pytest.fixture(scope="session")
def item(banking: Taxonomy) -> Callable[..., PlanItem]:
    """item(path, **fields) -> a plan item of that leaf."""
    leaves = {leaf.path: leaf for leaf in banking.leaves()}
    return lambda path, **fields: PlanItem(
        **{
            "topic": path,
            "generator": "topic",
            "index": 0,
            "count": 4,
            "label": leaves[path].label,
            "description": leaves[path].description,
            **fields,
        }
    )
