"""The dataset card: the Hub's metadata, what it says of the rows, text that cannot break it, and a folder that loads as it says."""

from dataclasses import replace

import pytest
import yaml

from datagen.card import card
from datagen.curate import curate
from datagen.export import export
from datagen.terms import standing

PLACES = [f"{a}{b}" for a in ("amber", "birch", "cedar", "dune", "ember") for b in ("grove", "heath", "inlet", "march")]


@pytest.fixture
def exported(bank_store, bank_example, bank_context, bank_task, exam, tmp_path):
    """An export of 60 rows and 20 pairs: its folder and manifest."""
    examples = []
    for i in range(60):
        text = "Where is the card for " + " ".join(PLACES[(i * step + i // 5) % len(PLACES)] for step in (1, 3, 7, 9, 11))
        examples.append(bank_example(text, item_id=f"cards/arrival:topic:{i}"))
        if i < 20:
            fields = {"generator": "preference", "rejected": '{"intent":"refund"}', "scores": {"chosen_margin": 1.0}}
            examples.append(bank_example(text, item_id=f"cards/arrival:preference:{i}", **fields))
    sets = (exam("What is the capital of France?", name="geo", labels=("out_of_scope",)),)
    store = bank_store(examples)
    curate(store, replace(bank_context, evaluation_sets=sets))
    manifest = export(
        store, tmp_path / "out", recipe={"name": "bank: \"of\" 'all'"}, recipe_sha256="0" * 64,
        taxonomy={"name": "bank", "path": "bank.yaml", "sha256": "1" * 64}, task=bank_task, labels=bank_context.labels, seed=7,
        teachers=[standing("teacher", "offline/bank", None, {}).model_dump(mode="json")], evaluation_sets=sets,
        split={"validation": 0.1, "test": 0.1}, reasoning="none", created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    return tmp_path / "out", manifest


def metadata(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_metadata_is_yaml_with_the_hubs_names(exported) -> None:
    folder, _ = exported
    found = metadata((folder / "README.md").read_text())
    assert found["pretty_name"] == "bank: \"of\" 'all'"
    assert (found["language"], found["license"], found["task_categories"]) == (["en"], "other", ["text-generation"])
    assert found["tags"] == ["synthetic", "distillation", "simulated-teacher"]
    assert [(config["config_name"], config.get("default")) for config in found["configs"]] == [("sft", True), ("preference", None)]
    assert found["size_categories"] == ["n<1K"]


def test_the_folder_loads_as_the_card_says(exported, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    folder, manifest = exported
    for kind in ("sft", "preference"):
        loaded = datasets.load_dataset(str(folder), kind, cache_dir=str(tmp_path / "cache"))
        assert {split: rows.num_rows for split, rows in loaded.items()} == {
            split: manifest["files"][f"{kind}/{split}.parquet"]["rows"] for split in ("train", "validation", "test")
        }
    assert datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"].column_names[:2] == ["prompt", "completion"]


def test_the_card_counts_rows_by_split_generator_and_topic(exported) -> None:
    folder, manifest = exported
    text = (folder / "README.md").read_text()
    for row in manifest["data"]["splits"]:
        assert f"| {row['name']} | {row['train']} | {row['validation']} | {row['test']} |" in text
    assert {row["part"] for row in manifest["data"]["splits"]} == {"generator", "topic"}
    assert (
        sum(row["train"] for row in manifest["data"]["splits"] if row["part"] == "topic") == manifest["files"]["sft/train.parquet"]["rows"]
    )


def test_the_card_has_every_section(exported) -> None:
    text = (exported[0] / "README.md").read_text()
    for heading in (
        "How to load", "Rows", "Columns", "How it was made", "What was dropped, and why", "Decontamination", "Diversity", "Cost",
        "Review by people", "Licence", "Limits", "How to reproduce",
    ):  # fmt: skip
        assert f"\n## {heading}\n" in text


def test_a_sound_card_says_who_taught_and_that_the_teacher_was_simulated(exported) -> None:
    text = (exported[0] / "README.md").read_text()
    assert "**The teacher was simulated**" in text
    assert "| teacher | offline/bank | yes | yes |" in text
    assert "| geo | 1 | 0 |" in text
    assert "distinct-2" in text


def test_what_markdown_would_obey_is_escaped(exported, bank_task) -> None:
    _, manifest = exported
    evil = "a|b <script>alert(1)</script>\n# heading [x](javascript:y)"
    data = {**manifest["data"], "reasons": [{"by": "human:ana", "reason": evil, "count": 3}]}
    sample = {"prompt": "``` ends the fence\n# no heading\n````", "completion": "x" * 9000}
    text = card({**manifest, "name": "two\nlines", "data": data}, bank_task, sample)
    assert r"| human:ana | a\|b &lt;script>alert(1)&lt;/script> # heading \[x\](javascript:y) | 3 |" in text
    assert "\n`````json\n" in text
    assert " ...\n`````\n" in text
    assert metadata(text)["pretty_name"] == "two\nlines"
    assert "\n# two lines\n" in text


def test_a_person_who_decided_on_terms_is_named_with_the_licence(exported, bank_task) -> None:
    _, manifest = exported
    decided = {**manifest["teachers"][0], "decision": {"by": "Ana", "decision": "our contract allows it"}}
    text = card({**manifest, "teachers": [decided]}, bank_task)
    assert "Ana: our contract allows it" in text
    assert "The terms of offline/bank did not settle it" in text
