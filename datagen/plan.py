"""The plan: topics x mix -> items, by the recipe's seed alone. A longer plan begins with the shorter one's draws."""

import heapq
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Literal, NamedTuple

from datagen.design import Coverings, Independent, draw
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
    for drawn in item.draws:
        counts[drawn.prompt, drawn.role] = counts.get((drawn.prompt, drawn.role), 0) + 1
    compared = len(item.draws) * (len(item.draws) - 1) if item.generator == "preference" else 0
    asks = [PlannedAsk(prompt, role, times) for (prompt, role), times in counts.items()]
    return [*asks, PlannedAsk("compare", "judge", compared)] if compared else asks


def calls_of(item: PlanItem, judged: bool, second: bool = False) -> int:
    """How many calls an item takes when every answer can be used at once; a conversation may end before."""
    return sum(ask.times(item.count) for ask in asks_of(item, judged, second))


class Cell(NamedTuple):
    """A topic's leaf and a generator, with the rows that are wanted of them."""

    topic: str
    generator: str
    target: int


class Planner:
    """The items of every cell of a recipe: an endless sequence each, by the seed alone. No cell's items depend on another's.

    several    by generator: how many answers it draws for each input, where it is not its usual one
    failures   what an evaluation found wrong, for kinds of the family `failures`; other kinds and topics go without
    passages   what `grounded` asks about, and whether the student is `shown` it
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        *,
        seed: int,
        seeds: Mapping[str, tuple[str, ...]],
        replace_seeds: bool,
        design: Literal["covering", "independent"] = "independent",
        several: Mapping[str, Several] | None = None,
        failures: Sequence[Failure] = (),
        passages: Sequence[Passage] = (),
        shown: bool = True,
    ) -> None:
        self.taxonomy = taxonomy
        self._seed, self._shown = seed, shown
        self._several = several or {}
        self._failures = failures
        self._kinds: dict[str, dict[str, AdversarialKind]] = {}
        self.topics = [_with_seeds(topic, seeds, replace_seeds) for topic in taxonomy.leaves()]
        self._by_path = {topic.path: topic for topic in self.topics}
        self._labels_of_paths = [(topic.path, topic.label) for topic in self.topics if topic.label != taxonomy.task.abstain_label]
        self._neighbours: dict[str | None, list[str]] = {}
        self.passages = _ranked(passages, self.topics, seed)
        self._passages_of: dict[str, list[Passage]] = {}
        for passage, mine in self.passages:
            for topic in mine:
                self._passages_of.setdefault(topic.path, []).append(passage)
        weights = {name: {v: value.weight for v, value in values.items()} for name, values in taxonomy.dimensions.items()}
        self._independent = Independent(weights)
        self._coverings = Coverings(weights, f"{seed}/design") if design == "covering" else None

    def eligible(self, mix: Mapping[str, int]) -> dict[str, list[Topic]]:
        """The topics of each generator that is asked for. Raises ConfigError for one that the taxonomy gives nothing to work on."""
        found = {}
        for generator, count in mix.items():
            if not count:
                continue
            found[generator] = self._eligible(generator)
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
        """Item `index` of a cell, which asks for `count` inputs. One of `grounded` goes by its passage: the cell's in turn."""
        if generator == "grounded":
            turn, place = divmod(index, len(self._passages_of[topic]))
            return self.about(self._passages_of[topic][place], topic, turn, count)
        return self._item(topic, generator, index, count)

    def about(self, passage: Passage, topic: str, turn: int, count: int) -> PlanItem:
        """The item of `grounded` that asks about a passage for the `turn`-th time. Its index is a hash: no other passage moves it."""
        index = int(sha256(_asked(self._seed, passage, turn).encode()).hexdigest()[:12], 16)
        return self._item(topic, "grounded", index, count).model_copy(update={"passage": passage, "shown": self._shown})

    def _item(self, topic: str, generator: str, index: int, count: int) -> PlanItem:
        item = _item(self, self._by_path[topic], generator, index, count, self._seed)
        several = self._several.get(generator)
        return item if several is None else item.model_copy(update={"draws": several.draws, "take": several.take})

    def _eligible(self, generator: str) -> list[Topic]:
        weighted = [topic for topic in self.topics if topic.weight]
        if generator == "seed":
            return [topic for topic in weighted if topic.seeds]
        if generator == "adversarial":
            near = [topic for topic in weighted if topic.label is None or topic.label != self.taxonomy.task.abstain_label]
            return [topic for topic in near if self.kinds(topic)]
        if generator == "grounded":
            return [topic for topic in weighted if topic.path in self._passages_of]
        if generator == "reasoning":
            cases = {case.label for case in self.taxonomy.reasoning}
            return [topic for topic in weighted if topic.label in cases]
        return weighted

    def failures(self, topic: Topic) -> list[Failure]:
        """The failures that belong to a topic: by its path, or by its label where they name no topic."""
        return [f for f in self._failures if f.topic == topic.path or (f.topic is None and f.label is not None and f.label == topic.label)]

    def kinds(self, topic: Topic) -> dict[str, AdversarialKind]:
        """The kinds that can be written for a topic: some need rules that meet there, or failures that were seen."""
        if topic.path not in self._kinds:
            rules = bool(meeting(self.taxonomy.policy, self.taxonomy.task.label_field, topic.label))
            able = {"rules": rules, "failures": bool(self.failures(topic))}
            kinds = {name: kind for name, kind in self.taxonomy.adversarial.items() if kind.weight and able.get(kind.family or "", True)}
            self._kinds[topic.path] = kinds
        return self._kinds[topic.path]

    def dimensions(self, topic: str, generator: str, index: int, rng: random.Random) -> dict[str, str]:
        """The dimension values of an item whose own draws `rng` makes."""
        if self._coverings is None or generator == "grounded":  # whose items go by their passages: they have no sequence to cover
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
    several: Mapping[str, Several] | None = None,
    failures: Sequence[Failure] = (),
    max_turns: int = 4,
    passages: Sequence[Passage] = (),
    shown: bool = True,
) -> list[PlanItem]:
    """Every item of a run, by id. Raises ConfigError for a generator that the taxonomy gives nothing to work on.

    max_turns   an item of `conversation` is one conversation of that many inputs at most; see Planner for the rest
    """
    planner = Planner(
        taxonomy, seed=seed, seeds=seeds, replace_seeds=replace_seeds, design=design, several=several, failures=failures,
        passages=passages, shown=shown,
    )  # fmt: skip
    counted = {generator: count for generator, count in mix.items() if generator not in ("conversation", "grounded") or not count}
    items = []
    for cell in planner.cells(counted):
        items += [planner.item(*cell[:2], index, count) for index, count in enumerate(_counts(cell.target, per_call))]
    if mix.get("conversation"):
        topics = planner.eligible({"conversation": mix["conversation"]})["conversation"]
        for topic, turns in zip(topics, _whole(mix["conversation"], max_turns, [t.weight for t in topics]), strict=True):
            items += [planner.item(topic.path, "conversation", index, count) for index, count in enumerate(_counts(turns, max_turns))]
    if mix.get("grounded"):
        if not passages:
            planner.eligible({"grounded": mix["grounded"]})
        items += _grounded(planner, mix["grounded"], per_call, seed)
    return sorted(items, key=lambda item: item.id)


def _whole(total: int, size: int, weights: Sequence[float]) -> list[int]:
    """`total` by weight in lots of `size`, for a conversation that is shared out by the turn is none; the last lot may be smaller."""
    shares = [lots * size for lots in apportion(-(-total // size), weights)]
    last = max(place for place, share in enumerate(shares) if share)
    shares[last] -= sum(shares) - total
    return shares


def _counts(total: int, size: int) -> list[int]:
    return [size] * (total // size) + ([total % size] if total % size else [])


def _grounded(planner: Planner, total: int, per_call: int, seed: int) -> list[PlanItem]:
    """Items that go round all passages, each once before any twice; of the topics that a passage stands for one is drawn."""
    if not planner.passages:
        raise ConfigError(f"mix.grounded is {total}, but every topic that the documents stand for has weight 0. Raise a weight.")
    items: list[PlanItem] = []
    for number, count in enumerate(_counts(total, per_call)):
        turn, place = divmod(number, len(planner.passages))
        passage, mine = planner.passages[place]
        path = draw(random.Random(_asked(seed, passage, turn)), {topic.path: topic.weight for topic in mine})
        items.append(planner.about(passage, path, turn, count))
    return items


def _asked(seed: int, passage: Passage, turn: int) -> str:
    return f"{seed}/{passage.id}/{turn}"


def _ranked(passages: Sequence[Passage], topics: Sequence[Topic], seed: int) -> list[tuple[Passage, list[Topic]]]:
    """The passages in the order in which they are asked about, each with the topics that it stands for; none without such a topic.

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
    ranked.sort(key=lambda row: row[0])
    return [(passage, mine) for _, passage, mine in ranked]


def _topics_of(source: str, topics: Sequence[Topic]) -> list[Topic]:
    """The topics that a document stands for: those of the nearest topic or branch that its path names, or else all."""
    parts = source.rpartition(".")[0].split("/")
    for end in range(len(parts), 0, -1):
        branch = "/".join(parts[:end])
        if mine := [topic for topic in topics if f"{topic.path}/".startswith(f"{branch}/")]:
            return [topic for topic in mine if topic.weight]
    return [topic for topic in topics if topic.weight]


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
    "conversation": "it needs topics with a weight above 0",
    "grounded": "it needs passages: name the folder of your documents in `sources`",
}


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
    taxonomy, kinds = planner.taxonomy, planner.kinds(topic)
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
        generator == "preference" and kinds and topic.label != taxonomy.task.abstain_label and rng.random() < _ADVERSARIAL_SHARE_OF_PAIRS
    ):
        kind = draw(rng, {name: kind.weight for name, kind in kinds.items()})
        family = kinds[kind].family
        fields["kind"] = kind
        fields["family"] = family
        fields["label"] = _label(kinds[kind], topic, taxonomy)
        if family == "rules":
            fields["rules"] = tuple(map(policy_line, rng.choice(meeting(taxonomy.policy, taxonomy.task.label_field, topic.label))))
        if family == "failures":
            failures = planner.failures(topic)
            fields["failures"] = tuple(rng.sample(failures, min(_FAILURES_SHOWN, len(failures))))
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


def _label(kind: AdversarialKind, topic: Topic, taxonomy: Taxonomy) -> str | None:
    """The label of a right answer to an input of a kind; what `then` says of the label field comes first."""
    said = kind.then.get(taxonomy.task.label_field or "")
    if isinstance(said, str):
        return said
    return {"topic": topic.label, "abstain": taxonomy.task.abstain_label, "open": None}[kind.expect]


def count_calls(items: Sequence[PlanItem], judge: bool, second: bool = False) -> int:
    """How many calls the plan needs when every answer can be read at once, and no conversation ends before its last turn."""
    return sum(calls_of(item, judge, second) for item in items)
