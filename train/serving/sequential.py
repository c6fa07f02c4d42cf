"""Intervals and tests that hold however often one looks, and whenever one stops: for scores from 0 to 1 of two arms.

    a, b = summarise(scores_a, users_a), summarise(scores_b, users_b)
    difference(a, b)            b - a, with a 95 % confidence sequence
    answers_needed(a, b, 0.05)

A fixed interval that is looked at after every answer excludes the truth sooner or later; a confidence sequence covers it at all times
together with probability 1 - alpha. This one is the normal mixture (Robbins 1970) with an estimated variance, that is the asymptotic
confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Annals of Statistics 52, 2024), and what it excludes is what the
mixture SPRT of Johari, Koomen, Pekelis and Walsh (Operations Research 70, 2022) rejects. It is asymptotic, so early looks are guarded:
one 0 and one 1 are added to each arm (as Agresti and Caffo, American Statistician 54, 2000), and an arm with fewer than LEAST rated
answers says nothing. How often it errs is simulated in tests and in benchmarks/serving.py.

Answers of one user are alike, so variances are of users' totals around the mean (Liang and Zeger, Biometrika 73, 1986): a user who
rates a hundred answers counts as one.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

LEAST = 10
# The difference for which the sequence is tightest: ten points, what an A/B test of two students is run to see.
EXPECTED = 0.1
# No number of answers beyond this is said; it means "never, by asking".
MOST = 1_000_000

Floats = NDArray[np.float64]


class Summary(NamedTuple):
    """An arm's scores. `mean` and `variance` (of the mean) are those with one 0 and one 1 added; `rate` is without."""

    rated: int
    users: int
    rate: float
    mean: float
    variance: float


class Sequence95(NamedTuple):
    """An estimate with its confidence sequence at this moment."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is seen."""
        return self.low > 0 or self.high < 0


def summarise(scores: Sequence[float], users: Sequence[str | None]) -> Summary:
    """Sum up an arm; answers whose user is None are each a user of their own."""
    y: Floats = np.array([*scores, 0.0, 1.0])
    names = [user if user is not None else f"\0{number}" for number, user in enumerate([*users, None, None])]
    _, owner = np.unique(names, return_inverse=True)
    mean = float(y.mean())
    totals = np.bincount(owner, weights=y - mean)
    groups = len(totals)
    variance = float((totals**2).sum()) / len(y) ** 2 * groups / (groups - 1)
    return Summary(len(scores), groups - 2, float(np.mean(scores)) if len(scores) else math.nan, mean, variance)


def radius(variance: Floats | float, alpha: float = 0.05) -> Floats:
    """Half the width of the confidence sequence of an estimate with this variance: with I = 1 / variance and t = EXPECTED ** -2,
    sqrt((I + t) / I**2 * ln((I + t) / (t * alpha**2)))."""
    information, scale = 1 / np.asarray(variance, dtype=np.float64), EXPECTED**-2
    return np.asarray(np.sqrt((information + scale) / information**2 * np.log((information + scale) / (scale * alpha**2))))


def mean(arm: Summary, alpha: float = 0.05) -> Sequence95:
    """An arm's rate."""
    half = float(radius(arm.variance, alpha))
    return Sequence95(arm.rate, max(0.0, arm.mean - half), min(1.0, arm.mean + half))


def difference(a: Summary, b: Summary, alpha: float = 0.05) -> Sequence95:
    """b - a. With fewer than LEAST rated answers in an arm nothing is excluded."""
    value = b.rate - a.rate
    if min(a.rated, b.rated) < LEAST:
        return Sequence95(value, -1.0, 1.0)
    half = float(radius(a.variance + b.variance, alpha))
    centre = b.mean - a.mean
    return Sequence95(value, max(-1.0, centre - half), min(1.0, centre + half))


def answers_needed(a: Summary, b: Summary, effect: float, alpha: float = 0.05) -> int | None:
    """How many more rated answers, both arms together and at the present split, would show a difference of `effect`; None beyond MOST."""
    now, variance = a.rated + b.rated, a.variance + b.variance
    if not now:
        return None

    def excess(log_times: float) -> float:
        return float(radius(variance / math.exp(log_times), alpha)) - abs(effect)

    if effect == 0 or excess(math.log(MOST)) > 0:
        return None
    more = 0.0 if excess(0.0) <= 0 else math.exp(brentq(excess, 0.0, math.log(MOST))) - 1
    needed = max(math.ceil(more * now), LEAST - min(a.rated, b.rated))
    return needed if needed <= MOST else None
