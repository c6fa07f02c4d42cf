"""SFT lowers the loss, keeps the best point, names what it leaves out, and goes on after an interruption to the same end."""

import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerControl, TrainerState, integrations
from trl import SFTConfig

from train import model, sft, template
from train.config import TrainConfig
from train.dataset import HEAVIEST, Manifest, read_training, weigh
from train.errors import ConfigError, DataError, TemplateError, TrainError
from train.metrics import Measure
from train.sft import known_options, rows_of, sources_of, train_sft
from train.template import Encoded
from train.watch import Best, Budget, History, Silent, Watch, read_history

MakeConfig = Callable[..., TrainConfig]


class Recorder(Silent):
    """Remembers what it is told; interrupts at a step of a stage if asked to."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.plans: list[Mapping[str, str]] = []
        self.steps: list[int] = []
        self.interrupt_at = interrupt_at

    def plan(self, title: str, facts: Mapping[str, str]) -> None:
        self.plans.append(facts)

    def advance(self, done: int, **numbers: float) -> None:
        self.steps.append(done)
        if self.interrupt_at == done and numbers.get("loss"):
            raise KeyboardInterrupt


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return read_history(run_dir / "metrics.jsonl")


def without_pace(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in ("tokens_per_second", "peak_bytes")} for line in found]


def test_the_loss_falls_and_the_adapter_is_kept(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    progress = Recorder()
    record = train_sft(make_config(), manifest, tmp_path / "run", progress=progress)
    losses = [line["loss"] for line in lines(tmp_path / "run") if "loss" in line]
    assert losses[-1] < losses[0]
    assert record["steps"] == 6 == progress.steps[-1]
    assert record["rows"] == 48
    student, _ = model.load_student(make_config().student, adapter=tmp_path / "run/sft")
    assert isinstance(student, PeftModel)
    assert not (tmp_path / "run/work").exists()


def test_what_will_be_done_is_said_before(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    progress = Recorder()
    train_sft(make_config(), manifest, tmp_path / "run", progress=progress)
    assert {"student", "method", "rows", "tokens per epoch", "steps", "forecast"} <= set(progress.plans[0])
    assert "trainable" in progress.plans[0]["method"]


def test_the_history_has_scores_with_intervals_at_the_points(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    train_sft(make_config(), manifest, tmp_path / "run", progress=Silent())
    scores = [line for line in lines(tmp_path / "run") if "metric" in line]
    assert [line["step"] for line in scores] == [3, 6]
    assert all(line["low"] <= line["value"] <= line["high"] and line["n"] == 4 for line in scores)


def test_the_proof_is_written_before_training(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    train_sft(make_config(), manifest, tmp_path / "run", progress=Silent())
    proof = json.loads((tmp_path / "run/template_proof.json").read_text())
    assert proof["example"]["supervised"].endswith("<|im_end|>")


def test_an_interrupted_run_ends_with_the_same_weights(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(evaluation={"points": 3, "validation_rows": 4, "max_new_tokens": 4})
    train_sft(config, manifest, tmp_path / "whole", progress=Silent())
    with pytest.raises(KeyboardInterrupt):
        train_sft(config, manifest, tmp_path / "broken", progress=Recorder(interrupt_at=5))
    assert not (tmp_path / "broken/sft").exists()
    again = Recorder()
    train_sft(config, manifest, tmp_path / "broken", progress=again)
    assert again.steps[0] > 4, "it went on from the checkpoint at step 4"
    whole, resumed = (load_file(tmp_path / name / "sft/adapter_model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert without_pace(lines(tmp_path / "whole")) == without_pace(lines(tmp_path / "broken"))


def test_over_long_rows_are_named_in_the_record(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    record = train_sft(make_config(max_length=40), manifest, tmp_path / "run", progress=Silent())
    named = record["dropped"]["longer than 40 tokens"]
    assert record["rows"] + len(named) == 48
    assert named


def test_nothing_left_to_train_on_is_refused(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="no row is left"):
        train_sft(make_config(max_length=10), manifest, tmp_path / "run", progress=Silent())


def test_rows_without_completion_are_nothing_to_train_on(
    tmp_path: Path, write_export: Callable[..., Path], make_config: MakeConfig
) -> None:
    manifest = Manifest.read(write_export(tmp_path / "data"))
    files = {**manifest.files, "sft/train.parquet": manifest.files["evaluation/real.parquet"]}
    directory = tmp_path / "data"
    (directory / "sft/train.parquet").write_bytes((directory / "evaluation/real.parquet").read_bytes())
    with pytest.raises(DataError, match="no row has a completion"):
        train_sft(make_config(), manifest._replace(files=files), tmp_path / "run", progress=Silent())


def test_general_rows_are_mixed_in(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    path = tmp_path / "general.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": [{"role": "user", "content": f"Say {i}"}], "completion": str(i)}) for i in range(20)))
    config = make_config(general={"source": str(path), "share": 0.2})
    assert train_sft(config, manifest, tmp_path / "run", progress=Silent())["general_rows"] == 12


def test_the_whole_model_can_be_trained(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    record = train_sft(make_config(method="full"), manifest, tmp_path / "run", progress=Silent())
    assert record["trainable"] == record["parameters"]
    assert (tmp_path / "run/sft/config.json").is_file()


def test_packed_rows_train(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(sft={"packing": True, "per_device_train_batch_size": 2, "max_steps": 2, "learning_rate": 0.01})
    assert train_sft(config, manifest, tmp_path / "run", progress=Silent())["steps"] == 2
    proof = json.loads((tmp_path / "run/template_proof.json").read_text())
    assert proof["batches"]["packing"]["max_difference"] <= 1e-5


def test_an_unknown_option_is_refused_before_anything_is_loaded(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.sft: unknown option `lerning_rate` .did you mean `learning_rate`"):
        train_sft(make_config(student="none", sft={"lerning_rate": 1}), manifest, tmp_path, progress=Silent())


def test_an_impossible_value_is_refused_with_its_section(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.sft: .*lr_scheduler|train\.sft: .*not a valid"):
        train_sft(make_config(sft={"lr_scheduler_type": "cosin"}), manifest, tmp_path, progress=Silent())


def test_every_default_option_is_one_of_trl() -> None:
    known_options("train.sft", TrainConfig().sft_options, SFTConfig)


def test_at_a_tie_the_later_point_is_kept(tmp_path: Path) -> None:
    watch = Watch(
        "sft", tmp_path, History(tmp_path / "h.json"), Silent(), points=1, tokens_per_epoch=1, score=None, keep=lambda path: path.mkdir()
    )
    watch._keep(Best(3, 0.5))
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": 3, "value": 0.5}
    again = Watch("sft", tmp_path, History(tmp_path / "h.json"), Silent(), points=1, tokens_per_epoch=1, score=None, keep=lambda path: None)
    assert again.best == Best(3, 0.5), "a resumed run remembers its best point"


def general_file(tmp_path: Path, rows: int = 20) -> str:
    path = tmp_path / "general.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": [{"role": "user", "content": f"Say {i}"}], "completion": str(i)}) for i in range(rows)))
    return str(path)


def test_general_rows_can_be_held_to_the_base_instead(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(general={"source": general_file(tmp_path), "share": 0.2, "loss": "features"})
    progress = Recorder()
    record = train_sft(config, manifest, tmp_path / "run", progress=progress)
    assert (record["rows"], record["general_rows"], record["held_rows"]) == (48, 0, 20), "they are no rows to learn the labels of"
    assert progress.plans[0]["general ability"] == "held to the base's on 2 of 20 general rows a step"
    drifts = [line["general_drift"] for line in lines(tmp_path / "run") if "general_drift" in line]
    assert drifts[0] == 0.0, "a fresh adapter is the base"
    assert drifts[-1] > 0.0


def test_holding_to_the_base_needs_an_adapter(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(method="full", general={"source": general_file(tmp_path), "loss": "features"})
    with pytest.raises(ConfigError, match=r"train\.general\.loss is 'features'.*Set train\.general\.loss: labels"):
        train_sft(config, manifest, tmp_path / "run", progress=Silent())


def test_a_run_that_is_held_to_its_base_resumes_to_the_same_weights(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(
        general={"source": general_file(tmp_path), "share": 0.2, "loss": "features"},
        evaluation={"points": 3, "validation_rows": 4, "max_new_tokens": 4},
    )
    train_sft(config, manifest, tmp_path / "whole", progress=Silent())
    with pytest.raises(KeyboardInterrupt):
        train_sft(config, manifest, tmp_path / "broken", progress=Recorder(interrupt_at=5))
    train_sft(config, manifest, tmp_path / "broken", progress=Silent())
    whole, resumed = (load_file(tmp_path / name / "sft/adapter_model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_general_ability_is_measured_on_rows_set_aside(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(general={"source": general_file(tmp_path), "share": 0.2, "loss": "features", "budget": 0})
    progress = Recorder()
    record = train_sft(config, manifest, tmp_path / "run", progress=progress)
    assert record["held_rows"] == 16, "4 rows are set aside to measure on"
    assert progress.plans[0]["general ability"].endswith("may fall by 0 points on 4 rows set aside")
    points = [line for line in lines(tmp_path / "run") if "general" in line]
    assert [(line["step"], line["general"], line["general_within"]) for line in points] == [(3, 0.0, True), (6, 0.0, True)]


def watched(tmp_path: Path, budget: Budget) -> Watch:
    return Watch(
        "sft", tmp_path, History(tmp_path / "h.json"), Silent(), points=2, tokens_per_epoch=10,
        score=lambda: Measure("exact_match", 0.9, 0.8, 1.0, 10), keep=lambda path: path.mkdir(), budget=budget,
    )  # fmt: skip


def at_step(watch: Watch, step: int) -> TrainerControl:
    state, control = TrainerState(global_step=step, max_steps=2, epoch=1.0), TrainerControl()
    watch.on_train_begin(None, TrainerState(global_step=0, max_steps=2, epoch=0.0), control)  # type: ignore[arg-type]
    watch.on_step_end(None, state, control)  # type: ignore[arg-type]
    return control


@pytest.mark.parametrize(("now", "kept"), [(0.88, True), (0.86, False)])
def test_only_a_point_within_the_budget_is_kept(tmp_path: Path, now: float, kept: bool) -> None:
    called: list[str] = []
    budget = Budget(lambda: Measure("exact_match", now, 0, 1, 50), 0.9, 3.0, lambda: called.append("doubled"))  # type: ignore[func-returns-value]
    watch = watched(tmp_path, budget)
    control = at_step(watch, 1)
    assert (watch.best is not None) is kept
    assert bool(called) is not kept
    assert not control.should_training_stop


def test_where_nothing_holds_general_ability_the_budget_ends_the_run(tmp_path: Path) -> None:
    watch = watched(tmp_path, Budget(lambda: Measure("exact_match", 0.5, 0, 1, 50), 0.9, 3.0, lambda: "stopped"))
    assert at_step(watch, 1).should_training_stop
    assert watch.stopped == "general ability fell by 40.0 points (budget 3): stopped"


def test_a_run_whose_every_point_is_beyond_the_budget_fails_and_says_what_to_do(
    manifest: Manifest, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Budget, "within", lambda self, measure: False)
    config = make_config(general={"source": general_file(tmp_path), "share": 0.2, "budget": 1})
    with pytest.raises(TrainError, match=r"general ability fell .* no point can be kept\. Lower train\.sft\.learning_rate"):
        train_sft(config, manifest, tmp_path / "run", progress=Silent())


def test_a_resumed_run_holds_as_hard_as_it_did(
    manifest: Manifest, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Budget, "within", lambda self, measure: self.seen.append(1) or len(self.seen) > 1)
    monkeypatch.setattr(Budget, "seen", [], raising=False)
    config = make_config(
        general={"source": general_file(tmp_path), "share": 0.2, "loss": "features", "budget": 1},
        evaluation={"points": 3, "validation_rows": 4, "max_new_tokens": 4},
    )
    train_sft(config, manifest, tmp_path / "whole", progress=Silent())
    Budget.seen.clear()  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        train_sft(config, manifest, tmp_path / "broken", progress=Recorder(interrupt_at=5))
    train_sft(config, manifest, tmp_path / "broken", progress=Silent())
    whole, resumed = (load_file(tmp_path / name / "sft/adapter_model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_rows(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    broken = tmp_path / "student"
    student, tokenizer = model.load_student(make_config().student)
    student.model.layers[1].mlp.down_proj.weight.data.fill_(float("nan"))
    student.save_pretrained(broken)
    tokenizer.save_pretrained(broken)
    config = make_config(student=str(broken), evaluation={"points": 1, "validation_rows": 1, "max_new_tokens": 2})
    with pytest.raises(TrainError, match=r"the loss is nan at step 1; the rows of that batch: \S+, .*Lower train\.sft\.learning_rate"):
        train_sft(config, manifest, tmp_path / "run", progress=Silent())


def test_the_rows_of_a_batch_are_found_by_their_tokens() -> None:
    rows = [Encoded("a", [1, 2, 3], 1), Encoded("b", [2, 3], 1)]
    assert rows_of(torch.tensor([[1, 2, 3, 0], [2, 3, 0, 0]]), rows) == ["a", "b"]
    assert rows_of(torch.tensor([[12, 3, 0]]), rows) == []


def uneven(export: Path, keep: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 8, 9, 12, 16, 20, 24)) -> Manifest:
    """The toy export with few rows, most of them of one label."""
    path = export / "sft/train.parquet"
    pq.write_table(pq.read_table(path).take(list(keep)), path)
    raw = json.loads((export / "manifest.json").read_text())
    raw["files"]["sft/train.parquet"] = {"rows": len(keep), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (export / "manifest.json").write_text(json.dumps(raw))
    return Manifest.read(export)


def test_every_class_weighs_the_same_and_the_mean_is_one() -> None:
    classes = {**{f"a{i}": "a" for i in range(90)}, **{f"b{i}": "b" for i in range(10)}}
    tokens = {row: 5 if row.startswith("a") else 3 for row in classes}
    weights = weigh(classes, tokens)
    sums = {name: sum(weights[row] * tokens[row] for row in classes if classes[row] == name) for name in "ab"}
    assert sums["a"] == pytest.approx(sums["b"])
    assert sums["a"] + sums["b"] == pytest.approx(sum(tokens.values()))


def test_no_row_is_blown_up() -> None:
    classes = {**{f"a{i}": "a" for i in range(999)}, "b": "b"}
    weights = weigh(classes, dict.fromkeys(classes, 1))
    assert weights["b"] / weights["a0"] == pytest.approx(HEAVIEST / (1000 / 2 / 999))


@pytest.mark.parametrize(
    "batches",
    [
        {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 1},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "packing": True},
    ],
    ids=["one batch", "accumulated", "packed"],
)
def test_a_step_moves_by_the_weighted_gradient(export: Path, make_config: MakeConfig, tmp_path: Path, batches: dict[str, Any]) -> None:
    manifest = uneven(export)
    plain = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "lr_scheduler_type": "constant", "warmup_steps": 0, "max_steps": 1}
    config = make_config(weighting="label", max_length=96, sft={**plain, **batches})
    record = train_sft(config, manifest, tmp_path / "run", progress=Silent())
    assert record["weights"][0] < 1 < record["weights"][1]
    student = model.load_student(config.student, config)
    rows = read_training(manifest)
    encoded = template.encode(student.tokenizer, template.adapt(student.tokenizer, "s"), sources_of(rows), 96).rows
    tokens = {row.id: len(row.ids) - row.prompt_length for row in encoded}
    weights = weigh({row.id: row.label for row in rows}, tokens)
    net = model.add_lora(student.model, config)
    loss = torch.zeros(())
    for row in encoded:
        logprobs = net(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        loss = loss - weights[row.id] * sum(logprobs[at - 1, row.ids[at]] for at in range(row.prompt_length, len(row.ids)))
    (loss / sum(tokens.values())).backward()
    trained = load_file(tmp_path / "run/sft/adapter_model.safetensors")
    moved = 0
    for name, weight in net.named_parameters():
        if weight.requires_grad:
            expected = weight.detach() - weight.grad
            assert torch.allclose(trained[name.replace(".default", "")], expected, atol=1e-5), name
            moved += int((weight.grad.abs() > 1e-4).any())
    assert moved


def test_a_weighting_by_what_no_row_has_is_refused(export: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    path = export / "sft/train.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["label"]), path)
    raw = json.loads((export / "manifest.json").read_text())
    raw["files"]["sft/train.parquet"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (export / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match="no row has a label"):
        train_sft(make_config(weighting="label"), Manifest.read(export), tmp_path / "run", progress=Silent())
    with pytest.raises(ConfigError, match="Leave one of them out"):
        train_sft(make_config(weighting="label", sft={"loss_type": "dft"}), Manifest.read(export), tmp_path / "run", progress=Silent())


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"learning_rate": "fast"}, r"train\.sft\.learning_rate is 'fast'; it must be a number"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0; it must be above 0"),
        ({"num_train_epochs": 0}, "num_train_epochs is 0; it must be above 0"),
        ({"report_to": "trakio"}, r"no tracker is called 'trakio' .did you mean `trackio`"),
        ({"report_to": ["clearml"]}, "report_to is 'clearml', and it is not installed. Install it: .*pip install clearml"),
    ],
)
def test_an_option_that_cannot_work_is_refused(option: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        known_options("train.sft", {**TrainConfig().sft_options, **option}, SFTConfig)


def test_our_own_measurements_reach_whoever_follows_the_run(
    manifest: Manifest, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, float] = {}

    class Follower(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            seen.update(logs)

    monkeypatch.setitem(integrations.INTEGRATION_TO_CALLBACK, "codecarbon", Follower)
    monkeypatch.setattr(sft, "get_available_reporting_integrations", lambda: ["codecarbon"])
    options = {**make_config().sft, "report_to": "codecarbon"}
    config = make_config(sft=options, general={"source": general_file(tmp_path), "share": 0.2, "budget": 100})
    train_sft(config, manifest, tmp_path / "run", progress=Silent())
    assert {"loss", "learning_rate", "eval_general", "eval_sft_macro_f1", "eval_sft_macro_f1_low"} <= seen.keys()


def test_trackio_keeps_a_run_under_its_recipe_and_id(
    manifest: Manifest, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "tracked"))
    script = (
        "import sys; from pathlib import Path; from train.dataset import Manifest; from train.run import config_of; from train.sft import "
        "train_sft; from train.watch import Silent; c = config_of(Path(sys.argv[1])); "
        "train_sft(c, Manifest.read(c.data), Path(sys.argv[1]), progress=Silent())"
    )
    config = make_config(sft={**make_config().sft, "report_to": "trackio"})
    (tmp_path / "r1").mkdir()
    (tmp_path / "r1/run.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "r1")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (database,) = (tmp_path / "tracked").glob("*.db")
    with sqlite3.connect(database) as store:
        rows = store.execute("SELECT run_name, CAST(metrics AS TEXT) FROM metrics").fetchall()
    assert database.stem == "toy" and {name for name, _ in rows} == {"r1-sft"}
    assert any("eval/sft_macro_f1" in text for _, text in rows) and any("train/loss" in text for _, text in rows)


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    History(path).add("sft", 1, 10, loss=2.0)
    with path.open("a") as file:
        file.write('{"stage": "sft", "st')
    history = History(path)
    assert [line["step"] for line in history.lines] == [1]
    history.rewind("sft", 1)
    history.add("sft", 2, 20, loss=1.0)
    assert [line["step"] for line in read_history(path)] == [1, 2]


def test_the_time_left_counts_the_pauses_for_scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watched(tmp_path, Budget(lambda: Measure("exact_match", 0.9, 0, 1, 50), 0.9, 3.0, lambda: None))
    now = [0.0]
    monkeypatch.setattr("train.watch.time.monotonic", lambda: now[0])
    watch.on_train_begin(None, TrainerState(global_step=0, max_steps=10, epoch=0.0), TrainerControl())  # type: ignore[arg-type]
    assert watch.at == {5, 10}
    now[0], watch.scoring, watch.scored = 5 * 2.0 + 7.0, 7.0, 1
    assert watch._left(TrainerState(global_step=5, max_steps=10, epoch=0.5)) == 5 * 2.0 + 7.0
