"""One example from the store's side: calls, cost, verdicts, exports and runs, and what is said when it is not clear which is meant."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datagen import cli
from datagen.curate import curate
from datagen.errors import ConfigError
from datagen.export import export
from datagen.records import Message, Request, Response, Verdict
from datagen.review import Decision, apply
from datagen.store import Store
from datagen.terms import standing
from datagen.trace import lines, trace
from tests.datagen.conftest import NAMES

WORDS = NAMES[:16]


@pytest.fixture
def bank(bank_store: Any, bank_example: Any, bank_context: Any, bank_task: Any, tmp_path: Path) -> tuple[Store, list[Any], Path]:
    """A curated store of 24 answered examples, the first of them edited by ana, and its export in data/bank."""
    calls = []
    examples = []
    for i in range(24):
        text = "Where is the card for " + " ".join(WORDS[(i * step + i // 5) % len(WORDS)] for step in (1, 3, 7, 9, 11))
        item = f"cards/arrival:topic:{i}"
        request = Request(
            item_id=item, prompt="answer@3f2a91c4", role="teacher", model="acme/large", messages=(Message(role="user", content=text),),
            params={}, sample=f"{item}/0/0",
        )  # fmt: skip
        calls.append(request)
        examples.append(bank_example(text, item_id=item, calls=(request.id,)))
    store = bank_store(examples)
    with store.writing():
        for request in calls:
            store.add_call(request, Response(request_id=request.id, text="{}", prompt_tokens=100, completion_tokens=20, cost_usd=0.004))
    answer = json.dumps({"intent": "card_arrival", "urgency": "normal", "entities": {"when": "amber"}})
    edited = Decision(example_id=examples[0].id, action="edit", new_completion=answer)
    apply(store, "ana", [edited, Decision(example_id=examples[1].id, action="accept", reason="good")], bank_task)
    curate(store, replace(bank_context, evaluation_sets=()))
    folder = tmp_path / "data/bank"
    export(
        store, folder, recipe={"name": "bank"}, recipe_sha256="0" * 64, taxonomy={"name": "bank", "path": "b.yaml", "sha256": "1" * 64},
        task=bank_task, labels=bank_context.labels, seed=7, evaluation_sets=(), split={"validation": 0, "test": 0}, reasoning="none",
        teachers=[standing("teacher", "offline/bank", (), {}).model_dump(mode="json")], created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    return store, examples, folder


def test_the_export_names_the_calls_cost_verdicts_and_reviewer_of_every_row(bank: tuple[Store, list[Any], Path]) -> None:
    store, examples, folder = bank
    rows = store.query("SELECT * FROM read_parquet(?) ORDER BY id", [str(folder / "provenance.parquet")])
    accepted = {example.id for example in store.accepted_examples()}
    assert {row["id"] for row in rows} == accepted
    assert len(rows) == 24, "the edited example stands for the one that was edited"
    for row in rows:
        assert row["teacher"] == "acme/large"
        assert row["prompt_hash"] == "answer@3f2a91c4"
        assert [(call["role"], call["model"]) for call in row["asked"]] == [("teacher", "acme/large")]
        assert row["verdicts"]
    by_id = {row["id"]: row for row in rows}
    assert by_id[examples[1].id]["reviewer"] == "human:ana"
    assert by_id[examples[1].id]["cost_usd"] == by_id[examples[1].id]["asked"][0]["cost_usd"] == 0.004
    (child,) = [row for row in rows if row["parent"] == examples[0].id]
    assert child["cost_usd"] == 0.002, "the call is shared with the example that was edited"


def test_an_example_is_followed_to_calls_exports_and_runs(bank: tuple[Store, list[Any], Path], tmp_path: Path) -> None:
    store, examples, folder = bank
    run = tmp_path / "runs/one"
    run.mkdir(parents=True)
    select = "SELECT id, 'sft/train.parquet' AS file, 'sft' AS stage, 'trained' AS use, 3.0::DOUBLE AS epochs, NULL::VARCHAR AS dropped FROM accepted"
    store.copy(select, run / "provenance.parquet", "parquet")
    (run / "provenance.json").write_text(json.dumps({"manifest": {"sha256": "abc"}}))
    found = trace(store, examples[1].id[:10], data=folder.parent, runs=tmp_path / "runs")
    said = "\n".join(lines(found))
    for words in (
        examples[1].id,
        "acme/large, prompt answer@3f2a91c4, 100 + 20 tokens, $0.004000",
        "human:ana: keep, good",
        "kept by human:ana",
        str(folder),
        "3 epochs",
        str(run),
    ):
        assert words in said
    parent = trace(store, examples[0].id, data=folder.parent, runs=tmp_path / "runs")
    assert "edited    into" in "\n".join(lines(parent))
    assert parent["runs"] == parent["exports"] == []
    (run / "provenance.json").write_text("{")
    with pytest.raises(ConfigError, match="is not a run's provenance"):
        trace(store, examples[1].id, data=folder.parent, runs=tmp_path / "runs")


def test_what_is_meant_must_be_clear(bank: tuple[Store, list[Any], Path], tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    store, examples, folder = bank
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> int:
        with pytest.raises(SystemExit) as error:
            cli.main(["trace", *arguments, "--store", str(store.path), "--data", str(folder.parent)])
        return int(error.value.code or 0)

    assert call("Where is the card for") == 2
    assert "is in several examples" in capsys.readouterr().err
    assert call("no such words") == 2
    assert "no example has the id" in capsys.readouterr().err
    assert call(examples[2].input) == 0
    assert "trained   in no run that was looked at" in capsys.readouterr().out
    assert call(examples[2].id, "--json") == 0
    assert json.loads(capsys.readouterr().out)["calls"][0]["model"] == "acme/large"


def test_an_example_that_the_plan_does_not_stand_for_is_told(
    bank: tuple[Store, list[Any], Path], tmp_path: Path, bank_example: Callable[..., Any]
) -> None:
    store, _, _ = bank
    stray = bank_example("An old question that nobody plans any more?", item_id="cards/arrival:topic:99")
    with store.writing():
        store.add_examples([stray])
        store.add_verdicts([Verdict(example_id=stray.id, by="filter:length", keep=False, reason="length: too short")])
    said = "\n".join(lines(trace(store, stray.id, data=tmp_path, runs=tmp_path)))
    assert "decision  none" in said
    assert "filter:length: drop, length: too short" in said
    assert "in no data set" in said
