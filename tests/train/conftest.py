"""Real parts, small: a random LLaMA with its own byte-level BPE, and an export of a toy task."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from train.config import TrainConfig
from train.dataset import Manifest
from train.merge import merge_run
from train.model import add_lora, load_student, quiet
from train.template import seal

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The special tokens of real chat templates by a part of their files' names: the end of a turn first, the first of a text last
SPECIALS = {
    "DeepSeek": ("<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>"),
    "qwen": ("<|im_end|>", "<|im_start|>", "<|endoftext|>"),
    "gemma": ("<end_of_turn>", "<start_of_turn>", "<bos>"),
    "llama": ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>"),
    "phi": ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>"),
    "Nemo": ("</s>", "[INST]", "[/INST]", "<s>"),
}
SYSTEM = "Name the colour as JSON."
THINGS = {"grass": "green", "snow": "white", "coal": "black", "blood": "red"}
TASK = {
    "type": "classification",
    "system": SYSTEM,
    "output": "json",
    "output_schema": {
        "type": "object",
        "properties": {"intent": {"enum": sorted(THINGS.values())}},
        "required": ["intent"],
        "additionalProperties": False,
    },
    "label_field": "intent",
    "labels": sorted(THINGS.values()),
    "abstain_label": None,
    "entities_field": None,
    "decision_fields": [],
    "forbidden": [],
}


@pytest.fixture(scope="session", autouse=True)
def _calm() -> None:
    quiet()
    torch.set_num_threads(1)


def _make_tokenizer(
    template: str | None = CHATML, specials: tuple[str, ...] = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
) -> PreTrainedTokenizerFast:
    """A byte-level BPE of some 300 tokens; the first special token is eos and pad."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([SYSTEM, *(f'What is {a}? {{"intent":"{b}"}}' for a, b in THINGS.items())], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=specials[0], pad_token=specials[0])
    fast.chat_template = template
    return fast


def _make_student(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None, **shape: int) -> Path:
    """A random LLaMA of two layers, saved with its tokenizer."""
    tokenizer = tokenizer or _make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.get("hidden_size", 32),
        intermediate_size=shape.get("intermediate_size", 64),
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    return _make_tokenizer


@pytest.fixture(scope="session")
def make_student() -> Callable[..., Path]:
    return _make_student


@pytest.fixture(scope="session")
def write_export() -> Callable[..., Path]:
    return _write_export


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random student."""
    return _make_student(tmp_path_factory.mktemp("student"))


def _toy_rows(count: int, prefix: str) -> list[dict[str, Any]]:
    """Rows of the toy task in the export's columns, preference columns included."""
    rows = []
    for i in range(count):
        thing, colour = list(THINGS.items())[i % len(THINGS)]
        wrong = "red" if colour != "red" else "white"
        rows.append(
            {
                "prompt": [
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": f"What is {thing}{'?' * (1 + i % 3)}"},
                ],
                "completion": [{"role": "assistant", "content": f'{{"intent":"{colour}"}}'}],
                "chosen": [{"role": "assistant", "content": f'{{"intent":"{colour}"}}'}],
                "rejected": [{"role": "assistant", "content": f'{{"intent":"{wrong}"}}'}],
                "id": f"{prefix}{i:03d}",
                "group_id": f"{prefix}{i:03d}",
                "topic": f"things/{thing}",
                "generator": "topic",
                "label": colour,
                "kind": None,
            }
        )
    return rows


def _write_export(folder: Path, *, train: int = 48, held_out: int = 8, **manifest: Any) -> Path:
    """Write an export of the toy task as the data half writes it; keywords override the manifest's keys."""
    files = {}
    kinds = {
        "sft": ["prompt", "completion", "id", "group_id", "topic", "generator", "label", "kind"],
        "preference": ["prompt", "chosen", "rejected", "id", "group_id", "topic", "generator", "label", "kind"],
    }
    for kind, columns in kinds.items():
        for split, count in (("train", train), ("validation", held_out), ("test", held_out)):
            rows = [{column: row[column] for column in columns} for row in _toy_rows(count, split[0])]
            files[f"{kind}/{split}.parquet"] = rows
    files["evaluation/real.parquet"] = [
        {"prompt": row["prompt"], "completion": None, "id": row["id"], "label": row["label"]} for row in _toy_rows(4, "e")
    ]
    files["provenance.parquet"] = [
        {
            "id": row["id"],
            "split": split,
            "topic": row["topic"],
            "generator": row["generator"],
            "item_id": f"{row['id']}:topic:0",
            "parent": "parent" if i == 0 else None,
            "teacher": "offline/toy" if i % 2 else "offline/other",
            "prompt_hash": "answer@3f2a91c4",
            "cost_usd": 0.25,
            "prompt_tokens": 10.0,
            "completion_tokens": 5.0,
            "asked": [
                {"role": "teacher", "model": "offline/toy", "prompt": "answer@3f2a91c4", "call_id": f"call-{row['id']}", "cost_usd": 0.25}
            ],
            "verdicts": [{"by": "filter:length", "keep": True, "reason": None}, {"by": "human:ana", "keep": True, "reason": "good"}],
            "reviewer": "human:ana",
        }
        for split, count in (("train", train), ("validation", held_out), ("test", held_out))
        for i, row in enumerate(_toy_rows(count, split[0]))
    ]
    entries = {}
    for name, rows in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
        entries[name] = {"rows": len(rows), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    whole = {
        "format": 1,
        "name": "toy",
        "created": "2026-01-01T00:00:00Z",
        "seed": 0,
        "recipe": {},
        "task": TASK,
        "files": entries,
        "teachers": [{"role": "teacher", "model": "offline/toy", "simulated": True, "terms": {}, "settled": True}],
        "decontamination": {"passed": True, "sets": [{"name": "real", "rows": 4, "dropped": 0}]},
        "data": {},
        **manifest,
    }
    (folder / "manifest.json").write_text(json.dumps(whole), encoding="utf-8")
    return folder


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """The folder of a toy export."""
    return _write_export(tmp_path / "data")


@pytest.fixture
def manifest(export: Path) -> Manifest:
    """The toy export's manifest."""
    return Manifest.read(export)


@pytest.fixture
def make_config(student: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """A function from settings to a configuration that trains the toy task in a few steps."""

    def make(**settings: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "name": "toy",
            "data": tmp_path / "data",
            "out": tmp_path / "runs",
            "student": str(student),
            "lora": {"r": 4, "alpha": 8},
            "max_length": 128,
            "sft": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 6, "learning_rate": 0.01},
            "dpo": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 4, "learning_rate": 1e-4},
            "evaluation": {"validation_rows": 4, "test_rows": 4, "points": 2, "max_new_tokens": 12, "batch_size": 8},
            # of so few rows no percentage point can be seen
            "gate": {"delta": 40, "rows": 20},
            "quantize": None,
        }
        return TrainConfig.model_validate({**values, **settings})

    return make


class Finished(NamedTuple):
    """A run with a merged adapter of random weights, nothing of which was trained."""

    run_dir: Path
    config: TrainConfig
    manifest: Manifest


def _finish(folder: Path, student: Path, **settings: Any) -> Finished:
    """Make a run that has an adapter and a merged model, without training."""
    manifest = Manifest.read(_write_export(folder / "data"))
    values = {"name": "toy", "data": folder / "data", "out": folder / "runs", "student": str(student), "max_length": 128}
    config = TrainConfig.model_validate({**values, "lora": {"r": 4, "alpha": 8}, "evaluation": {"max_new_tokens": 12}, **settings})
    run_dir = folder / "runs" / "one"
    net, tokenizer = load_student(str(student), config)
    adapted = add_lora(net, config)
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted.save_pretrained(str(run_dir / "sft"))
    tokenizer.save_pretrained(str(run_dir / "sft"))
    seal(tokenizer, run_dir / "sft")
    merge_run(config, manifest, run_dir)
    return Finished(run_dir, config, manifest)


@pytest.fixture(scope="session")
def finish() -> Callable[..., Finished]:
    return _finish


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Peft reads an attribute that transformers calls deprecated; neither is ours to change."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*"))
