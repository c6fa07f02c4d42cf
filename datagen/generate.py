"""Run the plan: every item through its generator and the judge; one failed item is a row, not a crash.

The store is the checkpoint. A rerun walks the whole plan again, but every question that was answered is found in the store,
so it costs seconds and no call; only what is new or changed is asked.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from datagen.ask import Ask, Asker
from datagen.errors import BudgetError, ParseError, TeacherError
from datagen.generators import GENERATORS
from datagen.judge import judge
from datagen.records import Example, PlanItem
from datagen.store import Store

_FLUSH_EVERY_S = 2.0
_FLUSH_ROWS = 5000

Progress = Callable[[PlanItem, str], None]


class GenerateReport(NamedTuple):
    """What a run did. `stopped` says why it ended early, if it did."""

    items: int
    done: int
    empty: int
    failed: int
    calls: int
    reused: int
    new_examples: int
    problems: int
    stopped: str | None


class _Outcome(NamedTuple):
    status: str
    examples: list[Example]
    error: str | None


async def run_item(item: PlanItem, asker: Asker, *, judged: bool) -> _Outcome:
    """One item's examples, or the reason why it has none. Lets through what must end the run."""
    ask = Ask(asker, item)
    try:
        examples = await GENERATORS[item.generator](item, ask)
        if judged:
            examples = [await judge(example, ask, str(index)) for index, example in enumerate(examples)]
    except BudgetError:
        raise
    except ParseError as error:
        return _Outcome("failed", [], str(error))
    except TeacherError as error:
        if type(error) is not TeacherError:  # every call would fail alike
            raise
        return _Outcome("failed", [], str(error))
    problems = "; ".join(ask.problems) or None
    if not examples:
        return _Outcome("failed" if problems else "empty", [], problems)
    return _Outcome("done", sorted({e.id: e for e in examples}.values(), key=lambda e: e.id), problems)


async def generate(
    items: Sequence[PlanItem], asker: Asker, store: Store, *, judged: bool, concurrency: int, progress: Progress
) -> GenerateReport:
    """Run all items, `concurrency` at a time, inside `store.writing()`. Raises what ends a run (a wrong key) after storing all."""
    store.set_plan(items)
    known = {
        row["id"]: (row["status"], row["error"], sorted(row["example_ids"]))
        for row in store.query("SELECT id, status, error, example_ids FROM items WHERE planned")
    }
    counts = {"done": 0, "empty": 0, "failed": 0}
    new_examples = problems = 0
    queue = iter(items)
    stop: BaseException | None = None
    last_flush = time.monotonic()

    async def worker() -> None:
        nonlocal new_examples, problems, stop, last_flush
        for item in queue:
            if stop is not None:
                return
            try:
                outcome = await run_item(item, asker, judged=judged)
            except TeacherError as error:
                stop = stop or error
                return
            counts[outcome.status] += 1
            problems += outcome.error is not None
            before = known.get(item.id)
            if before != (outcome.status, outcome.error, [e.id for e in outcome.examples]):
                new_examples += len({e.id for e in outcome.examples} - set(before[2] if before else ()))
                store.add_item(item, outcome.status, outcome.examples, outcome.error)
            progress(item, outcome.status)
            if store.pending >= _FLUSH_ROWS or time.monotonic() - last_flush >= _FLUSH_EVERY_S:
                store.flush(wait_s=0.2)  # a reader may hold the file; the log has it all
                last_flush = time.monotonic()
            await asyncio.sleep(0)  # a walk over stored answers never waits: let Ctrl-C and the others in

    workers = [asyncio.create_task(worker()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    except BaseException:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        raise
    finally:
        store.flush()
    if stop is not None and not isinstance(stop, BudgetError):
        raise stop
    return GenerateReport(
        items=len(items),
        calls=asker.calls,
        reused=asker.reused,
        new_examples=new_examples,
        problems=problems,
        stopped=str(stop) if stop else None,
        **counts,
    )
