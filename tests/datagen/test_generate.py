"""Running the plan: every generator makes its examples, one failure is a row, a rerun asks nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from datagen.ask import Asker
from datagen.errors import TeacherError
from datagen.generate import GenerateReport, generate
from datagen.generators import GENERATORS
from datagen.plan import make_plan
from datagen.records import PlanItem, Request
from datagen.store import Store
from datagen.taxonomy import Taxonomy
from datagen.teacher import FatalTeacherError

Make = Callable[..., Asker]


def run(items: list[PlanItem], asker: Asker, *, judged: bool = True) -> GenerateReport:
    seen: list[str] = []
    with asker.store.writing():
        report = asyncio.run(
            generate(items, asker, asker.store, judged=judged, concurrency=4, progress=lambda item, status: seen.append(status))
        )
    assert len(seen) == report.done + report.empty + report.failed
    return report


@pytest.fixture
def items(shop: Taxonomy) -> list[PlanItem]:
    mix = {"seed": 8, "topic": 16, "adversarial": 8, "reasoning": 8, "preference": 8}
    return make_plan(shop, mix, per_call=4, seed=1, seeds={}, replace_seeds=False)


@pytest.mark.parametrize("name", list(GENERATORS))
def test_each_generator_makes_the_examples_that_were_asked(
    name: str, items: list[PlanItem], make_asker: Make, scripted: Any, script: Any, store: Store
) -> None:
    mine = [item for item in items if item.generator == name]
    report = run(mine, make_asker(scripted(script)))
    examples = store.current_examples()
    assert report.done == len(mine)
    assert len(examples) == sum(item.count for item in mine)
    for example in examples:
        assert example.prompt[0].content == "Sort the message. Reply with JSON."
        assert example.completion == '{"intent":"late","entities":{},"decision":"wait"}'
        assert example.calls
        assert example.scores["judge_answer"] == 5
        assert (example.rejected == "no idea") is (name == "preference")
        assert (example.reasoning is not None) is (name == "reasoning")


def test_a_preference_pair_that_depends_on_the_order_has_no_margin(
    items: list[PlanItem], make_asker: Make, scripted: Any, script: Any, store: Store
) -> None:
    def first_wins(request: Request) -> str:
        return '{"better": "A"}' if request.prompt.startswith("compare") else script(request)

    run([item for item in items if item.generator == "preference"], make_asker(scripted(first_wins)))
    assert {example.scores["chosen_margin"] for example in store.current_examples()} == {0.0}


def test_a_second_run_asks_nothing_and_adds_nothing(
    items: list[PlanItem], make_asker: Make, scripted: Any, script: Any, store: Store
) -> None:
    teacher = scripted(script)
    run(items, make_asker(teacher))
    asked, rows = len(teacher.requests), store.query("SELECT (SELECT count(*) FROM examples) AS e, (SELECT count(*) FROM items) AS i")
    again = run(items, make_asker(teacher))
    assert (again.calls, again.new_examples, len(teacher.requests)) == (0, 0, asked)
    assert store.query("SELECT (SELECT count(*) FROM examples) AS e, (SELECT count(*) FROM items) AS i") == rows


def test_a_changed_system_prompt_asks_everything_anew(
    items: list[PlanItem], make_asker: Make, scripted: Any, script: Any, shop: Taxonomy
) -> None:
    teacher = scripted(script)
    topics = [item for item in items if item.generator == "topic"]
    first = run(topics, make_asker(teacher))
    changed = make_asker(teacher)
    changed.variables["task"] = shop.task.model_copy(update={"instructions": "Other words.", "input": "a letter"})
    assert run(topics, changed).calls == first.calls


def test_one_added_item_costs_its_own_calls_alone(items: list[PlanItem], make_asker: Make, scripted: Any, script: Any) -> None:
    teacher = scripted(script)
    topics = [item for item in items if item.generator == "topic"]
    run(topics[:-1], make_asker(teacher))
    added = run(topics, make_asker(teacher))
    assert added.calls == 1 + topics[-1].count * 2


def test_an_item_whose_answers_cannot_be_read_is_a_failed_row_with_its_reason(
    items: list[PlanItem], make_asker: Make, scripted: Any, script: Any, store: Store
) -> None:
    broken = items[0].id

    def script_with_fault(request: Request) -> str:
        return "no list" if request.item_id == broken else script(request)

    report = run(items, make_asker(scripted(script_with_fault)))
    assert report.failed == 1
    (row,) = store.query("SELECT id, error FROM items WHERE status = 'failed'")
    assert row["id"] == broken
    assert "no readable answer in 3 attempts" in row["error"]


def test_a_final_error_of_one_call_is_a_failed_row(items: list[PlanItem], make_asker: Make, scripted: Any, script: Any) -> None:
    broken = items[0].id

    def refuse_one(request: Request) -> str:
        if request.item_id == broken:
            raise TeacherError("BadRequestError after 1 tries: content policy")
        return str(script(request))

    report = run(items, make_asker(scripted(refuse_one)))
    assert (report.failed, report.done) == (1, len(items) - 1)


def test_an_error_that_every_call_would_meet_ends_the_run_and_keeps_what_is_there(
    items: list[PlanItem], make_asker: Make, scripted: Any, script: Any, store: Store
) -> None:
    teacher = scripted(lambda request: script(request))

    def die_late(request: Request) -> str:
        if len(teacher.requests) > 30:
            raise FatalTeacherError("the key was revoked")
        return str(script(request))

    teacher.script = die_late
    with pytest.raises(FatalTeacherError, match="revoked"):
        run(items, make_asker(teacher))
    assert len(store.answers()) == 30


def test_a_spent_budget_stops_the_run_and_says_so(
    items: list[PlanItem], make_asker: Make, scripted: Any, script: Any, store: Store
) -> None:
    report = run(items, make_asker(scripted(script, cost_usd=0.01), budget_usd=0.2))
    assert report.stopped is not None
    assert "budget_usd 0.2" in report.stopped
    assert store.spent_usd() <= 0.2


def test_a_failed_judge_fails_the_item_and_not_the_run(items: list[PlanItem], make_asker: Make, scripted: Any, script: Any) -> None:
    topics = [item for item in items if item.generator == "topic"]
    report = run(topics, make_asker(scripted(lambda r: "7" if r.prompt.startswith("judge") else script(r))))
    assert report.failed == len(topics)
    assert run(topics, make_asker(scripted(script)), judged=False).done == len(topics)


def test_an_example_that_cannot_be_judged_is_missing_and_the_others_stay(
    items: list[PlanItem], make_asker: Make, scripted: Any, script: Any, store: Store
) -> None:
    topics = [item for item in items if item.generator == "topic"]
    report = run(topics, make_asker(scripted(lambda r: "7" if "/judge/0" in r.sample else script(r), cost_usd=0.01)))
    assert (report.failed, report.problems) == (0, len(topics))
    assert [(entry.reason, entry.inputs) for entry in report.missing] == [("not in the form that was asked", len(topics))]
    rows = store.query("SELECT reason, sum(inputs) AS inputs, sum(cost_usd) AS usd FROM missing GROUP BY ALL")
    assert rows == [{"reason": "not in the form that was asked", "inputs": len(topics), "usd": pytest.approx(0.03 * len(topics))}]
    assert len(store.current_examples()) == sum(item.count - 1 for item in topics)


def test_inputs_that_were_never_written_are_missing_too(items: list[PlanItem], make_asker: Make, scripted: Any, script: Any) -> None:
    (item, *_) = [item for item in items if item.generator == "topic"]
    report = run([item], make_asker(scripted(lambda r: '["only one"]' if r.prompt.startswith("write") else script(r))))
    assert [(entry.reason, entry.inputs) for entry in report.missing] == [("fewer inputs were written", item.count - 1)]


def test_another_judge_gives_new_scores_to_the_same_examples(
    items: list[PlanItem], make_asker: Make, scripted: Any, script: Any, store: Store, roles: Any
) -> None:
    topics = [item for item in items if item.generator == "topic"]
    run(topics, make_asker(scripted(script)))
    before = {example.id for example in store.current_examples()}
    roles["judge"] = roles["judge"].model_copy(update={"model": "test/other-judge"})
    strict = scripted(lambda r: '{"answer": 2, "input": 2}' if r.prompt.startswith("judge") else script(r))
    report = run(topics, make_asker(strict))
    assert report.calls == len(before)
    assert {example.id for example in store.current_examples()} == before
    assert {example.scores["judge_answer"] for example in store.current_examples()} == {2.0}


def test_two_teachers_never_mix_even_when_the_second_run_stops_early(
    items: list[PlanItem], make_asker: Make, scripted: Any, script: Any, store: Store, roles: Any
) -> None:
    topics = [item for item in items if item.generator == "topic"]
    run(topics, make_asker(scripted(script)))
    roles["teacher"] = roles["teacher"].model_copy(update={"model": "test/new"})
    models = {role: config.model for role, config in roles.items()}
    (told,) = store.answers_of_others(topics, models)
    assert (told["role"], told["model"], told["items"]) == ("teacher", "test/big", len(topics))
    report = run(topics, make_asker(scripted(script, cost_usd=0.01), budget_usd=0.1))
    assert report.stopped
    used = store.query(
        "SELECT DISTINCT c.model FROM (SELECT unnest(calls) AS id FROM current_examples) e JOIN calls c USING (id) WHERE c.role = 'teacher'"
    )
    assert used == [{"model": "test/new"}]
    roles["teacher"] = roles["teacher"].model_copy(update={"model": "test/big"})
    back = run(topics, make_asker(scripted(script)))  # the first teacher's answers are still there
    assert back.calls == 0
    assert len(store.current_examples()) == sum(item.count for item in topics)


def test_an_interrupt_sends_nothing_more_and_lets_calls_in_flight_end(
    items: list[PlanItem], make_asker: Make, scripted: Any, script: Any, store: Store
) -> None:
    teacher = scripted(script)
    plain, interrupt = teacher.complete, asyncio.Event()

    async def slow(request: Request) -> Any:
        await asyncio.sleep(0.02)
        if len(teacher.requests) == 20:
            interrupt.set()
        return await plain(request)

    teacher.complete = slow
    asker = make_asker(teacher)

    async def go() -> GenerateReport:
        return await generate(items, asker, store, judged=True, concurrency=4, progress=lambda item, status: None, interrupt=interrupt)

    with store.writing():
        report = asyncio.run(go())
    assert report.interrupted
    assert len(store.answers()) == len(teacher.requests) < 60


def test_what_does_not_come_back_in_five_seconds_is_given_up(
    items: list[PlanItem], make_asker: Make, scripted: Any, script: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datagen.generate.DRAIN_S", 0.05)
    teacher, interrupt = scripted(script, cost_usd=0.1), asyncio.Event()

    async def never(request: Request) -> Any:
        interrupt.set()
        await asyncio.sleep(60)

    teacher.complete = never
    asker = make_asker(teacher, budget_usd=100.0)

    async def go() -> GenerateReport:
        return await generate(items, asker, store, judged=True, concurrency=4, progress=lambda item, status: None, interrupt=interrupt)

    with store.writing():
        assert asyncio.run(go()).interrupted
    assert store.query("SELECT DISTINCT error, billed FROM failures") == [{"error": "Cancelled", "billed": "maybe"}]
