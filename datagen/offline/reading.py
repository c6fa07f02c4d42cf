"""Reading: which intent a message has, by a linear reader that learns the grammar's own sentences at first use.

A logistic regression over words and word pairs. It learns from messages drawn with a fixed seed, so every process
reads alike. What does not count in a message (denials, instructions, baits, a second request) is cut off first.
"""

import random
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from datagen.offline.elsewhere import NOT_BANKING, OTHER_BANKING
from datagen.offline.grammar import unwrap
from datagen.offline.knowledge import CURRENCIES, MERCHANTS, PLACES
from datagen.offline.messages import ABSTAIN, ASIDES, FAR, LABELS, LEAVES, OTHER, sentence, write, write_adversarial
from datagen.offline.sentences import PARTS, SENTENCES

NAMES = tuple(sorted(set(LABELS.values())))
_EPOCHS, _BATCH, _RATE = 10, 512, 100.0
_DOUBT = 30.0  # the customers of a support desk mostly want one of its services, so abstaining must win by this much
_WORD = re.compile(r"[a-z']+|[£$€]|\d+")
_GREETING = frozenset(
    _WORD.findall(
        "hi hello hey there good morning afternoon evening day ok okay test hmm thanks thank you anyone yo cheers ta bye dear "
        "bank is anybody all um yes no oh right help please sir or madam"
    )
)
_SECOND = re.compile(
    r"\b(?:and )?(?:also|another thing|second question|one more thing|while i'm here|while im here|by the way"
    r"|on a separate matter|apart from that|another question)[,: ]",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"(?:(?:this|it)(?:'s| is) not about|i(?:'m|m| am) not asking about|this has nothing to do with|(?:^|(?<=[.!?] ))not)"
    r" [^.,:;]+[.,:;]\s*(?:but )?",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.?!\]])\s+|\n+")
_TRICK = re.compile(
    r"(?:previous|your|new|important|\[) ?instruction|system prompt|</system>|^system:|output (?:the )?intent|override:"
    r"|disregard the rules|repeat your|"
    r"give you my pin|need my cvv|send you my password|tell you the pin|security code|type my password|need the cvv|my password is"
    r"|me for the pin|my passcode, just|three digits on the back|have the cvv|me with my pin|card number is|@|(?:\d[ -]?){10}",
    re.IGNORECASE,
)


class Reading(NamedTuple):
    """The label that a message has, the runner-up among the twelve intents, and by how much the first one won."""

    label: str
    second: str
    margin: float


def core(text: str) -> str:
    """The part of a message that says what the customer wants (all of it where nothing else would be left)."""
    kept = [s for s in _SENTENCE.split(text) if not _TRICK.search(s)]
    cut = _DENIAL.sub("", " ".join(kept)) if kept else text
    second = _SECOND.search(cut)
    if second and (len(cut[: second.start()].split()) > 3 or cut[: second.start()].rstrip()[-1:] in tuple(".?!")):
        cut = cut[: second.start()]
    return cut if len(cut.split()) > 1 else " ".join(kept) or text


@cache
def _vocabulary() -> frozenset[str]:
    """Every word of the grammar."""
    lines = [
        *PARTS.values(),
        *SENTENCES.values(),
        *(text for _, text in OTHER_BANKING.values()),
        NOT_BANKING,
        *MERCHANTS,
        *PLACES,
        *CURRENCIES,
    ]
    bare = re.sub(r"<\w+>|\{\w+\}", " ", " ".join(lines).lower().replace("'", ""))
    return frozenset(re.findall(r"[a-z]+", bare)) | frozenset(word for phrase in ASIDES for word in _words(phrase))


@cache
def _by_deletion() -> dict[str, str]:
    """From a word less one letter to the word (Damerau distance 1 by deletions on both sides, as in SymSpell)."""
    index: dict[str, str] = {}
    for word in sorted((w for w in _vocabulary() if len(w) > 3), reverse=True):
        for i in range(len(word)):
            index[word[:i] + word[i + 1 :]] = word
        index[word] = word
    return index


@lru_cache(maxsize=65536)
def _repaired(word: str) -> str:
    """A word of the grammar for a mistyped one."""
    if len(word) < 4 or word in _vocabulary():
        return word
    index = _by_deletion()
    if word in index:
        return index[word]
    shorter = (index.get(word[:i] + word[i + 1 :]) for i in range(len(word)))
    return next((found for found in shorter if found), word)


def _words(text: str) -> list[str]:
    return ["#" if w.isdigit() else w.replace("'", "") for w in _WORD.findall(text.lower().replace("’", "'"))]


@cache
def _asides() -> re.Pattern[str]:
    phrases = sorted({" ".join(_words(phrase)) for phrase in ASIDES}, key=lambda phrase: (-len(phrase), phrase))
    return re.compile(r"\b(?:" + "|".join(phrase for phrase in phrases if " " in phrase) + r"|um|uh|er|erm|you know|i mean)\b")


_SAME = {"our": "my", "we": "i", "were": "im", "weve": "ive"}


def _said(text: str) -> list[str]:
    """The words of a message, mistakes repaired, without greetings, sighs and thanks; a firm's "our" is "my"."""
    said = " ".join([_SAME.get(word, word) for word in map(_repaired, _words(text)[:80])])
    return _asides().sub("", said).split() or said.split()


def _features(words: list[str]) -> list[str]:
    """Words, their beginnings, pairs and pairs with a gap."""
    features = ["^" + " ".join(words[:2]), *words]
    features += [a + " " + b for a, b in pairwise(words)]
    features += [a + "_" + b for a, b in zip(words, words[2:], strict=False)]
    features += ["~" + word[:4] for word in words if len(word) > 4]
    return features


def _lessons(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Messages and their labels to learn from: mostly bare sentences, some dressed, some with tricks."""
    values = {"channel": ("chat", "email", "voice"), "persona": ("ordinary", "non_native"), "difficulty": ("plain", "plain", "typos")}
    for leaf, share in (*((leaf, 700) for leaf in LEAVES), (OTHER, 2400), (FAR, 1000)):
        for i in range(share):
            if i % 3:
                yield unwrap(sentence(leaf, rng, bare=i % 4 == 0)), LABELS[leaf]
            else:
                yield write(leaf, {name: rng.choice(choice) for name, choice in values.items()}, {}, rng), LABELS[leaf]
    for kind in ("negation", "prompt_injection", "credential_bait", "noise"):
        for leaf in LEAVES * 7:
            yield write_adversarial(leaf, kind, {}, rng), LABELS[leaf]


class Mind(NamedTuple):
    """What was learnt: whole sentences with their label, the number of each feature, and weights (features, labels)."""

    heard: dict[str, str]
    numbers: dict[str, int]
    weights: Any


@cache
def _mind() -> Mind:
    """Multinomial logistic regression on TF-IDF by gradient descent with momentum; some two seconds, once in a process."""
    import numpy as np  # here, so that only a process that reads pays for it
    from scipy.sparse import csr_matrix

    rng = random.Random("the offline teacher learns to read")
    lessons = list(_lessons(rng))
    rng.shuffle(lessons)
    index: dict[str, int] = {}
    columns: list[int] = []
    starts = [0]
    heard: dict[str, set[str]] = {}
    for text, label in lessons:
        words = _said(core(text))
        heard.setdefault(" ".join(words), set()).add(label)
        columns += [index.setdefault(f, len(index)) for f in dict.fromkeys(_features(words))]
        starts.append(len(columns))
    x = csr_matrix((np.ones(len(columns), np.float32), np.array(columns), np.array(starts)), shape=(len(lessons), len(index)))
    rarity = (np.log((1 + len(lessons)) / (1 + np.asarray(x.sum(axis=0)).ravel())) + 0.3).astype(np.float32)
    x.data *= rarity[x.indices]
    lengths = np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel())
    x.data /= np.repeat(lengths, np.diff(x.indptr)).astype(np.float32)
    truth = np.array([NAMES.index(label) for _, label in lessons])
    weights = np.zeros((len(index), len(NAMES)), np.float32)
    speed = np.zeros_like(weights)
    for epoch in range(_EPOCHS):
        rate = _RATE * (1 - epoch / _EPOCHS)
        for start in range(0, len(lessons), _BATCH):
            batch = x[start : start + _BATCH]
            scores = batch @ weights
            errors = np.exp(scores - scores.max(axis=1, keepdims=True))
            errors /= errors.sum(axis=1, keepdims=True)
            errors[np.arange(len(errors)), truth[start : start + _BATCH]] -= 1
            speed = 0.9 * speed + batch.T @ errors / len(errors)
            weights -= rate * speed
    certain = {words: label for words, labels in heard.items() if len(labels) == 1 for label in labels}
    return Mind(certain, index, weights * rarity[:, None])  # a reading only compares sums, so a message's length does not matter


@lru_cache(maxsize=4096)
def read(text: str) -> Reading:
    """The intent of a message. A message without content abstains."""
    letters = re.findall(r"[a-z]+", text.lower())
    if all(word in _GREETING for word in letters):
        return Reading(ABSTAIN, NAMES[0], 99.0)
    mind = _mind()
    words = _said(core(text))
    rows = sorted({mind.numbers[f] for f in _features(words) if f in mind.numbers})
    if not rows:
        return Reading(ABSTAIN, NAMES[0], 0.0)
    scores = dict(zip(NAMES, mind.weights[rows].sum(axis=0).tolist(), strict=True))
    ranked = sorted(NAMES, key=lambda name: -scores[name])
    near = ranked[0] == ABSTAIN and scores[ranked[0]] - scores[ranked[1]] < _DOUBT
    best = mind.heard.get(" ".join(words), ranked[1] if near else ranked[0])
    second = next(name for name in ranked if name not in (best, ABSTAIN))
    return Reading(best, second, scores[ranked[0]] - scores[ranked[1]])
