"""Provenance."""
import hashlib
from pathlib import Path


def files_of(path: Path) -> dict[str, str]:
    """The sha256 of a file, or of every file in a folder, by name."""
    listed = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    found = {}
    for file in listed:
        with file.open("rb") as stream:
            found[file.name if file == path else file.relative_to(path).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found
