"""Quotas on accepted rows: ask, judge, count, and ask again where a cell (a topic's leaf and a generator) is short.

A cell's items are an endless sequence (plan.Planner), so a round only says how far down each sequence the run goes. That depends on the
answers alone: a rerun walks the same rounds over stored answers, without a call, and ends with the same plan.
Rounds are judged by the filters of `curate`, but only what is new, against what was kept in the rounds before. When no cell is short any
more, `curate` judges all and has the last word; where it keeps fewer (survivors of twins are the lowest ids, not the first), the
rounds go on.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datagen.ask import Problem
from datagen.batch import BatchReport
from datagen.config import Quota
from datagen.coverage import ShortCell, shortfalls
from datagen.curate import curate, judge_arrivals, with_store
from datagen.filters import FilterContext
from datagen.filters.quota import too_near_seed
from datagen.generate import GenerateReport, by_reason
from datagen.plan import Cell, Planner
from datagen.records import Example, PlanItem
from datagen.store import Store

# The rate at which a cell's inputs are accepted: what the cell saw, with what its generator saw in all cells counting as this many inputs
_PRIOR_INPUTS = 8.0
_FIRST_RATE = 1.0  # before anything was seen: a row too few is asked for again, a row too many is paid for nothing
# A round asks for as many inputs as give the missing rows with this probability. Measured (docs/log.md): 0.8 saves a round in four, and
# costs half as many rows again beyond the target
_SURE = 0.5
# Verdicts that say that a seed gave what was there already
_REPEATS = ("duplicate", "near_duplicate", "too_near_seed", "earlier")


class ExhaustedSeed(NamedTuple):
    """A seed that is not drawn from any more: how many of the inputs of its last items were the same as, or near to, others."""

    topic: str
    seed: str
    repeats: int
    inputs: int


class QuotaReport(NamedTuple):
    """What a run with a quota came to. `accepted` counts up to each cell's target; `short` names the cells that have fewer."""

    rounds: int
    cells: int
    target: int
    accepted: int
    asked: int
    short: tuple[ShortCell, ...]
    exhausted: tuple[ExhaustedSeed, ...]

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        short, exhausted = [entry.as_json() for entry in self.short], [seed._asdict() for seed in self.exhausted]
        return {**self._asdict(), "short": short, "exhausted": exhausted}


class _Cell:
    """How far a cell is. `owed`: rows that rounds counted and `curate` did not keep."""

    def __init__(self, cell: Cell, count: int, most_items: int) -> None:
        self.cell, self.count, self.most_items = cell, count, most_items
        self.index = self.items = self.accepted = self.owed = 0
        self.asked = 0
        self.closed: str | None = None

    @property
    def short(self) -> int:
        return self.cell.target + self.owed - self.accepted


class Filling:
    """The cells of a run, the items that they were given so far, and what came of them."""

    def __init__(self, planner: Planner, cells: Sequence[Cell], settings: Quota, per_call: int, max_turns: int = 4) -> None:
        self.plan: list[PlanItem] = []
        self.exhausted: dict[tuple[str, str], ExhaustedSeed] = {}
        self._planner, self._settings = planner, settings
        self._cells = {(c.topic, c.generator): self._state(c, max_turns if c.generator == "conversation" else per_call) for c in cells}
        self._seeds: dict[tuple[str, str], list[tuple[int, int]]] = {}  # topic and seed -> repeats and inputs of each item

    def _state(self, cell: Cell, inputs: int) -> _Cell:
        count = min(inputs, cell.target)
        return _Cell(cell, count, math.ceil(math.ceil(self._settings.candidates * cell.target) / count))

    @property
    def targets(self) -> dict[tuple[str, str], int]:
        """The rows that each cell shall have."""
        return {key: state.cell.target for key, state in self._cells.items()}

    @property
    def most_inputs(self) -> int:
        """How many inputs all candidate budgets together allow."""
        return sum(state.most_items * state.count for state in self._cells.values())

    @property
    def asked(self) -> int:
        """How many inputs were asked for."""
        return sum(state.asked for state in self._cells.values())

    def next_items(self) -> list[PlanItem]:
        """The items of the next round: none when no cell is short, or none can be asked more. They count as planned from now on."""
        open_cells = [state for state in self._cells.values() if state.short > 0 and not state.closed]
        new = []
        for state, wanted in zip(open_cells, _inputs_for(open_cells, self._rates()), strict=True):
            for _ in range(math.ceil(wanted / state.count)):
                item = self._draw(state)
                if item is None:
                    break
                new.append(item)
        self.plan += new
        return sorted(new, key=lambda item: item.id)

    def _rates(self) -> dict[str, float]:
        accepted: Counter[str] = Counter()
        asked: Counter[str] = Counter()
        for state in self._cells.values():
            accepted[state.cell.generator] += state.accepted - state.owed
            asked[state.cell.generator] += state.asked
        return {name: (accepted[name] + _PRIOR_INPUTS * _FIRST_RATE) / (asked[name] + _PRIOR_INPUTS) for name in asked}

    def _draw(self, state: _Cell) -> PlanItem | None:
        if state.items >= state.most_items:
            state.closed = f"its candidates are spent: {state.asked} inputs were asked for"
            return None
        passed: set[str] = set()
        while True:
            item = self._planner.item(state.cell.topic, state.cell.generator, state.index, state.count)
            state.index += 1
            if item.seed is None or (item.topic, item.seed) not in self.exhausted:
                break
            if item.seed in passed:
                state.closed = f"its {len(passed)} seeds are exhausted"
                return None
            passed.add(item.seed)
        state.items += 1
        state.asked += item.count
        return item

    def take(self, items: Sequence[PlanItem], verdicts: Mapping[str, Sequence[str | None]], replayed: Set[str] = frozenset()) -> None:
        """Count what came of a round: for each item the verdict on each of its examples, None for one that is kept.

        `replayed` items asked what another data set of the store had asked before: they cost nothing and do not count as candidates.
        """
        for item in items:
            came = verdicts.get(item.id, ())
            state = self._cells[item.topic, item.generator]
            state.accepted += sum(reason is None for reason in came)
            if item.id in replayed:
                state.items -= 1
                state.asked -= item.count
                if state.closed and state.items < state.most_items:
                    state.closed = None
            elif item.seed is not None and came:
                own = self._seeds.setdefault((item.topic, item.seed), [])
                own.append((sum(reason in _REPEATS for reason in came), len(came)))
        bound = self._settings.diversity
        for (topic, seed), each in self._seeds.items():
            last = each[-bound.items :]
            repeats, inputs = sum(pair[0] for pair in last), sum(pair[1] for pair in last)
            if len(last) == bound.items and repeats / inputs > bound.repeats:
                self.exhausted.setdefault((topic, seed), ExhaustedSeed(topic, seed, repeats, inputs))

    def correct(self, accepted: Mapping[tuple[str, str], int]) -> None:
        """Take the count of a full `curate` for that of the rounds."""
        for key, state in self._cells.items():
            state.owed = state.accepted - min(accepted.get(key, 0), state.cell.target)

    def short(self) -> dict[tuple[str, str], str]:
        """The cells that have fewer rows than they should, and what keeps the run from asking further."""
        return {key: state.closed or "the run ended before" for key, state in self._cells.items() if state.short > 0}


def _inputs_for(cells: Sequence[_Cell], rates: Mapping[str, float]) -> list[int]:
    """How many more inputs give each cell's missing rows with probability _SURE: a quantile of the negative binomial."""
    each = [(c.accepted - c.owed + _PRIOR_INPUTS * rates[c.cell.generator]) / (c.asked + _PRIOR_INPUTS) for c in cells]
    if all(rate >= 1 for rate in each):
        return [state.short for state in cells]
    from scipy.stats import nbinom  # half a second to import: only where something was dropped

    short = np.array([state.short for state in cells])
    return [int(inputs) for inputs in short + nbinom.ppf(_SURE, short, np.clip(each, 0.01, 1.0))]


class RoundJudge:
    """The filters of `curate` over what is new in a round, against what the rounds before kept. Made by `judging`."""

    def __init__(self, store: Store, context: FilterContext, scratch: Store) -> None:
        self._store, self._scratch = store, scratch
        self._context = with_store(store, context)
        self._words = store.words_of_people()
        self._kept_of_seeds: dict[str, Example] = {}
        self._earlier = {row.example_id for row in self._context.earlier}
        self.replayed: set[str] = set()  # items that stand for rows of another data set

    def __call__(self, items: Sequence[PlanItem]) -> dict[str, list[str | None]]:
        """For each item the kind of reason that drops each of its examples, or None."""
        examples = [example for example in self._store.examples_of([item.id for item in items]) if self._words.get(example.id) is not False]
        self.replayed |= {example.item_id for example in examples if example.id in self._earlier}
        grown = self._context.setting("too_near_seed", "seed") or self._context.setting("too_near_seed", "sibling")
        dropped: dict[str, str] = {}
        if examples:
            with self._scratch.seen_texts() as seen:
                verdicts, _ = judge_arrivals(seen, examples, self._context)
            dropped = {verdict.example_id: (verdict.reason or "").partition(":")[0] for verdict in verdicts if not verdict.keep}
        if grown:
            dropped |= self._near_seeds(items, [example for example in examples if example.id not in dropped])
        found: dict[str, list[str | None]] = {}
        for example in examples:
            found.setdefault(example.item_id, []).append(None if self._words.get(example.id) else dropped.get(example.id))
        return found

    def _near_seeds(self, items: Sequence[PlanItem], survivors: Sequence[Example]) -> dict[str, str]:
        seeds = {**self._context.seeds, **{item.id: item.seed for item in items if item.seed is not None}}
        self._context = replace(self._context, seeds=seeds)
        own = [example for example in survivors if example.item_id in seeds]
        known = frozenset(self._kept_of_seeds)
        verdicts = too_near_seed([*self._kept_of_seeds.values(), *own], replace(self._context, pinned=known))
        dropped = {verdict.example_id: "too_near_seed" for verdict in verdicts if not verdict.keep and verdict.example_id not in known}
        self._kept_of_seeds |= {example.id: example for example in own if example.id not in dropped}
        return dropped


@contextmanager
def judging(store: Store, context: FilterContext) -> Iterator[RoundJudge]:
    """A judge of rounds. What they kept is remembered in a store of its own, which goes when the run ends."""
    with tempfile.TemporaryDirectory() as folder:
        yield RoundJudge(store, context, Store(Path(folder) / "rounds.duckdb"))


async def fill(
    filling: Filling,
    first: Sequence[PlanItem],
    run: Callable[[list[PlanItem], list[PlanItem]], Awaitable[BatchReport]],
    store: Store,
    context: FilterContext,
    say: Callable[[str], None],
) -> tuple[BatchReport, QuotaReport]:
    """Rounds until every cell has its rows or can be asked no more, beginning with the items `first`, inside `store.writing()`.

    `run` runs the items given first, as a part of the plan given second. An interrupt, a spent budget and batches that are pending end the
    rounds; the same command goes on from there.
    """
    reports: list[BatchReport] = []
    new, judged = list(first), False
    with judging(store, context) as judge:
        while True:
            if new:
                reports.append(await run(new, filling.plan))
                report = reports[-1].report
                if report.interrupted or reports[-1].pending:
                    break
                filling.take(new, judge(new), judge.replayed)
                judged = False
                if report.stopped:
                    break
            elif judged:
                break
            else:
                curate(store, context)
                filling.correct(store.accepted_by_cell())
                judged = True
            new = filling.next_items()
            if new:
                left = filling.short()
                say(f"Round {len(reports) + 1}: {len(left):,} cells are short; asking for {sum(item.count for item in new):,} more inputs.")
    if not judged and not (reports[-1].report.interrupted or reports[-1].pending):
        curate(store, context)
        filling.correct(store.accepted_by_cell())
    return _sum(reports), _report(filling, store, len(reports))


def _report(filling: Filling, store: Store, rounds: int) -> QuotaReport:
    short = filling.short()
    targets, accepted = filling.targets, store.accepted_by_cell()
    return QuotaReport(
        rounds=rounds,
        cells=len(targets),
        target=sum(targets.values()),
        accepted=sum(min(accepted.get(key, 0), target) for key, target in targets.items()),
        asked=filling.asked,
        short=tuple(entry._replace(why=short.get((entry.topic, entry.generator), entry.why)) for entry in shortfalls(store)),
        exhausted=tuple(sorted(filling.exhausted.values())),
    )


def _sum(reports: Sequence[BatchReport]) -> BatchReport:
    """One report of all rounds."""
    each = [report.report for report in reports]
    names = ("items", "done", "empty", "failed", "calls", "reused", "new_examples", "problems", "deferred")
    missing = [Problem(entry.inputs, entry.reason, "", entry.cost_usd) for report in each for entry in report.missing]
    sums = {name: sum(getattr(report, name) for report in each) for name in names}
    last = each[-1]
    total = GenerateReport(stopped=last.stopped, interrupted=last.interrupted, missing=by_reason(missing), **sums)
    return BatchReport(total, reports[-1].pending)


def render(report: QuotaReport) -> str:
    """The last lines of a run with a quota."""
    lines = [
        f"Quota: {report.accepted:,} of {report.target:,} rows accepted in {report.cells:,} cells, from {report.asked:,} inputs in "
        f"{report.rounds} rounds."
    ]
    lines += [
        f"Exhausted: the seed {seed.seed[:60]!r} of {seed.topic}: {seed.repeats} of its last {seed.inputs} inputs were repeats."
        for seed in report.exhausted
    ]
    lines += [entry.line() for entry in report.short[:20]]
    if len(report.short) > 20:
        lines.append(f"... and {len(report.short) - 20:,} more short cells: python -m datagen coverage")
    return "\n".join(lines)
