"""How near a data set is to what was wanted: by cell, by dimension value, and as a whole, with intervals and a test.

The test asks whether the accepted rows are distributed as the target says (G-test, Sokal and Rohlf 1995). Where expected counts are
small, and for dimensions, whose values all rows of an item share, the statistic's distribution is simulated: p is the share of 9,999
draws under the target that are as far away. With many rows a small difference is significant, so `off` says how large it is: the share
of rows that would have to be others (total variation distance).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from datagen.review import exact_interval
from datagen.store import Store
from datagen.taxonomy import MOST_SHOWN

_DRAWS = 9_999
_FEWEST_DRAWS = 499  # for very many cells: p is then told in steps of 0.002
_MOST_DRAWN = 100_000_000  # counts in all, some seconds
_DRAWN_AT_ONCE = 8_000_000  # counts, 64 MB; 9,999 draws of 800 cells
_SMALL = 5.0  # an expected count below which the chi-square approximation is not trusted


class Fit(NamedTuple):
    """Whether counts fit shares: G and its p value, how p was found, and the share of rows that is off."""

    rows: int
    statistic: float
    p: float
    how: str
    off: float


class Reason(NamedTuple):
    """Why inputs of a cell gave no row, and how many."""

    reason: str
    inputs: int


class ShortCell(NamedTuple):
    """A cell that has fewer rows than were wanted. `why` says what keeps the run from asking further; `reasons`, the largest first."""

    topic: str
    generator: str
    target: int
    asked: int
    accepted: int
    why: str
    reasons: tuple[Reason, ...]

    def line(self) -> str:
        """All of it in one line."""
        reasons = ", ".join(f"{entry.inputs} {entry.reason}" for entry in self.reasons[:4]) or "no reason is stored"
        why = f"{self.why}; " if self.why else ""
        return f"Short: {self.topic}, {self.generator}: {self.accepted} of {self.target} rows from {self.asked} inputs ({why}{reasons})."

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**self._asdict(), "reasons": [entry._asdict() for entry in self.reasons]}


def shortfalls(store: Store) -> list[ShortCell]:
    """The cells that are short of their target, with the reasons from verdicts and from inputs that are missing. Empty without a quota."""
    rows = store.short_cells()
    reasons: dict[tuple[str, str], list[Reason]] = {}
    for row in store.reasons_of_short_cells() if rows else ():
        reasons.setdefault((row["topic"], row["generator"]), []).append(Reason(row["reason"], row["inputs"]))
    return [
        ShortCell(
            row["topic"], row["generator"], row["target"], row["asked"], row["accepted"], "",
            tuple(reasons.get((row["topic"], row["generator"]), ())),
        )
        for row in rows
    ]  # fmt: skip


def fit(counts: Sequence[float], shares: Sequence[float], clusters: Mapping[int, int] | None = None, seed: int = 0) -> Fit:
    """A G-test of `counts` against `shares`, which are normed. `clusters`: how many items have 1, 2, ... rows of one and the same value.

    By chi-square where every row stands for itself and all expected counts are 5 or more; else simulated, with `seed`.
    """
    from scipy.stats import power_divergence  # half a second to import

    observed, wanted = np.asarray(counts, dtype=float), np.asarray(shares, dtype=float)
    possible = wanted > 0
    stray = observed[~possible].sum()
    observed, wanted = observed[possible], wanted[possible] / wanted[possible].sum()
    rows = observed.sum()
    if rows == 0 or len(wanted) < 2:
        return Fit(int(rows), 0.0, 1.0, "nothing to compare", 0.0)
    off = float(np.abs(observed / rows - wanted).sum() / 2)
    if stray:
        return Fit(int(rows + stray), float("inf"), 0.0, "rows where the target has none", off)
    expected = wanted * rows
    statistic, p = power_divergence(observed, expected, lambda_="log-likelihood")
    how = "chi-square"
    if expected.min() < _SMALL or (clusters and set(clusters) - {1}):
        rng = np.random.default_rng(seed)
        draws, beyond = min(_DRAWS, max(_FEWEST_DRAWS, _MOST_DRAWN // len(wanted))), 0
        at_once = max(1, _DRAWN_AT_ONCE // len(wanted))
        for start in range(0, draws, at_once):
            drawn = np.zeros((min(at_once, draws - start), len(wanted)))
            for size, items in (clusters or {1: int(rows)}).items():
                drawn += size * rng.multinomial(items, wanted, size=len(drawn))
            ratio = np.divide(drawn, expected, out=np.ones_like(drawn), where=drawn > 0)
            beyond += int((2 * (drawn * np.log(ratio)).sum(axis=1) >= statistic - 1e-9).sum())
        p, how = (1 + beyond) / (draws + 1), "simulated"
    return Fit(int(rows), float(statistic), float(p), how, off)


def look(store: Store, dimensions: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Cells, generators, topics and dimension values with counts, intervals and tests, and the short cells, as plain data.

    `dimensions`: dimension -> value -> weight, of the taxonomy.
    """
    cells = store.query("SELECT topic, generator, target, asked, examples, accepted FROM coverage")
    for row in cells:
        row["low"], row["high"] = _rate(row["accepted"], row["asked"])
    quotas = bool(store.targets())
    return {
        "target": sum(row["target"] for row in cells),
        "asked": sum(row["asked"] for row in cells),
        "accepted": sum(row["accepted"] for row in cells),
        "quota": quotas,
        "cells": cells,
        "generators": _together(cells, "generator"),
        "topics": _together(cells, "topic"),
        "fit": fit([row["accepted"] for row in cells], [row["target"] for row in cells])._asdict(),
        "dimensions": [_dimension(store, name, weights) for name, weights in dimensions.items()],
        "short": [entry.as_json() for entry in shortfalls(store)],
    }


def _rate(accepted: int, asked: int) -> tuple[float, float]:
    return exact_interval(min(accepted, asked), asked) if asked else (0.0, 1.0)


def _together(cells: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    sums: dict[str, dict[str, Any]] = {}
    for cell in cells:
        row = sums.setdefault(cell[name], {name: cell[name], "target": 0, "asked": 0, "examples": 0, "accepted": 0})
        for column in ("target", "asked", "examples", "accepted"):
            row[column] += cell[column]
    for row in sums.values():
        row["low"], row["high"] = _rate(row["accepted"], row["asked"])
    return [sums[key] for key in sorted(sums)]


def _dimension(store: Store, name: str, weights: Mapping[str, float]) -> dict[str, Any]:
    """One dimension: accepted rows by value against the weights."""
    rows = store.accepted_by_value(name)
    counts = dict.fromkeys(weights, 0)
    clusters: dict[int, int] = {}
    for row in rows:
        counts[row["value"]] = counts.get(row["value"], 0) + row["rows"] * row["items"]
        clusters[row["rows"]] = clusters.get(row["rows"], 0) + row["items"]
    total, whole = sum(counts.values()), sum(weights.values())
    values = []
    for value, count in counts.items():
        low, high = exact_interval(count, total) if total else (0.0, 1.0)
        share = count / total if total else 0.0
        values.append({"value": value, "target": weights.get(value, 0.0) / whole, "rows": count, "share": share, "low": low, "high": high})
    test = fit(list(counts.values()), [weights.get(value, 0.0) for value in counts], clusters)
    return {"dimension": name, "values": values, "fit": test._asdict()}


def render(seen: Mapping[str, Any], title: str) -> RenderableType:
    """What `look` saw, as tables."""
    parts: list[RenderableType] = [Text(title, style="bold"), Text()]
    for name in ("generator", "topic"):
        table = Table(title=f"By {name}", title_justify="left")
        table.add_column(name)
        for column in ("target", "asked", "made", "accepted", "of asked (95 %)"):
            table.add_column(column, justify="right")
        rows = seen[f"{name}s"]
        if len(rows) > MOST_SHOWN:
            rows = sorted(rows, key=lambda row: row["accepted"] / (row["target"] or 1))[:MOST_SHOWN]
            table.title = f"By {name}: the {MOST_SHOWN} furthest from their targets, of {len(seen[f'{name}s']):,} (all: --json)"
        for row in rows:
            share = f"{row['accepted'] / row['asked']:.0%} ({row['low']:.0%}-{row['high']:.0%})" if row["asked"] else ""
            table.add_row(row[name], str(row["target"]), str(row["asked"]), str(row["examples"]), str(row["accepted"]), share)
        parts.append(table)
    parts.append(Text(f"Cells against their targets: {_told(seen['fit'])}"))
    for dimension in seen["dimensions"]:
        table = Table(title=f"By {dimension['dimension']}: {_told(dimension['fit'])}", title_justify="left")
        for column in ("value", "target", "accepted", "share (95 %)"):
            table.add_column(column, justify="left" if column == "value" else "right")
        for row in dimension["values"]:
            table.add_row(
                row["value"], f"{row['target']:.1%}", str(row["rows"]), f"{row['share']:.1%} ({row['low']:.1%}-{row['high']:.1%})"
            )
        parts.append(table)
    if seen["short"]:
        parts.append(Text())
        parts += [Text(line) for line in short_lines(seen["short"])]
    elif seen["quota"]:
        parts.append(Text("Every cell has its rows."))
    return Group(*parts)


def short_lines(short: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each short cell, the shortest first where they are too many to read."""
    if more := max(0, len(short) - MOST_SHOWN):
        short = sorted(short, key=lambda row: row["accepted"] / row["target"])[:MOST_SHOWN]
    lines = [ShortCell(**{**row, "reasons": tuple(Reason(**entry) for entry in row["reasons"])}).line() for row in short]
    return [*lines, *([f"and {more:,} more short cells; --json lists all"] if more else [])]


def _told(test: Mapping[str, Any]) -> str:
    if test["how"] == "nothing to compare":
        return "nothing to compare"
    return f"{test['off']:.1%} of the rows are off, G = {test['statistic']:.1f}, p = {test['p']:.3g} ({test['how']})"
