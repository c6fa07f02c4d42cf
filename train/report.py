"""A run's report.html: one file to send to someone who was not there. No script, no font, nothing fetched.

    path = write_report(Path("runs/latest"))

It reads only what the run wrote (run.json, metrics.jsonl, evaluation.json, comparisons.json, analysis.json, answers.parquet), the
judgements beside its answers, the learning curve of the same data, and the manifest of the data. A part that a run does not have is
said to be missing; the rest of the report stands.
"""

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import matplotlib
import pyarrow.parquet as pq
from markupsafe import Markup
from matplotlib.figure import Figure

from train.advice import advice, verdict
from train.errors import DataError
from train.metrics import BAD_BEHAVIOURS, GLOSSARY, wilson
from train.verdicts import summary as gate_summary
from train.verdicts import table as gate_table
from train.watch import read_history

MODELS = ("base", "few_shot", "teacher", "sft", "dpo", "kto", "merged")
MAIN_METRICS = (
    "json_validity",
    "label_accuracy",
    "macro_f1",
    "entity_f1",
    "decision_match",
    "exact_match",
    "token_f1",
    "rouge_l",
    "chrf",
    "numeric_match",
    "embedding_similarity",
)
# Okabe and Ito's colours (2008), told apart with every common colour blindness; the shapes differ too.
LOOK = {
    "base": ("#7f7f7f", "o"),
    "few_shot": ("#E69F00", "P"),
    "teacher": ("#56B4E9", "*"),
    "sft": ("#0072B2", "s"),
    "dpo": ("#D55E00", "D"),
    "kto": ("#D55E00", "D"),  # a run has one of the two
    "merged": ("#009E73", "^"),
}
OTHER_LOOK = ("#CC79A7", "v")
INK = "#010203"  # becomes the page's own text colour, so that plots are readable on light and dark
SECTIONS = (
    ("result", "Result"),
    ("data", "Data"),
    ("training", "Training"),
    ("evaluation", "Evaluation"),
    ("gate", "Gate"),
    ("labels", "Labels"),
    ("weak", "Weak spots"),
    ("confidence", "Confidence"),
    ("judged", "Judged"),
    ("cost", "Speed and cost"),
    ("curve", "Learning curve"),
    ("behaviour", "Bad behaviour"),
    ("samples", "Answers"),
    ("general", "General abilities"),
    ("limits", "Limits"),
    ("reproduce", "Reproduce"),
)


class Run(NamedTuple):
    """What a run left behind; None or empty where it left nothing."""

    folder: Path
    record: dict[str, Any]
    manifest: dict[str, Any] | None
    manifest_changed: bool
    history: list[dict[str, Any]]
    measures: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    analysis: dict[str, Any]
    judgements: list[dict[str, Any]]
    curve: dict[str, Any] | None
    gate: dict[str, Any] | None = None

    @property
    def sets(self) -> list[str]:
        """Sets that were evaluated: `test` first, then the external ones; `general` has a section of its own."""
        found = dict.fromkeys(m["set"] for m in self.measures)
        return [s for s in found if s != "general"]

    @property
    def models(self) -> list[str]:
        """Models that were evaluated, in the order in which they came to be."""
        found = dict.fromkeys(m["model"] for m in self.measures)
        students_last = MODELS.index("sft") - 0.5
        return sorted(found, key=lambda m: MODELS.index(m) if m in MODELS else students_last)

    @property
    def tuned(self) -> str | None:
        """The last trained stage: what the run is about."""
        return next((m for m in ("dpo", "kto", "sft", "merged") if m in self.models), None)

    @property
    def preferred(self) -> str:
        """The stage that learned from preferences: a run has one of them at most."""
        return "kto" if "kto" in self.models or any(h["stage"] == "kto" for h in self.history) else "dpo"

    def measure(self, name: str, model: str, metric: str) -> dict[str, Any] | None:
        """One measure, or None."""
        wanted = (name, model, metric)
        return next((m for m in self.measures if (m["set"], m["model"], m["metric"]) == wanted), None)

    def comparison(self, name: str, metric: str, a: str, b: str) -> dict[str, Any] | None:
        """One comparison b - a, or None."""
        wanted = (name, metric, a, b)
        return next((c for c in self.comparisons if (c["set"], c["metric"], c["a"], c["b"]) == wanted), None)


def write_report(run_dir: Path) -> Path:
    """Write run_dir/report.html and return its path.

    Raises DataError when run_dir is no folder, or when one of its files cannot be read.
    """
    run = read_run(run_dir)
    source = (Path(__file__).parent / "report_template.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string(source).render(
        title=run.record.get("name") or run.folder.name,
        subtitle=_subtitle(run),
        sections=SECTIONS,
        headline=headline(run),
        tiles=_tiles(run),
        overview_plot=_overview_plot(run),
        data=_data(run),
        stages=_stages(run),
        training_notes=_training_notes(run),
        sft_plot=_sft_plot(run.history),
        sft_caption=_sft_caption(run.history),
        preferred=run.preferred.upper(),
        dpo_plot=_dpo_plot(run.history, run.preferred),
        pace_plot=_pace_plot(run.history),
        evaluation=_evaluation(run),
        glossary=[(n, g) for n, g in GLOSSARY.items() if any(m["metric"] == n for m in run.measures)],
        gate=_gate(run),
        labels=_labels(run),
        weak=_weak(run),
        confidence=_confidence(run),
        confidence_plot=_confidence_plot(run),
        judged=_judged(run),
        speed=_speed(run),
        cost=_cost(run),
        curve=run.curve,
        curve_plot=_curve_plot(run.curve),
        behaviour=_behaviour(run),
        samples=_samples(run),
        failures=_failures(run),
        general=_general(run),
        limits=_limits(run),
        reproduce=_reproduce(run),
    )
    path = run_dir / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def read_run(run_dir: Path) -> Run:
    """Read a run's files. Raises DataError as `write_report` does."""
    if not run_dir.is_dir():
        raise DataError(f"{run_dir}: no such run. Runs are in runs/; name one, or train with `make train`.")
    record = _read(run_dir / "run.json") or {}
    manifest, changed = None, False
    for path in (run_dir / "manifest.json", Path(record.get("data") or "-") / "manifest.json"):
        if path.is_file():
            manifest = _read(path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            changed = record.get("manifest_sha256") not in (None, digest)
            break
    answers: list[dict[str, Any]] = []
    if (run_dir / "answers.parquet").is_file():
        try:
            answers = pq.read_table(run_dir / "answers.parquet").to_pylist()
        except (OSError, ValueError) as error:
            raise DataError(f"{run_dir / 'answers.parquet'}: cannot be read: {error}. Evaluate again.") from error
    return Run(
        folder=run_dir,
        record=record,
        manifest=manifest,
        manifest_changed=changed,
        history=_history(run_dir),
        measures=_read(run_dir / "evaluation.json") or [],
        comparisons=_read(run_dir / "comparisons.json") or [],
        answers=answers,
        analysis=_read(run_dir / "analysis.json") or {},
        judgements=[{**_read(path), "folder": path.parent.name} for path in sorted((run_dir / "answers").glob("*/judged.*.json"))],
        curve=_curve_of(run_dir, record),
        gate=_read(run_dir / "gate.json"),
    )


def _history(run_dir: Path) -> list[dict[str, Any]]:
    """What was measured while the run trained; runs of older versions have it in one JSON list."""
    path = run_dir / "metrics.jsonl"
    try:
        return read_history(path) or _read(run_dir / "history.json") or []
    except ValueError as error:
        raise DataError(f"{path}: not JSON lines: {error}. Train again.") from error


def _curve_of(run_dir: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """The learning curve beside the run that was measured with the same data and student, if there is one."""
    for path in sorted(run_dir.resolve().parent.glob("curve-*/curve.json")):
        found: dict[str, Any] = _read(path)
        if all(found.get(name) == record.get(name) for name in ("manifest_sha256", "student")):
            return found
    return None


def _read(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}. Run the stage that writes it again.") from error


# --- words ---------------------------------------------------------------------------------------------------------


def percent(value: float) -> str:
    """`0.9123` -> `91.2 %`."""
    return f"{100 * value:.1f} %"


def _interval(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _with_interval(m: dict[str, Any] | None) -> Markup | str:
    if m is None:
        return "-"
    return Markup("{} <small>({})</small>").format(f"{100 * m['value']:.1f}", _interval(m["low"], m["high"]))


def _difference(c: dict[str, Any] | None) -> Markup | str:
    """A difference with its interval and a mark, in points; better and worse as the metric's own direction says."""
    if c is None:
        return "-"
    kind, mark = _verdict(c)
    cell = Markup('<span class="{}">{} {}</span> <small>({} to {})</small>')
    low, high = (f"{100 * c[k]:+.1f}" for k in ("low", "high"))
    return cell.format(kind, mark, f"{100 * c['difference']:+.1f}", low, high)


def _verdict(c: dict[str, Any]) -> tuple[str, str]:
    said = verdict(c)
    return said, {"better": "▲", "worse": "▼", "unclear": "≈"}[said]


def _subtitle(run: Run) -> str:
    record = run.record
    parts = [
        f"student {record['student']}" if record.get("student") else "",
        record.get("method", ""),
        f"run {record['id']}" if record.get("id") else "",
        record.get("created", ""),
    ]
    return " · ".join(str(p) for p in parts if p) or "no run.json in this folder"


def headline(run: Run) -> list[str]:
    """The result in sentences that need no glossary."""
    if not run.measures:
        return ["This run was not evaluated, so nothing can be said about the student yet."]
    sentences = []
    for name in run.sets[:3]:
        metric = next((k for k in ("label_accuracy", "exact_match", "rouge_l") if run.measure(name, run.models[-1], k)), None)
        last = run.measure(name, run.tuned or run.models[0], metric) if metric else None
        if metric is None or last is None:
            continue
        what = {"label_accuracy": "names the right label", "exact_match": "gives the wanted answer"}.get(metric, "scores")
        where = f"{last['n']:,} held-out rows" if name == "test" else f"the {last['n']:,} rows of {name}"
        who = "the tuned student" if run.tuned else "the student"
        text = f"On {where}, {who} {what} in {percent(last['value'])} of cases"
        text += f" (95 % interval {_interval(last['low'], last['high'])})"
        base = run.measure(name, "base", metric)
        if base and last["model"] != "base":
            text += f"; before training it was {percent(base['value'])}"
            change = run.comparison(name, metric, "base", last["model"])
            if change:
                text += ", a clear difference" if _verdict(change)[0] != "unclear" else ", which is no clear difference"
        sentences.append(text + ".")
    sentences += [said["sentence"] for said in advice(run.measures, run.comparisons, run.analysis.get("cost"))]
    bad = next((c for s in run.sets if (c := run.comparison(s, "bad_behaviour", "sft", run.preferred))), None)
    if bad:
        before, after = (run.measure(bad["set"], m, "bad_behaviour") for m in ("sft", run.preferred))
        verdict = {"better": "fewer", "worse": "more", "unclear": "no clear change"}[_verdict(bad)[0]]
        if before and after:
            sentences.append(
                f"Bad answers (invented facts, asking for secrets, not declining) went from {percent(before['value'])} after SFT "
                f"to {percent(after['value'])} after {run.preferred.upper()}: {verdict} ({_signed(bad)} points)."
            )
    forgotten = run.comparison("general", "exact_match", "base", run.tuned or "")
    if forgotten:
        verdict = {"better": "rose", "worse": "fell", "unclear": "did not clearly change"}[_verdict(forgotten)[0]]
        sentences.append(f"General abilities {verdict} ({_signed(forgotten)} points).")
    return sentences or ["The sets that were evaluated have neither labels nor references for the headline."]


def _signed(c: dict[str, Any]) -> str:
    return f"{100 * c['difference']:+.1f}, interval {100 * c['low']:+.1f} to {100 * c['high']:+.1f}"


def _tiles(run: Run) -> list[dict[str, str]]:
    """For each main metric of the first set: base -> sft -> dpo or kto."""
    if not run.sets:
        return []
    tiles = []
    for metric in MAIN_METRICS:
        found = [m for model in ("base", "sft", run.preferred) if (m := run.measure(run.sets[0], model, metric))]
        if found:
            last = found[-1]
            tiles.append(
                {
                    "name": metric,
                    "models": " → ".join(m["model"] for m in found),
                    "value": " → ".join(f"{100 * m['value']:.1f}" for m in found) + " %",
                    "detail": f"95 % interval {_interval(last['low'], last['high'])}, {last['n']:,} rows",
                }
            )
    return tiles


# --- tables --------------------------------------------------------------------------------------------------------


def _share(part: int, whole: int) -> str:
    if not whole:
        return "-"
    return f"{percent(part / whole)} ({_interval(*wilson(part, whole))})"


def _terms(teachers: list[dict[str, Any]]) -> list[str]:
    """What the terms of each model say of training on its outputs, and whose decision it was, one line a model."""
    lines = {}
    for teacher in teachers:
        terms, decision = teacher.get("terms") or {}, teacher.get("decision")
        lines[teacher.get("model")] = (
            f"Terms of {teacher.get('model')}: may outputs train another model? {terms.get('may_train', 'not said')}"
            + (f": {terms['says']} ({terms.get('source')})" if terms.get("says") else "")
            + (f". Decided by {decision['by']}: {decision['decision']}" if decision else "")
        )
    return list(lines.values())


def _data(run: Run) -> dict[str, Any] | None:
    if run.manifest is None:
        return None
    manifest, data = run.manifest, run.manifest.get("data") or {}
    lines = []
    if run.manifest_changed:
        lines.append("Note: the data folder was exported again after this run; what follows is the newer export.")
    if "examples" in data:
        lines.append(
            f"{data['examples']:,} examples were made; {data.get('accepted', 0):,} were accepted and "
            f"{data.get('rejected', 0):,} dropped, each with a reason that stays in the store."
        )
    teachers = manifest.get("teachers") or []
    if teachers:
        named = [f"{t.get('role')}: {t.get('model')}{' (simulated, no language model)' if t.get('simulated') else ''}" for t in teachers]
        lines.append("Who wrote them: " + "; ".join(named) + ".")
        lines += _terms(teachers)
    clean = (manifest.get("decontamination") or {}).get("passed")
    lines.append(f"Decontamination {'passed' if clean else 'was not passed'}.")
    review = (data.get("review") or {}).get("rates") or []
    topics = data.get("topics") or []
    return {
        "lines": lines,
        "generators": [
            (g["generator"], f"{g['examples']:,}", f"{g['accepted']:,}", _share(g["accepted"], g["examples"]))
            for g in data.get("generators") or []
        ],
        "reasons": [(r["by"], r["reason"], f"{r['count']:,}") for r in data.get("reasons") or []],
        "topics": [(t["topic"], f"{t['target']:,}", f"{t['accepted']:,}", _topic_share(t)) for t in topics],
        "short": sum(t["accepted"] < t["target"] for t in topics),
        "costs": [
            (
                c["role"],
                c["model"],
                f"{c['calls']:,}",
                f"{c['prompt_tokens'] or 0:,}",
                f"{c['completion_tokens'] or 0:,}",
                f"{c['cost_usd'] or 0:.2f}",
            )
            for c in data.get("costs") or []
        ],
        "sets": [(s["name"], f"{s['rows']:,}", f"{s['dropped']:,}") for s in (manifest.get("decontamination") or {}).get("sets") or []],
        "review": [
            (
                r.get("reviewer", "-"),
                r.get("stratum", "all"),
                f"{r['reviewed']:,}",
                f"{r['defects']:,}",
                f"{percent(r['rate'])} ({_interval(r['low'], r['high'])})",
            )
            for r in review
        ],
    }


def _topic_share(topic: dict[str, Any]) -> str:
    """The manifest's interval is that of accepted of made; the point is left out where made is unknown."""
    if topic.get("low") is None or topic.get("high") is None:
        return "-"
    made = topic.get("examples")
    point = f"{percent(topic['accepted'] / made)} " if made else ""
    return f"{point}({_interval(topic['low'], topic['high'])})"


def _training_notes(run: Run) -> list[str]:
    """What a guard said, and what speaks against the learning rate."""
    stages = (run.record.get("stages") or {}).values()
    signs = [sign for s in stages for sign in s.get("learning_rate_too_high") or ()]
    return [
        *(s["guard"] for s in stages if s.get("guard")),
        *([f"The learning rate may be too high: {'; '.join(signs)}. Try a half or a third of it."] if signs else []),
    ]


def _stages(run: Run) -> list[tuple[str, str, str]]:
    rows = []
    for name, s in (run.record.get("stages") or {}).items():
        if s.get("skipped"):
            rows.append((name, "not run", str(s["skipped"])))
            continue
        what = [
            f"{s['rows']:,} rows" if s.get("rows") else "",
            f"{s['general_rows']:,} of them general" if s.get("general_rows") else "",
            f"held to the base on {s['held_rows']:,} general rows" if s.get("held_rows") else "",
            f"{s['pairs']:,} pairs" if s.get("pairs") else "",
            f"{s['accepted']:,} accepted and {s['rejected']:,} rejected answers" if s.get("rejected") else "",
            f"{s['rows_dropped']:,} rows left out" if s.get("rows_dropped") else "",
            f"{s['pairs_dropped']:,} pairs left out" if s.get("pairs_dropped") else "",
            f"{s['steps']:,} steps" if s.get("steps") else "",
            f"{100 * s['trainable'] / s['parameters']:.2f} % of {s['parameters']:,} parameters trained"
            if s.get("trainable") and s.get("parameters")
            else "",
        ]
        result = [
            f"best {s['best']['value']:.3f} at step {s['best']['step']}" if s.get("best") else "",
            f"kept: {s['kept']} weights" if s.get("kept") else "",
            str(s["stopped"]) if s.get("stopped") else "",
            f"{s['tokens_per_second']:,} tokens/s" if s.get("tokens_per_second") else "",
            f"{s['seconds']:.0f} s" if s.get("seconds") else "",
        ]
        if any(what) or any(result):
            rows.append((name, ", ".join(w for w in what if w) or "-", ", ".join(r for r in result if r) or "-"))
    return rows


def _evaluation(run: Run) -> list[dict[str, Any]]:
    parts = []
    for name in run.sets:
        models = [m for m in run.models if any(x["set"] == name and x["model"] == m for x in run.measures)]
        pairs = dict.fromkeys((c["a"], c["b"]) for c in run.comparisons if c["set"] == name)
        metrics = dict.fromkeys(m["metric"] for m in run.measures if m["set"] == name)
        rows, changes, seen = [], [], []
        for metric in (m for m in GLOSSARY if m in metrics):
            found = {m: run.measure(name, m, metric) for m in models}
            n = max(m["n"] for m in found.values() if m)
            named = metric + ("" if GLOSSARY[metric].higher_is_better else "\u00a0↓")
            rows.append([named, f"{n:,}", *(_with_interval(m) for m in found.values())])
            differences = [run.comparison(name, metric, a, b) for a, b in pairs]
            changes.append([named, *map(_difference, differences)])
            seen.append([named, *map(_detectable, differences)])
        own = "teacher" in models and not (run.folder / "systems" / "teacher.jsonl").is_file()
        about = (
            "Held-out rows of the same generators as the training rows: they share the teacher's habits, so they flatter."
            + (" The references are the teacher's own accepted answers, so its 100 % is no merit: read it as the ceiling." if own else "")
            if name == "test"
            else "An external set that no training row was made from: the honest figure."
        )
        parts.append(
            {
                "name": name,
                "about": about,
                "rows": f"{max((m['n'] for m in run.measures if m['set'] == name), default=0):,}",
                "models": models,
                "table": rows,
                "pairs": [f"{a} → {b}" for a, b in pairs],
                "changes": changes,
                "seen": seen if any(c.get("detectable") for c in run.comparisons) else [],
            }
        )
    return parts


def _detectable(c: dict[str, Any] | None) -> str:
    """The smallest difference that the set can be relied on to show, in points."""
    return f"{100 * c['detectable']:.1f}" if c and c.get("detectable") else "-"


def _weak(run: Run) -> list[dict[str, Any]]:
    """Slices of each set, the worst first, with what survives the adjustment for their number."""
    parts = []
    for found in run.analysis.get("slices") or []:
        rows = []
        for line in sorted(found["slices"], key=lambda line: (not line["weak"], line["value"], line["by"], line["slice"])):
            change: Markup | str = "-"
            if found["rival"]:
                clear = line["p_change_holm"] <= 0.05
                c = {**line, "low": line["change_low"], "high": line["change_high"], "difference": line["change"]}
                change = _difference(c) if clear else Markup("≈ {}").format(f"{100 * c['difference']:+.1f}")
            mark = Markup('<span class="worse">▼ weak</span>') if line["weak"] else ""
            rows.append(
                (f"{line['by']}: {line['slice']}", f"{line['n']:,}", _with_interval(line), f"{line['p_rest_holm']:.2g}", mark, change)
            )
        weak = [f"{line['by']} {line['slice']}" for line in found["slices"] if line["weak"]]
        many = f"{len(weak)} {'is' if len(weak) == 1 else 'are'}" if weak else "none is"
        said = f"Of {found['tests']} slices, {many} worse than the rest of the set beyond chance{': ' if weak else ''}{', '.join(weak)}."
        if found["left_out"]:
            said += f" {found['left_out']} with too few rows are left out."
        rival = f"against {found['rival']}" if found["rival"] else "against the base"
        head = ["slice", "rows", f"{found['metric']} of {found['model']}", "p against the rest", "", rival]
        parts.append({"name": found["set"], "verdict": said, "head": head, "rows": rows})
    return parts


def _confidence(run: Run) -> dict[str, Any] | None:
    found = run.analysis.get("confidence") or []
    if not found:
        return None

    rows = [
        (
            f"{c['set']}: {c['model']}",
            f"{c['rows']:,}",
            percent(c["accuracy"]),
            percent(c["confidence"]),
            _with_interval(c["over_confidence"]),
            _with_interval(c["calibration_error"]),
            _with_interval(c["separation"]),
        )
        for c in found
    ]
    sentences = []
    for c in found:
        whole, most = c["curve"][0], next(p for p in c["curve"] if p["coverage"] == 0.8)
        if c["model"] == run.tuned and whole["risk"] > 0:
            sentences.append(
                f"On {c['set']}, {c['model']} is wrong in {percent(whole['risk'])} of rows; in the 80 % that it is surest of, in "
                f"{percent(most['risk'])} ({_interval(most['low'], most['high'])}): the rest, below a confidence of "
                f"{most['confidence']:.3f}, could go to a person or a larger model."
            )
    head = ["set and model", "rows", "right", "mean confidence", "over-confidence", "calibration error", "right surer than wrong"]
    return {"head": head, "rows": rows, "sentences": sentences}


def _judged(run: Run) -> list[dict[str, Any]]:
    """What a judge said of two systems, as `python -m datagen compare` left it."""
    parts = []
    for found in run.judgements:
        rows = [
            (name, f"{found['rows']:,}", _with_interval(found[key]))
            for name, key in (
                (f"{found['b']} wins", "win"),
                ("tie, or the orders contradict each other", "tie"),
                (f"{found['a']} wins", "lose"),
                (f"win rate of {found['b']} (ties count half)", "win_rate"),
                ("win rate at equal length", "win_rate_at_equal_length"),
                ("both orders agree", "agreement"),
                ("the first answer is preferred (50 % is no bias)", "position"),
            )
            if found.get(key)
        ]
        answers = run.folder / "answers" / found["folder"] / found["second"]["file"]
        if not answers.is_file() or hashlib.sha256(answers.read_bytes()).hexdigest() != found["second"]["sha256"]:
            found["warnings"] = ["The answers were made anew since they were judged: compare them again.", *found["warnings"]]
        parts.append({**found, "table": rows})
    return parts


def _speed(run: Run) -> list[tuple[str, ...]]:
    return [
        (
            s["model"],
            f"{s['rows']:,}",
            f"{s['batch_size']:,}",
            s["device"],
            f"{s['median_s']:.2f}",
            f"{s['p95_s']:.2f}",
            f"{s['tokens_per_second']:,.0f}",
            f"{s['prompt_tokens']:,.0f}",
            f"{s['completion_tokens']:,.0f}",
        )
        for s in run.analysis.get("speed") or []
    ]


def _cost(run: Run) -> list[tuple[str, str, str]]:
    cost = run.analysis.get("cost")
    if not cost:
        return []
    teacher = cost["teacher"]
    lines = [*((s["model"], s["usd"], s["why"]) for s in cost["students"]), (teacher["model"] or "teacher", teacher["usd"], teacher["why"])]
    return [(name, "not known" if usd is None else f"{usd:,.4f}" if usd < 1 else f"{usd:,.2f}", why) for name, usd, why in lines]


def _gate(run: Run) -> dict[str, Any] | None:
    """The gate's table with what it says of artifacts that did not pass."""
    if not run.gate:
        return None
    head, rows = gate_table(run.gate)
    sizes = "; ".join(f"{side}: {', '.join(f'{n:,} of {name}' for name, n in sets.items())}" for side, sets in run.gate["rows"].items())
    title = f"Artifact - adapter in percentage points with 95 % intervals, the metric that looks worst; the bar is -{run.gate['delta']:g}"
    return {"title": title, "head": head, "rows": rows, "sizes": sizes, "said": gate_summary(run.gate)}


def _labels(run: Run) -> list[dict[str, Any]]:
    parts = []
    for name in run.sets:
        rows = [a for a in run.answers if a["set"] == name and a["label"]]
        models = [m for m in run.models if m != "merged" and any(a["model"] == m for a in rows)]
        if not models or all(a["predicted"] is None for a in rows):
            continue
        last = models[-1]
        counts = Counter((a["model"], a["label"]) for a in rows)
        right = Counter((a["model"], a["label"]) for a in rows if a["predicted"] == a["label"])
        labels = sorted({a["label"] for a in rows}, key=lambda x: (right[last, x] / max(counts[last, x], 1), x))
        wrong = Counter(
            (a["label"], a["predicted"] or "no readable label") for a in rows if a["model"] == last and a["predicted"] != a["label"]
        )
        parts.append(
            {
                "name": name,
                "model": f"worst first for {last}",
                "models": models,
                "numbers": tuple(range(1, 2 + len(models))),
                "recall": [
                    (label, f"{counts[last, label]:,}", *(_share(right[m, label], counts[m, label]) for m in models)) for label in labels
                ],
                "confusions": [
                    (a, b, f"{n} of {counts[last, a]}") for (a, b), n in sorted(wrong.items(), key=lambda x: (-x[1], x[0]))[:10]
                ],
            }
        )
    return parts


def _behaviour(run: Run) -> dict[str, Any] | None:
    models = [m for m in ("base", "sft", run.preferred) if m in run.models]
    rows = []
    for name in run.sets:
        for metric in BAD_BEHAVIOURS:
            found = [run.measure(name, m, metric) for m in models]
            if any(found):
                n = max(m["n"] for m in found if m)
                rows.append(
                    (
                        f"{name}: {metric}",
                        f"{n:,}",
                        *map(_with_interval, found),
                        _difference(run.comparison(name, metric, "sft", run.preferred)),
                    )
                )
    head = ["behaviour", "rows", *models, f"sft → {run.preferred}"]
    return {"head": head, "rows": rows, "numbers": tuple(range(1, len(head)))} if rows else None


def _general(run: Run) -> dict[str, Any] | None:
    metrics = list(dict.fromkeys(m["metric"] for m in run.measures if m["set"] == "general"))
    if not metrics:
        return None
    models = [m for m in run.models if run.measure("general", m, "exact_match")]
    rows = []
    for metric in metrics:
        found = [run.measure("general", m, metric) for m in models]
        n = max(m["n"] for m in found if m)
        change = run.comparison("general", metric, "base", run.tuned or "")
        rows.append((metric.partition("/")[2] or "all skills", f"{n:,}", *map(_with_interval, found), _difference(change)))
    head = ["skill", "rows", *models, f"base → {run.tuned}"]
    return {"head": head, "rows": rows, "numbers": tuple(range(1, len(head)))}


def _samples(run: Run, each: int = 2) -> list[dict[str, Any]]:
    """A few rows of each fate, drawn by the hash of the id."""
    models = [m for m in run.models if m in ("base", "sft", run.preferred)] or run.models
    rows: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for a in run.answers:
        if a["set"] in run.sets and a["model"] in models:
            rows.setdefault((a["set"], a["id"]), {})[a["model"]] = a
    fates: dict[str, list[tuple[str, str]]] = {}
    for key in sorted(rows, key=lambda k: hashlib.sha256("/".join(k).encode()).hexdigest()):
        if len(rows[key]) == len(models):
            fates.setdefault(_fate([(m, not rows[key][m]["failed"]) for m in models]), []).append(key)
    samples = []
    for fate in sorted(fates):
        for key in fates[fate][:each]:
            first = rows[key][models[0]]
            samples.append(
                {
                    "set": key[0],
                    "why": fate,
                    "input": first["input"],
                    "wanted": first["reference"] or first["label"] or "-",
                    "answers": [(m, rows[key][m]["completion"] or "(empty)", not rows[key][m]["failed"]) for m in models],
                }
            )
    return samples


def _failures(run: Run) -> str:
    path = run.folder / "failures.parquet"
    if not path.is_file():
        return ""
    count = pq.read_metadata(path).num_rows
    return f"All {count:,} rows that the last model has wrong are in failures.parquet, with their topic and the metrics they fail."


def _fate(outcomes: Sequence[tuple[str, bool]]) -> str:
    """What happened to a row from model to model, in words."""
    right = [ok for _, ok in outcomes]
    if len(set(right)) == 1:
        return "right in every stage" if right[0] else "wrong in every stage"
    steps = [f"{'mended' if now else 'broken'} by {name}" for (_, before), (name, now) in pairwise(outcomes) if before != now]
    return ", ".join(steps)


def _limits(run: Run) -> list[str]:
    lines = []
    teachers = (run.manifest or {}).get("teachers") or []
    if any(t.get("simulated") for t in teachers):
        lines.append(
            "The teacher was simulated: an offline program with a grammar and a rule table, no language model. The figures show "
            "that the pipeline works and which stage gave what, not how well a real teacher would teach."
        )
    if "students/tiny" in str(run.record.get("student", "")):
        lines.append(
            "The built-in student is tiny, a few million parameters. Logistic regression on word counts beats it on the same "
            "rows: the demo does not show that a tiny language model is the right tool for this task."
        )
    lines.append(
        "Held-out rows come from the same generators as the training rows and share the teacher's grammar and its errors. "
        "The external and hand-written sets are the honest figures" + ("." if len(run.sets) > 1 else "; this run evaluated none.")
    )
    sizes = {s: max(m["n"] for m in run.measures if m["set"] == s) for s in run.sets}
    if sizes:
        widths = "; ".join(f"{s}: {n:,} rows, up to ±{100 * 0.98 / n**0.5:.1f} points" for s, n in sizes.items())
        lines.append(f"Sample size limits what can be seen. A share's 95 % interval is as wide as ({widths}); smaller effects stay hidden.")
    lines.append(
        "Intervals cover the choice of rows, not the luck of training: another seed gives other weights. They treat rows as "
        "independent, and none is corrected for the number of metrics looked at."
    )
    return lines


def _reproduce(run: Run) -> dict[str, Any] | None:
    record = run.record
    if not record:
        return None
    proof = _read(run.folder / "template_proof.json") or {}
    names = ("id", "created", "student", "method", "seed", "data", "manifest_sha256", "config_sha256")
    rows = [(n, str(record[n])) for n in names if record.get(n) is not None]
    if run.manifest:
        taxonomy = run.manifest.get("taxonomy") or {}
        extra = {
            "data: seed": run.manifest.get("seed"),
            "data: recipe_sha256": run.manifest.get("recipe_sha256"),
            "data: taxonomy": taxonomy.get("name"),
            "data: taxonomy sha256": taxonomy.get("sha256"),
        }
        rows += [(k, str(v)) for k, v in extra.items() if v is not None]
    if proof.get("template_sha256"):
        rows.append(("chat template sha256", proof["template_sha256"]))
        rows.append(
            ("chat template proof", f"{proof.get('rows_proved', 0):,} of {proof.get('rows_encoded', 0):,} rows shown equal to inference")
        )
    name = record.get("name", "NAME")
    command = f"make datagen RECIPE=recipes/{name}.yaml\nmake train RECIPE=recipes/{name}.yaml"
    if "students/tiny" not in str(record.get("student", "students/tiny")):
        command += f" STUDENT={record['student']}"
    return {"command": command, "rows": rows, "versions": sorted((record.get("versions") or {}).items())}


# --- plots ---------------------------------------------------------------------------------------------------------


def _style() -> Any:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "retort",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": "#8a8f98",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#8a8f98",
        "grid.alpha": 0.25,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "savefig.transparent": True,
    }


def _svg(figure: Figure, label: str) -> Markup:
    """A figure as inline SVG: no header, no metadata, ids of its own, text in the page's font and colour."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = hashlib.sha256(label.encode()).hexdigest()[:6]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{prefix}-", text)
    text = text.replace(INK, "currentColor").replace("<svg ", f'<svg role="img" aria-label="{Markup.escape(label)}" ', 1)
    return Markup(text)


def _overview_plot(run: Run) -> Markup | None:
    """Main metrics with intervals: one panel per set."""
    sets = [s for s in run.sets if any(m["set"] == s and m["metric"] in MAIN_METRICS for m in run.measures)][:3]
    models = [m for m in run.models if m != "merged"] or run.models
    if not sets:
        return None
    metrics = [k for k in MAIN_METRICS if any(m["metric"] == k and m["set"] in sets for m in run.measures)]
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(9, 0.8 + 0.55 * len(metrics)), layout="constrained")
        axes = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
        for ax, name in zip(axes, sets, strict=True):
            for k, model in enumerate(models):
                colour, shape = LOOK.get(model, OTHER_LOOK)
                found = [(i, m) for i, metric in enumerate(metrics) if (m := run.measure(name, model, metric))]
                ax.errorbar(
                    [100 * m["value"] for _, m in found],
                    [i + (k - (len(models) - 1) / 2) * 0.22 for i, _ in found],
                    xerr=_bars([m for _, m in found]),
                    fmt=shape,
                    color=colour,
                    markersize=5,
                    elinewidth=2,
                    label=model,
                )
            ax.set_xlim(-3, 103)
            ax.set_title(name, fontsize=10)
            ax.set_xlabel("%")
            ax.set_yticks(range(len(metrics)), metrics)
        axes[0].invert_yaxis()
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=len(models))
        return _svg(figure, f"Main metrics of {', '.join(models)} with 95 % intervals on {', '.join(sets)}")


def _confidence_plot(run: Run) -> Markup | None:
    """Risk against coverage: one panel per set."""
    found = run.analysis.get("confidence") or []
    if not found:
        return None
    sets = list(dict.fromkeys(c["set"] for c in found))[:3]
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(9, 2.9), layout="constrained")
        axes = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
        for ax, name in zip(axes, sets, strict=True):
            for c in (c for c in found if c["set"] == name):
                colour, shape = LOOK.get(c["model"], OTHER_LOOK)
                x = [100 * p["coverage"] for p in c["curve"]]
                ax.plot(x, [100 * p["risk"] for p in c["curve"]], shape + "-", color=colour, markersize=4, label=c["model"])
                low, high = ([100 * p[k] for p in c["curve"]] for k in ("low", "high"))
                ax.fill_between(x, low, high, color=colour, alpha=0.15)
            ax.set_title(f"{name}: wrong answers, %", fontsize=10)
            ax.set_xlabel("rows answered, the surest first, %")
            ax.legend(fontsize=9)
        return _svg(figure, f"Risk by coverage on {', '.join(sets)}")


def _curve_plot(curve: dict[str, Any] | None) -> Markup | None:
    """The learning curve: points with intervals, and the fitted law where the points support one."""
    if not curve:
        return None
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        ax = figure.subplots()
        points = curve["points"]
        colour, shape = LOOK["sft"]
        ax.errorbar(
            [p["rows"] for p in points], [100 * p["value"] for p in points], yerr=_bars(points), fmt=shape, color=colour, label="measured"
        )
        if curve.get("law"):
            line = curve["law"]["line"]
            x = [p["rows"] for p in line]
            ax.plot(x, [100 * p["value"] for p in line], color=colour, linewidth=1.4, label="power law")
            ax.fill_between(x, [100 * p["low"] for p in line], [100 * p["high"] for p in line], color=colour, alpha=0.15)
        ax.set_xscale("log")
        ax.set_xlabel("training rows")
        ax.set_title(f"{curve['metric']} on {curve['set']}, %", fontsize=10)
        ax.legend(fontsize=9)
        return _svg(figure, "Learning curve: the metric by number of training rows")


def _bars(found: Iterable[dict[str, Any]]) -> list[list[float]]:
    """Lengths of error bars below and above, in per cent."""
    pairs = [(100 * (m["value"] - m["low"]), 100 * (m["high"] - m["value"])) for m in found]
    return [[max(0.0, a) for a, _ in pairs], [max(0.0, b) for _, b in pairs]]


def _line(history: Sequence[dict[str, Any]], stage: str, key: str) -> tuple[list[float], list[float]]:
    found = [(h["step"], h[key]) for h in history if h["stage"] == stage and isinstance(h.get(key), int | float)]
    return [x for x, _ in found], [y for _, y in found]


def _curve(ax: Any, history: Sequence[dict[str, Any]], stage: str, key: str, label: str, look: tuple[str, str]) -> None:
    x, y = _line(history, stage, key)
    ax.plot(x, y, color=look[0], linewidth=1.6, marker=look[1] if len(x) < 30 else None, markersize=4, label=label)


def _metric_panel(ax: Any, history: Sequence[dict[str, Any]], stage: str) -> None:
    points = [h for h in history if h["stage"] == stage and "metric" in h]
    colour, shape = LOOK[stage]
    steps, values = [h["step"] for h in points], [100 * h["value"] for h in points]
    ax.errorbar(steps, values, yerr=_bars(points), fmt=shape + "-", color=colour, markersize=4, elinewidth=1.5, capsize=2)
    ax.set_title(f"{points[0]['metric']} on validation rows, %" if points else "no validation", fontsize=10)
    ax.set_xlabel("step")


def _sft_plot(history: Sequence[dict[str, Any]]) -> Markup | None:
    if not any(h["stage"] == "sft" for h in history):
        return None
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(9, 2.9), layout="constrained")
        general = [h for h in history if h["stage"] == "sft" and "general" in h]
        left, right, *third = figure.subplots(1, 3 if general else 2)
        _curve(left, history, "sft", "loss", "loss", LOOK["sft"])
        left.set_title("SFT loss, nats per token", fontsize=10)
        left.set_xlabel("step")
        _metric_panel(right, history, "sft")
        for ax in third:
            _curve(ax, [{**h, "general": 100 * h["general"]} for h in general], "sft", "general", "general", LOOK["base"])
            ax.set_title("general rows set aside, exact, %", fontsize=10)
            ax.set_xlabel("step")
        return _svg(figure, "SFT: training loss and validation metric by step")


def _sft_caption(history: Sequence[dict[str, Any]]) -> str:
    points = [h for h in history if h["stage"] == "sft" and "metric" in h]
    return (
        "The loss says how well the student predicts the teacher's words; the metric, with its 95 % interval"
        + (f" on {points[-1]['n']:,} rows" if points and points[-1].get("n") else "")
        + ", says whether its answers are right. The best point of the metric was kept."
    )


def _dpo_plot(history: Sequence[dict[str, Any]], stage: str) -> Markup | None:
    if not any(h["stage"] == stage for h in history):
        return None
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(9, 2.9), layout="constrained")
        one, two, three = figure.subplots(1, 3)
        _curve(one, history, stage, "margin", "margin", LOOK["dpo"])
        one.set_title("margin of chosen over rejected", fontsize=10)
        _curve(two, history, stage, "chosen_logp", "chosen", LOOK["merged"])
        _curve(two, history, stage, "rejected_logp", "rejected", LOOK["dpo"])
        two.set_title("log-probability of answers, nats", fontsize=10)
        if two.lines:
            two.legend(fontsize=9)
        _metric_panel(three, history, stage)
        for ax in (one, two):
            ax.set_xlabel("step")
        return _svg(figure, f"{stage.upper()}: margin, log-probabilities of chosen and rejected answers, validation metric by step")


def _pace_plot(history: Sequence[dict[str, Any]]) -> Markup | None:
    """Learning rate, speed and memory by tokens seen, one line a stage."""
    panels = (
        ("learning_rate", "learning rate", 1.0),
        ("tokens_per_second", "tokens a second, scoring apart", 1.0),
        ("peak_bytes", "most memory so far, GB", 1e-9),
    )
    found = [(key, title, scale) for key, title, scale in panels if any(key in h for h in history)]
    if not found:
        return None
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(9, 2.9), layout="constrained")
        for ax, (key, title, scale) in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
            for stage in dict.fromkeys(h["stage"] for h in history):
                lines = [h for h in history if h["stage"] == stage and key in h]
                colour, _ = LOOK.get(stage, OTHER_LOOK)
                ax.plot([h["tokens"] for h in lines], [h[key] * scale for h in lines], color=colour, linewidth=1.6, label=stage)
            ax.set_title(title, fontsize=10)
            ax.set_xlabel("tokens seen by the stage")
            ax.set_ylim(bottom=0)
            ax.legend(fontsize=9)
        return _svg(figure, "Learning rate, tokens a second and memory by tokens seen")
