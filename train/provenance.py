"""Where a run's weights came from, row by row: artifact -> run -> manifest -> training row -> teacher call, and the way back.

    trace_run(run_dir, config, manifest)               writes provenance.json and provenance.parquet
    for line in tell(trace("3f2a91c4", Path("runs"))): one training row, in every run that read it
    verify(run_dir)                                    whether weights and record are still those that were written

provenance.json names files by their sha256 and holds that of provenance.parquet, which has one line for each row that a stage read: from
which file, in which split, how often it was seen or why not, and what the export knows of its making. run.json holds the sha256 of
provenance.json. So a byte that is changed anywhere on the way is told.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from train.artifacts import found as artifacts_of
from train.config import TrainConfig
from train.dataset import Manifest, mix, read_general, read_rows, take
from train.errors import DataError
from train.sums import hashes
from train.watch import read_history, write_json

RECORD = "provenance.json"
ROWS = "provenance.parquet"
FORMAT = 1
ORIGINS = "provenance.parquet"  # of the export
MOST = 5
READ_BY = {"sft": "sft", "preference": "dpo", "unpaired": "kto"}  # which stage learns from which folder of the export
GENERAL_FILE = "general"
_ASKED = pa.list_(
    pa.struct(
        [("role", pa.string()), ("model", pa.string()), ("prompt", pa.string()), ("call_id", pa.string()), ("cost_usd", pa.float64())]
    )
)
_VERDICTS = pa.list_(pa.struct([("by", pa.string()), ("keep", pa.bool_()), ("reason", pa.string())]))
# What the export knows of a row's making.
ORIGIN_COLUMNS = {
    **dict.fromkeys(("topic", "generator", "item_id", "parent", "teacher", "prompt_hash"), pa.string()),
    "cost_usd": pa.float64(),
    "asked": _ASKED,
    "verdicts": _VERDICTS,
    "reviewer": pa.string(),
}
COLUMNS = {
    **dict.fromkeys(("id", "file", "split", "stage", "use"), pa.string()),
    "epochs": pa.float64(),
    "dropped": pa.string(),
    **ORIGIN_COLUMNS,
}


class Traced(NamedTuple):
    """One row in one run: its lines of provenance.parquet, and the texts that were supervised, where the data is still there."""

    run: Path
    manifest: Mapping[str, Any]
    lines: list[dict[str, Any]]
    texts: dict[str, str]


def trace_run(run_dir: Path, config: TrainConfig, manifest: Manifest) -> str:
    """Write a run's provenance and return the sha256 of provenance.json."""
    record = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    rows = _rows(run_dir, record, config, manifest)
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(list(COLUMNS.items()))), run_dir / ROWS)
    uses: dict[str, int] = {}
    for row in rows:
        uses[row["use"]] = uses.get(row["use"], 0) + 1
    whole = {
        "format": FORMAT,
        "run": {name: record[name] for name in ("id", "name", "created", "student", "method", "seed", "config_sha256", "versions")},
        "without": manifest.raw.get("without"),
        "artifacts": [
            {"name": a.name, "kind": a.kind, "path": a.path.relative_to(run_dir).as_posix(), "sha256": hashes(a.path)}
            for a in artifacts_of(run_dir)
        ],
        "manifest": {
            "path": str(config.data / "manifest.json"),
            "sha256": manifest.sha256,
            "name": manifest.name,
            **{name: manifest.raw.get(name) for name in ("created", "recipe_sha256", "teachers")},
            "files": {name: dict(entry) for name, entry in manifest.files.items() if not name.endswith(".jsonl")},
        },
        "rows": {
            "file": ROWS,
            "sha256": hashes(run_dir / ROWS)[ROWS],
            "rows": len(rows),
            "uses": uses,
            "origins": ORIGINS in manifest.files,
        },
    }
    if config.general is not None and config.general.share > 0:
        source = config.general.path()
        whole["general"] = {"source": str(source), "sha256": hashes(source).get(source.name), "loss": config.general.loss}
    write_json(run_dir / RECORD, whole)
    return hashes(run_dir / RECORD)[RECORD]


def _rows(run_dir: Path, record: Mapping[str, Any], config: TrainConfig, manifest: Manifest) -> list[dict[str, Any]]:
    """A line for every row that a stage read; `use` is trained, left out, held (to the base), or validation (it chose the checkpoint)."""
    origins = origins_of(manifest)
    history = read_history(run_dir / "metrics.jsonl")
    unknown = dict.fromkeys(ORIGIN_COLUMNS)
    lines: list[dict[str, Any]] = []
    for file in sorted(manifest.files):
        folder, _, name = file.rpartition("/")
        if name != "train.parquet" or folder not in READ_BY:
            continue
        stage = READ_BY[folder]
        done = record["stages"].get(stage, {})
        why = {row: reason for reason, ids in (done.get("dropped") or {}).items() for row in ids}
        epochs = seen_epochs(history, stage, done)
        for row in pq.read_table(manifest.path(file), columns=["id"]).column("id").to_pylist():
            dropped = done.get("skipped") or why.get(row) or (None if done else f"{stage} was not run")
            lines.append(
                {**unknown, **origins.get(row, {}), "id": row, "file": file, "split": "train", "stage": stage}
                | {"use": "left out" if dropped else "trained", "epochs": 0.0 if dropped else epochs, "dropped": dropped}
            )
    if manifest.count("sft/validation.parquet"):
        for chosen in take(read_rows(manifest.path("sft/validation.parquet")), config.evaluation.validation_rows, config.seed):
            about = {"file": "sft/validation.parquet", "split": "validation", "stage": "sft", "use": "validation", "epochs": 0.0}
            lines.append({**unknown, **origins.get(chosen.id, {}), "id": chosen.id, "dropped": None, **about})
    lines += [{**unknown, **line} for line in _general(config, manifest)]
    return sorted(lines, key=lambda line: (line["stage"], line["file"], line["id"]))


def _general(config: TrainConfig, manifest: Manifest) -> list[dict[str, Any]]:
    """The general rows that SFT learned from or was held to the base on; drawn as the stage draws them."""
    if config.general is None or config.general.share == 0:
        return []
    held = read_general(config.general.path())
    if config.general.budget is not None:
        aside = {row.id for row in take(held, min(config.evaluation.validation_rows, len(held) // 2), config.seed)}
        held = [row for row in held if row.id not in aside]
    about = {"file": GENERAL_FILE, "split": "train", "stage": "sft", "epochs": None, "dropped": None}
    if config.general.loss == "features":
        return [{"id": row.id, "use": "held", **about} for row in held]
    domain = [row for row in read_rows(manifest.path("sft/train.parquet")) if row.completion is not None]
    names = {row.id for row in domain}
    mixed = mix(domain, held, config.general.share, config.seed)
    return [{"id": row.id, "use": "trained", **about} for row in mixed.rows if row.id not in names]


def seen_epochs(history: Sequence[Mapping[str, Any]], stage: str, done: Mapping[str, Any]) -> float | None:
    """How often the kept weights have seen a row of a stage: the epochs at the step that was kept; None where that is not known."""
    kept = (done.get("best") or {}).get("step") or done.get("steps")
    known = [(line["step"], line["epoch"]) for line in history if line.get("stage") == stage and line.get("epoch") is not None]
    known = [(step, epoch) for step, epoch in known if step and (kept is None or step <= kept)]
    if not known:
        return None
    step, epoch = max(known)
    return round(float(epoch) * (kept / step if kept else 1.0), 3)


def origins_of(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """What the export knows of each row's making, by row id; empty for an export of an older version."""
    if ORIGINS not in manifest.files:
        return {}
    table = pq.read_table(manifest.path(ORIGINS))
    names = [name for name in ORIGIN_COLUMNS if name in table.column_names]
    return {row["id"]: {name: row[name] for name in names} for row in table.select(["id", *names]).to_pylist()}


def read_provenance(run_dir: Path) -> dict[str, Any]:
    """Read provenance.json, checked against run.json and against the rows beside it. Raises DataError for one that is missing or edited."""
    path = run_dir / RECORD
    again = f"Write it again: `python -m train card --model {run_dir}`."
    try:
        whole = dict(json.loads(path.read_text(encoding="utf-8")))
        kept = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))["stages"].get("card", {}).get("provenance_sha256")
        rows, says = whole["rows"]["file"], whole["rows"]["sha256"]
        if whole["format"] != FORMAT:
            raise ValueError(f"format is {whole['format']!r}")
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: not there. {again}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a run's provenance ({error!r}). {again}") from error
    now = hashes(path)[path.name]
    if kept is not None and now != kept:
        raise DataError(f"{path}: was edited: its sha256 is {now[:12]}, run.json says {kept[:12]}. {again}")
    beside = hashes(run_dir / rows).get(rows, "nothing")
    if beside != says:
        raise DataError(f"{run_dir / rows}: was edited: its sha256 is {beside[:12]}, {RECORD} says {says[:12]}. {again}")
    return whole


def verify(run_dir: Path) -> int:
    """Check every file of every artifact against provenance.json; return how many. Raises DataError naming the first that differs."""
    whole = read_provenance(run_dir)
    count = 0
    for artifact in whole["artifacts"]:
        place = run_dir / artifact["path"]
        now = hashes(place)
        for name in sorted(now.keys() | artifact["sha256"].keys()):
            ours, theirs = artifact["sha256"].get(name), now.get(name)
            if ours != theirs:
                where = place if place.name == name else place / name
                how = (
                    "is not there" if theirs is None else "was not there" if ours is None else f"has sha256 {theirs[:12]}, not {ours[:12]}"
                )
                raise DataError(f"{where}: {how}: it is not what the run made. Make {artifact['name']} again.")
            count += 1
    return count


def trace(wanted: str, runs: Path) -> list[Traced]:
    """One training row in every run under a folder: given by its id, the beginning of one, or words that stand in it.

    Raises DataError when no run read such a row, or the words mean several.
    """
    homes = (
        [runs] if (runs / RECORD).is_file() else sorted(path.parent for path in runs.glob(f"*/{RECORD}") if not path.parent.is_symlink())
    )
    if not homes:
        raise DataError(f"{runs}: no run with a {RECORD} is here. Train with `make train`, or write it: `python -m train card`.")
    matches: dict[str, str] = {}
    found: list[Traced] = []
    for home in homes:
        whole = read_provenance(home)
        table = pq.read_table(home / ROWS)
        ids = set(table.column("id").to_pylist())
        named = {wanted} & ids or {row for row in ids if row.startswith(wanted)}
        texts = _texts(whole, home, named or None)
        for row in named or {row for row, parts in texts.items() if any(wanted in part for part in parts.values()) and row in ids}:
            matches[row] = texts.get(row, {}).get("prompt", "")
            lines = table.filter(pc.equal(table.column("id"), row)).to_pylist()
            found.append(Traced(home, whole["manifest"], lines, texts.get(row, {})))
    if not matches:
        raise DataError(f"{runs}: no run has read a row with the id {wanted!r} or this text in it. `datagen trace` looks in the store.")
    if len(matches) > 1:
        listed = "; ".join(f"{row} ({text[-40:]!r})" for row, text in sorted(matches.items())[:MOST])
        raise DataError(f"{wanted!r} is in {len(matches)} rows: {listed}{' and more' if len(matches) > MOST else ''}. Name one by its id.")
    return found


def _texts(whole: Mapping[str, Any], run_dir: Path, ids: set[str] | None) -> dict[str, dict[str, str]]:
    """Prompt and supervised texts by row id, from the data that the run read, where its files are still what they were."""
    folder = Path(whole["manifest"]["path"]).parent
    found: dict[str, dict[str, str]] = {}
    for file, entry in whole["manifest"]["files"].items():
        path = next(
            (home / file for home in (run_dir / "data", folder) if hashes(home / file).get(Path(file).name) == entry["sha256"]), None
        )
        if path is None or not file.endswith(("train.parquet", "validation.parquet")):
            continue
        for row in pq.read_table(path).to_pylist():
            if ids is None or row["id"] in ids:
                texts = found.setdefault(row["id"], {})
                for name in ("prompt", "completion", "chosen", "rejected"):
                    if row.get(name):
                        texts.setdefault(name, "\n".join(m["content"] for m in row[name] if m["role"] != "system"))
    return found


def tell(found: Sequence[Traced]) -> list[str]:
    """What `trace` found, to read: the runs, the texts, then where the row came from."""
    lines = [f"row       {found[0].lines[0]['id']}"]
    for traced in found:
        for line in traced.lines:
            seen = line["dropped"] if line["dropped"] else "epochs not known" if line["epochs"] is None else f"{line['epochs']:g} epochs"
            if line["use"] == "validation":
                seen = "chose the checkpoint"
            lines.append(f"run       {traced.run}: {line['stage']}, {line['file']}, split {line['split']}, {line['use']}, {seen}")
    texts = next((traced.texts for traced in found if traced.texts), {})
    lines += [f"{name:<9} {' / '.join(text.splitlines())}" for name, text in texts.items()]
    if not texts:
        lines.append("text      the data that was trained on is not there any more, or was changed")
    line = found[0].lines[0]
    if line["file"] == GENERAL_FILE:
        return [*lines, "origin    a general row: no teacher was asked for it"]
    if line["teacher"] is None:
        return [*lines, "origin    the export does not say. If it has no provenance.parquet, export again and train on that."]
    lines.append(f"example   {line['id']}  {line['topic']}, {line['generator']}, item {line['item_id']}")
    if line["parent"]:
        lines.append(f"edited    from {line['parent']}")
    for call in line["asked"] or []:
        cost = "cost not known" if call["cost_usd"] is None else f"${call['cost_usd']:.6f}"
        lines.append(f"call      {call['call_id']}  {call['role']} {call['model']}, prompt {call['prompt']}, {cost}")
    if line["cost_usd"] is not None:
        lines.append(f"cost      ${line['cost_usd']:.6f}, its share of those calls")
    lines += said_of(line["verdicts"] or [])
    lines.append(f"reviewer  {line['reviewer'] or 'nobody looked at it'}")
    return [*lines, f"manifest  {found[0].manifest['path']} {found[0].manifest['sha256'][:12]}"]


def said_of(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Verdicts to read: people's and drops one by one, filters that kept a row together."""
    kept = [v["by"].removeprefix("filter:") for v in verdicts if v["keep"] and v["by"].startswith("filter:")]
    lines = [f"verdict   kept by the filters {', '.join(kept)}"] if kept else []
    for v in verdicts:
        if not v["keep"] or not v["by"].startswith("filter:"):
            lines.append(f"verdict   {v['by']}: {'keep' if v['keep'] else 'drop'}{', ' + v['reason'] if v['reason'] else ''}")
    return lines
