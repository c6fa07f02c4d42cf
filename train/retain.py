"""Keeping what the student could do: on general rows its hidden states are held to those of its base while it learns.

    retention = Retention(general_rows, count=4, weight=4.0, pad=tokenizer.pad_token_id, seed=7)
    loss = task_loss + retention.loss(net, draw)

Training on general rows by their labels hardly slows forgetting: a label says one token where the base knew a whole
distribution. The base is at hand, though, whenever the adapter is switched off, and its features say how it got there.
Distance in features as the thing to bound is LDIFS (arXiv 2308.13320); asking the old model on inputs outside the
task is learning without forgetting (arXiv 1606.09282).
"""

import random
from collections.abc import Sequence
from typing import Any

import torch

from train.model import backbone


class Retention:
    """Draws `count` general rows (token ids) at a time and measures how far the adapter has moved the base on them."""

    def __init__(self, rows: Sequence[Sequence[int]], *, count: int, weight: float, pad: int, seed: int) -> None:
        self.count, self.weight, self._pad = min(count, len(rows)), weight, pad
        self._rows = random.Random(seed).sample(list(rows), len(rows))

    @property
    def tokens(self) -> float:
        """Mean number of tokens in a draw."""
        return self.count * sum(map(len, self._rows)) / len(self._rows)

    def loss(self, net: Any, draw: int) -> torch.Tensor:
        """`weight` times the drift on the rows of draw number `draw`; the whole set is gone through before a row comes again."""
        start = draw * self.count
        rows = [self._rows[(start + i) % len(self._rows)] for i in range(self.count)]
        length = max(map(len, rows))
        where = next(net.parameters()).device
        ids = torch.tensor([[*row, *[self._pad] * (length - len(row))] for row in rows], device=where)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=where)
        return self.weight * drift(net, ids, mask)


def drift(net: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Squared distance of hidden states to the base's over the base's own square, mean over layers; 0 is the base itself.

    `ids` and `mask` are (rows, tokens); `net` is a PeftModel. Only the adapted pass carries gradients.
    """
    ask = {"input_ids": ids, "attention_mask": mask, "use_cache": False, "output_hidden_states": True}
    with torch.no_grad(), net.disable_adapter():
        base = backbone(net)(**ask).hidden_states[1:]
    adapted = backbone(net)(**ask).hidden_states[1:]
    real = mask.bool()
    layers = [((a[real] - b[real]) ** 2).sum() / (b[real] ** 2).sum() for a, b in zip(adapted, base, strict=True)]
    return torch.stack(layers).mean()
