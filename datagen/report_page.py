"""The report as one file to send to someone who was not there: no script, no font, nothing fetched.

    write_page(summarize(store), "banking", Path("data/banking.report.html"))

Every table has its numbers in words, every plot a table beside it. Texts of examples are anybody's: the template escapes them, the
page forbids scripts, and characters that a browser would obey rather than show (controls, overrides of the writing direction) are
shown in their place.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from datagen import diversity, svg
from datagen.ledger import money
from datagen.report import SPREAD, cost_each, estimate, supply_lines
from datagen.taxonomy import MOST_SHOWN, roll_up

MOST_ROWS = 400
PLOTTED_TOPICS = 24
MOST_CHARACTERS = 700
_SECTIONS = (
    ("result", "Result"),
    ("coverage", "Coverage"),
    ("acceptance", "Acceptance"),
    ("dropped", "Dropped"),
    ("duplicates", "Near-duplicates"),
    ("texts", "Texts"),
    ("diversity", "Diversity"),
    ("evaluation", "Evaluation sets"),
    ("cost", "Cost"),
    ("review", "Review"),
    ("teachers", "Teachers"),
    ("limits", "Limits"),
)
# What a browser obeys or cannot hold: controls and direction marks by a sign that stands for them, halves of a pair as a question mark.
_SHOWN = (
    {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
    | dict.fromkeys([127, *range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F], 0xFFFD)
    | dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)
)

Row = Mapping[str, Any]


def write_page(summary: Row, title: str, path: Path) -> None:
    """Write the summary of `report.summarize` as a page."""
    path.write_text(page(summary, title), encoding="utf-8")


def page(summary: Row, title: str) -> str:
    """The page's text."""
    source = (Path(__file__).parent / "report_template.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    text = environment.from_string(source).render(
        title=title,
        subtitle=_subtitle(summary),
        sections=_SECTIONS,
        headline=_headline(summary),
        tiles=_tiles(summary),
        coverage=_coverage(summary),
        acceptance=_acceptance(summary),
        dropped=_dropped(summary),
        duplicates=_duplicates(summary),
        texts=_texts(summary),
        diversity=_diversity(summary),
        evaluation=_evaluation(summary),
        cost=_cost(summary),
        review=_review(summary),
        teachers=_teachers(summary),
        limits=_limits(summary),
    )
    return text.translate(_SHOWN)


# --- words ---------------------------------------------------------------------------------------------------------


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _with_bounds(part: int, whole: int, low: float, high: float) -> str:
    return f"{100 * part / whole:.1f} % ({100 * low:.1f} to {100 * high:.1f})" if whole else "-"


def _subtitle(summary: Row) -> str:
    models = {teacher["model"]: teacher["simulated"] for teacher in summary["teachers"]}
    named = ", ".join(f"{model}{' (simulated)' if simulated else ''}" for model, simulated in models.items())
    last = summary["runs"][0]["started"] if summary["runs"] else None
    return " · ".join(part for part in (f"made by {named}" if named else "", f"last run {last} UTC" if last else "") if part)


def _headline(summary: Row) -> list[str]:
    """The result in sentences that need no glossary."""
    made, kept, share = summary["examples"], summary["accepted"], summary["acceptance"]
    if not made:
        return ["The store holds no examples yet."]
    asked = sum(row["target"] for row in summary["generators"])
    lines = [
        f"{made:,} examples were made and {kept:,} accepted: {_with_bounds(kept, made, share['low'], share['high'])}; "
        f"the plan asked for {asked:,}. Nothing is deleted: every dropped example stays in the store with its reason."
    ]
    if summary["reasons"]:
        most = summary["reasons"][0]
        lines.append(f"The most frequent reason is {_reason_name(most)}: {most['count']:,} of {summary['rejected']:,} dropped.")
    lines += supply_lines(summary["diversity"])
    return lines


def _reason_name(row: Row) -> str:
    """Who dropped and why, said once where both have one name."""
    by = str(row["by"]).removeprefix("filter:")
    return by if row["reason"] in ("", by) else f"{by}, {row['reason']}"


def _tiles(summary: Row) -> list[tuple[str, str, str]]:
    made, kept, share = summary["examples"], summary["accepted"], summary["acceptance"]
    paid = sum(row["cost_usd"] or 0 for row in summary["costs"])
    calls = sum(row["calls"] for row in summary["costs"])
    short = sum(row["accepted"] < row["target"] for row in summary["topics"])
    tiles = [
        ("accepted examples", f"{kept:,}", f"of {made:,} made"),
        ("acceptance", _percent(kept, made), f"95 % interval {100 * share['low']:.1f} to {100 * share['high']:.1f}"),
        ("topics", f"{len(summary['topics']) - short:,} of {len(summary['topics']):,}", "have what the plan asked for"),
        ("paid", money(paid) if paid else "$0", f"{calls:,} calls" + (f", {money(paid / kept)} per accepted row" if paid and kept else "")),
    ]
    inputs = summary["diversity"]["inputs"]
    if inputs and inputs["distinct_2"]:
        tiles.append(("distinct-2 of inputs", f"{inputs['distinct_2']['value']:.2f}", f"in blocks of {inputs['size']} texts"))
    late = summary["diversity"]["supply"]["late"]
    if late:
        tiles.append(("new trigrams, last quarter", f"{late['value']:.0%}", summary["diversity"]["supply"]["standing"]))
    return tiles


# --- parts ---------------------------------------------------------------------------------------------------------


def _coverage(summary: Row) -> dict[str, Any]:
    cells, columns = summary["cells"], [row["generator"] for row in summary["generators"]]
    shown = roll_up(row["topic"] for row in summary["topics"])
    topics = list(dict.fromkeys(shown.values()))
    counts: dict[tuple[str, str], list[int]] = {}
    for cell in cells:
        count = counts.setdefault((shown[cell["topic"]], cell["generator"]), [0, 0])
        count[0] += cell["accepted"]
        count[1] += cell["target"]
    grid = [[counts.get((topic, column)) for column in columns] for topic in topics]
    drawn = [
        [(count[0] / count[1], f"{count[0]:,}/{count[1]:,}") if count and count[1] else None for count in row] for row in grid[:MOST_SHOWN]
    ]
    label = f"Accepted of asked by topic and generator: {len(topics)} rows, {len(columns)} columns"
    rows = [(topic, *(f"{count[0]:,} / {count[1]:,}" if count else "" for count in row)) for topic, row in zip(topics, grid, strict=True)]
    return {
        "plot": svg.heat_map(label, topics[:MOST_SHOWN], columns, drawn) if topics else None,
        "columns": columns,
        "rows": rows[:MOST_ROWS],
        "left_out": max(0, len(rows) - MOST_ROWS),
        "rolled_up": len(topics) < len(shown),
    }


def _acceptance(summary: Row) -> dict[str, Any]:
    def plotted(rows: Sequence[Row], name: str) -> list[svg.Share]:
        return [
            svg.Share(
                row[name],
                row["accepted"] / row["examples"],
                row["made_low"],
                row["made_high"],
                f"{row['accepted']:,} of {row['examples']:,}",
            )
            for row in rows
        ]

    def written(rows: Sequence[Row], name: str) -> list[tuple[str, ...]]:
        return [
            (
                row[name], f"{row['target']:,}", f"{row['examples']:,}", f"{row['accepted']:,}",
                _with_bounds(row["accepted"], row["examples"], row["made_low"], row["made_high"]),
            )
            for row in rows
        ]  # fmt: skip

    generators = [row for row in summary["generators"] if row["examples"]]
    topics = sorted(
        (row for row in summary["topics"] if row["examples"]), key=lambda row: (row["accepted"] / row["examples"], row["topic"])
    )
    shown = topics[:PLOTTED_TOPICS]
    which = f"the {len(shown)} lowest of {len(topics):,} topics" if len(shown) < len(topics) else "all topics, the lowest first"
    return {
        "generators_plot": svg.shares("Accepted share of made examples by generator, with 95 % intervals", plotted(generators, "generator"))
        if generators
        else None,
        "topics_plot": svg.shares(f"Accepted share of made examples: {which}, with 95 % intervals", plotted(shown, "topic"))
        if topics
        else None,
        "which": which,
        "generators": written(summary["generators"], "generator"),
        "topics": written(topics[:MOST_ROWS], "topic"),
        "left_out": max(0, len(topics) - MOST_ROWS),
        "empty": [row["topic"] for row in summary["topics"] if not row["examples"]][:MOST_ROWS],
    }


def _cut(text: str | None) -> str:
    text = text or ""
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}… ({len(text) - MOST_CHARACTERS:,} characters more)"


def _dropped(summary: Row) -> dict[str, Any]:
    rows = [(row["by"], row["reason"] or "-", row["count"]) for row in summary["reasons"]]
    plotted = [(_reason_name(row), [float(row["count"])], f"{row['count']:,}") for row in summary["reasons"][:PLOTTED_TOPICS]]
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in summary["dropped"]:
        groups.setdefault((row["by"], row["kind"]), []).append(
            {name: _cut(row[name]) for name in ("id", "topic", "generator", "reason", "input", "completion")}
        )
    return {
        "plot": svg.bars("Dropped examples by reason", plotted) if plotted else None,
        "rows": [(by, reason, f"{count:,}", _percent(count, summary["rejected"])) for by, reason, count in rows[:MOST_ROWS]],
        "examples": [{"by": by, "kind": kind, "rows": found} for (by, kind), found in groups.items()],
        "missing": [(row["reason"], f"{row['inputs']:,}", money(row["cost_usd"] or 0)) for row in summary["missing"]],
        "failed": [(row["id"], _cut(row["error"])) for row in summary["failed_items"][:20]],
        "failed_in_all": len(summary["failed_items"]),
    }


def _duplicates(summary: Row) -> dict[str, Any]:
    near, exact = summary["similarity"]["near"], summary["similarity"]["exact"]
    lowest = min((round(row["similarity"] * 100) for row in near), default=80)
    start = min(80, lowest // 2 * 2)
    edges = list(range(start, 101, 2))
    counts = [0] * (len(edges) - 1)
    for row in near:
        counts[min((round(row["similarity"] * 100) - start) // 2, len(counts) - 1)] += row["count"]
    total = sum(counts)
    label = f"Similarity of {total:,} dropped near-duplicates to the example that stayed"
    return {
        "plot": svg.histogram(label, edges, counts, "Jaccard similarity to the twin that stayed", lambda edge: f"{edge / 100:.2f}")
        if total
        else None,
        "rows": [
            (f"{low / 100:.2f} to {high / 100:.2f}", f"{count:,}") for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ],
        "near": f"{total:,}",
        "exact": f"{exact:,}",
    }


def _texts(summary: Row) -> list[dict[str, Any]]:
    parts = []
    for part, name in (("input", "Inputs"), ("completion", "Completions")):
        own = [row for row in summary["lengths"] if row["part"] == part]
        whole = next((row for row in own if row["generator"] == "all"), None)
        if whole is None:
            continue
        edges = [whole["bin"] * k for k in range(len(whole["counts"]) + 1)]
        label = f"Lengths of {whole['rows']:,} accepted {name.lower()} in characters"
        parts.append(
            {
                "name": name,
                "plot": svg.histogram(label, edges, whole["counts"], "characters", lambda edge: f"{edge:,.0f}"),
                "rows": [
                    (row["generator"], f"{row['rows']:,}", *(f"{row[at]:,.0f}" for at in ("p5", "p50", "p95", "longest"))) for row in own
                ],
            }
        )
    return parts


def _diversity(summary: Row) -> dict[str, Any]:
    found = summary["diversity"]
    supply = diversity.Supply.model_validate(found["supply"])
    points = [
        svg.Point(window.before + window.texts, window.new.value, window.new.low, window.new.high)
        for window in supply.windows
        if window.new.low is not None and window.new.high is not None
    ]
    label = f"Share of new trigrams in {len(points)} windows of the making, with 95 % intervals"
    limit = f"{diversity.DRY_BELOW:.0%}: running dry"
    plot = svg.line(label, points, "texts made", limit=diversity.DRY_BELOW, limit_name=limit) if len(points) > 1 else None
    balance = found["balance"]
    return {
        "plot": plot,
        "windows": [
            (f"{w.before + 1:,} to {w.before + w.texts:,}", _percent_estimate(w.new)) for w in supply.windows
        ],
        "supply": [
            (name.name, f"{name.texts:,}", _percent_estimate(name.late), _percent_estimate(name.per_doubling, signed=True), name.standing)
            for name in [supply, *map(diversity.Supply.model_validate, found["generators"])]
        ],
        "lines": supply_lines(found),
        "measures": list(SPREAD.values()),
        "spread": [
            (kind["name"], f"{kind['texts']:,}", f"{kind['blocks']} of {kind['size']}", *(estimate(kind[name]) for name in SPREAD))
            for kind in (found["inputs"], found["answers"])
            if kind
        ],
        "topics": [
            (row["name"], f"{row['texts']:,}", *(estimate(row[name]) for name in SPREAD))
            for row in sorted(found["topics"], key=lambda row: (-(row["self_bleu"] or {"value": 0})["value"], row["name"]))
        ],
        "topics_left_out": found["topics_left_out"],
        "balance": f"Rows lie over {balance['topics']:,} topics with a normalised entropy of {balance['entropy']:.3f} (1 is even; the "
        f"plan has {balance['planned_entropy']:.3f}). {balance['misplaced']:.1%} of them would have to lie elsewhere to match the plan."
        if balance
        else "",
    }  # fmt: skip


def _percent_estimate(found: diversity.Estimate | None, *, signed: bool = False) -> str:
    if found is None:
        return "-"
    sign = "+" if signed else ""
    bounds = f" ({100 * found.low:{sign}.1f} to {100 * (found.high or 0):{sign}.1f})" if found.low is not None else ""
    return f"{100 * found.value:{sign}.1f} %{bounds}"


def _evaluation(summary: Row) -> list[tuple[str, str, str]]:
    return [(row["name"], row["sha256"] or "-", f"{row['hits']:,}") for row in summary["evaluation_sets"]]


def _cost(summary: Row) -> dict[str, Any]:
    rows = summary["cost_per_accepted"]
    roles = sorted({role for row in rows for role in row["roles"]})
    paid = any(row["usd"] for row in rows)
    unit = "usd" if paid else "tokens"
    plotted = [
        (
            row["generator"],
            [float((row["roles"].get(role) or {}).get(unit) or 0.0) for role in roles],
            (f"${row['usd_each']:.4f}" if paid else f"{row['tokens_each']:,.0f} tokens")
            if row["usd_each"] is not None
            else "none accepted",
        )
        for row in rows
    ]
    what = "US dollars" if paid else "tokens"
    runs = []
    for run in summary["runs"]:
        said = run["forecast"] or {}
        runs.append(
            (
                run["started"], run["command"], run["status"],
                _forecast(said.get("calls"), "{:,.0f}"), f"{run['calls']:,}",
                _forecast(said.get("usd"), "{:,.2f}"), f"{run['usd'] or 0:,.2f}",
                _forecast(said.get("minutes"), "{:,.1f}"), "-" if run["minutes"] is None else f"{run['minutes']:,.1f}",
            )
        )  # fmt: skip
    return {
        "plot": svg.bars(f"What an accepted row takes by generator and role, in {what}", plotted, roles) if rows else None,
        "what": what,
        "roles": roles,
        "each": [
            (
                row["generator"], f"{row['accepted']:,}", cost_each(row),
                *(_each(row["roles"].get(role), unit) for role in roles),
                "-" if row["tokens_each"] is None else f"{row['tokens_each']:,.0f}",
            )
            for row in rows
        ],
        "calls": [
            (
                row["role"], row["model"], row["prompt"], f"{row['calls']:,}", f"{row['prompt_tokens'] or 0:,}",
                f"{row['cached_tokens'] or 0:,}", f"{row['completion_tokens'] or 0:,}", f"{row['cost_usd'] or 0:.4f}",
            )
            for row in summary["costs"]
        ],
        "unknown": money(summary["unknown_usd"]) if summary["unknown_usd"] else "",
        "runs": runs,
        "forecast": any(run["forecast"] for run in summary["runs"]),
    }  # fmt: skip


def _each(found: Row | None, unit: str) -> str:
    if found is None or found[unit] is None:
        return "-"
    return f"{found[unit]:.4f}" if unit == "usd" else f"{found[unit]:,.0f}"


def _forecast(said: Row | None, form: str) -> str:
    if not said:
        return "-"
    return f"{form.format(said['mean'])} ({form.format(said['low'])} to {form.format(said['high'])})"


def _review(summary: Row) -> dict[str, Any]:
    return {
        "rates": [
            (row["reviewer"], f"{row['reviewed']:,}", f"{row['defects']:,}",
             _with_bounds(row["defects"], row["reviewed"], row["low"], row["high"]))
            for row in summary["review"] or ()
        ],
        "agreement": [
            (f"{row['first']} and {row['second']}", f"{row['rows']:,}", f"{row['agreement']:.1%}",
             "not defined" if row["kappa"] is None else f"{row['kappa']:.2f}")
            for row in summary["agreement"]
        ],
    }  # fmt: skip


def _teachers(summary: Row) -> list[tuple[Any, ...]]:
    rows = []
    for teacher in summary["teachers"]:
        terms, decision = teacher["terms"], teacher["decision"]
        source = f"{terms['source']} ({'read ' + terms['read'] if terms['read'] else 'read by nobody of the project'})"
        by = f"{decision['by']}: {decision['decision']}" if decision else "the table" if teacher["settled"] else "nobody yet"
        kind = Markup("{}<br><small>simulated</small>").format(teacher["model"]) if teacher["simulated"] else teacher["model"]
        rows.append((teacher["role"], kind, terms["may_train"], terms["says"], source, by))
    return rows


def _limits(summary: Row) -> list[str]:
    lines = []
    if any(teacher["simulated"] for teacher in summary["teachers"]):
        lines.append(
            "The teacher was simulated: a program with a grammar and rules, no language model. The figures show that the pipeline works, "
            "not what a real teacher would write."
        )
    made = summary["examples"]
    if made:
        widest = 98 / math.sqrt(made)
        lines.append(f"Shares of all {made:,} examples are known to within {widest:.1f} points or better; those of one topic to far less.")
    lines += [
        "Intervals take rows as drawn at random and independent. Texts of one call resemble one another, so the truth lies outside a "
        "little more often than 1 in 20.",
        "Diversity counts words, not meanings: a paraphrase counts as new. Measures are of blocks of equal size; compare them with those "
        "of blocks of the same size only.",
        "Similarities are known from the filters' verdicts, so none below their threshold is shown.",
        "What no filter, judge or person saw is not in these figures: look at a sample (make review N=50).",
    ]
    return lines
