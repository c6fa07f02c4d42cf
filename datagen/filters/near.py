"""The search for texts that are nearly the same: MinHash bands propose pairs, the exact Jaccard similarity decides.

Two texts are a candidate pair when enough of their bands agree (similarity.bands_for, Bands.agreeing). All functions take whole lists of
texts and work in numpy; none of them compares every member of a crowded bucket with every other, so a thousand texts from one template
cost what a thousand others cost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from datagen.filters.similarity import PERMUTATIONS, Indices, Sketches, band_keys, bands_for, signatures, similarities, spans

_BATCH = 1 << 16  # candidate pairs at a time
_LOST = 1e-3  # share of pairs at the threshold that asking for more bands to agree may lose


class Twins(NamedTuple):
    """For each text the position of its nearest twin (-1 for none) and their exact Jaccard similarity (0 for none)."""

    position: Indices
    similarity: NDArray[np.float64]

    @classmethod
    def none(cls, count: int) -> Self:
        """No text has a twin."""
        return cls(np.full(count, -1, dtype=np.int64), np.zeros(count))

    def offer(self, texts: Indices, positions: Indices, similarity: NDArray[np.float64]) -> None:
        """Take positions[i] as the twin of texts[i] where it is nearer than the one known; of equals the lowest position stays."""
        order = np.lexsort((positions, -similarity, texts))
        first = order[np.unique(texts[order], return_index=True)[1]]
        t, p, s = texts[first], positions[first], similarity[first]
        better = (s > self.similarity[t]) | ((s == self.similarity[t]) & (p < self.position[t]))
        self.position[t[better]], self.similarity[t[better]] = p[better], s[better]


@dataclass(frozen=True)
class Bands:
    """Band keys, one row for each text and space; a text of 8 to 15 words has two rows. Rows are in the order of texts.

    keys     shape (rows, bands)
    texts    whose row it is
    chars    whether it is a row of characters
    """

    keys: NDArray[np.uint32]
    texts: Indices
    chars: NDArray[np.bool_]

    @classmethod
    def of(cls, sketches: Sketches, threshold: float) -> Self:
        """The bands that find a pair at `threshold`."""
        bands, rows = bands_for(threshold)
        keys, texts, chars = [], [], []
        for space, shingles in enumerate((sketches.words, sketches.chars)):
            texts.append(np.flatnonzero(shingles.sizes))
            keys.append(band_keys(signatures(shingles.take(texts[-1])), bands, rows, space))
            chars.append(np.full(len(texts[-1]), space == 1))
        order = np.argsort(np.concatenate(texts), kind="stable")
        return cls(np.concatenate(keys)[order], np.concatenate(texts)[order], np.concatenate(chars)[order])

    @cached_property
    def buckets(self) -> tuple[Indices, Indices]:
        """Buckets and rows of all keys that rows share, bucket by bucket, the rows of each ascending; lone keys are left out."""
        entries = self.keys.astype(np.uint64) << np.uint64(32)
        entries |= np.arange(len(self.keys), dtype=np.uint64)[:, None]
        entries = entries.ravel()
        entries.sort()
        keys = (entries >> np.uint64(32)).astype(np.uint32)
        same = np.zeros(len(keys) + 1, dtype=bool)
        np.equal(keys[1:], keys[:-1], out=same[1:-1])
        shared = same[1:] | same[:-1]
        return np.cumsum(~same[:-1][shared]) - 1, (entries[shared] & np.uint64(0xFFFFFFFF)).astype(np.int64)

    def agreeing(self, threshold: float) -> int:
        """In how many bands two rows must agree to be compared: the most, hence the fewest pairs, that loses 1 in 1,000 at `threshold`."""
        bands = self.keys.shape[1]
        chance = threshold ** (PERMUTATIONS // bands)
        needed, lost = 1, (1 - chance) ** bands
        while lost <= _LOST and needed < bands:
            lost += math.comb(bands, needed) * chance**needed * (1 - chance) ** (bands - needed)
            needed += lost <= _LOST
        return max(needed, 2)


class Pairs(NamedTuple):
    """Compared pairs of texts, the lower first, with their exact similarity."""

    first: Indices
    second: Indices
    similarity: NDArray[np.float64]

    @classmethod
    def join(cls, parts: Sequence["Pairs"]) -> "Pairs":
        """The pairs of all parts, in order."""
        none = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
        return cls(*(np.concatenate(column) for column in zip(none, *parts, strict=True)))

    def near(self, threshold: float) -> "Pairs":
        """Those that reach the threshold."""
        take = self.similarity >= threshold
        return Pairs(self.first[take], self.second[take], self.similarity[take])


def _compare(sketches: Sketches, bands: Bands, one: Indices, other: Indices, agreeing: int) -> Pairs:
    """The pairs of rows that agree in so many bands, as pairs of texts."""
    codes = np.unique((np.minimum(one, other) << 32) | np.maximum(one, other))
    found = []
    for start in range(0, len(codes), _BATCH):
        part = codes[start : start + _BATCH]
        a, b = part >> 32, part & 0xFFFFFFFF
        take = (bands.texts[a] != bands.texts[b]) & (bands.chars[a] == bands.chars[b])
        a, b = a[take], b[take]
        take = (bands.keys[a] == bands.keys[b]).sum(axis=1) >= agreeing
        first, second = bands.texts[a[take]], bands.texts[b[take]]
        found.append(Pairs(first, second, similarities(sketches, first, sketches, second)))
    return Pairs.join(found)


class Kept(NamedTuple):
    """What `keep_first` found: twins, and every pair that it compared."""

    twins: Twins
    compared: Pairs


def keep_first(
    sketches: Sketches,
    bands: Bands,
    threshold: float,
    uses: Indices,
    dropped: NDArray[np.bool_] | None = None,
) -> Kept:
    """Take the texts in order and drop each that has a twin among those kept before it: who has a twin, is dropped.

    The same as comparing text by text, in fewer steps: a text is decided once all lower texts of its buckets are, so each
    round decides many. Texts of two `uses` are no twins. `dropped` texts are decided beforehand; they are given twins too,
    but are nobody's.
    """
    count, agreeing = len(sketches.short), bands.agreeing(threshold)
    twins = Twins.none(count)
    compared: list[Pairs] = []
    undecided = np.ones(count, dtype=bool) if dropped is None else ~dropped
    bucket, row = bands.buckets
    while True:
        text = bands.texts[row]
        waiting = np.flatnonzero(undecided[text])
        if not len(waiting):
            return Kept(twins, Pairs.join(compared))
        heads = waiting[np.unique(bucket[waiting], return_index=True)[1]]  # the lowest waiting text of each bucket
        head_of = np.full(bucket[-1] + 1, count)
        head_of[bucket[heads]] = text[heads]
        leads = head_of[bucket[waiting]] == text[waiting]
        blocked = np.zeros(count, dtype=bool)
        blocked[text[waiting[~leads]]] = True
        kept = heads[~blocked[text[heads]]]
        sizes = np.searchsorted(bucket, bucket[kept], side="right") - kept - 1
        compared.append(_compare(sketches, bands, np.repeat(row[kept], sizes), row[spans(kept + 1, sizes)], agreeing))
        pairs = compared[-1].near(threshold)
        alike = uses[pairs.first] == uses[pairs.second]
        twins.offer(pairs.second[alike], pairs.first[alike], pairs.similarity[alike])
        undecided[text[kept]] = False
        undecided[pairs.second[alike]] = False
        is_kept = np.zeros(count, dtype=bool)
        is_kept[text[kept]] = True
        still = np.zeros(bucket[-1] + 1, dtype=bool)
        still[bucket[undecided[text]]] = True
        rest = ~is_kept[text] & still[bucket]
        bucket, row = bucket[rest], row[rest]


def families(sketches: Sketches, bands: Bands, threshold: float, known: Pairs | None = None, apart: Indices | None = None) -> Indices:
    """For each text the lowest position that a chain of pairs at the threshold joins it to; itself when there is none.

    `known` pairs are not compared again. Texts of two numbers in `apart` are no pair.
    """
    root = np.arange(len(sketches.short))
    apart = np.zeros(len(root), dtype=np.int64) if apart is None else apart
    known_codes = np.zeros(0, dtype=np.int64)
    if known is not None:
        alike = (known.similarity >= threshold) & (apart[known.first] == apart[known.second])
        root = _joined(root, known.first[alike], known.second[alike])
        known_codes = np.sort((known.first << 32) | known.second)
    agreeing = bands.agreeing(threshold)
    bucket, row = bands.buckets
    distance = 1
    while len(row) > distance:
        # neighbours at growing distance within a bucket, leaving out those that are joined already
        near = np.flatnonzero(bucket[distance:] == bucket[:-distance])
        if not len(near):
            return root
        a, b = bands.texts[row[near]], bands.texts[row[near + distance]]
        open_ = (root[a] != root[b]) & (apart[a] == apart[b]) & ~_in(known_codes, (a << 32) | b)
        two = near[open_]
        pairs = _compare(sketches, bands, row[two], row[two + distance], agreeing).near(threshold)
        root = _joined(root, pairs.first, pairs.second)
        distance += 1
    return root


def _in(ascending: Indices, codes: Indices) -> NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(codes), dtype=bool)
    places = np.minimum(np.searchsorted(ascending, codes), len(ascending) - 1)
    found: NDArray[np.bool_] = ascending[places] == codes
    return found


def join(root: Indices, kin: Sequence[Sequence[int]]) -> Indices:
    """The roots after the texts of each list in `kin` have become one family."""
    pairs = [(own[0], other) for own in kin for other in own[1:]]
    if not pairs:
        return root
    first, second = np.array(pairs, dtype=np.int64).T
    return _joined(root, first, second)


def _joined(root: Indices, first: Indices, second: Indices) -> Indices:
    """The roots after each first[i] has become one family with second[i]; the lowest position is a family's root."""
    while True:
        one, other = root[first], root[second]
        apart = one != other
        if not apart.any():
            return root
        np.minimum.at(root, np.maximum(one, other)[apart], np.minimum(one, other)[apart])
        while (root[root] != root).any():
            root = root[root]


def nearest(sketches: Sketches, known: Sketches, threshold: float) -> Twins:
    """For each text its nearest twin among the known ones."""
    twins = Twins.none(len(sketches.short))
    bands, known_bands = Bands.of(sketches, threshold), Bands.of(known, threshold)
    keys = known_bands.keys.ravel()
    order = np.argsort(keys)
    keys = keys[order]
    known_rows = order // max(known_bands.keys.shape[1], 1)
    asked = bands.keys.ravel()
    begins = np.searchsorted(keys, asked, side="left")
    sizes = np.searchsorted(keys, asked, side="right") - begins
    rows = np.repeat(np.arange(len(asked)) // bands.keys.shape[1], sizes)
    codes, agreeing = np.unique((rows << 32) | known_rows[spans(begins, sizes)], return_counts=True)
    codes = codes[agreeing >= 2]
    texts, others = bands.texts[codes >> 32], known_bands.texts[codes & 0xFFFFFFFF]
    similarity = similarities(sketches, texts, known, others)
    near = similarity >= threshold
    twins.offer(texts[near], others[near], similarity[near])
    return twins
