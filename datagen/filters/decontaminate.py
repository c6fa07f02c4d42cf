"""The gate between training data and exams: nothing that an evaluation set asks may be learned.

An example hits a row of an evaluation set when, case and punctuation aside,
- their texts are the same, or have a Jaccard similarity >= `threshold` (similarity.py), or
- they share a run of 13 words, where the row has that many; a run of 8, where it has 8 to 12; or the example holds the
  whole row, where that has 4 to 7. A row of up to 3 words counts only as a whole text: its words occur in honest text.
  Threshold and run are a set's own, where the recipe gives it some.
Whatever a student may learn is checked: each turn of the prompt, the turns as one text, completion, rejected answer, reasoning, the
passage that an answer rests on, shown or not; of an answer that is data the texts of 4 words or more in it.

It runs over every current example, whatever other filters say, because a person may accept what they dropped. A kept
example's verdict names the sets that it was checked against: that is the pass which an export asks for.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datagen.filters.context import FilterContext
from datagen.filters.dedup import compared
from datagen.filters.near import Twins, nearest
from datagen.filters.similarity import hash_words, normalise, sketch, windows
from datagen.filters.truth import strings
from datagen.records import EvaluationSet, Example, Verdict

_MEDIUM, _LEAST = 8, 4


class _Row(NamedTuple):
    """Where an exam's text stands: the set, and the row counted from 1."""

    exam: EvaluationSet
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
        rows += [_Row(evaluation_set, number) for number in range(1, len(evaluation_set.texts) + 1)]
    texts: list[str] = []
    owners: list[str] = []
    ids = [example.id for example in examples]
    for example_id, example in zip(ids, examples, strict=True):
        checked = list(dict.fromkeys(_learned(example, data=context.task.output_schema is not None)))
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


def _learned(example: Example, *, data: bool) -> Iterator[str]:
    """Every text of an example that a student may learn from."""
    yield compared(example)
    turns = [example.without_passage(message.content) for message in example.prompt if message.role != "system"]
    if len(turns) > 1:
        yield from turns
    if example.grounding is not None:
        yield example.grounding.passage.text
    if example.answer is None or not data:
        yield example.completion
    else:
        yield from (text for text in strings(example.answer) if text.count(" ") >= _LEAST - 1)
    for text in (example.rejected, example.reasoning):
        if text:
            yield text


def checked_against(evaluation_sets: Sequence[EvaluationSet]) -> str:
    """What a kept example's verdict says: names and hashes of the sets, and how they were compared where the recipe says so."""
    names = ", ".join(found.name + _how(found) for found in sorted(evaluation_sets, key=lambda s: s.name))
    return f"checked: {names or 'no evaluation set'}"


def _how(found: EvaluationSet) -> str:
    own = [f"threshold {found.threshold:g}"] if found.threshold is not None else []
    own += [f"ngram {found.ngram}"] if found.ngram != EvaluationSet.model_fields["ngram"].default else []
    return f"@{found.sha256[:12]}" + (f" ({', '.join(own)})" if own else "")


def _hits(texts: Sequence[str], exam: Sequence[str], rows: Sequence[_Row], threshold: float) -> list[str | None]:
    """For each text the reason why it may not be learned, or None."""
    exact: dict[str, int] = {}
    for position, text in enumerate(exam):
        if normalise(text):
            exact.setdefault(normalise(text), position)
    same = [exact.get(normalise(text), -1) for text in texts]
    runs = _shared_runs(texts, exam, rows)
    twins = _twins(texts, exam, np.array([threshold if row.exam.threshold is None else row.exam.threshold for row in rows]))
    found: list[str | None] = []
    for position, run, twin, similarity in zip(same, runs, twins.position.tolist(), twins.similarity.tolist(), strict=True):
        if position >= 0:
            found.append(_reason("the same as", rows[position]))
        elif run is not None:
            found.append(_reason(f"{run.words} words in a row of", rows[run.position]))
        else:
            found.append(None if twin < 0 else _reason(f"{similarity:.2f} like", rows[twin]))
    return found


def _twins(texts: Sequence[str], exam: Sequence[str], thresholds: NDArray[np.float64]) -> Twins:
    """For each text its nearest twin among the rows, each of which has a threshold of its own."""
    twins, sketches = Twins.none(len(texts)), sketch(texts)
    for threshold in np.unique(thresholds).tolist():
        places = np.flatnonzero(thresholds == threshold)
        near = nearest(sketches, sketch([exam[place] for place in places.tolist()]), threshold)
        hits = np.flatnonzero(near.position >= 0)
        twins.offer(hits, places[near.position[hits]], near.similarity[hits])
    return twins


def _shared_runs(texts: Sequence[str], exam: Sequence[str], rows: Sequence[_Row]) -> list[_Run | None]:
    """For each text the longest kind of run that it shares with a row of an exam, at its first place."""
    found: list[_Run | None] = [None] * len(texts)
    exam_words = hash_words(exam)
    counts = exam_words.sizes
    longest = np.array([row.exam.ngram for row in rows], dtype=np.int64)
    lengths = np.where(counts >= longest, longest, np.where(counts >= _MEDIUM, _MEDIUM, np.where(counts >= _LEAST, counts, 0)))
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
    return f"decontaminate: {match} {row.exam.name} row {row.number}"
