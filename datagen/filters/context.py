"""What a filter may know besides the example: the task, its ground truth, the evaluation sets and the recipe's settings."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from datagen.filters.similarity import Sketches, normalise, sketch, words
from datagen.json_schema import violation
from datagen.policy import Fact, Rule
from datagen.records import AdversarialKind, EvaluationSet, Rubric, Task, Vectors

# Every setting that a recipe may give under `filters:`, with its default. A filter without settings has an empty mapping.
DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "decontaminate": {"threshold": 0.8},
    "schema": {},
    "length": {
        "min_input_chars": 1, "max_input_chars": 4000, "max_completion_chars": 8000, "min_completion_words": 1,
        "max_completion_words": 1500,
    },
    "refusal": {},
    "language": {"min_script_share": 0.7, "min_stop_word_share": 0.1, "min_confidence": 0.9},
    "pii": {},
    "repetition": {"max_in_a_row": 3, "max_same_lines": 3, "min_compressed": 0.2},
    "placeholder": {"max": 0},
    "leak": {"words": 8},
    "truncated": {},
    "truth": {},
    "adversarial": {"threshold": 0.7},
    "reasoning": {"max_chars": 4000, "min_agreement": 0.5},
    "grounded": {"min_quote_chars": 8},
    "preference": {"min_margin": 0.0, "max_length_ratio": 0.0, "rejected_valid": 0.0, "rejected_refusal": 1.0},
    "verify": {},
    "judge": {"min": 4.0, "min_input": 3.0, "min_mean": 0.0},
    "agreement": {"min": 0.3},
    "style": {"max_z": 0.0, "least": 20},
    "duplicate": {},
    "near_duplicate": {"threshold": 0.8},
    "semantic_duplicate": {"threshold": 0.95},
    "label_noise": {"lead": 1.0},
    "earlier": {},
    "too_near_seed": {"seed": 0.0, "sibling": 0.0},
    "quota": {},
}  # fmt: skip


class OwnWords(NamedTuple):
    """What our prompts say themselves: runs of words, and headings in lower case, each with the name of its prompt."""

    runs: Mapping[tuple[str, ...], str]
    headings: Mapping[str, str]


_QUOTED = re.compile(r"\"[^\"\n]*\"|\u201c[^\u201d\n]*\u201d|`[^`\n]*`|(?<!\w)'[^'\n]*'(?!\w)")
_HEADING = re.compile(r"^(\w[^:\n]{13,}):", re.MULTILINE)


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
    prompts    name of each prompt file -> the texts in it that are the same in every question
    rubric     what the judge scored; None: `answer` and `input`
    embedding  the space of embeddings that the recipe asks for (records.embedding_space); `vectors` are those that there are
    retired    evaluation sets of earlier runs that the recipe names no more and says so
    kinds      adversarial kinds by name
    failures   inputs that a student got wrong, which are shown to a teacher and must not come back
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
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rubric: Rubric | None = None
    retired: frozenset[str] = frozenset()
    embedding: str | None = None
    vectors: Vectors | None = None
    kinds: Mapping[str, AdversarialKind] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    targets: Mapping[tuple[str, str], int] = field(default_factory=dict)
    earlier: Sequence[EarlierRow] = ()
    seeds: Mapping[str, str] = field(default_factory=dict)

    def setting(self, filter_name: str, name: str) -> float:
        """A filter's setting: the recipe's, or else the default."""
        value = self.settings.get(filter_name, {}).get(name)
        return DEFAULTS[filter_name][name] if value is None else float(value)

    @cached_property
    def own_words(self) -> OwnWords:
        """Runs of `leak.words` words of prompts, instructions and system message, without what labels say and instructions quote."""
        texts = [(name, text) for name, pieces in self.prompts.items() for text in pieces]
        texts += [("instructions", piece) for piece in _QUOTED.split(self.task.instructions)] + [
            ("system", self.task.system),
            ("input", self.task.input),
        ]
        n = int(self.setting("leak", "words"))
        spoken_of = {run for label, description in self.labels.items() for run in _runs(f"{label} {description}", n)}
        runs = {run: name for name, text in reversed(texts) for run in _runs(text, n) if run not in spoken_of}
        headings = {
            found.strip().casefold(): name for name, text in reversed(texts) for found in _HEADING.findall(text) if name in self.prompts
        }
        return OwnWords(runs, {heading: name for heading, name in headings.items() if " " in heading})

    @cached_property
    def failed_texts(self) -> frozenset[str]:
        """The failed inputs, without case and punctuation."""
        return frozenset(map(normalise, self.failures))

    @cached_property
    def failed_sketches(self) -> Sketches:
        """The failed inputs, ready to be compared with."""
        return sketch(self.failures)

    def violation(self, answer: object) -> str | None:
        """Where and how `answer` breaks the task's output schema; None when it does not, or when there is no schema."""
        schema = self.task.output_schema
        return None if schema is None else violation(answer, schema)


def _runs(text: str, n: int) -> list[tuple[str, ...]]:
    found = words(text)
    return [tuple(found[place : place + n]) for place in range(len(found) - n + 1)]


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
