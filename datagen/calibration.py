"""The judge against people: how far its keep and drop agree with theirs, which criterion goes with their word, and which bound fits it.

The population is what the judge alone decides: current examples that it scored and that no other filter drops. People review a sample
of it; a review of accepted rows alone says nothing about what the judge drops, so `draw` takes half of the sample from there. The two
halves are weighed back to what there is of each.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from datagen.agreement import Interval, Table, draw_tables, interval, kappa, spearman
from datagen.records import Example
from datagen.review import stratified
from datagen.store import Store

_LEAST_ROWS = 4


class Judged(NamedTuple):
    """An example that the judge decided on: whether it kept it, its scores by criterion, and a person's last word, if there is one."""

    example_id: str
    kept: bool
    scores: Mapping[str, float]
    said: bool | None


class Threshold(NamedTuple):
    """A bound for a criterion: kappa with people were it applied alone, and in how many of 100 draws no other bound does better."""

    at_least: float
    kappa: float
    best_in: float


class CriterionAgreement(NamedTuple):
    """A criterion's score against people's keep.

    `thresholds` are in the order of how often each is the best; empty when nothing can be said.
    """

    criterion: str
    rows: int
    correlation: float | None
    interval: Interval | None
    thresholds: tuple[Threshold, ...]


class JudgeAgreement(NamedTuple):
    """The judge's keep or drop against people's: reviewed rows of those it kept, of those it dropped, and how many there are of each.

    `agreement` (share) and `kappa` are of the whole population; None while one of its halves was not reviewed.
    """

    reviewed_kept: int
    reviewed_dropped: int
    kept: int
    dropped: int
    agreement: float | None
    kappa: float | None
    interval: Interval | None
    criteria: tuple[CriterionAgreement, ...]


def judged_examples(store: Store) -> list[Judged]:
    """The population, by id."""
    rows = store.query(
        "WITH people AS (SELECT example_id, arg_max(keep, created_at) AS keep FROM verdicts WHERE decided_by LIKE 'human:%' GROUP BY ALL), "
        "others AS (SELECT example_id FROM verdicts WHERE decided_by LIKE 'filter:%' AND decided_by <> 'filter:judge' AND NOT keep) "
        "SELECT e.id, e.scores, j.keep AS kept, p.keep AS said FROM current_examples e "
        "JOIN verdicts j ON j.example_id = e.id AND j.decided_by = 'filter:judge' LEFT JOIN people p ON p.example_id = e.id "
        "WHERE e.parent IS NULL AND e.id NOT IN (SELECT example_id FROM others) ORDER BY e.id"
    )
    found = []
    for row in rows:
        scores = {
            name.removeprefix("judge_"): score for name, score in json.loads(row["scores"] or "{}").items() if name.startswith("judge_")
        }
        if scores:
            found.append(Judged(row["id"], row["kept"], scores, row["said"]))
    return found


def draw(store: Store, *, reviewer: str, seed: int, n: int | None = None) -> list[Example]:
    """A sample to hold the judge against: half of what it dropped and half of what it kept, `n` in all (60).

    None of it was judged by `reviewer` yet.
    """
    seen = {verdict.example_id for verdict in store.verdicts() if verdict.by == f"human:{reviewer}"}
    population = {row.example_id: row.kept for row in judged_examples(store) if row.example_id not in seen}
    examples = [example for example in store.current_examples() if example.id in population]
    dropped = [example for example in examples if not population[example.id]]
    kept = [example for example in examples if population[example.id]]
    n = min(60 if n is None else n, len(examples))
    from_dropped = min(len(dropped), max(n // 2, n - len(kept)))
    sample = [*stratified(dropped, n=from_dropped, seed=seed), *stratified(kept, n=n - from_dropped, seed=seed)]
    return sorted(sample, key=lambda example: example.id)


def judge_agreement(store: Store) -> JudgeAgreement | None:
    """The judge against people's last words; None while nobody has reviewed anything that it decided on."""
    if not store.query("SELECT 1 FROM verdicts WHERE decided_by LIKE 'human:%' LIMIT 1"):
        return None  # 100,000 examples take a second to read
    rows = judged_examples(store)
    said = [row for row in rows if row.said is not None]
    if not said:
        return None
    halves = [[row for row in said if row.kept == kept] for kept in (False, True)]
    sizes = [sum(row.kept == kept for row in rows) for kept in (False, True)]
    share = value = bounds = None
    if all(halves):
        counts = [_decisions(half) for half in halves]
        table = _point(counts, sizes)
        share, value = float(np.trace(table)), _number(kappa(table))
        bounds = interval(kappa(draw_tables(counts, sizes))) if value is not None else None
    names = sorted({name for row in said for name in row.scores})
    criteria = tuple(_criterion(name, halves, sizes) for name in names)
    return JudgeAgreement(len(halves[1]), len(halves[0]), sizes[1], sizes[0], share, value, bounds, criteria)


def _decisions(half: Sequence[Judged]) -> Table:
    """Counts of (judge, person); the judge's other decision cannot occur in this half."""
    table = np.zeros((2, 2))
    table[int(not half[0].kept)] = -1
    for row in half:
        table[int(row.kept), int(bool(row.said))] += 1
    return table


def _point(counts: Sequence[Table], weights: Sequence[float]) -> Table:
    """The table of shares that the sample itself has, its halves weighed."""
    whole = sum(np.maximum(table, 0) / np.maximum(table, 0).sum() * weight for table, weight in zip(counts, weights, strict=True))
    return np.asarray(whole / sum(weights))


def _criterion(name: str, halves: Sequence[Sequence[Judged]], sizes: Sequence[int]) -> CriterionAgreement:
    scored = [[row for row in half if name in row.scores] for half in halves]
    both = all(scored)
    filled = [(half, size) for half, size in zip(scored, sizes, strict=True) if half]
    rows = [row for half, _ in filled for row in half]
    levels = sorted({row.scores[name] for row in rows})
    if len(rows) < _LEAST_ROWS or len(levels) < 2 or len({row.said for row in rows}) < 2:
        return CriterionAgreement(name, len(rows), None, None, ())
    counts = []
    for half, _ in filled:
        table = np.zeros((len(levels), 2))
        for row in half:
            table[levels.index(row.scores[name]), int(bool(row.said))] += 1
        counts.append(table)
    weights = [size for _, size in filled]
    point, drawn = _point(counts, weights), draw_tables(counts, weights)
    thresholds = _thresholds(levels, point, drawn) if both else ()
    return CriterionAgreement(name, len(rows), _number(spearman(point)), interval(spearman(drawn)), thresholds)


def _thresholds(levels: Sequence[float], point: Table, drawn: Table) -> tuple[Threshold, ...]:
    """Each bound that divides the scores, the likeliest best one first."""

    def divided(tables: Table, place: int) -> Table:
        below, above = tables[..., :place, :].sum(axis=-2), tables[..., place:, :].sum(axis=-2)
        return kappa(np.stack([below, above], axis=-2))

    places = range(1, len(levels))
    drawn_kappas = np.nan_to_num(np.stack([divided(drawn, place) for place in places]), nan=-1.0)
    best = np.bincount(drawn_kappas.argmax(axis=0), minlength=len(places)) / drawn.shape[0]
    found = [
        Threshold(levels[place], _number(divided(point, place)) or 0.0, float(share)) for place, share in zip(places, best, strict=True)
    ]
    return tuple(sorted(found, key=lambda threshold: (-threshold.best_in, threshold.at_least)))


def _number(value: Table) -> float | None:
    return None if np.isnan(value) else float(value)


def as_json(found: JudgeAgreement | None) -> dict[str, Any] | None:
    """All of it as plain data."""
    if found is None:
        return None
    criteria = [{**c._asdict(), "thresholds": [threshold._asdict() for threshold in c.thresholds]} for c in found.criteria]
    return {**found._asdict(), "criteria": criteria}


def lines(found: JudgeAgreement | None) -> list[str]:
    """What people read of it: agreement, each criterion, and the advice."""
    if found is None:
        return []
    head = (
        f"Judge and people: {found.reviewed_kept} reviewed of {found.kept} that it kept, "
        f"{found.reviewed_dropped} of {found.dropped} that it dropped"
    )
    told = []
    if found.kappa is not None and found.interval is not None:
        told.append(
            f"{head}; they agree on {found.agreement:.1%} of all, Cohen's kappa {found.kappa:.2f} "
            f"(95 % interval {found.interval.low:.2f} to {found.interval.high:.2f})"
        )
    elif not found.dropped:
        told.append(f"{head}; kappa is not defined, it drops nothing")
    elif found.agreement is None:
        told.append(f"{head}; both have to be reviewed before their agreement is known: python -m datagen review --calibrate")
    else:
        told.append(f"{head}; kappa is not defined, chance alone would agree always")
    for criterion in found.criteria:
        if criterion.correlation is None or criterion.interval is None:
            told.append(f"  {criterion.criterion}: {criterion.rows} rows say nothing, its scores or people's words are all the same")
            continue
        told.append(
            f"  {criterion.criterion}: rank correlation with people's keep {criterion.correlation:.2f} "
            f"({criterion.interval.low:.2f} to {criterion.interval.high:.2f}) over {criterion.rows} rows{_advice(criterion.thresholds)}"
        )
    return told


def _advice(thresholds: Sequence[Threshold]) -> str:
    if not thresholds:
        return ""
    first, *others = thresholds
    rest = "".join(f", {other.at_least:g} in {other.best_in:.0%}" for other in others if other.best_in >= 0.05)
    return f"; a bound of {first.at_least:g} fits them best (kappa {first.kappa:.2f}; the best in {first.best_in:.0%} of draws{rest})"
