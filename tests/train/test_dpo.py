"""DPO raises the better answer over the worse from the SFT adapter, and a guard keeps what must not get worse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from trl import DPOConfig

from train import dpo, template
from train.config import TrainConfig
from train.dataset import Manifest, read_pairs
from train.dpo import align, train_dpo
from train.errors import ConfigError, DataError
from train.metrics import Measure
from train.model import load_student
from train.preference import TOLERANCE, Guard, choose
from train.sft import known_options, train_sft
from train.template import Encoded, Source
from train.watch import Best, History, Silent, Watch, read_history

MakeConfig = Callable[..., TrainConfig]
GENTLE = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 6, "learning_rate": 5e-3}


def tuned(manifest: Manifest, config: TrainConfig, run_dir: Path) -> Path:
    train_sft(config, manifest, run_dir, progress=Silent())
    return run_dir


def history(run_dir: Path) -> list[dict[str, Any]]:
    return [line for line in read_history(run_dir / "metrics.jsonl") if line["stage"] == "dpo"]


def test_the_margin_grows_and_starts_at_zero(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(dpo=GENTLE)
    record = train_dpo(config, manifest, tuned(manifest, config, tmp_path / "run"), progress=Silent())
    margins = [line["margin"] for line in history(tmp_path / "run") if "margin" in line]
    assert abs(margins[0]) < 1e-4, "before the first update the policy is the reference"
    assert margins[-1] > margins[0]
    assert record["pairs"] == 48
    assert {"chosen_logp", "rejected_logp", "chosen_reward"} <= set(history(tmp_path / "run")[-1])


def test_only_one_adapter_is_saved(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    run_dir = tuned(manifest, config, tmp_path / "run")
    train_dpo(config, manifest, run_dir, progress=Silent())
    assert (run_dir / "dpo/adapter_model.safetensors").is_file()
    assert not list((run_dir / "dpo").glob("*/"))
    load_student(config.student, adapter=run_dir / "dpo")


def test_the_trainer_sees_the_tokens_of_the_template(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    seen: list[dict[str, list[int]]] = []

    class Spy(dpo.Trainer):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            seen.extend(self.train_dataset.to_list())

    run_dir = tuned(manifest, config, tmp_path / "run")
    original, dpo.Trainer = dpo.Trainer, Spy  # type: ignore[misc]
    try:
        train_dpo(config, manifest, run_dir, progress=Silent())
    finally:
        dpo.Trainer = original  # type: ignore[misc]
    tokenizer = load_student(config.student).tokenizer
    described = template.adapt(tokenizer, "student")
    pairs = read_pairs(manifest.path("preference/train.parquet"))
    for side, texts in (("chosen_ids", [p.chosen for p in pairs]), ("rejected_ids", [p.rejected for p in pairs])):
        sources = [Source(pair.id, pair.prompt, text) for pair, text in zip(pairs, texts, strict=True)]
        expected = template.encode(tokenizer, described, sources, 128).rows
        assert [row["prompt_ids"] + row[side] for row in seen] == [row.ids for row in expected]


def test_an_interrupted_dpo_ends_like_a_whole_one(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    class Interrupted(Silent):
        def advance(self, done: int, **numbers: float) -> None:
            if done == 5 and "loss" in numbers:
                raise KeyboardInterrupt

    config = make_config(dpo=GENTLE, evaluation={"points": 6, "validation_rows": 4, "max_new_tokens": 4})
    whole, broken = (tuned(manifest, config, tmp_path / name) for name in ("whole", "broken"))
    train_dpo(config, manifest, whole, progress=Silent())
    with pytest.raises(KeyboardInterrupt):
        train_dpo(config, manifest, broken, progress=Interrupted())
    train_dpo(config, manifest, broken, progress=Silent())
    a, b = (load_student(config.student, adapter=path / "dpo").model.state_dict() for path in (whole, broken))
    assert all(torch.allclose(a[key], b[key], atol=1e-6) for key in a)


def test_a_learning_rate_that_ruins_likelihood_ends_in_the_sft_weights(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    wild = {**GENTLE, "learning_rate": 5.0, "loss_type": ["sigmoid"], "loss_weights": [1.0], "max_steps": 12, "max_grad_norm": 0.0}
    config = make_config(dpo=wild)
    run_dir = tuned(manifest, config, tmp_path / "run")
    record = train_dpo(config, manifest, run_dir, progress=Silent())
    assert "nats per token" in record["guard"]
    assert record["steps"] < 12
    assert record["kept"] in ("sft", "best")


def test_a_loss_that_is_no_number_names_the_pairs_and_ends_in_the_sft_weights(
    manifest: Manifest, make_config: MakeConfig, tmp_path: Path
) -> None:
    class Broken(dpo.Trainer):
        def _compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super()._compute_loss(*args, **kwargs)
            return loss * float("nan") if self.state.global_step == 1 else loss

    config = make_config(dpo={**GENTLE, "per_device_train_batch_size": 2})
    run_dir = tuned(manifest, config, tmp_path / "run")
    original, dpo.Trainer = dpo.Trainer, Broken  # type: ignore[misc]
    try:
        record = train_dpo(config, manifest, run_dir, progress=Silent())
    finally:
        dpo.Trainer = original  # type: ignore[misc]
    assert "the loss is nan at step 2, with the rows " in record["guard"]
    assert (record["kept"], record["steps"]) == ("sft", 1)


def test_the_whole_model_can_be_optimized(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(method="full")
    run_dir = tuned(manifest, config, tmp_path / "run")
    assert train_dpo(config, manifest, run_dir, progress=Silent())["steps"] == 4
    assert (run_dir / "dpo/config.json").is_file()


def test_pairs_whose_sides_are_the_same_are_named() -> None:
    rows, same = align([Encoded("a", [1, 2], 1), Encoded("b", [1, 3], 1)], [Encoded("a", [1, 2], 1), Encoded("b", [1, 4], 1)])
    assert (len(rows), same) == (1, ["a"])
    assert rows[0] == {"prompt_ids": [1], "chosen_ids": [3], "rejected_ids": [4]}


def test_no_pairs_are_refused_with_what_to_set(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    path = manifest.path("preference/train.parquet")
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(DataError, match=r"train\.dpo: null"):
        train_dpo(make_config(), manifest, tmp_path, progress=Silent())


def test_pairs_that_all_say_the_same_are_refused(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    run_dir = tuned(manifest, config, tmp_path / "run")
    path = manifest.path("preference/train.parquet")
    rows = [{**row, "rejected": row["chosen"]} for row in pq.read_table(path).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(DataError, match="no pair can be used"):
        train_dpo(config, manifest, run_dir, progress=Silent())


def test_an_unknown_option_is_refused(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.dpo: unknown option `betta` .did you mean `beta`"):
        train_dpo(make_config(dpo={"betta": 1}), manifest, tmp_path, progress=Silent())


def test_every_default_option_is_one_of_trl() -> None:
    known_options("train.dpo", TrainConfig().dpo_options, DPOConfig)


def measure(value: float) -> Measure:
    return Measure("macro_f1", value, value, value, 300)


def watched(tmp_path: Path, last: float, best: float, stopped: str | None = None) -> Watch:
    watch = Watch("dpo", tmp_path, History(tmp_path / "h.json"), Silent(), points=1, tokens_per_epoch=1, score=None, keep=lambda path: None)
    watch.last, watch.best, watch.stopped = measure(last), Best(3, best), stopped
    return watch


@pytest.mark.parametrize(
    ("start", "last", "best", "stopped", "kept"),
    [
        (0.80, 0.82, 0.82, None, "last"),
        (0.80, 0.80 - TOLERANCE / 2, 0.79, None, "last"),
        (0.80, 0.70, 0.85, None, "best"),
        (0.80, 0.70, 0.75, None, "sft"),
        (0.80, 0.82, 0.82, "collapsed", "best"),
        (0.80, 0.10, 0.10, "collapsed", "sft"),
    ],
)
def test_what_is_kept(tmp_path: Path, start: float, last: float, best: float, stopped: str | None, kept: str) -> None:
    assert choose(measure(start), watched(tmp_path, last, best, stopped))[0] == kept


def test_a_fall_on_few_rows_says_less(tmp_path: Path) -> None:
    watch = watched(tmp_path, 0.74, 0.74)
    assert choose(measure(0.80), watch)[0] == "sft"
    watch.last = measure(0.74)._replace(n=60)
    assert choose(measure(0.80), watch)[0] == "last"


def test_without_validation_rows_only_collapse_counts(tmp_path: Path) -> None:
    assert choose(None, watched(tmp_path, 0.1, 0.1))[0] == "last"
    assert choose(None, watched(tmp_path, 0.1, 0.1, "collapsed"))[0] == "sft"


def test_the_guard_counts_nats_per_token_of_the_chosen_answers() -> None:
    assert Guard(beta=0.1, length=20)({"chosen_reward": -0.1 * 0.19 * 20}) is None
    assert "0.21 nats per token" in (Guard(beta=0.1, length=20)({"chosen_reward": -0.1 * 0.21 * 20}) or "")


def test_the_guard_stops_a_student_that_becomes_unsure() -> None:
    guard = Guard(beta=0.1, length=20)
    assert [guard({"entropy": e}) for e in (0.3, 0.1, 0.2, 1.1)] == [None] * 4
    assert "entropy rose by 1.10 nats per token" in (guard({"entropy": 1.3}) or "")


@pytest.mark.parametrize(("answer", "said"), [("x" * 100, None), ("x" * 140, "1.60 times as long"), ("x" * 40, "0.60 times as long")])
def test_the_guard_stops_answers_that_grow_or_shrink(answer: str, said: str | None) -> None:
    guard = Guard(beta=0.1, length=20)
    guard.see(["x" * 80] * 20)
    assert guard({}) is None
    guard.see(["x" * 800] * 3)
    assert guard({}) is None, "three answers say little"
    guard.see([answer] * 20)
    assert (guard({}) is None) if said is None else said in (guard({}) or "")
