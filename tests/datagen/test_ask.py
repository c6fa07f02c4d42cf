"""One question: the store first, the budget next, the journal before use, another try for what cannot be read."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from datagen.ask import Ask, Asker, Deferred
from datagen.errors import BudgetError, ParseError, TeacherError
from datagen.parse import parse_object
from datagen.records import PlanItem, Request, content_hash
from datagen.store import Store

ITEM = PlanItem(topic="parcels/late", generator="topic", index=0, count=2, label="late")


def ask_once(asker: Asker, item: PlanItem = ITEM, **variables: Any) -> Any:
    async def run() -> Any:
        with asker.store.writing():
            return await Ask(asker, item)("answer", parse_object, **{"input": "where is it?", **variables})

    return asyncio.run(run())


def test_an_answer_is_parsed_and_stored(make_asker: Callable[..., Asker], scripted: Any, store: Store) -> None:
    asker = make_asker(scripted(lambda request: '{"intent": "late"}'))
    answer = ask_once(asker)
    assert answer.value == {"intent": "late"}
    assert store.answers()[answer.call_id].text == '{"intent": "late"}'


def test_the_same_question_is_asked_once_ever(make_asker: Callable[..., Asker], scripted: Any) -> None:
    teacher = scripted(lambda request: '{"intent": "late"}')
    ask_once(make_asker(teacher))
    again = make_asker(teacher)
    ask_once(again)
    assert len(teacher.requests) == 1
    assert (again.calls, again.reused) == (0, 1)


@pytest.mark.parametrize("change", ["item", "input", "model", "params"])
def test_whatever_can_change_the_answer_asks_anew(make_asker: Callable[..., Asker], scripted: Any, roles: Any, change: str) -> None:
    teacher = scripted(lambda request: '{"intent": "late"}')
    ask_once(make_asker(teacher))
    if change == "item":
        ask_once(make_asker(teacher), ITEM.model_copy(update={"index": 1}))
    elif change == "input":
        ask_once(make_asker(teacher), input="and now?")
    else:
        update = {"model": "test/other"} if change == "model" else {"temperature": 0.1}
        roles["teacher"] = roles["teacher"].model_copy(update=update)
        ask_once(make_asker(teacher))
    assert len(teacher.requests) == 2


def test_an_unreadable_answer_is_kept_and_asked_again(make_asker: Callable[..., Asker], scripted: Any, store: Store) -> None:
    teacher = scripted(lambda request: '{"intent": "late"}' if "/1/" in request.sample else "As an AI")
    assert ask_once(make_asker(teacher)).value == {"intent": "late"}
    assert sorted(answer.text for answer in store.answers().values()) == ["As an AI", '{"intent": "late"}']


def test_answers_that_never_can_be_read_end_the_item_after_the_attempts(make_asker: Callable[..., Asker], scripted: Any) -> None:
    teacher = scripted(lambda request: "no")
    with pytest.raises(ParseError, match="no readable answer in 3 attempts"):
        ask_once(make_asker(teacher))
    with pytest.raises(ParseError):
        ask_once(make_asker(teacher))
    assert len(teacher.requests) == 3


def test_an_answer_that_was_cut_is_not_read(make_asker: Callable[..., Asker], scripted: Any) -> None:
    teacher = scripted(lambda request: '{"intent": "late"}')

    async def cut(request: Request) -> Any:
        return (await type(teacher).complete(teacher, request)).model_copy(update={"finish_reason": "length"})

    teacher.complete = cut
    with pytest.raises(ParseError, match="cut off at max_tokens"):
        ask_once(make_asker(teacher, attempts=1))


def test_the_budget_stops_the_call_that_could_pass_it(make_asker: Callable[..., Asker], scripted: Any, store: Store) -> None:
    teacher = scripted(lambda request: '{"intent": "late"}', cost_usd=0.4)
    asker = make_asker(teacher, budget_usd=1.0)
    ask_once(asker, input="a")
    ask_once(asker, input="b")
    with pytest.raises(BudgetError, match=r"\$0\.8000 of budget_usd 1\.0 is spent"):
        ask_once(asker, input="c")
    assert store.spent_usd() == pytest.approx(0.8)
    with pytest.raises(BudgetError):  # the cap holds over a restart
        ask_once(make_asker(teacher, budget_usd=1.0), input="c")


def test_calls_in_flight_count_against_the_budget(make_asker: Callable[..., Asker], scripted: Any) -> None:
    teacher = scripted(lambda request: '{"intent": "late"}', cost_usd=0.4)
    plain = teacher.complete

    async def slow(request: Request) -> Any:
        await asyncio.sleep(0.01)
        return await plain(request)

    teacher.complete = slow
    asker = make_asker(teacher, budget_usd=1.0)

    async def run() -> list[Any]:
        with asker.store.writing():
            ask = Ask(asker, ITEM)
            return await asyncio.gather(*(ask("answer", parse_object, input=str(n)) for n in range(5)), return_exceptions=True)

    results = asyncio.run(run())
    assert sum(isinstance(result, BudgetError) for result in results) == 3
    assert len(teacher.requests) == 2


def test_one_input_that_fails_costs_the_others_nothing(make_asker: Callable[..., Asker], scripted: Any) -> None:
    def script(request: Request) -> str:
        return "no" if request.messages[1].content == "b" else json.dumps({"intent": "late"})

    asker = make_asker(scripted(script))
    ask = Ask(asker, ITEM)

    async def one(index: int, text: str) -> str:
        if text == "d":
            raise TeacherError("refused for good")
        return (await ask("answer", parse_object, input=text)).text

    async def run() -> list[str]:
        with asker.store.writing():
            return await ask.each(["a", "b", "c", "d"], one)

    assert asyncio.run(run()) == ['{"intent": "late"}'] * 2
    assert [problem.message.split(":")[0] for problem in ask.problems] == ["input 1", "input 3"]


TASK_SCHEMA = {"type": "object", "required": ["intent"], "properties": {"intent": {"enum": ["late", "broken"]}}}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("As an AI", "not JSON"),
        ('{"intent": "lost"}', 'schema: intent: "lost" is not one of "late" or "broken"'),
        ("{}", 'schema: (top): "intent" is a required property'),
    ],
)
def test_the_next_try_shows_the_model_its_answer_and_what_is_wrong_with_it(
    make_asker: Callable[..., Asker], scripted: Any, bad: str, why: str
) -> None:
    teacher = scripted(lambda request: '{"intent": "late"}' if "/1/" in request.sample else bad)
    assert ask_once(make_asker(teacher), schema=TASK_SCHEMA).value == {"intent": "late"}
    first, second = teacher.requests
    assert second.messages[:2] == first.messages
    assert [message.role for message in second.messages[2:]] == ["assistant", "user"]
    assert second.messages[2].content == bad
    assert why in second.messages[3].content
    assert second.prompt.split("+")[0] == first.prompt
    assert second.prompt.split("+")[1].startswith("repair@")


def test_the_first_try_is_asked_as_it_always_was(make_asker: Callable[..., Asker], scripted: Any) -> None:
    """The id of a request without a schema is what stores out there hold."""
    teacher = scripted(lambda request: '{"intent": "late"}')
    ask_once(make_asker(teacher))
    (request,) = teacher.requests
    messages = [message.model_dump() for message in request.messages]
    assert request.id == content_hash([request.model, messages, dict(request.params), request.sample])
    assert request.response_schema is None


def test_a_schema_is_sent_and_is_part_of_what_was_asked(make_asker: Callable[..., Asker], scripted: Any, store: Store) -> None:
    teacher = scripted(lambda request: '{"intent": "late"}')
    ask_once(make_asker(teacher), schema=TASK_SCHEMA)
    ask_once(make_asker(teacher))
    with_schema, without = teacher.requests
    assert with_schema.response_schema == TASK_SCHEMA
    assert with_schema.id != without.id
    (row,) = store.query("SELECT s.schema FROM calls c JOIN schemas s ON s.id = c.schema_id")
    assert json.loads(row["schema"]) == TASK_SCHEMA


def test_a_recipe_can_keep_the_schema_off_the_wire_and_the_answer_is_still_held_to_it(
    make_asker: Callable[..., Asker], scripted: Any, roles: Any
) -> None:
    roles["teacher"] = roles["teacher"].model_copy(update={"structured": "none"})
    teacher = scripted(lambda request: "{}")
    with pytest.raises(ParseError, match="required property"):
        ask_once(make_asker(teacher), schema=TASK_SCHEMA)
    assert all(request.response_schema is None for request in teacher.requests)


def test_a_simulated_teacher_is_asked_the_same_again_without_a_schema(make_asker: Callable[..., Asker], scripted: Any, roles: Any) -> None:
    """It reads the house's prompts and no conversation; answers that break the schema are for the filters to catch."""
    roles["teacher"] = roles["teacher"].model_copy(update={"model": "offline/banking"})
    teacher = scripted(lambda request: '{"intent": "lost"}' if "/1/" in request.sample else "no")
    assert ask_once(make_asker(teacher), schema=TASK_SCHEMA).value == {"intent": "lost"}
    first, second = teacher.requests
    assert first.messages == second.messages
    assert (first.response_schema, first.id == second.id) == (None, False)


def test_an_empty_answer_is_asked_for_again_without_showing_it(make_asker: Callable[..., Asker], scripted: Any) -> None:
    teacher = scripted(lambda request: '{"intent": "late"}' if "/1/" in request.sample else "  ")
    ask_once(make_asker(teacher))
    assert teacher.requests[0].messages == teacher.requests[1].messages


def test_repairs_are_found_in_the_store_like_any_other_answer(make_asker: Callable[..., Asker], scripted: Any) -> None:
    teacher = scripted(lambda request: '{"intent": "late"}' if "/1/" in request.sample else "no")
    ask_once(make_asker(teacher))
    again = make_asker(teacher)
    ask_once(again)
    assert (len(teacher.requests), again.calls, again.reused) == (2, 0, 2)


def test_an_input_that_fails_says_what_was_paid_for_it(make_asker: Callable[..., Asker], scripted: Any) -> None:
    def script(request: Request) -> str:
        return "no" if request.messages[1].content == "b" else json.dumps({"intent": "late"})

    asker = make_asker(scripted(script, cost_usd=0.01))
    ask = Ask(asker, ITEM)

    async def both(index: int, text: str) -> str:
        await ask("answer", parse_object, draw=f"{index}/first", input="ok")
        return (await ask("answer", parse_object, draw=str(index), input=text)).text

    async def run() -> list[str]:
        with asker.store.writing():
            return await ask.each(["a", "b"], both)

    assert len(asyncio.run(run())) == 1
    (problem,) = ask.problems
    assert (problem.inputs, problem.reason, problem.cost_usd) == (1, "not JSON", pytest.approx(0.04))
    assert ask.cost_usd == pytest.approx(0.06)


def test_questions_that_do_not_need_one_another_are_all_asked_before_any_is_waited_for(make_asker: Callable[..., Asker]) -> None:
    asked: list[str] = []

    async def question(name: str, error: Exception | None = None) -> str:
        asked.append(name)
        if error:
            raise error
        return name

    ask = Ask(make_asker(None), ITEM)
    assert asyncio.run(ask.together(question("a"), question("b"))) == ["a", "b"]
    with pytest.raises(Deferred):
        asyncio.run(ask.together(question("c", Deferred()), question("d")))
    with pytest.raises(ParseError):
        asyncio.run(ask.together(question("e", ParseError("no")), question("f")))
    assert asked == ["a", "b", "c", "d", "e"]
