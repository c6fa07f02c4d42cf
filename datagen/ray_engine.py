"""Run the plan in several processes: Ray actors, each a whole lane with a shard of the items, of the rates and of the budget.

An actor writes every answer to a log of its own beside the store, before the answer counts. The driver, the process that was started,
takes the logs into DuckDB every few seconds and is the only one that writes it; it deals the shares, counts, and starts another actor
for what is left of a shard whose actor died. Whatever is killed, the logs have it all.
Ray is imported here alone, and only when it is asked for.
"""

import asyncio
import io
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NamedTuple

from datagen.ask import Asker, Problem
from datagen.config import ModelConfig
from datagen.errors import ConfigError, RetortError, TeacherError
from datagen.generate import DRAIN_S, GenerateReport, Missing, Progress, by_reason
from datagen.generate import generate as generate_here
from datagen.ledger import share_budget
from datagen.records import PlanItem, Response, content_hash
from datagen.store import Outcome, Row, Store, WorkerLog
from datagen.teacher import Teacher

_LOOK_S = 0.5
_FLUSH_S = 2.0
_DEATHS = 5  # in a row without an answer or an item; then it is the machine, not chance
_STORE_MEMORY = 128 * 1024 * 1024  # Ray's shared memory; only shards pass through it
_SILENCE_S = 120.0  # an actor that starts, or is asked how far it is, answers within seconds; on a loaded machine within a minute
_AGAIN = "All that was answered is kept: the same command goes on from here."
_VITAL = ("raylet", "gcs_server")  # Ray's own processes that no actor outlives; the raylet ends with either of its agents


def require_ray() -> Any:
    """Ray. Raises ConfigError where it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it reports its use unless it is told not to
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # listen on 127.0.0.1, as it does there; elsewhere it takes the machine's address
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray, which is not installed. Run `make setup-ray` or pip install 'retort[ray]'.") from error
    return ray


def shards(items: Sequence[PlanItem], count: int) -> list[list[PlanItem]]:
    """The items by the hash of their ids: an item's shard depends on nothing but its id and `count`."""
    parts: list[list[PlanItem]] = [[] for _ in range(count)]
    for item in items:
        parts[int(content_hash(item.id)[:8], 16) % count].append(item)
    return parts


class Work(NamedTuple):
    """What an actor is given. Keys are not in it: they come from its own environment.

    rates_share  of every rate limit         budget_usd, spent_usd   the run's cap, and what of it is not this actor's to spend
    """

    log: Path
    run_id: str
    items: list[PlanItem]
    answers: dict[str, Response]
    outcomes: dict[str, Outcome]
    roles: Mapping[str, ModelConfig]
    variables: Mapping[str, Any]
    judged: bool
    attempts: int
    retries: int
    concurrency: int
    rates_share: float
    budget_usd: float | None
    spent_usd: float
    side_file: Path


class Seen(NamedTuple):
    """How far an actor is: items that ended since it was last asked, answers found in the store, examples made."""

    ended: list[tuple[str, str]]
    reused: int
    examples: int


class Lane:
    """The actor: `generate` over a shard, with a log in the place of the store."""

    def __init__(self) -> None:
        logging.disable()  # Ray keeps what its processes print in files; a provider's message has no place there
        self._interrupt = asyncio.Event()
        self._ended: list[tuple[str, str]] = []
        self._asker: Asker | None = None

    async def run(self, work: Work) -> GenerateReport | RetortError:
        """The shard to its end. What the user can mend is returned; only bugs are raised."""
        try:
            with WorkerLog(
                work.log, run_id=work.run_id, answers=work.answers, outcomes=work.outcomes, spent_usd=work.spent_usd
            ).writing() as log:
                teacher = Teacher(
                    work.roles, concurrency=work.concurrency, retries=work.retries, on_failure=log.add_failure,
                    side_file=work.side_file, share=work.rates_share,
                )  # fmt: skip
                self._asker = Asker(
                    log, teacher, work.roles, work.variables, attempts=work.attempts, budget_usd=work.budget_usd,
                    concurrency=work.concurrency,
                )  # fmt: skip
                return await generate_here(
                    work.items, self._asker, log, judged=work.judged, concurrency=work.concurrency,
                    progress=lambda item, status: self._ended.append((item.id, status)), interrupt=self._interrupt,
                )  # fmt: skip
        except RetortError as error:
            return error

    async def pid(self) -> int:
        """The actor's process."""
        return os.getpid()

    async def seen(self) -> Seen:
        """How far it is."""
        ended, self._ended = self._ended, []
        return Seen(ended, self._asker.reused, self._asker.examples) if self._asker else Seen(ended, 0, 0)

    async def stop(self) -> None:
        """Send no further call; those in flight have five seconds."""
        self._interrupt.set()


async def generate(
    items: Sequence[PlanItem],
    asker: Asker,
    store: Store,
    *,
    judged: bool,
    concurrency: int,
    progress: Progress,
    interrupt: asyncio.Event,
    plan: Sequence[PlanItem],
    workers: int,
    retries: int,
    side_file: Path,
    say: Callable[[str], None],
) -> GenerateReport:
    """What `generate.generate` does, by `workers` actors; same rows, same ids. `asker` is told what they count.

    Raises what ends a run, after storing all; ConfigError for more workers than `concurrency`, TeacherError where Ray itself is lost.
    """
    if workers > concurrency:
        raise ConfigError(f"--workers is {workers}, but the recipe's concurrency is {concurrency}. Ask for fewer workers, or raise it.")
    store.set_plan(plan, {role: config.model for role, config in asker.roles.items()})
    with _cluster(require_ray(), workers) as ray:
        run = _Run(ray, asker, store, progress, say, judged=judged, retries=retries, side_file=side_file)
        story = asyncio.create_task(run.rounds(items, workers, concurrency))
        watch, stop = asyncio.create_task(run.look()), asyncio.create_task(run.stop_after(interrupt))
        try:
            await asyncio.wait([story, watch], return_when=asyncio.FIRST_COMPLETED)  # the watch ends by an error alone
            await (story if story.done() else watch)
        finally:
            for task in (story, watch, stop):
                task.cancel()
            await asyncio.gather(story, watch, stop, return_exceptions=True)
            store.flush()
    if run.error is not None:
        raise run.error
    return run.report(items)


@contextmanager
def _cluster(ray: Any, workers: int) -> Iterator[Any]:
    """Ray on this machine, with its files in a folder that goes when the run ends."""
    folder = tempfile.mkdtemp(prefix="ray-")  # a short path: sockets lie in it
    with redirect_stdout(io.StringIO()):  # Ray prints there that a process of its died, amid what --json prints
        try:
            _begin(ray, workers, folder)
            yield ray
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def _begin(ray: Any, workers: int, folder: str) -> None:
    try:
        ray.init(
            address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
            object_store_memory=_STORE_MEMORY, _temp_dir=folder,
        )  # fmt: skip
    except Exception as error:  # what Ray cannot have (room, memory, a socket) it says in errors of any kind
        raise TeacherError(
            f"Ray cannot start in {folder}: {' '.join(str(error).split())[:300]} It needs {_STORE_MEMORY >> 20} MB in /dev/shm and room in "
            "that folder (TMPDIR names another). Nobody was asked: make room and run again, or run without --engine ray."
        ) from error


class _Worker:
    """The driver's side of a shard: the present actor, how far its log was read, its share of the budget."""

    def __init__(self, number: int, items: list[PlanItem], share_usd: float | None) -> None:
        self.number, self.items, self.share_usd = number, items, share_usd
        self.actor: Any = None
        self.pid: int | None = None  # known before there is work for it
        self.log: Path | None = None
        self.offset = 0
        self.used_usd = 0.0
        self.rows: list[Row] = []  # of items that ended under the present actor
        self.calls = 0  # under the present actor
        self.reused = self.examples = 0


class _Run:
    """What the driver knows of a run."""

    def __init__(
        self, ray: Any, asker: Asker, store: Store, progress: Progress, say: Callable[[str], None], *,
        judged: bool, retries: int, side_file: Path,
    ) -> None:  # fmt: skip
        self._ray, self._asker, self._store, self._progress, self._say = ray, asker, store, progress, say
        self._judged, self._retries, self._side_file = judged, retries, side_file
        self._lane = ray.remote(num_cpus=1, max_restarts=0)(Lane)
        self._known = store.outcomes()
        self._items: dict[str, PlanItem] = {}
        self._ended: set[str] = set()
        self._live: dict[int, _Worker] = {}
        self._done = {"reused": 0, "examples": 0}
        self._reports: list[GenerateReport] = []
        self._lost: str | None = None  # which of Ray's own processes is gone
        self.error: RetortError | None = None
        self.stopped: str | None = None

    # -- the shards

    async def rounds(self, items: Sequence[PlanItem], workers: int, concurrency: int) -> None:
        """All shards to their ends. Where shares of the budget ran out, what is left of it goes to half as many workers, at last to one."""
        left = list(items)
        self._items = {item.id: item for item in items}
        while left and not self._asker.stopped:
            shares = self._shares(workers)
            self.stopped = None
            parts = [part for part in shards(left, len(shares)) if part]
            each = [_Worker(number, part, share) for number, (part, share) in enumerate(zip(parts, shares, strict=False))]
            tasks = [asyncio.create_task(self._shard(worker, len(each), concurrency)) for worker in each]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if self.stopped is None or len(each) == 1:
                return
            left, workers = [item for item in left if item.id not in self._ended], len(each) // 2

    def _shares(self, workers: int) -> list[float | None]:
        left = self._store.ledger.left_usd
        if left is None:
            return [None] * workers
        return [*share_budget(left, self._asker.dearest_usd(), workers)] or [left]  # one that may find that nothing fits says so

    async def _shard(self, worker: _Worker, of: int, concurrency: int) -> None:
        """One shard to its end, by as many actors as that takes."""
        deaths = 0
        while worker.items and not self._asker.stopped:
            self._start(worker)
            try:
                worker.pid = await self._soon(worker.actor.pid.remote(), f"worker {worker.number} did not start")
                result = await worker.actor.run.remote(self._work(worker, of, concurrency))
                self._take(worker, await worker.actor.seen.remote())
            except self._ray.exceptions.RayActorError:
                result = None
                await asyncio.sleep(_LOOK_S)  # what killed it may be the end of Ray, which shows now
                self._require_ray()
            finally:
                self._close(worker)
            if isinstance(result, GenerateReport):
                self._reports.append(result)
                if result.stopped and not result.interrupted:
                    self.stopped = result.stopped
                return
            if result is not None:
                self.error = self.error or result
                self._stop()
                return
            self._reports.append(self._tally(worker))
            self._note((row["id"], row["status"]) for row in worker.rows)
            ended = {row["id"] for row in worker.rows}
            worker.items = [item for item in worker.items if item.id not in ended]
            deaths = 0 if worker.calls or ended else deaths + 1
            if deaths >= _DEATHS:
                self.error = self.error or TeacherError(
                    f"worker {worker.number} died {deaths} times before its first answer (no memory?). "
                    "Ask for fewer --workers; nothing is lost."
                )
                self._stop()
            elif not self._asker.stopped:
                self._say(f"Worker {worker.number} died; another goes on with the {len(worker.items):,} items that are left of its shard.")

    async def _soon(self, answer: Any, otherwise: str) -> Any:
        """What an actor answers at once. Raises TeacherError where it does not: Ray itself has no word for most of its ends."""
        try:
            return await asyncio.wait_for(answer, _SILENCE_S)
        except TimeoutError as error:
            self._lost = "scheduler"
            raise TeacherError(f"Ray: {otherwise} within {_SILENCE_S:.0f} s (no memory?). {_AGAIN}") from error

    def _require_ray(self) -> None:
        """Raise TeacherError where one of the processes is gone without which Ray waits for ever, or ends this one."""
        gone = [kind for kind, _ in self._ray._private.worker._global_node.dead_processes() if kind in _VITAL]
        if gone:
            self._lost = gone[0]
            raise TeacherError(f"Ray's own process {gone[0]} ended (killed, or no memory?). {_AGAIN}")

    def _start(self, worker: _Worker) -> None:
        worker.offset, worker.calls, worker.rows, worker.pid = 0, 0, [], None
        worker.log = self._store.open_worker(worker.number, self._left_of(worker))
        worker.actor = self._lane.remote()
        self._live[worker.number] = worker

    def _work(self, worker: _Worker, of: int, concurrency: int) -> Work:
        assert worker.log is not None
        cap, share = self._store.ledger.cap_usd, self._left_of(worker)
        ids = [item.id for item in worker.items]
        return Work(
            log=worker.log.absolute(), run_id=self._store.run_id, items=worker.items, answers=self._store.answers(ids),
            outcomes={id: self._known[id] for id in ids if id in self._known}, roles=self._asker.roles, variables=self._asker.variables,
            judged=self._judged, attempts=self._asker.attempts, retries=self._retries,
            concurrency=concurrency // of + (worker.number < concurrency % of), rates_share=1 / of,
            budget_usd=cap, spent_usd=0.0 if cap is None or share is None else cap - share, side_file=self._side_file.absolute(),
        )  # fmt: skip

    @staticmethod
    def _left_of(worker: _Worker) -> float | None:
        return None if worker.share_usd is None else max(0.0, worker.share_usd - worker.used_usd)

    def _close(self, worker: _Worker) -> None:
        """The actor has ended, or ends now: take in all that it wrote, and give its share back."""
        assert worker.log is not None
        self._kill(worker)
        del self._live[worker.number]
        self._store.close_worker(worker.log)
        self._take_in(worker)
        self._store.share_of(worker.log, 0.0)
        self._store.flush()
        worker.log.unlink()
        self._done["reused"] += worker.reused
        self._done["examples"] += max(worker.examples, sum(len(row["example_ids"]) for row in worker.rows))
        worker.reused = worker.examples = 0

    def _kill(self, worker: _Worker) -> None:
        if self._lost is None:
            self._ray.kill(worker.actor)
        elif worker.pid is not None:  # what is left of Ray would not do it, or never answer
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    # -- while they run

    async def look(self) -> None:
        """Ask the actors how far they are and take their logs in, again and again."""
        flushed = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_S)
            self._require_ray()
            await asyncio.gather(*(self._look(worker) for worker in list(self._live.values())))
            for worker in self._live.values():
                self._take_in(worker)
            if time.monotonic() - flushed >= _FLUSH_S:
                self._store.flush(wait_s=0.2)  # a reader may hold the file; the logs have it all
                flushed = time.monotonic()

    async def _look(self, worker: _Worker) -> None:
        with suppress(self._ray.exceptions.RayActorError):  # `_shard` sees it too
            if worker.pid is not None:
                self._take(worker, await self._soon(worker.actor.seen.remote(), f"worker {worker.number} did not answer"))

    def _take(self, worker: _Worker, seen: Seen) -> None:
        worker.reused, worker.examples = seen.reused, seen.examples
        self._note(seen.ended)
        self._asker.reused = self._done["reused"] + sum(live.reused for live in self._live.values())
        self._asker.examples = self._done["examples"] + sum(live.examples for live in self._live.values())

    def _note(self, ended: Iterable[tuple[str, str]]) -> None:
        for id, status in ended:
            if id not in self._ended:
                self._ended.add(id)
                self._progress(self._items[id], status)

    def _take_in(self, worker: _Worker) -> None:
        assert worker.log is not None
        taken = self._store.take_in(worker.log, worker.offset)
        worker.offset = taken.offset
        worker.used_usd += taken.usd
        worker.rows += taken.items
        worker.calls += taken.calls
        self._asker.calls += taken.calls
        share = self._left_of(worker)
        if taken.usd and share is not None:
            self._store.share_of(worker.log, share)

    async def stop_after(self, interrupt: asyncio.Event) -> None:
        """After an interrupt actors may end what is in flight; who has not ended then is ended."""
        await interrupt.wait()
        self._stop()
        await asyncio.sleep(DRAIN_S + 1)
        for worker in self._live.values():
            self._kill(worker)

    def _stop(self) -> None:
        self._asker.stop()
        for worker in self._live.values():
            worker.actor.stop.remote()

    # -- what it came to

    def _tally(self, worker: _Worker) -> GenerateReport:
        """The report that a dead actor cannot give any more, from its log."""
        statuses = [row["status"] for row in worker.rows]
        problems = [Problem(**entry) for row in worker.rows for entry in row["problems"]]
        known = {id: outcome.examples.keys() for id, outcome in self._known.items()}
        return GenerateReport(
            items=len(statuses), done=statuses.count("done"), empty=statuses.count("empty"), failed=statuses.count("failed"), calls=0,
            reused=0, new_examples=sum(len(set(row["example_ids"]) - set(known.get(row["id"], ()))) for row in worker.rows),
            problems=sum(bool(row["problems"]) for row in worker.rows), stopped=None, missing=by_reason(problems),
        )  # fmt: skip

    def report(self, items: Sequence[PlanItem]) -> GenerateReport:
        """The run's report: the sum of its actors'."""
        missing = [Problem(entry.inputs, entry.reason, "", entry.cost_usd) for report in self._reports for entry in report.missing]
        sums: dict[str, int] = {
            name: sum(getattr(report, name) for report in self._reports) for name in ("done", "empty", "failed", "new_examples", "problems")
        }
        summed: tuple[Missing, ...] = by_reason(missing)
        return GenerateReport(
            items=len(items), calls=self._asker.calls, reused=self._asker.reused, stopped=self.stopped, missing=summed,
            interrupted=self._asker.stopped, **sums,
        )  # fmt: skip
