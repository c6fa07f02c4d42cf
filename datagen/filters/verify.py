"""The verifiers that the taxonomy names, over all answers: what is known to be wrong, and what was found right.

A verdict that keeps says by what an answer was verified ("verified: numeric, sql"), or nothing where no verifier had anything to say.
What runs somebody's code (a pattern, a schema, a query, a function) runs in worker processes: one that raises, hangs or dies gives the
row a verdict that says so, and costs the others nothing.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from datagen.filters.checks import ABSENT, equal, members, numeric, shown, value_at
from datagen.filters.context import FilterContext, parse_object
from datagen.filters.similarity import normalise
from datagen.records import Equal, Example, Members, Numeric, Python, Sql, TruthTable, Verdict, Verifier

_BATCH = 256  # rows that a worker is given at a time
_MOST_LOST = 10  # workers of one verifier that may hang or die before the rest of its rows go unverified
_START_S = 60.0
_MEMORY_MB = 1024
_ROWS_PER_WORKER = 1000  # below, starting another process costs more than it saves
_MOST_WORKERS = 4

_HERE: Mapping[type[Any], Callable[[Any, Any, Any], str | None]] = {Numeric: numeric, Members: members, Equal: equal}


class _Subject(NamedTuple):
    """An answer to verify: the chosen one of an example, or the rejected one of a pair."""

    example: Example
    answer: Any
    rejected: bool


class _Said(NamedTuple):
    """What a verifier says of a subject: wrong because, failed because, or right."""

    problem: str | None
    failed: bool = False


def verify(examples: Sequence[Example], context: FilterContext) -> list[Verdict]:
    """One verdict per example, where the task has verifiers: the first that finds the answer wrong, or could not be run, drops it.

    Of a pair the rejected answer is looked at too: one that is right by all that is known of its input is no answer to reject.
    """
    if not context.task.verify:
        return []
    subjects = _subjects(examples, context)
    wrong: dict[str, str] = {}
    verified: dict[str, list[str]] = {}
    proven: dict[str, bool] = {}  # of rejected answers: whether all that is known speaks for them
    for verifier in context.task.verify:
        known = _lookup(verifier.truth)
        rows = [(subject, value_at(subject.answer, verifier.field), known(subject.example.input)) for subject in subjects]
        rows = [row for row in rows if not _nothing_to_say(verifier, *row)]
        for (subject, _, _), said in zip(rows, _ask(verifier, rows), strict=True):
            example_id = subject.example.id
            if subject.rejected:
                proven[example_id] = proven.get(example_id, True) and said.problem is None
            elif said.problem is not None:
                kind = "verifier_failed" if said.failed else verifier.check
                wrong.setdefault(example_id, f"{kind}: {_where(verifier, named=said.failed)}{said.problem}")
            else:
                verified.setdefault(example_id, []).append(verifier.name)
    verdicts = []
    for example_id in (example.id for example in examples):
        reason = wrong.get(example_id)
        if reason is None and proven.get(example_id):
            reason = "rejected_right: the rejected answer is right by what is known"
        names = ", ".join(dict.fromkeys(verified.get(example_id, ())))
        told = reason or (f"verified: {names}" if names else None)
        verdicts.append(Verdict(example_id=example_id, by="filter:verify", keep=reason is None, reason=told))
    return verdicts


def _subjects(examples: Sequence[Example], context: FilterContext) -> list[_Subject]:
    """The answers that can be read; others are the schema filter's matter."""
    data = context.task.output_schema is not None
    subjects = []
    for example in examples:
        for text, rejected in ((example.completion, False), (example.rejected, True)):
            if text is not None:
                answer, problem = parse_object(text) if data else (text, None)
                if problem is None:
                    subjects.append(_Subject(example, answer, rejected))
    return subjects


def _lookup(table: TruthTable | None) -> Callable[[str], Any]:
    """From an input to its known answer, or ABSENT."""
    if table is None:
        return lambda text: ABSENT
    if table.match == "exact":
        return lambda text: table.known.get(text, ABSENT)
    by_words = {normalise(text): answer for text, answer in table.known.items()}
    return lambda text: by_words.get(normalise(text), ABSENT)


def _nothing_to_say(verifier: Verifier, subject: _Subject, value: Any, known: Any) -> bool:
    elsewhere = (
        isinstance(verifier, Sql) and verifier.dimension and subject.example.dimensions.get(verifier.dimension) not in verifier.setup
    )
    if elsewhere:
        return True
    if known is ABSENT:  # then only the form can be verified, and of a rejected answer that proves nothing
        return value is ABSENT or subject.rejected or isinstance(verifier, Equal)
    return False


def _where(verifier: Verifier, *, named: bool) -> str:
    name = f"{verifier.name} " if named or isinstance(verifier, Python) else ""
    return f"{name}{verifier.field}: " if verifier.field else f"{name.rstrip()}: " if name else ""


def _ask(verifier: Verifier, rows: Sequence[tuple[_Subject, Any, Any]]) -> list[_Said]:
    """What the verifier says of each row, in order."""
    said: dict[int, _Said] = {}
    places: list[int] = []
    for place, (_, value, known) in enumerate(rows):
        if value is ABSENT:
            said[place] = _Said(f"is absent, the truth is {shown(known)}")
        elif type(verifier) in _HERE:
            said[place] = _Said(_HERE[type(verifier)](value, known, verifier))
        else:
            places.append(place)
    if places:
        workers = min(_MOST_WORKERS, os.cpu_count() or 1, 1 + len(places) // _ROWS_PER_WORKER)
        parts = [places[worker::workers] for worker in range(workers)]
        told = verifier.model_dump(mode="json", exclude={"truth"})
        with ThreadPoolExecutor(workers) as pool:
            for part, answers in zip(parts, pool.map(lambda part: _elsewhere(told, rows, part), parts), strict=True):
                said.update(zip(part, answers, strict=True))
    return [said[place] for place in range(len(rows))]


def _elsewhere(verifier: Mapping[str, Any], rows: Sequence[tuple[_Subject, Any, Any]], places: Sequence[int]) -> list[_Said]:
    """The same by a worker process, which is replaced when a row hangs in it or ends it."""
    said: list[_Said] = []
    lost = 0
    worker = None
    try:
        while len(said) < len(places):
            if lost == _MOST_LOST:
                problem = f"was not run, because it had hung or died {lost} times"
                return said + [_Said(problem, True)] * (len(places) - len(said))
            if worker is None:
                worker, problem = _Worker.start(verifier)
                if worker is None:
                    return said + [_Said(problem, True)] * (len(places) - len(said))
            batch = [_row(*rows[place]) for place in places[len(said) : len(said) + _BATCH]]
            try:
                worker.link.send_bytes(json.dumps(batch).encode())
                for _ in batch:
                    if not worker.link.poll(verifier["seconds"]):
                        raise TimeoutError
                    kind, problem = json.loads(worker.link.recv_bytes())
                    said.append(_Said(problem, kind == "fails"))
            except (TimeoutError, EOFError, ConnectionError) as error:
                hung = isinstance(error, TimeoutError)
                said.append(_Said(f"took longer than {verifier['seconds']:g} s" if hung else "ended its process", True))
                lost += 1
                worker.end()
                worker = None
        return said
    finally:
        if worker is not None:
            worker.end()


def _row(subject: _Subject, value: Any, known: Any) -> dict[str, Any]:
    example = subject.example
    seen = {
        "input": example.input, "answer": subject.answer, "label": example.label, "topic": example.topic, "kind": example.kind,
        "generator": example.generator, "dimensions": dict(example.dimensions), "reasoning": example.reasoning,
    }  # fmt: skip
    row = {"example": seen} if value is ABSENT else {"example": seen, "value": value}
    return row if known is ABSENT else {**row, "known": known}


class _Worker(NamedTuple):
    process: "subprocess.Popen[bytes]"
    link: Connection

    @classmethod
    def start(cls, verifier: Mapping[str, Any]) -> tuple["_Worker | None", str]:
        """A worker that has loaded the verifier, or why there is none."""
        mine, its = socket.socketpair()
        package = str(Path(__file__).parents[2])
        paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        with its:
            process = subprocess.Popen(
                [sys.executable, "-m", "datagen.filters.worker", str(its.fileno())],
                pass_fds=(its.fileno(),), env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        worker = cls(process, Connection(mine.detach()))
        problem = "did not start"
        try:
            worker.link.send_bytes(json.dumps({"verifier": verifier, "memory_mb": _MEMORY_MB}).encode())
            if worker.link.poll(_START_S):
                problem = json.loads(worker.link.recv_bytes())
        except (EOFError, ConnectionError):
            problem = "ended its process while it was loaded"
        if problem == "ready":
            return worker, ""
        worker.end()
        return None, problem

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        self.link.close()
