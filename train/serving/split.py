"""Which arm of an A/B test answers a user: by weight, always the same, and a changed weight moves the fewest users.

    split = Split.parse("retort", "dpo=90,sft=10")
    split.choose(user_key)

Weighted rendezvous hashing: each arm draws -weight / ln(u), u in (0, 1) from a keyed hash of user and arm, and the largest answers
(Thaler and Ravishankar 1998; with weights: Schindelhauer and Schomaker, SPAA 2005). An arm's draw depends on its own weight alone, so a
user moves only to an arm whose weight rose or from one whose weight fell.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import NamedTuple

from train.errors import ConfigError


class Split(NamedTuple):
    """A served name and its arms with their weights, which need no sum."""

    name: str
    weights: Mapping[str, float]

    @classmethod
    def parse(cls, name: str, text: str) -> "Split":
        """Read "dpo=90,sft=10". Raises ConfigError."""
        weights: dict[str, float] = {}
        for part in text.split(","):
            arm, equals, number = part.strip().partition("=")
            try:
                weight = float(number)
            except ValueError:
                weight = math.nan
            if not equals or not arm or not 0 < weight < math.inf:
                raise ConfigError(f"--ab {text}: {part.strip()!r} is not NAME=WEIGHT with a weight above 0, such as dpo=90,sft=10.")
            if arm in weights:
                raise ConfigError(f"--ab {text}: {arm} comes twice. Give each arm one weight.")
            weights[arm] = weight
        return cls(name, weights)

    def choose(self, key: bytes) -> str:
        """The arm that answers the user with this key (a keyed hash of who it is)."""
        return max(self.weights, key=lambda arm: (_draw(key, arm, self.weights[arm]), arm))


def user_key(salt: bytes, user: str) -> bytes:
    """A user as 16 bytes that do not say who it is to one who has not the salt."""
    return hashlib.blake2b(user.encode(), key=salt, digest_size=16).digest()


def _draw(key: bytes, arm: str, weight: float) -> float:
    number = int.from_bytes(hashlib.blake2b(arm.encode(), key=key, digest_size=8).digest(), "big")
    return -weight / math.log((number + 0.5) / 2**64)
