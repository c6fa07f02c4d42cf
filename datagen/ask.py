"""One question to a model: render, look in the store, reserve the budget, call, journal, parse.

An answer that cannot be used is journaled like any other (it was paid) and asked again: the model is shown its answer and what is
wrong with it. A rerun finds both answers in the store and asks neither.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar

from datagen.config import ModelConfig
from datagen.errors import BudgetError, ConfigError, ParseError, StoppedError, TeacherError
from datagen.ledger import money
from datagen.parse import Answer, Parser, check_schema, parse_object
from datagen.prompts import render, render_repair
from datagen.records import Message, PlanItem, Request, Response, Rubric, Task
from datagen.store import Store

R = TypeVar("R")
_SIMULATED = "offline/"


class Deferred(Exception):
    """The answer comes later, in a batch: the item does not end now and is walked again then."""


class CompletesRequests(Protocol):
    """What `Asker` needs of a teacher."""

    async def complete(self, request: Request) -> Response:
        """The answer to a request."""

    def worst_case_usd(self, request: Request) -> float:
        """The most that a request can cost."""


class Problem(NamedTuple):
    """Inputs that were asked for and not made: how many, why in a word, the whole story, and what was paid for them."""

    inputs: int
    reason: str
    message: str
    cost_usd: float


class Asker:
    """What all items of a run share: the models, the stored answers, the budget.

    calls      answers asked for in this run       reused    answers found in the store
    examples   what came of them so far
    """

    def __init__(
        self,
        store: Store,
        teacher: CompletesRequests,
        roles: Mapping[str, ModelConfig],
        variables: Mapping[str, Any],
        *,
        attempts: int,
        budget_usd: float | None,
        concurrency: int | None = None,
    ) -> None:
        self.store = store
        self.roles = roles
        self.variables = dict(variables)
        self.attempts = attempts
        self.calls = 0
        self.reused = 0
        self.examples = 0
        self.stopped = False
        self.rendered: dict[tuple[str, str], Message] = {}
        self._teacher = teacher
        self._answers = store.answers()
        self._in_flight = 0
        self._settled = asyncio.Event()
        self._gate = asyncio.Semaphore(concurrency) if concurrency else None
        self.params = {
            role: {"temperature": config.temperature, "max_tokens": config.max_tokens, **config.open_params}
            for role, config in roles.items()
        }
        self._warmth: dict[tuple[str, float], dict[str, Any]] = {}
        render_repair("")  # a mistake in it is found before anybody is asked
        store.ledger.cap_usd = budget_usd
        if budget_usd == 0:
            self._refuse_priced()

    def params_at(self, role: str, temperature: float | None) -> Mapping[str, Any]:
        """What goes to a role's model beside the messages, at another temperature than its own where one is given."""
        if temperature is None or temperature == self.params[role]["temperature"]:
            return self.params[role]
        return self._warmth.setdefault((role, temperature), {**self.params[role], "temperature": temperature})

    def _shortest_usd(self, role: str) -> float:
        """The most that the shortest call to a role can cost."""
        messages = (Message(role="user", content="How are you?"),)
        model = self.roles[role].model
        probe = Request(item_id="", prompt="", role=role, model=model, messages=messages, params=self.params[role], sample="")  # type: ignore[arg-type]
        return self._teacher.worst_case_usd(probe)

    def dearest_usd(self) -> float:
        """What has to be left of a budget for a call to whichever role: less, and some call cannot be sent."""
        return max(map(self._shortest_usd, self.roles))

    def _refuse_priced(self) -> None:
        for role, config in self.roles.items():
            if self._shortest_usd(role) > 0:
                raise ConfigError(
                    f"budget_usd is 0, so no call can be paid, and {config.model} (teachers.{role}) is paid by the token. "
                    "Raise budget_usd in the recipe, or name a model without a price."
                )

    def simulated(self, role: str) -> bool:
        """Whether the role's model is the built-in one, which reads the house's prompts and no conversation."""
        return self.roles[role].model.startswith(_SIMULATED)

    @cached_property
    def truth(self) -> Any:
        """What is known of right answers (FilterContext), made when it is first asked for."""
        return self.variables["truth"]()

    @property
    def rubric(self) -> Rubric | None:
        """What the judge scores; None: the answer and the input."""
        rubric: Rubric | None = self.variables.get("rubric")
        return rubric

    def stop(self) -> None:
        """Send no further call; those in flight may end. Whoever asks from now on gets StoppedError."""
        self.stopped = True
        self._settled.set()

    async def answer(self, request: Request) -> Response:
        """The stored answer, or a new one that is on disk before it is used. Raises BudgetError, StoppedError, TeacherError."""
        stored = self._answers.get(request.id)
        if stored is not None:
            self.reused += 1
            return stored
        if self._gate is None:
            return await self._call(request)
        async with self._gate:
            return await self._call(request)

    async def _call(self, request: Request) -> Response:
        worst = self._teacher.worst_case_usd(request)
        response: Response | None = None
        while response is None:
            await self._reserve(request, worst)
            self._in_flight += 1
            try:
                response = storable(await self._teacher.complete(request))
                self.store.add_call(request, response)
            except BudgetError:
                pass  # a try may have been billed and the next does not fit: wait for room like everyone, or end there
            except asyncio.CancelledError:
                self.store.lose(request.id, "Cancelled", "stopped while it was in flight")
                raise
            finally:
                self._in_flight -= 1
                self.store.unsent(request.id)  # nothing is left reserved unless the call failed without being billed
                self._settled.set()
        self.calls += 1
        self._answers[request.id] = response
        return response

    async def _reserve(self, request: Request, worst: float) -> None:
        """Set the call's worst case aside. Where only calls in flight are in the way, wait until they cost what they cost."""
        while True:
            if self.stopped:
                raise StoppedError("the run was stopped")
            ledger = self.store.ledger
            if ledger.fits(worst):
                break
            if not self._in_flight:
                raise BudgetError(ledger.why_not(worst))
            self._settled.clear()
            await self._settled.wait()
        self.store.reserve(request.id, worst, item_id=request.item_id, prompt=request.prompt, role=request.role, model=request.model)


def storable(response: Response) -> Response:
    """The response as text that a database can hold: half of a surrogate pair and NUL cannot be."""
    text = response.text
    if "\0" not in text and (text.isascii() or text.encode(errors="replace").decode() == text):
        return response
    return response.model_copy(update={"text": text.replace("\0", "").encode(errors="replace").decode()})


_purse: ContextVar[list[float]] = ContextVar("_purse")


class Ask:
    """The questions of one item. Generators are handed one of these."""

    def __init__(self, asker: Asker, item: PlanItem) -> None:
        self._asker = asker
        self.item = item
        self.problems: list[Problem] = []
        self.cost_usd = 0.0

    @property
    def task_system(self) -> str:
        """The system message that the student is trained with."""
        return str(self._asker.variables["task"].system)

    @property
    def label_field(self) -> str | None:
        """The answer's field that holds a label, if it has one."""
        field: str | None = self._asker.variables["task"].label_field
        return field

    @property
    def output_schema(self) -> Mapping[str, Any] | None:
        """JSON schema of the task's answers; None for free text."""
        schema: Mapping[str, Any] | None = self._asker.variables["task"].output_schema
        return schema

    @property
    def rubric(self) -> Rubric | None:
        """What the judge scores; None: the answer and the input."""
        return self._asker.rubric

    @property
    def task(self) -> Task:
        """The taxonomy's task."""
        task: Task = self._asker.variables["task"]
        return task

    def wrong(self, answer: Any, text: str) -> str | None:
        """What is known to be wrong in an answer to the input `text` of this item, by the truth filter; None where nothing is.

        `answer` is data, or the text of a task without schema.
        """
        from datagen.filters.truth import wrong, wrong_text  # half a second to load, and few recipes ask for it

        context, label = self._asker.truth, self.item.label
        return wrong(answer, text, label, context) if isinstance(answer, Mapping) else wrong_text(str(answer), context)

    async def __call__(
        self,
        prompt: str,
        parse: Parser[Any],
        *,
        role: str = "teacher",
        draw: str = "0",
        schema: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        history: Sequence[Message] = (),
        **variables: Any,
    ) -> Answer:
        """Ask `prompt` of `role` until an answer parses, at most `attempts` times; `draw` keeps equal questions of an item apart.

        The turns of `history` stand between the prompt's system message and its user message.
        With a `schema`, the provider is asked to hold the answer to it, and an answer that breaks it counts as unreadable. The next
        try shows the model its answer and what is wrong with it; a simulated model, which reads no conversation, is asked the same
        again. Raises ParseError when no answer could be used, TeacherError when none came.
        """
        asker = self._asker
        own = {"item": self.item, **variables}
        ref, messages = render(prompt, {**asker.variables, **own}, own=frozenset(own), memory=asker.rendered)
        if history:
            messages = (*messages[:-1], *history, messages[-1])
        simulated = asker.simulated(role)
        schema = None if simulated else schema  # its faults are for the filters to catch
        spent = 0.0
        params = asker.params_at(role, temperature)
        asked = self._request(ref, messages, role, f"{self.item.id}/0/{draw}", params, schema)
        error = ParseError("not asked")
        for attempt in range(1, asker.attempts + 1):
            response = await asker.answer(asked)
            spent += response.cost_usd
            self._pay(response.cost_usd)
            try:
                return Answer(_read(response, parse, schema), asked.id, response.text)
            except ParseError as failed:
                error = failed
            again, repair = messages, ref
            if not simulated and response.text.strip():
                note_ref, note = render_repair(str(error))
                again, repair = (*messages, Message(role="assistant", content=response.text), note), f"{ref}+{note_ref}"
            asked = self._request(repair, again, role, f"{self.item.id}/{attempt}/{draw}", params, schema)
        paid = f" for {money(spent)}" if spent else ""
        raise ParseError(f"{prompt}: no readable answer in {asker.attempts} attempts{paid}; the last: {error}", error.reason)

    def _pay(self, usd: float) -> None:
        self.cost_usd += usd
        purse = _purse.get(None)
        if purse is not None:
            purse[0] += usd

    def _request(
        self,
        ref: str,
        messages: tuple[Message, ...],
        role: str,
        sample: str,
        params: Mapping[str, Any],
        schema: Mapping[str, Any] | None = None,
    ) -> Request:
        config = self._asker.roles[role]
        # nothing here comes from outside: all of it was validated as recipe, plan or prompt
        return Request.model_construct(
            item_id=self.item.id,
            prompt=ref,
            role=role,
            model=config.model,
            messages=messages,
            params=params,
            sample=sample,
            response_schema=None if config.structured == "none" else schema,
        )

    async def each(self, inputs: Sequence[str], work: Callable[[int, str], Awaitable[R | None]]) -> list[R]:
        """`work(index, input)` for every input, at the same time; one that fails is noted in `problems` and costs the others nothing."""
        purses = [[0.0] for _ in inputs]

        async def one(index: int, text: str) -> R | None:
            _purse.set(purses[index])
            return await work(index, text)

        outcomes = await asyncio.gather(*(one(index, text) for index, text in enumerate(inputs)), return_exceptions=True)
        results: list[R] = []
        deferred: Deferred | None = None
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Deferred):
                deferred = outcome  # what ends the run comes before it
            elif isinstance(outcome, BaseException):
                if not ends_an_item(outcome):
                    raise outcome
                self.problems.append(problem(1, outcome, f"input {index}: {outcome}", purses[index][0]))
            elif outcome is not None:
                results.append(outcome)
        if deferred is not None:
            raise deferred
        return results

    async def together(self, *questions: Coroutine[Any, Any, R]) -> list[R]:
        """The answers to questions that do not need one another, asked in order; in a batch all of them go at once."""
        answers: list[R] = []
        deferred: Deferred | None = None
        try:
            for question in questions:
                try:
                    answers.append(await question)
                except Deferred as later:
                    deferred = later
        finally:
            for question in questions:
                question.close()  # those after one that failed are not asked
        if deferred is not None:
            raise deferred
        return answers

    def short(self, inputs: int, reason: str, message: str) -> None:
        """Note that `inputs` fewer came than were asked for."""
        self.problems.append(Problem(inputs, reason, message, 0.0))


def ends_an_item(error: BaseException) -> bool:
    """Whether an error is one item's or one input's own. Others (a spent budget, a wrong key, a stop) every call would meet."""
    return isinstance(error, ParseError) or type(error) is TeacherError


def problem(inputs: int, error: BaseException, message: str, cost_usd: float) -> Problem:
    """An error as a record of what is missing for its sake."""
    if isinstance(error, ParseError):
        return Problem(inputs, error.reason, message, cost_usd)
    name = str(error).partition(" after ")[0]  # a teacher's errors begin with what the provider's was called
    return Problem(inputs, name if name.isidentifier() else type(error).__name__, message, cost_usd)


def _read(response: Response, parse: Parser[Any], schema: Mapping[str, Any] | None) -> Any:
    if response.finish_reason == "length":
        raise ParseError(f"cut off at max_tokens: {response.text[-60:]!r}", "cut off at max_tokens")
    if schema is not None:
        check_schema(parse_object(response.text), schema)
    return parse(response.text)
