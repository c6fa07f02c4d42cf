"""KTO learns from verdicts on single answers, measured from the shift on answers to other prompts, under DPO's guard."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from trl import KTOConfig

from train import kto, run
from train.config import TrainConfig
from train.dataset import Judged, Manifest, read_judged
from train.errors import ConfigError, DataError
from train.kto import ACCEPTED, balance, draw, lay_out, train_kto
from train.model import load_student
from train.preference import load_policy
from train.sft import known_options, train_sft
from train.template import Encoded
from train.watch import Silent, read_history

MakeConfig = Callable[..., TrainConfig]
BRISK = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 6, "learning_rate": 5e-3}


def with_verdicts(folder: Path, rejected: int = 24) -> Manifest:
    """The toy export without pairs, with every completion accepted and some wrong ones rejected."""
    rows = pq.read_table(folder / "sft/train.parquet").to_pylist()
    pairs = {row["id"]: row["rejected"] for row in pq.read_table(folder / "preference/train.parquet").to_pylist()}
    judged = [{**row, "label": True, "reason": None} for row in rows]
    for row in rows[:rejected]:
        judged.append({**row, "completion": pairs[row["id"]], "id": f"x{row['id']}", "label": False, "reason": "label: wrong"})
    raw = json.loads((folder / "manifest.json").read_text())
    raw["files"] = {name: entry for name, entry in raw["files"].items() if not name.startswith("preference/")}
    path = folder / "unpaired/train.parquet"
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(judged), path)
    raw["files"]["unpaired/train.parquet"] = {"rows": len(judged), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(raw))
    return Manifest.read(folder)


@pytest.fixture
def verdicts(export: Path) -> Manifest:
    return with_verdicts(export)


def tuned(manifest: Manifest, config: TrainConfig, run_dir: Path) -> Path:
    train_sft(config, manifest, run_dir, progress=Silent())
    return run_dir


def history(run_dir: Path) -> list[dict[str, Any]]:
    return [line for line in read_history(run_dir / "metrics.jsonl") if line["stage"] == "kto"]


def test_accepted_answers_rise_over_rejected_ones_from_zero(verdicts: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(kto={**BRISK, "max_steps": 9})
    run_dir = tuned(verdicts, config, tmp_path / "run")
    record = train_kto(config, verdicts, run_dir, progress=Silent())
    margins = [line["margin"] for line in history(run_dir) if "margin" in line]
    assert abs(margins[0]) < 1e-4, "before the first update the policy is the reference"
    assert margins[-1] > margins[0]
    assert (record["accepted"], record["rejected"]) == (48, 24)
    assert (record["desirable_weight"], record["undesirable_weight"]) == (1.0, 2.0)
    proof = json.loads((run_dir / "template_proof.json").read_text())["judged"]
    assert proof["passed"]
    assert proof["batches"]["sequences"]
    load_student(config.student, adapter=run_dir / "kto")


def test_a_run_without_pairs_goes_from_sft_to_kto_and_evaluates_it(verdicts: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    notes: list[str] = []

    class Noting(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    config = make_config(kto={**BRISK, "max_steps": 2})
    where = run.run(config, now=datetime(2026, 1, 1, tzinfo=UTC), progress=Noting())
    assert (where / "kto/adapter_model.safetensors").is_file()
    assert run.read_record(where)["stages"]["dpo"]["skipped"] == "the data has no preference pairs"
    assert run.read_record(where)["stages"]["merge"]["from"] == "kto"
    systems = {line["model"] for line in json.loads((where / "evaluation.json").read_text())}
    assert {"base", "sft", "kto", "merged"} <= systems
    compared = {(line["a"], line["b"]) for line in json.loads((where / "comparisons.json").read_text())}
    assert {("sft", "kto"), ("base", "kto")} <= compared
    page = (where / "report.html").read_text()
    assert "before and after KTO" in page
    assert "24 rejected answers" in page


def test_pairs_come_before_verdicts_and_null_leaves_kto_out(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "dpo").mkdir()
    (tmp_path / "sft").mkdir()
    assert "preference pairs" in (run.no_kto(make_config(), manifest, tmp_path) or "")
    (tmp_path / "dpo").rmdir()
    assert "no answers that were found wrong" in (run.no_kto(make_config(), manifest, tmp_path) or "")
    assert run.no_kto(make_config(kto=None), manifest, tmp_path) == "train.kto is null"
    (tmp_path / "sft").rmdir()
    with pytest.raises(DataError, match="python -m train sft"):
        run.no_kto(make_config(), manifest, tmp_path)


def test_a_handful_of_rejections_is_not_learned_from(export: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "sft").mkdir()
    assert "5 training answers were found wrong, fewer than 20" in (
        run.no_kto(make_config(), with_verdicts(export, rejected=5), tmp_path) or ""
    )


def test_a_learning_rate_that_ruins_accepted_answers_ends_in_the_sft_weights(
    verdicts: Manifest, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(kto={**BRISK, "learning_rate": 5.0, "max_steps": 9, "max_grad_norm": 0.0})
    record = train_kto(config, verdicts, tuned(verdicts, config, tmp_path / "run"), progress=Silent())
    assert "stopped" in record["guard"]
    assert record["kept"] in ("sft", "best")


def test_an_interrupted_kto_ends_like_a_whole_one(verdicts: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    class Interrupted(Silent):
        def advance(self, done: int, **numbers: float) -> None:
            if done == 5 and "loss" in numbers:
                raise KeyboardInterrupt

    config = make_config(kto=BRISK, evaluation={"points": 6, "validation_rows": 4, "max_new_tokens": 4})
    whole, broken = (tuned(verdicts, config, tmp_path / name) for name in ("whole", "broken"))
    train_kto(config, verdicts, whole, progress=Silent())
    with pytest.raises(KeyboardInterrupt):
        train_kto(config, verdicts, broken, progress=Interrupted())
    train_kto(config, verdicts, broken, progress=Silent())
    a, b = (load_student(config.student, adapter=path / "kto").model.state_dict() for path in (whole, broken))
    assert all(torch.allclose(a[key], b[key], atol=1e-6) for key in a)


def test_a_micro_batch_in_parts_keeps_its_reference_point_and_its_gradient(
    verdicts: Manifest, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config()
    run_dir = tuned(verdicts, config, tmp_path / "run")
    encoded = [Encoded(f"r{i}", [5 + i, 9, 7, *range(3, 4 + i % 5), 2], 2) for i in range(8)]
    rows = lay_out(encoded, {row.id: i % 2 == 0 for i, row in enumerate(encoded)}, 8, 0)
    gradients = []
    for parts in (1, 4):
        net, tokenizer = load_policy(config, run_dir)
        arguments = KTOConfig(
            output_dir=str(tmp_path / "work"), per_device_train_batch_size=8, use_cpu=True, bf16=False, report_to="none",
            precompute_ref_log_probs=True, activation_checkpointing=False,
        )  # fmt: skip
        trainer = kto.Trainer(model=net, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        with torch.no_grad():
            for name, weight in net.named_parameters():
                if weight.requires_grad:  # the student has moved, so that the reference point is not zero
                    weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
        trainer.parts = parts
        trainer.current_gradient_accumulation_steps = 1
        trainer.training_step(net, trainer.data_collator(list(trainer.train_dataset)))
        gradients.append({name: weight.grad.clone() for name, weight in net.named_parameters() if weight.grad is not None})
    assert gradients[0]
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-7, rtol=1e-4), name


def test_a_loss_that_is_no_number_names_its_rows_and_ends_in_the_sft_weights(
    verdicts: Manifest, make_config: MakeConfig, tmp_path: Path
) -> None:
    class Broken(kto.Trainer):
        def _compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super()._compute_loss(*args, **kwargs)
            return loss * float("nan") if self.state.global_step == 1 else loss

    config = make_config(kto={**BRISK, "per_device_train_batch_size": 2})
    run_dir = tuned(verdicts, config, tmp_path / "run")
    original, kto.Trainer = kto.Trainer, Broken  # type: ignore[misc]
    try:
        record = train_kto(config, verdicts, run_dir, progress=Silent())
    finally:
        kto.Trainer = original  # type: ignore[misc]
    assert "the loss is nan at step 2, with the rows " in record["guard"]
    named = record["guard"].partition("with the rows ")[2].partition(":")[0].split(", ")
    known = {row.id for row in read_judged(verdicts.path("unpaired/train.parquet"))}
    assert set(named) <= known
    assert record["kept"] == "sft"
    assert record["steps"] == 1
    assert (run_dir / "kto/adapter_model.safetensors").read_bytes() == (run_dir / "sft/adapter_model.safetensors").read_bytes()


def judged(name: str, accepted: bool) -> Judged:
    return Judged(name, [], "", accepted, None, None, None, None)


def test_all_rejected_answers_are_drawn_and_a_few_accepted_ones_for_each() -> None:
    rows = [*(judged(f"a{i:03d}", True) for i in range(200)), *(judged(f"r{i:03d}", False) for i in range(10))]
    drawn = draw(rows, seed=0)
    assert sum(not row.accepted for row in drawn) == 10
    assert sum(row.accepted for row in drawn) == ACCEPTED * 10
    assert drawn == draw(rows[::-1], seed=0), "whatever order they come in"


def test_both_sides_weigh_the_same_in_the_whole() -> None:
    assert balance(400, 100) == (1.0, 4.0)
    assert balance(50, 100) == (2.0, 1.0)


def test_batches_hold_both_sides_and_each_prompt_a_neighbours_answer() -> None:
    rows = [Encoded(f"r{i}", [i, 100 + i], 1) for i in range(41)]
    laid = lay_out(rows, {row.id: i % 4 != 0 for i, row in enumerate(rows)}, 8, 0)
    assert len(laid) == 40, "a last row without neighbours is left out"
    for start in range(0, 40, 8):
        batch = laid[start : start + 8]
        assert 1 <= sum(not row["label"] for row in batch) <= 3
        assert sorted(row["KL_completion_ids"] for row in batch) == sorted(row["completion_ids"] for row in batch)
        assert all(row["KL_completion_ids"] != row["completion_ids"] for row in batch)


def test_a_batch_of_one_answer_and_another_order_are_refused(verdicts: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    run_dir = tuned(verdicts, make_config(), tmp_path / "run")
    for option, said in ((("per_device_train_batch_size", 1), "Set 2 or more"), (("train_sampling_strategy", "random"), "Remove it")):
        with pytest.raises(ConfigError, match=said):
            train_kto(make_config(kto=dict([option])), verdicts, run_dir, progress=Silent())


def test_answers_of_one_kind_are_refused(verdicts: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    run_dir = tuned(verdicts, make_config(), tmp_path / "run")
    path = verdicts.path("unpaired/train.parquet")
    pq.write_table(pa.Table.from_pylist([row for row in pq.read_table(path).to_pylist() if not row["label"]]), path)
    with pytest.raises(DataError, match="0 accepted and 24 rejected"):
        train_kto(make_config(), verdicts, run_dir, progress=Silent())


def test_a_verdict_that_is_neither_true_nor_false_is_refused(tmp_path: Path) -> None:
    message = [{"role": "user", "content": "a"}]
    pq.write_table(pa.Table.from_pylist([{"id": "a", "prompt": message, "completion": message, "label": "yes"}]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="label is 'yes'; it must be true or false"):
        read_judged(tmp_path / "x.parquet")


def test_every_default_option_is_one_of_trl() -> None:
    known_options("train.kto", TrainConfig().kto_options, KTOConfig)
