"""Set filters of a data set with targets: repeats of another data set, inputs too near their seed, rows beyond a cell's target.

None of them says anything where the store has no targets, no earlier rows, or a recipe leaves the bound at 0.
"""

from collections.abc import Sequence

import numpy as np

from datagen.filters.context import FilterContext
from datagen.filters.dedup import asked, in_order, is_pair
from datagen.filters.near import Bands, keep_first, nearest
from datagen.filters.similarity import normalise, sketch
from datagen.records import Example, Verdict


def earlier(examples: Sequence[Example], context: FilterContext) -> list[Verdict]:
    """Drops an example whose prompt is the same as, or has a Jaccard similarity >= `near_duplicate.threshold` to, that of a row which the
    store kept for another data set."""
    known = context.earlier
    if not known:
        return []
    verdicts = []
    for pair in (False, True):
        own = [example for example in examples if is_pair(example) == pair]
        some = [row for row in known if row.pair == pair]
        if not own or not some:
            continue
        same = {normalise(row.text): row.example_id for row in reversed(some)}
        texts, others = sketch([asked(example) for example in own]), sketch([row.text for row in some])
        twins = nearest(texts, others, context.setting("near_duplicate", "threshold"))
        for example, twin, similarity in zip(own, twins.position.tolist(), twins.similarity.tolist(), strict=True):
            reason = None
            if (whole := same.get(normalise(asked(example)))) is not None:
                reason = f"earlier: same prompt as {whole} of another data set"
            elif twin >= 0:
                reason = f"earlier: {similarity:.2f} like {some[twin].example_id} of another data set"
            verdicts.append(Verdict(example_id=example.id, by="filter:earlier", keep=reason is None, reason=reason))
    return verdicts


def too_near_seed(examples: Sequence[Example], context: FilterContext) -> list[Verdict]:
    """Drops an example that reads almost like the seed that it grew from (Jaccard >= `seed`) or like one kept before it that grew from the
    same seed (>= `sibling`). A bound of 0 is none."""
    to_seed, to_sibling = context.setting("too_near_seed", "seed"), context.setting("too_near_seed", "sibling")
    rows = [(example_id, example) for example_id, example in in_order(examples, context) if example.item_id in context.seeds]
    if not rows or not (to_seed or to_sibling):
        return []
    seeds = [context.seeds[example.item_id] for _, example in rows]
    texts = sketch([asked(example) for _, example in rows])
    reasons: list[str | None] = [None] * len(rows)
    if to_seed:
        distinct = list(dict.fromkeys(seeds))
        twins = nearest(texts, sketch(distinct), to_seed)  # the nearest of all seeds: a copy of another seed is no better
        for place, (twin, similarity) in enumerate(zip(twins.position.tolist(), twins.similarity.tolist(), strict=True)):
            if twin >= 0:
                reasons[place] = f"too_near_seed: {similarity:.2f} like the seed {distinct[twin][:60]!r}"
    if to_sibling:
        numbers = {seed: number for number, seed in enumerate(dict.fromkeys(seeds))}
        dropped = np.array([reason is not None for reason in reasons], dtype=bool)
        twins = keep_first(texts, Bands.of(texts, to_sibling), to_sibling, np.array([numbers[seed] for seed in seeds]), dropped).twins
        for place, (twin, similarity) in enumerate(zip(twins.position.tolist(), twins.similarity.tolist(), strict=True)):
            if twin >= 0 and reasons[place] is None:
                reasons[place] = f"too_near_seed: {similarity:.2f} like {rows[twin][0]}, which grew from the same seed"
    return [
        Verdict(example_id=example_id, by="filter:too_near_seed", keep=reason is None, reason=reason)
        for (example_id, _), reason in zip(rows, reasons, strict=True)
    ]


def quota(examples: Sequence[Example], context: FilterContext) -> list[Verdict]:
    """Drops what a cell has beyond its target. What a person accepted stays, then the lowest item index, then the lowest id."""
    if not context.targets:
        return []
    filled: dict[tuple[str, str], int] = {}
    verdicts = []
    rows = [(example.id, example) for example in examples]
    for example_id, example in sorted(rows, key=lambda row: (row[0] not in context.pinned, _index(row[1].item_id), row[0])):
        cell = example.topic, example.generator
        target = context.targets.get(cell)
        if target is None:
            continue
        filled[cell] = filled.get(cell, 0) + 1
        reason = None if filled[cell] <= target else f"quota: the cell has its {target} rows"
        verdicts.append(Verdict(example_id=example_id, by="filter:quota", keep=reason is None, reason=reason))
    return sorted(verdicts, key=lambda verdict: verdict.example_id)


def _index(item_id: str) -> int:
    number = item_id.rpartition(":")[2]
    return int(number) if number.isdigit() else 0
