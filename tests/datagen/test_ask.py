"""One question: the store first, the budget next, the journal before use, another try for what cannot be read."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from datagen.ask import Ask, Asker
from datagen.errors import BudgetError, ParseError, TeacherError
from datagen.parse import parse_object
from datagen.records import PlanItem, Request
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
        return "no" if request.messages[-1].content == "b" else json.dumps({"intent": "late"})

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
    assert [problem.split(":")[0] for problem in ask.problems] == ["input 1", "input 3"]
