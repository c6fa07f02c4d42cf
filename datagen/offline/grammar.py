"""A context-free grammar of customers' messages: from lines like "(where|when) is my card[ please]?" to sentences.

Notation of a line: (a|b) one of them, [a|b] one of them or nothing, <name> a shared part, {name} a slot that is
filled from the gazetteers. A line that starts with ~ tells a story and leaves the request to the
reader; one that starts with + says what most people say, and is drawn three times as often.
"""

import random
import re
from typing import Any, NamedTuple

from datagen.offline.knowledge import SLOTS

# A filled slot is wrapped in these until the message is finished, so that typing mistakes never touch an entity.
OPEN, BLANK = "\x02", "\x03"

Node = Any  # str | tuple[str, ...]: a tree of ("sequence" | "choice" | "maybe" | "part" | "slot", ...)


class Pattern(NamedTuple):
    """One compiled line. `slots` are the names of the slots that every reading of it may fill."""

    leaf: str
    text: str
    node: Node
    slots: frozenset[str]
    indirect: bool


def compile_line(text: str) -> Node:
    """The tree of one line. Raises ValueError where brackets do not match."""
    node, end = _sequence(text, 0, "")
    if end != len(text):
        raise ValueError(f"grammar line {text!r}: unexpected {text[end]!r} at {end}")
    return node


def _sequence(text: str, at: int, stop: str) -> tuple[Node, int]:
    parts: list[Node] = []
    start = at
    while at < len(text) and text[at] not in stop:
        char = text[at]
        if char in "([<{":
            if start < at:
                parts.append(text[start:at])
            if char in "([":
                close = ")" if char == "(" else "]"
                choices, at = _choices(text, at + 1, close)
                parts.append(("choice" if char == "(" else "maybe", *choices))
            else:
                end = text.index(">" if char == "<" else "}", at)
                parts.append(("part" if char == "<" else "slot", text[at + 1 : end]))
                at = end
            start = at + 1
        elif char in ")]":
            raise ValueError(f"grammar line {text!r}: unexpected {char!r} at {at}")
        at += 1
    if start < at:
        parts.append(text[start:at])
    return (parts[0] if len(parts) == 1 else ("sequence", *parts)), at


def _choices(text: str, at: int, close: str) -> tuple[list[Node], int]:
    choices = []
    while True:
        node, at = _sequence(text, at, "|" + close)
        choices.append(node)
        if at >= len(text):
            raise ValueError(f"grammar line {text!r}: no {close!r}")
        if text[at] == close:
            return choices, at
        at += 1


def slots_of(node: Node, parts: dict[str, Node]) -> frozenset[str]:
    """Names of all slots in a tree."""
    if isinstance(node, str):
        return frozenset()
    if node[0] == "slot":
        return frozenset({node[1]})
    children = (parts[node[1]],) if node[0] == "part" else node[1:]
    return frozenset().union(*(slots_of(child, parts) for child in children)) if children else frozenset()


def count(node: Node, parts: dict[str, Node]) -> int:
    """How many sentences a tree makes, each slot counted as one."""
    if isinstance(node, str) or node[0] == "slot":
        return 1
    if node[0] == "part":
        return count(parts[node[1]], parts)
    counts = [count(child, parts) for child in node[1:]]
    if node[0] == "sequence":
        product = 1
        for n in counts:
            product *= n
        return product
    return sum(counts) + int(node[0] == "maybe")


def expand(node: Node, parts: dict[str, Node], rng: random.Random, given: dict[str, str]) -> str:
    """One sentence of a tree; slots in `given` get its text. Filled slots come wrapped, see `unwrap`."""
    if isinstance(node, str):
        return node
    kind = node[0]
    if kind == "sequence":
        return "".join([expand(child, parts, rng, given) for child in node[1:]])
    if kind == "choice":
        return expand(node[1 + int(rng.random() * (len(node) - 1))], parts, rng, given)
    if kind == "maybe":
        pick = int(rng.random() * len(node) * 1.35)
        return expand(node[pick], parts, rng, given) if 0 < pick < len(node) else ""
    if kind == "part":
        return expand(parts[node[1]], parts, rng, given)
    value = given[node[1]] if node[1] in given else SLOTS[node[1]](rng)
    return wrap(value)


def wrap(value: str) -> str:
    """Protect an entity from the changes that a message undergoes."""
    return OPEN + value.replace(" ", BLANK)


def unwrap(text: str) -> str:
    """Filled slots as plain text, at the very end."""
    return text.replace(OPEN, "").replace(BLANK, " ")


_SPACES = re.compile(r"\s+")


def tidy(text: str) -> str:
    """One space between words, none before punctuation, a capital at the start."""
    text = _SPACES.sub(" ", text).replace(" ,", ",").replace(" ?", "?").replace(" .", ".").strip()
    return text[:1].upper() + text[1:]


def read_lines(leaf: str, lines: str, parts: dict[str, Node]) -> list[Pattern]:
    """Patterns of a block of lines."""
    patterns = []
    for line in filter(None, (line.strip() for line in lines.splitlines())):
        node = compile_line(line.lstrip("~+"))
        pattern = Pattern(leaf, line, node, slots_of(node, parts), line.startswith("~"))
        patterns += [pattern] * (3 if line.startswith("+") else 1)
    return patterns
