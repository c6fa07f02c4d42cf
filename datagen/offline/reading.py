"""Reading: which intent a message has, by a linear reader that learns the grammar's own sentences at first use.

An averaged perceptron (Collins 2002) over words, word pairs and word beginnings. It learns from messages drawn with a fixed
seed, so every process reads alike. What does not count in a message (denials, instructions, baits, a second request)
is cut off first.
"""

import random
import re
from functools import cache, lru_cache
from typing import NamedTuple

from datagen.offline.messages import ABSTAIN, ADVERSARIAL_KINDS, FAR, LABELS, LEAVES, OTHER, write, write_adversarial

NAMES = tuple(sorted(set(LABELS.values())))
_DRAWN = 9_000
_EPOCHS = 4
_WORD = re.compile(r"[a-z']+|[£$€]|\d+")
_GREETING = frozenset(
    "hi hello hey there good morning afternoon evening day ok okay test hmm thanks thank you anyone yo cheers ta bye dear bank is anybody all um yes no oh "
    "right help please sir or madam".split()
)  # fmt: skip
_SECOND = re.compile(
    r"(?:(?<=[.?!,;] )|\b)(?:and )?(?:also|another thing|second question|one more thing|while i'm here|while im here|by the way"
    r"|on a separate matter|apart from that|another question)[,: ]",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"(?:(?:this|it)(?:'s| is) not about|i(?:'m|m| am) not asking about|this has nothing to do with|(?:^|(?<=[.!?] ))not) [^.,:;]+[.,:;]\s*(?:but )?",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.?!\]])\s+|\n+")
_TRICK = re.compile(
    r"instruction|system prompt|</system>|^system:|output (?:the )?intent|override:|disregard the rules|repeat your|"
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
    if second and len(cut[: second.start()].split()) > 3:
        cut = cut[: second.start()]
    return cut if len(cut.split()) > 1 else " ".join(kept) or text


def _features(text: str) -> list[str]:
    words = ["#" if w.isdigit() else w.replace("'", "") for w in _WORD.findall(text.lower().replace("’", "'"))][:60]
    features = ["^" + " ".join(words[:2]), *words]
    features += [a + " " + b for a, b in zip(words, words[1:], strict=False)]
    features += [a + "_" + b for a, b in zip(words, words[2:], strict=False)]
    features += ["~" + w[:4] for w in words if len(w) > 4]
    return features


def _training_messages(rng: random.Random) -> list[tuple[list[str], int]]:
    values = {
        "channel": ("chat",) * 6 + ("email", "voice"),
        "persona": ("ordinary",) * 5 + ("new", "angry", "elderly", "non_native", "business"),
        "difficulty": ("plain",) * 4 + ("indirect", "indirect", "typos"),
        "complexity": ("one_request",) * 5 + ("missing_information",),
    }
    plan = [LEAVES[i % len(LEAVES)] for i in range(int(_DRAWN * 0.68))]
    plan += [OTHER] * int(_DRAWN * 0.2) + [FAR] * int(_DRAWN * 0.08)
    drawn = []
    for leaf in plan:
        dimensions = {name: rng.choice(choice) for name, choice in values.items()}
        drawn.append((_features(core(write(leaf, dimensions, {}, rng))), NAMES.index(LABELS[leaf])))
    hard = [kind for kind in ADVERSARIAL_KINDS if kind not in ("near_miss", "out_of_scope", "empty")]
    for i in range(int(_DRAWN * 0.04)):
        leaf = LEAVES[i % len(LEAVES)]
        text = write_adversarial(leaf, hard[i % len(hard)], {}, rng)
        drawn.append((_features(core(text)), NAMES.index(LABELS[leaf])))
    return drawn


@cache
def _weights() -> dict[str, list[float]]:
    """Averaged weights by feature, one number per label; takes some two seconds, once in a process."""
    rng = random.Random("the offline teacher learns to read")
    drawn = _training_messages(rng)
    current: dict[str, list[float]] = {}
    total: dict[str, list[float]] = {}
    zero = [0.0] * len(NAMES)
    step = 0
    for _ in range(_EPOCHS):
        rng.shuffle(drawn)
        for features, truth in drawn:
            step += 1
            rows = [current[f] for f in features if f in current]
            scores = [sum(column) for column in zip(*rows, strict=True)] if rows else zero
            best = max(range(len(NAMES)), key=scores.__getitem__)
            rival = max((i for i in range(len(NAMES)) if i != truth), key=scores.__getitem__)
            if scores[truth] - scores[rival] > 1.0 and best == truth:
                continue
            for f in features:
                if f not in current:
                    current[f], total[f] = list(zero), list(zero)
                row, sums = current[f], total[f]
                row[truth] += 1.0
                row[rival] -= 1.0
                sums[truth] += step
                sums[rival] -= step
    scale = 1.0 / (step + 1)
    return {f: [w - s * scale for w, s in zip(row, total[f], strict=True)] for f, row in current.items()}


@lru_cache(maxsize=4096)
def read(text: str) -> Reading:
    """The intent of a message. A message without content abstains."""
    letters = re.findall(r"[a-z]+", text.lower())
    if all(word in _GREETING for word in letters):
        return Reading(ABSTAIN, NAMES[0], 99.0)
    weights = _weights()
    rows = [weights[f] for f in _features(core(text)) if f in weights]
    if not rows:
        return Reading(ABSTAIN, NAMES[0], 0.0)
    scores = {name: sum(column) for name, column in zip(NAMES, zip(*rows, strict=True), strict=True)}
    ranked = sorted(NAMES, key=lambda name: -scores[name])
    second = next(name for name in ranked[1:] if name != ABSTAIN)
    return Reading(ranked[0], second, scores[ranked[0]] - scores[ranked[1]])
