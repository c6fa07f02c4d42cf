"""Export: what is in the files, what is refused, and that the same store gives the same bytes."""

import hashlib
import json
import re
from dataclasses import replace

import duckdb
import pytest

from datagen.curate import curate
from datagen.errors import ConfigError
from datagen.export import export
from datagen.records import Message, Request, Response, Verdict
from datagen.review import Decision, apply
from datagen.terms import standing

PLACES = "amber birch cedar dune ember fjord grove heath inlet jetty knoll larch marsh north ocean plain quarry ridge stone tide"
WORDS = PLACES.split()
STEPS = "The message asks for card_arrival.\nR5: urgency normal."


@pytest.fixture
def bank(bank_store, bank_example, bank_context, bank_task, exam):
    """A curated store of 60 different examples and 20 pairs, and what an export of it is told."""

    def build(count: int = 60, sets=(), spoil=False):
        examples = []
        for i in range(count):
            text = "Where is the card for " + " ".join(WORDS[(i * step + i // 5) % len(WORDS)] for step in (1, 3, 7, 9, 11))
            fields = {"completion": "{"} if spoil else {}
            examples.append(bank_example(text, item_id=f"cards/arrival:topic:{i}", reasoning=STEPS if i % 2 else None, **fields))
            if i < count // 3:
                fields = {"generator": "preference", "rejected": '{"intent":"refund"}', "scores": {"chosen_margin": 1.0}, **fields}
                examples.append(bank_example(text, item_id=f"cards/arrival:preference:{i}", **fields))
        store = bank_store(examples)
        curate(store, replace(bank_context, evaluation_sets=tuple(sets)))
        given = {
            "recipe": {"name": "bank"}, "recipe_sha256": "0" * 64, "taxonomy": {"name": "bank", "path": "bank.yaml", "sha256": "1" * 64},
            "task": bank_task, "labels": bank_context.labels, "seed": 7, "evaluation_sets": tuple(sets),
            "teachers": [standing("teacher", "offline/bank", (), {}).model_dump(mode="json")],
            "split": {"validation": 0.1, "test": 0.1}, "reasoning": "none", "created": "2026-01-01T00:00:00+00:00",
        }  # fmt: skip
        return store, given

    return build


def read(path):
    with duckdb.connect() as con:
        result = con.execute("SELECT * FROM read_parquet(?)", [str(path)])
        names = [column[0] for column in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def bytes_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_parquet_files_have_trls_columns_and_every_accepted_row_once(bank, tmp_path):
    store, given = bank()
    manifest = export(store, tmp_path / "out", **given)
    sft = [row for part in ("train", "validation", "test") for row in read(tmp_path / "out" / "sft" / f"{part}.parquet")]
    assert {row["id"] for row in sft} == {e.id for e in store.accepted_examples()}
    counted = sum(manifest["files"][f"sft/{part}.parquet"]["rows"] for part in ("train", "validation", "test"))
    assert len(sft) == len({row["id"] for row in sft}) == counted
    assert list(sft[0]) == ["prompt", "completion", "id", "group_id", "topic", "generator", "label", "kind", "dimensions"]
    assert [message["role"] for message in sft[0]["prompt"] + sft[0]["completion"]] == ["system", "user", "assistant"]
    pairs = read(tmp_path / "out" / "preference" / "train.parquet")
    assert list(pairs[0])[:3] == ["prompt", "chosen", "rejected"]
    assert pairs[0]["rejected"] == [{"role": "assistant", "content": '{"intent":"refund"}'}]


def test_a_group_lies_in_one_split(bank, tmp_path):
    store, given = bank()
    export(store, tmp_path / "out", **given)
    seen: dict[str, set] = {}
    for kind in ("sft", "preference"):
        for part in ("train", "validation", "test"):
            for row in read(tmp_path / "out" / kind / f"{part}.parquet"):
                seen.setdefault(row["group_id"], set()).add(part)
    assert len(seen) > 30
    assert all(len(parts) == 1 for parts in seen.values())


def test_the_manifest_gives_each_files_rows_and_hash_and_the_facts_of_the_task(bank, tmp_path, exam):
    store, given = bank(sets=[exam("What is the capital of France?", name="geo", labels=("out_of_scope",))])
    manifest = export(store, tmp_path / "out", **given)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == entry["sha256"]
    assert manifest["task"]["output"] == "json"
    assert manifest["task"]["labels"] == ["card_arrival", "lost_card", "refund", "out_of_scope"]
    checked = {"name": "geo", "rows": 1, "dropped": 0, "rows_hit": {}, "named": True, "sha256": f"{1:064x}"}
    assert manifest["decontamination"] == {"passed": True, "sets": [checked], "retired": {}}
    data = manifest["data"]
    assert data["examples"] == data["accepted"] + data["rejected"]
    topic = data["topics"][0]
    assert topic["topic"] == "cards/arrival"
    assert topic["low"] < topic["accepted"] / topic["examples"] <= topic["high"]
    assert data["review"] is None


def apart(content, rendered):
    """Reasoning and answer of a rendered completion, as a reader takes them apart."""
    if rendered == "think":
        found = re.fullmatch(r"<think>\n(.*)\n</think>\n(.*)", content, re.DOTALL)
        return (found.group(1), found.group(2)) if found else (None, content)
    steps, newline, answer = content.rpartition("\n")  # an answer in JSON is one line
    return (steps if newline else None), answer


@pytest.mark.parametrize(
    ("reasoning", "begins"),
    [("none", '{"intent"'), ("think", f'<think>\n{STEPS}\n</think>\n{{"intent"'), ("plain", f'{STEPS}\n{{"intent"')],
)
def test_reasoning_is_rendered_as_the_recipe_says_and_pairs_stay_bare(reasoning, begins, bank, tmp_path):
    store, given = bank()
    export(store, tmp_path / "out", **{**given, "reasoning": reasoning})
    stepped = {e.id: e.reasoning for e in store.accepted_examples() if e.reasoning}
    completions = {e.id: e.completion for e in store.accepted_examples()}
    rows = {row["id"]: row["completion"][0]["content"] for row in read(tmp_path / "out" / "sft" / "train.parquet")}
    assert any(id in stepped for id in rows)
    for id, content in rows.items():
        assert content.startswith(begins if id in stepped else '{"intent"')
        assert apart(content, reasoning) == ((stepped.get(id) if reasoning != "none" else None), completions[id])
    assert all(row["chosen"][0]["content"].startswith("{") for row in read(tmp_path / "out" / "preference" / "train.parquet"))


def test_jsonl_and_sharegpt_hold_the_same_rows(bank, tmp_path):
    store, given = bank()
    export(store, tmp_path / "out", **given)
    sft = [json.loads(line) for line in (tmp_path / "out" / "sft.jsonl").read_text().splitlines()]
    sharegpt = [json.loads(line) for line in (tmp_path / "out" / "sharegpt.jsonl").read_text().splitlines()]
    assert [row["id"] for row in sft] == [row["id"] for row in sharegpt] == sorted(e.id for e in store.accepted_examples())
    turns = sharegpt[0]["conversations"]
    assert [turn["from"] for turn in turns] == ["system", "human", "gpt"]
    assert turns[2]["value"] == sft[0]["completion"][0]["content"]


def test_an_evaluation_set_has_prompts_and_labels_and_leaves_out_rows_that_cannot_be_scored(bank, tmp_path, exam):
    sets = [exam("Where is it?", "Who are you?", "My it's gone", name="e1", labels=("card_arrival", None, "lost_card"))]
    store, given = bank(sets=sets)
    export(store, tmp_path / "out", **given)
    rows = read(tmp_path / "out" / "evaluation" / "e1.parquet")
    assert [(row["id"], row["label"], row["completion"]) for row in rows] == [("e1:1", "card_arrival", None), ("e1:3", "lost_card", None)]
    assert rows[1]["prompt"][1] == {"role": "user", "content": "My it's gone"}


def test_the_same_store_gives_the_same_bytes(bank, tmp_path):
    store, given = bank()
    export(store, tmp_path / "one", **given)
    export(store, tmp_path / "two", **given)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_files_of_an_earlier_export_go_and_foreign_ones_stay(bank, tmp_path, exam, bank_context):
    store, given = bank(sets=[exam("Who are you?", name="old", labels=("out_of_scope",))])
    out = tmp_path / "out"
    export(store, out, **given)
    (out / "notes.txt").write_text("mine")
    curate(store, bank_context)
    export(store, out, **{**given, "evaluation_sets": ()})
    assert not (out / "evaluation" / "old.parquet").exists()
    assert (out / "notes.txt").read_text() == "mine"


def test_a_manifest_cannot_make_an_export_remove_files_elsewhere(bank, tmp_path):
    store, given = bank()
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious").write_text("x")
    (out / "manifest.json").write_text('{"files": {"../precious": {}}}')
    export(store, out, **given)
    assert (tmp_path / "precious").exists()


def test_an_export_that_breaks_off_leaves_no_manifest(bank, tmp_path):
    store, given = bank()
    out = tmp_path / "out"
    export(store, out, **given)
    (out / "sharegpt.jsonl").unlink()
    (out / "sharegpt.jsonl").mkdir()
    with pytest.raises(Exception, match="sharegpt"):
        export(store, out, **given)
    assert not (out / "manifest.json").exists()


def test_nothing_accepted_is_refused_with_the_reasons(bank, tmp_path):
    store, given = bank(count=3, spoil=True)
    with pytest.raises(ConfigError, match=r"no example was accepted.*invalid_json \(4\)"):
        export(store, tmp_path / "out", **given)


def test_an_empty_split_is_refused_unless_it_was_asked_for(bank, tmp_path):
    store, given = bank(count=1)
    store.set_settings({"split.test": "0", "split.validation": "0"})
    with pytest.raises(ConfigError, match="the validation split is empty"):
        export(store, tmp_path / "out", **given)
    manifest = export(store, tmp_path / "out", **{**given, "split": {"validation": 0.0, "test": 0.0}})
    assert manifest["files"]["sft/test.parquet"]["rows"] == 0


def test_rows_that_the_gate_has_not_seen_are_refused(bank, tmp_path, exam):
    store, given = bank()
    with pytest.raises(ConfigError, match=r"were not checked against.*Run `python -m datagen curate`"):
        export(store, tmp_path / "out", **{**given, "evaluation_sets": (exam("new one"),)})
    first = store.accepted_examples()[0]
    apply(store, "ana", [Decision(example_id=first.id, action="edit", new_input="My card?")], given["task"])
    with pytest.raises(ConfigError, match=r" 1 of \d+ accepted examples were not checked"):
        export(store, tmp_path / "out", **given)


def test_a_person_cannot_accept_an_exam_into_the_export(bank, tmp_path, exam, bank_context):
    store, given = bank()
    taken = store.accepted_examples()[0]
    sets = (exam(taken.input),)
    store.add_verdicts([Verdict(example_id=taken.id, by="human:ana", keep=True)])
    curate(store, replace(bank_context, evaluation_sets=sets))
    with pytest.raises(ConfigError, match=rf"a person accepted are in an evaluation set, such as {taken.id} .*exam row 1"):
        export(store, tmp_path / "out", **{**given, "evaluation_sets": sets})


def test_the_card_says_what_the_data_is_and_is_not(bank, tmp_path, exam):
    store, given = bank(sets=[exam("Who are you?", name="geo", labels=("out_of_scope",))])
    first = store.accepted_examples()[0]
    apply(store, "ana", [Decision(example_id=first.id, action="reject", reason="odd")], given["task"])
    manifest = export(store, tmp_path / "out", **given)
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\n")
    for part in ("The teacher was simulated", "offline/bank", "| geo | 1 | 0 |", "- ana: 1 rows, 1 rejected or edited", "## Limits"):
        assert part in card
    assert manifest["data"]["review"]["rates"][0]["reviewer"] == "ana"
    assert "| human:ana | review | 1 |" in card


def test_the_manifest_says_what_an_accepted_row_and_an_answer_cost(bank, tmp_path):
    store, given = bank()
    with store.writing():
        for number, usd in enumerate((0.3, 0.1, 0.2)):
            messages = (Message(role="user", content=f"q{number}"),)
            asked = {"item_id": f"cards/arrival:topic:{number}", "prompt": "answer@1", "role": "teacher", "model": "offline/bank"}
            request = Request(**asked, messages=messages, params={}, sample=str(number))
            told = {"prompt_tokens": 100, "completion_tokens": 20, "latency_s": float(number)}
            store.add_call(request, Response(request_id=request.id, text="{}", cost_usd=usd, **told))
    data = export(store, tmp_path / "out", **given)["data"]
    row = data["per_accepted"]
    assert row["rows"] == data["accepted"]
    assert row["cost_usd"] == pytest.approx(0.6 / data["accepted"])
    assert row["low"] < row["cost_usd"] < row["high"]
    assert row["prompt_tokens"] == pytest.approx(300 / data["accepted"])
    assert data["answering"]["requests"] == 3
    assert data["answering"]["cost_usd"] == pytest.approx(0.6)
    assert data["answering"]["median_s"] == 1.0


def test_rows_carry_the_dimensions_that_were_drawn_for_them(bank_store, bank_example, bank_context, bank, tmp_path):
    _, given = bank()
    examples = [
        bank_example(f"Where is the card {word}?", item_id=f"cards/arrival:topic:{i}", dimensions={"difficulty": "hard"})
        for i, word in enumerate(WORDS)
    ]
    store = bank_store(examples, "dimensions.duckdb")
    curate(store, bank_context)
    export(store, tmp_path / "out", **{**given, "split": {"validation": 0.0, "test": 0.0}})
    assert json.loads(read(tmp_path / "out" / "sft" / "train.parquet")[0]["dimensions"]) == {"difficulty": "hard"}


def test_an_exam_that_the_recipe_dropped_still_guards_the_export(bank, tmp_path, exam, bank_context):
    store, given = bank(sets=[exam("What is the capital of France?", name="geo")])
    curate(store, bank_context)
    manifest = export(store, tmp_path / "out", **{**given, "evaluation_sets": ()})
    assert [(found["name"], found["named"]) for found in manifest["decontamination"]["sets"]] == [("geo", False)]
    assert not any(name.startswith("evaluation/") for name in manifest["files"])
    said = {"geo": {"decision": "its rows are public now", "by": "ana"}}
    with pytest.raises(ConfigError, match="were not checked against the evaluation sets of the recipe and of earlier runs"):
        export(store, tmp_path / "out", **{**given, "evaluation_sets": (), "retired": said})
    curate(store, replace(bank_context, retired=frozenset(said)))
    manifest = export(store, tmp_path / "out", **{**given, "evaluation_sets": (), "retired": said})
    assert manifest["decontamination"] == {"passed": True, "sets": [], "retired": said}
    assert "Retired, and not checked any more: geo, by ana: its rows are public now" in (tmp_path / "out" / "README.md").read_text()


def test_answers_found_wrong_go_out_as_unpaired_rows_beside_the_accepted_ones(bank_store, bank_example, bank_context, bank, exam, tmp_path):
    def text(i):
        return "Where is the card for " + " ".join(WORDS[(i * step + i // 5) % len(WORDS)] for step in (1, 3, 7, 9, 11))

    wrong = {"answer": {"intent": "refund", "urgency": "normal", "entities": {}}}
    harsh = {"scores": {"judge_answer": 2.0, "judge_input": 5.0}}
    vague = {"scores": {"judge_answer": 5.0, "judge_input": 1.0}}
    made = [bank_example(text(i), item_id=f"cards/arrival:topic:{i}") for i in range(40)]
    label, judged, person, edited, unreal, spoilt = (
        bank_example(text(40 + i), item_id=f"cards/arrival:topic:{60 + i}", **fields)
        for i, fields in enumerate((wrong, harsh, {}, {}, vague, {"completion": "{"}))
    )
    twin = bank_example(text(3) + " please", item_id="cards/arrival:topic:65")
    both = bank_example(text(48) + " 4111 1111 1111 1111", item_id="cards/arrival:topic:67", **wrong)
    known = bank_example("Nobody answered my letter about the blue marble table", item_id="cards/arrival:topic:68", **wrong)
    found = [label, judged, person, edited, unreal, twin, spoilt, both, known]
    store = bank_store([*made, *found], name="judged.duckdb")
    sets = (exam("Nobody answered my letter about the blue marble table"),)
    context = replace(bank_context, evaluation_sets=sets)
    curate(store, context)
    said = Decision(example_id=person.id, action="reject", reason="rude")
    better = '{"intent":"card_arrival","urgency":"high","entities":{}}'
    apply(store, "ana", [said, Decision(example_id=edited.id, action="edit", new_completion=better)], context.task)
    curate(store, context)
    given = bank()[1]
    manifest = export(store, tmp_path / "out", **{**given, "evaluation_sets": sets})
    rows = [row for part in ("train", "validation") for row in read(tmp_path / "out" / "unpaired" / f"{part}.parquet")]
    split = {row["id"]: row["split"] for row in store.query("SELECT example_id AS id, split FROM splits")}
    expected = {e.id for e in (label, judged, person, edited) if split[e.id] != "test"}
    assert len(expected) >= 3, "the seed leaves most of them in the learned splits"
    assert {row["id"] for row in rows if not row["label"]} == expected
    accepted = {row["id"] for part in ("train", "validation") for row in read(tmp_path / "out" / "sft" / f"{part}.parquet")}
    assert {row["id"] for row in rows if row["label"]} == accepted
    assert list(rows[0])[:4] == ["prompt", "completion", "label", "reason"]
    assert manifest["data"]["unpaired"]["rejected"] == len(expected)
    assert {row["by"] for row in manifest["data"]["unpaired"]["reasons"]} <= {"a person", "filter:truth", "filter:judge"}
    assert "KTOTrainer" in (tmp_path / "out" / "README.md").read_text()


def test_without_an_answer_found_wrong_there_are_no_unpaired_files(bank, tmp_path):
    store, given = bank()
    manifest = export(store, tmp_path / "out", **given)
    assert not [name for name in manifest["files"] if name.startswith("unpaired/")]
    assert manifest["data"]["unpaired"]["rejected"] == 0
