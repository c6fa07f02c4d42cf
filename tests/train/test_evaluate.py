"""Generation equals the library's, sets are read as they are, and a run's evaluation files say what happened."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from train import evaluate
from train.dataset import Row
from train.errors import DataError
from train.metrics import TaskSpec

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TASK = TaskSpec(label_field="intent", labels=("a", "b"), system="Answer in JSON.")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, with special tokens for roles."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|pad|>")
    made.add_special_tokens({"additional_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>"]})
    made.chat_template = TEMPLATE
    return made


def random_model(tokenizer: PreTrainedTokenizerFast, kind: str = "llama") -> Any:
    """A random student whose greedy text varies, and stops now and then."""
    torch.manual_seed(7)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.6,
    }
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    else:
        model = MistralForCausalLM(MistralConfig(**sizes, sliding_window=8))
    # Many stop ids, so that rows of one batch stop at different steps.
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *range(100, 115)]
    return model.eval()


def prompts(count: int = 13) -> list[list[dict[str, str]]]:
    return [
        [
            {"role": "system", "content": "You are a desk."},
            {"role": "user", "content": f"message {i} " + "word " * (i * 5 % 7)},
        ]
        for i in range(count)
    ]


def one_by_one(model: Any, tokenizer: Any, asked: list[Any], new: int) -> list[str]:
    """The library's own greedy answer to each prompt alone, unpadded."""
    stops = model.generation_config.eos_token_id
    answers = []
    for prompt in asked:
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        options = GenerationConfig(
            do_sample=False, max_new_tokens=new, eos_token_id=stops, pad_token_id=tokenizer.pad_token_id
        )
        with torch.inference_mode():
            row = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=options)
        row = row[0, ids.shape[1] :].tolist()
        end = next((i for i, token in enumerate(row) if token in stops), len(row))
        answers.append(tokenizer.decode(row[:end], skip_special_tokens=True))
    return answers


@pytest.mark.parametrize("kind", ["llama", "sliding window"])
def test_batched_answers_equal_the_library_one_by_one(tokenizer: Any, kind: str) -> None:
    model = random_model(tokenizer, "llama" if kind == "llama" else "mistral")
    expected = one_by_one(model, tokenizer, prompts(), 40)
    assert len({len(text) for text in expected}) > 3, "the case should have rows that stop at different steps"
    assert evaluate.generate(model, tokenizer, prompts(), max_new_tokens=40, batch_size=5) == expected


def test_a_sliding_window_is_left_to_the_library(tokenizer: Any) -> None:
    assert evaluate._has_plain_cache(random_model(tokenizer))
    assert not evaluate._has_plain_cache(random_model(tokenizer, "mistral"))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_batch_size_does_not_change_answers(tokenizer: Any, batch_size: int) -> None:
    model = random_model(tokenizer)
    assert evaluate.generate(model, tokenizer, prompts(), max_new_tokens=24, batch_size=batch_size) == one_by_one(
        model, tokenizer, prompts(), 24
    )
