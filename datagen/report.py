"""What was made, dropped and paid: one summary for the terminal, for `--json` and for a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from datagen.calibration import as_json, judge_agreement, lines
from datagen.coverage import short_lines, shortfalls
from datagen.review import agreements, defect_rates, exact_interval
from datagen.store import Store


def summarize(store: Store) -> dict[str, Any]:
    """Counts, reasons, coverage, costs and the latest review of a store, as plain data."""
    counts = store.totals()
    reasons = store.query(
        "SELECT decided_by AS \"by\", coalesce(split_part(reason, ':', 1), '') AS reason, count(*) AS count "
        "FROM rejected GROUP BY ALL ORDER BY count(*) DESC, decided_by, 2"
    )
    generators = store.query(
        "SELECT generator, sum(target)::BIGINT AS target, sum(examples)::BIGINT AS examples, sum(accepted)::BIGINT AS accepted, "
        "sum(failed)::BIGINT AS failed FROM coverage GROUP BY generator ORDER BY generator"
    )
    topics = store.topic_coverage()
    for row in [*generators, *topics]:
        row["low"], row["high"] = exact_interval(min(row["accepted"], row["target"]), row["target"])
    costs = store.query("SELECT * FROM costs")
    judged = judge_agreement(store)
    return {
        **counts,
        "reasons": reasons,
        "generators": generators,
        "topics": topics,
        "costs": costs,
        "failed_items": store.query("SELECT id, error FROM items WHERE planned AND status = 'failed' ORDER BY id"),
        "short": [entry.as_json() for entry in shortfalls(store)],
        "review": [rate._asdict() for rate in defect_rates(store) if rate.stratum == "all"] or None,
        "agreement": [entry._asdict() for entry in agreements(store)],
        "judge": as_json(judged),
        "judge_lines": lines(judged),
    }


def render(summary: Mapping[str, Any], title: str) -> RenderableType:
    """The summary as tables."""
    parts: list[RenderableType] = [Text(title, style="bold"), Text()]
    parts.append(Text(f"{summary['examples']} examples: {summary['accepted']} accepted, {summary['rejected']} rejected"))
    parts.append(_coverage_table("Generators", "generator", summary["generators"]))
    parts.append(_coverage_table("Topics", "topic", summary["topics"]))
    parts += [Text(line) for line in short_lines(summary["short"])]
    reasons = Table(title="Why examples were dropped", title_justify="left")
    for column, justify in (("decided by", "left"), ("reason", "left"), ("examples", "right")):
        reasons.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in summary["reasons"]:
        reasons.add_row(row["by"], row["reason"], str(row["count"]))
    parts.append(reasons)
    costs = Table(title="Calls", title_justify="left")
    for column in ("role", "model", "prompt", "calls", "tokens in", "cached", "tokens out", "US$"):
        costs.add_column(column, justify="left" if column in ("role", "model", "prompt") else "right")
    for row in summary["costs"]:
        costs.add_row(
            row["role"], row["model"], row["prompt"], f"{row['calls']:,}", f"{row['prompt_tokens']:,}",
            f"{row['cached_tokens']:,}", f"{row['completion_tokens']:,}", f"{row['cost_usd']:.4f}",
        )  # fmt: skip
    parts.append(costs)
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
        failed = Table(title="Failed items", title_justify="left")
        failed.add_column("item")
        failed.add_column("why")
        for row in summary["failed_items"][:20]:
            failed.add_row(row["id"], row["error"])
        parts.append(failed)
    return Group(*parts)


def _coverage_table(title: str, name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(name)
    for column in ("asked", "made", "accepted", "share (95 %)"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in rows:
        share = row["accepted"] / row["target"] if row["target"] else 0.0
        table.add_row(
            row[name], str(row["target"]), str(row["examples"]), str(row["accepted"]),
            f"{share:.0%} ({row['low']:.0%}-{row['high']:.0%})", Bar(1.0, 0, min(share, 1.0), width=20),
        )  # fmt: skip
    return table


def write_html(summary: Mapping[str, Any], title: str, path: Path) -> None:
    """The same tables as a self-contained page."""
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=130, file=nowhere)
        console.print(render(summary, title))
        console.save_html(str(path))
