"""How different the texts are from one another, and whether new ones still bring new words or the generator is running dry.

Every measure of sameness depends on how much text it sees: a longer text repeats more. So all are taken in blocks of equally many texts,
drawn by the hash of their ids, and what is shown is the mean over blocks with Student's t-interval. Two data sets, two topics or two
months can then be compared. Bootstrapping texts would not do here: a text that is drawn twice is its own twin.

distinct-n          distinct word n-grams among all of a block (Li et al. 2016)
self-BLEU           BLEU of each text against all others of its block (Zhu et al. 2018); high means alike
compression ratio   bytes over their deflated size (Shaib et al. 2024); high means alike
bigram entropy      of the block's word bigrams, 1 where each is different

Words are those of `filters.similarity`: without case and punctuation, a Chinese, Japanese or Korean character is one.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datagen.filters.similarity import Indices, Lists, hash_words, windows
from datagen.records import Record

BLOCK = 100  # texts of a block of the whole set
MOST_BLOCKS = 20
TOPIC_BLOCK = 20
TOPIC_BLOCKS = 5
MOST_TOPICS = 200
WINDOWS = 20
FEWEST_IN_WINDOW = 10
NEW_NGRAM = 3
# Nine of ten word trigrams of a new text were written before: what it adds is hardly more than a shuffling of the old ones.
DRY_BELOW = 0.1

_BLEU_ORDERS = 4
_BLOCK_KEY = np.uint64(0x9E3779B97F4A7C15)

Floats = NDArray[np.float64]
Standing = Literal["producing", "running dry", "cannot be told"]


class Text(NamedTuple):
    """One text of a generator; a list of them is in the order of creation."""

    id: str
    topic: str
    generator: str
    text: str


class Estimate(Record):
    """A mean with its 95 % interval by Student's t; None where there is one block only."""

    value: float
    low: float | None = None
    high: float | None = None


class Spread(Record):
    """How different the texts of one kind are. `size` is how many texts a block has: measures of unlike sizes cannot be compared.

    A measure is None where no block has an n-gram of its length.
    """

    name: str
    texts: int
    blocks: int
    size: int
    words: float
    distinct_1: Estimate | None
    distinct_2: Estimate | None
    distinct_3: Estimate | None
    self_bleu: Estimate | None
    compression: Estimate | None
    entropy: Estimate | None


class Window(Record):
    """Texts of one stretch of the making: the mean share of their trigrams that no text before had."""

    before: int
    texts: int
    new: Estimate


class Supply(Record):
    """Whether a generator still produces new text.

    windows       equally many texts each, in order of creation
    late          share of new trigrams over the last quarter
    per_doubling  change of that share with each doubling of the texts (-0.2: a fifth less), fitted to the later half of the windows
    dry_since     how many texts there were when the share fell below DRY_BELOW for good
    """

    name: str
    texts: int
    windows: tuple[Window, ...]
    late: Estimate | None
    per_doubling: Estimate | None
    standing: Standing
    dry_since: int | None


class Balance(Record):
    """How evenly rows lie over topics: normalised entropy of the rows and of the plan, and the share of rows that lie wrong.

    These are counts of all rows, no sample, so they have no interval. `misplaced` is the total variation distance from the plan.
    """

    topics: int
    entropy: float
    planned_entropy: float
    misplaced: float


class Diversity(Record):
    """All measures of a data set: the accepted inputs (and answers, where they are free text), and the supply of all that was made."""

    inputs: Spread | None
    answers: Spread | None
    topics: tuple[Spread, ...]
    topics_left_out: int
    balance: Balance | None
    supply: Supply
    generators: tuple[Supply, ...]


def measure(
    made: Sequence[Text],
    accepted: Sequence[Text],
    *,
    answers: Sequence[Text] = (),
    target: Mapping[str, int],
    seed: int,
) -> Diversity:
    """Measure a data set. The same texts and seed give the same numbers on every machine.

    made      inputs of all examples, in order of creation, also of those that were dropped: dropping twins hides a dry generator
    accepted  inputs of accepted examples; `answers` their completions, where these are free text
    target    how many rows the plan wants of each topic
    """
    by_topic: dict[str, list[Text]] = {}
    for text in accepted:
        by_topic.setdefault(text.topic, []).append(text)
    large = sorted((topic for topic, own in by_topic.items() if len(own) >= TOPIC_BLOCK), key=lambda topic: (-len(by_topic[topic]), topic))
    measured = sorted(large[:MOST_TOPICS])
    counts = {topic: len(own) for topic, own in by_topic.items()}
    supply, generators = _supplies(made)
    return Diversity(
        inputs=_first(spreads({"inputs": accepted}, seed=seed)),
        answers=_first(spreads({"answers": answers}, seed=seed)),
        topics=tuple(spreads({topic: by_topic[topic] for topic in measured}, seed=seed, size=TOPIC_BLOCK, most=TOPIC_BLOCKS)),
        topics_left_out=len(set(target) | set(by_topic)) - len(measured),
        balance=balance(counts, target),
        supply=supply,
        generators=generators,
    )


def _first(found: Sequence[Spread]) -> Spread | None:
    return found[0] if found else None


# -- sameness, in blocks


def spreads(kinds: Mapping[str, Sequence[Text]], *, seed: int, size: int = BLOCK, most: int = MOST_BLOCKS) -> list[Spread]:
    """The measures of each kind of texts, all in one pass. A kind with fewer texts than a block is one smaller block; of one text
    nothing can be said."""
    drawn: list[Text] = []
    block_of: list[int] = []
    shape: dict[str, range] = {}
    first = 0
    for name, texts in kinds.items():
        if len(texts) < 2:
            continue
        chosen = sorted(texts, key=lambda text: blake2b(f"{seed}:{text.id}".encode(), digest_size=8).digest())
        whole = min(most, max(1, len(texts) // size))
        shape[name] = range(first, first + whole)
        for place, text in enumerate(chosen[: whole * size]):
            drawn.append(text)
            block_of.append(first + place // size)
        first += whole
    if not drawn:
        return []
    blocks = np.array(block_of, dtype=np.int64)
    values = _of_blocks([text.text for text in drawn], blocks)
    return [
        Spread(
            name=name,
            texts=len(kinds[name]),
            blocks=len(own),
            size=min(size, len(kinds[name])),
            words=float(values["words"][own.start : own.stop].mean()),
            **{measure: _of_known(values[measure][own.start : own.stop]) for measure in values if measure != "words"},
        )
        for name, own in shape.items()
    ]


def _of_blocks(texts: Sequence[str], blocks: Indices) -> dict[str, Floats]:
    """Every measure of every block."""
    count = int(blocks.max()) + 1
    lists = hash_words(texts)
    values: dict[str, Floats] = {"words": np.bincount(blocks, lists.sizes, count) / np.bincount(blocks, minlength=count)}
    scorer = _SelfBleu(lists, blocks, count)
    for order in range(1, _BLEU_ORDERS + 1):
        runs = windows(lists, order)
        owner = np.repeat(np.arange(len(texts)), runs.sizes)
        # the same run in two blocks is two runs
        keys = runs.values ^ (_BLOCK_KEY * (blocks[owner].astype(np.uint64) + np.uint64(1)))
        by_key = np.lexsort((owner, keys))
        keys, owner = keys[by_key], owner[by_key]
        scorer.add(keys, owner)
        if order < _BLEU_ORDERS:
            begins = _begins(keys)
            sizes = np.diff(np.append(begins, len(keys)))
            of_block = blocks[owner[begins]]
            total = np.bincount(blocks, runs.sizes, count).astype(float)
            values[f"distinct_{order}"] = _divided(np.bincount(of_block, minlength=count).astype(float), total)
            if order == 2:
                share = sizes / np.maximum(total[of_block], 1)
                entropy = np.bincount(of_block, -share * np.log2(share), count).astype(float)
                values["entropy"] = _divided(entropy, np.where(total > 0, np.log2(np.maximum(total, 2)), 0.0))
    values["self_bleu"] = scorer.means()
    members: list[list[bytes]] = [[] for _ in range(count)]
    for text, block in zip(texts, blocks, strict=True):
        members[block].append(text.encode("utf-8", "replace"))
    joined = [b"\n".join(own) for own in members]
    values["compression"] = np.array([len(data) / len(zlib.compress(data, 6)) for data in joined])
    return values


def _begins(ordered: NDArray[np.generic]) -> Indices:
    """Where each run of equal values begins."""
    if not len(ordered):
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))


def _divided(part: Floats, whole: Floats) -> Floats:
    """The quotients, NaN where the whole is nothing."""
    found: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return found


class _SelfBleu:
    """Sentence BLEU of every text against the others of its block, for all texts at once.

    As sacrebleu's with `effective_order` and exponential smoothing, on our words: an n-gram counts as often as the other text that has
    it most often. It needs of each n-gram the two highest counts in a block, so it is linear in the text, and not in the pairs.
    """

    def __init__(self, lists: Lists, blocks: Indices, count: int) -> None:
        self._sizes, self._blocks, self._count, self._order = lists.sizes, blocks, count, 0
        texts = len(self._sizes)
        self._log = np.zeros(texts)
        self._orders, self._matched, self._smooth = np.zeros(texts), np.zeros(texts), np.ones(texts)

    def add(self, keys: NDArray[np.uint64], owner: Indices) -> None:
        """Take in the n-grams of the next order, as (block and n-gram, text) in order."""
        texts = len(self._sizes)
        total = np.maximum(self._sizes - self._order, 0).astype(float)
        self._order += 1
        begins = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]) | (owner[1:] != owner[:-1]))) if len(keys) else _begins(keys)
        counts = np.diff(np.append(begins, len(keys)))
        keys, owner = keys[begins], owner[begins]
        by_count = np.lexsort((-counts, keys))
        keys, owner, counts = keys[by_count], owner[by_count], counts[by_count]
        firsts = _begins(keys)
        group = np.cumsum(np.isin(np.arange(len(keys)), firsts)) - 1
        second = np.zeros(len(firsts), dtype=np.int64)
        more = np.diff(np.append(firsts, len(keys))) > 1
        second[more] = counts[firsts[more] + 1]
        others = counts[firsts][group]
        others[firsts] = second
        correct = np.bincount(owner, np.minimum(counts, others), texts)
        has = total > 0
        missed = has & (correct == 0)
        self._smooth[missed] *= 2
        hit = has & ~missed
        precision = np.ones(texts)
        precision[hit] = correct[hit] / total[hit]
        precision[missed] = 1 / (self._smooth[missed] * total[missed])
        self._log += np.log(precision)
        self._orders += has
        self._matched += correct

    def scores(self) -> Floats:
        """BLEU of each text, from 0 to 1."""
        brevity = np.ones(len(self._sizes))
        for block in range(self._count):
            own = np.flatnonzero(self._blocks == block)
            brevity[own] = _brevity(self._sizes[own])
        return np.where(self._matched > 0, brevity * np.exp(self._log / np.maximum(self._orders, 1)), 0.0)

    def means(self) -> Floats:
        """The mean of each block."""
        return np.bincount(self._blocks, self.scores(), self._count) / np.bincount(self._blocks, minlength=self._count)


def _brevity(sizes: Indices) -> Floats:
    """BLEU's brevity penalty of each length against the nearest of the other lengths; of two as near, the shorter."""
    if len(sizes) < 2:
        return np.ones(len(sizes))
    order = np.argsort(sizes, kind="stable")
    ordered = sizes[order].astype(float)
    below = np.append(-np.inf, ordered[:-1])
    above = np.append(ordered[1:], np.inf)
    nearest = np.where(ordered - below <= above - ordered, below, above)
    penalty = np.where(ordered >= nearest, 1.0, np.exp(1 - nearest / np.maximum(ordered, 1)))
    found = np.empty(len(sizes))
    found[order] = np.where(ordered > 0, penalty, 0.0)
    return found


def _of_known(values: Floats) -> Estimate | None:
    known = values[~np.isnan(values)]
    return estimate(known) if len(known) else None


def estimate(values: Floats) -> Estimate:
    """The mean of independent values with Student's 95 % interval."""
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Estimate(value=mean)
    half = _t(n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Estimate(value=mean, low=mean - half, high=mean + half)


def _t(degrees: int) -> float:
    from scipy.special import stdtrit  # a tenth of a second of import that other commands need not pay

    return float(stdtrit(degrees, 0.975))


# -- supply, over time


def _supplies(made: Sequence[Text]) -> tuple[Supply, tuple[Supply, ...]]:
    """The supply of all generators together and of each.

    A plan is worked off topic by topic, so by the clock each new topic would look like a fresh spring. Texts are therefore
    lined up by how far their own cell (topic and generator) had come: every window holds the same mix of cells.
    """
    order = interleaved([(text.topic, text.generator) for text in made])
    texts = [made[place] for place in order]
    new = new_shares([text.text for text in texts])
    names = np.array([text.generator for text in texts], dtype=object)
    each = tuple(supply(str(name), new[names == name]) for name in sorted(set(names)))
    return supply("all", new), each


def interleaved(cells: Sequence[tuple[str, str]]) -> list[int]:
    """Places in the order of progress: the first of every cell before the second half of any."""
    sizes: dict[tuple[str, str], int] = {}
    ranks = []
    for cell in cells:
        ranks.append(sizes.get(cell, 0))
        sizes[cell] = ranks[-1] + 1
    return sorted(range(len(cells)), key=lambda place: ((ranks[place] + 0.5) / sizes[cells[place]], place))


def new_shares(texts: Sequence[str]) -> Floats:
    """For each text the share of its distinct trigrams that no earlier text has; NaN for a text of fewer than three words."""
    runs = windows(hash_words(texts), NEW_NGRAM)
    owner = np.repeat(np.arange(len(texts)), runs.sizes)
    by_key = np.argsort(runs.values, kind="stable")  # within a key, texts stay in their order
    keys, owner = runs.values[by_key], owner[by_key]
    new_key = np.append(True, keys[1:] != keys[:-1]) if len(keys) else np.zeros(0, dtype=bool)
    once = new_key | np.append(True, owner[1:] != owner[:-1]) if len(keys) else new_key  # a trigram counts once in a text
    distinct = np.bincount(owner[once], minlength=len(texts))
    new = np.bincount(owner[new_key], minlength=len(texts))
    return _divided(new.astype(float), distinct.astype(float))


def supply(name: str, new: Floats) -> Supply:
    """From the shares of new trigrams of texts in order of creation: windows, trend and a plain verdict."""
    new = new[~np.isnan(new)]
    count = min(WINDOWS, len(new) // FEWEST_IN_WINDOW)
    edges = np.linspace(0, len(new), count + 1).astype(int) if count else np.zeros(1, dtype=int)
    stretches = tuple(Window(before=int(a), texts=int(b - a), new=_bounded(estimate(new[a:b]))) for a, b in pairwise(edges))
    late = _bounded(estimate(new[-max(1, len(new) // 4) :])) if count >= 2 else None
    standing: Standing = "cannot be told"
    dry_since = None
    if late is not None and late.low is not None and late.high is not None:
        if late.low > DRY_BELOW:
            standing = "producing"
        elif late.high < DRY_BELOW:
            standing = "running dry"
            wet = [place for place, window in enumerate(stretches) if (window.new.high or 0.0) >= DRY_BELOW]
            dry_since = stretches[min(max(wet, default=-1) + 1, len(stretches) - 1)].before
    return Supply(
        name=name, texts=len(new), windows=stretches, late=late, per_doubling=_trend(stretches), standing=standing, dry_since=dry_since
    )


def _bounded(found: Estimate) -> Estimate:
    if found.low is None or found.high is None:
        return found
    return Estimate(value=found.value, low=max(0.0, found.low), high=min(1.0, found.high))


def _trend(stretches: Sequence[Window]) -> Estimate | None:
    """Change with each doubling of the texts: a line through log share against log count, over the later half of the windows."""
    later = stretches[len(stretches) // 2 :]
    if len(later) < 4 or any(window.new.value <= 0 for window in later):
        return None
    x = np.log2([window.before + window.texts / 2 for window in later])
    y = np.log2([window.new.value for window in later])
    centred = x - x.mean()
    slope = float((centred * y).sum() / (centred**2).sum())
    rest = y - y.mean() - slope * centred
    half = _t(len(x) - 2) * math.sqrt(float((rest**2).sum()) / (len(x) - 2) / float((centred**2).sum()))
    return Estimate(value=2**slope - 1, low=2 ** (slope - half) - 1, high=2 ** (slope + half) - 1)


# -- balance over topics


def balance(counts: Mapping[str, int], target: Mapping[str, int]) -> Balance | None:
    """Rows over topics against the plan; None where there is nothing to compare."""
    topics = sorted({topic for topic, wanted in target.items() if wanted} | set(counts))
    rows = np.array([counts.get(topic, 0) for topic in topics], dtype=float)
    wanted = np.array([target.get(topic, 0) for topic in topics], dtype=float)
    if not rows.sum() or not wanted.sum():
        return None
    rows, wanted = rows / rows.sum(), wanted / wanted.sum()
    return Balance(
        topics=len(topics),
        entropy=_normalised_entropy(rows),
        planned_entropy=_normalised_entropy(wanted),
        misplaced=float(np.abs(rows - wanted).sum() / 2),
    )


def _normalised_entropy(shares: Floats) -> float:
    """Entropy over that of an even distribution; 1 for a single topic."""
    if len(shares) < 2:
        return 1.0
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum() / math.log(len(shares)))


# -- words


def said(supply: Supply) -> str:
    """The verdict on a supply in a sentence."""
    if supply.late is None or supply.late.low is None or supply.late.high is None:
        return f"Cannot be told: {supply.texts} texts are too few to see a trend."
    share = f"{supply.late.value:.0%} of the trigrams in its last quarter are new ({supply.late.low:.0%} to {supply.late.high:.0%})"
    trend = ""
    if supply.per_doubling is not None and supply.per_doubling.low is not None and supply.per_doubling.high is not None:
        change = supply.per_doubling
        trend = f"; with each doubling of the texts that share changes by {change.value:+.0%} ({change.low:+.0%} to {change.high:+.0%})"
    match supply.standing:
        case "producing":
            return f"Still producing new text: {share}{trend}."
        case "running dry":
            advice = "More calls bring little: change prompts, dimensions or seeds"
            return f"Running dry since {supply.dry_since:,} texts: {share}{trend}. {advice}."
        case _:
            return f"Cannot be told: {share}, about the {DRY_BELOW:.0%} that count as dry{trend}."
