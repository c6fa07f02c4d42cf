"""gate.json as everybody else reads it: what may ship, what a person accepted, and the same in words.

why = held_back(run_dir, "gguf-q4_k_m")     None, or why it may not go into dist/
"""

import json
from pathlib import Path
from typing import Any, Literal

from train.errors import DataError
from train.sums import hashes

GATE = "gate.json"
FORMAT = 1
REFERENCE = "adapter"
Verdict = Literal["passed", "failed", "undecided"]


def read_gate(run_dir: Path) -> dict[str, Any]:
    """Read gate.json. Raises DataError for a run that did not go through the gate."""
    path = run_dir / GATE
    try:
        record = dict(json.loads(path.read_text(encoding="utf-8")))
        if record["format"] != FORMAT:
            raise ValueError(f"format is {record['format']!r}")
        return record
    except FileNotFoundError as error:
        raise DataError(f"{path}: not there: no artifact of this run was judged. Run `python -m train gate --model {run_dir}`.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as a gate's record ({error!r}). Run `python -m train gate --model {run_dir}`.") from error


def held_back(run_dir: Path, name: str) -> str | None:
    """Why an artifact may not ship, or None. Nothing of a run ships whose merged model may not.

    Raises DataError for a run without gate, and for an artifact whose files changed since it was judged.
    """
    record = read_gate(run_dir)
    judged = {entry["name"]: entry for entry in record["artifacts"]}
    for needed in dict.fromkeys(("merged", name)):
        if needed == REFERENCE:
            continue
        if needed not in judged:
            return f"{needed} was not judged"
        entry = judged[needed]
        unchanged(run_dir, entry)
        if entry["verdict"] != "passed" and acceptance(record, needed) is None:
            return f"{needed} {entry['verdict']}: {'; '.join(line.splitlines()[0] for line in entry['why']) or 'no row decided'}"
    return None


def acceptance(record: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The last decision of a person to ship an artifact as it is, if there is one."""
    files = next((entry["sha256"] for entry in record["artifacts"] if entry["name"] == name), None)
    return next((a for a in reversed(record["accepted"]) if a["artifact"] == name and a["sha256"] == files), None)


def refused(record: dict[str, Any]) -> list[str]:
    """The artifacts that neither passed nor were accepted."""
    return [e["name"] for e in record["artifacts"] if e["verdict"] != "passed" and acceptance(record, e["name"]) is None]


def summary(record: dict[str, Any]) -> list[str]:
    """The last lines of a run about its artifacts, in plain words."""
    lines = []
    for entry in record["artifacts"]:
        if entry["verdict"] != "passed" and entry["drift"]:
            lines += [sentence for sentence in record["sentences"] if sentence.startswith(f"{entry['name']}: ")]
        by = acceptance(record, entry["name"])
        if by:
            lines.append(f"{entry['name']} {entry['verdict']}, and {by['by']} accepted it ({by['at'][:10]}): {by['because']}")
        elif entry["verdict"] != "passed":
            lines += [f"{entry['name']} {entry['verdict']}: {line}" for line in entry["why"]]
    names = refused(record)
    if "merged" in names:
        lines.append("The merged model did not pass, so nothing of this run ships.")
    elif names:
        lines.append(f"Not shipped: {', '.join(names)}. What passed ships without them.")
    return lines


def table(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the gate's table: what decides, the exact checks that failed, and drift."""
    head = ["artifact", "verdict", "domain", "general", "same tokens", "KL", "most in"]
    rows = []
    for entry in record["artifacts"]:
        cells = []
        for side in ("domain", "general"):
            listed = [s for s in entry["scores"] if s["side"] == side and s["verdict"]]
            worst = min(listed, key=lambda s: s["low"], default=None)
            cells.append(f"{_points(worst)}, n {worst['n']:,}" if worst else "-")
        found_drift = entry["drift"] or {}
        worst_place = found_drift.get("worst")
        drifted = [f"{100 * found_drift['top1']:.2f} %", f"{found_drift['kl']:.1e}"] if found_drift else ["-", "-"]
        drifted.append(f"{worst_place['name']} ({100 * worst_place['error']:.2g} %)" if worst_place else "-")
        verdict = entry["verdict"] + (", accepted" if acceptance(record, entry["name"]) else "")
        rows.append([entry["name"], verdict, *cells, *drifted])
    return head, rows


def _points(s: dict[str, Any]) -> str:
    return f"{100 * s['difference']:+.2f} ({100 * s['low']:+.2f} to {100 * s['high']:+.2f})"


def unchanged(run_dir: Path, entry: dict[str, Any]) -> None:
    """Refuse an artifact whose files are not those that were judged. Raises DataError naming one."""
    path = Path(entry["path"])
    now = hashes(path if path.is_absolute() else run_dir / path)
    if now != entry["sha256"]:
        off = sorted(name for name in now.keys() | entry["sha256"].keys() if now.get(name) != entry["sha256"].get(name))
        raise DataError(f"{entry['path']}: {off[0]} changed since the gate judged it. Run `python -m train gate --model {run_dir}` again.")
