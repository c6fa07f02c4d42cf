"""The merged model in smaller forms answers nearly as before, says how it was made, and is made once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from train import artifacts, model, quantize, sums
from train.config import TrainConfig, with_formats
from train.errors import ConfigError, ModelError
from train.merge import read_card
from train.watch import Silent

ALL = ["gguf-f16", "gguf-q8_0", "gguf-q4_k_m", "gguf-lora", "awq", "gptq"]
TEXT = "<|im_start|>user\nWhat is grass?<|im_end|>\n<|im_start|>assistant\n"
# The largest share by which an output of a weight matrix, root mean square, may differ: 16 bits, 8 bits, and 4 bits with a scale for 32 or 256.
ROUNDING = {"gguf-f16": 0.001, "gguf-q8_0": 0.01, "gguf-q4_k_m": 0.1, "awq": 0.12, "gptq": 0.12}


@pytest.fixture(scope="module")
def done(finish: Callable[..., Any], make_student: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with every form; its layers are 64 and 256 wide, so that both K-quants and their fallbacks occur."""
    folder = tmp_path_factory.mktemp("quantized")
    done = finish(folder, make_student(folder / "student", hidden_size=64, intermediate_size=256))
    quantize.quantize_run(done.config, done.manifest, done.run_dir, progress=Silent())
    return done


def facts(run_dir: Path, name: str) -> dict[str, Any]:
    return sums.read_facts(run_dir / "quantized" / name)


def test_every_form_is_made_and_found_in_order(done: Any) -> None:
    assert [artifact.name for artifact in artifacts.found(done.run_dir)] == ["adapter", "merged", *ROUNDING]
    assert facts(done.run_dir, "gguf-lora")["tensors"] == 28


@pytest.mark.parametrize("name", ROUNDING)
def test_a_form_loads_from_its_own_files_with_weights_near_the_merged(name: str, done: Any) -> None:
    merged = artifacts.load(artifacts.place(done.run_dir, "merged"), done.config)
    form = artifacts.load(artifacts.place(done.run_dir, name), done.config)
    theirs = dict(form.model.named_parameters())
    assert set(theirs) == set(dict(merged.model.named_parameters()))
    for key, weight in merged.model.named_parameters():
        assert float((theirs[key] - weight).detach().norm() / weight.detach().norm()) < ROUNDING[name], key
    assert model.stop_ids(form.model) == model.stop_ids(merged.model) == [2, 0]
    assert form.tokenizer.chat_template == merged.tokenizer.chat_template
    assert form.tokenizer(TEXT).input_ids == merged.tokenizer(TEXT).input_ids


def test_a_form_says_how_it_was_made(done: Any) -> None:
    q4, awq = facts(done.run_dir, "gguf-q4_k_m"), facts(done.run_dir, "awq")
    assert (q4["pre"], q4["differs_on"]) == ("qwen2", [])
    assert sum(q4["tensor_types"].values()) == 20
    assert {"Q4_K", "Q5_0", "Q6_K", "Q8_0"} <= set(q4["tensor_types"])
    assert q4["fallbacks"]["blk.0.attn_q.weight"] == "Q5_0 for Q4_K"
    assert (awq["bits"], awq["group_size"], awq["calibration_tokens"] > 0) == (4, 64, True)
    assert awq["sha256"]["model.safetensors"] == sums.file_sha256(done.run_dir / "quantized/awq/model.safetensors")
    assert read_card(done.run_dir / "quantized/awq")["stop"] == "<|im_end|>"


def test_layers_that_stayed_as_they_were_are_named(done: Any) -> None:
    net = artifacts.load(artifacts.place(done.run_dir, "merged"), done.config).model
    kept = facts(done.run_dir, "gptq")["not_quantized"]
    packed = artifacts.load(artifacts.place(done.run_dir, "gptq"), done.config).model
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            same = torch.equal(module.weight, packed.get_submodule(name).weight)
            assert same == (name in kept), name


def test_what_is_there_is_not_made_again_and_what_is_missing_is(done: Any, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(done.run_dir, run_dir)
    config = with_formats(done.config, ["gguf-f16", "gguf-q8_0"])
    kept = (run_dir / "quantized/gguf-f16/model.gguf").stat().st_mtime_ns
    shutil.rmtree(run_dir / "quantized/gguf-q8_0")
    record = quantize.quantize_run(config, done.manifest, run_dir, progress=Silent())
    assert list(record["formats"]) == ["gguf-f16", "gguf-q8_0"]
    assert (run_dir / "quantized/gguf-q8_0/model.gguf").is_file()
    assert (run_dir / "quantized/gguf-f16/model.gguf").stat().st_mtime_ns == kept


@pytest.mark.parametrize("edited", ["merged/generation_config.json", "quantized/gguf-f16/model.gguf"])
def test_a_form_is_made_again_when_it_or_the_merged_model_changed(edited: str, done: Any, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(done.run_dir, run_dir)
    if edited.endswith(".json"):
        settings = json.loads((run_dir / edited).read_text())
        (run_dir / edited).write_text(json.dumps({**settings, "eos_token_id": [2]}))
    else:
        content = bytearray((run_dir / edited).read_bytes())
        content[-1] ^= 1
        (run_dir / edited).write_bytes(content)
    before = sums.file_sha256(run_dir / "quantized/gguf-f16/model.gguf")
    quantize.quantize_run(with_formats(done.config, ["gguf-f16"]), done.manifest, run_dir, progress=Silent())
    assert sums.file_sha256(run_dir / "quantized/gguf-f16/model.gguf") != before


def test_calibration_takes_training_rows_only_evenly_over_the_split(done: Any) -> None:
    config = done.config.model_copy(update={"quantize": done.config.quantize.model_copy(update={"rows": 12})})
    material = quantize.gather(config, done.manifest, done.run_dir / "merged")
    assert (len(material.rows), len(material.prompts)) == (12, 12)
    tokenizer = model.load_tokenizer(str(done.run_dir / "merged"))
    assert sum("What is grass" in prompt for prompt in material.prompts) == 12  # every fourth of the training rows
    assert all(tokenizer.decode(row).startswith(prompt) for row, prompt in zip(material.rows, material.prompts, strict=True))


def test_a_form_that_this_student_cannot_take_is_skipped_with_its_reason_or_refused_if_named(
    finish: Callable[..., Any], make_student: Callable[..., Path], tmp_path: Path
) -> None:
    done = finish(tmp_path, make_student(tmp_path / "student", hidden_size=40, intermediate_size=80), quantize={"iterations": 1})
    said: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            said.append(text)

    record = quantize.quantize_run(done.config, done.manifest, done.run_dir, progress=Listening())
    assert "cannot be cut into groups of 32" in record["formats"]["awq"]["skipped"]
    assert any("awq skipped" in text for text in said)
    assert not list((done.run_dir / "quantized").glob("*.new"))
    with pytest.raises(ModelError, match="cannot be cut into groups of 32"):
        quantize.quantize_run(with_formats(done.config, ["awq"]), done.manifest, done.run_dir, progress=Silent())


def test_no_format_is_a_skip(done: Any) -> None:
    config = done.config.model_copy(update={"quantize": None})
    assert "skipped" in quantize.quantize_run(config, done.manifest, done.run_dir, progress=Silent())


def test_a_missing_merged_model_is_refused(done: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no merged model is here to quantize"):
        quantize.quantize_run(done.config, done.manifest, tmp_path, progress=Silent())


def test_a_full_disk_is_told_before_anything_is_made(done: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(done.run_dir)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000) if hasattr(usage, "_replace") else usage)
    with pytest.raises(ConfigError, match=r"0 MB free, awq, gptq may need \d+"):
        quantize.check_disk(done.run_dir, done.run_dir / "merged", ["awq", "gptq"])


def test_an_unknown_format_is_refused_with_the_near_one() -> None:
    with pytest.raises(ConfigError, match=r"gguf-q4km: no such format \(did you mean `gguf-q4_k_m`\?\)"):
        with_formats(TrainConfig(), ["gguf-q4km"])
    with pytest.raises(ValueError, match=r"gtpq is no format \(did you mean `gptq`\?\)"):
        TrainConfig.model_validate({"quantize": {"formats": ["gtpq"]}})


def test_an_unknown_artifact_is_refused_with_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gguf-q8: no artifact has this name \(did you mean `gguf-q8_0`\?\)"):
        artifacts.place(tmp_path, "gguf-q8")


@pytest.mark.parametrize("name", ["adapter", "merged", "gguf-f16", "awq", "gptq"])
def test_a_missing_artifact_says_how_to_make_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not there. Make it with `python -m train (run|merge|quantize)`"):
        artifacts.load(artifacts.place(tmp_path, name), TrainConfig())


@pytest.mark.parametrize("name", ["merged", "awq", "gptq"])
def test_a_damaged_artifact_is_one_clear_line(name: str, done: Any, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(done.run_dir, run_dir)
    artifact = artifacts.place(run_dir, name)
    weights = artifact.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=f"{name}: (damaged|cannot be loaded)"):
        artifacts.load(artifact, done.config)


def test_a_folder_of_another_layout_is_refused(done: Any) -> None:
    artifact = artifacts.Artifact("awq", "awq", done.run_dir / "quantized/gptq")
    with pytest.raises(ModelError, match="holds gptq of another kind than is read here"):
        artifacts.load(artifact, done.config)


def test_a_whole_model_is_its_own_adapter(finish: Callable[..., Any], student: Path, tmp_path: Path) -> None:
    done = finish(tmp_path, student)
    shutil.rmtree(done.run_dir / "sft")
    shutil.copytree(done.run_dir / "merged", done.run_dir / "sft")
    assert artifacts.load(artifacts.place(done.run_dir, "adapter"), done.config).model.dtype == torch.float32
    with pytest.raises(ModelError, match="has no LoRA adapter, as all weights were trained"):
        quantize.quantize_run(with_formats(done.config, ["gguf-lora"]), done.manifest, done.run_dir, progress=Silent())
