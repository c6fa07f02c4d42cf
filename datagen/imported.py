"""A user's own rows, which no teacher made, as a data set like any other: split by group, checked against evaluation sets, with a manifest.

    rows = read_rows([Path("mine.jsonl")], system="Answer briefly.")
    found = import_rows(rows, Path("data/mine"), name="mine", task=task_of(rows, "generation", ...), exams=[exam], decision=decision)

Each line has one of the forms in FORMS. What is left out is counted with its reason; nothing else is changed, and none of the filters on
quality looks at the rows: they are their owner's.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from datagen.config import TermsDecision
from datagen.errors import ConfigError
from datagen.export import export
from datagen.filters.context import FilterContext
from datagen.filters.decontaminate import decontaminate
from datagen.filters.dedup import group_ids
from datagen.lines import read_json_lines
from datagen.records import EvaluationSet, Example, Message, PlanItem, Task, Verdict
from datagen.store import Store
from datagen.terms import TeacherTerms, Terms

FORMS = (
    '{"prompt", "completion"}, {"messages"}, {"conversations"}, {"instruction", "input", "output"}, {"prompt", "chosen", "rejected"}, or '
    '{"prompt", "completion", "label": true or false}'
)
TYPES = ("classification", "extraction", "question_answering", "generation", "conversation")
GENERATOR = "imported"
SPLIT = {"validation": 0.1, "test": 0.1}
_SHAREGPT = {"human": "user", "gpt": "assistant"}
_ROLES = ("system", "user", "assistant")


class Imported(NamedTuple):
    """One row of a file: what was asked, the answer, and for a pair the worse one. `accepted` is what a verdict says of the answer."""

    where: str
    prompt: tuple[Message, ...]
    completion: str
    rejected: str | None
    accepted: bool
    label: str | None
    topic: str


class Report(NamedTuple):
    """What came of it: the manifest, and how many rows were left out for which reason."""

    manifest: dict[str, Any]
    rows: int
    left_out: dict[str, int]


def read_rows(paths: Sequence[Path], *, system: str | None, label_field: str | None = None) -> list[Imported]:
    """The rows of JSON lines files. A row without a system message gets `system`, if there is one.

    `label_field` is the field of a JSON answer that holds its label. Raises ConfigError with file and line for a row of no known form, for
    roles out of order, and for a file without rows.
    """
    rows = []
    for path in paths:
        for number, record in read_json_lines(path):
            where = f"{path}:{number}"
            if not isinstance(record, dict):
                raise ConfigError(f"{where}: is a JSON {type(record).__name__}. A row is an object: {FORMS}.")
            rows.append(_row(where, record, system, label_field))
    if not rows:
        raise ConfigError(f"{', '.join(map(str, paths))}: has no rows. One JSON object per line is expected: {FORMS}.")
    return rows


def _row(where: str, record: Mapping[str, Any], system: str | None, label_field: str | None) -> Imported:
    prompt, completion, rejected = _texts(where, record)
    roles = [message.role for message in prompt]
    if roles[-1:] != ["user"] or "system" in roles[1:] or set(roles) - set(_ROLES):
        raise ConfigError(
            f"{where}: has the roles {', '.join(roles) or 'none'} before its answer; a system message comes first if there is one, and the "
            "last message is the user's. Mend the row."
        )
    if system is not None and roles[0] != "system":
        prompt = (Message(role="system", content=system), *prompt)
    said = record.get("label")
    label = said if isinstance(said, str) else None
    if label is None and label_field:
        value = (_object(completion) or {}).get(label_field)
        label = value if isinstance(value, str) else None
    return Imported(where, prompt, completion, rejected, said is not False, label, str(record.get("topic") or GENERATOR))


def _texts(where: str, record: Mapping[str, Any]) -> tuple[tuple[Message, ...], str, str | None]:
    """Prompt, answer and worse answer of a record."""
    try:
        if "instruction" in record and "output" in record:
            asked = "\n\n".join(text for text in (record["instruction"], record.get("input")) if text)
            return (Message(role="user", content=asked),), _text(record["output"]), None
        if "messages" in record or "conversations" in record:
            messages = _messages(record.get("messages") or record["conversations"])
            if messages[-1].role != "assistant":
                raise ConfigError(f"{where}: its last message is the {messages[-1].role}'s; there is no answer to learn. Remove the row.")
            return messages[:-1], messages[-1].content, None
        prompt = record["prompt"]
        messages = (Message(role="user", content=prompt),) if isinstance(prompt, str) else _messages(prompt)
        if "chosen" in record and "rejected" in record:
            return messages, _text(record["chosen"]), _text(record["rejected"])
        return messages, _text(record["completion"]), None
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ConfigError(f"{where}: has {', '.join(record) or 'no field'}, which is none of the known forms: {FORMS}.") from error


def _messages(value: Any) -> tuple[Message, ...]:
    return tuple(
        Message(role=_SHAREGPT.get(m["from"], m["from"]), content=m["value"])
        if "from" in m
        else Message(role=m["role"], content=m["content"])
        for m in value
    )


def _text(value: Any) -> str:
    """An answer: a text, or the one assistant message that holds it."""
    if isinstance(value, str):
        return value
    (message,) = _messages(value)
    return message.content


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def task_of(rows: Sequence[Imported], kind: str, *, schema: Path | None = None, label_field: str | None = None) -> Task:
    """The task that the rows show: answers are data where all of them are JSON objects, else text.

    Raises ConfigError for an unknown type, a schema that cannot be read, and where one answer is no JSON object that has to be one.
    """
    if kind not in TYPES:
        raise ConfigError(f"--type {kind}: is none of {', '.join(TYPES)}.")
    form = None if schema is None else _schema(schema)
    system = next((row.prompt[0].content for row in rows if row.prompt[0].role == "system"), "")
    as_data = all(_object(row.completion) is not None for row in rows if row.accepted)
    if (schema or label_field) and not as_data:
        wrong = next(row for row in rows if row.accepted and _object(row.completion) is None)
        raise ConfigError(
            f"{wrong.where}: the answer {wrong.completion[:60]!r} is no JSON object. Mend it, or leave --schema and --label-field out."
        )
    return Task(
        type=cast(Any, kind), system=system, input="a row of the imported files", instructions="as the rows show",
        output_schema=form or ({"type": "object"} if as_data else None), label_field=label_field,
    )  # fmt: skip


def _schema(path: Path) -> dict[str, Any]:
    try:
        found = _object(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}. Give --schema FILE.json.") from error
    if found is None:
        raise ConfigError(f"{path}: is no JSON object. Give the JSON schema of an answer.")
    return found


def import_rows(
    rows: Sequence[Imported], out_dir: Path, *, name: str, task: Task, exams: Sequence[EvaluationSet], decision: TermsDecision | None,
    sources: Sequence[Path], created: str, seed: int = 0,
) -> Report:  # fmt: skip
    """Write the rows as a data set; rows that are empty, that came before, or that are in an evaluation set are left out and counted.

    Raises ConfigError where nobody said why the rows may train a model, and where a split would be empty.
    """
    if decision is None:
        raise ConfigError(
            f"{', '.join(map(str, sources))}: nobody knows who wrote these rows. Say why they may train a model by "
            '--terms "written by our support team, with their consent"; it is kept in the manifest and on the card.'
        )
    _spare(out_dir / "manifest.json")
    kept, left_out = _apart(rows)
    examples = {example.id: row for example, row in kept}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "import.duckdb")
        with store.writing():
            for number, (example, row) in enumerate(kept):
                store.add_item(PlanItem(topic=row.topic, generator=GENERATOR, index=number, count=1), "done", [example])
            store.add_verdicts(
                Verdict(example_id=key, by=f"human:{decision.by}", keep=False, reason="review: rejected in the imported file")
                for key, row in examples.items()
                if not row.accepted
            )
        store.set_settings({"seed": str(seed), **{f"split.{part}": str(share) for part, share in SPLIT.items()}})
        store.remember_exams(exams)
        labels = {row.label: row.label for _, row in kept if row.label}
        context = FilterContext(task=task, labels=labels, facts={}, policy=(), evaluation_sets=tuple(exams))
        made = store.current_examples()
        verdicts = decontaminate(made, context)
        store.replace_filter_verdicts(verdicts, group_ids(made))
        if hits := sum(not verdict.keep for verdict in verdicts):
            left_out["in an evaluation set"] = hits
        manifest = export(
            store,
            out_dir,
            recipe={"name": name, "imported": [{"file": path.name, "sha256": _sha256(path)} for path in sources]},
            recipe_sha256=hashlib.sha256("".join(map(_sha256, sources)).encode()).hexdigest(),
            taxonomy={"name": name, "path": "", "sha256": ""},
            task=task,
            labels=labels,
            seed=seed,
            teachers=[_origin(sources, decision).model_dump(mode="json")],
            evaluation_sets=exams,
            split=SPLIT,
            reasoning="none",
            created=created,
        )
    return Report(manifest, len(rows), left_out)


def _spare(manifest: Path) -> None:
    """Nothing that a recipe made is written over."""
    if manifest.is_file():
        made = _object(manifest.read_text(encoding="utf-8")) or {}
        if "imported" not in (made.get("recipe") or {}):
            raise ConfigError(f"{manifest.parent}: holds the data set of a recipe. Choose another folder by --out.")


def _apart(rows: Sequence[Imported]) -> tuple[list[tuple[Example, Imported]], dict[str, int]]:
    """The rows as examples, and how many were left out for which reason."""
    kept: list[tuple[Example, Imported]] = []
    left_out: Counter[str] = Counter()
    seen: set[tuple[Any, ...]] = set()
    for number, row in enumerate(rows):
        key = (row.prompt, row.completion, row.rejected)
        if not row.completion.strip():
            left_out["empty answer"] += 1
        elif row.rejected is not None and row.rejected.strip() == row.completion.strip():
            left_out["chosen and rejected are the same"] += 1
        elif key in seen:
            left_out["came before"] += 1
        else:
            seen.add(key)
            example = Example(
                item_id=f"{row.topic}:{GENERATOR}:{number}", topic=row.topic, generator=GENERATOR, prompt=row.prompt,
                completion=row.completion, rejected=row.rejected, answer=_object(row.completion), label=row.label,
            )  # fmt: skip
            kept.append((example, row))
    return kept, dict(left_out)


def exam_of(said: str) -> EvaluationSet:
    """An evaluation set of NAME=FILE: JSON lines whose prompts, or `text`, are kept out of the training data.

    Raises ConfigError with file and line.
    """
    name, equals, file = said.partition("=")
    if not equals or not name.isidentifier():
        raise ConfigError(f"--exam {said}: write NAME=FILE.jsonl, such as --exam real=messages.jsonl.")
    path = Path(file)
    texts: list[str] = []
    labels: list[str | None] = []
    for number, record in read_json_lines(path):
        record = record if isinstance(record, dict) else {}
        label = record.get("label", record.get("intent"))
        if isinstance(record.get("text"), str):
            texts.append(record["text"])
        else:
            texts.append(_row(f"{path}:{number}", {"completion": "", **record}, None, None).prompt[-1].content)
        labels.append(label if isinstance(label, str) else None)
    if not texts:
        raise ConfigError(f"{path}: has no rows.")
    return EvaluationSet(name=name, path=str(path), texts=tuple(texts), labels=tuple(labels), sha256=_sha256(path))


def _origin(sources: Sequence[Path], decision: TermsDecision) -> TeacherTerms:
    """Who stands for the rows: their owner, by decision, since no table knows them."""
    terms = Terms(may_train="unknown", says="rows of the user's own", source=", ".join(path.name for path in sources), read=None)
    return TeacherTerms(role="owner", model="imported rows", simulated=False, terms=terms, decision=decision, settled=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def told(report: Report, out_dir: Path) -> Iterator[str]:
    """What was done, for the person who asked."""
    counts = {name: entry["rows"] for name, entry in report.manifest["files"].items() if name.endswith(".parquet") and entry["rows"]}
    yield f"{out_dir}: {report.rows:,} rows read; " + ", ".join(f"{name} {count:,}" for name, count in counts.items())
    for reason, count in report.left_out.items():
        yield f"left out: {count:,} ({reason})"
    sets = report.manifest["decontamination"]["sets"]
    if not sets:
        yield "Checked against no evaluation set: give --exam NAME=FILE.jsonl for what this student will be measured on."
    yield f"Next: python -m train run --data {out_dir}"
