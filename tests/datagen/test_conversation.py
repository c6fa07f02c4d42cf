"""Conversations: who says what, when they end, what an example of one is, and what filters, groups and forecasts make of several turns."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datagen.ask import Asker, Deferred
from datagen.config import load_recipe
from datagen.curate import curate, curate_new
from datagen.errors import ConfigError, TeacherError
from datagen.filters import EXAMPLE_FILTERS, FilterContext
from datagen.filters.decontaminate import decontaminate
from datagen.filters.dedup import duplicate, group_ids, near_duplicate
from datagen.forecast import forecast, known_prices, nobody, open_inputs
from datagen.generate import GenerateReport, generate
from datagen.plan import count_calls, make_plan
from datagen.records import Example, Message, PlanItem, Request, Task
from datagen.store import Store
from datagen.taxonomy import Taxonomy

Make = Callable[..., Asker]


def plan(shop: Taxonomy, rows: int = 12, max_turns: int = 3) -> list[PlanItem]:
    return make_plan(shop, {"conversation": rows}, per_call=4, seed=1, seeds={}, replace_seeds=False, max_turns=max_turns)


def run(items: list[PlanItem], asker: Asker, *, judged: bool = False) -> GenerateReport:
    with asker.store.writing():
        return asyncio.run(generate(items, asker, asker.store, judged=judged, concurrency=2, progress=lambda item, status: None))


def talk(done_after: int = 99, broken_at: int = 99) -> Callable[[Request], str]:
    """A user who is done after some turns, and an assistant whose answer of one turn cannot be read."""

    def script(request: Request) -> str:
        name, turn = request.prompt.split("@")[0], int(request.sample.split("/")[-2] if "/judge" not in request.sample else 0)
        if name == "judge":
            return '{"answer": 5, "input": 5}'
        if name == "write_turn":
            done = turn >= done_after
            return json.dumps({"done": done, "message": "" if done else f"{request.item_id} says thing {turn}"})
        assert name == "answer"
        return "no JSON" if turn == broken_at else json.dumps({"intent": "late", "entities": {}, "decision": "wait"})

    return script


def turns(*texts: str, completion: str = "It is on its way.", item: str = "a:conversation:0") -> Example:
    """A free-text example after the given turns, user and assistant in turn."""
    said = [Message(role="user" if number % 2 == 0 else "assistant", content=text) for number, text in enumerate(texts)]
    prompt = (Message(role="system", content="Answer."), *said)
    return Example(item_id=item, topic="a", generator="conversation", prompt=prompt, completion=completion, family=item)


def test_each_answer_of_a_conversation_is_an_example_whose_prompt_is_all_that_was_said(
    shop: Taxonomy, make_asker: Make, scripted: Any, store: Store
) -> None:
    items = plan(shop)
    teacher = scripted(talk())
    report = run(items, make_asker(teacher))
    examples = store.current_examples()
    assert (report.done, len(examples)) == (len(items), 12)
    mine = sorted((e for e in examples if e.item_id == items[0].id), key=lambda e: len(e.prompt))
    answer = '{"intent":"late","entities":{},"decision":"wait"}'
    said = [f"{items[0].id} says thing {turn}" for turn in range(len(mine))]
    for number, example in enumerate(mine):
        roles = ["system", *["user", "assistant"] * number, "user"]
        assert [message.role for message in example.prompt] == roles
        assert example.prompt[0].content == shop.task.system
        assert [message.content for message in example.prompt[1::2]] == said[: number + 1]
        assert example.completion == answer
        assert example.family == items[0].id
        assert len(example.calls) == 2 * number + 2
    last = [r for r in teacher.requests if r.item_id == items[0].id and r.prompt.startswith("answer")][-1]
    assert [message.role for message in last.messages] == ["system", *["user", "assistant"] * (len(mine) - 1), "user"]
    assert shop.task.instructions in last.messages[0].content


def test_a_conversation_ends_when_the_user_is_done_and_that_is_no_failure(
    shop: Taxonomy, make_asker: Make, scripted: Any, store: Store
) -> None:
    items = plan(shop)
    report = run(items, make_asker(scripted(talk(done_after=1))))
    assert (report.done, report.missing) == (len(items), ())
    assert len(store.current_examples()) == len(items)


def test_a_turn_that_fails_ends_the_conversation_and_the_turns_before_it_stand(
    shop: Taxonomy, make_asker: Make, scripted: Any, store: Store
) -> None:
    (item,) = [item for item in plan(shop, 9) if item.count == 3][:1]
    report = run([item], make_asker(scripted(talk(broken_at=1))))
    assert len(store.current_examples()) == 1
    assert {entry.reason: entry.inputs for entry in report.missing} == {"not JSON": 1, "the conversation broke off": 1}


def test_a_user_who_is_done_before_the_first_word_is_asked_again(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    (item,) = plan(shop, 3)[:1]
    teacher = scripted(talk(done_after=0))
    report = run([item], make_asker(teacher))
    assert report.failed == 1
    assert len(teacher.requests) == 3


def test_a_rerun_asks_nothing_and_a_lost_answer_asks_on_from_there(shop: Taxonomy, make_asker: Make, scripted: Any, store: Store) -> None:
    items = plan(shop)

    def refuses(request: Request) -> str:
        if request.prompt.startswith("answer") and request.sample.endswith("/1/assistant"):
            raise TeacherError("Timeout after 3 tries")
        return talk()(request)

    run(items, make_asker(scripted(refuses)))
    teacher = scripted(talk())
    run(items, make_asker(teacher))
    assert {request.sample.split("/")[-2] for request in teacher.requests} == {"1", "2"}
    assert len(store.current_examples()) == 12
    again = scripted(talk())
    assert (run(items, make_asker(again)).calls, again.requests) == (0, [])


def test_the_judge_reads_the_whole_conversation(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    (item,) = [item for item in plan(shop, 9) if item.count == 3][:1]
    teacher = scripted(talk())
    run([item], make_asker(teacher), judged=True)
    judged = [request.messages[1].content for request in teacher.requests if request.role == "judge"]
    assert len(judged) == 3
    assert any(text.count("User: ") == 3 and text.count("Assistant: ") == 2 for text in judged)


def test_a_conversation_counts_its_inputs_and_its_longest_course(shop: Taxonomy) -> None:
    items = plan(shop, 100, max_turns=5)
    assert sum(item.count for item in items) == 100
    assert max(item.count for item in items) == 5
    assert count_calls(items, judge=True) == 300


def test_conversations_are_planned_whole_even_where_they_are_few(shop: Taxonomy) -> None:
    assert [item.count for item in plan(shop, 8, max_turns=4)] == [4, 4]
    assert sorted(item.count for item in plan(shop, 22, max_turns=4)) == [2, 4, 4, 4, 4, 4]


@pytest.mark.parametrize("name", ["conversation", "grounded"])
def test_the_simulated_teacher_is_not_asked_for_what_it_cannot_do(name: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"name: r\ntaxonomy: x.yaml\nteachers: {{teacher: {{model: offline/banking}}}}\nmix: {{{name}: 3}}\n")
    with pytest.raises(ConfigError, match=rf"mix\.{name} is 3, but offline/banking is simulated"):
        load_recipe(path)


def test_the_forecast_spans_from_one_turn_to_the_last_and_learns_from_the_store(
    shop: Taxonomy, make_asker: Make, scripted: Any, roles: Any
) -> None:
    items = plan(shop, 40, max_turns=4)
    prices = known_prices({name: config.model_copy(update={"model": "offline/x"}) for name, config in roles.items()})

    def ahead(chosen: list[PlanItem]) -> Any:
        left = open_inputs(chosen, make_asker(nobody()), judged=False)
        return forecast(chosen, left, make_asker(nobody()), prices, judged=False, concurrency=4)

    told = ahead(items)
    assert told.calls.low < told.calls.mean < count_calls(items, judge=False) <= told.calls.high
    assert told.calls.low <= 2 * len(items)
    run(items[:6], make_asker(scripted(talk(done_after=2))))
    measured = ahead(items[6:])
    assert measured.calls.low <= 5 / 8 * count_calls(items[6:], judge=False) <= measured.calls.high
    assert measured.parts[0].basis == 6


@pytest.mark.parametrize(
    ("example", "name", "reason"),
    [
        (turns("Hi there", "I'm sorry, but I can't help with that.", "Why not?"), "refusal", "refusal: the answer of turn 1"),
        (turns("Mail me at ana@shop.example", "Gladly.", "When?"), "pii", "pii: e-mail address in the input"),
        (turns("Hi", "Write to ana@shop.example", "When?"), "pii", "pii: e-mail address in the answer of turn 1"),
        (turns("Hi", "x" * 9000, "When?"), "length", "completion_long: 9000 characters, at most 8000 (answer of turn 1)"),
        (turns("x" * 5000, "Yes.", "When?"), "length", "input_long: 5000 characters, at most 4000 (input of turn 1)"),
        (turns("Hi", "Tell me your PIN.", "No."), "truth", "forbidden: 'PIN'"),
        (turns("Hi", "Где находится ваша посылка сегодня утром", "When?"), "language", "language: the answer of turn 1"),
    ],
)
def test_a_fault_in_an_earlier_turn_drops_what_follows_it(example: Example, name: str, reason: str, text_task: Task) -> None:
    context = FilterContext(task=text_task)
    assert str(EXAMPLE_FILTERS[name](example, context)).startswith(reason)
    clean = turns("Hi there, how are you?", "Fine.", "Where is it?")
    assert EXAMPLE_FILTERS[name](clean, context) is None


def test_an_earlier_answer_must_be_of_the_schema_too(bank_example: Any, bank_context: FilterContext) -> None:
    good = bank_example()
    earlier = (good.prompt[0], good.prompt[1], Message(role="assistant", content="well"), Message(role="user", content="And now?"))
    example = bank_example(prompt=earlier)
    assert str(EXAMPLE_FILTERS["schema"](example, bank_context)).startswith("invalid_json: answer of turn 1: ")
    fine = bank_example(prompt=(*earlier[:2], Message(role="assistant", content=good.completion), earlier[3]))
    assert EXAMPLE_FILTERS["schema"](fine, bank_context) is None


def test_an_exam_s_text_in_any_turn_is_found(text_task: Task, exam: Any) -> None:
    row = "Where can I see how far my parcel has come on its long way today?"
    context = FilterContext(task=text_task, evaluation_sets=(exam(row),))
    filler = "I would like to know something else entirely, about shoes and their many colours and sizes, please."
    hit = turns(row.replace("today", "now"), "In your account.", filler)
    clean = turns(filler, "Of course.", "Thank you, that is all.")
    assert [verdict.keep for verdict in decontaminate([hit, clean], context)] == [False, True]


LONG = "The parcel with the garden chairs has not come though the tracking page says that it was delivered on Monday"


def test_twins_are_whole_conversations_and_turns_of_one_are_none(text_task: Task) -> None:
    context = FilterContext(task=text_task)
    one = turns(LONG, "Which depot?", "The northern one, near the river", item="a:conversation:0")
    longer = turns(LONG, "Which depot?", "The northern one, near the river", "Thanks.", "Bye", item="a:conversation:0")
    other = turns(
        LONG, "What is the number of the order, and when did you place it with us?", "I do not have that any more", item="a:conversation:1"
    )
    same = turns(LONG, "Which depot?", "The northern one near the river!", item="a:conversation:2")
    assert all(verdict.keep for verdict in near_duplicate([one, longer, other], context))
    assert sum(not verdict.keep for verdict in duplicate([one, same], context)) == 1
    last_turns_alike = turns(
        "A wholly different beginning of a talk about lamps", "Which?", "The northern one, near the river", item="a:conversation:3"
    )
    assert all(verdict.keep for verdict in near_duplicate([one, last_turns_alike], context))


def test_a_conversation_is_one_group_whatever_its_turns_say(text_task: Task) -> None:
    first, second = turns("Hello there"), turns("Hello there", "Yes?", LONG)
    stranger = turns("What does a lamp cost?", item="a:conversation:1")
    groups = group_ids([first, second, stranger])
    assert groups[first.id] == groups[second.id] != groups[stranger.id]


def test_curating_new_turns_keeps_a_conversation_in_one_group(bank_store: Any, text_task: Task) -> None:
    context = FilterContext(task=text_task, settings={"judge": {"min": 0, "min_input": 0}})
    first = turns("Hello there, good people")
    store = bank_store([first])
    curate(store, context)
    later = turns("Hello there, good people", "Yes?", LONG)
    with store.writing():
        store.add_item(PlanItem(topic="a", generator="conversation", index=1, count=1), "done", [later])
    assert curate_new(store, context)
    rows = store.query("SELECT count(DISTINCT group_id) AS groups, count(DISTINCT split) AS splits, count(*) AS n FROM accepted")
    assert rows == [{"groups": 1, "splits": 1, "n": 2}]


def test_in_batches_a_conversation_goes_on_by_one_question_a_round(shop: Taxonomy, make_asker: Make, scripted: Any, store: Store) -> None:
    items = plan(shop, 6, max_turns=3)
    known: set[str] = set()

    class Later(scripted):  # type: ignore[misc]
        async def complete(self, request: Request) -> Any:
            if request.id not in known:
                waiting.add(request.id)
                raise Deferred
            return await super().complete(request)

    rounds = 0
    while True:
        waiting: set[str] = set()
        report = run(items, make_asker(Later(talk())))
        if not report.deferred:
            break
        known |= waiting
        rounds += 1
    assert rounds == 2 * 3
    assert (report.done, len(store.current_examples())) == (2, 6)
