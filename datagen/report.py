"""What was made, dropped and paid: one summary for the terminal, for `--json`, for the page and for the data set's card."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from datagen import diversity
from datagen.calibration import as_json, judge_agreement, lines
from datagen.config import TermsDecision
from datagen.coverage import short_lines, shortfalls
from datagen.curate import kind_of
from datagen.diversity import Floats
from datagen.ledger import money
from datagen.review import agreements, defect_rates, exact_intervals
from datagen.store import Row, Store
from datagen.taxonomy import MOST_SHOWN
from datagen.terms import of_the_data

EXAMPLES_PER_REASON = 3
REASONS_WITH_EXAMPLES = 20
RUNS_SHOWN = 10
RESAMPLES = 400
_INPUT = "coalesce(list_filter(e.prompt, lambda m: m.role = 'user')[-1].content, '')"


def summarize(store: Store, decisions: Mapping[str, TermsDecision] | None = None) -> dict[str, Any]:
    """All that is known of a store's present data set, as plain data. The same store gives the same summary.

    `decisions` are the recipe's own on its teachers' terms; without them what each run noted counts.
    """
    rows = _examples(store)
    kept = sum(row["keep"] for row in rows)
    cells = store.query("SELECT topic, generator, target::BIGINT AS target, examples, accepted, failed FROM coverage")
    topics, generators = (_coverage(cells, name) for name in ("topic", "generator"))
    for row, like in zip(generators, _sums(cells, "generator", "failed"), strict=True):
        row["failed"] = like
    rates = defect_rates(store)
    judged = judge_agreement(store)
    return {
        "examples": len(rows),
        "accepted": kept,
        "rejected": len(rows) - kept,
        "acceptance": _intervals([{"accepted": kept, "examples": len(rows)}], "examples")[0],
        "reasons": _reasons(rows),
        "generators": generators,
        "topics": topics,
        "cells": cells,
        "costs": store.query("SELECT * FROM costs"),
        "cost_per_accepted": _cost_per_accepted(store, rows),
        "unknown_usd": store.query("SELECT coalesce(sum(unknown_usd), 0)::DOUBLE AS usd FROM spending")[0]["usd"],
        "similarity": _similarity(store),
        "lengths": _lengths(rows),
        "diversity": _diversity(rows, topics).model_dump(),
        "dropped": _dropped(rows),
        "missing": store.query(
            "SELECT reason, sum(inputs)::BIGINT AS inputs, sum(cost_usd) AS cost_usd FROM missing GROUP BY ALL ORDER BY ALL"
        ),
        "failed_items": store.query("SELECT id, error FROM items WHERE planned AND status = 'failed' ORDER BY id"),
        "evaluation_sets": _evaluation_sets(store),
        "runs": _runs(store),
        "teachers": [
            teacher.model_dump(mode="json") for teacher in of_the_data(store.teachers_of_accepted(), store.terms_of_runs(), decisions or {})
        ],
        "review": [rate._asdict() for rate in rates if rate.stratum == "all"] or None,
        "agreement": [found._asdict() for found in agreements(store)],
        "short": [entry.as_json() for entry in shortfalls(store)],
        "judge": as_json(judged),
        "judge_lines": lines(judged),
    }  # fmt: skip


def measure_diversity(store: Store) -> diversity.Diversity:
    """The diversity of what a store's present plan made and of what was accepted of it."""
    return _diversity(_examples(store), store.topic_coverage())


def _examples(store: Store) -> list[Row]:
    """Every current example with the last word on it, in order of creation."""
    return store.query(
        f"SELECT e.id, e.item_id, e.topic, e.generator, {_INPUT} AS input, e.completion, e.answer IS NULL AS free, d.keep, "
        "d.decided_by, d.reason FROM current_examples e JOIN decisions d ON d.example_id = e.id LEFT JOIN calls c ON c.id = e.calls[-1] "
        "ORDER BY c.created_at NULLS FIRST, e.id"
    )


def _coverage(cells: Sequence[Row], name: str) -> list[Row]:
    """Target, made and accepted of each topic or generator; `low` and `high` of accepted in the target, `made_*` of accepted in made."""
    found: dict[str, Row] = {}
    for cell in cells:
        row = found.setdefault(cell[name], {name: cell[name], "target": 0, "examples": 0, "accepted": 0})
        for count in ("target", "examples", "accepted"):
            row[count] += cell[count]
    rows = [found[key] for key in sorted(found)]
    for row, of_made in zip(_intervals(rows, "target"), _intervals(rows, "examples"), strict=True):
        row["made_low"], row["made_high"] = of_made["low"], of_made["high"]
    return _intervals(rows, "target")


def _intervals(rows: Sequence[Row], whole: str) -> list[Row]:
    """Each row with the exact interval of `accepted` in `whole`."""
    parts = [min(row["accepted"], row[whole]) for row in rows]
    for row, low, high in zip(rows, *exact_intervals(parts, [row[whole] for row in rows]), strict=True):
        row["low"], row["high"] = low, high
    return list(rows)


def _sums(cells: Sequence[Row], name: str, count: str) -> list[int]:
    found: Counter[str] = Counter()
    for cell in cells:
        found[cell[name]] += cell[count]
    return [found[key] for key in sorted(found)]


def _reasons(rows: Sequence[Row]) -> list[Row]:
    """Dropped examples by who had the last word and its kind of reason."""
    counts = Counter((row["decided_by"], kind_of(row["reason"])) for row in rows if not row["keep"])
    return [{"by": by, "reason": kind, "count": n} for (by, kind), n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _dropped(rows: Sequence[Row]) -> list[Row]:
    """A few dropped examples of each of the most frequent reasons, drawn by the hash of their ids."""
    found: list[Row] = []
    for reason in _reasons(rows)[:REASONS_WITH_EXAMPLES]:
        own = [row for row in rows if not row["keep"] and row["decided_by"] == reason["by"] and kind_of(row["reason"]) == reason["reason"]]
        own.sort(key=lambda row: blake2b(row["id"].encode()).digest())
        found += [
            {"by": row["decided_by"], "kind": reason["reason"], "reason": row["reason"]}
            | {name: row[name] for name in ("id", "topic", "generator", "input", "completion")}
            for row in own[:EXAMPLES_PER_REASON]
        ]
    return found


def _similarity(store: Store) -> Row:
    """Jaccard similarities of dropped near-duplicates to the twins that stayed, by hundredths; exact duplicates apart."""
    rows = store.query(
        "SELECT decided_by, try_cast(regexp_extract(reason, '([01]\\.\\d+) like ', 1) AS DOUBLE) AS similarity, count(*) AS count "
        "FROM verdicts WHERE NOT keep AND decided_by IN ('filter:duplicate', 'filter:near_duplicate') "
        "AND example_id IN (SELECT id FROM current_examples) GROUP BY ALL ORDER BY ALL"
    )
    return {
        "exact": sum(row["count"] for row in rows if row["decided_by"] == "filter:duplicate"),
        "near": [{"similarity": row["similarity"], "count": row["count"]} for row in rows if row["similarity"] is not None],
    }


def _lengths(rows: Sequence[Row]) -> list[Row]:
    """Lengths in characters of accepted inputs and completions: quantiles and histograms by generator."""
    found: list[Row] = []
    names = [*sorted({row["generator"] for row in rows}), "all"]
    for part in ("input", "completion"):
        lengths = [(row["generator"], len(row[part] or "")) for row in rows if row["keep"]]
        for name in names:
            own = np.array([length for generator, length in lengths if name in ("all", generator)], dtype=float)
            if len(own):
                at = dict(zip(("p5", "p50", "p95", "longest"), np.quantile(own, (0.05, 0.5, 0.95, 1)).tolist(), strict=True))
                found.append({"part": part, "generator": name, "rows": len(own), **at, **_histogram(own)})
    return found


def _histogram(lengths: Floats) -> Row:
    """Counts in some 20 bins of a round width from 0 to the 99th percentile; the last holds all that are longer, too."""
    most = max(float(np.quantile(lengths, 0.99)), 20.0)
    power = 10 ** int(np.log10(most / 20))
    width = next(power * times for times in (1, 2, 5, 10) if most / (power * times) <= 25)
    bins = int(most // width) + 1
    return {"bin": width, "counts": np.bincount(np.minimum(lengths // width, bins - 1).astype(int), minlength=bins).tolist()}


def _diversity(rows: Sequence[Row], topics: Sequence[Row]) -> diversity.Diversity:
    def text(row: Row, part: str) -> diversity.Text:
        return diversity.Text(row["id"], row["topic"], row["generator"], row[part] or "")

    return diversity.measure(
        [text(row, "input") for row in rows],
        [text(row, "input") for row in rows if row["keep"]],
        answers=[text(row, "completion") for row in rows if row["keep"] and row["free"]],
        target={row["topic"]: row["target"] for row in topics},
        seed=0,
    )


def _cost_per_accepted(store: Store, rows: Sequence[Row]) -> list[Row]:
    """What an accepted row takes by generator, all calls counted: dollars, with an interval by bootstrap over items, and tokens."""
    asked = store.query(
        "SELECT split_part(item_id, ':', -2) AS generator, item_id, role, sum(cost_usd) AS usd, "
        "sum(prompt_tokens + completion_tokens)::BIGINT AS tokens FROM calls GROUP BY ALL ORDER BY ALL"
    )
    accepted = Counter(row["item_id"].split(":edit:")[0] for row in rows if row["keep"])  # a person's edit belongs to the item it mends
    found: list[Row] = []
    for generator in sorted({row["generator"] for row in asked}):
        own = [row for row in asked if row["generator"] == generator]
        places = {item: place for place, item in enumerate(dict.fromkeys(row["item_id"] for row in own))}
        usd, kept = np.zeros(len(places)), np.array([accepted[item] for item in places], dtype=float)
        roles: dict[str, Row] = {}
        for row in own:
            usd[places[row["item_id"]]] += row["usd"] or 0.0
            role = roles.setdefault(row["role"], {"usd": 0.0, "tokens": 0})
            role["usd"] += row["usd"] or 0.0
            role["tokens"] += row["tokens"] or 0
        total = float(kept.sum())
        each = {
            role: {"usd": sums["usd"] / total, "tokens": sums["tokens"] / total} if total else {"usd": None, "tokens": None}
            for role, sums in sorted(roles.items())
        }
        low, high = _ratio_interval(usd, kept) if total and usd.any() else (None, None)
        found.append(
            {
                "generator": generator, "accepted": int(total), "usd": float(usd.sum()), "low": low, "high": high,
                "usd_each": float(usd.sum()) / total if total else None,
                "tokens_each": sum(sums["tokens"] for sums in roles.values()) / total if total else None, "roles": each,
            }
        )  # fmt: skip
    return found


def _ratio_interval(part: Floats, whole: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of sum(part) / sum(whole) by bootstrap over their pairs, with a fixed seed."""
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(part), len(part))
        below = whole[drawn].sum()
        ratios.append(part[drawn].sum() / below if below else np.inf)
    low, high = np.quantile(ratios, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)


def _evaluation_sets(store: Store) -> list[Row]:
    """The sets that the present examples were checked against, and how many were dropped for each."""
    verdicts = store.query(
        "SELECT keep, CASE WHEN keep THEN reason ELSE regexp_extract(reason, '(\\S+) row \\d+$', 1) END AS said, count(*) AS n "
        "FROM verdicts WHERE decided_by = 'filter:decontaminate' AND example_id IN (SELECT id FROM current_examples) GROUP BY ALL"
    )
    hits = {row["said"]: row["n"] for row in verdicts if not row["keep"]}
    hashes = dict(name for row in verdicts if row["keep"] for name in re.findall(r"([^\s,]+)@([0-9a-f]{6,})", row["said"] or ""))
    return [{"name": name, "sha256": hashes.get(name), "hits": hits.get(name, 0)} for name in sorted(hashes.keys() | hits.keys())]


def _runs(store: Store) -> list[Row]:
    """The last runs that asked somebody: what was said beforehand that they would take, and what they took."""
    rows = store.query(
        "SELECT r.id, r.command, r.started, r.status, epoch(r.finished - r.started) / 60 AS minutes, r.forecast, c.calls, c.tokens, c.usd "
        "FROM runs r JOIN (SELECT run_id, count(*) AS calls, sum(prompt_tokens + completion_tokens)::BIGINT AS tokens, "
        "sum(cost_usd) AS usd FROM calls GROUP BY run_id) c ON c.run_id = r.id ORDER BY r.started DESC, r.id LIMIT ?",
        [RUNS_SHOWN],
    )
    for row in rows:
        row["started"] = row["started"].isoformat(" ", "seconds")
        row["forecast"] = json.loads(row["forecast"]) if row["forecast"] else None
    return rows


def render(summary: Mapping[str, Any], title: str) -> RenderableType:
    """The summary as tables for a terminal."""
    kept = summary["acceptance"]
    parts: list[RenderableType] = [Text(title, style="bold"), Text()]
    parts.append(
        Text(
            f"{summary['examples']:,} examples: {summary['accepted']:,} accepted, {summary['rejected']:,} rejected"
            + (f" (accepted {summary['accepted'] / summary['examples']:.1%}, 95 % interval {kept['low']:.1%} to {kept['high']:.1%})"
               if summary["examples"] else "")
        )
    )  # fmt: skip
    parts.append(_coverage_table("Generators", "generator", summary["generators"]))
    lowest = sorted(summary["topics"], key=lambda row: row["accepted"] / (row["target"] or 1))[:MOST_SHOWN]
    few = f": the {MOST_SHOWN} furthest from what was asked, of {len(summary['topics']):,}" if len(summary["topics"]) > MOST_SHOWN else ""
    parts.append(_coverage_table(f"Topics{few}", "topic", lowest if few else summary["topics"]))
    parts += [Text(line) for line in short_lines(summary["short"])]
    parts.append(
        _table(
            "Why examples were dropped",
            ("decided by", "reason"),
            ("examples",),
            [(row["by"], row["reason"], f"{row['count']:,}") for row in summary["reasons"]],
        )
    )
    parts.append(_diversity_table(summary["diversity"]))
    parts += [Text(line) for line in supply_lines(summary["diversity"])]
    costs = [
        (
            row["role"], row["model"], row["prompt"], f"{row['calls']:,}", f"{row['prompt_tokens']:,}",
            f"{row['cached_tokens']:,}", f"{row['completion_tokens']:,}", f"{row['cost_usd']:.4f}",
        )
        for row in summary["costs"]
    ]  # fmt: skip
    parts.append(_table("Calls", ("role", "model", "prompt"), ("calls", "tokens in", "cached", "tokens out", "US$"), costs))
    each = [
        (row["generator"], f"{row['accepted']:,}", cost_each(row), "-" if row["tokens_each"] is None else f"{row['tokens_each']:,.0f}")
        for row in summary["cost_per_accepted"]
    ]
    parts.append(_table("An accepted row takes", ("generator",), ("accepted", "US$ each (95 %)", "tokens each"), each))
    for row in summary["review"] or ():
        parts.append(
            Text(
                f"Review by {row['reviewer']}: {row['defects']} defects in {row['reviewed']} "
                f"(95 % exact interval {row['low']:.1%} to {row['high']:.1%})"
            )
        )
    for row in summary["agreement"]:
        if row["kappa"] is not None:
            kappa = f"{row['kappa']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
            parts.append(Text(f"{row['first']} and {row['second']} on {row['rows']} rows: Cohen's kappa {kappa}"))
    parts += [Text(line) for line in summary["judge_lines"]]
    if summary["failed_items"]:
        parts.append(_table("Failed items", ("item", "why"), (), [(row["id"], row["error"]) for row in summary["failed_items"][:20]]))
    return Group(*parts)


def cost_each(row: Mapping[str, Any]) -> str:
    """What an accepted row of a generator costs, with its interval."""
    if row["usd_each"] is None:
        return f"none accepted for {money(row['usd'])}"
    return f"{row['usd_each']:.4f}" + (f" ({row['low']:.4f}-{row['high']:.4f})" if row["low"] is not None else "")


SPREAD = {
    "distinct_1": "distinct-1", "distinct_2": "distinct-2", "distinct_3": "distinct-3", "self_bleu": "self-BLEU",
    "compression": "compression", "entropy": "bigram entropy",
}  # fmt: skip


def supply_lines(found: Mapping[str, Any]) -> list[str]:
    """The verdicts on the supply: all, and each generator that is not simply producing."""
    supplies = [diversity.Supply.model_validate(found["supply"]), *map(diversity.Supply.model_validate, found["generators"])]
    return [
        f"{'All generators' if supply.name == 'all' else supply.name}: {diversity.said(supply)}"
        for supply in supplies
        if supply.name == "all" or supply.standing == "running dry"
    ]


def estimate(found: Mapping[str, Any] | None) -> str:
    """A mean with its interval, where there is one."""
    if found is None:
        return "-"
    return f"{found['value']:.2f}" + (f" ({found['low']:.2f}-{found['high']:.2f})" if found["low"] is not None else "")


def _diversity_table(found: Mapping[str, Any]) -> Table:
    kinds = [found[name] for name in ("inputs", "answers") if found[name]]
    rows = [(kind["name"], f"{kind['texts']:,}", *(estimate(kind[name]) for name in SPREAD)) for kind in kinds]
    size = kinds[0]["size"] if kinds else diversity.BLOCK
    return _table(f"Diversity of accepted texts (in blocks of {size})", ("",), ("texts", *SPREAD.values()), rows)


def _table(title: str, words: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in words:
        table.add_column(column)
    for column in numbers:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(Text(cell or "") for cell in row))  # a reason is anybody's text, and no markup
    return table


def _coverage_table(title: str, name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(name)
    for column in ("asked", "made", "accepted", "share (95 %)"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in rows:
        share = row["accepted"] / row["target"] if row["target"] else 0.0
        table.add_row(
            Text(row[name]), str(row["target"]), str(row["examples"]), str(row["accepted"]),
            f"{share:.0%} ({row['low']:.0%}-{row['high']:.0%})", Bar(1.0, 0, min(share, 1.0), width=20),
        )  # fmt: skip
    return table
