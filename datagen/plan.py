"""The plan: topics x mix -> items, by the recipe's seed alone. A longer plan begins with the shorter one's draws."""

import heapq
import random
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from datagen.design import Coverings, Independent, draw
from datagen.errors import ConfigError
from datagen.records import PlanItem, Topic
from datagen.taxonomy import Taxonomy

_EXAMPLES_SHOWN = 3
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
}


def asks_of(item: PlanItem, judged: bool) -> tuple[PlannedAsk, ...]:
    """The questions of an item whose every answer can be used at once."""
    asks = _ASKS[item.generator]
    if item.generator == "preference" and item.kind:
        asks = (PlannedAsk("write_adversarial", "teacher", 0), *asks[1:])
    return (*asks, PlannedAsk("judge", "judge")) if judged else asks


def calls_of(generator: str, inputs: int, judged: bool) -> int:
    """How many calls an item of `inputs` inputs takes when every answer can be used at once."""
    return sum(ask.times(inputs) for ask in _ASKS[generator]) + (inputs if judged else 0)


class Cell(NamedTuple):
    """A topic's leaf and a generator, with the rows that are wanted of them."""

    topic: str
    generator: str
    target: int


class Planner:
    """The items of every cell of a recipe: an endless sequence each, by the seed alone. No cell's items depend on another's.

    Raises ConfigError where the seeds are none of the taxonomy's.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        *,
        seed: int,
        seeds: Mapping[str, tuple[str, ...]],
        replace_seeds: bool,
        design: Literal["covering", "independent"] = "independent",
    ) -> None:
        self.taxonomy = taxonomy
        self.topics = [_with_seeds(topic, seeds, replace_seeds) for topic in taxonomy.leaves()]
        self._by_path = {topic.path: topic for topic in self.topics}
        self._labels_of_paths = [(topic.path, topic.label) for topic in self.topics if topic.label != taxonomy.task.abstain_label]
        self._neighbours: dict[str | None, list[str]] = {}
        self._seed = seed
        weights = {name: {v: value.weight for v, value in values.items()} for name, values in taxonomy.dimensions.items()}
        self._independent = Independent(weights)
        self._coverings = Coverings(weights, f"{seed}/design") if design == "covering" else None

    def eligible(self, mix: Mapping[str, int]) -> dict[str, list[Topic]]:
        """The topics of each generator that is asked for. Raises ConfigError for one that the taxonomy gives nothing to work on."""
        found = {}
        for generator, count in mix.items():
            if not count:
                continue
            found[generator] = _eligible(generator, self.topics, self.taxonomy)
            if not found[generator]:
                raise ConfigError(
                    f"mix.{generator} is {count}, but the taxonomy gives it no topics ({_NEEDS[generator]}). Set it to 0 or add them."
                )
        return found

    def cells(self, mix: Mapping[str, int], min_per_topic: int = 0) -> list[Cell]:
        """The cells with their targets: each generator's count by the topics' weights, then as few rows moved from topics that have more
        than `min_per_topic` to those that have less as it takes. Raises ConfigError where that cannot be."""
        eligible = self.eligible(mix)
        rows = {
            (topic.path, generator): share
            for generator, topics in eligible.items()
            for topic, share in zip(topics, apportion(mix[generator], [t.weight for t in topics]), strict=True)
        }
        if min_per_topic:
            _level(rows, mix, min_per_topic)
        return [Cell(topic, generator, target) for (topic, generator), target in rows.items() if target]

    def item(self, topic: str, generator: str, index: int, count: int) -> PlanItem:
        """Item `index` of a cell, which asks for `count` inputs."""
        return _item(self, self._by_path[topic], generator, index, count, self._seed)

    def dimensions(self, topic: str, generator: str, index: int, rng: random.Random) -> dict[str, str]:
        """The dimension values of an item whose own draws `rng` makes."""
        if self._coverings is None:
            return self._independent.values(rng)
        return self._coverings.of(f"{topic}/{generator}").values(index)

    def neighbours(self, label: str | None) -> list[str]:
        """The topics whose answers have another label, those to abstain from aside."""
        if label not in self._neighbours:
            self._neighbours[label] = [path for path, other in self._labels_of_paths if other != label]
        return self._neighbours[label]


def make_plan(
    taxonomy: Taxonomy,
    mix: Mapping[str, int],
    *,
    per_call: int,
    seed: int,
    seeds: Mapping[str, tuple[str, ...]],
    replace_seeds: bool,
    design: Literal["covering", "independent"] = "independent",
) -> list[PlanItem]:
    """Every item of a run, by id. Raises ConfigError for a generator that the taxonomy gives nothing to work on."""
    planner = Planner(taxonomy, seed=seed, seeds=seeds, replace_seeds=replace_seeds, design=design)
    items = []
    for cell in planner.cells(mix):
        counts = [per_call] * (cell.target // per_call) + ([cell.target % per_call] if cell.target % per_call else [])
        items += [planner.item(cell.topic, cell.generator, index, count) for index, count in enumerate(counts)]
    return sorted(items, key=lambda item: item.id)


def counted_mix(mix: Mapping[str, int], rows: int | None) -> dict[str, int]:
    """The rows of each generator: what `mix` says, or `rows` in all by the shares that it gives."""
    if rows is None:
        return dict(mix)
    asked = {name: count for name, count in mix.items() if count}
    if rows < len(asked):
        raise ConfigError(f"quota.rows is {rows}, but mix names {len(asked)} generators. Ask for more rows, or set some to 0.")
    return dict(zip(asked, apportion(rows, list(asked.values())), strict=True))


def share_warning(mix: Mapping[str, int], taxonomy: Taxonomy) -> str | None:
    """What is unusual in the shares of the generators: hard inputs are 10 to 20 % of a data set that teaches both."""
    share = mix.get("adversarial", 0) / sum(mix.values())
    if not taxonomy.adversarial or 0.1 <= share <= 0.2:
        return None
    return f"mix.adversarial is {share:.0%} of the rows; 10 to 20 % is usual: fewer leave hard inputs untaught, more crowd plain ones out."


def _level(rows: dict[tuple[str, str], int], mix: Mapping[str, int], least: int) -> None:
    """Move rows within each generator from the topics with most to those with fewer than `least`."""
    totals: dict[str, int] = {}
    own: dict[str, list[str]] = {}
    for (topic, generator), count in rows.items():
        totals[topic] = totals.get(topic, 0) + count
        own.setdefault(topic, []).append(generator)
    wanted = least * len(totals)
    if wanted > sum(mix.values()):
        raise ConfigError(
            f"quota.min_per_topic is {least}, which takes {wanted:,} rows for {len(totals):,} topics, but mix has {sum(mix.values()):,}. "
            f"Lower it to {sum(mix.values()) // len(totals):,} or less, or raise mix."
        )
    rich: dict[str, list[tuple[int, str]]] = {generator: [] for generator in mix}
    for topic, generator in rows:
        if totals[topic] > least:
            rich[generator].append((-totals[topic], topic))
    for heap in rich.values():
        heapq.heapify(heap)
    for topic in sorted(totals):
        for generator in sorted(own[topic], key=lambda name: -mix[name]):
            heap = rich[generator]
            while totals[topic] < least and heap:
                total, donor = heapq.heappop(heap)
                spare = min(totals[donor] - least, rows[donor, generator])
                if spare <= 0:
                    continue
                if -total != totals[donor]:  # it has given since it was put there
                    heapq.heappush(heap, (-totals[donor], donor))
                    continue
                rows[donor, generator] -= 1
                rows[topic, generator] += 1
                totals[donor] -= 1
                totals[topic] += 1
                heapq.heappush(heap, (-totals[donor], donor))
        if totals[topic] < least:
            raise ConfigError(
                f"quota.min_per_topic is {least}, but {topic!r} can have {totals[topic]} rows at most: only {', '.join(own[topic])} can "
                "work on it. Lower min_per_topic, or raise one of them in mix."
            )


_NEEDS = {
    "seed": "it needs topics with seeds",
    "topic": "it needs topics with a weight above 0",
    "adversarial": "it needs adversarial kinds",
    "reasoning": "it needs `reasoning` cases for a topic's label",
    "preference": "it needs topics with a weight above 0",
}


def _eligible(generator: str, topics: Sequence[Topic], taxonomy: Taxonomy) -> list[Topic]:
    weighted = [topic for topic in topics if topic.weight]
    if generator == "seed":
        return [topic for topic in weighted if topic.seeds]
    if generator == "adversarial":
        return [t for t in weighted if t.label is None or t.label != taxonomy.task.abstain_label] if taxonomy.adversarial else []
    if generator == "reasoning":
        cases = {case.label for case in taxonomy.reasoning}
        return [topic for topic in weighted if topic.label in cases]
    return weighted


def _with_seeds(topic: Topic, seeds: Mapping[str, tuple[str, ...]], replace: bool) -> Topic:
    if not replace and topic.label not in seeds:
        return topic
    own = () if replace else topic.seeds
    return topic.model_copy(update={"seeds": own + seeds.get(topic.label or "", ())})


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """`total` in whole numbers by weight (largest remainder), at least one each while `total` allows."""
    base = [1 if total >= len(weights) else 0] * len(weights)
    rest = total - sum(base)
    whole = sum(weights)
    exact = [rest * weight / whole for weight in weights]
    shares = [b + int(e) for b, e in zip(base, exact, strict=True)]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(exact[i] - int(exact[i])), i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _item(planner: Planner, topic: Topic, generator: str, index: int, count: int, seed: int) -> PlanItem:
    # one generator per item, so that an item's draws do not depend on how many others there are
    rng = random.Random(f"{seed}/{topic.path}/{generator}/{index}")
    taxonomy = planner.taxonomy
    dimensions = planner.dimensions(topic.path, generator, index, rng)
    fields: dict[str, object] = {"label": topic.label}
    examples = tuple(rng.sample(topic.seeds, min(_EXAMPLES_SHOWN, len(topic.seeds))))
    if generator == "seed":
        turn, place = divmod(index, len(topic.seeds))
        fields["seed"] = topic.seeds[place]
        if taxonomy.axes:  # a Latin square: a turn over all seeds has the axes evenly, and every seed gets each axis in turn
            fields["axis"] = list(taxonomy.axes)[(turn + place) % len(taxonomy.axes)]
    elif generator == "reasoning":
        case = rng.choice([case for case in taxonomy.reasoning if case.label == topic.label])
        fields["facts"] = {name: rng.choice(texts) for name, texts in case.facts.items()}
        fields["examples"] = examples
    elif generator == "adversarial" or (
        generator == "preference"
        and taxonomy.adversarial
        and topic.label != taxonomy.task.abstain_label
        and rng.random() < _ADVERSARIAL_SHARE_OF_PAIRS
    ):
        kind = draw(rng, {name: kind.weight for name, kind in taxonomy.adversarial.items()})
        expect = taxonomy.adversarial[kind].expect
        fields["kind"] = kind
        fields["label"] = {"topic": topic.label, "abstain": taxonomy.task.abstain_label, "open": None}[expect]
        others = planner.neighbours(topic.label)
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


def count_calls(items: Sequence[PlanItem], judge: bool) -> int:
    """How many calls the plan needs when every answer can be read at once."""
    return sum(calls_of(item.generator, item.count, judge) for item in items)
