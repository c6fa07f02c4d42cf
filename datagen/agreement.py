"""Agreement beyond chance, and how sure one can be of it: plain functions over tables of counts.

A table says how often what one said met what the other said. Its unknown shares are drawn from their posterior: a Dirichlet distribution
with a prior as heavy as one row (Perks 1947; for two cells it is Jeffreys'). Any statistic of the drawn tables has its interval in
their percentiles. Unlike a bootstrap, it stays honest where the rows are few and all agree.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]  # (..., what one said, what the other said): counts, or shares that sum to 1
DRAWS = 10_000


class Interval(NamedTuple):
    """A 95 % credible interval."""

    low: float
    high: float


def draw_tables(counts: Sequence[Table], weights: Sequence[float], *, draws: int = DRAWS, seed: int = 0) -> Table:
    """Tables of shares (draw, one, other) of a population whose strata weigh `weights`, from the counts of a sample of each stratum.

    A cell of a stratum's table that cannot occur is marked by a count of -1.
    """
    rng = np.random.default_rng(seed)
    whole = np.zeros((draws, *counts[0].shape))
    for table, weight in zip(counts, weights, strict=True):
        can = table >= 0
        drawn = rng.dirichlet(table[can] + 1 / can.sum(), draws)
        whole[:, can] += drawn * weight / sum(weights)
    return whole


def kappa(tables: Table) -> Table:
    """Cohen's kappa (1960) of each square table of shares; NaN where chance alone would agree always."""
    agreed = np.trace(tables, axis1=-2, axis2=-1)
    chance = (tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(chance < 1, (agreed - chance) / (1 - chance), np.nan))


def spearman(tables: Table) -> Table:
    """Spearman's rank correlation of each table of shares whose rows and columns are in order; NaN for a constant. Ties: middle rank."""
    one, other = tables.sum(axis=-1), tables.sum(axis=-2)
    row, column = _centred_ranks(one), _centred_ranks(other)
    together = np.einsum("...ij,...i,...j->...", tables, row, column)
    spread = np.sqrt((one * row**2).sum(axis=-1) * (other * column**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(spread > 1e-12, together / spread, np.nan))


def _centred_ranks(shares: Table) -> Table:
    """The middle rank of each value, as a share of all, less one half, which is the mean."""
    return np.asarray(np.cumsum(shares, axis=-1) - shares / 2 - 0.5)


def interval(values: Table) -> Interval:
    """The middle 95 % of drawn values; those that are not defined are left out."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def kappa_interval(pairs: Sequence[tuple[bool, bool]]) -> Interval:
    """The interval of Cohen's kappa of two who each said yes or no of the same rows."""
    table = np.zeros((2, 2))
    for first, second in pairs:
        table[int(first), int(second)] += 1
    return interval(kappa(draw_tables([table], [1.0])))
