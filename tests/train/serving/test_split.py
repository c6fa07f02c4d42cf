"""Users are split by weight, keep their arm, and move only where a weight changed."""

import math
import os
from collections import Counter

import pytest

from train.errors import ConfigError
from train.serving.split import Split, user_key

KEYS = [user_key(b"salt", f"user{n}") for n in range(20_000)]


def shares(split: Split) -> dict[str, float]:
    counts = Counter(split.choose(key) for key in KEYS)
    return {arm: count / len(KEYS) for arm, count in counts.items()}


def test_arms_answer_by_their_weights() -> None:
    found = shares(Split.parse("retort", "dpo=90, sft=9,base=1"))
    for arm, wanted in {"dpo": 0.9, "sft": 0.09, "base": 0.01}.items():
        assert abs(found[arm] - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / len(KEYS))


@pytest.mark.parametrize(("after", "least"), [("dpo=80,sft=10", 0.9 - 80 / 90), ("dpo=90,sft=30", 0.25 - 0.1)])
def test_a_changed_weight_moves_only_the_users_it_must(after: str, least: float) -> None:
    one, two = Split.parse("r", "dpo=90,sft=10"), Split.parse("r", after)
    moved = [(one.choose(key), two.choose(key)) for key in KEYS if one.choose(key) != two.choose(key)]
    assert set(moved) == {("dpo", "sft")}  # never back
    assert abs(len(moved) / len(KEYS) - least) < 0.01


def test_another_salt_draws_anew_and_a_key_hides_its_user() -> None:
    split = Split.parse("r", "a=1,b=1")
    other = [user_key(b"pepper", f"user{n}") for n in range(4000)]
    same = sum(split.choose(x) == split.choose(y) for x, y in zip(KEYS, other, strict=False)) / 4000
    assert 0.45 < same < 0.55
    assert user_key(os.urandom(16), "ana") != user_key(os.urandom(16), "ana")


@pytest.mark.parametrize("text", ["", "dpo", "dpo=", "dpo=0", "dpo=-1", "dpo=nan", "dpo=inf", "=1", "dpo=1,dpo=2", "dpo=1,,sft=2"])
def test_a_split_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--ab"):
        Split.parse("retort", text)
