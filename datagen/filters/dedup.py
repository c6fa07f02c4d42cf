"""Set filters against repetition, and the groups that keep near-duplicates on one side of a split.

Survivors do not depend on the order of arrival: examples are taken by id (those that a person accepted first), and one is dropped
when it is a twin of one that was kept. So no two survivors are twins, and each verdict names a twin that is still there. A
preference pair and a plain example with one prompt serve two losses and are no duplicates of each other. A conversation is compared
whole, with conversations of as many turns; a question about a passage that is shown, with other questions about it.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from datagen.filters.context import FilterContext
from datagen.filters.near import Bands, families, join, keep_first
from datagen.filters.similarity import Indices, normalise, sketch
from datagen.records import Example, Verdict

GROUP_THRESHOLD = 0.7


def asked(example: Example) -> str:
    """What a student is given, without the system message: the input, or the whole conversation so far."""
    return "\n".join(message.content for message in example.prompt if message.role != "system")


def compared(example: Example) -> str:
    """What tells one prompt from another of its kind: `asked` without a passage that is shown, which all questions about it share."""
    if example.grounding is None:
        return asked(example)
    return "\n".join(example.without_passage(message.content) for message in example.prompt if message.role != "system")


_GROUND_FROM = 20  # bits of `among` below the passage's


def among(example: Example) -> int:
    """What a prompt is compared among, as a number: 0 plain ones, 1 preference pairs, else those of as many turns and of one passage."""
    turns = sum(message.role == "user" for message in example.prompt)
    ground = 0
    if example.grounding is not None and example.grounding.shown:
        ground = int(hashlib.sha256(example.grounding.passage.id.encode()).hexdigest(), 16) % (1 << 43)
    return ground << _GROUND_FROM | 2 * max(turns - 1, 0) + is_pair(example)


def grounds(among: Indices) -> Indices:
    """The part of `among` that names a shown passage, 0 for none: prompts about two passages are never alike, whatever is asked."""
    return among >> _GROUND_FROM


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
    sketches = sketch([compared(example) for _, example in rows])
    uses = np.array([among(example) for _, example in rows], dtype=np.int64)
    twins = keep_first(sketches, Bands.of(sketches, threshold), threshold, uses).twins
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

    Two examples share a group when their prompts read the same or have a Jaccard similarity >= `threshold`, when they are of one
    family, or when a chain of such pairs joins them. A group is one unit of the split, so no near-duplicate of a test row is trained on.
    """
    texts: dict[tuple[int, str], int] = {}
    owners: list[str] = []  # the lowest id that asks each text
    positions: dict[str, int] = {}
    kin: dict[str, list[int]] = {}
    for example_id, example in sorted(((example.id, example) for example in examples), key=lambda row: row[0]):
        ground = among(example) >> _GROUND_FROM
        positions[example_id] = texts.setdefault((ground, normalise(compared(example))), len(texts))
        if positions[example_id] == len(owners):
            owners.append(example_id)
        if example.family is not None:
            kin.setdefault(example.family, []).append(positions[example_id])
    sketches = sketch([text for _, text in texts])
    apart = np.array([ground for ground, _ in texts], dtype=np.int64)
    family = families(sketches, Bands.of(sketches, threshold), threshold, apart=apart)
    root = join(family, list(kin.values())).tolist()
    return {example_id: owners[root[position]] for example_id, position in positions.items()}
