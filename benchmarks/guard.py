"""The guard of preference training: does it stop a learning rate that is 50 times too high, and leave an ordinary one alone?

    python benchmarks/guard.py [RUN] [ORDINARY] [TOO_HIGH]        some 10 CPU minutes with 20 and 10 seeds

DPO is done again from the SFT result of a finished run (runs/latest, as `make train` leaves it), by the same code, each time with
another seed: its part of the pairs, their order, its validation rows. Nothing of the run is changed.
"""

import hashlib
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from results_file import Result, machine, publish
from scipy.stats import binomtest

from train.config import TrainConfig
from train.dataset import Manifest
from train.dpo import train_dpo
from train.model import quiet
from train.run import config_of
from train.watch import Silent

RUN = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/latest")
ORDINARY, TOO_HIGH = (int(sys.argv[i]) if len(sys.argv) > i else seeds for i, seeds in ((2, 20), (3, 10)))
TIMES = 50
PAIRS, VALIDATION = 160, 40


def some_pairs(manifest: Manifest, seed: int, place: Path) -> Manifest:
    """The export with PAIRS of its pairs, drawn by the seed."""
    name = "preference/train.parquet"
    table = pq.read_table(manifest.path(name))
    place.mkdir(parents=True)
    for other in manifest.files:
        (place / other).parent.mkdir(exist_ok=True)
        shutil.copy(manifest.directory / other, place / other)
    drawn = sorted(random.Random(seed).sample(range(len(table)), min(PAIRS, len(table))))
    pq.write_table(table.take(drawn), place / name)
    files = {**manifest.raw["files"], name: {"rows": len(drawn), "sha256": hashlib.sha256((place / name).read_bytes()).hexdigest()}}
    (place / "manifest.json").write_text(json.dumps({**manifest.raw, "files": files}))
    return Manifest.read(place)


def once(config: TrainConfig, manifest: Manifest, times: float, seed: int, place: Path) -> dict[str, Any]:
    """DPO with `times` the recipe's learning rate; its record, and whether what is kept is what the record says."""
    options = config.dpo_options
    config = config.model_copy(
        update={
            "seed": seed,
            "dpo": {**options, "learning_rate": options["learning_rate"] * times},
            "evaluation": config.evaluation.model_copy(update={"validation_rows": VALIDATION}),
        }
    )
    run_dir = place / f"{times}-{seed}"
    shutil.copytree(RUN / "sft", run_dir / "sft")
    record = train_dpo(config, some_pairs(manifest, seed, run_dir / "data"), run_dir, progress=Silent())
    weights = [(run_dir / stage / "adapter_model.safetensors").read_bytes() for stage in ("sft", "dpo")]
    record["restored"] = weights[0] == weights[1] if record["kept"] == "sft" else record["kept"] == "best"
    shutil.rmtree(run_dir)
    print(f"x{times:g} seed {seed}: {record['steps']} steps, kept {record['kept']}: {record['guard']}", file=sys.stderr, flush=True)
    return record


def exact(count: int, total: int) -> tuple[float, float]:
    found = binomtest(count, total).proportion_ci(method="exact")
    return float(found.low), float(found.high)


def summary(config: TrainConfig, ordinary: list[dict[str, Any]], wild: list[dict[str, Any]], minutes: float) -> list[Result]:
    rate = config.dpo_options["learning_rate"]
    where = f"demo student, {PAIRS} pairs and {VALIDATION} validation rows by the seed; {minutes:.0f} CPU minutes in all; {machine()}"
    stopped = [r for r in wild if r["guard"] and "stopped" in r["guard"]]
    restored = sum(r["restored"] for r in stopped)
    kinds = Counter(" ".join(re.sub(r"[\d.-]+", "", r["guard"].split(" (")[0]).split()) for r in stopped)
    said = "; ".join(f"{n} x {kind}" for kind, n in kinds.most_common())
    steps = [r["steps"] for r in stopped] or [0]
    after = f"stopped after {min(steps)} to {max(steps)} of {ordinary[0]['steps']} steps: {said}"
    alarms = sum(bool(r["guard"] and "stopped" in r["guard"]) for r in ordinary)
    undone = sum(r["kept"] != "last" for r in ordinary)
    n, m = len(ordinary), len(wild)
    return [
        Result(
            f"DPO at {TIMES} x {rate:g}: stopped and restored", restored / m, "share", *exact(restored, m), f"{m} seeds; {after}; {where}"
        ),
        Result(f"DPO at {rate:g}: false alarms", alarms / n, "share", *exact(alarms, n), f"{n} seeds; {where}"),
        Result(f"DPO at {rate:g}: undone for the task's metric", undone / n, "share", *exact(undone, n), f"{n} seeds; {where}"),
    ]


def main() -> None:
    quiet()
    config = config_of(RUN)
    manifest = Manifest.read(config.data)
    begin = time.process_time()
    ordinary: list[dict[str, Any]] = []
    wild: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(max(ORDINARY, TOO_HIGH)):
            if seed < TOO_HIGH:
                wild.append(once(config, manifest, TIMES, seed, Path(folder)))
            if seed < ORDINARY:
                ordinary.append(once(config, manifest, 1, seed, Path(folder)))
            publish("guard", summary(config, ordinary, wild, (time.process_time() - begin) / 60))


if __name__ == "__main__":
    main()
