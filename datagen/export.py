"""Accepted examples to files: Parquet for TRL, JSON lines and ShareGPT for others, a manifest that says what it all is, a dataset card.

The manifest is written last and at once: a folder without one is no export. An export is refused when its rows were not checked
against the evaluation sets, because nothing later would notice.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datagen.card import card
from datagen.errors import ConfigError
from datagen.filters.decontaminate import checked_against
from datagen.records import EvaluationSet, Task
from datagen.report import measure_diversity
from datagen.review import agreements, defect_rates, exact_intervals
from datagen.store import Store

FORMAT = 1
SPLITS = ("train", "validation", "test")
_JUDGED = (
    "unpaired WHERE (label OR id IN (SELECT example_id FROM verdicts WHERE decided_by = 'filter:decontaminate' AND keep AND reason = ?))"
)
JUDGED_SPLITS = ("train", "validation")  # of accepted and rejected answers: test rows are answered, not learned
Reasoning = Literal["none", "think", "plain"]

# The assistant's message with its reasoning, by the recipe's `export.reasoning`. Rows without reasoning are the answer alone.
_CONTENT = {
    "none": "completion[1].content",
    "think": "CASE WHEN reasoning IS NULL THEN '' ELSE '<think>\n' || reasoning || '\n</think>\n' END || completion[1].content",
    "plain": "CASE WHEN reasoning IS NULL THEN '' ELSE reasoning || '\n' END || completion[1].content",
}
_ABOUT = "id, group_id, topic, generator, label, kind, dimensions"
_PER_ROW = {"calls": "calls", "prompt_tokens": "tokens_in", "completion_tokens": "tokens_out"}
_SHAREGPT = (
    "list_transform(list_concat(prompt, completion), lambda m: {'from': CASE m.role WHEN 'user' THEN 'human' "
    "WHEN 'assistant' THEN 'gpt' ELSE m.role END, 'value': m.content}) AS conversations"
)
# What is known of each row's making, so that training can name it without the store; texts stay in the store, calls are named by id.
_PROVENANCE = (
    "SELECT id, split, topic, generator, item_id, parent, teacher, prompt_hash, round(cost_usd, 12) AS cost_usd, prompt_tokens, "
    "completion_tokens, asked, verdicts, reviewer FROM lineage ORDER BY id"
)
_CHAT = [{"role": "VARCHAR", "content": "VARCHAR"}]


def export(
    store: Store,
    out_dir: Path,
    *,
    recipe: Mapping[str, Any],
    recipe_sha256: str,
    taxonomy: Mapping[str, str],
    task: Task,
    labels: Mapping[str, str],
    seed: int,
    teachers: Sequence[Mapping[str, Any]],
    evaluation_sets: Sequence[EvaluationSet],
    split: Mapping[str, float],
    reasoning: Reasoning,
    created: str,
    retired: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """Write the store's accepted examples to `out_dir`; returns the manifest.

    The same store gives the same bytes (`created` apart). Files of an earlier export that this one does not write are removed.
    The rejected answer of a pair has no reasoning of its own, so preference rows hold answers alone.
    Raises ConfigError when nothing was accepted, a split is empty, or the decontamination gate was not passed.
    """
    exams = store.exams(evaluation_sets, retired or ())
    _check(store, exams, split)
    for folder in ("sft", "preference", *(["evaluation"] if evaluation_sets else [])):
        _make(out_dir / folder)
    manifest_path = out_dir / "manifest.json"
    stale = _owned(manifest_path)
    manifest_path.unlink(missing_ok=True)
    sft = f"SELECT prompt, [{{'role': 'assistant', 'content': {_CONTENT[reasoning]}}}] AS completion, {_ABOUT}, split FROM sft"
    preference = f"SELECT prompt, chosen, rejected, {_ABOUT}, split FROM preference"
    files: dict[str, dict[str, Any]] = {}

    def write(name: str, select: str, params: Sequence[Any] = ()) -> None:
        path = out_dir / name
        store.copy(select, path, "parquet" if name.endswith(".parquet") else "json", params)
        rows = _rows(store, path)
        files[name] = {"rows": rows, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    for kind, select in (("sft", sft), ("preference", preference)):
        for part in SPLITS:
            write(f"{kind}/{part}.parquet", f"SELECT * EXCLUDE (split) FROM ({select}) WHERE split = ? ORDER BY id", [part])
        write(f"{kind}.jsonl", f"SELECT * FROM ({select}) ORDER BY id")
    verdicts = _unpaired(store, checked_against(exams))
    if verdicts["rejected"]:
        _make(out_dir / "unpaired")
        for part in JUDGED_SPLITS:
            write(
                f"unpaired/{part}.parquet",
                f"SELECT prompt, [{{'role': 'assistant', 'content': {_CONTENT[reasoning]}}}] AS completion, label, reason, id, group_id, "
                f"topic, generator, kind, dimensions FROM {_JUDGED} AND split = ? ORDER BY id",
                [checked_against(exams), part],
            )
    write("sharegpt.jsonl", f"SELECT {_SHAREGPT}, id, split FROM ({sft}) ORDER BY id")
    if store.query("SELECT count(*) AS n FROM grounding")[0]["n"]:
        write("grounding.jsonl", "SELECT * FROM grounding ORDER BY id")
    write("provenance.parquet", _PROVENANCE)
    for found in evaluation_sets:
        rows = json.dumps(_evaluation_rows(found, task, labels), ensure_ascii=False)
        structure = json.dumps([{"number": "BIGINT", "prompt": _CHAT, "completion": _CHAT, "id": "VARCHAR", "label": "VARCHAR"}])
        write(
            f"evaluation/{found.name}.parquet",
            "SELECT r.prompt, r.completion, r.id, r.label FROM (SELECT unnest(from_json(?, ?)) AS r) ORDER BY r.number",
            [rows, structure],
        )
    manifest = {
        "format": FORMAT,
        "name": recipe["name"],
        "created": created,
        "seed": seed,
        "recipe": dict(recipe),
        "recipe_sha256": recipe_sha256,
        "taxonomy": dict(taxonomy),
        "task": _task(task, labels),
        "reasoning": reasoning,
        "files": files,
        "teachers": [dict(teacher) for teacher in teachers],
        "decontamination": {"passed": True, "sets": _decontamination(store, exams, evaluation_sets), "retired": dict(retired or {})},
        "data": {**_data(store), "unpaired": verdicts},
    }
    (out_dir / "README.md").write_text(card(manifest, task, _sample(store)), encoding="utf-8", errors="replace")
    for name in sorted(stale - files.keys()):
        (out_dir / name).unlink(missing_ok=True)
    _write_whole(manifest_path, json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")
    return manifest


def _check(store: Store, evaluation_sets: Sequence[EvaluationSet], split: Mapping[str, float]) -> None:
    """Whether the accepted rows may be exported at all."""
    counts = store.query(
        "WITH gate AS (SELECT example_id, keep, reason FROM verdicts WHERE decided_by = 'filter:decontaminate') "
        "SELECT count(*) AS rows, count(*) FILTER (g.example_id IS NULL) AS unchecked, count(*) FILTER (NOT g.keep) AS hits, "
        "min(g.reason) FILTER (NOT g.keep) AS hit, min(a.id) FILTER (NOT g.keep) AS hit_id, "
        "count(*) FILTER (g.keep AND g.reason IS DISTINCT FROM ?) AS outdated, "
        "count(*) FILTER (a.split = 'train') AS train, count(*) FILTER (a.split = 'validation') AS validation, "
        "count(*) FILTER (a.split = 'test') AS test, count(*) FILTER (a.rejected IS NOT NULL) AS pairs, "
        "count(*) FILTER (a.rejected IS NOT NULL AND a.split = 'train') AS train_pairs "
        "FROM accepted a LEFT JOIN gate g ON g.example_id = a.id",
        [checked_against(evaluation_sets)],
    )[0]
    if not counts["rows"]:
        reasons = ", ".join(f"{row['reason']} ({row['count']})" for row in _reasons(store)[:3])
        raise ConfigError(
            f"{store.path}: no example was accepted, so there is nothing to export. "
            + (f"Most were dropped by: {reasons}. " if reasons else "")
            + "Run `python -m datagen generate` and `curate`; `SELECT * FROM rejected` says why rows were dropped."
        )
    if counts["unchecked"] or counts["outdated"]:
        raise ConfigError(
            f"{store.path}: {counts['unchecked'] + counts['outdated']} of {counts['rows']} accepted examples were not checked against "
            "the evaluation sets of the recipe and of earlier runs as they are now. Run `python -m datagen curate`."
        )
    if counts["hits"]:
        raise ConfigError(
            f"{store.path}: {counts['hits']} examples that a person accepted are in an evaluation set, such as {counts['hit_id']} "
            f"({counts['hit']}). Reject them in a review, or retire the set: take it out of the recipe and say why under `retired:`."
        )
    for part in SPLITS:
        if not counts[part] and (part == "train" or split.get(part, 0) > 0):
            raise ConfigError(
                f"{store.path}: the {part} split is empty ({counts['rows']} accepted examples). Generate more, or change `split` "
                "in the recipe."
            )
    if counts["pairs"] and not counts["train_pairs"]:
        raise ConfigError(
            f"{store.path}: none of the {counts['pairs']} preference pairs is in the train split. Generate more pairs, or none."
        )


def _rows(store: Store, path: Path) -> int:
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            return sum(1 for _ in lines)
    return int(store.query("SELECT count(*) AS n FROM read_parquet(?)", [str(path)])[0]["n"])


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error.strerror}). Choose another place by --out.") from error


def _owned(manifest_path: Path) -> set[str]:
    """The files that an earlier export wrote, if its manifest is there and can be read; paths outside the folder are not its own."""
    try:
        names = set(json.loads(manifest_path.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    root = manifest_path.parent.resolve()
    return {name for name in names if (root / name).resolve().is_relative_to(root)}


def _write_whole(path: Path, text: str) -> None:
    """A file that is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _evaluation_rows(found: EvaluationSet, task: Task, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of an evaluation set; of a task with labels, only rows that have one: the others cannot be scored."""
    return [
        {
            "number": number,
            "prompt": [{"role": "system", "content": task.system}, {"role": "user", "content": text}],
            "completion": None,
            "id": f"{found.name}:{number}",
            "label": label,
        }
        for number, (text, label) in enumerate(zip(found.texts, found.labels, strict=True), 1)
        if label is not None or not labels
    ]


def _task(task: Task, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": task.type,
        "language": task.language,
        "system": task.system,
        "output": "text" if task.output_schema is None else "json",
        "output_schema": None if task.output_schema is None else dict(task.output_schema),
        "label_field": task.label_field,
        "labels": list(labels),
        "abstain_label": task.abstain_label,
        "entities_field": task.entities_field,
        "decision_fields": list(task.decision_fields),
        "forbidden": list(task.forbidden),
    }


def _decontamination(store: Store, exams: Sequence[EvaluationSet], named: Sequence[EvaluationSet]) -> list[dict[str, Any]]:
    """What the data was checked against; `named` says whether the recipe names the set still, `rows_hit` which rows were found."""
    hits: dict[str, list[dict[str, Any]]] = {}
    for row in store.query("SELECT evaluation_set, row, examples FROM evaluation_hits ORDER BY ALL"):
        hits.setdefault(row["evaluation_set"], []).append(row)
    present = {(found.name, found.sha256) for found in named}
    return [
        {
            "name": found.name,
            "rows": len(found.texts),
            "dropped": sum(row["examples"] for row in hits.get(found.name, [])),
            "rows_hit": {str(row["row"]): row["examples"] for row in hits.get(found.name, [])},
            "named": (found.name, found.sha256) in present,
            "sha256": found.sha256,
        }
        for found in exams
    ]


def _reasons(store: Store) -> list[dict[str, Any]]:
    """Drops by filter and person and kind of reason; an example that several drop counts for each."""
    return store.query(
        "SELECT decided_by AS \"by\", split_part(coalesce(reason, ''), ':', 1) AS reason, count(DISTINCT example_id) AS count "
        "FROM verdicts WHERE NOT keep AND example_id IN (SELECT id FROM current_examples) GROUP BY ALL "
        'ORDER BY count DESC, "by", reason'
    )


def _data(store: Store) -> dict[str, Any]:
    totals = store.totals()
    generators = store.query(
        "SELECT generator, count(*) AS examples, count(*) FILTER (keep) AS accepted "
        "FROM current_examples JOIN decisions ON example_id = id GROUP BY ALL ORDER BY generator"
    )
    topics = store.topic_coverage()
    bounds = exact_intervals([topic["accepted"] for topic in topics], [topic["examples"] for topic in topics])
    for topic, low, high in zip(topics, *bounds, strict=True):
        topic["low"], topic["high"] = low, high
    costs = store.query(
        "SELECT role, model, sum(calls)::BIGINT AS calls, sum(prompt_tokens)::BIGINT AS prompt_tokens, "
        "sum(completion_tokens)::BIGINT AS completion_tokens, sum(cost_usd) AS cost_usd FROM costs GROUP BY ALL ORDER BY role, model"
    )
    per_accepted, answering = cost_per_accepted(store), _answering(store)
    rates = [rate._asdict() for rate in defect_rates(store)]
    review = {"rates": rates, "agreement": [found._asdict() for found in agreements(store)]} if rates else None
    return {
        **totals, "reasons": _reasons(store), "generators": generators, "topics": topics, "costs": costs, "review": review,
        "per_accepted": per_accepted, "answering": answering, "splits": _splits(store), "diversity": _diversity(store),
    }  # fmt: skip


def cost_per_accepted(store: Store) -> dict[str, Any]:
    """What an accepted row of the present plan cost, all calls of its items counted, with the 95 % interval over items.

    An item is what is drawn: its calls and its rows belong together. The interval is that of a ratio of two means (delta method).
    """
    rows = store.query(
        "WITH paid AS (SELECT item_id, sum(cost_usd) AS usd, count(*) AS calls, sum(prompt_tokens) AS tokens_in, "
        "sum(completion_tokens) AS tokens_out FROM calls GROUP BY item_id), "
        "kept AS (SELECT item_id, count(*) AS n FROM accepted GROUP BY item_id) "
        "SELECT coalesce(usd, 0)::DOUBLE AS usd, coalesce(calls, 0)::DOUBLE AS calls, coalesce(tokens_in, 0)::DOUBLE AS tokens_in, "
        "coalesce(tokens_out, 0)::DOUBLE AS tokens_out, coalesce(n, 0)::DOUBLE AS n "
        "FROM items LEFT JOIN paid ON paid.item_id = id LEFT JOIN kept ON kept.item_id = id WHERE planned ORDER BY id"
    )
    total = sum(row["n"] for row in rows)
    if not total:
        return {"rows": 0, "cost_usd": None, "low": None, "high": None, "calls": None, "prompt_tokens": None, "completion_tokens": None}
    usd = sum(row["usd"] for row in rows) / total
    half = 1.96 * math.sqrt(sum((row["usd"] - usd * row["n"]) ** 2 for row in rows)) / total
    means = {name: sum(row[key] for row in rows) / total for name, key in _PER_ROW.items()}
    return {"rows": int(total), "cost_usd": usd, "low": max(0.0, usd - half), "high": usd + half, **means}


def _answering(store: Store) -> dict[str, Any] | None:
    """What the teacher took to answer an input, where it answered some: the price that a student is compared with."""
    rows = store.query(
        "SELECT model, count(*) AS requests, sum(cost_usd) AS cost_usd, avg(prompt_tokens) AS prompt_tokens, "
        "avg(completion_tokens) AS completion_tokens, median(latency_s) AS median_s, quantile_cont(latency_s, 0.95) AS p95_s "
        "FROM calls WHERE role = 'teacher' AND split_part(prompt, '@', 1) = 'answer' GROUP BY model ORDER BY requests DESC, model LIMIT 1"
    )
    return rows[0] if rows else None


def _unpaired(store: Store, gate: str) -> dict[str, Any]:
    """How many answers of the learned splits were accepted and how many found wrong, and by whom and why: TRL's unpaired rows.

    A person's reasons are free text and are not counted apart.
    """
    rows = store.query(
        "SELECT label, CASE WHEN decided_by LIKE 'human:%' THEN 'a person' ELSE decided_by END AS \"by\", "
        "CASE WHEN decided_by LIKE 'human:%' THEN NULL ELSE split_part(reason, ':', 1) END AS reason, count(*) AS count "
        f'FROM {_JUDGED} AND split IN {JUDGED_SPLITS!r} GROUP BY ALL ORDER BY count DESC, "by", reason',
        [gate],
    )
    wrong = [{key: row[key] for key in ("by", "reason", "count")} for row in rows if not row["label"]]
    return {
        "accepted": sum(row["count"] for row in rows if row["label"]),
        "rejected": sum(row["count"] for row in wrong),
        "reasons": wrong,
    }


def _splits(store: Store) -> list[dict[str, Any]]:
    """Rows of each split by generator and by topic."""
    return store.query(
        "SELECT CASE WHEN grouping(topic) = 1 THEN 'generator' ELSE 'topic' END AS part, coalesce(topic, generator) AS name, "
        + ", ".join(f"count(*) FILTER (split = '{split}') AS {split}" for split in SPLITS)
        + " FROM accepted GROUP BY GROUPING SETS ((topic), (generator)) ORDER BY part, name"
    )


def _diversity(store: Store) -> dict[str, Any]:
    """The measures of the whole; those of topics and windows are in the report."""
    found = measure_diversity(store)
    return {**found.model_dump(include={"inputs", "answers", "balance"}), "supply": found.supply.model_dump(exclude={"windows"})}


def _sample(store: Store) -> dict[str, Any] | None:
    """One row of the train split, drawn by the hash of its id."""
    rows = store.query("SELECT prompt, completion, id, topic, generator FROM sft WHERE split = 'train' ORDER BY md5(id) LIMIT 1")
    return rows[0] if rows else None
