"""The exported data as rows: Parquet files and their manifest in, checked records out.

    manifest = Manifest.read(Path("data/banking"))
    train = read_rows(manifest.path("sft/train.parquet"))

Nothing is trained on that is not what the manifest describes: every file's hash is checked, and data is refused that
did not pass decontamination or whose teachers' terms were not settled.
"""

import hashlib
import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from train.errors import DataError
from train.metrics import TaskSpec

FORMAT = 1
GENERAL_ID = "general/"  # what ids of general rows begin with
JUDGED = "unpaired/train.parquet"
# Rejected answers that KTO needs at least: fewer are single cases, which their weight would blow up.
LEAST_JUDGED = 20
AGAIN = "Export again with `make datagen` (or `python -m datagen export`)."

Message = dict[str, str]


class Row(NamedTuple):
    """A prompt with the completion that is wanted, or with only its label where no completion is known.

    `dimensions` are the values that were drawn for it, as (name, value).
    """

    id: str
    prompt: list[Message]
    completion: str | None
    label: str | None
    kind: str | None
    topic: str | None
    group_id: str | None
    generator: str | None = None
    dimensions: tuple[tuple[str, str], ...] = ()


class Pair(NamedTuple):
    """A prompt with a better and a worse completion."""

    id: str
    prompt: list[Message]
    chosen: str
    rejected: str
    kind: str | None
    topic: str | None
    group_id: str | None


class Judged(NamedTuple):
    """A prompt with a completion that was accepted, or found wrong for a reason."""

    id: str
    prompt: list[Message]
    completion: str
    accepted: bool
    reason: str | None
    kind: str | None
    topic: str | None
    group_id: str | None


class Mixture(NamedTuple):
    """Domain and general rows, sorted by id; `general` counts the latter."""

    rows: list[Row]
    general: int


class Manifest(NamedTuple):
    """What an export says of itself, verified against the files beside it."""

    directory: Path
    name: str
    seed: int
    task: TaskSpec
    files: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Any]
    teachers: list[dict[str, Any]]
    sha256: str
    raw: dict[str, Any]

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Read and verify an export.

        Raises DataError when a file is missing or changed since, the format is another, the data was not shown to be
        free of the evaluation sets, or the terms of a teacher were not settled.
        """
        path = directory / "manifest.json"
        try:
            text = path.read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{path}: not there. Make the data first with `make datagen`, or set --data DIR.") from error
        try:
            raw = json.loads(text)
            if raw["format"] != FORMAT:
                raise DataError(f"{path}: format is {raw['format']!r}, this version reads {FORMAT}. {AGAIN}")
            task = TaskSpec.model_validate(raw["task"])
            files = {str(name): dict(entry) for name, entry in raw["files"].items()}
            clean = raw["decontamination"]["passed"]
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            raise DataError(f"{path}: not a manifest: {type(error).__name__} {' '.join(str(error).split())}. {AGAIN}") from error
        if clean is not True:
            raise DataError(
                f"{path}: decontamination.passed is {clean!r}: rows of an evaluation set may be in the training data. "
                "Run `python -m datagen curate` and export again."
            )
        _check_exams(files, raw["decontamination"].get("sets"), path)
        _check_terms(raw.get("teachers"), path)
        for name, entry in sorted(files.items()):
            _verify(directory / name, entry, path)
        return cls(
            directory=directory,
            name=str(raw.get("name", directory.name)),
            seed=int(raw.get("seed", 0)),
            task=task,
            files=files,
            data=raw.get("data") or {},
            teachers=list(raw.get("teachers") or []),
            sha256=hashlib.sha256(text).hexdigest(),
            raw=raw,
        )

    def path(self, name: str) -> Path:
        """Return the path of a file that the manifest lists, such as "sft/train.parquet"; DataError if it does not."""
        if name not in self.files:
            raise DataError(f"{self.directory / 'manifest.json'}: does not list {name}. {AGAIN}")
        return self.directory / name

    def count(self, name: str) -> int:
        """Return the number of rows in a listed file; 0 where the export has no such file."""
        return int(self.files[name]["rows"]) if name in self.files else 0

    def evaluation_sets(self) -> dict[str, Path]:
        """Return the external evaluation sets by name."""
        names = sorted(name for name in self.files if name.startswith("evaluation/"))
        return {Path(name).stem: self.directory / name for name in names}


def read_rows(path: Path) -> list[Row]:
    """Read an SFT or evaluation file, sorted by id. DataError names the column or row that is wrong."""
    rows = []
    for record in _records(path, ("id", "prompt")):
        completion = record.get("completion")
        rows.append(
            Row(
                id=str(record["id"]),
                prompt=_messages(record["prompt"], path, record["id"]),
                completion=_answer(completion, path, record["id"]) if completion else None,
                label=record.get("label"),
                kind=record.get("kind"),
                topic=record.get("topic"),
                group_id=record.get("group_id"),
                generator=record.get("generator"),
                dimensions=_dimensions(record.get("dimensions"), path, record["id"]),
            )
        )
    return sorted(rows, key=_by_id)


def _dimensions(value: Any, path: Path, row: Any) -> tuple[tuple[str, str], ...]:
    """The dimension values of a row: a JSON object as text; an older export has none."""
    try:
        found = json.loads(value) if value else {}
        return tuple(sorted((str(name), str(drawn)) for name, drawn in found.items()))
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: row {row}: dimensions is {value!r}, not a JSON object. {AGAIN}") from error


def read_training(manifest: Manifest) -> list[Row]:
    """Read the SFT rows to train on: those with a completion.

    Raises DataError where there is none, or where all have one label though the task has several: a student that has seen one
    label answers with it always.
    """
    path = manifest.path("sft/train.parquet")
    rows = [row for row in read_rows(path) if row.completion is not None]
    if not rows:
        raise DataError(f"{path}: no row has a completion; nothing to train on. {AGAIN}")
    labels = {row.label for row in rows}
    if len(manifest.task.labels) > 1 and len(labels) == 1 and None not in labels:
        raise DataError(
            f"{path}: all {len(rows)} rows have the label {rows[0].label!r}, the task has {len(manifest.task.labels)}. Generate rows "
            "of the other labels, and export again."
        )
    return rows


def read_pairs(path: Path) -> list[Pair]:
    """Read a preference file, sorted by id. DataError names the column or row that is wrong."""
    pairs = [
        Pair(
            id=str(record["id"]),
            prompt=_messages(record["prompt"], path, record["id"]),
            chosen=_answer(record["chosen"], path, record["id"]),
            rejected=_answer(record["rejected"], path, record["id"]),
            kind=record.get("kind"),
            topic=record.get("topic"),
            group_id=record.get("group_id"),
        )
        for record in _records(path, ("id", "prompt", "chosen", "rejected"))
    ]
    return sorted(pairs, key=_by_id)


def read_judged(path: Path) -> list[Judged]:
    """Read a file of accepted and rejected answers, sorted by id. DataError names the column or row that is wrong."""
    judged = []
    for record in _records(path, ("id", "prompt", "completion", "label")):
        if not isinstance(record["label"], bool):
            raise DataError(f"{path}: row {record['id']}: label is {record['label']!r}; it must be true or false. {AGAIN}")
        judged.append(
            Judged(
                id=str(record["id"]),
                prompt=_messages(record["prompt"], path, record["id"]),
                completion=_answer(record["completion"], path, record["id"]),
                accepted=record["label"],
                reason=record.get("reason"),
                kind=record.get("kind"),
                topic=record.get("topic"),
                group_id=record.get("group_id"),
            )
        )
    return sorted(judged, key=_by_id)


def enough_judged(manifest: Manifest) -> str | None:
    """Why the export's verdicts on answers do not suffice to learn from, or None."""
    if not manifest.count(JUDGED):
        return "the data has no answers that were found wrong"
    rejected = sum(not row.accepted for row in read_judged(manifest.path(JUDGED)))
    return f"{rejected} training answers were found wrong, fewer than {LEAST_JUDGED}" if rejected < LEAST_JUDGED else None


def read_general(path: Path) -> list[Row]:
    """Read general rows: JSON lines of {"prompt": messages, "completion": text, "skill": name}; the skill becomes `kind`."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot read the general data. Set train.general.source, or train.general: null.") from error
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            completion = record["completion"]
            if not isinstance(completion, str):
                completion = completion[0]["content"]
            row = Row(
                id=f"{GENERAL_ID}{record.get('id', f'{number:06d}')}",
                prompt=_messages(record["prompt"], path, number),
                completion=completion,
                label=None,
                kind=record.get("skill"),
                topic=None,
                group_id=None,
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(f'{path}:{number}: not {{"prompt": messages, "completion": text}}: {error!r}') from error
        rows.append(row)
    return rows


def read_ids(path: Path) -> list[str]:
    """Row ids of a file, one a line. Raises DataError for a file that cannot be read or lists none."""
    try:
        ids = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}. Give a file with a row id on each line.") from error
    if not ids:
        raise DataError(f"{path}: lists no row. Write a row id on each line; `python -m train trace TEXT` finds one.")
    return ids


def exclude(manifest: Manifest, without: Mapping[str, list[str]], folder: Path) -> Manifest:
    """A copy of an export in `folder` without some rows to learn from; `without` names topics, generators, teachers and rows.

    They leave every split but the test split, in which they show what the student has lost. The returned manifest keeps the sha256 of the
    export that it is a part of. Raises DataError when nothing is left out, or nothing left, or the export does not know its teachers.
    """
    teachers = set(without.get("teachers", ()))
    by: dict[str, str | None] = {}
    if teachers:
        if "provenance.parquet" not in manifest.files:
            raise DataError(f"{manifest.directory}: does not say which teacher wrote which row: an older version exported it. {AGAIN}")
        by = {row["id"]: row["teacher"] for row in _records(manifest.path("provenance.parquet"), ("id", "teacher"))}
    topics, generators, ids = (tuple(without.get(name, ())) for name in ("topics", "generators", "rows"))

    def out(row: Mapping[str, Any]) -> bool:
        topic = str(row.get("topic"))
        under = any(topic == name or topic.startswith(f"{name}/") for name in topics)
        return under or row.get("generator") in generators or row["id"] in ids or by.get(row["id"]) in teachers

    files: dict[str, dict[str, Any]] = {}
    gone = kept = 0
    for name in sorted(name for name in manifest.files if name.endswith(".parquet")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith(("/train.parquet", "/validation.parquet")):
            shutil.copyfile(manifest.path(name), path)
            files[name] = dict(manifest.files[name])
            continue
        table = pq.read_table(manifest.path(name))
        stay = [not out(row) for row in table.to_pylist()]
        if name.startswith("sft/") and name.endswith("/train.parquet"):
            gone, kept = stay.count(False), stay.count(True)
        pq.write_table(table.filter(pa.array(stay, pa.bool_())), path)
        files[name] = {"rows": stay.count(True), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    named = "; ".join(f"{kind} {', '.join(values[:3])}{' ...' if len(values) > 3 else ''}" for kind, values in without.items() if values)
    if not gone:
        shutil.rmtree(folder)
        raise DataError(
            f"{manifest.directory}: no training row is of {named}. Look at `SELECT DISTINCT topic, generator, teacher FROM lineage`."
        )
    if not kept:
        shutil.rmtree(folder)
        raise DataError(
            f"{manifest.directory}: all {gone} training rows are of {named}; nothing would be left to learn from. Leave out fewer."
        )
    raw = {**manifest.raw, "files": files, "without": {"left_out": gone, "of": manifest.sha256, "named": dict(without)}}
    (folder / "manifest.json").write_text(json.dumps(raw, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return Manifest.read(folder)._replace(sha256=manifest.sha256)


def mix(domain: list[Row], general: list[Row], share: float, seed: int) -> Mixture:
    """Add general rows until they are `share` of the mixture, drawn without replacement; all of them if too few."""
    wanted = min(round(len(domain) * share / (1 - share)), len(general))
    drawn = random.Random(seed).sample(sorted(general, key=_by_id), wanted)
    return Mixture(sorted([*domain, *drawn], key=_by_id), wanted)


# A row weighs at most so many times the mean: a label of three rows would else decide each step that it is in.
HEAVIEST = 10.0


def weigh(classes: Mapping[str, str | None], tokens: Mapping[str, int]) -> dict[str, float]:
    """Weights of rows by id, such that every class has the same part in the loss, as far as HEAVIEST allows.

    `classes` are the rows' labels or topics, `tokens` how many of each row are in the loss. The mean over tokens is 1, so a step is as
    large as it was. King and Zeng (2001) weigh rare events so; scikit-learn calls it "balanced".
    """
    sums: dict[str | None, int] = {}
    for row, name in classes.items():
        sums[name] = sums.get(name, 0) + tokens[row]
    total = sum(sums.values())
    weights = {row: min(HEAVIEST, total / len(sums) / sums[name]) for row, name in classes.items()}
    mean = sum(weights[row] * tokens[row] for row in classes) / total
    return {row: weight / mean for row, weight in weights.items()}


def take(rows: list[Row], count: int, seed: int) -> list[Row]:
    """Return `count` rows drawn by the seed, sorted by id; all of them when there are no more."""
    return sorted(random.Random(seed).sample(sorted(rows, key=_by_id), min(count, len(rows))), key=_by_id)


def _by_id(record: Row | Pair | Judged) -> str:
    return record.id


def _check_exams(files: Mapping[str, object], checked: object, manifest: Path) -> None:
    """Every evaluation set beside the data is one that the data was checked against."""
    names = {entry.get("name") for entry in checked if isinstance(entry, Mapping)} if isinstance(checked, list) else set()
    for file in sorted(name for name in files if name.startswith("evaluation/")):
        if Path(file).stem not in names:
            raise DataError(
                f"{manifest}: holds {file}, but decontamination.sets does not say that the data was checked against it. "
                "Run `python -m datagen curate` and export again."
            )


def _check_terms(teachers: object, manifest: Path) -> None:
    """Nothing is trained from a teacher whose terms were not settled, nor from data that does not say who taught."""
    named = [entry for entry in teachers if isinstance(entry, Mapping)] if isinstance(teachers, list) else []
    if not named:
        raise DataError(f"{manifest}: names no teacher, so nobody can tell whether its rows may train a model. {AGAIN}")
    for entry in named:
        who = f"{entry.get('model')} ({entry.get('role')})"
        if "settled" not in entry:
            raise DataError(f"{manifest}: does not say whether the terms of {who} allow training: an older version wrote it. {AGAIN}")
        if entry["settled"] is not True:
            said = (entry.get("terms") or {}).get("says", "")
            raise DataError(
                f"{manifest}: the terms of {who} were not settled ({said}). Read them; if you may train on its outputs, say so under "
                f"`terms` in the recipe and export again."
            )


def _verify(path: Path, entry: Mapping[str, Any], manifest: Path) -> None:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise DataError(f"{path}: listed in {manifest.name} but not there. {AGAIN}") from error
    if found != entry.get("sha256"):
        raise DataError(f"{path}: changed since its manifest (sha256 {found[:12]}, manifest says {str(entry.get('sha256'))[:12]}). {AGAIN}")


def _records(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}. {AGAIN}") from error
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise DataError(f"{path}: has no column {', '.join(missing)} (found {', '.join(table.column_names)}). {AGAIN}")
    records: list[dict[str, Any]] = table.to_pylist()
    return records


def _messages(value: Any, path: Path, row: Any) -> list[Message]:
    try:
        messages = [{"role": str(m["role"]), "content": m["content"]} for m in value]
    except (TypeError, KeyError) as error:
        raise DataError(f"{path}: row {row}: prompt is not a list of messages with role and content.") from error
    if not messages or not all(isinstance(m["content"], str) for m in messages):
        raise DataError(f"{path}: row {row}: prompt is empty, or has a message without text.")
    return messages


def _answer(value: Any, path: Path, row: Any) -> str:
    messages = _messages(value, path, row)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise DataError(f"{path}: row {row}: a completion is one assistant message, found roles {[m['role'] for m in messages]}.")
    return messages[0]["content"]
