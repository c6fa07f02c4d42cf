"""What holds a student to its base: no drift without an adapter's work, a gradient against it, every row in its turn."""

from pathlib import Path
from typing import Any

import pytest
import torch

from train import model
from train.config import TrainConfig
from train.retain import Retention, drift

ROWS = [[5, 6, 7], [8, 9], [10, 11, 12, 13], [14, 15]]


@pytest.fixture
def net(student: Path) -> Any:
    config = TrainConfig(student=str(student))
    return model.add_lora(model.load_student(str(student), config).model, config)


def move(net: Any, by: float = 0.02) -> None:
    torch.manual_seed(1)
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, by)


def batch(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])


def test_a_fresh_adapter_has_not_drifted(net: Any) -> None:
    assert drift(net, *batch(ROWS)).item() == 0.0


def test_drift_grows_with_the_adapter_and_training_on_it_alone_brings_the_base_back(net: Any) -> None:
    move(net)
    before = drift(net, *batch(ROWS))
    assert before.item() > 0
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(30):
        optimizer.zero_grad()
        drift(net, *batch(ROWS)).backward()
        optimizer.step()
    assert drift(net, *batch(ROWS)).item() < 0.3 * before.item()


def test_padding_does_not_count(net: Any) -> None:
    move(net)
    alone = drift(net, *batch([[5, 6, 7]])).item()
    ids, mask = torch.tensor([[5, 6, 7, 99, 99]]), torch.tensor([[1, 1, 1, 0, 0]])
    assert drift(net, ids, mask).item() == pytest.approx(alone, rel=1e-5)


def test_only_the_adapter_gets_gradients(net: Any) -> None:
    move(net)
    drift(net, *batch(ROWS)).backward()
    assert {name for name, p in net.named_parameters() if p.grad is not None} == {n for n, p in net.named_parameters() if "lora_" in n}


def test_every_row_comes_once_before_one_comes_again(net: Any) -> None:
    move(net)
    retention = Retention(ROWS, count=2, weight=3.0, pad=0, seed=1)
    first, second, third = (retention.loss(net, draw).item() for draw in range(3))
    assert first == third
    assert first != second


def test_the_weight_scales_the_loss_and_a_draw_is_never_larger_than_the_set(net: Any) -> None:
    move(net)
    retention = Retention(ROWS, count=9, weight=3.0, pad=0, seed=1)
    assert retention.count == 4
    assert retention.tokens == 11.0
    assert retention.loss(net, 0).item() == pytest.approx(3 * drift(net, *batch(ROWS)).item(), rel=1e-4)
