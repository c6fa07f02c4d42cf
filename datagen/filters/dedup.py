"""Set filters against repetition, and the groups that keep near-duplicates on one side of a split.

Survivors do not depend on the order of arrival: examples are taken by id (those that a person accepted first), and one is dropped
when it is a twin of one that was kept. So no two survivors are twins, and each verdict names a twin that is still there. A
preference pair and a plain example with one prompt serve two losses and are no duplicates of each other.
"""

from collections.abc import Iterator, Sequence

from datagen.filters.context import FilterContext
from datagen.filters.similarity import NearTexts, normalise
from datagen.records import Example, Verdict

_GROUP_THRESHOLD = 0.7


def asked(example: Example) -> str:
    """What a student is given, without the system message: the input, or the whole conversation so far."""
    return "\n".join(message.content for message in example.prompt if message.role != "system")


def duplicate(examples: Sequence[Example], context: FilterContext) -> list[Verdict]:
    """Drops an example whose prompt reads the same (case, spacing and punctuation aside) as that of one kept."""
    verdicts = []
    for use in _uses(examples, context):
        first: dict[str, str] = {}
        for example in use:
            twin = first.setdefault(normalise(asked(example)), example.id)
            reason = None if twin == example.id else f"duplicate: same prompt as {twin}"
            verdicts.append(Verdict(example_id=example.id, by="filter:duplicate", keep=reason is None, reason=reason))
    return sorted(verdicts, key=lambda verdict: verdict.example_id)


def near_duplicate(examples: Sequence[Example], context: FilterContext) -> list[Verdict]:
    """Drops an example whose prompt has a Jaccard similarity >= `threshold` to that of one kept; see similarity.py for the rule."""
    verdicts = []
    for use in _uses(examples, context):
        index = NearTexts([asked(example) for example in use], context.setting("near_duplicate", "threshold"))
        for position, example in enumerate(use):
            twin = index.nearest(position)
            if twin is None:
                index.add(position)
            reason = None if twin is None else f"near_duplicate: {twin.similarity:.2f} like {use[twin.position].id}"
            verdicts.append(Verdict(example_id=example.id, by="filter:near_duplicate", keep=twin is None, reason=reason))
    return sorted(verdicts, key=lambda verdict: verdict.example_id)


def _uses(examples: Sequence[Example], context: FilterContext) -> Iterator[list[Example]]:
    """Plain examples, then preference pairs; in each those that a person accepted first, then by id."""
    ordered = sorted(examples, key=lambda example: (example.id not in context.pinned, example.id))
    for paired in (False, True):
        yield [example for example in ordered if (example.rejected is not None) == paired]


def group_ids(examples: Sequence[Example], threshold: float = _GROUP_THRESHOLD) -> dict[str, str]:
    """Example id -> id of its group, the lowest example id in it.

    Two examples share a group when their prompts read the same or have a Jaccard similarity >= `threshold`, or when a chain of
    such pairs joins them. A group is one unit of the split, so no near-duplicate of a test row is trained on.
    """
    ordered = sorted(examples, key=lambda example: example.id)
    texts: dict[str, int] = {}
    owners: list[str] = []
    positions = []
    for example in ordered:
        text = normalise(asked(example))
        position = texts.setdefault(text, len(texts))
        positions.append(position)
        if position == len(owners):
            owners.append(example.id)
    index = NearTexts(list(texts), threshold)
    parent = list(range(len(texts)))
    for position in range(len(texts)):
        for other in index.candidates(position):
            a, b = _root(parent, position), _root(parent, other)
            if a != b and index.similarity(position, other) >= threshold:
                parent[max(a, b)] = min(a, b)
        index.add(position)
    return {example.id: owners[_root(parent, position)] for example, position in zip(ordered, positions, strict=True)}


def _root(parent: list[int], position: int) -> int:
    while parent[position] != position:
        parent[position] = position = parent[parent[position]]
    return position
