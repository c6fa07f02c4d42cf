"""The dimension values of a cell's items: drawn one by one, or by a covering design that shows every pair of values early.

A covering sequence begins like a covering array of strength two (Cohen et al. 1997, AETG): each item takes the combination with the
most pairs of values that the cell has not had, and no combination of three values comes twice before all pairs came once, as far as
that can be. From then on each item takes what is furthest behind its weights. A sequence depends on nothing but its seed and the
dimensions, and a longer one begins with the shorter.
"""

import random
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, Mapping[str, float]]  # dimension -> value -> weight

_SEQUENCES = 512
_TRIES = 100  # of 40 sequences over 3, 3, 2 and 2 values 4 still repeated a triple after 30 tries
_UNIVERSE = 4096  # combinations that an item chooses among; of a larger product as many are drawn, every pair among them


class Independent:
    """Each value drawn by its weight, whatever the other items have."""

    def __init__(self, dimensions: Weights) -> None:
        self._dimensions = dimensions

    def values(self, rng: random.Random) -> dict[str, str]:
        """One draw for each dimension."""
        return {name: draw(rng, weights) for name, weights in self._dimensions.items()}


def draw(rng: random.Random, weights: Mapping[str, float]) -> str:
    """One name by weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


class _Subsets(NamedTuple):
    """The values that each combination has in some dimensions at a time, numbered throughout: codes of shape (combinations, subsets)."""

    codes: NDArray[np.int64]
    share: NDArray[np.float64]  # of each code, by the weights

    @classmethod
    def of(cls, universe: NDArray[np.int64], weights: Sequence[NDArray[np.float64]], size: int) -> "_Subsets":
        columns, shares, first = [], [], 0
        for chosen in combinations(range(len(weights)), size):
            code = np.zeros(len(universe), dtype=np.int64)
            share = np.ones(1)
            for dimension in chosen:
                code = code * len(weights[dimension]) + universe[:, dimension]
                share = np.outer(share, weights[dimension]).ravel()
            columns.append(code + first)
            shares.append(share)
            first += len(share)
        return cls(np.array(columns).T, np.concatenate(shares))


class Design:
    """What all covering sequences over the same dimensions share: the combinations, their pairs and triples. Values of weight 0 never come.

    Where there are fewer than three dimensions, a whole combination takes the place of the triple.
    """

    def __init__(self, dimensions: Weights) -> None:
        self.names = list(dimensions)
        if not dimensions:
            dimensions = {"": {"": 1.0}}
        self.labels = [[value for value, weight in values.items() if weight > 0] for values in dimensions.values()]
        exact = [np.array([weight for weight in values.values() if weight > 0], dtype=float) for values in dimensions.values()]
        weights = [column / column.sum() for column in exact]
        self.universe = _universe([len(column) for column in weights], weights)
        self.chance = np.ones(len(self.universe))
        for dimension, column in enumerate(weights):
            self.chance *= column[self.universe[:, dimension]]
        self.pairs = _Subsets.of(self.universe, weights, min(2, len(weights)))
        self.triples = _Subsets.of(self.universe, weights, min(3, len(weights)))
        self.behind = self.pairs.share[self.pairs.codes].sum(axis=1)  # what each combination's pairs fall behind with every item


def _universe(sizes: Sequence[int], weights: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
    total = 1
    for size in sizes:
        total *= size
    if total <= _UNIVERSE:
        return np.array(list(product(*map(range, sizes))), dtype=np.int64).reshape(-1, len(sizes))
    rng = random.Random(f"universe/{sizes}")
    columns = [rng.choices(range(size), column.tolist(), k=_UNIVERSE) for size, column in zip(sizes, weights, strict=True)]
    rows = dict.fromkeys(zip(*columns, strict=True))
    for one, other in combinations(range(len(sizes)), 2):
        for values in product(range(sizes[one]), range(sizes[other])):
            row = [rng.choices(range(size), column.tolist())[0] for size, column in zip(sizes, weights, strict=True)]
            row[one], row[other] = values
            rows[tuple(row)] = None
    return np.array(list(rows), dtype=np.int64)


class Covering:
    """A covering sequence. Its beginning, until every pair came, is sought anew where it had to repeat a triple."""

    def __init__(self, design: Design, seed: str) -> None:
        self._design = design
        self._rng = random.Random(seed)
        self._pairs = np.zeros(len(design.pairs.share), dtype=np.int64)
        tries = []
        for _ in range(_TRIES):
            tries.append(self._beginning())
            if not tries[-1].repeats:
                break
        self._chosen = min(tries, key=lambda found: found.repeats).chosen
        for chosen in self._chosen:
            self._pairs[design.pairs.codes[chosen]] += 1

    def _beginning(self) -> "_Beginning":
        """Combinations that have every pair of values, each with as many new ones as can be; the weights decide between equals."""
        design = self._design
        missing = np.ones(len(design.pairs.share), dtype=bool) if design.names else np.zeros(0, dtype=bool)
        seen = np.zeros(len(design.triples.share), dtype=bool)
        chosen, repeats = [], 0
        while missing.any():
            fresh = missing[design.pairs.codes].sum(axis=1)
            spent = seen[design.triples.codes].any(axis=1)
            allowed = np.where(spent, 0, fresh)
            if not allowed.any():
                allowed = fresh
                repeats += 1
            best = np.flatnonzero(allowed == allowed.max())
            chosen.append(self._rng.choices(best.tolist(), design.chance[best].tolist())[0])
            missing[design.pairs.codes[chosen[-1]]] = False
            seen[design.triples.codes[chosen[-1]]] = True
        return _Beginning(chosen, repeats)

    def values(self, index: int) -> dict[str, str]:
        """The values of item `index`, which depend on the items before it and on nothing after it."""
        design = self._design
        if not design.names:
            return {}
        while len(self._chosen) <= index:
            short = design.behind * (len(self._chosen) + 1) - self._pairs[design.pairs.codes].sum(axis=1)
            best = np.flatnonzero(short >= short.max() - 1e-9)
            self._chosen.append(self._rng.choice(best.tolist()))
            self._pairs[design.pairs.codes[self._chosen[-1]]] += 1
        row = design.universe[self._chosen[index]].tolist()
        return {name: labels[value] for name, labels, value in zip(design.names, design.labels, row, strict=True)}


class _Beginning(NamedTuple):
    """The combinations of a beginning, and how often one repeated a triple."""

    chosen: list[int]
    repeats: int


class Coverings:
    """The covering sequences of many cells: each has one of some hundred, by its name, so that many cells are quick to plan."""

    def __init__(self, dimensions: Weights, seed: str) -> None:
        self._design, self._seed = Design(dimensions), seed
        self._sequences: dict[int, Covering] = {}

    def of(self, cell: str) -> Covering:
        """A cell's sequence, which depends on its name, the seed and the dimensions alone."""
        number = int.from_bytes(sha256(f"{self._seed}/{cell}".encode()).digest()[:4]) % _SEQUENCES
        if number not in self._sequences:
            self._sequences[number] = Covering(self._design, f"{self._seed}/{number}")
        return self._sequences[number]
