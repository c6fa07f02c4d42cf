"""All examples through all filters: verdicts, and the groups that the split keeps together. Offline, repeatable, free.

`curate` judges everything anew: survivors are the lowest ids, whatever came first. `curate_new` judges only what came since, against
what was kept then: its cost is that of the new examples, and what was kept stays.
"""

import gc
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from datagen.arrivals import Prompt, keep, meet, remember
from datagen.errors import ConfigError, StoreError
from datagen.filters import DEFAULTS, EXAMPLE_FILTERS, GATES, SET_FILTERS, FilterContext
from datagen.filters.context import EarlierRow
from datagen.filters.decontaminate import checked_against
from datagen.filters.dedup import duplicate, group_ids, near_reason, same_reason
from datagen.filters.quota import earlier
from datagen.records import Example, Python, Rubric, Verdict, content_hash
from datagen.store import SeenTexts, Store
from datagen.yaml_file import nearest


class FilterCount(NamedTuple):
    """How many examples a filter looked at, and how many it would drop."""

    name: str
    checked: int
    dropped: int


class ReasonCount(NamedTuple):
    """How often a filter gave a kind of reason. An example that several filters drop counts for each."""

    by: str
    kind: str
    examples: int


class CurateReport(NamedTuple):
    """What `curate` decided. `accepted` is after people's words, which are last; `overruled` counts those that differ."""

    examples: int
    accepted: int
    overruled: int
    filters: tuple[FilterCount, ...]
    reasons: tuple[ReasonCount, ...]
    groups: int
    largest_group: int


def curate(store: Store, context: FilterContext, *, progress: Callable[[str], None] | None = None) -> CurateReport:
    """Run every filter over the store's current examples and put the verdicts in the place of the old ones.

    The same examples, people's verdicts and context give the same verdicts. `progress` is called with each filter's name
    before it runs. Raises StoreError when there is nothing to curate.
    """
    with _no_collector():
        store.remember_exams(context.evaluation_sets)
        return _curate(store, with_store(store, context), progress)


def _curate(store: Store, context: FilterContext, progress: Callable[[str], None] | None) -> CurateReport:
    examples = store.current_examples()
    if not examples:
        raise StoreError(f"{store.path}: holds no examples. Run `python -m datagen generate` first.")
    people = latest_words(store.verdicts())
    verdicts = judge_all(examples, people, context, progress)
    if progress:
        progress("groups")
    groups = group_ids(examples)
    store.set_settings({MARK: ""})
    store.replace_filter_verdicts(verdicts, groups)
    kept = _kept(examples, people, verdicts)
    with store.seen_texts() as seen:
        remember(seen, [Prompt.of(example) for example in examples if kept[example.id]], _threshold(context))
    arrived = store.arrivals(MARK)
    store.set_settings({MARK: mark(context, arrived.people, arrived.everything)})
    return _report(examples, people, verdicts, groups)


def with_store(store: Store, context: FilterContext) -> FilterContext:
    """The context with what the store knows: every evaluation set that it was ever checked against, embeddings, targets, rows of other
    data sets, seeds; nothing where the recipe asks for none of it."""
    targets = store.targets()
    grown = any(context.setting("too_near_seed", name) for name in DEFAULTS["too_near_seed"])
    return replace(
        context,
        evaluation_sets=store.exams(context.evaluation_sets, context.retired),
        vectors=None if context.embedding is None else store.vectors(context.embedding),
        targets=targets,
        earlier=[EarlierRow(*row) for row in store.earlier_rows()] if targets else (),
        seeds=store.seeds_of_items() if grown else {},
    )


@contextmanager
def _no_collector() -> Iterator[None]:
    """A million records without cycles: to look them through for garbage, again and again, was measured at a fifth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


# The setting in which a curate leaves what it decided by, and a checksum of the examples.
MARK = "curated"


def curate_new(store: Store, context: FilterContext) -> CurateReport | None:
    """Judge the examples that have no verdicts yet, against what is kept; the report counts them alone.

    Between twins the one that was kept before stays; of new ones the lowest id. None, and nothing is done, when the ground has
    changed since the last full `curate`: another recipe, taxonomy or evaluation set, a person's word, a plan without some of
    the old examples. Then only `curate` can tell; so where filters compare all with all or count them (`style`, embeddings, label noise,
    a quota, bounds on seeds).
    """
    if context.setting("style", "max_z"):
        return None  # a newcomer moves the medians that all are judged by
    if context.embedding is not None or context.setting("label_noise", "lead") < 1:  # their word on one example hangs on all others
        return None
    context = with_store(store, context)
    if context.targets or context.seeds:
        return None
    examples, judged, everything, left, people = store.arrivals(MARK)
    if left != mark(context, people, judged):
        return None
    if not examples:
        return _report([], {}, [], {})
    with store.seen_texts() as seen:
        verdicts, groups = judge_arrivals(seen, examples, context)
        seen.set(MARK, mark(context, people, everything))
    return _report(examples, {}, verdicts, groups)


def judge_arrivals(seen: SeenTexts, examples: Sequence[Example], context: FilterContext) -> tuple[list[Verdict], dict[str, str]]:
    """The verdicts on new examples against what `seen` kept before, and their groups; what is kept of them, `seen` keeps too."""
    verdicts = _judge_each(examples, context)
    by_id = {example.id: example for example in examples}
    dropped = {verdict.example_id for verdict in verdicts if not verdict.keep}
    verdicts += earlier([example for example_id, example in by_id.items() if example_id not in dropped], context)
    dropped |= {verdict.example_id for verdict in verdicts if not verdict.keep}
    survivors = [example for example_id, example in by_id.items() if example_id not in dropped]
    arrivals = meet(seen, [Prompt.of(example) for example in survivors], _threshold(context))
    among = {verdict.example_id: verdict.reason for verdict in duplicate(survivors, context)}
    kept = []
    for prompt, same, twin in zip(arrivals.prompts, arrivals.same, arrivals.twins, strict=True):
        reason = among[prompt.example_id] if same is None else same_reason(same)
        verdicts.append(Verdict(example_id=prompt.example_id, by="filter:duplicate", keep=reason is None, reason=reason))
        kept.append(reason is None and twin is None)
        if reason is None:
            reason = None if twin is None else near_reason(*twin)
            verdicts.append(Verdict(example_id=prompt.example_id, by="filter:near_duplicate", keep=reason is None, reason=reason))
    groups = {example_id: arrivals.groups.get(example_id, example_id) for example_id in by_id}
    keep(seen, arrivals._replace(groups=groups), kept, verdicts)
    return verdicts, groups


def _threshold(context: FilterContext) -> float:
    return context.setting("near_duplicate", "threshold")


def mark(context: FilterContext, people: str, judged: str) -> str:
    """All that verdicts depend on besides the examples themselves, and which examples have verdicts."""
    settings = {name: {setting: context.setting(name, setting) for setting in values} for name, values in DEFAULTS.items()}
    ground = content_hash(
        [
            context.task.model_dump(mode="json"),
            dict(context.labels),
            {name: fact.model_dump(mode="json") for name, fact in context.facts.items()},
            [rule.model_dump(mode="json") for rule in context.policy],
            checked_against(context.evaluation_sets),
            context.embedding,
            [sha256(Path(of.python.rpartition(":")[0]).read_bytes()).hexdigest() for of in context.task.verify if isinstance(of, Python)],
            {name: kind.model_dump(mode="json") for name, kind in context.kinds.items()},
            list(context.failures),
            settings,
            dict(context.settings.get("judge", {})),
            None if context.rubric is None else context.rubric.model_dump(mode="json"),
            dict(context.prompts),
            people,
        ]
    )
    return json.dumps({"ground": ground, "judged": judged})


def latest_words(verdicts: Sequence[Verdict]) -> dict[str, Verdict]:
    """The last verdict of a person on each example that has one; `verdicts` in the order in which they were given."""
    return {verdict.example_id: verdict for verdict in verdicts if verdict.by.startswith("human:")}


def judge_all(
    examples: Sequence[Example],
    people: Mapping[str, Verdict],
    context: FilterContext,
    progress: Callable[[str], None] | None = None,
) -> list[Verdict]:
    """One verdict for each example and each filter that looked at it.

    Gates and example filters look at all. Set filters look at what those kept or a person accepted, and not at what a person
    rejected: a rejected example shadows no other.
    """
    by_id = {example.id: example for example in examples}  # an id is a hash made anew at each look: look once
    by_id = dict(sorted(by_id.items()))
    context = replace(context, pinned=frozenset(id for id, word in people.items() if word.keep))
    verdicts = _judge_each(list(by_id.values()), context, progress)
    for name, decide_set in SET_FILTERS.items():
        if progress:
            progress(name)
        dropped = {verdict.example_id for verdict in verdicts if not verdict.keep}
        survivors = [
            example
            for example_id, example in by_id.items()
            if (people[example_id].keep if example_id in people else example_id not in dropped)
        ]
        verdicts += decide_set(survivors, context)
    return verdicts


def _judge_each(examples: Sequence[Example], context: FilterContext, progress: Callable[[str], None] | None = None) -> list[Verdict]:
    """The verdicts of gates and example filters, which look at each example by itself."""
    verdicts: list[Verdict] = []
    ids = [example.id for example in examples]
    for name, gate in GATES.items():
        if progress:
            progress(name)
        verdicts += gate(examples, context)
    for name, decide in EXAMPLE_FILTERS.items():
        if progress:
            progress(name)
        by = f"filter:{name}"
        for example_id, example in zip(ids, examples, strict=True):
            reason = decide(example, context)
            verdicts.append(Verdict(example_id, by, reason is None, reason))
    return verdicts


def check_settings(settings: Mapping[str, Mapping[str, Any]], path: Path, rubric: Rubric | None = None) -> None:
    """Raises ConfigError for a filter or a setting that does not exist, with the near name, and for a value that is no number.

    Each criterion of a rubric has a setting of the judge, `min_NAME`.
    """
    known_settings = {name: list(values) for name, values in DEFAULTS.items()}
    if rubric is not None:
        known_settings["judge"] = ["min", "min_mean", *(f"min_{name}" for name in rubric.criteria)]
    for name, values in settings.items():
        if name not in DEFAULTS:
            raise ConfigError(f"{path}: filters.{name} is not a filter. {_hint(name, list(DEFAULTS))}")
        for setting, value in (values or {}).items():
            if setting not in known_settings[name]:
                raise ConfigError(f"{path}: filters.{name}.{setting} is not a setting. {_hint(setting, known_settings[name])}")
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConfigError(f"{path}: filters.{name}.{setting} is {value!r}; give a number.")
            if name == "label_noise" and setting == "lead":
                if not 0 <= value <= 1:
                    raise ConfigError(f"{path}: filters.{name}.{setting} is {value!r}; give a lead in probability from 0 to 1 (1 = off).")
                if value < 1 and find_spec("sklearn") is None:
                    raise ConfigError(
                        f"{path}: filters.label_noise needs scikit-learn. Install it (pip install 'retort[noise]') or set lead: 1."
                    )
            if name == "too_near_seed" and value and not 0.5 <= value <= 1:
                raise ConfigError(f"{path}: filters.{name}.{setting} is {value!r}; give a similarity from 0.5 to 1, or 0 for no bound.")
            if setting == "threshold" and not 0.5 <= value <= 1:
                raise ConfigError(f"{path}: filters.{name}.{setting} is {value!r}; give a similarity from 0.5 to 1.")


def _hint(name: str, known: list[str]) -> str:
    near = nearest(name, known)
    return f"Did you mean {near!r}?" if near else f"Known: {', '.join(known) or 'none, this filter has no settings'}."


def _report(
    examples: Sequence[Example], people: Mapping[str, Verdict], verdicts: Sequence[Verdict], groups: Mapping[str, str]
) -> CurateReport:
    checked = Counter(verdict.by for verdict in verdicts)
    refused = [verdict for verdict in verdicts if not verdict.keep]
    dropped = {verdict.example_id for verdict in refused}
    reasons = Counter((verdict.by, kind_of(verdict.reason)) for verdict in refused)
    by_filter = Counter(verdict.by for verdict in refused)
    kept = _kept(examples, people, verdicts)
    return CurateReport(
        examples=len(examples),
        accepted=sum(kept.values()),
        overruled=sum(keep == (id in dropped) for id, keep in kept.items()),
        filters=tuple(FilterCount(by.removeprefix("filter:"), n, by_filter[by]) for by, n in checked.items()),
        reasons=tuple(ReasonCount(by, kind, n) for (by, kind), n in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        groups=len(set(groups.values())),
        largest_group=max(Counter(groups.values()).values(), default=0),
    )


def _kept(examples: Sequence[Example], people: Mapping[str, Verdict], verdicts: Sequence[Verdict]) -> dict[str, bool]:
    """Whether each example is fit: a person's last word, or else no filter dropped it."""
    dropped = {verdict.example_id for verdict in verdicts if not verdict.keep}
    return {example.id: people[example.id].keep if example.id in people else example.id not in dropped for example in examples}


def kind_of(reason: str | None) -> str:
    """The part of a reason before its first colon."""
    return (reason or "").split(":", 1)[0]
