"""The model card: README.md of a run, in the Hub's form (https://huggingface.co/docs/hub/model-cards).

    path = write_card(run_dir, config, manifest)

Written from what the run wrote down, so that it says nothing that the run does not know. Names of topics, reasons and terms are other
people's text: what Markdown or HTML would obey is escaped.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from train.config import BUILT_IN, TrainConfig
from train.dataset import Manifest
from train.metrics import GLOSSARY
from train.provenance import RECORD
from train.verdicts import GATE, acceptance

README = "README.md"
# A student's own licence is on the card of its base, which may be a folder of the user's: it is asked there and guessed nowhere.
OWN_LICENCE = "apache-2.0"
CARD_METRICS = ("macro_f1", "label_accuracy", "exact_match", "entity_f1", "token_f1", "rouge_l", "chrf")
MOST_SLICES = 10
Lines = list[str]


def write_card(run_dir: Path, config: TrainConfig, manifest: Manifest) -> Path:
    """Write the card beside the run's record and return its path; an artifact's folder stays as the gate saw it."""
    path = run_dir / README
    path.write_text(card(run_dir, config, manifest), encoding="utf-8")
    return path


def card(run_dir: Path, config: TrainConfig, manifest: Manifest) -> str:
    """The card's text: metadata, then sections. Parts that a run does not have are said to be missing."""
    record = _read(run_dir / "run.json")
    measures, analysis = _read(run_dir / "evaluation.json") or [], _read(run_dir / "analysis.json") or {}
    described = _read(run_dir / "merged/retort.json") or {}
    sections = [
        _summary(record, config, manifest, run_dir), _use(config, manifest, described), _data(manifest), _terms(manifest),
        _evaluation(measures), _gate(run_dir), _limits(manifest, analysis), _forgetting(measures, run_dir),
    ]  # fmt: skip
    body = "\n".join(line for section in sections for line in section)
    return f"---\n{metadata(config, manifest, measures, described).to_yaml()}\n---\n\n{body}\n"


def metadata(config: TrainConfig, manifest: Manifest, measures: Sequence[Mapping[str, Any]], described: Mapping[str, Any]) -> ModelCardData:
    """The Hub's metadata. Intervals have no field there; they stand in the names of the metrics and in the text."""
    model = _best(measures)
    simulated = any(teacher.get("simulated") for teacher in manifest.teachers)
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=manifest.name,
            dataset_name=f"{manifest.name}, {m['set']}",
            dataset_split=m["set"],
            dataset_revision=manifest.sha256,
            metric_type=m["metric"],
            metric_name=f"{m['metric']} (95 % interval {100 * m['low']:.1f} to {100 * m['high']:.1f}, n {m['n']})",
            metric_value=round(100 * m["value"], 2),
        )
        for m in measures
        if m["model"] == model and m["metric"] in CARD_METRICS
    ]
    local = Path(config.student).exists() or config.student == BUILT_IN
    known: dict[str, Any] = {} if local else {"base_model": config.student}
    if config.student == BUILT_IN and simulated:
        known["license"] = OWN_LICENCE
    language = (manifest.raw.get("task") or {}).get("language")
    if language:
        known["language"] = language
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["retort", "distillation", "synthetic", config.method, *(["simulated-teacher"] if simulated else [])],
        datasets=[manifest.name] if "/" in manifest.name else None,
        model_name=f"{config.name} ({Path(config.student).name})",
        eval_results=results or None,
        **known,
    )


def _best(measures: Sequence[Mapping[str, Any]]) -> str | None:
    names = {m["model"] for m in measures}
    return next((name for name in ("merged", "dpo", "kto", "sft") if name in names), None)


def _summary(record: Mapping[str, Any], config: TrainConfig, manifest: Manifest, run_dir: Path) -> Lines:
    stages = [name.upper() for name in ("sft", "dpo", "kto") if (run_dir / name).is_dir()]
    lines = [
        f"# {_words(config.name)}",
        "",
        f"A small model for one job ({_words(manifest.task.type.replace('_', ' '))}): {_words(config.student)}, tuned by "
        f"{' and '.join(stages) or 'nothing yet'} ({config.method}) on synthetic rows of the data set {_words(manifest.name)}. "
        f"Made by Retort in run {_words(record['id'])}.",
    ]
    if any(teacher.get("simulated") for teacher in manifest.teachers):
        lines += [
            "",
            "**Its teacher was simulated**: a procedural program, no language model, wrote the rows. It shows that the pipeline works.",
        ]
    if manifest.task.labels:
        lines += ["", f"It answers with one of {len(manifest.task.labels)} labels: {_words(', '.join(manifest.task.labels[:40]))}."]
    return lines


def _use(config: TrainConfig, manifest: Manifest, described: Mapping[str, Any]) -> Lines:
    system = json.dumps(manifest.task.system, ensure_ascii=False)
    lines = ["", "## How to use it", "", "It was trained with this system message; without it the answers are others:", ""]
    lines += [f"> {_words(manifest.task.system)}" if manifest.task.system else "> (none)", "", "```python"]
    lines += ["from transformers import pipeline", "", 'model = pipeline("text-generation", "path/to/merged")']
    lines += [f'messages = [{{"role": "system", "content": {system}}}, {{"role": "user", "content": "..."}}]']
    lines += [f"model(messages, max_new_tokens={config.evaluation.max_new_tokens}, do_sample=False)", "```"]
    if described:
        lines += [
            "",
            f"Chat template: {_words(described['template'])}, sha256 `{described['template_sha256'][:12]}`, kept with the weights.",
        ]
        lines += [f"Answers end with `{described['stop']}`, which is in `generation_config.json`."]
    return lines


def _data(manifest: Manifest) -> Lines:
    counts = [
        (name, f"{entry['rows']:,}")
        for name, entry in sorted(manifest.files.items())
        if re.fullmatch(r"\w+/(train|validation|test)\.parquet", name)
    ]
    lines = ["", "## Training data and where it came from", "", *_table(("file", "rows"), counts), ""]
    lines += [
        f"The export's `manifest.json` has the sha256 `{manifest.sha256}`. `{RECORD}` links these weights to it, and each row to the calls"
    ]
    lines += ["of the teacher that it came from: `python -m train trace ROW` follows one."]
    if without := manifest.raw.get("without"):
        named = "; ".join(f"{kind} {', '.join(map(str, values))}" for kind, values in without["named"].items())
        lines += ["", f"**Trained without** {without['left_out']:,} rows of that export: {_words(named[:300])}."]
    review = (manifest.data.get("review") or {}).get("rates") or []
    every = next((rate for rate in review if rate["stratum"] == "all"), None)
    lines += ["", "People looked at none of the rows." if every is None else (
        f"People reviewed {every['reviewed']:,} rows and rejected or edited {every['defects']:,} "
        f"({100 * every['rate']:.1f} %, 95 % interval {100 * every['low']:.1f} to {100 * every['high']:.1f})."
    )]  # fmt: skip
    return lines


def _terms(manifest: Manifest) -> Lines:
    rows = []
    for teacher in manifest.teachers:
        terms, decision = teacher.get("terms") or {}, teacher.get("decision")
        decided = f"{decision['by']}: {decision['decision']}" if decision else "the table of terms"
        rows.append((teacher.get("role", ""), teacher.get("model", ""), terms.get("may_train", ""), terms.get("says", ""), decided))
    lines = [
        "",
        "## Terms of the teachers",
        "",
        *_table(("role", "model", "outputs may train", "what the terms say", "decided by"), rows),
        "",
    ]
    return [*lines, "Whoever holds these weights is bound by the licence of the base model and by the terms above."]


def _evaluation(measures: Sequence[Mapping[str, Any]]) -> Lines:
    lines = ["", "## Evaluation", ""]
    if not measures:
        return [*lines, "Not evaluated yet."]
    models = list(dict.fromkeys(m["model"] for m in measures))
    cells: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for m in measures:
        if m["metric"] in GLOSSARY and "/" not in m["metric"]:
            cells.setdefault((m["set"], m["metric"]), {})[m["model"]] = m
    table = [
        (
            s,
            metric,
            f"{next(iter(row.values()))['n']:,}",
            *(f"{100 * m['value']:.1f} ({100 * m['low']:.1f} to {100 * m['high']:.1f})" if m else "" for m in map(row.get, models)),
        )
        for (s, metric), row in cells.items()
    ]
    lines += [
        "Greedy answers on rows that were not trained on, in per cent, with 95 % intervals.",
        "",
        *_table(("set", "metric", "n", *models), table),
    ]
    return lines


def _gate(run_dir: Path) -> Lines:
    lines = ["", "## Every form against the adapter", ""]
    record = _read(run_dir / GATE)
    if not record:
        return [*lines, "The forms were not judged: this run did not go through the gate."]
    lines += [
        f"A form passes when it is worse than the adapter by less than {record['delta']:g} points, with 95 % confidence, on the same rows.",
        "",
    ]
    rows = []
    for entry in record["artifacts"]:
        decided = [s for s in entry["scores"] if s["verdict"]]
        said = "; ".join(
            f"{s['side']} {s['metric']} {100 * s['difference']:+.2f} ({100 * s['low']:+.2f} to {100 * s['high']:+.2f})" for s in decided
        )
        by = acceptance(record, entry["name"])
        verdict = entry["verdict"] + (f", accepted by {by['by']} ({by['at'][:10]}): {by['because']}" if by else "")
        rows.append((entry["name"], verdict, said or "; ".join(line.splitlines()[0] for line in entry["why"])))
    return [*lines, *_table(("form", "verdict", "difference in points (95 % interval)"), rows)]


def _limits(manifest: Manifest, analysis: Mapping[str, Any]) -> Lines:
    lines = ["", "## Limits", ""]
    weak = [(found, line) for found in analysis.get("slices") or [] for line in found["slices"] if line["weak"]]
    if weak:
        lines += ["It is weak on these slices of the held-out rows:", ""]
    for found, line in sorted(weak, key=lambda pair: pair[1]["value"])[:MOST_SLICES]:
        lines.append(
            f"- {_words(line['by'])} {_words(line['slice'])} ({_words(found['set'])}): {line['metric']} {100 * line['value']:.1f} %, "
            f"95 % interval {100 * line['low']:.1f} to {100 * line['high']:.1f}, {line['n']:,} rows; {100 * found['value']:.1f} % over all."
        )
    if not weak and analysis.get("slices"):
        lines.append("- No slice of the held-out rows is worse than the rest beyond chance; small slices hide what they have.")
    lines += ["- It knows one job. Outside of it, it answers in the same form, and wrongly."]
    if manifest.task.abstain_label:
        lines += [f"- What is outside the job it is taught to answer with `{manifest.task.abstain_label}`, and does not always."]
    lines += ["- Test rows come from the same teacher as the training rows and flatter it; external sets are the honest figures."]
    return lines


def _forgetting(measures: Sequence[Mapping[str, Any]], run_dir: Path) -> Lines:
    lines = ["", "## Forgetting", ""]
    comparisons = _read(run_dir / "comparisons.json") or []
    model = _best(measures)
    tuned = next((name for name in ("dpo", "kto", "sft") if any(c["b"] == name for c in comparisons)), None) if model == "merged" else model
    c = next((c for c in comparisons if (c["set"], c["metric"], c["a"], c["b"]) == ("general", "exact_match", "base", tuned)), None)
    if c is None:
        return [*lines, "Not measured."]
    said = f"{100 * c['difference']:+.1f} points (95 % interval {100 * c['low']:+.1f} to {100 * c['high']:+.1f}, {c['n']:,} rows)"
    return [*lines, f"Exact match on rows of general skills against the untuned base: {said}."]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(_words(cell) for cell in row) + " |" for row in rows]


def _words(text: Any) -> str:
    """A text on one line, whose signs Markdown and HTML do not obey."""
    return re.sub(r"([|\[\]*])", r"\\\1", " ".join(str(text).split())).replace("<", "&lt;")
