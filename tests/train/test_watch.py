"""Signs in a history that a learning rate is too high are named, and a sound run has none."""

from collections.abc import Sequence
from typing import Any

import pytest

from train.watch import too_high


def history(values: Sequence[float], losses: Sequence[float], width: float = 0.03, **more: Any) -> list[dict[str, Any]]:
    """Ten log lines around each point."""
    lines: list[dict[str, Any]] = []
    for point, (value, loss) in enumerate(zip(values, losses, strict=True), 1):
        lines += [{"stage": "sft", "step": 10 * point - i, "tokens": 1, "loss": loss} for i in range(9, -1, -1)]
        lines.append({"stage": "sft", "step": 10 * point, "tokens": 1, "metric": "macro_f1", "value": value})
        lines[-1] |= {"low": value - width, "high": value + width, "n": 200, **more}
    return lines


@pytest.mark.parametrize(
    ("values", "losses", "said"),
    [
        ((0.4, 0.6, 0.7, 0.72), (2.0, 1.0, 0.6, 0.4), None),
        ((0.4, 0.7, 0.6, 0.5), (2.0, 1.0, 0.6, 0.4), "after step 20, but macro_f1 from 0.700 to 0.500"),
        ((0.4, 0.41, 0.4, 0.42), (2.0, 1.0, 0.6, 0.4), "did not clearly rise above 0.400"),
        ((0.97, 0.97, 0.98, 0.98), (2.0, 1.0, 0.6, 0.4), None),
        ((0.4, 0.41, 0.4, 0.42), (0.5, 0.5, 0.49, 0.48), None),
        ((0.7, 0.69, 0.68, 0.68), (2.0, 2.0, 2.1, 2.2), None),
        ((0.7, 0.1), (2.0, 0.5), None),
    ],
    ids=["sound", "metric falls", "metric stands", "solved", "loss stands too", "loss rises", "two points"],
)
def test_a_falling_loss_with_a_metric_that_does_not_follow_is_named(
    values: Sequence[float], losses: Sequence[float], said: str | None
) -> None:
    found = too_high(history(values, losses), "sft")
    assert (said is None and found == []) or (said is not None and said in found[0])


def test_general_ability_that_stays_outside_its_budget_is_named() -> None:
    lines = [*history((0.4, 0.6, 0.7), (2, 1, 0.5)), {"stage": "sft", "step": 20, "tokens": 1, "general": 0.2, "general_within": False}]
    assert too_high(lines, "sft") == ["general ability was outside its budget at the end (0.200)"]
    assert too_high([*lines, {**lines[-1], "step": 30, "general_within": True}], "sft") == [], "a stronger hold brought it back"
    assert too_high(lines, "dpo") == []
