"""The plan: topics x mix -> items, by the recipe's seed alone. A longer plan begins with the shorter one's draws."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from datagen.errors import ConfigError
from datagen.policy import meeting
from datagen.records import AdversarialKind, Failure, Passage, PlanItem, Several, Topic
from datagen.taxonomy import Taxonomy, policy_line

_EXAMPLES_SHOWN = 3
_FAILURES_SHOWN = 3
_ADVERSARIAL_SHARE_OF_PAIRS = 0.5


class PlannedAsk(NamedTuple):
    """A question that an item asks: its prompt, of whom, and how often for each input (0 = once for all of them, to write them)."""

    prompt: str
    role: str
    per_input: int = 1

    @property
    def writes(self) -> bool:
        """Whether it is the question that writes the item's inputs."""
        return not self.per_input

    def times(self, inputs: int) -> int:
        """How often it is asked for an item of `inputs` inputs."""
        return self.per_input * inputs or 1


_ANSWERED = (PlannedAsk("answer", "teacher"),)
_ASKS: dict[str, tuple[PlannedAsk, ...]] = {
    "seed": (PlannedAsk("rewrite_input", "teacher", 0), *_ANSWERED),
    "topic": (PlannedAsk("write_inputs", "teacher", 0), *_ANSWERED),
    "adversarial": (PlannedAsk("write_adversarial", "teacher", 0), *_ANSWERED),
    "reasoning": (PlannedAsk("write_inputs", "teacher", 0), PlannedAsk("reason", "teacher")),
    "preference": (PlannedAsk("write_inputs", "teacher", 0), *_ANSWERED, PlannedAsk("answer", "weak"), PlannedAsk("compare", "judge", 2)),
    "conversation": (PlannedAsk("write_turn", "teacher"), *_ANSWERED),
    "grounded": (PlannedAsk("write_questions", "teacher", 0), PlannedAsk("quote", "teacher")),
}


def asks_of(item: PlanItem, judged: bool, second: bool = False) -> tuple[PlannedAsk, ...]:
    """The questions of an item whose every answer can be used at once; `second`: a second teacher answers too."""
    first = _ASKS[item.generator][0]._replace(prompt=item.writes)
    asks = (first, *(_drawn(item) if item.draws else _ASKS[item.generator][1:]))
    return (*asks, *[PlannedAsk("judge", "judge")] * judged, *[PlannedAsk("answer", "second")] * second)


def _drawn(item: PlanItem) -> list[PlannedAsk]:
    """The questions for each input where the recipe says how many answers are drawn; every two that differ are compared in both orders."""
    counts: dict[tuple[str, str], int] = {}
    for draw in item.draws:
        counts[draw.prompt, draw.role] = counts.get((draw.prompt, draw.role), 0) + 1
    compared = len(item.draws) * (len(item.draws) - 1) if item.generator == "preference" else 0
    asks = [PlannedAsk(prompt, role, times) for (prompt, role), times in counts.items()]
    return [*asks, PlannedAsk("compare", "judge", compared)] if compared else asks


def calls_of(item: PlanItem, judged: bool, second: bool = False) -> int:
    """How many calls an item takes when every answer can be used at once; a conversation may end before."""
    return sum(ask.times(item.count) for ask in asks_of(item, judged, second))


def make_plan(
    taxonomy: Taxonomy,
    mix: Mapping[str, int],
    *,
    per_call: int,
    seed: int,
    seeds: Mapping[str, tuple[str, ...]],
    replace_seeds: bool,
    several: Mapping[str, Several] | None = None,
    failures: Sequence[Failure] = (),
    max_turns: int = 4,
    passages: Sequence[Passage] = (),
    shown: bool = True,
) -> list[PlanItem]:
    """Every item of a run, by id. Raises ConfigError for a generator that the taxonomy gives nothing to work on.

    several     by generator: how many answers it draws for each input, where it is not its usual one
    failures    what an evaluation found wrong, for kinds of the family `failures`; other kinds and topics go without
    max_turns   an item of `conversation` is one conversation of that many inputs at most
    passages    what `grounded` asks about, and whether the student is `shown` it
    """
    topics = [_with_seeds(topic, seeds, replace_seeds) for topic in taxonomy.leaves()]
    items: list[PlanItem] = []
    for generator, count in mix.items():
        if not count:
            continue
        if generator == "grounded" and passages:
            items.extend(_grounded(taxonomy, topics, passages, count, per_call, seed, shown))
            continue
        size = max_turns if generator == "conversation" else per_call
        eligible = _eligible(generator, topics, taxonomy, failures)
        if not eligible:
            raise ConfigError(
                f"mix.{generator} is {count}, but the taxonomy gives it no topics ({_NEEDS[generator]}). Set it to 0 or add them."
            )
        weights = [topic.weight for topic in eligible]
        shares = _whole(count, size, weights) if generator == "conversation" else apportion(count, weights)
        for topic, share in zip(eligible, shares, strict=True):
            items.extend(_items(taxonomy, topics, topic, generator, share, size, seed, failures))
    if several:
        items = [_drawing(item, several[item.generator]) if item.generator in several else item for item in items]
    return sorted(items, key=lambda item: item.id)


def _drawing(item: PlanItem, several: Several) -> PlanItem:
    return item.model_copy(update={"draws": several.draws, "take": several.take})


_NEEDS = {
    "seed": "it needs topics with seeds",
    "topic": "it needs topics with a weight above 0",
    "adversarial": "it needs adversarial kinds",
    "reasoning": "it needs `reasoning` cases for a topic's label",
    "preference": "it needs topics with a weight above 0",
    "conversation": "it needs topics with a weight above 0",
    "grounded": "it needs passages: name the folder of your documents in `sources`",
}


def _eligible(generator: str, topics: Sequence[Topic], taxonomy: Taxonomy, failures: Sequence[Failure]) -> list[Topic]:
    weighted = [topic for topic in topics if topic.weight]
    if generator == "seed":
        return [topic for topic in weighted if topic.seeds]
    if generator == "adversarial":
        near = [topic for topic in weighted if topic.label is None or topic.label != taxonomy.task.abstain_label]
        return [topic for topic in near if _kinds_for(topic, taxonomy, failures_of(topic, failures))]
    if generator == "grounded":
        return []
    if generator == "reasoning":
        cases = {case.label for case in taxonomy.reasoning}
        return [topic for topic in weighted if topic.label in cases]
    return weighted


def _with_seeds(topic: Topic, seeds: Mapping[str, tuple[str, ...]], replace: bool) -> Topic:
    own = () if replace else topic.seeds
    return topic.model_copy(update={"seeds": own + seeds.get(topic.label or "", ())})


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """`total` in whole numbers by weight (largest remainder), at least one each while `total` allows."""
    base = [1 if total >= len(weights) else 0] * len(weights)
    rest = total - sum(base)
    exact = [rest * weight / sum(weights) for weight in weights]
    shares = [b + int(e) for b, e in zip(base, exact, strict=True)]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(exact[i] - int(exact[i])), i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _whole(total: int, size: int, weights: Sequence[float]) -> list[int]:
    """`total` by weight in lots of `size`, for a conversation that is shared out by the turn is none; the last lot may be smaller."""
    shares = [lots * size for lots in apportion(-(-total // size), weights)]
    last = max(place for place, share in enumerate(shares) if share)
    shares[last] -= sum(shares) - total
    return shares


def _items(
    taxonomy: Taxonomy,
    topics: Sequence[Topic],
    topic: Topic,
    generator: str,
    share: int,
    size: int,
    seed: int,
    failures: Sequence[Failure],
) -> list[PlanItem]:
    own = failures_of(topic, failures)
    kinds = _kinds_for(topic, taxonomy, own)
    return [_item(taxonomy, topics, topic, generator, index, count, seed, kinds, own) for index, count in enumerate(_counts(share, size))]


def _counts(total: int, size: int) -> list[int]:
    return [size] * (total // size) + ([total % size] if total % size else [])


def _grounded(
    taxonomy: Taxonomy, topics: Sequence[Topic], passages: Sequence[Passage], total: int, per_call: int, seed: int, shown: bool
) -> list[PlanItem]:
    """Items that go round all passages, each once before any twice.

    The order is drawn by a passage's place in its file, and everything else by its text: so a changed document brings
    new items for what changed in it, and leaves the others as they are.
    """
    ranked: list[tuple[str, Passage, list[Topic]]] = []
    places: Counter[str] = Counter()
    for passage in passages:
        places[passage.source] += 1
        if mine := _topics_of(passage.source, topics):
            order = sha256(f"{seed}/{passage.source}/{places[passage.source]}".encode()).hexdigest()
            ranked.append((order, passage, mine))
    if not ranked:
        raise ConfigError(f"mix.grounded is {total}, but every topic that the documents stand for has weight 0. Raise a weight.")
    ranked.sort(key=lambda row: row[0])
    items: list[PlanItem] = []
    for number, count in enumerate(_counts(total, per_call)):
        turn, place = divmod(number, len(ranked))
        _, passage, mine = ranked[place]
        own = f"{seed}/{passage.id}/{turn}"
        path = _draw(random.Random(own), {topic.path: topic.weight for topic in mine})
        topic = next(topic for topic in mine if topic.path == path)
        index = int(sha256(own.encode()).hexdigest()[:12], 16)
        item = _item(taxonomy, topics, topic, "grounded", index, count, seed, {}, ())
        items.append(item.model_copy(update={"passage": passage, "shown": shown}))
    return items


def _topics_of(source: str, topics: Sequence[Topic]) -> list[Topic]:
    """The topics that a document stands for: those of the nearest topic or branch that its path names, or else all."""
    parts = source.rpartition(".")[0].split("/")
    for end in range(len(parts), 0, -1):
        branch = "/".join(parts[:end])
        if mine := [topic for topic in topics if f"{topic.path}/".startswith(f"{branch}/")]:
            return [topic for topic in mine if topic.weight]
    return [topic for topic in topics if topic.weight]


def failures_of(topic: Topic, failures: Sequence[Failure]) -> list[Failure]:
    """The failures that belong to a topic: by its path, or by its label where they name no topic."""
    return [f for f in failures if f.topic == topic.path or (f.topic is None and f.label is not None and f.label == topic.label)]


def _kinds_for(topic: Topic, taxonomy: Taxonomy, failures: Sequence[Failure]) -> dict[str, AdversarialKind]:
    """The kinds that can be written for a topic: some need rules that meet there, or failures that were seen."""
    rules = bool(meeting(taxonomy.policy, taxonomy.task.label_field, topic.label))
    able = {"rules": rules, "failures": bool(failures)}
    return {name: kind for name, kind in taxonomy.adversarial.items() if kind.weight and able.get(kind.family or "", True)}


def _item(
    taxonomy: Taxonomy,
    topics: Sequence[Topic],
    topic: Topic,
    generator: str,
    index: int,
    count: int,
    seed: int,
    kinds: Mapping[str, AdversarialKind],
    failures: Sequence[Failure],
) -> PlanItem:
    # one generator per item, so that an item's draws do not depend on how many others there are
    rng = random.Random(f"{seed}/{topic.path}/{generator}/{index}")
    dimensions = {name: _draw(rng, {v: value.weight for v, value in values.items()}) for name, values in taxonomy.dimensions.items()}
    fields: dict[str, object] = {"label": topic.label}
    examples = tuple(rng.sample(topic.seeds, min(_EXAMPLES_SHOWN, len(topic.seeds))))
    if generator == "seed":
        fields["seed"] = topic.seeds[index % len(topic.seeds)]
    elif generator == "reasoning":
        case = rng.choice([case for case in taxonomy.reasoning if case.label == topic.label])
        fields["facts"] = {name: rng.choice(texts) for name, texts in case.facts.items()}
        fields["examples"] = examples
    elif generator == "adversarial" or (
        generator == "preference" and kinds and topic.label != taxonomy.task.abstain_label and rng.random() < _ADVERSARIAL_SHARE_OF_PAIRS
    ):
        kind = _draw(rng, {name: kind.weight for name, kind in kinds.items()})
        family = kinds[kind].family
        fields["kind"] = kind
        fields["family"] = family
        fields["label"] = _label(kinds[kind], topic, taxonomy)
        if family == "rules":
            fields["rules"] = tuple(map(policy_line, rng.choice(meeting(taxonomy.policy, taxonomy.task.label_field, topic.label))))
        if family == "failures":
            fields["failures"] = tuple(rng.sample(failures, min(_FAILURES_SHOWN, len(failures))))
        others = [other.path for other in topics if other.label != topic.label and other.label != taxonomy.task.abstain_label]
        fields["neighbours"] = tuple(rng.sample(others, min(2, len(others))))
    else:
        fields["examples"] = examples
    return PlanItem(
        topic=topic.path,
        generator=generator,
        index=index,
        count=count,
        description=topic.description.strip(),
        dimensions=dimensions,
        **fields,  # type: ignore[arg-type]
    )


def _label(kind: AdversarialKind, topic: Topic, taxonomy: Taxonomy) -> str | None:
    """The label of a right answer to an input of a kind; what `then` says of the label field comes first."""
    said = kind.then.get(taxonomy.task.label_field or "")
    if isinstance(said, str):
        return said
    return {"topic": topic.label, "abstain": taxonomy.task.abstain_label, "open": None}[kind.expect]


def _draw(rng: random.Random, weights: Mapping[str, float]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def count_calls(items: Sequence[PlanItem], judge: bool, second: bool = False) -> int:
    """How many calls the plan needs when every answer can be read at once, and no conversation ends before its last turn."""
    return sum(calls_of(item, judge, second) for item in items)
