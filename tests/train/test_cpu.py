"""The CPU's short ways give the same numbers as the long way."""

from pathlib import Path
from typing import Any

import torch

from train import cpu, model
from train.config import TrainConfig

PREFIX = list(range(10, 30))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Four rows, right-padded; the third does not begin with the prefix."""
    rows = [[*PREFIX, 40, 41, 42], [*PREFIX, 50, 51], [60, 61, 62], [*PREFIX, 70, 71, 72, 73]]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


def tuned(student: Path) -> Any:
    config = TrainConfig(student=str(student))
    net = model.add_lora(model.load_student(str(student), config).model, config)
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(1))
    return net.train()


def run(net: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    ids, mask = batch()
    hidden = net.get_base_model().base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    real = hidden[mask.bool()]
    net.zero_grad()
    (real * torch.linspace(-1, 1, real.numel()).reshape(real.shape)).sum().backward()
    return real.detach(), [p.grad for p in net.parameters() if p.grad is not None]


def test_a_shared_prefix_changes_neither_hidden_states_nor_gradients(student: Path) -> None:
    net = tuned(student)
    hidden, gradients = run(net)
    cpu.share_prefix(net, PREFIX)
    shared_hidden, shared_gradients = run(net)
    torch.testing.assert_close(shared_hidden, hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shared_gradients, gradients, rtol=1e-3, atol=1e-4)


def test_the_prefix_is_what_most_rows_begin_with() -> None:
    assert cpu.common_prefix([[*PREFIX, 1, 2], [*PREFIX, 3, 4], [9, 9, 9]]) == PREFIX


def test_a_short_prefix_is_not_worth_sharing() -> None:
    assert cpu.common_prefix([[1, 2, 3], [1, 2, 4]]) == []
    assert cpu.common_prefix([]) == []


def test_rows_keep_a_token_of_their_own() -> None:
    assert cpu.common_prefix([PREFIX, PREFIX]) == PREFIX[:-1]


def test_checkpointed_training_shares_nothing(student: Path) -> None:
    assert cpu.speed_up(tuned(student), [[*PREFIX, 1, 2]] * 2, checkpointing=True) == 0
