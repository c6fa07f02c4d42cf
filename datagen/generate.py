"""Run the plan: every item through its generator and the judge; one failed item is a row, not a crash.

The store is the checkpoint. A rerun walks the whole plan again, but every question that was answered is found in the store,
so it costs seconds and no call; only what is new or changed is asked.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from datagen import second
from datagen.ask import Ask, Asker, Deferred, Problem, ends_an_item, problem
from datagen.errors import BudgetError, ParseError, StoppedError, TeacherError
from datagen.generators import GENERATORS
from datagen.judge import judge
from datagen.records import Example, PlanItem
from datagen.store import Store

_FLUSH_EVERY_S = 5.0
_FLUSH_ROWS = 50_000
DRAIN_S = 5.0

Progress = Callable[[PlanItem, str], None]  # an item, and how it ended


class Missing(NamedTuple):
    """Inputs that were asked for and not made, for one reason, and what was paid for them."""

    reason: str
    inputs: int
    cost_usd: float


class GenerateReport(NamedTuple):
    """What a run did. `stopped` says why it ended early, if it did; `missing` what it tried and did not get.

    `deferred` items wait for the answers of a batch.
    """

    items: int
    done: int
    empty: int
    failed: int
    calls: int
    reused: int
    new_examples: int
    problems: int
    stopped: str | None
    missing: tuple[Missing, ...] = ()
    interrupted: bool = False
    deferred: int = 0


class _Outcome(NamedTuple):
    status: str
    examples: list[Example]
    problems: list[Problem]

    @property
    def error(self) -> str | None:
        """All that went wrong, as one text."""
        return "; ".join(problem.message for problem in self.problems) or None


async def run_item(item: PlanItem, asker: Asker, *, judged: bool) -> _Outcome:
    """One item's examples, and what is missing with its reason. Lets through what must end the run."""
    ask = Ask(asker, item)
    try:
        examples = await GENERATORS[item.generator](item, ask)
        if judged and examples:
            examples = await _judge_all(examples, ask)
        if second.ROLE in asker.roles and examples:
            examples = await _answer_again(examples, ask)
    except Deferred:
        return _Outcome("deferred", [], [])
    except (ParseError, TeacherError) as error:
        if not ends_an_item(error):
            raise
        return _Outcome("failed", [], [problem(item.count, error, str(error), ask.cost_usd)])
    different = sorted({e.id: e for e in examples}.values(), key=lambda e: e.id)
    if len(different) < len(examples):
        twice = len(examples) - len(different)
        ask.short(twice, "the same example twice", f"{twice} examples are the same as others of the item")
    if not examples:
        return _Outcome("failed" if ask.problems else "empty", [], ask.problems)
    return _Outcome("done", different, ask.problems)


async def _judge_all(examples: Sequence[Example], ask: Ask) -> list[Example]:
    """The examples with their scores; one that cannot be judged is missing, and costs the others nothing."""

    async def judged(index: int, _: str) -> Example:
        return await judge(examples[index], ask, str(index))

    return await ask.each([example.input for example in examples], judged)


async def _answer_again(examples: Sequence[Example], ask: Ask) -> list[Example]:
    """The examples with how far the second teacher agrees; one that it cannot be asked about is missing, and costs the others nothing."""

    async def answered(index: int, _: str) -> Example:
        return await second.agree(examples[index], ask, str(index))

    return await ask.each([example.input for example in examples], answered)


def by_reason(problems: Sequence[Problem]) -> tuple[Missing, ...]:
    """The problems summed by their reasons, the largest first."""
    sums: dict[str, tuple[int, float]] = {}
    for entry in problems:
        inputs, usd = sums.get(entry.reason, (0, 0.0))
        sums[entry.reason] = (inputs + entry.inputs, usd + entry.cost_usd)
    return tuple(Missing(reason, *sums[reason]) for reason in sorted(sums, key=lambda name: (-sums[name][0], name)))


async def generate(
    items: Sequence[PlanItem],
    asker: Asker,
    store: Store,
    *,
    judged: bool,
    concurrency: int,
    progress: Progress,
    interrupt: asyncio.Event | None = None,
    plan: Sequence[PlanItem] | None = None,
) -> GenerateReport:
    """Run all items, `concurrency` at a time, inside `store.writing()`. Raises what ends a run (a wrong key) after storing all.

    Once `interrupt` is set, no further call is sent; what is in flight has five seconds to come back. `plan` is given where `items`
    are but a part of it.
    """
    store.set_plan(items if plan is None else plan, {role: config.model for role, config in asker.roles.items()})
    run = _Run(items, asker, store, judged, progress)
    workers = [asyncio.create_task(run.work()) for _ in range(concurrency)]
    try:
        await _all_of(workers, asker, interrupt)
    except BaseException:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        raise
    finally:
        store.flush()
    stop = run.stop
    if stop is not None and not isinstance(stop, (BudgetError, StoppedError)):
        raise stop
    return GenerateReport(
        items=len(items),
        calls=asker.calls,
        reused=asker.reused,
        new_examples=run.new_examples,
        problems=run.items_with_problems,
        stopped=str(stop) if stop else None,
        missing=by_reason(run.problems),
        interrupted=asker.stopped,
        **run.counts,
    )


async def _all_of(workers: Sequence["asyncio.Task[None]"], asker: Asker, interrupt: asyncio.Event | None) -> None:
    """Wait for the workers; after an interrupt, for as long as what is in flight may take, and then no longer."""
    watch: asyncio.Future[Any] = asyncio.create_task((interrupt or asyncio.Event()).wait())
    together: asyncio.Future[Any] = asyncio.gather(*workers)
    together.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # also where nobody waits for it any more
    try:
        await asyncio.wait([watch, together], return_when=asyncio.FIRST_COMPLETED)
        if not together.done():
            asker.stop()
            await asyncio.wait([together], timeout=DRAIN_S)
        if not together.done():
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            return
        await together
    finally:
        watch.cancel()


class _Run:
    """What the workers of a run share."""

    def __init__(self, items: Sequence[PlanItem], asker: Asker, store: Store, judged: bool, progress: Progress) -> None:
        self._queue: Iterator[PlanItem] = iter(items)
        self._asker, self._store, self._judged, self._progress = asker, store, judged, progress
        self._known = store.outcomes()
        self._last_flush = time.monotonic()
        self.counts = {"done": 0, "empty": 0, "failed": 0, "deferred": 0}
        self.new_examples = self.items_with_problems = 0
        self.problems: list[Problem] = []
        self.stop: BaseException | None = None

    async def work(self) -> None:
        """Take items until there are none, or something ends the run."""
        for item in self._queue:
            if self.stop is not None or self._asker.stopped:
                return
            try:
                outcome = await run_item(item, self._asker, judged=self._judged)
            except TeacherError as error:
                self.stop = self.stop or error
                return
            self._take(item, outcome)
            self._progress(item, outcome.status)
            if self._store.pending >= _FLUSH_ROWS or time.monotonic() - self._last_flush >= _FLUSH_EVERY_S:
                self._store.flush(wait_s=0.2)  # a reader may hold the file; the log has it all
                self._last_flush = time.monotonic()
            await asyncio.sleep(0)  # a walk over stored answers never waits: let Ctrl-C and the others in

    def _take(self, item: PlanItem, outcome: _Outcome) -> None:
        self.counts[outcome.status] += 1
        if outcome.status == "deferred":
            return
        self.items_with_problems += bool(outcome.problems)
        self.problems += outcome.problems
        self._asker.examples += len(outcome.examples)
        before = self._known.get(item.id)
        made = {e.id: (dict(e.scores), list(e.calls)) for e in outcome.examples}
        if before is None or (before.status, before.error, before.examples) != (outcome.status, outcome.error, made):
            self.new_examples += len(made.keys() - (before.examples if before else {}).keys())
            self._store.add_item(item, outcome.status, outcome.examples, outcome.error, [entry._asdict() for entry in outcome.problems])
