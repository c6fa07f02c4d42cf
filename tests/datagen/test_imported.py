"""A user's own rows become a data set: every known form is read, nothing is left out in silence, and the gate looks at them."""

import json

import duckdb
import pytest

from datagen.cli import app
from datagen.config import TermsDecision
from datagen.errors import ConfigError
from datagen.imported import exam_of, import_rows, read_rows, task_of
from tests.datagen.conftest import NAMES

WORDS = NAMES[:20]
ANA = TermsDecision(decision="our own support team wrote them", by="ana")


def ask(i):
    return "Where is " + " ".join(WORDS[(i * step + i // 5) % 20] for step in (1, 3, 7, 9)) + "?"


@pytest.fixture
def write(tmp_path):
    def lines(*records, name="mine.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    return lines


@pytest.fixture
def bring(tmp_path):
    def run(path, kind="generation", exams=(), decision=ANA, **shape):
        rows = read_rows([path], system="Answer.", label_field=shape.get("label_field"))
        task = task_of(rows, kind, **shape)
        return import_rows(
            rows, tmp_path / "out", name="mine", task=task, exams=exams, decision=decision, sources=[path], created="2026-01-01T00:00:00Z"
        )

    return run


def read(folder, kind):
    with duckdb.connect() as con:
        result = con.execute("SELECT * FROM read_parquet(?) ORDER BY id", [f"{folder}/{kind}/*.parquet"])
        names = [column[0] for column in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


@pytest.mark.parametrize(
    "form",
    [
        lambda q, a: {"prompt": q, "completion": a},
        lambda q, a: {"prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": a}]},
        lambda q, a: {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]},
        lambda q, a: {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
        lambda q, a: {"instruction": q, "input": "", "output": a},
    ],
    ids=["texts", "prompt-completion", "messages", "sharegpt", "instruction"],
)
def test_every_form_gives_the_same_rows(form, write):
    rows = read_rows([write(form("Where?", "Here."))], system="Answer.")
    assert [[(m.role, m.content) for m in row.prompt] for row in rows] == [[("system", "Answer."), ("user", "Where?")]]
    assert [(row.completion, row.rejected, row.accepted) for row in rows] == [("Here.", None, True)]


def test_an_instruction_and_its_input_are_one_message(write):
    (row,) = read_rows([write({"instruction": "Translate.", "input": "Good day", "output": "Guten Tag"})], system=None)
    assert [message.content for message in row.prompt] == ["Translate.\n\nGood day"]


def test_pairs_and_verdicts_go_where_dpo_and_kto_read_them(write, bring, tmp_path):
    pairs = [{"prompt": ask(i), "chosen": "good", "rejected": "bad"} for i in range(30)]
    bring(write(*pairs))
    assert {row["rejected"][0]["content"] for row in read(tmp_path / "out", "preference")} == {"bad"}
    verdicts = [{"prompt": ask(i), "completion": f"said {i}", "label": i % 2 == 0} for i in range(40)]
    report = bring(write(*verdicts))
    rows = read(tmp_path / "out", "unpaired")
    assert all((int(row["completion"][0]["content"].split()[1]) % 2 == 0) is row["label"] for row in rows)
    assert report.manifest["data"]["unpaired"]["rejected"] == sum(not row["label"] for row in rows) > 10
    assert {int(row["completion"][0]["content"].split()[1]) % 2 for row in read(tmp_path / "out", "sft")} == {0}


def test_what_is_left_out_is_counted_with_its_reason(write, bring, tmp_path):
    exam = exam_of(f"real={write({'text': ask(3), 'intent': 'x'}, name='exam.jsonl')}")
    rows = [{"prompt": ask(i), "completion": f"Answer {i}."} for i in range(40)]
    extra = [rows[0], {"prompt": ask(41), "completion": " "}, {"prompt": ask(42), "chosen": "a", "rejected": "a "}]
    report = bring(write(*rows, *extra), exams=[exam])
    assert report.rows == 43
    assert report.left_out == {"came before": 1, "empty answer": 1, "chosen and rejected are the same": 1, "in an evaluation set": 1}
    assert len(read(tmp_path / "out", "sft")) == 39
    assert report.manifest["decontamination"]["sets"][0]["dropped"] == 1
    assert "evaluation/real.parquet" in report.manifest["files"]


def test_answers_that_are_data_have_labels_and_a_schema(write, bring):
    path = write(*({"prompt": ask(i), "completion": json.dumps({"colour": WORDS[i % 3]})} for i in range(40)))
    task = bring(path, "classification", label_field="colour").manifest["task"]
    assert (task["output"], task["output_schema"], task["label_field"]) == ("json", {"type": "object"}, "colour")
    assert sorted(task["labels"]) == sorted(WORDS[:3])


def test_rows_without_an_owner_are_refused(write, bring):
    with pytest.raises(ConfigError, match="Say why they may train a model by --terms"):
        bring(write({"prompt": "a", "completion": "b"}), decision=None)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"question": "a"}, "has question, which is none of the known forms"),
        ({"messages": [{"role": "user", "content": "a"}]}, "there is no answer to learn"),
        ({"messages": [{"role": role, "content": "a"} for role in ("user", "system", "assistant")]}, "roles user, system"),
        ({"messages": [{"role": "tool", "content": "a"}, {"role": "assistant", "content": "b"}]}, "none of the known forms"),
        ({"prompt": [], "completion": "b"}, "roles none"),
        ([1], "is a JSON list"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(record, said, write):
    with pytest.raises(ConfigError, match=rf"mine\.jsonl:2: .*{said}"):
        read_rows([write({"prompt": "a", "completion": "b"}, record)], system=None)


def test_a_file_that_is_no_schema_a_type_that_is_none_and_text_for_data_are_refused(write, tmp_path):
    rows = read_rows([write({"prompt": "a", "completion": "b"})], system=None)
    with pytest.raises(ConfigError, match="--type chat: is none of classification"):
        task_of(rows, "chat")
    with pytest.raises(ConfigError, match=r"mine\.jsonl:1: the answer 'b' is no JSON object"):
        task_of(rows, "extraction", label_field="x")
    with pytest.raises(ConfigError, match="is no JSON object"):
        task_of(rows, "extraction", schema=write([1], name="schema.json"))
    with pytest.raises(ConfigError, match="cannot be read"):
        task_of(rows, "extraction", schema=tmp_path / "none.json")


def test_the_data_set_of_a_recipe_is_not_written_over(write, bring, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.json").write_text('{"recipe": {"name": "bank"}}')
    with pytest.raises(ConfigError, match="holds the data set of a recipe"):
        bring(write({"prompt": "a", "completion": "b"}))


def test_the_command_says_what_it_made_and_what_comes_next(write, tmp_path, capsys):
    path = write(*({"prompt": ask(i), "completion": f"Answer {i}."} for i in range(40)))
    app(["import", str(path), "--out", str(tmp_path / "made"), "--terms", "ours"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "40 rows read" in said
    assert "Checked against no evaluation set" in said
    assert "python -m train run --data" in said
    card = (tmp_path / "made/README.md").read_text()
    assert "imported from `mine.jsonl`" in card
    assert "ynthetic" not in card.partition("## How to load")[0]
    app(["import", str(path), "--out", str(tmp_path / "made"), "--terms", "ours", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["rows"] == 40
