"""Set filters against repetition, and the groups that keep near-duplicates on one side of a split.

Survivors do not depend on the order of arrival: examples are taken by id (those that a person accepted first), and one is dropped
when it is a twin of one that was kept. So no two survivors are twins, and each verdict names a twin that is still there. A
preference pair and a plain example with one prompt serve two losses and are no duplicates of each other.
"""

from collections.abc import Iterator, Sequence

from datagen.filters.context import FilterContext
from datagen.filters.near import Bands, families, keep_first
from datagen.filters.similarity import normalise, sketch
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
        threshold = context.setting("near_duplicate", "threshold")
        sketches = sketch([text for _, text in use])
        twins = keep_first(sketches, Bands.of(sketches, threshold), threshold)
        for (example_id, _), twin, similarity in zip(use, twins.position.tolist(), twins.similarity.tolist(), strict=True):
            reason = None if twin < 0 else near_reason(use[twin][0], similarity)
            verdicts.append(Verdict(example_id=example_id, by="filter:near_duplicate", keep=twin < 0, reason=reason))
    return sorted(verdicts, key=lambda verdict: verdict.example_id)


def near_reason(twin: str, similarity: float) -> str:
    """What the verdict on a near-duplicate says: the twin that stays, and how similar the two are."""
    return f"near_duplicate: {similarity:.2f} like {twin}"


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
    family = families(sketch(list(texts)), threshold).tolist()
    return {example_id: owners[family[position]] for example_id, position in positions.items()}
