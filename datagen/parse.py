"""A teacher's text to data: JSON, lists, steps, scores, choices. Refuses loudly (ParseError), never guesses.

Also the shape of `ask`, which generators are handed: asking and parsing are one step.
"""

import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from datagen.errors import ParseError
from datagen.json_schema import violation
from datagen.records import Message, Rubric, Task

T = TypeVar("T")
Parser = Callable[[str], T]
R = TypeVar("R")
_FENCE = re.compile(r"^```[a-zA-Z]*\n(.*)\n```$", re.DOTALL)


class Answer(NamedTuple):
    """A parsed answer, with the id of the call that gave it and its text."""

    value: Any
    call_id: str
    text: str


class Ask(Protocol):
    """What a generator or the judge is handed: the questions of one item (datagen.ask.Ask)."""

    @property
    def task_system(self) -> str:
        """The system message that the student is trained with."""

    @property
    def label_field(self) -> str | None:
        """The answer's field that holds a label, if it has one."""

    @property
    def output_schema(self) -> Mapping[str, Any] | None:
        """JSON schema of the task's answers; None for free text."""

    @property
    def rubric(self) -> Rubric | None:
        """What the judge scores; None: the answer and the input."""

    @property
    def task(self) -> Task:
        """The taxonomy's task."""

    def wrong(self, answer: Any, text: str) -> str | None:
        """What is known to be wrong in an answer to the input `text`; None where nothing is."""

    async def __call__(
        self,
        prompt: str,
        parse: Parser[Any],
        *,
        role: str = ...,
        draw: str = ...,
        schema: Mapping[str, Any] | None = ...,
        temperature: float | None = ...,
        history: Sequence[Message] = ...,
        **variables: Any,
    ) -> Answer:
        """Ask a prompt, after the turns of `history`, until an answer parses and is of the schema."""

    async def each(self, inputs: Sequence[str], work: Callable[[int, str], Awaitable[R | None]]) -> list[R]:
        """Work on every input; one that fails is noted and costs the others nothing."""

    async def together(self, *questions: Coroutine[Any, Any, R]) -> list[R]:
        """The answers to questions that do not need one another."""

    def short(self, inputs: int, reason: str, message: str) -> None:
        """Note that fewer inputs came than were asked for."""


class Steps(NamedTuple):
    """Reasoning apart from the answer that it leads to."""

    steps: list[str]
    answer: Any


def parse_json(text: str) -> Any:
    """The one JSON value that the text is; a Markdown code fence round it is accepted, prose is not."""
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    try:
        return json.loads(fenced.group(1) if fenced else stripped)
    except ValueError as error:
        raise ParseError(f"not JSON ({error}): {_shorten(text)}", "not JSON") from error


def parse_object(text: str) -> dict[str, Any]:
    """One JSON object."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ParseError(f"a JSON {type(value).__name__} where an object was asked: {_shorten(text)}")
    return value


def check_schema(value: object, schema: Mapping[str, Any]) -> None:
    """Raises ParseError, with where and how, when `value` breaks the JSON schema."""
    found = violation(value, schema)
    if found is not None:
        raise ParseError(f"schema: {found}", "not of the task's schema")


def parse_strings(text: str) -> list[str]:
    """A JSON list of strings, at least one; surrounding space is cut."""
    value = parse_json(text)
    if not isinstance(value, list) or not value or not all(isinstance(entry, str) for entry in value):
        raise ParseError(f"not a JSON list of strings: {_shorten(text)}")
    return [entry.strip() for entry in value]


def parse_text(text: str) -> str:
    """Free text that is not empty."""
    if not text.strip():
        raise ParseError("the answer is empty")
    return text.strip()


def parse_steps(text: str) -> Steps:
    """{"steps": [...], "answer": ...}."""
    value = parse_object(text)
    steps = value.get("steps")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) and step.strip() for step in steps):
        raise ParseError(f"`steps` is not a list of sentences: {_shorten(text)}")
    if "answer" not in value:
        raise ParseError(f"`answer` is missing: {_shorten(text)}")
    return Steps(steps, value["answer"])


def parse_scores(text: str, criteria: Iterable[str] = ("answer", "input")) -> dict[str, float]:
    """The judge's numbers, each from 1 to 5, by name."""
    value = parse_object(text)
    scores = {name: value.get(name) for name in criteria}
    for name, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not 1 <= score <= 5:
            raise ParseError(f"`{name}` is {score!r}, not a number from 1 to 5: {_shorten(text)}")
    return {name: float(score) for name, score in scores.items() if score is not None}


def scores_of(criteria: Iterable[str]) -> Parser[dict[str, float]]:
    """A parser of the scores of a rubric's criteria."""
    return partial(parse_scores, criteria=tuple(criteria))


def parse_better(text: str) -> str:
    """Which of two is better: "A", "B" or "tie"."""
    value = parse_object(text).get("better")
    if value not in ("A", "B", "tie"):
        raise ParseError(f"`better` is {value!r}, not A, B or tie: {_shorten(text)}")
    return str(value)


def canonical(answer: Mapping[str, Any], schema: Mapping[str, Any] | None) -> str:
    """The answer as the student must write it: compact JSON, fields in the schema's order, absent fields left out."""
    order = list((schema or {}).get("properties", {}))
    ordered = {name: answer[name] for name in order if name in answer}
    ordered.update({name: value for name, value in answer.items() if name not in ordered})
    return _COMPACT.encode(ordered)


_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _shorten(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 120 else flat[:117] + "...")
