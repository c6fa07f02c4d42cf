"""What is written as GGUF is what was merged: weights, token ids, template, stop ids."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from train import artifacts, gguf_file, model
from train.config import TrainConfig
from train.errors import ModelError

TEXT = "<|im_start|>user\nWhat is grass? 12<|im_end|>\n<|im_start|>assistant\n"
SHAPE: dict[str, Any] = {
    "vocab_size": 330, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "llama with its own head": lambda: LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "llama 3.1's frequencies": lambda: LlamaConfig(**SHAPE, rope_parameters=LLAMA3),
    "mistral": lambda: MistralConfig(**SHAPE, sliding_window=None),
    "qwen2": lambda: Qwen2Config(**SHAPE),
    "qwen3": lambda: Qwen3Config(**SHAPE, head_dim=32),
}


def save(folder: Path, config: Any, tokenizer: Any) -> Path:
    """A random model with all its weights moved from where they begin, so that none of them is 0 or 1."""
    torch.manual_seed(0)
    net = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    net.generation_config.eos_token_id = [2, 0]
    net.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def load(path: Path) -> model.Student:
    return artifacts.load(artifacts.Artifact("gguf-f16", "gguf", path), TrainConfig())


def logits(student: model.Student) -> torch.Tensor:
    ids = student.tokenizer(TEXT, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.inference_mode():
        return student.model(input_ids=ids).logits[0].float()


@pytest.mark.parametrize("name", CONFIGS)
def test_an_f16_file_gives_the_logits_of_the_folder(name: str, make_tokenizer: Callable[..., Any], tmp_path: Path) -> None:
    folder = save(tmp_path / "model", CONFIGS[name](), make_tokenizer())
    gguf_file.write_model(folder, tmp_path / "model.gguf", "f16", [TEXT])
    found, right = logits(load(tmp_path / "model.gguf")), logits(model.load_student(str(folder)))
    assert float((found - right).abs().max()) < 0.01 * float(right.abs().max())


def test_template_stop_ids_and_special_tokens_are_in_the_file(make_tokenizer: Callable[..., Any], tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    folder = save(tmp_path / "model", CONFIGS["llama"](), tokenizer)
    facts = gguf_file.write_model(folder, tmp_path / "model.gguf", "f16", [TEXT])
    student = load(tmp_path / "model.gguf")
    assert (facts["stop_ids"], facts["adds_bos"]) == ([2, 0], False)
    assert model.stop_ids(student.model) == [2, 0]
    assert student.tokenizer.chat_template == tokenizer.chat_template
    assert (student.tokenizer.eos_token, student.tokenizer.pad_token) == (tokenizer.eos_token, tokenizer.pad_token)
    assert student.tokenizer.decode(student.tokenizer(TEXT).input_ids, skip_special_tokens=True) == "user\nWhat is grass? 12\nassistant\n"


def byte_level(*cuts: Any, whole: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer that has learned merges under its own way of cutting, from the samples themselves."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*gguf_file.SAMPLES, "100 1000 12 123", "  \n\n \n ", "a 'S b", "123456"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
CUTS = {
    "qwen2": (pre_tokenizers.Split(Regex(QWEN), "isolated"),),
    "llama-bpe": (pre_tokenizers.Split(Regex(LLAMA), "isolated"),),
    "smollm": (pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)),
    "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),),
}


@pytest.mark.parametrize("name", CUTS)
def test_the_pre_tokenizer_is_found_by_what_it_does(name: str) -> None:
    cuts = CUTS[name]
    tokenizer = byte_level(*cuts[:-1] if name in ("smollm", "gpt-2") else cuts, whole=name == "llama-bpe")
    if name in ("smollm", "gpt-2"):
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(cuts))
    assert gguf_file.find_pre(tokenizer, ["What is grass?"]) == {"pre": name, "differs_on": []}


def test_a_tokenizer_that_no_pre_tokenizer_matches_is_refused() -> None:
    tokenizer = byte_level(pre_tokenizers.Split(Regex(r"[a-m]+|[^a-m]+"), "isolated"))
    with pytest.raises(ModelError, match="none of llama.cpp's ways of cutting text"):
        gguf_file.find_pre(tokenizer, gguf_file.SAMPLES)


def test_a_tokenizer_of_another_kind_is_refused(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer()
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    document["model"]["byte_fallback"] = True
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(document)))
    with pytest.raises(ModelError, match="not a byte-level BPE"):
        gguf_file.find_pre(other, ["a"])


def test_an_architecture_that_is_not_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="its architecture gemma2 is not written as GGUF here; known are llama"):
        gguf_file.architecture(AutoConfig.for_model("gemma2"), tmp_path)


def test_another_rope_scaling_is_refused(make_tokenizer: Callable[..., Any], tmp_path: Path) -> None:
    config = LlamaConfig(**SHAPE, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0})
    with pytest.raises(ModelError, match="rope_type yarn"):
        gguf_file.write_model(save(tmp_path / "model", config, make_tokenizer()), tmp_path / "model.gguf", "f16", [TEXT])


@pytest.mark.parametrize(
    ("name", "shape", "form", "wanted", "kind"),
    [
        ("blk.0.attn_q.weight", (64, 256), "q4_k_m", "Q4_K", "Q4_K"),
        ("blk.0.attn_q.weight", (64, 224), "q4_k_m", "Q4_K", "Q5_0"),
        ("blk.0.ffn_down.weight", (64, 512), "q4_k_m", "Q6_K", "Q6_K"),
        ("blk.5.ffn_down.weight", (64, 512), "q4_k_m", "Q4_K", "Q4_K"),
        ("blk.0.attn_v.weight", (64, 224), "q4_k_m", "Q6_K", "Q8_0"),
        ("token_embd.weight", (320, 256), "q4_k_m", "Q6_K", "Q6_K"),
        ("token_embd.weight", (320, 224), "q4_k_m", "Q8_0", "Q8_0"),
        ("blk.0.attn_q.weight", (64, 224), "q8_0", "Q8_0", "Q8_0"),
        ("blk.0.attn_q.weight", (64, 40), "q8_0", "Q8_0", "F16"),
        ("blk.0.attn_q.weight", (64, 40), "f16", "F16", "F16"),
        ("blk.0.attn_norm.weight", (64,), "q4_k_m", "F32", "F32"),
    ],
)
def test_a_tensor_gets_the_type_that_llama_cpp_would_give_it(
    name: str, shape: tuple[int, ...], form: gguf_file.Form, wanted: str, kind: str
) -> None:
    assert gguf_file.tensor_type(name, shape, form, 16, tied=True) == (wanted, kind)


def test_weights_beyond_f16_are_refused(make_tokenizer: Callable[..., Any], tmp_path: Path) -> None:
    folder = save(tmp_path / "model", CONFIGS["llama"](), make_tokenizer())
    net = AutoModelForCausalLM.from_pretrained(str(folder))
    with torch.no_grad():
        net.model.layers[0].mlp.up_proj.weight[0, 0] = 70000
    net.save_pretrained(str(folder))
    with pytest.raises(ModelError, match=r"up_proj.weight: holds 7e\+04"):
        gguf_file.write_model(folder, tmp_path / "model.gguf", "f16", [TEXT])


def test_an_adapter_is_written_with_its_rows_in_llama_cpps_order(finish: Callable[..., Any], student: Path, tmp_path: Path) -> None:
    done = finish(tmp_path, student)
    facts = gguf_file.write_adapter(done.run_dir / "sft", done.run_dir / "merged", tmp_path / "adapter.gguf")
    assert facts == {"alpha": 8, "rank": 4, "tensors": 28}
    reader = gguf_file.library().GGUFReader(str(tmp_path / "adapter.gguf"))
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert (fields["general.type"], fields["adapter.type"], fields["adapter.lora.alpha"]) == ("adapter", "lora", 8.0)
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    net = model.load_student(str(student), adapter=done.run_dir / "sft").model
    own = {name: weight.detach().numpy() for name, weight in net.named_parameters()}
    layer = "base_model.model.model.layers.0"
    assert np.array_equal(tensors["blk.0.ffn_up.weight.lora_b"], own[f"{layer}.mlp.up_proj.lora_B.default.weight"])
    query = own[f"{layer}.self_attn.q_proj.lora_B.default.weight"]
    assert np.array_equal(tensors["blk.0.attn_q.weight.lora_b"][:8:2], query[:4])  # the first half of the first head's rows


@pytest.mark.parametrize("key", ["use_dora", "use_rslora"])
def test_an_adapter_that_llama_cpp_has_no_place_for_is_refused(key: str, finish: Callable[..., Any], student: Path, tmp_path: Path) -> None:
    done = finish(tmp_path, student)
    path = done.run_dir / "sft/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: True}))
    with pytest.raises(ModelError, match=f"its {key} is True"):
        gguf_file.write_adapter(done.run_dir / "sft", done.run_dir / "merged", tmp_path / "adapter.gguf")


def test_a_damaged_file_is_one_clear_line(make_tokenizer: Callable[..., Any], tmp_path: Path) -> None:
    folder = save(tmp_path / "model", CONFIGS["llama"](), make_tokenizer())
    path = tmp_path / "model.gguf"
    gguf_file.write_model(folder, path, "f16", [TEXT])
    whole = path.read_bytes()
    for cut in (b"", whole[:3], whole[:2000], b"x" + whole[1:], whole[:-5000]):
        path.write_bytes(cut)
        with pytest.raises(ModelError, match=r"model\.gguf: "):
            load(path)
