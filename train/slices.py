"""Where a model is weak, and where training helped or hurt: rows by topic, generator, kind, label and each dimension.

    found = slices("test", rows, answers, model="dpo", rivals=("few_shot", "base"))

Many slices are looked at, so some look bad by chance: each p value is also given adjusted by Holm's method over all slices of the
table, and only those are called weak, or changed, that survive it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import fisher_exact, mannwhitneyu, wilcoxon

from train.dataset import Row
from train.metrics import METRICS, RARELY, ROW_METRICS, Answer, holm, score

SMALLEST = 5  # rows; of fewer, an interval says nothing
SIGNIFICANT = 0.05


class Slice(NamedTuple):
    """Rows that have something in common: their numbers in the set."""

    by: str
    value: str
    rows: tuple[int, ...]


def row_metric(answers: Sequence[Answer]) -> str | None:
    """The metric that says of single rows whether they are right, or None where nothing does."""
    tallies = {name: METRICS[name].tally(answers) for name in ROW_METRICS}
    found = [name for name, counts in tallies.items() if counts.any()]
    if found[:2] == ["exact_match", "rouge_l"] and tallies["exact_match"][:, 0].sum() < RARELY * len(answers):
        return "rouge_l"
    return found[0] if found else None


def partitions(rows: Sequence[Row]) -> Iterator[Slice]:
    """The slices of a set, also small ones; a property that all rows share, or that divides them as an earlier one did, gives none."""
    properties: dict[str, list[str | None]] = {
        "topic": [row.topic for row in rows],
        "generator": [row.generator for row in rows],
        "kind": [row.kind for row in rows],
        "label": [row.label for row in rows],
    }
    for name in sorted({name for row in rows for name, _ in row.dimensions}):
        properties[name] = [dict(row.dimensions).get(name) for row in rows]
    known: set[frozenset[tuple[int, ...]]] = set()
    for by, values in properties.items():
        parts = [
            Slice(by, value, tuple(i for i, found in enumerate(values) if found == value))
            for value in sorted({value for value in values if value is not None})
        ]
        division = frozenset(part.rows for part in parts)
        if len(set(values)) > 1 and division not in known:
            known.add(division)
            yield from parts


def slices(
    name: str, rows: Sequence[Row], answers: Mapping[str, Sequence[Answer]], *, model: str, rivals: Sequence[str] = (), seed: int = 0
) -> dict[str, Any] | None:
    """The slices of one set as plain data: how `model` does on each against the rest, and against the first rival there is.

    `tests` counts the slices looked at, `left_out` those with fewer than SMALLEST rows. None where no row can be scored.
    """
    metric = row_metric(answers[model])
    if metric is None:
        return None
    rival = next((r for r in rivals if r in answers), None)
    all_slices = list(partitions(rows))
    listed = [s for s in all_slices if len(s.rows) >= SMALLEST]
    lines, weaker, changed = [], [], []
    for part in listed:
        inside = [answers[model][i] for i in part.rows]
        measure = next(iter(score({model: inside}, [metric], seed=seed).measures[model]), None)
        if measure is None:
            continue
        members = set(part.rows)
        outside = [answer for i, answer in enumerate(answers[model]) if i not in members]
        line = {"by": part.by, "slice": part.value, **measure._asdict(), "p_rest": against_rest(metric, inside, outside)}
        weaker.append(line["p_rest"])
        if rival is not None:
            pair = {rival: [answers[rival][i] for i in part.rows], model: inside}
            (change,) = score(pair, [metric], [(rival, model)], seed=seed).comparisons
            p = change.p if change.p is not None else _paired(metric, pair[rival], inside)
            line |= {"change": change.difference, "change_low": change.low, "change_high": change.high, "p_change": p}
            changed.append(p)
        lines.append(line)
    for line, p in zip(lines, holm(weaker), strict=True):
        line["p_rest_holm"] = p
    for line, p in zip(lines if rival else [], holm(changed), strict=True):
        line["p_change_holm"] = p
    whole = score({model: answers[model]}, [metric], seed=seed).measures[model][0]
    for line in lines:
        line["weak"] = line["p_rest_holm"] <= SIGNIFICANT and line["value"] < whole.value
    return {
        "set": name,
        "model": model,
        "rival": rival,
        "metric": metric,
        "value": whole.value,
        "tests": len(lines),
        "left_out": len(all_slices) - len(listed),
        "slices": lines,
    }


def _values(metric: str, answers: Sequence[Answer]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The metric of each row that it applies to."""
    counts = METRICS[metric].tally(answers)
    return np.asarray(counts[counts[:, 1] > 0, 0], dtype=float)


def against_rest(metric: str, inside: Sequence[Answer], outside: Sequence[Answer]) -> float:
    """The p value of a slice being like the rest: Fisher's exact test for shares, Mann and Whitney's for scores; 1 where all are alike."""
    ours, theirs = _values(metric, inside), _values(metric, outside)
    if METRICS[metric].kind == "proportion":
        table = [[int(v.sum()), int(len(v) - v.sum())] for v in (ours, theirs)]
        return float(fisher_exact(table).pvalue)
    if not len(ours) or not len(theirs) or np.ptp(np.concatenate([ours, theirs])) == 0:
        return 1.0
    return float(mannwhitneyu(ours, theirs).pvalue)


def _paired(metric: str, ours: Sequence[Answer], theirs: Sequence[Answer]) -> float:
    """Wilcoxon's signed-rank test of row scores; 1 where no row differs."""
    a, b = _values(metric, ours), _values(metric, theirs)
    return 1.0 if len(a) != len(b) or not (b - a).any() else float(wilcoxon(b - a).pvalue)
