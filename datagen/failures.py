"""What an evaluation found wrong, read as material for the next round: a training run's failures.parquet, or JSON lines of your own.

The inputs are shown to a teacher, who writes others like them; they themselves become no rows. Those of an exam are refused by the gate
`decontaminate` as long as the recipe names the exam, and all of them, with what is nearly the same, by the filter `adversarial`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datagen.config import FailuresFile, LoadedRecipe
from datagen.errors import ConfigError
from datagen.lines import read_json_lines
from datagen.records import AdversarialKind, Failure
from datagen.taxonomy import Taxonomy

KIND = "observed_failure"
# a column by its name in failures.parquet, and by the plainer one of a file of your own
_COLUMNS = {"input": ("input",), "expected": ("expected", "reference"), "answer": ("answer", "completion"), "topic": ("topic",),
            "label": ("label",), "source": ("source", "set")}  # fmt: skip


class Failures(NamedTuple):
    """The failures that belong to a topic of the taxonomy, and what to tell about the others."""

    found: tuple[Failure, ...]
    notes: tuple[str, ...]


def load_failures(loaded: LoadedRecipe, taxonomy: Taxonomy) -> Failures:
    """The failures that the recipe names; none where it names no file.

    Raises ConfigError for a file that is not there or cannot be read, with the line and the field.
    """
    spec = loaded.recipe.failures
    if spec is None:
        return Failures((), ())
    if spec.optional and not _is_there(loaded, spec):
        return Failures((), (f"failures are left out: {spec.path} is not there",))
    path = loaded.resolve(spec.path)
    rows = [_failure(row, f"{path}:{number}") for number, row in _rows(path)]
    topics, labels = {topic.path for topic in taxonomy.leaves()}, set(taxonomy.labels())
    placed = [row if row.topic in topics else row.model_copy(update={"topic": None}) for row in rows]
    known = tuple(row for row in placed if row.topic is not None or row.label in labels)
    lost = len(rows) - len(known)
    notes = (f"{lost} of {len(rows)} failures in {path} name no topic or label of the taxonomy; they are left out",) if lost else ()
    return Failures(known, notes)


def with_failures(taxonomy: Taxonomy, found: Sequence[Failure], weight: float) -> Taxonomy:
    """The taxonomy with a kind for inputs like the failures, where there are any and it has none of its own."""
    if not found or any(kind.family == "failures" for kind in taxonomy.adversarial.values()):
        return taxonomy
    kind = AdversarialKind(description="like inputs that a model got wrong", family="failures", weight=weight)
    return taxonomy.model_copy(update={"adversarial": {**taxonomy.adversarial, KIND: kind}})


def _is_there(loaded: LoadedRecipe, spec: FailuresFile) -> bool:
    if "$" in os.path.expandvars(spec.path):
        return False
    try:
        return loaded.resolve(spec.path).exists()
    except ConfigError:
        return False


def _rows(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """The file's rows with their numbers."""
    if path.suffix == ".parquet":
        from datagen.store import read_parquet  # DuckDB, which a recipe without failures can do without

        return list(enumerate(read_parquet(path), 1))
    rows = list(read_json_lines(path))
    for number, row in rows:
        if not isinstance(row, dict):
            raise ConfigError(f"{path}:{number}: holds a {type(row).__name__}, not an object with input and answer.")
    return rows


def _failure(row: Mapping[str, Any], where: str) -> Failure:
    given: dict[str, Any] = {}
    for name, columns in _COLUMNS.items():
        value = next((row[column] for column in columns if row.get(column) is not None), None)
        if value is not None:
            given[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    for name in ("input", "answer"):
        if not given.get(name):
            raise ConfigError(
                f"{where}: has no {' or '.join(_COLUMNS[name])} (it has: {', '.join(row)}). Every failure needs input and answer."
            )
    given.setdefault("expected", given.get("label"))
    return Failure(**given)
