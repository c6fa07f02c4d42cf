"""New prompts against those that were kept before: what is a twin of what, and who shares a group. Costs what is new, not what is stored.

`meet` reads, `keep` writes: between the two the caller makes its verdicts. A prompt that was kept stays; of new ones the first stays.
Only prompts that are kept are remembered, so a thousand copies of one text cost no more than one.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from datagen.filters.dedup import GROUP_THRESHOLD, among, compared, grounds
from datagen.filters.near import Bands, Twins, families, join, keep_first
from datagen.filters.similarity import Indices, normalise, similarities, sketch
from datagen.records import Example, Verdict
from datagen.store import SeenTexts


class Prompt(NamedTuple):
    """What an example asks, what that is compared among (dedup.among), and the family whose group it shares."""

    example_id: str
    among: int
    text: str
    family: str | None = None

    @classmethod
    def of(cls, example: Example) -> Self:
        """What `example` asks."""
        return cls(example.id, among(example), compared(example), example.family)


class Arrivals(NamedTuple):
    """What is known of new prompts, each list in their order.

    same      the example kept before that reads the same, or None
    twins     the nearest example that stays, kept before or earlier among these, with its similarity; or None
    groups    new example -> its group, where that is not its own id
    merged    group that was -> the group that it has become a part of
    """

    prompts: Sequence[Prompt]
    bands: Bands
    same: list[str | None]
    twins: list[tuple[str, float] | None]
    groups: dict[str, str]
    merged: dict[str, str]


_BATCH = 10_000


def remember(seen: SeenTexts, prompts: Sequence[Prompt], threshold: float) -> None:
    """Forget what was kept, and take these prompts in its place without comparing them: a full `curate` has done so."""
    seen.clear()
    for start in range(0, len(prompts), _BATCH):
        part = prompts[start : start + _BATCH]
        bands = Bands.of(sketch([prompt.text for prompt in part]), min(threshold, GROUP_THRESHOLD))
        seen.add(part, bands.keys, bands.texts, bands.chars)


def meet(seen: SeenTexts, prompts: Sequence[Prompt], threshold: float) -> Arrivals:
    """Compare new prompts with those that were kept and with one another, in their order."""
    floor = min(threshold, GROUP_THRESHOLD)
    sketches = sketch([prompt.text for prompt in prompts])
    bands = Bands.of(sketches, floor)
    uses = np.array([prompt.among for prompt in prompts], dtype=np.int64)
    rows, numbers = seen.agreeing(bands.keys)
    wanted, places = np.unique(numbers, return_inverse=True)
    known = seen.at(wanted)
    codes = np.unique((bands.texts[rows] << 32) | places)
    texts, others = codes >> 32, codes & 0xFFFFFFFF
    similarity = similarities(sketches, texts, sketch([text.text for text in known]), others)
    near = similarity >= floor
    texts, others, similarity = texts[near], others[near], similarity[near]
    known_uses = np.array([text.among for text in known], dtype=np.int64)
    alike = (uses[texts] == known_uses[others]) & (similarity >= threshold)
    stored = Twins.none(len(prompts))
    stored.offer(texts[alike], others[alike], similarity[alike])
    fresh, compared = keep_first(sketches, bands, threshold, uses, stored.position >= 0)
    same: list[str | None] = [None] * len(prompts)
    for text in np.flatnonzero(stored.similarity == 1).tolist():
        twin = known[stored.position[text]]
        if normalise(twin.text) == normalise(prompts[text].text):
            same[text] = twin.example_id
    columns = (stored.position.tolist(), stored.similarity.tolist(), fresh.position.tolist(), fresh.similarity.tolist())
    twins: list[tuple[str, float] | None] = []
    for old, old_similarity, new, new_similarity in zip(*columns, strict=True):
        if old >= 0 and old_similarity >= new_similarity:
            twins.append((known[old].example_id, old_similarity))
        else:
            twins.append((prompts[new].example_id, new_similarity) if new >= 0 else None)
    family = families(sketches, bands, GROUP_THRESHOLD, compared, apart=grounds(uses))
    kin: dict[str, list[int]] = {}
    for position, prompt in enumerate(prompts):
        if prompt.family is not None:
            kin.setdefault(prompt.family, []).append(position)
    family = join(family, list(kin.values()))
    close = (similarity >= GROUP_THRESHOLD) & (grounds(uses)[texts] == grounds(known_uses)[others])
    links = [(root, known[other].group_id) for root, other in zip(family[texts[close]].tolist(), others[close].tolist(), strict=True)]
    links += [(int(family[kin[name][0]]), group) for name, group in seen.groups_of(kin).items()]
    groups, merged = _join(family, links, prompts)
    return Arrivals(prompts, bands, same, twins, groups, merged)


def _join(family: Indices, links: list[tuple[int, str]], prompts: Sequence[Prompt]) -> tuple[dict[str, str], dict[str, str]]:
    """Groups of new examples and those that become one: the lowest group there was, or else the lowest new id of the family."""
    part_of: dict[str, str] = {}

    def whole(group: str) -> str:
        while group in part_of:
            group = part_of[group]
        return group

    group_of: dict[int, str] = {}
    for root, group in links:
        one, other = sorted((whole(group_of.get(root, group)), whole(group)))
        if one != other:
            part_of[other] = one
        group_of[root] = one
    members = np.flatnonzero((family != np.arange(len(family))) | np.isin(family, list(group_of)))
    groups = {prompts[member].example_id: family[member] for member in np.union1d(members, family[members]).tolist()}
    lowest: dict[int, str] = {}
    for example_id, root in groups.items():
        lowest[root] = min(example_id, lowest.get(root, example_id))
    named = {example_id: whole(group_of[root]) if root in group_of else lowest[root] for example_id, root in groups.items()}
    return {example_id: group for example_id, group in named.items() if group != example_id}, {group: whole(group) for group in part_of}


def keep(seen: SeenTexts, arrivals: Arrivals, kept: Sequence[bool], verdicts: Sequence[Verdict]) -> None:
    """Store the verdicts and groups of all arrivals and remember the prompts that are kept, in one transaction."""
    place = np.cumsum(kept) - 1
    rows = np.asarray(kept, dtype=bool)[arrivals.bands.texts]
    seen.add(
        [prompt for prompt, stays in zip(arrivals.prompts, kept, strict=True) if stays],
        arrivals.bands.keys[rows],
        place[arrivals.bands.texts[rows]],
        arrivals.bands.chars[rows],
        verdicts,
        arrivals.groups,
        arrivals.merged,
    )
