"""The gate on a finished run: what is damaged is refused, what is sound passes when it is evaluated again, a row leads to its calls and back.

    python benchmarks/gate.py [RUN] [STORE]     runs/latest and data/banking.duckdb when not given: make datagen, make train before

Results go into results/artifacts.json, beside those of the other bars on artifacts. Damage is done to copies. A sound artifact is evaluated
anew by drawing its held-out rows with replacement, 100 times, and weighing them as the gate does.
"""

import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from results_file import RESULTS, Result, machine, publish
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the benchmark is run as a file

from datagen.store import Store  # noqa: E402
from datagen.trace import trace as trace_example  # noqa: E402
from train import gate, gguf_file, metrics, model, provenance  # noqa: E402
from train.artifacts import Artifact, found, load, place  # noqa: E402
from train.config import BUILT_IN, TINY  # noqa: E402
from train.dataset import Manifest, read_rows  # noqa: E402
from train.evaluate import read_answers  # noqa: E402
from train.run import config_of  # noqa: E402
from train.template import seal  # noqa: E402
from train.watch import Silent  # noqa: E402

AGAIN = 100
SOUND = ("merged", "gguf-f16", "gguf-q8_0")


class Bench:
    """A run with its reference, loaded once."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir.resolve()
        self.config = config_of(self.run_dir)
        self.manifest = Manifest.read(self.config.data)
        self.sides = gate.held_out(self.config, self.manifest)
        self.reference = gate.refer(load(place(self.run_dir, "adapter"), self.config), self.sides, self.config, Silent())
        self.rows = ", ".join(f"{len(side.rows):,} {side.name}" for side in self.sides)

    def judge(self, artifact: Artifact) -> gate.Judged:
        """The gate's judgement of one artifact, here or in a copy."""
        return gate.judge(artifact, self.reference, self.sides, self.config, self.run_dir, Silent())


Change = Callable[[Path, Bench], None]


def scaled(layer: int) -> Change:
    """All weights of one layer times 1.5, norms apart."""

    def change(folder: Path, bench: Bench) -> None:
        tensors = load_file(folder / "model.safetensors")
        for name in tensors:
            if f".layers.{layer}." in name and "norm" not in name:
                tensors[name] = tensors[name] * 1.5
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def other_template(folder: Path, bench: Bench) -> None:
    """A space after each turn, sealed anew: the folder agrees with itself, and not with training."""
    path = folder / "chat_template.jinja"
    stop = json.loads((folder / "template.json").read_text(encoding="utf-8"))["stop"]["text"]
    path.write_text(path.read_text(encoding="utf-8").replace(stop, stop + " "), encoding="utf-8")
    (folder / "template.json").unlink()
    seal(model.load_tokenizer(str(folder)), folder)


def dropped_stop(folder: Path, bench: Bench) -> None:
    """The stop id that training used is not in the generation config any more."""
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    kept = [i for i in bench.reference.stops if i != json.loads((folder / "template.json").read_text())["stop"]["id"]]
    path.write_text(json.dumps({**settings, "eos_token_id": kept or None}), encoding="utf-8")


def lost_token(folder: Path, bench: Bench) -> None:
    """The tokenizer has lost a token of the template, which is now spelled in pieces."""
    path, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    whole, config = (json.loads(file.read_text(encoding="utf-8")) for file in (path, settings))
    stop = json.loads((folder / "template.json").read_text(encoding="utf-8"))["stop"]["text"]
    lost = next(t["content"] for t in whole["added_tokens"] if t["content"] in bench.reference.texts[0] and t["content"] != stop)
    whole["added_tokens"] = [t for t in whole["added_tokens"] if t["content"] != lost]
    config["extra_special_tokens"] = [t for t in config.get("extra_special_tokens", []) if t != lost]  # or it would be added again
    path.write_text(json.dumps(whole), encoding="utf-8")
    settings.write_text(json.dumps(config), encoding="utf-8")


def merged_twice(folder: Path, bench: Bench) -> None:
    """The adapter's part is in the weights two times."""
    base = load_file((TINY if bench.config.student == BUILT_IN else Path(bench.config.student)) / "model.safetensors")
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: 2 * tensor - base[name] if name in base else tensor for name, tensor in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def corrupt_scales(path: Path, target: Path) -> None:
    """In a q8_0 file one tensor's block scales (two bytes before each 32 weights) have another exponent: four times as large."""
    shutil.copyfile(path, target)
    tensor = next(t for t in gguf_file.library().GGUFReader(str(path)).tensors if t.name == "blk.1.ffn_up.weight")
    data = np.memmap(target, dtype=np.uint8, mode="r+", offset=int(tensor.data_offset), shape=(int(tensor.n_bytes),))
    blocks = data.reshape(-1, 34)
    blocks[:, :2] = (blocks[:, :2].copy().view(np.float16) * np.float16(4)).view(np.uint8)
    data.flush()


def damaged(bench: Bench) -> list[Result]:
    """Six kinds of damage, and how many of their cases the gate refused."""
    layers = load(place(bench.run_dir, "merged"), bench.config).model.config.num_hidden_layers
    kinds: dict[str, list[Change]] = {
        "one layer's weights x 1.5": [scaled(layer) for layer in range(layers)],
        "template changed and sealed anew": [other_template],
        "stop id dropped": [dropped_stop],
        "a token of the template lost": [lost_token],
        "adapter merged twice": [merged_twice],
    }
    results = []
    for kind, changes in kinds.items():
        refused, said = 0, ""
        for change in changes:
            with tempfile.TemporaryDirectory() as home:
                folder = Path(shutil.copytree(bench.run_dir / "merged", Path(home) / "merged"))
                change(folder, bench)
                judged = bench.judge(Artifact("merged", "merged", folder))
                refused += judged.verdict != "passed"
                said = judged.why[0].splitlines()[0] if judged.why else "nothing"
        results.append(_share(f"damaged, refused: {kind}", refused, len(changes), f"last reason: {said[:160]}"))
    with tempfile.TemporaryDirectory() as home:
        target = Path(home) / "model.gguf"
        corrupt_scales(place(bench.run_dir, "gguf-q8_0").path, target)
        judged = bench.judge(Artifact("gguf-q8_0", "gguf", target))
        said = f"reason: {judged.why[0].splitlines()[0][:160] if judged.why else 'nothing'}; most in {(judged.drift or {}).get('worst')}"
        results.append(_share("damaged, refused: one tensor's scales in a q8_0 file x 4", int(judged.verdict != "passed"), 1, said))
    return results


def _share(bar: str, hits: int, of: int, conditions: str) -> Result:
    return Result(bar, 100 * hits / of, "%", 100 * hits / of, 100 * hits / of, f"{hits} of {of}; {conditions}; {machine()}")


def sound(bench: Bench) -> Iterator[Result]:
    """How often a sound artifact passes when its rows are drawn again, and what one judgement takes."""
    for artifact in found(bench.run_dir):
        if artifact.name not in SOUND:
            continue
        begin = time.process_time()
        judged = bench.judge(artifact)
        seconds = time.process_time() - begin
        texts, _ = gate.answer(load(artifact, bench.config), bench.reference, bench.config, Silent())
        sides = checks(bench, texts)
        passed = sum(passes_again(sides, bench.config.gate.delta / 100, np.random.default_rng(draw)) for draw in range(AGAIN))
        low, high = metrics.wilson(passed, AGAIN)
        about = f"{AGAIN} draws of {bench.rows} rows, delta {bench.config.gate.delta:g} point, found {judged.verdict}; {machine()}"
        yield Result(f"sound, passes: {artifact.name}", 100 * passed / AGAIN, "%", 100 * low, 100 * high, about)
        yield Result(f"one judgement: {artifact.name}", seconds, "CPU s", seconds, seconds, f"{bench.rows} rows; {machine()}")


class Check(NamedTuple):
    """One metric that decides: which rows of its side count, and which only the adapter, or only the artifact, has right."""

    counts: Any
    lost: Any
    won: Any


def checks(bench: Bench, texts: list[str]) -> list[list[Check]]:
    """For each side, its metrics that decide: shares, as those of the demo are."""
    start, found_checks = 0, []
    for side in bench.sides:
        part = slice(start, start + len(side.rows))
        ours = read_answers(side.rows, [row.written.text for row in bench.reference.told[part]], side.task)
        theirs = read_answers(side.rows, texts[part], side.task)
        listed = []
        for name in gate.deciding(side.task, ours):
            a, b = (metrics.METRICS[name].tally(answers) for answers in (ours, theirs))
            counts, right_a, right_b = a.any(axis=1), a[:, 0] > 0, b[:, 0] > 0
            listed.append(Check(counts, counts & right_a & ~right_b, counts & right_b & ~right_a))
        found_checks.append(listed)
        start = part.stop
    return found_checks


def passes_again(sides: list[list[Check]], delta: float, rng: Any) -> bool:
    """Whether every check passes on rows that are drawn anew, with replacement."""
    for listed in sides:
        rows = len(listed[0].counts)
        drawn = rng.integers(0, rows, rows)
        for check in listed:
            lost, won, n = (int(part[drawn].sum()) for part in (check.lost, check.won, check.counts))
            if metrics.tango(lost, won, n)[0] <= -delta:
                return False
    return True


def false_passes() -> Result:
    """How often an artifact that truly loses delta passes one check of 967 rows: by the interval, in one case of forty at most."""
    rng = np.random.default_rng(0)
    rates = []
    for unlike in (0.0, 0.005, 0.01, 0.02, 0.05):
        drawn = rng.multinomial(967, [0.01 + unlike / 2, unlike / 2, 1 - 0.01 - unlike], 4000)
        rates.append(100 * float(np.mean([metrics.tango(int(lost), int(won), 967)[0] > -0.01 for lost, won, _ in drawn])))
    about = (
        f"4000 draws each of 967 rows, of which 1 % are lost and 0, 0.5, 1, 2, 5 % differ besides: {', '.join(f'{r:.1f}' for r in rates)} %"
    )
    return Result("an artifact that loses delta passes", max(rates), "%", min(rates), max(rates), about)


def paths(run_dir: Path, store_path: Path) -> Result:
    """A hundred random training rows from the run to the teacher's calls, and from each example back to export and run."""
    config = config_of(run_dir)
    manifest = Manifest.read(config.data)
    store = Store(store_path)
    ids = [row.id for row in read_rows(manifest.path("sft/train.parquet"))]
    whole = 0
    for row in random.Random(0).sample(ids, 100):
        (traced,) = provenance.trace(row, run_dir)
        calls = {call["call_id"] for line in traced.lines for call in line["asked"] or []}
        back = trace_example(store, row, data=config.data, runs=run_dir.resolve().parent)
        whole += all(
            (
                calls and calls == {call["id"] for call in back["calls"]},
                traced.lines[0]["prompt_hash"] in {call["prompt"] for call in back["calls"]},
                {verdict["by"] for verdict in traced.lines[0]["verdicts"]} == {verdict["by"] for verdict in back["verdicts"]},
                any(export["manifest_sha256"] == manifest.sha256 for export in back["exports"]),
                any(run["manifest_sha256"] == manifest.sha256 for run in back["runs"]),
                traced.texts["completion"] == back["example"]["completion"],
            )
        )
    return _share("training rows traced to their teacher calls and back", whole, 100, f"of {len(ids):,} rows, drawn by seed 0")


def main() -> None:
    """Measure, and put the results beside what else is known of artifacts."""
    model.quiet()
    torch.set_num_threads(1)
    run_dir = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/latest")
    store = Path(sys.argv[2] if len(sys.argv) > 2 else "data/banking.duckdb")
    bench = Bench(run_dir)
    ours = [*damaged(bench), *sound(bench), false_passes(), paths(run_dir, store)]
    path = RESULTS / "artifacts.json"
    named = {result.bar for result in ours}
    others = [Result(**line) for line in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []
    publish("artifacts", [*(other for other in others if other.bar not in named), *ours])


if __name__ == "__main__":
    main()
