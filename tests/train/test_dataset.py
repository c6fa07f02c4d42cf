"""Exported data is read as it was written, and refused when it is not what its manifest says."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from train.dataset import Manifest, Row, mix, read_general, read_pairs, read_rows, read_training, take
from train.errors import DataError
from train.evaluate import user_text

PROMPT = [{"role": "user", "content": "hi"}]
ANSWER = [{"role": "assistant", "content": "yes"}]


def row(name: str) -> Row:
    return Row(name, PROMPT, "yes", None, None, None, None)


def test_a_manifest_that_agrees_with_its_files_is_read(export: Path) -> None:
    manifest = Manifest.read(export)
    assert (manifest.name, manifest.task.label_field, manifest.count("sft/train.parquet")) == ("toy", "intent", 48)
    assert manifest.evaluation_sets() == {"real": export / "evaluation/real.parquet"}


def test_rows_come_sorted_by_id_with_their_completion(manifest: Manifest) -> None:
    rows = read_rows(manifest.path("sft/test.parquet"))
    assert [r.id for r in rows] == sorted(r.id for r in rows)
    assert rows[0].completion == '{"intent":"green"}'
    assert [m["role"] for m in rows[0].prompt] == ["system", "user"]


def test_a_row_may_hold_several_turns(tmp_path: Path) -> None:
    turns = [*PROMPT, *ANSWER, {"role": "user", "content": "and now?"}]
    pq.write_table(pa.Table.from_pylist([{"id": "1", "prompt": turns, "completion": ANSWER}]), tmp_path / "x.parquet")
    (found,) = read_rows(tmp_path / "x.parquet")
    assert (found.prompt, found.completion) == (turns, "yes")
    assert user_text(found.prompt) == "hi\nand now?"


def test_an_evaluation_row_may_have_a_label_only(manifest: Manifest) -> None:
    first = read_rows(manifest.path("evaluation/real.parquet"))[0]
    assert (first.completion, first.label) == (None, "green")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no row has a completion"),
        ([{"id": "1", "prompt": PROMPT, "completion": None, "label": "red"}], "no row has a completion"),
        ([{"id": str(i), "prompt": PROMPT, "completion": ANSWER, "label": "red"} for i in range(3)], "all 3 rows have the label 'red'"),
    ],
    ids=["empty", "without completions", "one class"],
)
def test_a_training_split_that_teaches_nothing_is_refused_in_one_line(
    manifest: Manifest, rows: list[dict[str, object]], words: str
) -> None:
    path = manifest.path("sft/train.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=None if rows else pq.read_schema(path)), path)
    with pytest.raises(DataError, match=words) as error:
        read_training(manifest)
    assert "\n" not in str(error.value)


def test_pairs_have_both_sides(manifest: Manifest) -> None:
    first = read_pairs(manifest.path("preference/train.parquet"))[0]
    assert (first.chosen, first.rejected) == ('{"intent":"green"}', '{"intent":"red"}')


def test_a_changed_file_is_refused_by_name(export: Path) -> None:
    with (export / "sft/train.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"sft/train\.parquet: changed since its manifest"):
        Manifest.read(export)


def test_a_missing_file_is_refused_by_name(export: Path) -> None:
    (export / "sft/test.parquet").unlink()
    with pytest.raises(DataError, match=r"sft/test\.parquet: listed in manifest\.json but not there"):
        Manifest.read(export)


def test_missing_data_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="make datagen"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format is 2, this version reads 1"),
        ({"decontamination": {"passed": False}}, r"decontamination\.passed is False"),
        ({"decontamination": {}}, "not a manifest"),
        ({"decontamination": {"passed": True}}, r"holds evaluation/real\.parquet, but decontamination\.sets does not say"),
        ({"decontamination": {"passed": True, "sets": [{"name": "other"}]}}, r"the data was checked against it"),
        ({"task": {"labels": 3}}, "not a manifest"),
        ({"files": 3}, "not a manifest"),
        ({"teachers": []}, "names no teacher"),
        (
            {"teachers": [{"role": "teacher", "model": "m", "terms": {}}]},
            r"terms of m \(teacher\) allow training: an older version wrote it",
        ),
        (
            {"teachers": [{"role": "weak", "model": "m", "terms": {"says": "not for rivals"}, "settled": False}]},
            r"terms of m \(weak\) were not settled \(not for rivals\)",
        ),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(
    tmp_path: Path, write_export: Callable[..., Path], change: dict[str, object], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        Manifest.read(write_export(tmp_path, **change))


def test_a_file_that_the_manifest_lacks_is_refused(manifest: Manifest) -> None:
    with pytest.raises(DataError, match=r"does not list sft/none\.parquet"):
        manifest.path("sft/none.parquet")
    assert manifest.count("sft/none.parquet") == 0


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"id": "1"}, "has no column prompt"),
        ({"id": "1", "prompt": "text"}, "row 1: prompt is not a list of messages"),
        ({"id": "1", "prompt": []}, "row 1: prompt is empty"),
        ({"id": "1", "prompt": PROMPT, "completion": PROMPT}, "one assistant message, found roles"),
    ],
)
def test_a_malformed_row_is_refused_by_id(tmp_path: Path, record: dict[str, object], words: str) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_pylist([record]), path)
    with pytest.raises(DataError, match=words):
        read_rows(path)


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_text("no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_rows(path)


def test_general_rows_are_read_with_their_skill(tmp_path: Path) -> None:
    path = tmp_path / "general.jsonl"
    lines = [{"prompt": PROMPT, "completion": "yes", "skill": "copy"}, {"prompt": PROMPT, "completion": [{"content": "no"}]}]
    path.write_text("\n".join(map(json.dumps, lines)))
    rows = read_general(path)
    assert [(r.completion, r.kind) for r in rows] == [("yes", "copy"), ("no", None)]


def test_a_malformed_general_row_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "general.jsonl"
    path.write_text('{"prompt": 3}')
    with pytest.raises(DataError, match=r"general\.jsonl:1"):
        read_general(path)
    with pytest.raises(DataError, match="cannot read the general data"):
        read_general(tmp_path / "none.jsonl")


def test_the_share_is_of_the_mixture() -> None:
    mixed = mix([row(f"d{i:02d}") for i in range(80)], [row(f"general/{i:02d}") for i in range(50)], 0.2, seed=1)
    assert (len(mixed.rows), mixed.general) == (100, 20)


def test_too_few_general_rows_are_all_taken_once() -> None:
    mixed = mix([row(f"d{i}") for i in range(8)], [row("general/0")], 0.5, seed=1)
    assert mixed.general == 1


def test_the_same_seed_takes_the_same_rows_whatever_their_order() -> None:
    rows = [row(f"{i:02d}") for i in range(20)]
    assert take(rows, 5, seed=3) == take(rows[::-1], 5, seed=3) != take(rows, 5, seed=4)
