"""Students load as what they are, adapters start as nothing, and what cannot be loaded is said in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from train import model
from train.config import TrainConfig
from train.errors import ConfigError, ModelError
from train.evaluate import generate

PROMPTS = [[{"role": "user", "content": f"What is {thing}?"}] for thing in ("grass", "snow", "coal")]
MakeConfig = Callable[..., TrainConfig]


def answers(student: model.Student) -> list[str]:
    return generate(student.model, student.tokenizer, PROMPTS, max_new_tokens=12, batch_size=2)


def test_weights_are_float32_on_a_cpu(student: Path) -> None:
    assert model.load_student(str(student)).model.dtype is torch.float32


def test_generation_stops_at_the_template_stop_token(student: Path) -> None:
    loaded = model.load_student(str(student))
    assert model.stop_ids(loaded.model) == [2, 0]  # <|im_end|> first, <|endoftext|> kept


def test_fresh_adapters_change_nothing_that_is_written(student: Path, make_config: MakeConfig) -> None:
    untouched = model.load_student(str(student))
    before = answers(untouched)
    config = make_config()
    tuned = model.load_student(str(student), config)
    assert answers(model.Student(model.add_lora(tuned.model, config), tuned.tokenizer)) == before


@pytest.mark.real_data
def test_a_real_pretrained_student_writes_what_it_wrote_before_adapters(real_data: Path, make_config: MakeConfig) -> None:
    folder = real_data / "stories260k_hf"
    raw = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loaded = model.load_student(str(folder), make_config(student=str(folder)))
    text = "Once upon a time, there was a little girl"
    ids = loaded.tokenizer(text, return_tensors="pt").input_ids
    tuned = model.add_lora(loaded.model, make_config())
    with torch.inference_mode():
        expected = raw.generate(ids, max_new_tokens=40, do_sample=False, pad_token_id=0)
        found = tuned.generate(input_ids=ids, max_new_tokens=40, do_sample=False, pad_token_id=0)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("targets", "count"), [("all-linear", 14), ("attention", 8), (["q_proj"], 2)])
def test_presets_choose_the_layers_to_adapt(student: Path, make_config: MakeConfig, targets: Any, count: int) -> None:
    config = make_config(lora={"r": 2, "target_modules": targets})
    tuned = model.add_lora(model.load_student(str(student), config).model, config)
    assert sum("lora_A" in name for name, _ in tuned.named_parameters()) == count


def test_unknown_layers_are_refused_with_those_that_exist(student: Path, make_config: MakeConfig) -> None:
    config = make_config(lora={"target_modules": ["c_attn"]})
    with pytest.raises(ConfigError, match=r"c_attn.*q_proj"):
        model.add_lora(model.load_student(str(student), config).model, config)


def test_the_trainable_share_counts_adapters_only(student: Path, make_config: MakeConfig) -> None:
    config = make_config()
    loaded = model.load_student(str(student), config).model
    total = model.share(loaded).total
    share = model.share(model.add_lora(loaded, config))
    assert share.total == total + share.trainable
    assert 0 < share.percent < 50


def test_parameters_are_counted_without_loading_weights(student: Path) -> None:
    assert model.parameters(str(student)) == model.share(model.load_student(str(student)).model).total


def test_a_four_bit_student_counts_the_parameters_it_holds(
    tmp_path: Path, make_student: Callable[..., Path], make_config: MakeConfig
) -> None:
    folder = make_student(tmp_path / "s", hidden_size=64, intermediate_size=128)
    quantized = model.load_student(str(folder), make_config(method="qlora"))
    plain = model.load_student(str(folder), make_config(method="qlora"), quantize=False)
    assert any(p.__class__.__name__ == "Params4bit" for p in quantized.model.parameters())
    assert model.share(quantized.model).total == model.share(plain.model).total


def test_several_adapters_share_one_base(student: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    base = model.load_student(str(student), config)
    plain = answers(base)
    tuned = model.add_lora(base.model, config)
    tuned.save_pretrained(tmp_path / "a")
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1.0, generator=torch.Generator().manual_seed(1))
    tuned.save_pretrained(tmp_path / "b")
    both = model.load_with_adapters(str(student), {"sft": tmp_path / "a", "dpo": tmp_path / "b"}, config)
    both.model.set_adapter("sft")
    assert answers(both) == plain
    both.model.set_adapter("dpo")
    assert answers(both) != plain
    with both.model.disable_adapter():
        assert answers(both) == plain


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no/such-model", "not a folder here and not reachable as a hub id"),
        ("./no/such/folder", "not a folder here and not a hub id"),
        ("a/b/c", "not a folder here and not a hub id"),
    ],
)
def test_an_unknown_student_is_refused_in_one_line(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as error:
        model.load_student(name)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        model.load_student(str(tmp_path))


def test_a_folder_without_tokenizer_is_refused_in_one_line(tmp_path: Path, make_student: Callable[..., Path]) -> None:
    folder = make_student(tmp_path / "s")
    for path in [*folder.glob("tokenizer*"), *folder.glob("*.jinja")]:
        path.unlink()
    with pytest.raises(ModelError, match="has no tokenizer") as error:
        model.load_student(str(folder))
    assert "\n" not in str(error.value)


def test_a_folder_without_weights_is_refused(tmp_path: Path, make_student: Callable[..., Path]) -> None:
    folder = make_student(tmp_path / "s")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded as a causal language model"):
        model.load_student(str(folder))


def test_an_adapter_that_is_not_there_is_refused(student: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no adapter here"):
        model.load_student(str(student), adapter=tmp_path)


def test_an_adapter_of_another_base_is_refused(
    student: Path, tmp_path: Path, make_student: Callable[..., Path], make_config: MakeConfig
) -> None:
    config = make_config()
    model.add_lora(model.load_student(str(student), config).model, config).save_pretrained(tmp_path / "a")
    other = make_student(tmp_path / "other", hidden_size=64)
    with pytest.raises(ModelError, match="does not fit its base"):
        model.load_student(str(other), config, adapter=tmp_path / "a")


def test_a_tokenizer_without_pad_token_gets_one(
    tmp_path: Path, make_student: Callable[..., Path], make_tokenizer: Callable[..., PreTrainedTokenizerFast]
) -> None:
    tokenizer = make_tokenizer()
    folder = make_student(tmp_path / "s", tokenizer)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert model.load_tokenizer(str(folder)).pad_token == "<|endoftext|>"


def test_dora_trains_the_lengths_of_columns_too(make_config: MakeConfig) -> None:
    config = make_config(lora={"r": 4, "alpha": 8, "dora": True})
    net = model.add_lora(model.load_student(config.student, config).model, config)
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert any("lora_magnitude_vector" in name for name in trained)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("old format", "holds its weights as pytorch_model.bin, a format that can run code"),
        ("own code", "brings code of its own.*train.trust_remote_code: true"),
        ("cut short", "cannot be loaded as a causal language model"),
        ("other shape", "cannot be loaded as a causal language model"),
        ("other architecture", "of its weights are not in its files .*they would be random numbers"),
    ],
)
def test_weights_that_are_not_the_students_are_refused_in_one_line(
    tmp_path: Path, make_student: Callable[..., Path], spoil: str, words: str
) -> None:
    folder = make_student(tmp_path / "s")
    weights, settings = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    if spoil == "old format":
        torch.save({}, folder / "pytorch_model.bin")
        weights.unlink()
    elif spoil == "cut short":
        weights.write_bytes(weights.read_bytes()[:5000])
    else:
        code = {"model_type": "mine", "auto_map": {"AutoConfig": "m.C", "AutoModelForCausalLM": "m.M"}}
        change = {"own code": code, "other shape": {"hidden_size": 64}, "other architecture": {"model_type": "qwen3"}}[spoil]
        (folder / "m.py").write_text("raise SystemExit('it ran')")
        (folder / "config.json").write_text(json.dumps({**settings, **change}))
    with pytest.raises(ModelError, match=words) as error:
        model.load_student(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma", "mistral"])
def test_students_of_every_family_get_adapters_and_keep_their_answers(
    tmp_path: Path, make_tokenizer: Callable[..., PreTrainedTokenizerFast], make_config: MakeConfig, kind: str
) -> None:
    tokenizer = make_tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"vocab_size": len(tokenizer), "head_dim": 8, "eos_token_id": 0, "pad_token_id": 0, "bos_token_id": 0}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape, **ids, max_position_embeddings=256)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = make_config(student=str(tmp_path))
    loaded = model.load_student(str(tmp_path), config)
    before = answers(loaded)
    tuned = model.add_lora(loaded.model, config)
    assert model.share(tuned).trainable > 0
    assert answers(model.Student(tuned, loaded.tokenizer)) == before
