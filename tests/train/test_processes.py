"""Several processes take the steps that one takes, say one thing, and are one command."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from train import launch, processes
from train.config import read_config
from train.dataset import Manifest
from train.dpo import train_dpo
from train.errors import ConfigError
from train.run import read_record
from train.sft import train_sft
from train.watch import Silent, read_history

ROOT = Path(__file__).parents[2]
SHARDED = Path(__file__).parent / "sharded_on_cpu.py"
FEW = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 6, "logging_steps": 1}
FSDP = {"fsdp": True, "fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}}
LARGEST = 1e-5


@pytest.fixture
def home(tmp_path: Path, student: Path, write_export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, and `recipe.yaml` to be written by `write_recipe`."""
    write_export(tmp_path / "data/toy", train=64)
    general = [json.dumps({"prompt": [{"role": "user", "content": f"Say {i}"}], "completion": str(i)}) for i in range(20)]
    (tmp_path / "general.jsonl").write_text("\n".join(general))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    write_recipe(student)
    return tmp_path


def write_recipe(student: Path, *, sft: dict[str, Any] | None = None, dpo: dict[str, Any] | None = None, **more: Any) -> None:
    section = {
        "student": str(student),
        "lora": {"r": 4},
        "max_length": 128,
        "sft": {**FEW, "learning_rate": 1e-2, **(sft or {})},
        "dpo": {**FEW, "learning_rate": 1e-3, **(dpo or {})},
        "general": {"source": "general.jsonl", "share": 0.2, "loss": "features", "budget": 100},
        "evaluation": {"validation_rows": 5, "test_rows": 4, "points": 2, "max_new_tokens": 4, "batch_size": 4},
        **more,
    }
    Path("recipe.yaml").write_text(yaml.safe_dump({"name": "toy", "seed": 1, "train": section}))


def command(*arguments: str, script: Path | None = None, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, str(script)] if script else [sys.executable, "-m", "train"]
    return subprocess.run([*start, *arguments], capture_output=True, text=True, timeout=timeout, check=False)


def sharded(*arguments: str) -> None:
    """Run a command in two processes that share the weights out."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = [
        subprocess.Popen([sys.executable, str(SHARDED), *arguments], env={**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]
    assert [process.wait(240) for process in started] == [0, 0]


def history(run_dir: str | Path, stage: str | None = None) -> list[dict[str, Any]]:
    return [line for line in read_history(Path(run_dir) / "metrics.jsonl") if stage in (None, line["stage"])]


def alone(run_dir: str, *, dpo: bool = True) -> None:
    config = read_config(Path("recipe.yaml"))
    manifest = Manifest.read(config.data)
    train_sft(config, manifest, Path(run_dir), progress=Silent())
    if dpo:
        train_dpo(config, manifest, Path(run_dir), progress=Silent())


def assert_same(one: list[dict[str, Any]], several: list[dict[str, Any]]) -> None:
    assert [line.keys() for line in one] == [line.keys() for line in several]
    for a, b in zip(one, several, strict=True):
        for name in a.keys() & {"loss", "entropy", "general_drift", "chosen_logp", "rejected_logp", "learning_rate"}:
            assert b[name] == pytest.approx(a[name], rel=LARGEST, abs=1e-7), (a["stage"], a["step"], name)
        assert a.get("metric") == b.get("metric") and a.get("value") == b.get("value")


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(home: Path) -> None:
    alone("one", dpo=False)
    done = command("sft", "--recipe", "recipe.yaml", "--out", "two", "--processes", "2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Supervised fine-tuning") == 1, "one of them talks"
    assert_same(history("one"), history("two"))


@pytest.mark.slow
def test_a_whole_run_of_two_processes_leaves_what_one_leaves(home: Path) -> None:
    alone("one")
    done = command("run", "--recipe", "recipe.yaml", "--out", "two", "--processes", "2")
    assert done.returncode == 0, done.stderr
    assert_same(history("one"), history("two"))
    assert read_record(Path("two"))["status"] == "done"
    assert {"merged", "sft", "dpo", "report.html", "evaluation.json"} <= {path.name for path in Path("two").iterdir()}
    assert not Path("two/work").exists() and not Path("two/.lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sft", "dpo", "more"),
    [
        ({}, {}, {}),
        ({"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}, {"gradient_accumulation_steps": 2}, {}),
        ({"learning_rate": 1e-3}, {"learning_rate": 1e-4}, {"method": "full", "general": None}),
    ],
    ids=["micro-batches shared", "micro-batches whole", "all weights"],
)
def test_weights_that_are_shared_out_give_the_losses_of_one_process(home: Path, student: Path, sft: Any, dpo: Any, more: Any) -> None:
    write_recipe(student, sft=sft, dpo=dpo, **more)
    alone("one")
    write_recipe(student, sft={**sft, **FSDP}, dpo={**dpo, **FSDP}, **more)
    sharded("sft", "--recipe", "recipe.yaml", "--out", "two")
    sharded("dpo", "--model", "two")
    assert_same(history("one"), history("two"))


def killed(*arguments: str, run_dir: str, stage: str) -> None:
    """Start a command and kill it, with all of its processes, once a checkpoint of the stage is there."""
    process = subprocess.Popen([sys.executable, "-m", "train", *arguments], start_new_session=True)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if list(Path(run_dir).glob(f"work/{stage}/checkpoint-*/trainer_state.json")):
            break
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"


@pytest.mark.slow
@pytest.mark.parametrize("count", ["1", "2"])
def test_a_run_that_was_killed_ends_with_the_same_losses(home: Path, student: Path, count: str) -> None:
    points = {"validation_rows": 4, "test_rows": 4, "points": 6, "max_new_tokens": 4, "batch_size": 4}
    longer = {"max_steps": 60}
    write_recipe(student, sft=longer, dpo=longer, evaluation=points)
    alone("whole")
    killed("sft", "--recipe", "recipe.yaml", "--out", "broken", "--processes", count, run_dir="broken", stage="sft")
    assert command("sft", "--recipe", "recipe.yaml", "--out", "broken", "--processes", count).returncode == 0
    killed("dpo", "--model", "broken", "--processes", count, run_dir="broken", stage="dpo")
    assert command("dpo", "--model", "broken", "--processes", count).returncode == 0
    whole, broken = history("whole"), history("broken")
    assert [line["step"] for line in whole] == [line["step"] for line in broken]
    for a, b in zip(whole, broken, strict=True):
        assert b.get("loss") == pytest.approx(a.get("loss"), rel=1e-6 if count == "1" else LARGEST)


@pytest.mark.slow
def test_another_number_of_processes_cannot_go_on_with_a_checkpoint(home: Path, student: Path) -> None:
    points = {"validation_rows": 4, "test_rows": 4, "points": 6, "max_new_tokens": 4, "batch_size": 4}
    write_recipe(student, sft={"max_steps": 60}, evaluation=points)
    killed("sft", "--recipe", "recipe.yaml", "--out", "broken", "--processes", "2", run_dir="broken", stage="sft")
    done = command("sft", "--recipe", "recipe.yaml", "--out", "broken")
    assert done.returncode == 2 and "was interrupted with 2 processes" in done.stderr


@pytest.mark.slow
def test_accelerates_own_launcher_does_the_same(home: Path) -> None:
    alone("one", dpo=False)
    started = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    rest = ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "train", "sft", "--recipe", "recipe.yaml", "--out", "two"]
    done = subprocess.run([*started, *rest], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert_same(history("one"), history("two"))


def test_what_is_wrong_is_said_once_and_with_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = command("run", "--recipe", "none.yaml", "--processes", "2")
    assert (done.returncode, done.stderr.count("no such recipe"), "Traceback" in done.stderr) == (2, 1, False)


def test_what_another_than_the_first_process_says_of_its_end_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "train"
    package.mkdir()
    (package / "__init__.py").touch()
    body = "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit('error: rows of the second')\ntime.sleep(60)\n"
    (package / "__main__.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(launch, "GRACE", 0.5)
    begun = time.monotonic()
    assert launch.launch([], 2) == 1
    assert "rows of the second" in capfd.readouterr().err
    assert time.monotonic() - begun < 10, "the first one was not waited for"


@pytest.mark.parametrize(
    ("count", "batch", "accumulation", "part"),
    [(1, 16, 2, (16, 2)), (2, 16, 2, (16, 1)), (2, 16, 1, (8, 1)), (4, 8, 2, (4, 1)), (4, 6, 8, (6, 2)), (3, 6, 1, (2, 1))],
)
def test_a_step_is_shared_out_micro_batches_first(
    monkeypatch: pytest.MonkeyPatch, count: int, batch: int, accumulation: int, part: tuple[int, int]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(count))
    assert processes.divide("train.sft", batch, accumulation) == part
    assert part[0] * part[1] * count == batch * accumulation


def test_a_step_that_cannot_be_shared_evenly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"train\.sft: a step of 16 x 1 rows .* by 3 processes\. Make it a multiple of 3"):
        processes.divide("train.sft", 16, 1)


def test_every_process_knows_which_micro_batch_it_has_a_part_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    found = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        trainer = processes.InStep()
        trainer.shared_by = 2
        found.append([trainer.micro_batch(number) for number in range(2)])
    assert found == [[0, 2], [0, 2], [1, 3], [1, 3]]


def test_a_second_command_on_the_same_run_is_refused(home: Path) -> None:
    from datetime import UTC, datetime

    from train import run

    config = read_config(Path("recipe.yaml"), out=Path("runs"))
    where = run.run(config, now=datetime.now(UTC), progress=Silent(), stages=())
    with run.held(where), pytest.raises(ConfigError, match="another command is at work on this run"):
        run.run(config, now=datetime.now(UTC), progress=Silent(), stages=())
