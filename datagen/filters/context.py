"""What a filter may know besides the example: the task, its ground truth, the evaluation sets and the recipe's settings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from datagen.json_schema import violation
from datagen.policy import Fact, Rule
from datagen.records import EvaluationSet, Task

# Every setting that a recipe may give under `filters:`, with its default. A filter without settings has an empty mapping.
DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "decontaminate": {"threshold": 0.8},
    "schema": {},
    "length": {
        "min_input_chars": 1, "max_input_chars": 4000, "max_completion_chars": 8000, "min_completion_words": 1,
        "max_completion_words": 1500,
    },
    "refusal": {},
    "language": {"min_script_share": 0.7, "min_stop_word_share": 0.1},
    "pii": {},
    "truth": {},
    "preference": {"min_margin": 0.0},
    "judge": {"min": 4.0, "min_input": 3.0},
    "duplicate": {},
    "near_duplicate": {"threshold": 0.8},
    "earlier": {},
    "too_near_seed": {"seed": 0.0, "sibling": 0.0},
    "quota": {},
}  # fmt: skip


class EarlierRow(NamedTuple):
    """A row that the store kept for another data set: its prompt, and whether it is of a preference pair."""

    example_id: str
    pair: bool
    text: str


@dataclass(frozen=True)
class FilterContext:
    """One domain and one recipe, as filters see them.

    labels     label -> description; empty for a task without labels
    settings   filter -> setting -> value; what is missing takes its value from DEFAULTS
    pinned     ids of examples that a person accepted: between near-duplicates these survive
    targets    (topic, generator) -> rows that are wanted, for a recipe with a quota
    earlier    rows that the store kept for other data sets, which new ones must not repeat
    seeds      item id -> the seed that its examples grew from
    """

    task: Task
    labels: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Fact] = field(default_factory=dict)
    policy: tuple[Rule, ...] = ()
    evaluation_sets: tuple[EvaluationSet, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pinned: frozenset[str] = frozenset()
    targets: Mapping[tuple[str, str], int] = field(default_factory=dict)
    earlier: Sequence[EarlierRow] = ()
    seeds: Mapping[str, str] = field(default_factory=dict)

    def setting(self, filter_name: str, name: str) -> float:
        """A filter's setting: the recipe's, or else the default."""
        value = self.settings.get(filter_name, {}).get(name)
        return DEFAULTS[filter_name][name] if value is None else float(value)

    def violation(self, answer: object) -> str | None:
        """Where and how `answer` breaks the task's output schema; None when it does not, or when there is no schema."""
        schema = self.task.output_schema
        return None if schema is None else violation(answer, schema)


def parse_object(text: str) -> tuple[dict[str, Any] | None, str | None]:
    """One JSON object and nothing else, or what is wrong: (object, None) or (None, problem). A key written twice is wrong."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        return None, f"{error} in {text[:60]!r}"
    if not isinstance(value, dict):
        return None, f"a {type(value).__name__}, not an object: {text[:60]!r}"
    return value, None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is written twice")
    return found
