"""Set filters against repetition, and the groups that keep near-duplicates on one side of a split.

Survivors do not depend on the order of arrival: examples are taken by id (those that a person accepted first), and one is dropped
when it is a twin of one that was kept. So no two survivors are twins, and each verdict names a twin that is still there. A
preference pair and a plain example with one prompt serve two losses and are no duplicates of each other.
"""

from collections.abc import Sequence

import numpy as np

from datagen.filters.context import FilterContext
from datagen.filters.near import Bands, families, keep_first
from datagen.filters.similarity import normalise, sketch
from datagen.records import Example, Verdict

GROUP_THRESHOLD = 0.7


def asked(example: Example) -> str:
    """What a student is given, without the system message: the input, or the whole conversation so far."""
    return "\n".join(message.content for message in example.prompt if message.role != "system")


def is_pair(example: Example) -> bool:
    """Whether the example serves preference."""
    return example.rejected is not None


def duplicate(examples: Sequence[Example], context: FilterContext) -> list[Verdict]:
    """Drops an example whose prompt reads the same (case, spacing and punctuation aside) as that of one kept."""
    verdicts = []
    first: dict[tuple[bool, str], str] = {}
    for example_id, example in in_order(examples, context):
        twin = first.setdefault((is_pair(example), normalise(asked(example))), example_id)
        reason = None if twin == example_id else same_reason(twin)
        verdicts.append(Verdict(example_id=example_id, by="filter:duplicate", keep=reason is None, reason=reason))
    return sorted(verdicts, key=lambda verdict: verdict.example_id)


def near_duplicate(examples: Sequence[Example], context: FilterContext) -> list[Verdict]:
    """Drops an example whose prompt has a Jaccard similarity >= `threshold` to that of one kept; see similarity.py for the rule."""
    threshold = context.setting("near_duplicate", "threshold")
    rows = in_order(examples, context)
    sketches = sketch([asked(example) for _, example in rows])
    uses = np.array([is_pair(example) for _, example in rows], dtype=bool)
    twins = keep_first(sketches, Bands.of(sketches, threshold), threshold, uses)
    verdicts = []
    for (example_id, _), twin, similarity in zip(rows, twins.position.tolist(), twins.similarity.tolist(), strict=True):
        reason = None if twin < 0 else near_reason(rows[twin][0], similarity)
        verdicts.append(Verdict(example_id=example_id, by="filter:near_duplicate", keep=twin < 0, reason=reason))
    return sorted(verdicts, key=lambda verdict: verdict.example_id)


def same_reason(twin: str) -> str:
    """What the verdict on a duplicate says: the twin that stays."""
    return f"duplicate: same prompt as {twin}"


def near_reason(twin: str, similarity: float) -> str:
    """What the verdict on a near-duplicate says: the twin that stays, and their Jaccard similarity."""
    return f"near_duplicate: {similarity:.2f} like {twin}"


def in_order(examples: Sequence[Example], context: FilterContext) -> list[tuple[str, Example]]:
    """Those that a person accepted first, then by id."""
    return sorted(((example.id, example) for example in examples), key=lambda row: (row[0] not in context.pinned, row[0]))


def group_ids(examples: Sequence[Example], threshold: float = GROUP_THRESHOLD) -> dict[str, str]:
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
    sketches = sketch(list(texts))
    family = families(sketches, Bands.of(sketches, threshold), threshold).tolist()
    return {example_id: owners[family[position]] for example_id, position in positions.items()}
