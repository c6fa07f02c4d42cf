"""When two texts are nearly the same: normalised words, shingles, MinHash bands and exact Jaccard. Dedup and decontamination stand on it.

The rule: two texts are compared by word 3-grams when both have 8 words or more, and by character 5-grams when either is shorter,
because a text of 5 words has only 3 word 3-grams and one changed word would leave none of them. A Chinese, Japanese or Korean
character counts as a word.

MinHash follows datasketch's `affine32` scheme bit for bit (its permutations, vectorised over many texts), so that signatures
interoperate with it; bands are chosen so that a pair at the threshold is found with probability >= 0.99 (Leskovec et al., Mining of
Massive Datasets, chapter 3.4). What the bands find is only a candidate: the exact Jaccard similarity decides.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

Words = NDArray[np.uint64]

SHORT_WORDS = 8  # a text with fewer words is compared by characters
_NEAR_SHORT_WORDS = 16  # no text of this many words reaches Jaccard 0.6 with a short one: each extra space changes 5 shingles
_WORD_NGRAM = 3
_CHAR_NGRAM = 5
_PERMUTATIONS = 96
_RECALL = 0.99
_CHUNK = 256  # texts per vectorised step: temporaries stay in the CPU's cache

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(f"[{_CJK}]|[^\\W_{_CJK}]+")
_APOSTROPHES = str.maketrans("", "", "'\u2019\u2018\u02bc`")


def words(text: str) -> list[str]:
    """The words of a text without case, punctuation, apostrophes or accents' spelling (NFKC); CJK characters one by one."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text.casefold().translate(_APOSTROPHES))


def normalise(text: str) -> str:
    """What two texts share when they differ in case, spacing and punctuation only. A text without words stays as it is."""
    return " ".join(words(text)) or " ".join(text.split())


def word_hash(word: str) -> int:
    """64 bits of BLAKE2b: the same in every process and on every machine."""
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class Hasher:
    """Texts to arrays of word hashes; remembers the words it has met."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, text_words: Sequence[str]) -> Words:
        """One 64-bit hash per word, in order."""
        known = self._known
        hashes = []
        for word in text_words:
            value = known.get(word)
            if value is None:
                value = known[word] = word_hash(word)
            hashes.append(value)
        return np.array(hashes, dtype=np.uint64)


def windows(tokens: Words, n: int) -> Words:
    """Hashes of all runs of `n` tokens (64-bit, so equal means equal); a text shorter than `n` is one run."""
    n = min(n, len(tokens))
    if not n:
        return tokens
    hashes = tokens[: len(tokens) - n + 1]
    for offset in range(1, n):
        hashes = _mix(hashes) + tokens[offset : len(tokens) - n + 1 + offset]
    return _mix(hashes)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _mix32(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """MurmurHash3's 32-bit finaliser, with which datasketch's affine32 begins."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


@functools.cache
def _permutations() -> NDArray[np.uint32]:
    """datasketch's own parameters (seed 1): multipliers and offsets, shape (2, 96)."""
    return np.array(MinHash(num_perm=_PERMUTATIONS, seed=1, scheme="affine32").permutations, dtype=np.uint32)


def bands_for(threshold: float) -> tuple[int, int]:
    """(bands, rows) out of 96 hashes: the most rows, hence the fewest false candidates, that find a pair at `threshold` in >= 99 %.

    A pair of Jaccard s shares a band with probability 1 - (1 - s^rows)^bands: 0.8 takes (16, 6), 0.7 takes (24, 4).
    """
    for rows in (12, 8, 6, 4, 3, 2):
        bands = _PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    return _PERMUTATIONS, 1


def signatures(shingles: Sequence[Words]) -> NDArray[np.uint32]:
    """MinHash signatures, shape (texts, 96), equal to datasketch's MinHash(96, hashfunc=lambda s: s >> 32) over each text's shingles."""
    result = np.empty((len(shingles), _PERMUTATIONS), dtype=np.uint32)
    multipliers, offsets = _permutations()
    for start in range(0, len(shingles), _CHUNK):
        chunk = shingles[start : start + _CHUNK]
        starts = np.cumsum([0, *(len(s) for s in chunk[:-1])])
        hashed = _mix32((np.concatenate(chunk) >> np.uint64(32)).astype(np.uint32))
        for k in range(_PERMUTATIONS):
            result[start : start + len(chunk), k] = np.minimum.reduceat(hashed * multipliers[k] + offsets[k], starts)
    return result


def band_keys(signature: NDArray[np.uint32], bands: int, rows: int) -> NDArray[np.uint64]:
    """One 64-bit key per band, shape (texts, bands); the band's number is part of its key."""
    parts = signature.reshape(len(signature), bands, rows).astype(np.uint64)
    keys = np.broadcast_to(np.arange(bands, dtype=np.uint64), parts.shape[:2])
    for row in range(rows):
        keys = _mix(keys) + parts[:, :, row]
    return _mix(keys)


class Twin(NamedTuple):
    """A text of the index, by its position, and its exact Jaccard similarity to the one asked about."""

    position: int
    similarity: float


class _Space:
    """Texts in one kind of shingle, with their band keys."""

    def __init__(self, members: list[int], shingles: list[Words], threshold: float) -> None:
        self.row = {position: row for row, position in enumerate(members)}
        self.shingles = shingles
        self.sets: dict[int, frozenset[int]] = {}
        self.keys: list[list[int]] = []
        if members:
            self.keys = band_keys(signatures(shingles), *bands_for(threshold)).tolist()
        self.buckets: dict[int, list[int]] = {}

    def shingle_set(self, position: int) -> frozenset[int]:
        """The text's shingles, made when first asked for."""
        if position not in self.sets:
            self.sets[position] = frozenset(self.shingles[self.row[position]].tolist())
        return self.sets[position]


class NearTexts:
    """An index over a fixed list of texts: add positions one by one, and find those added that are near to another.

    texts       all texts that will be added or asked about
    threshold   exact Jaccard similarity from which a pair counts
    """

    def __init__(self, texts: Sequence[str], threshold: float) -> None:
        self.threshold = threshold
        self.words = [words(text) for text in texts]
        self._short = [len(w) < SHORT_WORDS for w in self.words]
        by_chars = [i for i, w in enumerate(self.words) if len(w) < _NEAR_SHORT_WORDS]
        by_words = [i for i, short in enumerate(self._short) if not short]
        hasher = Hasher()
        self._chars = _Space(by_chars, [_char_shingles(normalise(texts[i])) for i in by_chars], threshold)
        self._words = _Space(by_words, [windows(hasher(self.words[i]), _WORD_NGRAM) for i in by_words], threshold)

    def add(self, position: int) -> None:
        """From now on, `position` is found."""
        for space in (self._chars, self._words):
            if position in space.row:
                for key in space.keys[space.row[position]]:
                    space.buckets.setdefault(key, []).append(position)

    def candidates(self, position: int) -> list[int]:
        """Positions that share a band with `position` under the rule that compares the two, in order."""
        found: set[int] = set()
        for space in (self._chars, self._words):
            if position in space.row:
                for key in space.keys[space.row[position]]:
                    found.update(space.buckets.get(key, ()))
        found.discard(position)
        return sorted(found)

    def similarity(self, a: int, b: int) -> float:
        """Exact Jaccard similarity of two texts by the rule of this file."""
        space = self._chars if self._short[a] or self._short[b] else self._words
        if a not in space.row or b not in space.row:
            return 0.0
        one, other = space.shingle_set(a), space.shingle_set(b)
        small, large = sorted((len(one), len(other)))
        if small < self.threshold * large:  # cannot reach the threshold
            return 0.0
        shared = len(one & other)
        return shared / (small + large - shared)

    def near(self, position: int) -> Iterator[Twin]:
        """Those added whose exact similarity to `position` reaches the threshold, in order of position."""
        for other in self.candidates(position):
            similarity = self.similarity(position, other)
            if similarity >= self.threshold:
                yield Twin(other, similarity)

    def nearest(self, position: int) -> Twin | None:
        """The most similar one of those added that reach the threshold; the lowest position among equals."""
        return max(self.near(position), key=lambda twin: (twin.similarity, -twin.position), default=None)


def _char_shingles(text: str) -> Words:
    padded = text.ljust(_CHAR_NGRAM, "\0")
    codes = np.frombuffer(padded.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    return windows(codes, _CHAR_NGRAM)
