"""From weights to the teacher call and back; what was changed on the way is told; a run without some rows says which."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from train import cli, evaluate, gate, provenance, run
from train.card import card, write_card
from train.config import TrainConfig, Without
from train.dataset import Manifest, exclude, read_ids, read_rows
from train.errors import DataError
from train.watch import Silent

MakeConfig = Callable[..., TrainConfig]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, student: Path, write_export: Callable[..., Path]) -> Iterator[Path]:
    """A folder with data/toy, recipe.yaml and one finished run in runs/, made by the command line."""
    folder = tmp_path_factory.mktemp("provenance")
    write_export(folder / "data/toy")
    few = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 2}
    general = folder / "general.jsonl"
    lines = [{"id": f"g{i}", "prompt": [{"role": "user", "content": f"Say {i}"}], "completion": str(i), "skill": "say"} for i in range(9)]
    general.write_text("".join(json.dumps(line) + "\n" for line in lines))
    section = {
        "student": str(student),
        "lora": {"r": 4},
        "max_length": 128,
        "sft": few,
        "dpo": few,
        "general": {"source": str(general), "share": 0.1},
        "evaluation": {"validation_rows": 4, "test_rows": 4, "points": 1, "max_new_tokens": 4, "batch_size": 4},
        "gate": {"delta": 40, "rows": 20},
        "quantize": {"formats": ["gguf-q8_0"]},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": "toy", "seed": 1, "train": section}))
    few_general = folder / "general"
    few_general.mkdir()
    for name in ("probe", "gate"):
        shutil.copy(general, few_general / f"{name}.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(evaluate, "GENERAL", few_general)
        patch.setattr(gate, "GENERAL", few_general)
        assert call("run", "--recipe", "recipe.yaml") == 1
        yield folder


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as error:
        cli.main(list(arguments))
    return int(error.value.code or 0)


@pytest.fixture
def copy(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished run, copied, with its data where it was."""
    monkeypatch.chdir(home)
    return Path(shutil.copytree((home / "runs/latest").resolve(), tmp_path / "runs/copied"))


def test_every_training_row_has_a_line_with_its_epochs_and_its_origin(home: Path) -> None:
    rows = pq.read_table(home / "runs/latest/provenance.parquet").to_pylist()
    uses: dict[tuple[str, str], int] = {}
    for row in rows:
        uses[row["stage"], row["use"]] = uses.get((row["stage"], row["use"]), 0) + 1
    assert uses == {("sft", "trained"): 48 + 5, ("sft", "validation"): 4, ("dpo", "trained"): 48}
    sft = [row for row in rows if row["file"] == "sft/train.parquet"]
    assert {row["epochs"] for row in sft} == {round(2 * 8 / 56, 3)}, "two steps of eight of 53 rows, padded to whole batches"
    assert sft[0]["asked"][0]["call_id"] == f"call-{sft[0]['id']}"
    assert sft[0]["verdicts"][1]["by"] == sft[0]["reviewer"] == "human:ana"


def test_a_hundred_rows_lead_to_their_calls_and_back(home: Path) -> None:
    data = home / "data/toy"
    ids = [row.id for row in read_rows(data / "sft/train.parquet")]
    runs = home / "runs"
    whole = provenance.read_provenance(runs / "latest")
    assert whole["manifest"]["sha256"] == hashlib.sha256((data / "manifest.json").read_bytes()).hexdigest()
    for row in random.Random(0).choices(ids, k=100):
        (traced,) = provenance.trace(row, runs)
        assert {line["file"] for line in traced.lines} == {"sft/train.parquet", "preference/train.parquet"}
        assert traced.lines[0]["asked"][0]["call_id"] == f"call-{row}"


def test_a_row_is_found_by_its_words_and_told_from_run_to_reviewer(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(home)
    assert call("trace", "t000") == 0
    said = capsys.readouterr().out
    for words in (
        "row       t000",
        "sft/train.parquet",
        "completion",
        '{"intent":"green"}',
        "rejected",
        "call-t000",
        "answer@3f2a91c4",
        "$0.25",
        "human:ana",
        "edited    from parent",
    ):
        assert words in said
    assert call("trace", "t00") == 2
    assert "is in 10 rows: t000" in " ".join(capsys.readouterr().err.split())
    assert call("trace", "general/g1") == 0
    assert "no teacher was asked for it" in capsys.readouterr().out
    assert call("trace", "no such words") == 2
    assert call("trace", "t001", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["texts"]["completion"] == '{"intent":"white"}'
    assert call("trace", "t001", "--runs", "none") == 2


def test_one_changed_byte_is_told_wherever_it_is(copy: Path) -> None:
    assert provenance.verify(copy) > 10
    for name, words in (
        ("merged/model.safetensors", "it is not what the run made"),
        ("dpo/adapter_model.safetensors", "it is not what the run made"),
        ("provenance.parquet", "was edited"),
        ("provenance.json", "was edited"),
    ):
        path = copy / name
        before = path.read_bytes()
        at = before.index(b"banking") if b"banking" in before else len(before) // 2
        changed = (
            before.replace(b'"toy"', b'"tox"', 1) if name.endswith(".json") else before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :]
        )
        path.write_bytes(changed)
        with pytest.raises(DataError, match=words):
            provenance.verify(copy)
        path.write_bytes(before)
    (copy / "merged/model.safetensors").unlink()
    with pytest.raises(DataError, match="is not there: it is not what the run made"):
        provenance.verify(copy)
    (copy / "provenance.json").write_text("{}")
    with pytest.raises(DataError, match="not a run's provenance"):
        provenance.verify(copy)
    (copy / "provenance.json").unlink()
    with pytest.raises(DataError, match="python -m train card"):
        provenance.trace("t000", copy.parent / "copied")


def test_files_are_checked_from_the_command_line(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(home)
    assert call("trace") == 0
    assert "are what the run wrote" in " ".join(capsys.readouterr().out.split())
    assert call("card", "--json") == 0
    assert call("card") == 0


def test_dropped_rows_have_seen_no_epoch_and_say_why(manifest: Manifest, make_config: MakeConfig) -> None:
    config = make_config(max_length=40, dpo=None)
    where = run.run(config, now=NOW, progress=Silent(), stages=("sft", "dpo"))
    provenance.trace_run(where, config, manifest)
    rows = pq.read_table(where / "provenance.parquet").to_pylist()
    dropped = [row for row in rows if row["stage"] == "sft" and row["dropped"]]
    assert len(dropped) == run.read_record(where)["stages"]["sft"]["rows_dropped"]
    assert {row["epochs"] for row in dropped} <= {0.0}
    assert {row["dropped"] for row in rows if row["stage"] == "dpo"} == {"train.dpo is null"}


def test_an_older_export_is_traced_as_far_as_it_knows(export: Path, make_config: MakeConfig) -> None:
    raw = json.loads((export / "manifest.json").read_text())
    del raw["files"]["provenance.parquet"]
    (export / "manifest.json").write_text(json.dumps(raw))
    config = make_config(dpo=None)
    where = run.run(config, now=NOW, progress=Silent(), stages=("sft",))
    provenance.trace_run(where, config, Manifest.read(export))
    said = provenance.tell(provenance.trace("t001", config.out))
    assert "the export does not say" in said[-1]
    shutil.rmtree(export)
    assert any(
        "the data that was trained on is not there any more" in line for line in provenance.tell(provenance.trace("t001", config.out))
    )


@pytest.mark.parametrize(
    ("without", "left"),
    [
        ({"topics": ["things/grass"]}, 36),
        ({"topics": ["things/grass", "things/snow"]}, 24),
        ({"teachers": ["offline/other"]}, 24),
        ({"rows": ["t000", "t001", "nobody"]}, 46),
    ],
)
def test_rows_are_left_out_of_every_file_to_learn_from(
    manifest: Manifest, tmp_path: Path, without: dict[str, list[str]], left: int
) -> None:
    part = exclude(manifest, without, tmp_path / "part")
    assert (part.count("sft/train.parquet"), part.count("preference/train.parquet")) == (left, left)
    assert part.count("sft/test.parquet") == manifest.count("sft/test.parquet"), "the exam stays whole"
    assert part.sha256 == manifest.sha256
    assert part.raw["without"]["left_out"] == 48 - left
    assert Manifest.read(tmp_path / "part").count("sft/train.parquet") == left


def test_leaving_out_nothing_or_everything_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    for without, words in (
        ({"topics": ["thing"]}, "no training row is of topics thing"),
        ({"generators": ["topic"]}, "all 48 training rows are of generators topic"),
    ):
        with pytest.raises(DataError, match=words):
            exclude(manifest, without, tmp_path / "part")
        assert not (tmp_path / "part").exists()
    for text, words in (("\n", "lists no row"), (None, "cannot be read")):
        if text is not None:
            (tmp_path / "ids").write_text(text)
        else:
            (tmp_path / "ids").unlink()
        with pytest.raises(DataError, match=words):
            read_ids(tmp_path / "ids")


@pytest.mark.slow
def test_a_run_without_a_topic_says_so_everywhere(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(home)
    out = tmp_path / "less"
    (tmp_path / "ids").write_text("t001\nt005\n")
    assert call("without", "--recipe", "recipe.yaml") == 2
    assert "name what to leave out" in capsys.readouterr().err
    assert call("without", "--topic", "thing", "--recipe", "recipe.yaml", "--out", str(out)) == 2
    assert not out.exists()
    assert call("without", "--topic", "things/grass", "--rows", str(tmp_path / "ids"), "--recipe", "recipe.yaml", "--out", str(out)) == 1
    record = run.read_record(out)
    assert record["config"]["without"]["topics"] == ["things/grass"]
    assert record["stages"]["sft"]["rows"] == 34 + record["stages"]["sft"]["general_rows"]
    assert provenance.read_provenance(out)["without"]["left_out"] == 14
    assert "**Trained without** 14 rows of that export: topics things/grass; rows t001, t005" in (out / "README.md").read_text()
    assert not [line for line in pq.read_table(out / "provenance.parquet").to_pylist() if line["id"] in ("t000", "t001")]
    assert record["config_sha256"] != run.read_record(home / "runs/latest")["config_sha256"]
    config = run.config_of(out)
    assert config.without == Without(topics=["things/grass"], rows=["t001", "t005"])


def test_the_card_is_one_that_the_hub_reads(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    text = (home / "runs/latest/README.md").read_text()
    found = ModelCard(text)
    assert found.data.library_name == "transformers"
    assert {"retort", "lora", "simulated-teacher"} <= set(found.data.tags)
    name, results = model_index_to_eval_results(found.data.to_dict()["model-index"])
    assert name.startswith("toy")
    assert {result.metric_type for result in results} >= {"macro_f1", "label_accuracy"}
    assert all("95 % interval" in str(result.metric_name) for result in results)
    for part in (
        "How to use it",
        "Training data and where it came from",
        "Terms of the teachers",
        "Evaluation",
        "Every form against the adapter",
        "Limits",
        "Forgetting",
    ):
        assert f"## {part}" in text
    assert "Name the colour as JSON." in text
    assert "merged | undecided" in text


def test_the_card_carries_a_users_own_decision_and_escapes_other_peoples_text(home: Path, copy: Path) -> None:
    config = run.config_of(copy)
    manifest = Manifest.read(config.data)
    decided = {
        "role": "teacher",
        "model": "acme/<b>1",
        "simulated": False,
        "settled": True,
        "terms": {"may_train": "unclear", "says": "ask | first"},
        "decision": {"by": "ana", "decision": "our contract allows it"},
    }
    for name in ("gate.json", "evaluation.json", "comparisons.json", "analysis.json"):
        (copy / name).unlink()
    other = manifest._replace(teachers=[decided], raw={**manifest.raw, "task": {**manifest.raw["task"], "language": "en"}})
    text = card(copy, config.model_copy(update={"student": "acme/base"}), other)
    assert "our contract allows it" in text
    assert "acme/&lt;b>1" in text
    assert r"ask \| first" in text
    assert "Not evaluated yet." in text
    assert "did not go through the gate" in text
    data = ModelCard(text).data
    assert (data.base_model, data.language, data.license) == ("acme/base", "en", None)
    assert write_card(copy, config, manifest) == copy / "README.md"


def test_the_gate_and_an_acceptance_from_the_command_line(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ("--model", str(copy))
    assert call("gate", *model, "--by", "ana") == 2
    assert "belong to --accept NAME" in capsys.readouterr().err
    assert call("gate", *model) == 1
    assert "nothing of this run ships" in " ".join(capsys.readouterr().out.split())
    assert call("gate", *model, "--accept", "merged", "--by", "ana") == 2
    names = [entry["name"] for entry in json.loads((copy / "gate.json").read_text())["artifacts"]]
    codes = [call("gate", *model, "--accept", name, "--because", "it is a toy", "--by", "ana") for name in names]
    assert codes == [1] * (len(names) - 1) + [0]
    assert "accepted by ana" in (copy / "README.md").read_text()
    assert "ana accepted it" in (copy / "report.html").read_text()
    capsys.readouterr()
    assert call("gate", *model, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["accepted"]) == len(names)
    assert call("without", "--rows", "no such file") == 2
