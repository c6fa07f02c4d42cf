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
        for example_id, text in use:
            twin = first.setdefault(normalise(text), example_id)
            reason = None if twin == example_id else f"duplicate: same prompt as {twin}"
            verdicts.append(Verdict(example_id=example_id, by="filter:duplicate", keep=reason is None, reason=reason))
    return sorted(verdicts, key=lambda verdict: verdict.example_id)


def near_duplicate(examples: Sequence[Example], context: FilterContext) -> list[Verdict]:
    """Drops an example whose prompt has a Jaccard similarity >= `threshold` to that of one kept; see similarity.py for the rule."""
    verdicts = []
    for use in _uses(examples, context):
        index = NearTexts([text for _, text in use], context.setting("near_duplicate", "threshold"))
        for position, (example_id, _) in enumerate(use):
            twin = index.nearest(position)
            if twin is None:
                index.add(position)
            reason = None if twin is None else f"near_duplicate: {twin.similarity:.2f} like {use[twin.position][0]}"
            verdicts.append(Verdict(example_id=example_id, by="filter:near_duplicate", keep=twin is None, reason=reason))
    return sorted(verdicts, key=lambda verdict: verdict.example_id)


def _uses(examples: Sequence[Example], context: FilterContext) -> Iterator[list[tuple[str, str]]]:
    """(id, text) of plain examples, then of preference pairs; in each those that a person accepted first, then by id."""
    found: dict[bool, list[tuple[bool, str, str]]] = {False: [], True: []}
    for example in examples:
        example_id = example.id
        found[example.rejected is not None].append((example_id not in context.pinned, example_id, asked(example)))
    for rows in found.values():
        yield [(example_id, text) for _, example_id, text in sorted(rows)]


def group_ids(examples: Sequence[Example], threshold: float = _GROUP_THRESHOLD) -> dict[str, str]:
    """Example id -> id of its group, the lowest example id in it.

    Two examples share a group when their prompts read the same or have a Jaccard similarity >= `threshold`, or when a chain of
    such pairs joins them. A group is one unit of the split, so no near-duplicate of a test row is trained on.
    """
    texts: dict[str, int] = {}
    owners: list[str] = []  # the lowest id that asks each text
    positions: dict[str, int] = {}
    for example_id, text in sorted((example.id, normalise(asked(example))) for example in examples):
        positions[example_id] = texts.setdefault(text, len(texts))
        if positions[example_id] == len(owners):
            owners.append(example_id)
    index = NearTexts(list(texts), threshold)
    parent = list(range(len(texts)))
    for position in range(len(texts)):
        for other in index.candidates(position):
            a, b = _root(parent, position), _root(parent, other)
            if a != b and index.similarity(position, other) >= threshold:
                parent[max(a, b)] = min(a, b)
        index.add(position)
    return {example_id: owners[_root(parent, position)] for example_id, position in positions.items()}


def _root(parent: list[int], position: int) -> int:
    while parent[position] != position:
        parent[position] = position = parent[parent[position]]
    return position
