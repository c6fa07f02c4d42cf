"""Memory: a batch that does not fit goes in parts with the same result, and what a step will take is said before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from train.config import TrainConfig
from train.dataset import Manifest
from train.dpo import train_dpo
from train.errors import TrainError
from train.memory import expect, rows_in, split
from train.model import add_lora, load_student
from train.sft import train_sft
from train.watch import Silent

MakeConfig = Callable[..., TrainConfig]


class Notes(Silent):
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A device that runs out of memory when more than so many lines go through a model that trains."""

    def limit(lines: int) -> None:
        from transformers import LlamaModel

        whole = LlamaModel.forward

        def forward(self: Any, input_ids: Any = None, **options: Any) -> Any:
            measured = input_ids is not None and lines and input_ids.shape[1] in (64, 192)  # what is measured beforehand is small
            if self.training and torch.is_grad_enabled() and not measured and input_ids is not None and len(input_ids) > lines:
                raise torch.OutOfMemoryError("out of memory, as a device with little would say")
            return whole(self, input_ids=input_ids, **options)

        monkeypatch.setattr(LlamaModel, "forward", forward)

    return limit


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


OPTIONS = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 2, "learning_rate": 1e-2}


@pytest.mark.parametrize("lines", [2, 1])
def test_sft_goes_on_in_parts_to_the_same_weights(
    manifest: Manifest, make_config: MakeConfig, tmp_path: Path, small_memory: Callable[[int], None], lines: int
) -> None:
    config = make_config(sft=OPTIONS)
    train_sft(config, manifest, tmp_path / "whole", progress=Silent())
    small_memory(lines)
    notes = Notes()
    record = train_sft(config, manifest, tmp_path / "parts", progress=notes)
    assert record["memory"]["parts"] == 4 // lines
    assert any("out of memory; its micro-batches of 4 rows go in 2 parts" in text for text in notes.said)
    whole, parts = weights(tmp_path / "whole/sft"), weights(tmp_path / "parts/sft")
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-3, atol=1e-5)


def test_dpo_goes_on_in_parts_of_whole_pairs_to_the_same_weights(
    manifest: Manifest, make_config: MakeConfig, tmp_path: Path, small_memory: Callable[[int], None]
) -> None:
    # without the SFT term, whose mean is over tokens, a pair's loss does not depend on its neighbours
    config = make_config(
        sft=OPTIONS, dpo={"per_device_train_batch_size": 4, "loss_type": ["sigmoid"], "loss_weights": [1.0], "learning_rate": 1e-3}
    )
    for name in ("whole", "parts"):
        train_sft(config, manifest, tmp_path / name, progress=Silent())
    train_dpo(config, manifest, tmp_path / "whole", progress=Silent())
    small_memory(4)
    record = train_dpo(config, manifest, tmp_path / "parts", progress=Silent())
    assert record["memory"]["parts"] == 2
    whole, parts = weights(tmp_path / "whole/dpo"), weights(tmp_path / "parts/dpo")
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-3, atol=1e-5)


def test_a_single_row_that_does_not_fit_ends_the_run_and_says_what_to_set(
    manifest: Manifest, make_config: MakeConfig, tmp_path: Path, small_memory: Callable[[int], None]
) -> None:
    small_memory(0)
    with pytest.raises(TrainError, match=r"one row of \d+ tokens at a time\. Lower train\.max_length"):
        train_sft(make_config(sft=OPTIONS), manifest, tmp_path / "run", progress=Silent())


def test_parts_hold_all_rows_once_without_needless_padding() -> None:
    batch = {
        "input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0], [7, 0, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]),
        "labels": torch.tensor([[-100, 2, 3, 4], [-100, 6, -100, -100], [-100, -100, -100, -100]]),
    }
    parts = split(batch, 2)
    assert [part.batch["input_ids"].tolist() for part in parts] == [[[1, 2, 3, 4], [5, 6, 0, 0]], [[7]]]
    assert [part.share for part in parts] == [1.0, 0.0]
    assert rows_in(batch) == 3


def test_a_packed_line_is_cut_between_rows() -> None:
    batch = {
        "input_ids": torch.arange(9)[None],
        "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1, 2]]),
        "labels": torch.tensor([[-100, 1, 2, 3, -100, 5, -100, 7, 8]]),
    }
    assert rows_in(batch) == 3
    parts = split(batch, 2)
    assert [part.batch["input_ids"].tolist() for part in parts] == [[[0, 1, 2, 3]], [[4, 5, 6, 7, 8]]]
    assert [part.share for part in parts] == [pytest.approx(3 / 6), pytest.approx(3 / 6)]
    assert len(split(batch, 3)) == 3


def test_pairs_stay_together() -> None:
    batch = {"input_ids": torch.arange(6)[:, None], "ref_chosen_logps": torch.tensor([0.0, 1.0, 2.0])}
    first, second = split(batch, 2, sides=2)
    assert first.batch["input_ids"].flatten().tolist() == [0, 1, 3, 4]
    assert first.batch["ref_chosen_logps"].tolist() == [0.0, 1.0]
    assert second.batch["input_ids"].flatten().tolist() == [2, 5]
    assert first.share == pytest.approx(2 / 3)


def test_what_is_expected_grows_with_the_batch_and_shrinks_with_checkpointing(make_student: Any, make_config: MakeConfig) -> None:
    config = make_config()
    net = add_lora(load_student(config.student, config).model, config)
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    small = expect(net, 100, optim="adamw_torch_fused", checkpointing=False, autocast=False)
    large = expect(net, 200, optim="adamw_torch_fused", checkpointing=False, autocast=False)
    assert small.gradients == 4 * trained and small.optimizer == 8 * trained
    assert large.activations == pytest.approx(2 * small.activations, rel=0.01)
    assert expect(net, 100, optim="paged_adamw_8bit", checkpointing=False, autocast=False).optimizer == 2 * trained
    assert expect(net, 100, optim="adamw_torch_fused", checkpointing=True, autocast=False).activations < small.activations
    assert "weights" in small.told() and "MB" in small.told()
