"""Checksums of what a run hands out: written, and checked later, by us or by `sha256sum --check`.

write_sums(folder)
verify(folder)          raises DataError with the name of a changed file
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from train.errors import DataError

SUMS = "SHA256SUMS"
QUANTIZED = "quantized"  # the folder of a run with a folder for each form
FACTS = "artifact.json"  # beside each form: how it was made, and its files' checksums


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over all files of a folder, in the form that `sha256sum --check` reads."""
    lines = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files_of(folder) if path.name != SUMS]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def verify(folder: Path) -> list[str]:
    """Check a deploy folder against its SHA256SUMS, or a run's quantized forms against their records; return what was checked.

    Raises DataError with the name of the first file that is gone or has changed.
    """
    sums = folder / SUMS
    if sums.is_file():
        expected = _read_sums(sums)
        wrong = [name for name, sha256 in expected.items() if not (folder / name).is_file() or file_sha256(folder / name) != sha256]
        checked = list(expected)
    elif (folder / QUANTIZED).is_dir():
        places = [path for path in sorted((folder / QUANTIZED).iterdir()) if read_facts(path)]
        facts = {path: read_facts(path) for path in places}
        wrong = [str((path / name).relative_to(folder)) for path in places for name in changed(path, facts[path])]
        checked = [str((path / name).relative_to(folder)) for path in places for name in facts[path]["sha256"]]
    else:
        raise DataError(f"{folder}: has no {SUMS} and no quantized/: nothing to check against. Make one with `python -m train dist`.")
    if wrong:
        more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
        state = "has changed since it was written" if (folder / wrong[0]).is_file() else "is gone"
        raise DataError(f"{folder / wrong[0]}: {state}{more}. Make the folder again, or restore the file.")
    return checked


def read_facts(folder: Path) -> dict[str, Any]:
    """What a quantized folder's artifact.json says of its making; empty where it has none."""
    path = folder / FACTS
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def changed(folder: Path, facts: dict[str, Any]) -> list[str]:
    """The files of a form that are gone or no longer what was written."""
    listed: dict[str, str] = facts.get("sha256", {})
    return [name for name, sha256 in listed.items() if not (folder / name).is_file() or file_sha256(folder / name) != sha256]


def file_sha256(path: Path) -> str:
    """Hash a file without reading it whole into memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(path: Path) -> list[Path]:
    """The files under a path; checkpoints of a stage that is done are not handed out."""
    if path.is_file():
        return [path]
    return [p for p in sorted(path.rglob("*")) if p.is_file() and not any(part.startswith("checkpoint-") for part in p.parts)]


def _read_sums(path: Path) -> dict[str, str]:
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        sha256, gap, name = line.partition("  ")
        if not gap or len(sha256) != 64 or name.startswith("/") or ".." in Path(name).parts:
            raise DataError(f"{path}:{number}: not a checksum and a file's name: {line[:80]}. Make the folder again.")
        found[name] = sha256
    return found


def hashes(path: Path) -> dict[str, str]:
    """The sha256 of a file, or of every file in a folder, by name; empty where there is nothing."""
    if path.is_file():
        return {path.name: file_sha256(path)}
    return {file.relative_to(path).as_posix(): file_sha256(file) for file in files_of(path)} if path.is_dir() else {}
