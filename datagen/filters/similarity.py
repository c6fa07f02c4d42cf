"""When two texts are nearly the same: normalised words, shingles, MinHash and exact Jaccard. Dedup and decontamination stand on it.

The rule: two texts are compared by word 3-grams when both have 8 words or more, and by character 5-grams when either is shorter,
because a text of 5 words has only 3 word 3-grams and one changed word would leave none of them. A Chinese, Japanese or Korean
character counts as a word.

`sketch` makes, of many texts at once, what the search in near.py needs. It works on the bytes of a few hundred texts at a time,
so that temporaries stay in the CPU's cache: a Python loop over words costs ten times as much. Words and their runs are 64-bit hashes,
a shingle is 56 bits of one, so that the number of a pair fits above it when many pairs are compared at once. Two different
shingles of a pair of texts are taken for equal with a probability below 1e-11.

MinHash follows datasketch's `affine32` scheme bit for bit (its permutations, vectorised over many texts), so that signatures
interoperate with it. datasketch itself hashes shingle by shingle in Python: measured at a tenth of this speed.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]

SHORT_WORDS = 8  # a text with fewer words is compared by characters
PERMUTATIONS = 112
_NEAR_SHORT_WORDS = 16  # no text of this many words reaches Jaccard 0.6 with a short one: each extra space changes 5 shingles
_WORD_NGRAM = 3
_CHAR_NGRAM = 5
_RECALL = 0.99
_CHUNK = 256  # texts, or pairs, per vectorised step; a pair's number fits in the 8 bits above a shingle
_SHINGLE_BITS = np.uint64(56)
_SIGNED_AT_ONCE = 1 << 16  # shingles per step of MinHash
_POWER = np.uint64(0x9E3779B97F4A7C15)  # base of the polynomial that hashes a run

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(f"[{_CJK}]|[^\\W_{_CJK}]+")
_APOSTROPHES = "'\u2019\u2018\u02bc`"
_CJK_ONE = re.compile(f"[{_CJK}]")
_NOT_ASCII = re.compile("[^\0-\x7f]+")

# Bytes of ASCII text: letters in lower case, digits, NUL (between texts), and a space for all else; bytes from 128 on stay.
_DROP = b"'`"
_FOLD = bytes(
    code if code == 0 or code >= 128 or code in _DROP else ord(chr(code).lower()) if chr(code).isalnum() else 32 for code in range(256)
)
_FIRST_BYTES = np.array([(1 << (8 * count)) - 1 for count in range(9)], dtype=np.uint64)


def words(text: str) -> list[str]:
    """The words of a text without case, punctuation, apostrophes or accents' spelling (NFKC); CJK characters one by one."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.casefold()
    for mark in _APOSTROPHES:
        text = text.replace(mark, "")
    return _WORD.findall(text)


def _fold(text: str) -> str:
    """A text whose words, once its ASCII is folded, are those of `words`: most of the work goes into what is not ASCII."""
    return _NOT_ASCII.sub(_fold_run, unicodedata.normalize("NFKC", text).casefold())


def _fold_run(found: re.Match[str]) -> str:
    return "".join(map(_fold_character, found.group()))


@functools.lru_cache(maxsize=4096)
def _fold_character(character: str) -> str:
    if character in _APOSTROPHES:
        return ""
    if not _WORD.match(character):
        return " "
    return f" {character} " if _CJK_ONE.match(character) else character


def normalise(text: str) -> str:
    """What two texts share when they differ in case, spacing and punctuation only. A text without words stays as it is."""
    if text.isascii():  # the same words at a third of the cost
        folded = text.encode().replace(b"\0", b" ").translate(_FOLD, _DROP).split()
        return b" ".join(folded).decode() or " ".join(text.split())
    return " ".join(words(text)) or " ".join(text.split())


class Lists(NamedTuple):
    """Many lists of hashes end to end: list `i` is `values[starts[i]:starts[i + 1]]`."""

    values: Hashes
    starts: Indices

    @property
    def sizes(self) -> Indices:
        """How many hashes each list has."""
        return np.diff(self.starts)

    @classmethod
    def join(cls, parts: Sequence["Lists"]) -> "Lists":
        """The lists of all parts, in order."""
        sizes = np.concatenate([np.zeros(0, dtype=np.int64), *(part.sizes for part in parts)])
        return cls(np.concatenate([np.zeros(0, dtype=np.uint64), *(part.values for part in parts)]), _starts(sizes))

    def take(self, rows: Indices) -> "Lists":
        """The lists of `rows`, in that order."""
        if len(rows) == len(self.starts) - 1 and (rows[1:] > rows[:-1]).all():
            return self
        sizes = self.sizes[rows]
        return Lists(self.values[spans(self.starts[rows], sizes)], _starts(sizes))


def spans(firsts: Indices, sizes: Indices) -> Indices:
    """firsts[0], firsts[0] + 1, ... (sizes[0] of them), firsts[1], ...: the places of many runs."""
    ends = np.cumsum(sizes)
    return np.repeat(firsts - ends + sizes, sizes) + np.arange(ends[-1] if len(ends) else 0)


def _starts(sizes: Indices) -> Indices:
    starts = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=starts[1:])
    return starts


def _mix(values: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _mix32(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """MurmurHash3's 32-bit finaliser, with which datasketch's affine32 begins."""
    values = values ^ (values >> np.uint32(16))
    values *= np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values *= np.uint32(0xC2B2AE35)
    values ^= values >> np.uint32(16)
    return values


def hash_words(texts: Sequence[str]) -> Lists:
    """The words of every text as 64-bit hashes, in order: the same on every machine."""
    return Lists.join([_hash_words(texts[start : start + _CHUNK]) for start in range(0, len(texts), _CHUNK)])


def hash_characters(texts: Sequence[str]) -> Lists:
    """The characters of every text, normalised, as 64-bit hashes, in order."""
    folded = [normalise(text) for text in texts]
    codes = np.frombuffer("".join(folded).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    return Lists(_mix(codes), _starts(np.array([len(text) for text in folded], dtype=np.int64)))


def _hash_words(texts: Sequence[str]) -> Lists:
    folded = [text if text.isascii() else _fold(text) for text in texts]
    # a space in front, so that every word begins at an edge; spaces behind, so that 8 bytes can be read anywhere
    encoded = (" " + "\0".join(folded) + " " * 16).encode("utf-8", "surrogatepass").translate(_FOLD)
    buffer = encoded.replace(b"'", b"").replace(b"`", b"")  # a third of what it costs translate to leave them out
    codes = np.frombuffer(buffer, dtype=np.uint8)
    borders = np.flatnonzero(codes == 0)
    if len(borders) != len(folded) - 1:
        return _hash_words([text.replace("\0", " ") for text in folded])
    inside = codes > 32
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    begins, ends = edges[0::2], edges[1::2]
    lengths = ends - begins
    eights: Hashes = np.ndarray((len(buffer) - 7,), dtype="<u8", buffer=buffer, strides=(1,))
    hashes = eights[begins] & _FIRST_BYTES[np.minimum(lengths, 8)]
    longer = np.flatnonzero(lengths > 8)
    offset = 8
    while len(longer):
        rest = eights[begins[longer] + offset] & _FIRST_BYTES[np.minimum(lengths[longer] - offset, 8)]
        hashes[longer] = _mix(hashes[longer] + np.uint64(offset)) + rest
        offset += 8
        longer = longer[lengths[longer] > offset]
    starts = np.concatenate([[0], np.searchsorted(begins, borders), [len(begins)]])
    return Lists(_mix(hashes), starts.astype(np.int64))


def windows(lists: Lists, n: int, take: NDArray[np.bool_] | None = None) -> Lists:
    """64-bit hashes of all runs of `n` in each list that is taken, a polynomial of the members; a list that is shorter has none."""
    sizes = np.maximum(lists.sizes - (n - 1), 0)
    if take is not None:
        sizes *= take
    if not sizes.any():
        return Lists(np.zeros(0, dtype=np.uint64), _starts(sizes))
    count = len(lists.values) - (n - 1)
    hashes = lists.values[:count]
    for offset in range(1, n):
        hashes = hashes * _POWER
        hashes += lists.values[offset : count + offset]
    # runs that begin in the last n - 1 places of a list reach into the next one
    return Lists(hashes[spans(lists.starts[:-1], sizes)], _starts(sizes))


@functools.cache
def _permutations() -> NDArray[np.uint32]:
    """datasketch's own parameters (seed 1): multipliers and offsets, shape (2, PERMUTATIONS)."""
    return np.array(MinHash(num_perm=PERMUTATIONS, seed=1, scheme="affine32").permutations, dtype=np.uint32)


def signatures(shingles: Lists) -> NDArray[np.uint32]:
    """MinHash signatures, shape (texts, PERMUTATIONS), of lists of 56-bit shingles, none of them empty.

    Equal to those of datasketch's MinHash(PERMUTATIONS, scheme="affine32", hashfunc=lambda shingle: shingle >> 24).
    """
    count = len(shingles.sizes)
    result = np.empty((PERMUTATIONS, count), dtype=np.uint32)
    multipliers, offsets = _permutations()
    start = 0
    while start < count:
        end = max(int(np.searchsorted(shingles.starts, shingles.starts[start] + _SIGNED_AT_ONCE, side="right")) - 1, start + 1)
        begin, firsts = shingles.starts[start], shingles.starts[start:end] - shingles.starts[start]
        hashed = _mix32((shingles.values[begin : shingles.starts[end]] >> np.uint64(24)).astype(np.uint32))
        scratch = np.empty_like(hashed)
        for k in range(PERMUTATIONS):
            np.multiply(hashed, multipliers[k], out=scratch)
            scratch += offsets[k]
            np.minimum.reduceat(scratch, firsts, out=result[k, start:end])
        start = end
    return result.T


def bands_for(threshold: float) -> tuple[int, int]:
    """(bands, rows) of the search: the most rows, hence the fewest false candidates, that find a pair at `threshold` in >= 99 %.

    A pair is a candidate when two bands agree. With Jaccard s a band of r rows agrees with probability p = s^r, so of b bands two
    or more do with 1 - (1-p)^b - b p (1-p)^(b-1) (Leskovec et al., Mining of Massive Datasets, chapter 3.4, for two bands
    in the place of one). 0.8 takes (22, 5), 0.7 takes (28, 4). Asking for two keeps chance meetings in one band
    out of the exact comparison, which costs more than the bands.
    """
    for rows in (16, 12, 10, 8, 6, 5, 4, 3, 2):
        bands, p = PERMUTATIONS // rows, threshold**rows
        if 1 - (1 - p) ** bands - bands * p * (1 - p) ** (bands - 1) >= _RECALL:
            return bands, rows
    return PERMUTATIONS, 1


def band_keys(signature: NDArray[np.uint32], bands: int, rows: int, space: int) -> NDArray[np.uint32]:
    """One key per band, shape (texts, bands). The band's number and the space (0 words, 1 characters) are part of a key.

    32 bits: two texts must agree in two bands, so a chance meeting of two keys costs nothing, and a stored key half as much.
    """
    parts = signature.T[: bands * rows].reshape(bands, rows, -1)
    keys = np.empty((bands, len(signature)), dtype=np.uint64)
    keys[:] = np.arange(2 * bands, dtype=np.uint64)[space::2, None]
    for row in range(0, rows, 2):
        pair = parts[:, row].astype(np.uint64)
        if row + 1 < rows:
            pair |= parts[:, row + 1].astype(np.uint64) << np.uint64(32)
        keys = _mix(keys) + pair
    return np.ascontiguousarray((_mix(keys) >> np.uint64(32)).astype(np.uint32).T)


class Sketches:
    """Many texts, ready to be compared. A text has shingles of words (8 words or more), of characters (up to 15 words), or both.

    short   shape (texts,): whether a text has fewer than 8 words
    words   shingles of words, none for a short text
    chars   shingles of characters, none for a text of 16 words or more
    """

    def __init__(self, short: NDArray[np.bool_], words: Lists, chars: Lists) -> None:
        self.short, self.words, self.chars = short, words, chars
        self._ordered = np.zeros((2, len(short)), dtype=bool)

    def ordered(self, chars: bool, texts: Indices) -> Lists:
        """The shingles of `texts` in ascending order. Few texts are ever compared: each is sorted when it first is."""
        lists, ordered = self.chars if chars else self.words, self._ordered[int(chars)]
        for text in np.unique(texts[~ordered[texts]]).tolist():
            lists.values[lists.starts[text] : lists.starts[text + 1]].sort()
        ordered[texts] = True
        return lists.take(texts)


def sketch(texts: Sequence[str]) -> Sketches:
    """The shingles of every text."""
    counts, word_parts, char_parts = [np.zeros(0, dtype=np.int64)], [], []
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        hashed = _hash_words(chunk)
        sizes = hashed.sizes
        counts.append(sizes)
        word_parts.append(_shingles(hashed, _WORD_NGRAM, sizes >= SHORT_WORDS))
        padded = [
            normalise(text).ljust(_CHAR_NGRAM, "\0") if size < _NEAR_SHORT_WORDS else ""
            for text, size in zip(chunk, sizes.tolist(), strict=True)
        ]
        codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
        lengths = np.array([len(text) for text in padded], dtype=np.int64)
        char_parts.append(_shingles(Lists(_mix(codes), _starts(lengths)), _CHAR_NGRAM, lengths > 0))
    return Sketches(np.concatenate(counts) < SHORT_WORDS, Lists.join(word_parts), Lists.join(char_parts))


def _shingles(lists: Lists, n: int, take: NDArray[np.bool_]) -> Lists:
    """Runs of `n` as 56-bit shingles, with repetitions; none for a list that is not taken."""
    runs = windows(lists, n, take)
    runs.values[:] >>= np.uint64(8)
    return runs


def similarities(one: Sketches, rows: Indices, other: Sketches, columns: Indices) -> NDArray[np.float64]:
    """The exact Jaccard similarity of text rows[i] of `one` and text columns[i] of `other`, by the rule of this file."""
    result = np.empty(len(rows))
    by_chars = one.short[rows] | other.short[columns]
    for chars in (False, True):
        take = np.flatnonzero(by_chars == chars)
        for start in range(0, len(take), _CHUNK):
            part = take[start : start + _CHUNK]
            result[part] = _jaccard(one.ordered(chars, rows[part]), other.ordered(chars, columns[part]))
    return result


def _jaccard(one: Lists, other: Lists) -> NDArray[np.float64]:
    """Of up to 256 pairs of ascending lists, each as a set. |A & B| / |A or B| with |A & B| = |A| + |B| - |A or B|."""
    number = np.arange(len(one.sizes), dtype=np.uint64) << _SHINGLE_BITS
    first = one.values | np.repeat(number, one.sizes)
    second = other.values | np.repeat(number, other.sizes)
    both = np.concatenate([first, second])
    both.sort(kind="stable")  # merges the two ascending halves: a tenth of the cost of sorting
    all_starts = one.starts + other.starts
    union, *sizes = (_distinct(*lists) for lists in ((both, all_starts), (first, one.starts), (second, other.starts)))
    return (sizes[0] + sizes[1] - union) / np.maximum(union, 1)


def _distinct(ascending: Hashes, starts: Indices) -> Indices:
    """How many distinct values each list has, when no value is in two lists: those that repeat the one before are few."""
    repeated = np.flatnonzero(ascending[1:] == ascending[:-1])
    return np.diff(starts) - np.diff(np.searchsorted(repeated, starts))
