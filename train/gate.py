"""The gate: every artifact against the adapter that it was made from, on the same rows; what got worse does not ship.

    found = gate_run(run_dir, config, manifest)               writes gate.json
    accept(run_dir, "gguf-q4_k_m", by="ana", because="...", at="2026-01-02T03:04:05+00:00")

First what must be equal is compared exactly: template, stop tokens, special tokens, the token ids of every held-out prompt. Then both
answer all held-out rows of the domain and the general ones. An artifact passes when the lower bound of (artifact - adapter), the 95 % score
interval of a paired difference (metrics.tango), is above -delta on each metric that decides. Where the difference itself is not, it
failed. In between the rows were too few to see delta: that is `undecided`, it does not pass, and how many rows it would take is said.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from train import drift, metrics
from train.artifacts import Artifact, found, load
from train.config import GENERAL, TrainConfig
from train.dataset import Manifest, Row, read_general, read_rows
from train.errors import ConfigError, DataError, TrainError
from train.evaluate import TEXT, read_answers, sample, write
from train.metrics import FEW, METRICS, Answer, TaskSpec, primary_metric, score
from train.model import Student, stop_ids
from train.sums import hashes
from train.template import difference, render
from train.verdicts import FORMAT, GATE, REFERENCE, Verdict, read_gate, unchanged
from train.watch import Progress, Silent, write_json

# Of equal prompts and answers one is as good as another; of what is compared row by row, this many differences are shown.
SHOWN = 3


class Side(NamedTuple):
    """Rows that decide together: those of the domain, or the general ones. `sets` says how many came from where."""

    name: str
    rows: list[Row]
    task: TaskSpec
    sets: dict[str, int]


class Exact(NamedTuple):
    """Something that must be equal, and how it differs; None where it is equal."""

    name: str
    differs: str | None


class Score(NamedTuple):
    """`difference` = artifact - adapter on `n` rows, with its 95 % interval; all are fractions.

    `lost` and `won` are rows that only the adapter, or only the artifact, has right. `needed` rows would show that it is not worse by
    delta, if they differed as these do. `verdict` is None for a metric that is shown and does not decide.
    """

    side: str
    metric: str
    adapter: float
    artifact: float
    difference: float
    low: float
    high: float
    n: int
    lost: int | None
    won: int | None
    needed: int | None
    verdict: Verdict | None
    said: str


class Judged(NamedTuple):
    """What the gate found of one artifact."""

    name: str
    kind: str
    path: str
    sha256: dict[str, str]
    verdict: Verdict
    why: list[str]
    exact: list[Exact]
    scores: list[Score]
    drift: dict[str, Any] | None
    seconds: float


class Reference(NamedTuple):
    """The adapter's answers and what is kept of it. Rows are those of both sides, one after the other."""

    student: Student
    told: list[drift.Told]
    texts: list[str]
    kept: drift.Kept
    stops: list[int]


def gate_run(run_dir: Path, config: TrainConfig, manifest: Manifest, *, progress: Progress | None = None) -> dict[str, Any]:
    """Judge every artifact of a run and write gate.json; return what is in it.

    What a person accepted stays accepted while the artifact's files are the same. Raises DataError when the run has nothing to judge, or
    the data no held-out row to judge it on.
    """
    progress = progress or Silent()
    artifacts = found(run_dir)
    made = [artifact for artifact in artifacts if artifact.name != REFERENCE]
    if REFERENCE not in {artifact.name for artifact in artifacts}:
        raise DataError(f"{run_dir}: has no trained adapter to hold artifacts against. Train first: `python -m train run`.")
    if "merged" not in {artifact.name for artifact in made}:
        raise DataError(f"{run_dir}: has no merged model to judge. Make it: `python -m train merge --model {run_dir}`.")
    sides = held_out(config, manifest)
    if not any(side.rows for side in sides):
        raise DataError(f"{manifest.directory}: has no held-out row with a label or a completion. Export again with a test split.")
    adapter = next(artifact for artifact in artifacts if artifact.name == REFERENCE)
    progress.start("gate adapter", sum(len(side.rows) for side in sides))
    reference = refer(load(adapter, config), sides, config, progress)
    judged = [judge(artifact, reference, sides, config, run_dir, progress) for artifact in made]
    kept = [entry for entry in _before(run_dir) if any(entry["sha256"] == j.sha256 for j in judged if j.name == entry["artifact"])]
    record = {
        "format": FORMAT,
        "delta": config.gate.delta,
        "reference": {"name": adapter.name, "path": str(adapter.path), "sha256": hashes(adapter.path)},
        "rows": {side.name: side.sets for side in sides},
        "artifacts": [_as_json(j) for j in judged],
        "accepted": kept,
        "sentences": located(judged),
    }
    write_json(run_dir / GATE, record)
    return record


def held_out(config: TrainConfig, manifest: Manifest) -> list[Side]:
    """All rows of the domain that nothing was learned from and whose answer is known, and general ones.

    The test split alone is often too small to see a percentage point; validation rows chose a checkpoint, but the artifact and its adapter
    are the same checkpoint, so they are as good here. External sets are in too.
    """
    rows: list[tuple[str, Row]] = []
    for split in ("test", "validation"):
        if manifest.count(f"sft/{split}.parquet"):
            rows += [(split, row) for row in read_rows(manifest.path(f"sft/{split}.parquet"))]
    for name, path in manifest.evaluation_sets().items():
        rows += [(name, row._replace(id=f"{name}/{row.id}")) for row in read_rows(path)]
    known = [(name, row) for name, row in rows if row.completion or row.label]
    general = [(name, row) for name in ("probe", "gate") for row in read_general(GENERAL / f"{name}.jsonl")]
    general = [(name, row._replace(id=f"{name}/{row.id}")) for name, row in general]
    return [_side("domain", known, manifest.task, config), _side("general", general, TEXT, config)]


def _side(name: str, rows: Sequence[tuple[str, Row]], task: TaskSpec, config: TrainConfig) -> Side:
    chosen = [row for _, row in rows] if config.gate.rows is None else sample([row for _, row in rows], config.gate.rows, config.seed)
    ids = {row.id for row in chosen}
    sets: dict[str, int] = {}
    for source, row in rows:
        if row.id in ids:
            sets[source] = sets.get(source, 0) + 1
    return Side(name, chosen, task, sets)


def refer(student: Student, sides: Sequence[Side], config: TrainConfig, progress: Progress) -> Reference:
    """The adapter's answers on all rows, and what is kept of it to compare artifacts with."""
    prompts = [row.prompt for side in sides for row in side.rows]
    told = drift.tell(
        student, prompts, max_new_tokens=config.evaluation.max_new_tokens, batch_size=config.evaluation.batch_size, report=progress.advance
    )
    kept = drift.keep(student, told[: len(sides[0].rows)] or told, batch_size=config.evaluation.batch_size)
    texts = [render(student.tokenizer, prompt, generation_prompt=True) for prompt in prompts]
    return Reference(student, told, texts, kept, stop_ids(student.model))


def judge(
    artifact: Artifact, reference: Reference, sides: Sequence[Side], config: TrainConfig, run_dir: Path, progress: Progress
) -> Judged:
    """Hold one artifact against the adapter. One that cannot be loaded has failed, and the reason is said."""
    begin = time.monotonic()
    place = str(artifact.path.relative_to(run_dir)) if artifact.path.is_relative_to(run_dir) else str(artifact.path)

    def judged(verdict: Verdict, why: list[str], exact: list[Exact], scores: list[Score], drifted: dict[str, Any] | None) -> Judged:
        seconds = round(time.monotonic() - begin, 1)
        return Judged(artifact.name, artifact.kind, place, hashes(artifact.path), verdict, why, exact, scores, drifted, seconds)

    progress.start(f"gate {artifact.name}", len(reference.told))
    try:
        student = load(artifact, config)
    except TrainError as error:
        progress.advance(len(reference.told))
        return judged("failed", [f"it cannot be loaded: {error}"], [], [], None)
    exact = [*declared(artifact, reference), *equal(student, reference)]
    broken = [f"{e.name}: {e.differs}" for e in exact if e.differs]
    try:
        texts, share = answer(student, reference, config, progress)
    except TrainError as error:
        return judged("failed", broken or [str(error)], exact, [], None)
    scores = []
    start = 0
    for side in sides:
        part = slice(start, start + len(side.rows))
        ours = read_answers(side.rows, [row.written.text for row in reference.told[part]], side.task)
        theirs = read_answers(side.rows, texts[part], side.task)
        scores += weigh(side, ours, theirs, delta=config.gate.delta / 100, seed=config.seed)
        start = part.stop
    found_drift = drift.compare(student, reference.kept, batch_size=config.evaluation.batch_size)
    drifted = {
        "kl": found_drift.kl,
        "kl_max": found_drift.kl_max,
        "tokens": found_drift.tokens,
        "top1": share,
        "places": [p._asdict() for p in found_drift.places],
        "worst": found_drift.worst._asdict() if found_drift.worst else None,
    }
    verdicts = [s.verdict for s in scores if s.verdict]
    verdict: Verdict = "passed"
    if broken or "failed" in verdicts:
        verdict = "failed"
    elif "undecided" in verdicts or not verdicts:
        verdict = "undecided"
    why = [*broken, *(s.said for s in scores if s.verdict not in (None, "passed"))]
    return judged(verdict, why, exact, scores, drifted)


def declared(artifact: Artifact, reference: Reference) -> list[Exact]:
    """What a folder's own files say: another server reads these, and our loader would mend some of them silently."""
    if not artifact.path.is_dir():
        return []
    checks = []
    path = artifact.path / "generation_config.json"
    if (artifact.path / "config.json").is_file():
        try:
            stops = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            listed = set(stops if isinstance(stops, list) else [stops]) - {None}
            wrong = None
            if listed != set(reference.stops):
                wrong = f"{path.name} stops at {sorted(listed)}, the adapter was trained and scored with {sorted(reference.stops)}"
        except (OSError, ValueError, AttributeError) as error:
            wrong = f"{path.name} cannot be read ({error}): a server would not know when to stop"
        checks.append(Exact("stop tokens", wrong))
    return checks


def equal(student: Student, reference: Reference) -> list[Exact]:
    """What must be equal between an artifact and its adapter: rendered prompts, token ids, special tokens, stop tokens."""
    ours, theirs = reference.student.tokenizer, student.tokenizer
    prompts = [row.prompt for row in reference.told]
    checks = []
    try:
        texts = [render(theirs, prompt, generation_prompt=True) for prompt in prompts]
        said = _rendered_otherwise(ours, theirs, reference, texts)
    except TrainError as error:
        texts, said = [], str(error)
    checks.append(Exact("template", said))
    names = ("bos_token_id", "eos_token_id", "unk_token_id")
    odd = [
        f"{name} is {getattr(theirs, name)}, was {getattr(ours, name)}" for name in names if getattr(ours, name) != getattr(theirs, name)
    ]
    checks.append(Exact("special tokens", "; ".join(odd) or None))
    checks.append(Exact("token ids", _tokens_differ(ours, theirs, reference, texts) if texts else "no prompt can be rendered"))
    missing = sorted(set(reference.stops) - set(stop_ids(student.model)))
    checks.append(Exact("end of an answer", f"it does not stop at {missing}" if missing else None))
    return checks


def _rendered_otherwise(ours: Any, theirs: Any, reference: Reference, texts: Sequence[str]) -> str | None:
    """How the artifact's template writes held-out prompts, or an earlier turn, otherwise."""
    off = [i for i, (a, b) in enumerate(zip(reference.texts, texts, strict=True)) if a != b]
    if off:
        shown = difference(reference.texts[off[0]], texts[off[0]], ("adapter", "now"))
        return f"{len(off)} of {len(texts)} prompts are rendered otherwise\n{shown}"
    if ours.chat_template != theirs.chat_template:
        turns = [*reference.told[0].prompt, {"role": "assistant", "content": "A"}, {"role": "user", "content": "B"}]
        before, now = (render(tokenizer, turns, generation_prompt=True) for tokenizer in (ours, theirs))
        if before != now:
            return "earlier turns are rendered otherwise\n" + difference(before, now, ("adapter", "now"))
    return None


def _tokens_differ(ours: Any, theirs: Any, reference: Reference, texts: Sequence[str]) -> str | None:
    """How the artifact's tokenizer cuts prompts or answers otherwise, or begins them with a token of its own."""
    answers = [row.written.text for row in reference.told]
    for what, listed in (("prompts", list(texts)), ("answers", answers)):
        pairs = [t(listed, add_special_tokens=False, return_attention_mask=False)["input_ids"] for t in (ours, theirs)]
        off = [i for i, (a, b) in enumerate(zip(*pairs, strict=True)) if a != b]
        if off:
            a, b = pairs[0][off[0]], pairs[1][off[0]]
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            row = f"{listed[off[0]][:40]!r}: token {at} is {b[at : at + SHOWN]}, was {a[at : at + SHOWN]}"
            return f"{len(off)} of {len(listed)} {what} have other ids, such as {row}"
    begun = [t(texts[0], return_attention_mask=False)["input_ids"][:SHOWN] for t in (ours, theirs)]
    return None if begun[0] == begun[1] else f"a text begins with the ids {begun[1]} when special tokens are added, was {begun[0]}"


def answer(student: Student, reference: Reference, config: TrainConfig, progress: Progress) -> tuple[list[str], float]:
    """The artifact's greedy answers to all rows, and the share of the adapter's tokens that it would have chosen.

    Rows whose answer it would have written alike are known from one pass; the others are generated.
    """
    followed = drift.follow(student, reference.told, batch_size=config.evaluation.batch_size)
    texts = [row.written.text for row in reference.told]
    other = [i for i, f in enumerate(followed) if not f.whole]
    done = len(followed) - len(other)
    progress.advance(done)
    written = write(
        student.model,
        student.tokenizer,
        [reference.told[i].prompt for i in other],
        max_new_tokens=config.evaluation.max_new_tokens,
        batch_size=config.evaluation.batch_size,
        report=lambda count: progress.advance(done + count),
    )
    for i, new in zip(other, written, strict=True):
        texts[i] = new.text
    return texts, sum(f.same for f in followed) / max(1, sum(f.tokens for f in followed))


def deciding(task: TaskSpec, answers: Sequence[Answer]) -> list[str]:
    """The metrics that decide: whether the label is right and whether the whole answer is, as far as rows say so; of free text, the overlap
    that the task is scored by."""
    if task.output == "text" and not task.labels and task.type != "general":
        return [primary_metric(task)]
    return [name for name in ("label_accuracy", "exact_match") if METRICS[name].tally(answers).any()]


def weigh(side: Side, ours: Sequence[Answer], theirs: Sequence[Answer], *, delta: float, seed: int = 0) -> list[Score]:
    """The scores of one side: those that decide, and the summary, which can only refuse (its whole interval below -delta)."""
    if not side.rows:
        return []
    names = deciding(side.task, ours)
    scores = [_compare(side.name, name, ours, theirs, delta, seed) for name in names]
    if side.task.type != "general" and all(s.adapter <= delta for s in scores):
        scores = [
            s._replace(
                verdict="undecided", needed=None, said=f"{s.said}: the adapter has {100 * s.adapter:.1f} %, which nothing could lose"
            )
            for s in scores
        ]
    summary = primary_metric(side.task)
    if summary not in names and side.task.type != "general" and METRICS[summary].tally(ours).any():
        shown = _compare(side.name, summary, ours, theirs, delta, seed)
        worse = shown.high < -delta
        said = shown.said if worse else shown.said.split(":")[0]
        scores.append(shown._replace(verdict="failed" if worse else None, needed=None, said=said))
    return scores


def _compare(side: str, name: str, ours: Sequence[Answer], theirs: Sequence[Answer], delta: float, seed: int) -> Score:
    metric = METRICS[name]
    a, b = metric.tally(ours), metric.tally(theirs)
    rows = a.any(axis=1)
    n = int(rows.sum())
    adapter, artifact = (float(metric.statistic(counts.sum(0))) for counts in (a, b))
    lost = won = needed = None
    if metric.kind == "proportion":
        right_a, right_b = a[rows, 0] > 0, b[rows, 0] > 0
        lost, won = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        low, high = metrics.tango(lost, won, n)
        needed = metrics.rows_to_show(lost, won, n, delta)
    else:
        (found_c,) = score({"adapter": ours, "artifact": theirs}, [name], [("adapter", "artifact")], seed=seed).comparisons
        low, high = found_c.low, found_c.high
        if int((a != b).any(axis=1).sum()) < FEW:  # too few rows differ for resampling to know their spread
            wide = metrics.tango(0, 0, n)
            low, high = min(low, found_c.difference + wide[0]), max(high, found_c.difference + wide[1])
        needed = round(n * ((found_c.difference - low) / (found_c.difference + delta)) ** 2) + 1 if found_c.difference > -delta else None
    found_difference = artifact - adapter
    verdict: Verdict = "passed" if low > -delta else "undecided" if found_difference > -delta else "failed"
    points = f"{100 * found_difference:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f}) on {n:,} {side} rows"
    said = f"{name.replace('_', ' ')} {points}"
    if verdict == "undecided":
        said += f": too few to see {100 * delta:g}; about {needed:,} such rows would do" if needed else f": too few to see {100 * delta:g}"
    elif verdict == "failed":
        said += f": worse by {100 * delta:g} or more"
    return Score(side, name, adapter, artifact, found_difference, low, high, n, lost, won, needed, verdict, said)


def made_from(name: str, names: Sequence[str]) -> str:
    """Which artifact another was made from, among those that there are."""
    if name == "merged":
        return REFERENCE
    return "gguf-f16" if name.startswith("gguf-") and name != "gguf-f16" and "gguf-f16" in names else "merged"


def located(judged: Sequence[Judged]) -> list[str]:
    """Where drift came in: the step, and the part of the model, of each artifact whose answers are not the adapter's any more."""
    kl = {REFERENCE: 0.0, **{j.name: j.drift["kl"] for j in judged if j.drift}}
    sentences = []
    for j in judged:
        if not j.drift or j.drift["top1"] == 1:
            continue
        source = made_from(j.name, [other.name for other in judged])
        before = kl.get(source, 0.0)
        step = "by the step that made it" if before < j.drift["kl"] / 2 else f"already in {source} (KL {before:.2g})"
        text = (
            f"{j.name}: of the adapter's tokens it would choose {100 * j.drift['top1']:.2f} % (KL {j.drift['kl']:.2g} nats a token), {step}"
        )
        if worst := j.drift["worst"]:
            text += f"; most in {worst['name']}, whose output is off by {100 * worst['error']:.1f} %"
        sentences.append(text + ".")
    return sentences


def accept(run_dir: Path, name: str, *, by: str, because: str, at: str) -> dict[str, Any]:
    """Put on record that a person ships an artifact though the gate did not pass it: who, why, when, and the numbers.

    Raises ConfigError for an artifact that passed or is not there, or without a name and a reason; DataError for files that the gate
    has not seen.
    """
    record = read_gate(run_dir)
    judged = {entry["name"]: entry for entry in record["artifacts"]}
    if name not in judged:
        raise ConfigError(f"--accept {name}: the gate judged {', '.join(judged) or 'nothing'}. Name one of those.")
    entry = judged[name]
    if entry["verdict"] == "passed":
        raise ConfigError(f"--accept {name}: it passed; there is nothing to accept.")
    if not because.strip() or not by.strip():
        raise ConfigError(f'--accept {name}: say who decides and why: --by ana --because "...".')
    unchanged(run_dir, entry)
    said = {
        "artifact": name,
        "by": by.strip(),
        "because": because.strip(),
        "at": at,
        "verdict": entry["verdict"],
        "why": entry["why"],
        "delta": record["delta"],
        "scores": entry["scores"],
        "sha256": entry["sha256"],
    }
    record["accepted"].append(said)
    write_json(run_dir / GATE, record)
    return said


def _before(run_dir: Path) -> list[dict[str, Any]]:
    try:
        return list(read_gate(run_dir)["accepted"])
    except DataError:
        return []


def _as_json(judged: Judged) -> dict[str, Any]:
    return {**judged._asdict(), "exact": [e._asdict() for e in judged.exact], "scores": [s._asdict() for s in judged.scores]}
