"""One question to a model: render, look in the store, reserve the budget, call, journal, parse.

An answer that cannot be parsed is journaled like any other (it was paid) and asked again under another sample, so a rerun
finds both in the store and asks neither.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from datagen.config import ModelConfig
from datagen.errors import BudgetError, ParseError, TeacherError
from datagen.parse import Answer, Parser
from datagen.prompts import render
from datagen.records import Message, PlanItem, Request, Response
from datagen.store import Store

R = TypeVar("R")


class CompletesRequests(Protocol):
    """What `Asker` needs of a teacher."""

    async def complete(self, request: Request) -> Response:
        """The answer to a request."""

    def worst_case_usd(self, request: Request) -> float:
        """The most that a request can cost."""


class Asker:
    """What all items of a run share: the models, the stored answers, the budget."""

    def __init__(
        self,
        store: Store,
        teacher: CompletesRequests,
        roles: Mapping[str, ModelConfig],
        variables: Mapping[str, Any],
        *,
        attempts: int,
        budget_usd: float | None,
    ) -> None:
        self.store = store
        self.roles = roles
        self.variables = dict(variables)
        self.attempts = attempts
        self.calls = 0
        self.reused = 0
        self._teacher = teacher
        self._answers = store.answers()
        self._budget_usd = budget_usd
        self._spent_usd = store.spent_usd()
        self._reserved_usd = 0.0

    async def answer(self, request: Request) -> Response:
        """The stored answer, or a new one that is on disk before it is used. Raises BudgetError, TeacherError."""
        stored = self._answers.get(request.id)
        if stored is not None:
            self.reused += 1
            return stored
        worst = self._teacher.worst_case_usd(request)
        if self._budget_usd is not None and self._spent_usd + self._reserved_usd + worst > self._budget_usd:
            raise BudgetError(
                f"the next call may cost ${worst:.4f}, and ${self._spent_usd:.4f} of budget_usd {self._budget_usd} is spent. "
                "Raise budget_usd in the recipe to go on; what was answered is kept."
            )
        self._reserved_usd += worst
        try:
            response = await self._teacher.complete(request)
        finally:
            self._reserved_usd -= worst
        self.store.add_call(request, response)
        self.calls += 1
        self._spent_usd += response.cost_usd
        self._answers[request.id] = response
        return response


class Ask:
    """The questions of one item. Generators are handed one of these."""

    def __init__(self, asker: Asker, item: PlanItem) -> None:
        self._asker = asker
        self.item = item
        self.problems: list[str] = []

    @property
    def task_system(self) -> str:
        """The system message that the student is trained with."""
        return str(self._asker.variables["task"].system)

    @property
    def output_schema(self) -> Mapping[str, Any] | None:
        """JSON schema of the task's answers; None for free text."""
        schema: Mapping[str, Any] | None = self._asker.variables["task"].output_schema
        return schema

    async def __call__(self, prompt: str, parse: Parser[Any], *, role: str = "teacher", draw: str = "0", **variables: Any) -> Answer:
        """Ask `prompt` of `role` until an answer parses, at most `attempts` times; `draw` keeps equal questions of an item apart.

        Raises ParseError when no answer could be read, TeacherError when none came.
        """
        ref, messages = render(prompt, {**self._asker.variables, "item": self.item, **variables})
        error: ParseError | None = None
        for attempt in range(self._asker.attempts):
            request = self._request(ref, messages, role, f"{self.item.id}/{attempt}/{draw}")
            response = await self._asker.answer(request)
            try:
                if response.finish_reason == "length":
                    raise ParseError(f"cut off at max_tokens: {response.text[-60:]!r}")
                return Answer(parse(response.text), request.id, response.text)
            except ParseError as failed:
                error = failed
        raise ParseError(f"{prompt}: no readable answer in {self._asker.attempts} attempts; the last: {error}")

    def _request(self, ref: str, messages: Sequence[Message], role: str, sample: str) -> Request:
        config = self._asker.roles[role]
        return Request(
            item_id=self.item.id,
            prompt=ref,
            role=role,  # type: ignore[arg-type]
            model=config.model,
            messages=tuple(messages),
            params={"temperature": config.temperature, "max_tokens": config.max_tokens, **config.open_params},
            sample=sample,
        )

    async def each(self, inputs: Sequence[str], work: Callable[[int, str], Awaitable[R | None]]) -> list[R]:
        """`work(index, input)` for every input; one that fails is noted in `problems` and costs the others nothing."""
        results: list[R] = []
        for index, text in enumerate(inputs):
            try:
                result = await work(index, text)
            except BudgetError:
                raise
            except ParseError as error:
                self.problems.append(f"input {index}: {error}")
            except TeacherError as error:
                if type(error) is not TeacherError:
                    raise
                self.problems.append(f"input {index}: {error}")
            else:
                if result is not None:
                    results.append(result)
        return results
