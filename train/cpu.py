"""What lets a small student train faster on a CPU, with the same result to rounding.

    score_labels_only()
    share_prefix(model, common_prefix([row.ids for row in rows]))

Two costs that do not matter on a GPU matter here: the language-model head at positions without a label, and the system
message that every row begins with. Attention is causal, so what a prefix computes does not depend on what follows: it is
computed once a batch, and its keys and values serve all rows, gradients included.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import trl.trainer.utils
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from train.model import backbone, has_plain_cache

# Below this many tokens the bookkeeping costs more than it saves.
SHORTEST = 8


def score_labels_only() -> None:
    """Let TRL's fused head skip positions without a label, as it does where it has Triton kernels."""
    trl.trainer.utils._use_triton = lambda device: True


def common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """Return the longest beginning that at least half of the rows have in common, or an empty list when it is short."""
    groups = [tuple(row) for row in rows]
    prefix: list[int] = []
    while True:
        following = Counter(row[len(prefix)] for row in groups if len(row) > len(prefix) + 1)
        token, count = following.most_common(1)[0] if following else (0, 0)
        if 2 * count < len(rows) or count < 2:
            return prefix if len(prefix) >= SHORTEST else []
        groups = [row for row in groups if len(row) > len(prefix) + 1 and row[len(prefix)] == token]
        prefix.append(token)


def share_prefix(model: Any, prefix: Sequence[int]) -> None:
    """Make the backbone compute `prefix` once for all rows of a training batch that begin with it.

    Only calls without a cache take this way, so generation is untouched. The output is what it was: hidden states
    (rows, tokens, width).
    """
    body = backbone(model)
    plain = body.forward
    start = torch.tensor([list(prefix)])

    def forward(
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        **options: Any,
    ) -> Any:
        length = start.shape[1]
        together = None
        bare = input_ids is not None and attention_mask is not None and past_key_values is None and use_cache is False and not options
        if bare and input_ids is not None and input_ids.shape[1] > length + 1:
            together = (input_ids[:, :length] == start.to(input_ids.device)).all(1)
        if together is None or int(together.sum()) < 2:
            return plain(
                input_ids=input_ids, attention_mask=attention_mask, past_key_values=past_key_values, use_cache=use_cache, **options
            )
        assert input_ids is not None and attention_mask is not None
        cache = DynamicCache(config=body.config)
        first = plain(input_ids=start.to(input_ids.device), past_key_values=cache, use_cache=True).last_hidden_state
        rows = together.nonzero().flatten()
        cache.batch_repeat_interleave(len(rows))
        rest = plain(
            input_ids=input_ids[rows, length:], attention_mask=attention_mask[rows], past_key_values=cache, use_cache=True
        ).last_hidden_state
        hidden = torch.cat([first.expand(len(rows), -1, -1), rest], 1)
        if len(rows) < len(input_ids):
            others = (~together).nonzero().flatten()
            width = int(attention_mask[others].sum(1).max())
            short_ids, short_mask = input_ids[others, :width], attention_mask[others, :width]
            alone = plain(input_ids=short_ids, attention_mask=short_mask, use_cache=False).last_hidden_state
            alone = torch.nn.functional.pad(alone, (0, 0, 0, input_ids.shape[1] - width))
            hidden = torch.cat([hidden, alone])[torch.cat([rows, others]).argsort()]
        return BaseModelOutputWithPast(last_hidden_state=hidden)

    body.forward = forward


def speed_up(model: Any, rows: Sequence[Sequence[int]], *, checkpointing: bool) -> int:
    """Apply both where they apply: on a CPU. Return the number of tokens that are shared."""
    if next(model.parameters()).is_cuda:
        return 0
    score_labels_only()
    prefix = common_prefix(rows)
    if not prefix or checkpointing or not has_plain_cache(model):
        return 0
    share_prefix(model, prefix)
    return len(prefix)
