"""A run tells the whole story once, goes on where it stopped, and the command line says what to mend."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from train import cli, run
from train.config import TrainConfig
from train.errors import ConfigError, DataError, ModelError, TrainError
from train.predict import load_speaker, predict, read_prompts, with_system
from train.watch import Silent

MakeConfig = Callable[..., TrainConfig]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, student: Path, write_export: Callable[..., Path]) -> Path:
    """A folder in which a whole run was made by the command line: recipe.yaml, data/toy, runs/."""
    home = tmp_path_factory.mktemp("home")
    write_export(home / "data/toy")
    few = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 2}
    section = {
        "student": str(student),
        "lora": {"r": 4},
        "max_length": 128,
        "sft": few,
        "dpo": few,
        "evaluation": {"validation_rows": 4, "test_rows": 4, "points": 1, "max_new_tokens": 4, "batch_size": 4},
        "gate": {"delta": 40, "rows": 20},
        "quantize": {"formats": ["gguf-q8_0"]},
    }
    (home / "recipe.yaml").write_text(yaml.safe_dump({"name": "toy", "seed": 1, "train": section}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        with pytest.raises(SystemExit) as exit_code:
            cli.main(["run", "--recipe", "recipe.yaml"])
    assert exit_code.value.code == 1, "after two steps the student can nothing, so the gate cannot see whether its merged model lost any"
    return home


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as error:
        cli.main(list(arguments))
    assert isinstance(error.value.code, int)
    return error.value.code


def test_a_run_leaves_everything_that_was_promised(done: Path) -> None:
    latest = done / "runs/latest"
    folders = {"sft", "dpo", "merged"}
    records = {"metrics.jsonl", "run.json", "template_proof.json", "evaluation.json", "comparisons.json", "analysis.json"}
    files = {"failures.parquet", "answers.parquet", "report.html"}
    assert folders | records | files <= {path.name for path in latest.iterdir()}
    record = run.read_record(latest)
    assert record["status"] == "done"
    assert set(record["stages"]) == set(run.STAGES)
    assert record["id"].endswith("-toy") and latest.resolve().name == record["id"]
    assert "torch" in record["versions"]


def test_a_second_run_of_a_finished_one_is_a_new_one(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(done)
    config = run.config_of(done / "runs/latest")
    from train.dataset import Manifest

    assert run.resumable(config, Manifest.read(config.data)) is None


def test_a_run_that_could_not_begin_leaves_the_last_one_in_place(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(done)
    before = Path("runs/latest").resolve(), sorted(path.name for path in Path("runs").iterdir())
    assert call("run", "--recipe", "recipe.yaml", "--student", "no-such-student") == 2
    assert (Path("runs/latest").resolve(), sorted(path.name for path in Path("runs").iterdir())) == before


def test_a_template_that_fails_its_proof_leaves_the_proof_and_no_run(
    done: Path, make_student: Callable[..., Path], make_tokenizer: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(done)
    tokenizer = make_tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.chat_template = "{{ bos_token + bos_token }}" + tokenizer.chat_template.removeprefix("{{ bos_token }}")
    student = make_student(tmp_path / "student", tokenizer)
    before = Path("runs/latest").resolve()
    assert call("run", "--recipe", "recipe.yaml", "--student", str(student)) == 2
    proof = json.loads(Path("runs/template_proof.json").read_text())
    Path("runs/template_proof.json").unlink()
    assert (proof["student"], proof["passed"]) == (str(student), False)
    assert "begins with two" in proof["fault"][0]
    assert Path("runs/latest").resolve() == before


def test_prediction_uses_the_merged_model_and_keeps_order_and_keys(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(done)
    prompts = [{"prompt": "What is snow?", "note": 1}, {"prompt": [{"role": "user", "content": "What is grass?"}], "note": 2}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, prompts)) + "\n\n")
    assert call("predict", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out/answers.jsonl")) == 0
    answers = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert [answer["note"] for answer in answers] == [1, 2]
    assert all(isinstance(answer["completion"], str) for answer in answers)


@pytest.mark.parametrize("part", ["", "merged", "sft", "dpo"])
def test_every_part_of_a_run_speaks_with_the_system_message_of_training(done: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.chdir(done)
    speaker = load_speaker(f"runs/latest/{part}".rstrip("/"))
    assert speaker.system == "Name the colour as JSON."
    assert speaker.max_new_tokens == 4


def test_an_adapter_without_merged_model_finds_the_system_message_in_the_data(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(done)
    copy = tmp_path / "copy"
    shutil.copytree(done / "runs/latest", copy, ignore=shutil.ignore_patterns("merged"))
    assert load_speaker(str(copy / "sft")).system == "Name the colour as JSON."
    with pytest.raises(ModelError, match="no merged model yet"):
        load_speaker(str(copy))


def test_a_plain_student_gets_no_system_message(student: Path) -> None:
    assert load_speaker(str(student)).system == ""


def test_an_adapter_that_names_no_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not name its base"):
        load_speaker(str(tmp_path))


def test_a_prompt_with_a_system_message_keeps_it() -> None:
    own = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "hi"}]
    assert with_system(own, "Training's.") == own
    assert with_system("hi", "Training's.")[0] == {"role": "system", "content": "Training's."}


@pytest.mark.parametrize("line", ['{"text": 1}', '{"prompt": []}', '{"prompt": [{"role": "user"}]}', "no"])
def test_a_line_without_prompt_is_refused_by_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "ok"}\n' + line)
    with pytest.raises(DataError, match=r"in\.jsonl:2"):
        read_prompts(path)


def test_an_input_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        predict("none", tmp_path / "none.jsonl", tmp_path / "out", progress=Silent())


@pytest.mark.parametrize("verb", ["evaluate", "merge", "report", "dpo"])
def test_a_stage_can_be_done_again_alone(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    monkeypatch.chdir(done)
    assert call(verb, "--json") == 0
    assert json.loads(capsys.readouterr().out)


def test_the_stages_can_be_run_one_by_one(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done)
    where = str(tmp_path / "mine")
    assert call("sft", "--recipe", "recipe.yaml", "--out", where) == 0
    assert f"Next: python -m train dpo --model {where}" in capsys.readouterr().out.replace("\n", "")
    assert call("dpo", "--model", where) == 0
    assert call("merge", "--model", where) == 0
    assert (tmp_path / "mine/merged/retort.json").is_file()
    assert not (tmp_path / "latest").exists()


def test_any_model_is_evaluated_on_a_file(
    done: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done)
    (tmp_path / "x.jsonl").write_text('{"text": "What is snow?", "label": "white"}\n')
    for model in ("runs/latest", str(student)):
        assert call("evaluate", "--model", model, "--set", f"mine={tmp_path / 'x.jsonl'}", "--data", "data/toy", "--json") == 0
        assert {line["set"] for line in json.loads(capsys.readouterr().out)} == {"mine"}
    assert call("evaluate", "--set", "mine") == 2


def test_another_systems_answers_join_an_evaluation_and_its_report(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done)
    given = [json.loads(line) for line in Path("runs/latest/answers/real/base.jsonl").read_text().splitlines()]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"id": row["id"], "answer": "{}"}) + "\n" for row in given))
    assert call("evaluate", "--answers", "teacher", "--json") == 2
    assert call("evaluate", "--answers", "teacher=x", "--set", "a=b") == 2
    assert call("evaluate", "--answers", f"teacher={tmp_path / 't.jsonl'}", "--usd-per-hour", "0.9") == 0
    assert "at $0.9 an hour" in Path("runs/latest/analysis.json").read_text()
    said = capsys.readouterr().out
    assert "The teacher reaches 0.0 % on real." in said
    measures = json.loads(Path("runs/latest/evaluation.json").read_text())
    assert ("real", "teacher") in {(m["set"], m["model"]) for m in measures}
    assert "The teacher reaches 0.0 %" in Path("runs/latest/report.html").read_text()


def test_an_interrupted_run_goes_on_in_its_folder(manifest: Any, make_config: MakeConfig) -> None:
    class Interrupted(Silent):
        def start(self, stage: str, total: int) -> None:
            if stage == "dpo":
                raise KeyboardInterrupt

    config = make_config()
    with pytest.raises(KeyboardInterrupt):
        run.run(config, now=NOW, progress=Interrupted())
    where = config.out / "20260102-030405-toy"
    assert run.read_record(where)["status"] == "running"
    sft_record = run.read_record(where)["stages"]["sft"]
    assert run.run(config, now=NOW.replace(hour=9), progress=Silent(), stages=("sft", "dpo")) == where
    assert run.read_record(where)["stages"]["sft"] == sft_record, "SFT was not done again"


def test_a_folder_with_another_run_is_refused(manifest: Any, make_config: MakeConfig) -> None:
    config = make_config()
    where = run.run(config, now=NOW, progress=Silent(), stages=())
    with pytest.raises(ConfigError, match="other settings or other data"):
        run.run(make_config(seed=5), now=NOW, progress=Silent(), run_dir=where)
    assert run.run(make_config(seed=5), now=NOW, progress=Silent(), stages=()) != where


def test_without_pairs_or_with_null_dpo_is_skipped_with_a_reason(manifest: Any, make_config: MakeConfig) -> None:
    config = make_config(dpo=None)
    where = run.run(config, now=NOW, progress=Silent(), stages=("sft", "dpo", "merge"))
    stages = run.read_record(where)["stages"]
    assert stages["dpo"] == {"skipped": "train.dpo is null", "done": True}
    assert stages["merge"]["from"] == "sft"


def test_dpo_before_sft_is_refused(manifest: Any, make_config: MakeConfig) -> None:
    with pytest.raises(DataError, match="starts from an SFT result"):
        run.run(make_config(), now=NOW, progress=Silent(), stages=("dpo",))


def test_a_full_disk_is_refused_before_anything_is_made(manifest: Any, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "DISK", 10**18)
    with pytest.raises(ConfigError, match="MB free, a run needs"):
        run.run(make_config(), now=NOW, progress=Silent())


def test_a_place_that_cannot_be_written_is_refused(manifest: Any, make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot be written"):
        run.run(make_config(out=tmp_path / "file"), now=NOW, progress=Silent())


def test_a_folder_in_the_place_of_latest_is_named(manifest: Any, make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "runs/latest").mkdir(parents=True)
    with pytest.raises(TrainError, match="is in the way"):
        run.run(make_config(), now=NOW, progress=Silent(), stages=())


def test_settings_of_another_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"config": {"old": 1}}')
    with pytest.raises(DataError, match="not of this version"):
        run.config_of(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--data", "none"], "make datagen"),
        (["run", "--recipe", "none.yaml"], "no such recipe"),
        (["run", "--nonsense"], "No such option"),
        (["merge", "--model", "none"], "is not a training run"),
        (["predict", "--model", "no/such", "--input", "in.jsonl", "--output", "o"], "not reachable as a hub id"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"prompt": "hi"}')
    assert call(*arguments) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_an_unknown_student_leaves_no_traceback(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(done)
    assert call("run", "--recipe", "recipe.yaml", "--student", "no/such-model", "--out", str(tmp_path / "x")) == 2
    assert "not a folder here and not reachable as a hub id" in " ".join(capsys.readouterr().err.split())


def test_an_interrupt_says_that_nothing_is_lost(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "read_config", interrupt)
    assert call("run") == 130
    assert "nothing is lost" in capsys.readouterr().err


def test_help_answers_without_loading_torch() -> None:
    code = "import sys; from train.cli import main\ntry: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("False")


def test_a_mistake_in_a_later_stage_is_told_before_the_first(manifest: Any, make_config: MakeConfig) -> None:
    config = make_config(dpo={"lerning_rate": 1e-4})
    with pytest.raises(ConfigError, match=r"train\.dpo: unknown option `lerning_rate` .did you mean `learning_rate`"):
        run.run(config, now=NOW, progress=Silent())
    with pytest.raises(ConfigError, match=r"train\.dpo\.beta is 'high'"):
        run.run(make_config(dpo={"beta": "high"}), now=NOW, progress=Silent())
    assert not config.out.exists(), "no run was begun"


def test_a_disk_that_fills_in_the_middle_is_one_line_and_the_same_command_goes_on(done: Path, tmp_path: Path) -> None:
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)); from train.cli import main; main(sys.argv[1:])"
    )
    arguments = ["sft", "--recipe", "recipe.yaml", "--out", str(tmp_path / "x")]
    env = {**os.environ, "PYTHONPATH": str(Path(run.__file__).parents[1])}
    full = subprocess.run([sys.executable, "-c", limited, *arguments], cwd=done, env=env, capture_output=True, text=True, check=False)
    assert full.returncode == 2, full.stderr
    assert "Free some space and give the same command again" in " ".join(full.stderr.split())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(done)
        assert call(*arguments) == 0
