"""Quotas: rounds until each cell has its accepted rows, the same again for nothing, and who is short is named."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from datagen.ask import Asker
from datagen.batch import BatchReport
from datagen.cli import main
from datagen.config import Quota
from datagen.curate import curate
from datagen.filters import FilterContext
from datagen.generate import generate
from datagen.plan import Planner, make_plan
from datagen.quota import Filling, QuotaReport, fill, render
from datagen.records import Passage, PlanItem, Request, Verdict, content_hash
from datagen.store import Store
from datagen.taxonomy import Taxonomy

MIX = {"topic": 24}
WORDS = [
    "lamp",
    "chair",
    "garden",
    "parcel",
    "courier",
    "depot",
    "island",
    "window",
    "shoes",
    "birthday",
    "table",
    "carpet",
    "mirror",
    "kettle",
    "ladder",
    "bucket",
]


def written(request: Request, repeats: float = 0.0) -> str:
    """Four different messages, by the item and its dimensions; some of them what another item got too."""
    rng = random.Random(request.sample + request.messages[-1].content)
    texts = [" ".join(rng.choices(WORDS, k=20)) + " where is the parcel that I have waited for" for _ in range(4)]
    return json.dumps([(" ".join(WORDS) + " is late and the driver is not here") if rng.random() < repeats else text for text in texts])


def teacher(wrong: float = 0.3, repeats: float = 0.1) -> Callable[[Request], str]:
    """A share of the answers has a wrong label."""

    def script(request: Request) -> str:
        if request.prompt.startswith(("write", "rewrite")):
            return written(request, repeats)
        if request.prompt.startswith("judge"):
            return '{"answer": 5, "input": 5}'
        late = random.Random(request.messages[-1].content).random() >= wrong
        label = request.item_id.split("/")[-1].split(":")[0].replace("rest", "other")
        return json.dumps({"intent": label if late else "nonsense", "entities": {}, "decision": "wait"})

    return script


@pytest.fixture
def go(shop: Taxonomy, store: Store, make_asker: Callable[..., Asker], scripted: Any) -> Callable[..., tuple[BatchReport, QuotaReport]]:
    """A run with a quota over the shop, with what a test changes."""
    task = shop.task.model_copy(update={"decision_fields": ()})
    context = FilterContext(task=task, labels=shop.labels())

    def run(
        script: Callable[[Request], str], *, mix: dict[str, int] | None = None, seed: int = 1, budget_usd: float | None = None,
        cost_usd: float = 0.0, settings: dict[str, Any] | None = None, filters: dict[str, Any] | None = None,
        passages: Sequence[Passage] = (), free: bool = False, **quota: Any,
    ) -> tuple[BatchReport, QuotaReport]:  # fmt: skip
        planner = Planner(shop, seed=seed, seeds={}, replace_seeds=False, design="covering", passages=passages)
        bounds = Quota(**quota)
        filling = Filling(planner, planner.cells(mix or MIX, bounds.min_per_topic), bounds, 4)
        asker = make_asker(scripted(script, cost_usd=cost_usd), budget_usd=budget_usd)
        own = task
        if free:
            own = asker.variables["task"] = task.model_copy(update={"output_schema": None, "label_field": None})

        async def part(some: list[PlanItem], whole: list[PlanItem]) -> BatchReport:
            asker.calls = asker.reused = 0
            report = await generate(some, asker, store, judged=False, concurrency=4, progress=lambda item, status: None, plan=whole)
            return BatchReport(report, 0)

        used = FilterContext(task=own, labels=context.labels, settings=filters or {})
        with store.writing():
            store.begin_data_set(f"shop/{seed}", filling.targets)
            return asyncio.run(fill(filling, filling.next_items(), part, store, used, lambda line: None))

    return run


def accepted(store: Store) -> Counter[str]:
    return Counter(example.topic for example in store.accepted_examples())


def test_every_cell_gets_exactly_its_rows(go: Any, store: Store) -> None:
    report, quota = go(teacher())
    assert accepted(store).total() == 24
    assert quota.short == ()
    assert (quota.accepted, quota.target) == (24, 24)
    assert quota.rounds > 1
    assert quota.asked > 24
    assert report.report.calls > 0
    rows = store.query("SELECT target, accepted FROM coverage")
    assert all(row["target"] == row["accepted"] for row in rows)


def test_the_same_run_again_asks_nothing_and_ends_with_the_same_rows(go: Any, store: Store) -> None:
    _, first = go(teacher())
    rows = [example.id for example in store.accepted_examples()]
    again, second = go(teacher())
    assert again.report.calls == 0
    assert second == first
    assert [example.id for example in store.accepted_examples()] == rows


def test_a_run_that_a_budget_stopped_is_short_and_goes_on_to_the_same_end(go: Any, store: Store, tmp_path: Path) -> None:
    stopped, quota = go(teacher(), budget_usd=0.2, cost_usd=0.01)
    assert stopped.report.stopped
    assert quota.short
    assert {entry.why for entry in quota.short} == {"the run ended before"}
    report, quota = go(teacher(), budget_usd=None)
    assert quota.short == ()
    assert report.report.reused >= 20


def test_a_cell_whose_candidates_are_spent_is_short_and_says_why(go: Any, store: Store) -> None:
    def never_late(request: Request) -> str:
        if "late" in request.item_id and request.prompt.startswith("answer"):
            return "I cannot help"
        return teacher(0.0, 0.0)(request)

    _, quota = go(never_late, candidates=2)
    (short,) = quota.short
    assert (short.topic, short.accepted) == ("parcels/late", 0)
    assert 2 * short.target <= short.asked < 2 * short.target + 4
    assert short.why == f"its candidates are spent: {short.asked} inputs were asked for"
    assert [(entry.reason, entry.inputs) for entry in short.reasons] == [("not JSON", short.asked)]
    assert f"Short: parcels/late, topic: 0 of {short.target} rows" in render(quota)
    assert quota.as_json()["short"][0]["reasons"] == [short.reasons[0]._asdict()]


def test_inputs_that_were_never_answered_are_a_reason_too(go: Any) -> None:
    _, quota = go(lambda r: "no json" if "rest" in r.item_id and r.prompt.startswith("write") else teacher(0.0, 0.0)(r), candidates=1.5)
    (short,) = quota.short
    assert [entry.reason for entry in short.reasons] == ["not JSON"]


def test_what_a_person_rejects_is_made_up_from_what_was_too_many(go: Any, store: Store, shop: Taxonomy) -> None:
    go(teacher())
    surplus = store.query("SELECT topic FROM rejected WHERE decided_by = 'filter:quota'")
    assert surplus
    victim = next(example for example in store.accepted_examples() if example.topic == surplus[0]["topic"])
    before = accepted(store)
    with store.writing():
        store.add_verdicts([Verdict(example_id=victim.id, by="human:ana", keep=False, reason="review: dull")])
    context = FilterContext(task=shop.task.model_copy(update={"decision_fields": ()}), labels=shop.labels())
    curate(store, context)
    assert accepted(store) == before
    assert victim.id not in {example.id for example in store.accepted_examples()}


def test_another_data_set_in_the_same_store_repeats_no_row(go: Any, store: Store) -> None:
    go(teacher())
    first = {example.input for example in store.accepted_examples()}
    _, quota = go(teacher(), seed=2)
    second = {example.input for example in store.accepted_examples()}
    assert len(second) == quota.accepted == 24
    assert not first & second
    go(teacher())
    assert {example.input for example in store.accepted_examples()} == first


def test_questions_that_another_data_set_had_asked_are_no_candidates(go: Any, shop: Taxonomy, store: Store) -> None:
    object.__setattr__(shop, "dimensions", {})  # then another seed asks the same
    go(teacher(0.0, 0.0), mix={"preference": 0, "topic": 12}, candidates=1)
    _, quota = go(teacher(0.0, 0.0), seed=2, mix={"topic": 12}, candidates=1)
    assert quota.accepted > 0


def test_a_seed_that_gives_nothing_new_is_exhausted_and_named(go: Any) -> None:
    def dull(request: Request) -> str:
        if request.prompt.startswith("rewrite") and "Seed: Where is my parcel?" in request.messages[-1].content:
            return json.dumps(["where is my parcel now that I have waited for it since the week before the last one"] * 4)
        return teacher(0.0, 0.0)(request)

    _, quota = go(dull, mix={"seed": 40}, candidates=6, diversity={"items": 2, "repeats": 0.5})
    assert [(seed.topic, seed.seed) for seed in quota.exhausted] == [("parcels/late", "Where is my parcel?")]
    assert quota.short == ()
    assert "Exhausted: the seed 'Where is my parcel?'" in render(quota)


def test_a_cell_whose_seeds_are_all_exhausted_is_short(go: Any) -> None:
    same = json.dumps(["where is my parcel now that I have waited for it since the week before the last one"] * 4)
    script = teacher(0.0, 0.0)
    _, quota = go(
        lambda r: same if r.prompt.startswith("rewrite") else script(r),
        mix={"seed": 40},
        candidates=9,
        diversity={"items": 1, "repeats": 0.5},
    )
    assert {entry.why for entry in quota.short} == {"its 1 seeds are exhausted", "its 2 seeds are exhausted"}


def test_inputs_near_their_seed_or_a_sibling_are_asked_for_again(go: Any, store: Store) -> None:
    bounds = {"too_near_seed": {"seed": 0.6, "sibling": 0.6}}
    _, quota = go(teacher(0.0, 0.3), mix={"seed": 20}, filters=bounds, candidates=6)
    assert quota.accepted == 20
    assert store.query("SELECT count(*) AS n FROM verdicts WHERE decided_by = 'filter:too_near_seed'")[0]["n"] > 20


def test_rounds_and_curate_agree_when_a_later_row_takes_the_place_of_two(go: Any, store: Store) -> None:
    _, quota = go(teacher(0.2, 0.5), candidates=9)
    assert quota.short == ()
    assert accepted(store).total() == 24


RECIPE = """
name: quotas
taxonomy: {root}/taxonomies/banking_support.yaml
seed: 3
teachers: {{teacher: {{model: offline/banking, params: {{faults: {{wrong_label: 0.2, invalid_json: 0.1, near_duplicate: 0.1}}}}}}}}
mix: {{topic: 40, seed: 16}}
quota: {{candidates: {candidates}, min_per_topic: 2}}
judge: false
"""
ROOT = Path(__file__).parents[2]


def command(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return int(exit_.value.code or 0)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)

    def write(candidates: float = 4, **changes: str) -> str:
        text = RECIPE.format(root=ROOT, candidates=candidates)
        for old, new in changes.items():
            text += f"{old}: {new}\n"
        Path("r.yaml").write_text(text)
        return "r.yaml"

    return write


def test_the_command_fills_its_quota_and_coverage_shows_it(recipe: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe()
    assert command("plan", "--recipe", path, "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["rows"] == 56
    assert planned["most_inputs"] >= 4 * 56
    assert command("plan", "--recipe", path) == 0
    assert "rows to be accepted" in capsys.readouterr().out
    assert command("generate", "--recipe", path, "--json") == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (report["quota"]["accepted"], report["quota"]["short"]) == (56, [])
    assert "warning: mix.adversarial is 0%" in captured.err
    assert "Round 2:" in captured.err
    assert command("curate", "--recipe", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["accepted"] == 56
    assert command("curate", "--new", "--recipe", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["accepted"] == 56
    assert command("coverage", "--recipe", path, "--json") == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["target"], seen["accepted"], seen["fit"]["p"]) == (56, 56, 1.0)
    assert {row["dimension"] for row in seen["dimensions"]} == {"channel", "persona", "complexity", "difficulty"}
    assert command("coverage", "--recipe", path) == 0
    assert "Every cell has its rows." in capsys.readouterr().out


def test_a_short_cell_is_exit_1_and_is_named_at_the_end_in_json_and_in_the_report(recipe: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(candidates=1)
    assert command("generate", "--recipe", path) == 1
    assert "Short: " in capsys.readouterr().err
    assert command("generate", "--recipe", path, "--json") == 1
    short = json.loads(capsys.readouterr().out)["quota"]["short"]
    assert short
    assert all(entry["reasons"] for entry in short)
    for verb in ("report", "coverage"):
        assert command(verb, "--recipe", path) == 0
        assert "Short: " in capsys.readouterr().out
        assert command(verb, "--recipe", path, "--json") == 0
        assert len(json.loads(capsys.readouterr().out)["short"]) == len(short)


def test_a_recipe_without_a_quota_again_counts_inputs(recipe: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("generate", "--recipe", recipe(), "--quiet") == 0
    text = "\n".join(line for line in Path("r.yaml").read_text().splitlines() if not line.startswith("quota"))
    Path("r.yaml").write_text(text)
    command("generate", "--recipe", "r.yaml", "--quiet")
    assert Store(Path("data/quotas.duckdb")).targets() == {}
    capsys.readouterr()
    assert command("coverage", "--recipe", "r.yaml", "--json") == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["target"], seen["quota"]) == (56, False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("candidates: 4", "candidates: 0.5", "quota.candidates is 0.5"),
        ("min_per_topic: 2", "min_per_topic: 200", "takes 3,200 rows for 16 topics, but mix has 56. Lower it to 3"),
        ("min_per_topic: 2", "min_per_topic: -1", "quota.min_per_topic is -1"),
        ("min_per_topic: 2", "min_per_topics: 2", "Did you mean 'min_per_topic'?"),
        ("min_per_topic: 2", "rows: 1", "quota.rows is 1, but mix names 2 generators"),
        ("judge: false", "design: cover", "design is 'cover'"),
        ("judge: false", "filters: {too_near_seed: {seed: 0.2}}", "give a similarity from 0.5 to 1, or 0 for no bound"),
    ],
)
def test_a_wrong_quota_is_one_line_and_exit_2(recipe: Any, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str) -> None:
    path = Path(recipe())
    path.write_text(path.read_text().replace(old, new))
    assert command("generate", "--recipe", path, "--quiet") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_rows_in_all_are_shared_by_the_mix(recipe: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(recipe())
    path.write_text(path.read_text().replace("min_per_topic: 2", "rows: 70"))
    assert command("plan", "--recipe", path, "--json") == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert Counter({"topic": 50, "seed": 20}) == sum((Counter({cell["generator"]: cell["inputs"]}) for cell in cells), Counter())


def test_conversations_that_end_early_are_asked_for_until_their_cells_are_full(go: Any, store: Store) -> None:
    def script(request: Request) -> str:
        turn = int(request.sample.split("/")[-2])
        if request.prompt.startswith("write_turn"):
            done = turn > 0 and random.Random(request.item_id).random() < 0.6
            return json.dumps({"done": done, "message": "" if done else json.loads(written(request))[turn]})
        label = request.item_id.split("/")[-1].split(":")[0].replace("rest", "other")
        return json.dumps({"intent": label, "entities": {}, "decision": "wait"})

    _, quota = go(script, mix={"conversation": 24}, candidates=6.0)
    assert (quota.short, quota.accepted, accepted(store).total()) == ((), 24, 24)
    assert quota.rounds > 1
    assert go(script, mix={"conversation": 24}, candidates=6.0)[0].report.calls == 0


def test_the_cells_of_documents_take_their_passages_in_turn(shop: Taxonomy) -> None:
    paths = [topic.path for topic in shop.leaves()][:2]
    given = [
        Passage(id=content_hash([path, n]), source=f"{path}.md", section="", text=f"Rule {n} of {path}.")
        for path in paths
        for n in range(3)
    ]
    planner = Planner(shop, seed=1, seeds={}, replace_seeds=False, passages=given)
    assert {cell.topic for cell in planner.cells({"grounded": 12})} == set(paths)
    items = [planner.item(paths[0], "grounded", number, 2) for number in range(6)]
    assert [item.passage.id for item in items[:3] if item.passage] == [item.passage.id for item in items[3:] if item.passage]
    assert len({item.passage.id for item in items if item.passage}) == 3
    assert len({item.id for item in items}) == 6
    plan = make_plan(shop, {"grounded": 24}, per_call=2, seed=1, seeds={}, replace_seeds=False, passages=given)
    assert {item.id for item in items} & {item.id for item in plan}, "with and without a quota the same questions have the same ids"


def test_rows_from_documents_can_be_counted(go: Any, store: Store, shop: Taxonomy) -> None:
    path = shop.leaves()[0].path
    text = "Books are lent for three weeks. A lost book costs its price and five pounds. Children pay nothing."
    given = [Passage(id=content_hash(n), source=f"{path}.md", section="", text=f"Rule {n}: {text}") for n in range(3)]

    def script(request: Request) -> str:
        if request.prompt.startswith("write_questions"):
            return json.dumps([" ".join(random.Random(f"{request.id}/{n}").choices(WORDS, k=12)) for n in range(4)])
        wrong = random.Random(request.id).random() < 0.3
        return json.dumps({"answer": "For three weeks.", "quote": "for four weeks" if wrong else "lent for three weeks"})

    _, quota = go(script, mix={"grounded": 12}, passages=given, free=True, filters={"language": {"min_stop_word_share": 0.0}})
    assert (quota.short, quota.accepted) == ((), 12)
    assert quota.rounds > 1
