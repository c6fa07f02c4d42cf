"""The gate between training data and exams: nothing that an evaluation set asks may be learned.

An example hits a row of an evaluation set when, case and punctuation aside,
- their texts are the same, or have a Jaccard similarity >= `threshold` (similarity.py), or
- they share a run of 13 words, where the row has that many; a run of 8, where it has 8 to 12; or the example holds the
  whole row, where that has 4 to 7. A row of up to 3 words counts only as a whole text: its words occur in honest text.
Inputs are checked, and completions too where the task's answers are free text.

It runs over every current example, whatever other filters say, because a person may accept what they dropped. A kept
example's verdict names the sets that it was checked against: that is the pass which an export asks for.
"""

from collections.abc import Sequence
from typing import NamedTuple

from datagen.filters.context import FilterContext
from datagen.filters.dedup import asked
from datagen.filters.similarity import Hasher, NearTexts, normalise, windows
from datagen.records import EvaluationSet, Example, Verdict

_LONG, _MEDIUM, _LEAST = 13, 8, 4


class _Row(NamedTuple):
    """Where an exam's text stands: the set's name, and the row counted from 1."""

    name: str
    number: int


def decontaminate(examples: Sequence[Example], context: FilterContext) -> list[Verdict]:
    """One verdict per example: dropped with the set, the row and the kind of match, or kept with the sets it was checked against."""
    exam: list[str] = []
    rows: list[_Row] = []
    for evaluation_set in sorted(context.evaluation_sets, key=lambda found: found.name):
        exam += evaluation_set.texts
        rows += [_Row(evaluation_set.name, number) for number in range(1, len(evaluation_set.texts) + 1)]
    texts: list[str] = []
    owners: list[str] = []
    ids = [example.id for example in examples]
    for example_id, example in zip(ids, examples, strict=True):
        checked = [asked(example)] if context.task.output_schema is not None else [asked(example), example.completion]
        texts += checked
        owners += [example_id] * len(checked)
    reasons: dict[str, str] = {}
    for owner, hit in zip(owners, _hits(texts, exam, rows, context.setting("decontaminate", "threshold")), strict=True):
        if hit is not None:
            reasons.setdefault(owner, hit)
    proof = checked_against(context.evaluation_sets)
    return [
        Verdict(example_id=example_id, by="filter:decontaminate", keep=example_id not in reasons, reason=reasons.get(example_id, proof))
        for example_id in ids
    ]


def checked_against(evaluation_sets: Sequence[EvaluationSet]) -> str:
    """What a kept example's verdict says: names and hashes of the sets."""
    names = ", ".join(f"{found.name}@{found.sha256[:12]}" for found in sorted(evaluation_sets, key=lambda s: s.name))
    return f"checked: {names or 'no evaluation set'}"


def _hits(texts: Sequence[str], exam: Sequence[str], rows: Sequence[_Row], threshold: float) -> list[str | None]:
    """For each text the reason why it may not be learned, or None."""
    index = NearTexts([*exam, *texts], threshold)
    for position in range(len(exam)):
        index.add(position)
    exact: dict[str, int] = {}
    runs: dict[int, dict[int, int]] = {}
    hasher = Hasher()
    for position, text in enumerate(exam):
        if normalise(text):
            exact.setdefault(normalise(text), position)
        words = index.words[position]
        n = _LONG if len(words) >= _LONG else _MEDIUM if len(words) >= _MEDIUM else len(words)
        if n >= _LEAST:
            for run in windows(hasher(words), n).tolist():
                runs.setdefault(n, {}).setdefault(run, position)
    found: list[str | None] = []
    for offset, text in enumerate(texts):
        position = len(exam) + offset
        hit = exact.get(normalise(text))
        if hit is not None:
            found.append(_reason("the same as", rows[hit]))
            continue
        tokens = hasher(index.words[position])
        for n in sorted(runs, reverse=True):
            if len(tokens) >= n:
                hit = next((runs[n][run] for run in windows(tokens, n).tolist() if run in runs[n]), None)
                if hit is not None:
                    break
        if hit is not None:
            found.append(_reason(f"{n} words in a row of", rows[hit]))
            continue
        twin = index.nearest(position)
        found.append(None if twin is None else _reason(f"{twin.similarity:.2f} like", rows[twin.position]))
    return found


def _reason(match: str, row: _Row) -> str:
    return f"decontaminate: {match} {row.name} row {row.number}"
