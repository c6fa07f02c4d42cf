"""The gate between training data and exams: nothing that an evaluation set asks may be learned.

An example hits a row of an evaluation set when, case and punctuation aside,
- their texts are the same, or have a Jaccard similarity >= `threshold` (similarity.py), or
- they share a run of 13 words, where the row has that many; a run of 8, where it has 8 to 12; or the example holds the
  whole row, where that has 4 to 7. A row of up to 3 words counts only as a whole text: its words occur in honest text.
Inputs are checked, each turn of a conversation by itself, and completions too where the task's answers are free text; of an answer from
a document also the passage, shown or not.

It runs over every current example, whatever other filters say, because a person may accept what they dropped. A kept
example's verdict names the sets that it was checked against: that is the pass which an export asks for.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from datagen.filters.context import FilterContext
from datagen.filters.near import Twins, nearest
from datagen.filters.similarity import hash_words, normalise, sketch, windows
from datagen.records import EvaluationSet, Example, Verdict

_LONG, _MEDIUM, _LEAST = 13, 8, 4


class _Row(NamedTuple):
    """Where an exam's text stands: the set's name, and the row counted from 1."""

    name: str
    number: int


class _Run(NamedTuple):
    """How many words in a row are shared, and with which text of the exams."""

    words: int
    position: int


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
        checked = _learned(example, free_text=context.task.output_schema is None)
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


def _learned(example: Example, *, free_text: bool) -> list[str]:
    """The texts that a student reads or writes: each turn, what an answer was made from, and the answer where it is free text."""
    texts = [example.without_passage(message.content) for message in example.prompt if message.role != "system"]
    if example.grounding is not None:
        texts.append(example.grounding.passage.text)
    return [*texts, example.completion] if free_text or example.grounding is not None else texts


def checked_against(evaluation_sets: Sequence[EvaluationSet]) -> str:
    """What a kept example's verdict says: names and hashes of the sets."""
    names = ", ".join(f"{found.name}@{found.sha256[:12]}" for found in sorted(evaluation_sets, key=lambda s: s.name))
    return f"checked: {names or 'no evaluation set'}"


def _hits(texts: Sequence[str], exam: Sequence[str], rows: Sequence[_Row], threshold: float) -> list[str | None]:
    """For each text the reason why it may not be learned, or None."""
    exact: dict[str, int] = {}
    for position, text in enumerate(exam):
        if normalise(text):
            exact.setdefault(normalise(text), position)
    same = [exact.get(normalise(text), -1) for text in texts]
    runs = _shared_runs(texts, exam)
    twins = nearest(sketch(texts), sketch(exam), threshold) if exam else Twins.none(len(texts))
    found: list[str | None] = []
    for position, run, twin, similarity in zip(same, runs, twins.position.tolist(), twins.similarity.tolist(), strict=True):
        if position >= 0:
            found.append(_reason("the same as", rows[position]))
        elif run is not None:
            found.append(_reason(f"{run.words} words in a row of", rows[run.position]))
        else:
            found.append(None if twin < 0 else _reason(f"{similarity:.2f} like", rows[twin]))
    return found


def _shared_runs(texts: Sequence[str], exam: Sequence[str]) -> list[_Run | None]:
    """For each text the longest kind of run that it shares with a row of an exam, at its first place."""
    found: list[_Run | None] = [None] * len(texts)
    exam_words = hash_words(exam)
    counts = exam_words.sizes
    lengths = np.where(counts >= _LONG, _LONG, np.where(counts >= _MEDIUM, _MEDIUM, np.where(counts >= _LEAST, counts, 0)))
    text_words = hash_words(texts)
    for n in sorted(set(lengths.tolist()) - {0}):  # a longer run overwrites a shorter one
        askers = np.flatnonzero(lengths == n)
        exam_runs = windows(exam_words.take(askers), n)
        known, firsts = np.unique(exam_runs.values, return_index=True)
        owners = np.repeat(askers, exam_runs.sizes)[firsts]
        text_runs = windows(text_words, n)
        places = np.minimum(np.searchsorted(known, text_runs.values), len(known) - 1)
        hits = np.flatnonzero(known[places] == text_runs.values)
        for text, hit in zip(*np.unique(np.searchsorted(text_runs.starts, hits, side="right") - 1, return_index=True), strict=True):
            found[text] = _Run(n, int(owners[places[hits[hit]]]))
    return found


def _reason(match: str, row: _Row) -> str:
    return f"decontaminate: {match} {row.name} row {row.number}"
