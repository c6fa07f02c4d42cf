"""The main job as a new user runs it: a fresh clone, `make datagen`, `make train`, each timed, with what came of them.

    python benchmarks/main_job.py [FOLDER]

Clones this repository into FOLDER (a temporary one when not given) and runs the README's commands there. With REAL_DATA set, the students
are judged on real messages too, and the recipe that grows real seeds is run as well. Takes about a quarter of an hour.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from results_file import Result, machine, publish

ROOT = Path(__file__).resolve().parents[1]


def timed(folder: Path, *command: str) -> float:
    """Seconds that a command took. Its output goes through; a failure ends the benchmark."""
    started = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL)
    return time.monotonic() - started


def query(folder: Path, sql: str, store: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [".venv/bin/python", "-m", "datagen", "sql", sql, "--store", store, "--json"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def measures(folder: Path, run: str, conditions: str) -> list[Result]:
    """Every measure of a run's evaluation, and every paired comparison."""
    found = []
    for m in json.loads((folder / run / "evaluation.json").read_text()):
        if "/" not in m["metric"]:
            found.append(
                Result(f"{m['set']}: {m['metric']} of {m['model']}", m["value"], "share", m["low"], m["high"], f"n={m['n']}; {conditions}")
            )
    for c in json.loads((folder / run / "comparisons.json").read_text()):
        if "/" not in c["metric"]:
            name = f"{c['set']}: {c['metric']} {c['a']} -> {c['b']}"
            found.append(Result(name, c["difference"], "share", c["low"], c["high"], f"paired, n={c['n']}; {conditions}"))
    return found


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "retort"
    timed(ROOT, "git", "clone", "--quiet", str(ROOT), str(folder))
    where = machine()
    setup = timed(folder, "make", "setup")
    size = sum(f.stat().st_size for f in (folder / ".venv").rglob("*") if f.is_file() and not f.is_symlink()) / 1e6
    torch = any((folder / ".venv/lib").glob("python3*/site-packages/torch"))
    datagen = timed(folder, "make", "datagen")
    setup_train = timed(folder, "make", "setup-train")
    train = timed(folder, "make", "train")
    before = query(
        folder, "SELECT (SELECT count(*) FROM calls) AS calls, (SELECT count(*) FROM examples) AS examples", "data/banking.duckdb"
    )
    second = timed(folder, "make", "datagen")
    after = query(
        folder, "SELECT (SELECT count(*) FROM calls) AS calls, (SELECT count(*) FROM examples) AS examples", "data/banking.duckdb"
    )
    counts = query(
        folder,
        "SELECT count(*) AS accepted, count(DISTINCT topic) AS topics, count(DISTINCT generator) AS generators, count(rejected) AS pairs FROM accepted",
        "data/banking.duckdb",
    )[0]

    def one(bar: str, value: float, unit: str) -> Result:
        return Result(bar, value, unit, value, value, where)

    results = [
        one("fresh clone: both commands with installation", setup + datagen + setup_train + train, "s"),
        one("installation of the base", setup, "s"),
        one("size of the base environment", size, "MB"),
        one("torch in the base environment", float(torch), ""),
        one("make datagen after installation", datagen, "s"),
        one("installation for training", setup_train, "s"),
        one("make train after installation", train, "s"),
        one("second make datagen", second, "s"),
        one("second make datagen: new calls", after[0]["calls"] - before[0]["calls"], "calls"),
        one("second make datagen: new examples", after[0]["examples"] - before[0]["examples"], "rows"),
        one("accepted examples", counts["accepted"], "rows"),
        one("accepted preference pairs", counts["pairs"], "rows"),
        one("topics filled", counts["topics"], "topics"),
        one("generators", counts["generators"], ""),
        *measures(folder, "runs/latest", "recipes/banking.yaml"),
    ]
    if os.environ.get("REAL_DATA"):
        recipe = "RECIPE=recipes/banking77.yaml"
        results.append(one("banking77: make datagen", timed(folder, "make", "datagen", recipe), "s"))
        results.append(one("banking77: make train", timed(folder, "make", "train", recipe), "s"))
        dropped = query(folder, "SELECT count(*) AS n FROM rejected WHERE decided_by = 'filter:decontaminate'", "data/banking77.duckdb")[0][
            "n"
        ]
        results.append(one("banking77: rows refused by decontamination", dropped, "rows"))
        results += measures(folder, "runs/latest", "recipes/banking77.yaml")
    publish("main_job", results)


if __name__ == "__main__":
    main()
