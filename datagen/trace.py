"""One example from the store's side: what was asked for it, what it cost, who decided, where it was exported, which runs trained on it.

    found = trace(store, "3f2a91c4", data=Path("data"), runs=Path("runs"))

Exports and training runs are known by their own files (provenance.parquet beside a manifest, or in a run), which are looked for in folders:
the store does not know who took its rows away.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from datagen.errors import ConfigError
from datagen.store import Row, Store

# As many matches as are listed to choose from.
MOST = 5


def trace(store: Store, wanted: str, *, data: Path, runs: Path) -> dict[str, Any]:
    """All that is known of one example, given by its id, the beginning of one, or words that stand in it.

    Raises ConfigError when no example is meant, or several are.
    """
    example = _one(store, wanted)
    calls = store.query(
        "SELECT c.id, c.role, c.model, c.prompt, c.prompt_tokens, c.completion_tokens, c.cost_usd, c.created_at, c.text, c.item_id "
        "FROM calls c WHERE c.id IN (SELECT unnest(calls) FROM examples WHERE id = ?) ORDER BY c.created_at, c.id",
        [example["id"]],
    )
    verdicts = store.query(
        'SELECT decided_by AS "by", keep, reason, created_at FROM verdicts WHERE example_id = ? ORDER BY created_at, decided_by',
        [example["id"]],
    )
    decision = store.query("SELECT keep, decided_by, reason FROM decisions WHERE example_id = ?", [example["id"]])
    lineage = store.query("SELECT split, cost_usd, reviewer FROM lineage WHERE id = ?", [example["id"]])
    return {
        "example": example,
        "calls": calls,
        "verdicts": verdicts,
        "decision": decision[0] if decision else None,
        **(lineage[0] if lineage else {"split": None, "cost_usd": None, "reviewer": None}),
        "edited_into": [row["id"] for row in store.query("SELECT id FROM examples WHERE parent = ? ORDER BY id", [example["id"]])],
        "exports": _exports(store, example["id"], data),
        "runs": _runs(store, example["id"], runs),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """What `trace` found, to read."""
    example, decision = found["example"], found["decision"]
    text = [f"example   {example['id']}  {example['topic']}, {example['generator']}, item {example['item_id']}"]
    if example["parent"]:
        text.append(f"edited    from {example['parent']}")
    text += [f"edited    into {other}" for other in found["edited_into"]]
    text += [f"input     {example['input']}", f"answer    {example['completion']}"]
    for call in found["calls"]:
        cost = "cost not known" if call["cost_usd"] is None else f"${call['cost_usd']:.6f}"
        text.append(
            f"call      {call['id']}  {call['role']} {call['model']}, prompt {call['prompt']}, "
            f"{call['prompt_tokens'] or 0:,} + {call['completion_tokens'] or 0:,} tokens, {cost}"
        )
    if found["cost_usd"] is not None:
        text.append(f"cost      ${found['cost_usd']:.6f}, its share of those calls")
    kept = [v["by"].removeprefix("filter:") for v in found["verdicts"] if v["keep"] and v["by"].startswith("filter:")]
    if kept:
        text.append(f"verdict   kept by the filters {', '.join(kept)}")
    for v in found["verdicts"]:
        if not v["keep"] or not v["by"].startswith("filter:"):
            text.append(f"verdict   {v['by']}: {'keep' if v['keep'] else 'drop'}{', ' + v['reason'] if v['reason'] else ''}")
    if decision is None:
        text.append("decision  none: the present plan does not stand for it")
    else:
        text.append(
            f"decision  {'kept' if decision['keep'] else 'dropped'} by {decision['decided_by']}"
            + (f", split {found['split']}" if found["split"] else "")
        )
    text += [f"exported  {export['folder']} ({export['split']}), manifest {export['manifest_sha256'][:12]}" for export in found["exports"]]
    for run in found["runs"]:
        seen = run["dropped"] or (f"{run['epochs']:g} epochs" if run["epochs"] is not None else "epochs not known")
        text.append(f"trained   {run['run']}: {run['stage']}, {run['file']}, {run['use']}, {seen}")
    if not found["exports"]:
        text.append("exported  in no data set that was looked at")
    if not found["runs"]:
        text.append("trained   in no run that was looked at")
    return text


def _one(store: Store, wanted: str) -> Row:
    columns = (
        "id, item_id, topic, generator, label, parent, completion, "
        "coalesce(list_filter(prompt, lambda m: m.role = 'user')[-1].content, '') AS input"
    )
    rows = store.query(f"SELECT {columns} FROM examples WHERE id = ?", [wanted])
    if not rows:
        rows = store.query(f"SELECT {columns} FROM examples WHERE starts_with(id, ?) ORDER BY id LIMIT {MOST + 1}", [wanted])
    if not rows:
        rows = store.query(
            f"SELECT {columns} FROM examples WHERE contains(completion, ?) OR contains(input, ?) ORDER BY id LIMIT {MOST + 1}",
            [wanted, wanted],
        )
    if len(rows) == 1:
        return rows[0]
    if not rows:
        raise ConfigError(f"{store.path}: no example has the id {wanted!r} or this text in it. `SELECT id FROM accepted` lists ids.")
    listed = "; ".join(f"{row['id']} ({row['input'][:40]!r})" for row in rows[:MOST])
    more = " and more" if len(rows) > MOST else ""
    raise ConfigError(f"{store.path}: {wanted!r} is in several examples: {listed}{more}. Name one by its id.")


def _exports(store: Store, example_id: str, data: Path) -> list[dict[str, Any]]:
    """The exports under a folder that hold the example; those of older versions have no provenance.parquet and are not looked into."""
    found = []
    for path in sorted({*data.glob("provenance.parquet"), *data.glob("*/provenance.parquet")}):
        manifest = path.parent / "manifest.json"
        rows = store.query("SELECT split FROM read_parquet(?) WHERE id = ?", [str(path), example_id])
        if rows and manifest.is_file():
            found.append({"folder": str(path.parent), "split": rows[0]["split"], "manifest_sha256": _sha256(manifest)})
    return found


def _runs(store: Store, example_id: str, runs: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted(runs.glob("*/provenance.json")):
        rows_path = path.with_suffix(".parquet")
        if path.parent.is_symlink() or not rows_path.is_file():
            continue
        rows: Sequence[Row] = store.query(
            "SELECT stage, file, use, epochs, dropped FROM read_parquet(?) WHERE id = ? ORDER BY ALL", [str(rows_path), example_id]
        )
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))["manifest"]["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: is not a run's provenance ({error!r}). Write it again: `python -m train card`.") from error
        found += [{"run": str(path.parent), "manifest_sha256": manifest, **row} for row in rows]
    return found


def _sha256(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
