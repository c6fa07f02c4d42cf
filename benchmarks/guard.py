"""The guard of preference training: does it stop a learning rate that is 50 times too high, and leave an ordinary one alone?

    python benchmarks/guard.py [RUN] [ORDINARY] [TOO_HIGH]        some 10 CPU minutes with 20 and 10 seeds

DPO is done again from the SFT result of a finished run (runs/latest, as `make train` leaves it), by the same code, each time with
another seed: its part of the pairs, their order, its validation rows. Nothing of the run is changed.
"""

import hashlib
import json
import random
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
PAIRS, VALIDATION = 240, 60


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


def main() -> None:
    quiet()
    config = config_of(RUN)
    manifest = Manifest.read(config.data)
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        ordinary = [once(config, manifest, 1, seed, Path(folder)) for seed in range(ORDINARY)]
        wild = [once(config, manifest, TIMES, seed, Path(folder)) for seed in range(TOO_HIGH)]
    rate = config.dpo_options["learning_rate"]
    where = f"demo student, {PAIRS} pairs and {VALIDATION} validation rows by the seed; {machine()}"
    stopped = [r for r in wild if r["guard"] and "stopped" in r["guard"]]
    restored = sum(r["restored"] for r in stopped)
    kinds = Counter(r["guard"].split(" (")[0].translate(str.maketrans("", "", "0123456789.-")) for r in stopped)
    steps = sorted(r["steps"] for r in stopped)
    said = "; ".join(f"{n} x {' '.join(kind.split())}" for kind, n in kinds.most_common())
    alarms = sum(bool(r["guard"] and "stopped" in r["guard"]) for r in ordinary)
    undone = sum(r["kept"] != "last" for r in ordinary)
    minutes = (time.process_time() - begin) / 60
    publish(
        "guard",
        [
            Result(
                f"DPO at {TIMES} x {rate:g}: stopped and restored", restored / TOO_HIGH, "share", *exact(restored, TOO_HIGH),
                f"{TOO_HIGH} seeds; stopped after {steps[0] if steps else 0} to {steps[-1] if steps else 0} of "
                f"{ordinary[0]['steps']} steps: {said}; {where}; {minutes:.0f} CPU minutes in all",
            ),
            Result(f"DPO at {rate:g}: false alarms", alarms / ORDINARY, "share", *exact(alarms, ORDINARY), f"{ORDINARY} seeds; {where}"),
            Result(
                f"DPO at {rate:g}: undone because the task's metric fell", undone / ORDINARY, "share", *exact(undone, ORDINARY),
                f"{ORDINARY} seeds; {where}",
            ),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
