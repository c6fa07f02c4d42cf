"""Ranked candidates: who is chosen and who rejected, what is counted and recorded, and the student as the weak model over HTTP."""

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datagen.ask import Asker
from datagen.config import ModelConfig, Price, load_recipe
from datagen.curate import judge_all
from datagen.errors import ConfigError, TeacherError
from datagen.filters import FilterContext
from datagen.generate import run_item
from datagen.plan import asks_of, calls_of, make_plan
from datagen.records import Draw, Example, PlanItem, Request, Several
from datagen.store import Store
from datagen.taxonomy import Taxonomy
from datagen.teacher import Teacher

Make = Callable[..., Asker]
WAIT = {"intent": "late", "entities": {}, "decision": "wait"}  # right by R2
ACT = {**WAIT, "decision": "act"}  # wrong by R2


def item_of(
    shop: Taxonomy, temperatures: tuple[float | None, ...], weak: int = 1, take: str = "teacher", prompt: str = "answer"
) -> PlanItem:
    draws = [Draw(prompt="answer", role="teacher", temperature=t) for t in temperatures]
    draws += [Draw(prompt=prompt, role="weak")] * weak  # type: ignore[arg-type]
    several = {"preference": Several(draws=tuple(draws), take=take)}
    plain = shop.model_copy(update={"adversarial": {}})
    items = make_plan(plain, {"preference": 3}, per_call=1, seed=1, seeds={}, replace_seeds=False, several=several)
    return next(item for item in items if item.topic == "parcels/late")


def context_of(shop: Taxonomy, **settings: Any) -> FilterContext:
    return FilterContext(task=shop.task, labels=shop.labels(), facts=shop.facts, policy=shop.policy, settings=settings)


def scripted_by(answers: dict[str, Any], better: Callable[[str, str], str]) -> Callable[[Request], str]:
    """Candidates by their names; `better` is the judge, from the two texts as it is shown them."""

    def script(request: Request) -> str:
        name, draw = request.prompt.split("@")[0], request.sample.split("/")[-1]
        if name == "write_inputs":
            return '["my parcel is late"]'
        if name == "compare":
            shown = request.messages[1].content
            first, second = shown.split("Answer A:\n")[1].split("\n\nAnswer B:\n")
            return json.dumps({"better": better(first, second)})
        answer = answers[draw]
        return answer if isinstance(answer, str) else json.dumps(answer)

    return script


def by_points(points: dict[str, float]) -> Callable[[str, str], str]:
    """A judge that gives a text the points of the first word of `points` that it holds."""

    def value(text: str) -> float:
        return next(number for word, number in points.items() if word in text)

    def better(first: str, second: str) -> str:
        a, b = value(first), value(second)
        return "tie" if a == b else "A" if a > b else "B"

    return better


def one(item: PlanItem, asker: Asker) -> Example:
    with asker.store.writing():
        outcome = asyncio.run(run_item(item, asker, judged=False))
    assert len(outcome.examples) == 1, outcome.error
    return outcome.examples[0]


def dropped(example: Example, context: FilterContext) -> list[str | None]:
    return [v.reason for v in judge_all([example], {}, context) if not v.keep]


def test_the_best_is_chosen_and_the_worst_rejected_and_every_call_is_in_the_plan(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    notes = {name: {**WAIT, "entities": {"note": name}} for name in ("good", "fair")}
    teacher = scripted(
        scripted_by({"chosen": notes["fair"], "chosen 2": notes["good"], "rejected": ACT}, by_points({"good": 3, "fair": 2, "act": 1}))
    )
    item = item_of(shop, (0.3, 1.0))
    example = one(item, make_asker(teacher))
    assert example.answer == notes["good"]
    assert example.rejected == json.dumps(ACT)
    assert example.scores == {
        "chosen_margin": 1.0, "candidates": 3.0, "identical": 0.0, "chosen_is_weak": 0.0,
        "length_difference": len(example.completion) - len(json.dumps(ACT)),
    }  # fmt: skip
    asks = {(ask.prompt, ask.role): ask.times(1) for ask in asks_of(item, False)}
    assert asks == {("write_inputs", "teacher"): 1, ("answer", "teacher"): 2, ("answer", "weak"): 1, ("compare", "judge"): 6}
    assert len(teacher.requests) == calls_of(item, False) == 10
    assert len(set(example.calls)) == 10
    assert [r.params["temperature"] for r in teacher.requests if r.prompt.startswith("answer")] == [0.3, 1.0, 1.0]
    assert len({request.id for request in teacher.requests}) == 10


def test_a_judge_that_goes_by_the_place_makes_a_tie_and_the_pair_is_dropped(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    script = scripted_by({"chosen": WAIT, "chosen 2": {**WAIT, "entities": {"note": "x"}}, "rejected": ACT}, lambda first, second: "A")
    example = one(item_of(shop, (0.3, 1.0)), make_asker(scripted(script)))
    assert example.scores["chosen_margin"] == 0.0
    assert "margin: the judge's margin is 0, must be above 0" in dropped(example, context_of(shop))


def test_what_truth_contradicts_is_not_chosen_whoever_the_judge_prefers(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    script = scripted_by(
        {"chosen": ACT, "chosen 2": WAIT, "rejected": {**ACT, "intent": "broken"}}, by_points({"broken": 0, "act": 3, "wait": 2})
    )
    example = one(item_of(shop, (0.3, 1.0)), make_asker(scripted(script)))
    assert example.answer == WAIT
    assert json.loads(example.rejected or "")["intent"] == "broken"
    assert not dropped(example, context_of(shop, judge={"min": 1}, near_duplicate={}))


def test_where_every_answer_is_wrong_the_pair_is_made_and_dropped(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    script = scripted_by(
        {"chosen": ACT, "rejected": {**ACT, "intent": "broken"}, "rejected 2": "{"}, by_points({"broken": 0, "act": 3, "{": 1})
    )
    example = one(item_of(shop, (None,), weak=2), make_asker(scripted(script)))
    assert "policy: decision is 'act', the rules say 'wait'" in dropped(example, context_of(shop))


def test_a_readable_answer_is_rejected_rather_than_a_broken_one(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    script = scripted_by({"chosen": WAIT, "rejected": "no JSON", "rejected 2": ACT}, by_points({"wait": 3, "act": 2, "no JSON": 1}))
    example = one(item_of(shop, (None,), weak=2), make_asker(scripted(script)))
    assert example.rejected == json.dumps(ACT)


def test_the_weak_models_answer_is_chosen_where_the_recipe_lets_it_and_truth_agrees(
    shop: Taxonomy, make_asker: Make, scripted: Any
) -> None:
    script = scripted_by({"chosen": ACT, "rejected": json.dumps(WAIT, indent=1)}, by_points({"wait": 3, "act": 1}))
    swapped = one(item_of(shop, (None,), take="any"), make_asker(scripted(script)))
    assert (swapped.completion, swapped.scores["chosen_is_weak"]) == ('{"intent":"late","entities":{},"decision":"wait"}', 1.0)
    assert not dropped(swapped, context_of(shop))
    kept = one(item_of(shop, (None,), take="teacher"), make_asker(scripted(script)))
    assert kept.scores["chosen_margin"] == -1.0
    assert dropped(kept, context_of(shop))


def test_equal_texts_are_not_compared_and_never_make_a_pair(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    compact = '{"intent":"late","entities":{},"decision":"wait"}'
    teacher = scripted(scripted_by({"chosen": WAIT, "chosen 2": WAIT, "rejected": compact}, by_points({"wait": 1})))
    item = item_of(shop, (0.3, 1.0))
    example = one(item, make_asker(teacher))
    assert (example.scores["identical"], example.scores["chosen_margin"]) == (1.0, 0.0)
    assert len(teacher.requests) == calls_of(item, False) - 6
    assert "rejected_same: the rejected answer equals the chosen one" in dropped(example, context_of(shop))


def test_an_unreadable_candidate_costs_no_other_but_a_pair_needs_two(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    script = scripted_by({"chosen": "no JSON", "chosen 2": WAIT, "rejected": ACT}, by_points({"wait": 2, "act": 1}))
    assert one(item_of(shop, (0.3, 1.0)), make_asker(scripted(script), attempts=1)).scores["candidates"] == 2
    script = scripted_by({"chosen": "no JSON", "chosen 2": "neither", "rejected": ACT}, by_points({}))
    asker = make_asker(scripted(script), attempts=1)
    with asker.store.writing():
        outcome = asyncio.run(run_item(item_of(shop, (0.3, 1.2)), asker, judged=False))
    assert (outcome.status, outcome.problems[0].reason) == ("failed", "not JSON")


def test_a_call_that_fails_for_good_fails_its_input_alone(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    script = scripted_by({"chosen": WAIT, "chosen 2": WAIT, "rejected": ACT}, by_points({"wait": 2, "act": 1}))

    def refused(request: Request) -> str:
        if request.sample.endswith("chosen"):
            raise TeacherError("BadRequestError after 1 tries: content policy")
        return script(request)

    asker = make_asker(scripted(refused))
    with asker.store.writing():
        outcome = asyncio.run(run_item(item_of(shop, (0.3, 1.0)), asker, judged=False))
    assert (outcome.status, outcome.problems[0].reason) == ("failed", "BadRequestError")


def test_of_noisy_judges_and_candidates_no_bad_pair_is_accepted(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    """200 inputs whose candidates are right, wrong or broken at random, under a judge that is often wrong and likes the first place."""
    rng = random.Random(5)
    pool = [WAIT, {**WAIT, "entities": {"note": "parcel"}}, ACT, {**ACT, "intent": "broken"}, "broken {", ""]

    def script(request: Request) -> str:
        name = request.prompt.split("@")[0]
        if name == "write_inputs":
            return json.dumps([f"my parcel is late, case {rng.random()}"])
        if name == "compare":
            return json.dumps({"better": rng.choices(["A", "B", "tie"], [5, 3, 2])[0]})
        answer = rng.choice(pool if request.role == "weak" else pool[:4])
        return answer if isinstance(answer, str) and answer else json.dumps(answer)

    item = item_of(shop, (0.5, 1.0), weak=2, take="any")
    items = [item.model_copy(update={"index": index}) for index in range(200)]
    asker = make_asker(scripted(script), attempts=2)
    with asker.store.writing():
        examples = [e for i in items for e in asyncio.run(run_item(i, asker, judged=False)).examples]
    out = {v.example_id for v in judge_all(examples, {}, context_of(shop)) if not v.keep}
    accepted = [example for example in examples if example.id not in out]
    assert len(accepted) > 40
    for example in accepted:
        assert (example.answer or {})["decision"] == "wait"
        assert "wait" not in (example.rejected or "")
        assert example.scores["chosen_margin"] > 0


# -- the recipe

RECIPE = "name: shop\ntaxonomy: shop.yaml\nmix: {preference: 8}\n"
TEACHER = "teachers: {teacher: {model: test/big}}\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (TEACHER + "preference: {weak: 0}", "1 answers to each input; give temperatures and weak that make 2 to 6 together"),
        (TEACHER + "preference: {temperatures: [0.1, 0.5, 0.9, 1.2], weak: 3}", "7 answers to each input"),
        (TEACHER + "preference: {student: true}", "name it under teachers.weak"),
        (TEACHER + "preference: {temperatures: [3]}", "preference.temperatures.0 is 3"),
    ],
)
def test_a_wrong_preference_section_is_refused(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE + lines)
    with pytest.raises(ConfigError) as error:
        load_recipe(tmp_path / "r.yaml")
    assert message in str(error.value)


def test_the_usual_pair_has_no_draws_and_only_those_who_are_asked_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE + TEACHER)
    assert load_recipe(path).recipe.several() == {}
    path.write_text(RECIPE + TEACHER + "preference: {temperatures: [0.2, 1.0], weak: 0}")
    recipe = load_recipe(path).recipe
    assert [(d.role, d.temperature) for d in recipe.several()["preference"].draws] == [("teacher", 0.2), ("teacher", 1.0)]
    assert set(recipe.roles_asked()) == {"teacher", "judge"}


# -- the student itself, served on this machine


def test_the_student_is_asked_over_http_as_it_is_served(
    shop: Taxonomy, store: Store, server: Any, make_asker: Make, tmp_path: Path
) -> None:
    def reply(body: dict[str, Any], nth: int) -> Any:
        system = body["messages"][0]["content"]
        if body["model"] == "my-student":
            return server.chat("Sorted: " + json.dumps(ACT))
        if system.startswith("You write"):
            return server.chat('["my parcel is late"]')
        if system.startswith("You compare"):
            user = body["messages"][1]["content"]
            return server.chat(json.dumps({"better": "B" if "Answer A:\nSorted" in user else "A"}))
        return server.chat(json.dumps(WAIT))

    server.reply = reply
    price, ends = Price(input_per_million=0, output_per_million=0), {"api_base": server.url, "api_key": "x"}
    big = ModelConfig(model="openai/big", price=price, params=ends)
    student = ModelConfig(model="hosted_vllm/my-student", price=price, api_bases=(server.url,), temperature=0.7)
    roles = {"teacher": big, "weak": student, "judge": big}

    async def story() -> Example:
        teacher = Teacher(roles, concurrency=4, retries=2, on_failure=store.add_failure)
        asker = Asker(store, teacher, roles, make_asker(teacher).variables, attempts=2, budget_usd=None)
        outcome = await run_item(item_of(shop, (0.2, 1.0), prompt="student"), asker, judged=False)
        assert not outcome.error
        return outcome.examples[0]

    with store.writing():
        example = asyncio.run(story())
    (asked,) = [body for body in server.bodies if body["model"] == "my-student"]
    assert asked["messages"] == [
        {"role": "system", "content": shop.task.system}, {"role": "user", "content": "my parcel is late"},
    ]  # fmt: skip
    assert asked["temperature"] == 0.7
    assert sorted(b["temperature"] for b in server.bodies if b["messages"][0]["content"].startswith(shop.task.instructions)) == [0.2, 1.0]
    assert example.rejected == "Sorted: " + json.dumps(ACT)
    assert example.scores["chosen_margin"] == 1.0
    assert store.query("SELECT prompt FROM calls WHERE role = 'weak'")[0]["prompt"].startswith("student@")
    assert not dropped(example, context_of(shop))
