"""Planted faults are refused, on our own templates and on the real ones; what is sound passes; packed rows are separate rows."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from train.errors import TemplateError
from train.proof import prove, prove_batches, prove_packing, prove_training, sequences
from train.template import Source, adapt, encode

ROOT = Path(__file__).parents[2]


def load(name: str) -> ModuleType:
    """A module of benchmarks/, which is no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
        assert spec
        assert spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


plant = load("planted_templates")
ROWS = plant.DATASETS["json"]


def refused(cases: list[Any], fault: Any) -> int:
    """Plant a fault in every sound template; all must be refused with the right words. Returns how many it applied to."""
    count = 0
    for case in cases:
        if case.name in plant.UNSOUND:
            continue
        try:
            with pytest.raises(TemplateError) as caught:
                plant.check(case, ROWS, fault)
        except NotImplementedError:
            continue
        assert re.search(fault.words, str(caught.value)), f"{case.name}: {caught.value}"
        count += 1
    return count


@pytest.mark.parametrize("fault", plant.FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_refused_with_its_reason(fault: Any) -> None:
    assert refused(plant.own_cases(), fault)


@pytest.mark.real_data
@pytest.mark.parametrize("fault", plant.FAULTS, ids=lambda fault: fault.name)
def test_a_fault_planted_in_real_templates_is_refused(real_data: Path, fault: Any) -> None:
    assert refused(plant.real_cases(real_data), fault) >= (1 if "thinking block of" in fault.name else 27)


@pytest.mark.parametrize("rows", plant.DATASETS.values(), ids=list(plant.DATASETS))
def test_sound_templates_pass_with_every_data_set(rows: list[Source]) -> None:
    for case in plant.own_cases():
        plant.check(case, rows)


@pytest.mark.real_data
@pytest.mark.parametrize("rows", plant.DATASETS.values(), ids=list(plant.DATASETS))
def test_real_templates_pass_with_every_data_set(real_data: Path, rows: list[Source]) -> None:
    for case in plant.real_cases(real_data):
        if case.name in plant.UNSOUND:
            with pytest.raises(TemplateError, match=plant.UNSOUND[case.name]):
                plant.check(case, rows)
        else:
            plant.check(case, rows)


@pytest.mark.real_data
@pytest.mark.parametrize("rows", plant.DATASETS.values(), ids=list(plant.DATASETS))
def test_a_sentencepiece_tokenizer_keeps_every_byte(real_data: Path, rows: list[Source]) -> None:
    """A real one: it writes a space of its own before the first word."""
    for case in plant.own_cases():
        tokenizer = AutoTokenizer.from_pretrained(real_data / "stories260k_hf")
        tokenizer.add_special_tokens({"additional_special_tokens": [t for t in plant.SPECIALS if t not in ("<s>", "</s>")]})
        tokenizer.chat_template = case.text
        template = adapt(tokenizer, case.name)
        encoding = encode(tokenizer, template, rows, 4096)
        assert prove(tokenizer, template, rows, encoding.rows, [template.stop_id])["rows_proved"] == len(rows)


def test_a_template_that_reads_the_clock_gets_a_fixed_day() -> None:
    case = plant.own_cases()[0]
    tokenizer = plant.make_tokenizer(case)
    tokenizer.chat_template = "{%- if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}" + case.text
    template = adapt(tokenizer, "student")
    assert template.changes == ("today's date fixed at 2024-07-26",)
    assert "26 Jul 2024" in tokenizer.apply_chat_template([plant.QUESTION], tokenize=False)
    again = plant.make_tokenizer(case._replace(text=tokenizer.chat_template))
    assert adapt(again, "student").sha256 == template.sha256


def test_the_picture_shows_what_is_given_taught_and_left_out() -> None:
    subject = plant.check(plant.own_cases()[0], ROWS)
    proof = prove(subject.tokenizer, subject.template, ROWS, subject.encoded, subject.stop_ids)
    assert proof["diff"][-4:] == [
        "  My card has not arrived. What now?<|im_end|>⏎",
        "  <|im_start|>assistant⏎",
        '+ {"intent": "Card_Arrival", "days": 3}<|im_end|>',
        "- ⏎",
    ]


def test_a_refusal_carries_what_was_shown_until_then() -> None:
    subject = plant.check(plant.own_cases()[0], ROWS)
    with pytest.raises(TemplateError) as caught:
        prove(subject.tokenizer, subject.template, ROWS, [row._replace(ids=row.ids[:-1]) for row in subject.encoded], subject.stop_ids)
    proof = caught.value.proof
    assert proof
    assert (proof["passed"], proof["rows_encoded"]) == (False, 2)
    assert "is not in the loss" in proof["fault"][0]
    json.dumps(proof)


def test_a_hole_in_the_loss_is_shown() -> None:
    subject = plant.check(plant.own_cases()[0], ROWS)
    subject.batch["labels"][0, len(subject.encoded[0].ids) - 5] = -100
    with pytest.raises(TemplateError, match="in training is not the one that inference must generate"):
        prove_batches(subject.tokenizer, subject.template, [subject.batch], subject.encoded)


def test_ids_that_nobody_encoded_are_shown_beside_the_nearest_row() -> None:
    subject = plant.check(plant.own_cases()[0], ROWS)
    subject.batch["input_ids"][0, 12] += 1
    with pytest.raises(TemplateError, match=r"row j1, in its batch: not the ids that were proved"):
        prove_batches(subject.tokenizer, subject.template, [subject.batch], subject.encoded)


def test_packed_batches_are_taken_apart_where_positions_begin_again() -> None:
    batch = {
        "input_ids": torch.tensor([[5, 6, 7, 8, 9, 0, 0]]),
        "labels": torch.tensor([[-100, 6, 7, -100, 9, -100, -100]]),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1, 0, 0]]),
    }
    assert [tuple(taught) for taught in sequences(batch, 0)] == [([5, 6, 7], [False, True, True]), ([8, 9], [False, True])]


# --- packing ----------------------------------------------------------------------------------------------------------------------

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma3_text": {"sliding_window": 16},
    "mistral": {"sliding_window": 16},
}
LENGTHS = (9, 17, 30, 24)


def random_rows() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 96, (n,), generator=generator).tolist() for n in LENGTHS]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", MODELS)
def test_packed_rows_give_the_logits_of_separate_rows(kind: str, attention: str) -> None:
    torch.manual_seed(0)
    config = shaped(kind, **MODELS[kind])
    record = prove_packing(AutoModelForCausalLM.from_config(config, attn_implementation=attention), random_rows())
    assert record["max_difference"] <= 1e-5


def shaped(kind: str, **more: Any) -> Any:
    return AutoConfig.for_model(kind, **{**SHAPE, **more})


class Leaky(torch.nn.Module):
    """A student of an architecture that does not look at positions: rows of a batch see one another."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config

    def forward(self, input_ids: torch.Tensor, use_cache: bool, **_: Any) -> Any:
        return self.inner(input_ids=input_ids, use_cache=use_cache)


def test_a_student_whose_packed_rows_see_one_another_is_refused() -> None:
    torch.manual_seed(0)
    leaky = Leaky(AutoModelForCausalLM.from_config(shaped("llama")))
    with pytest.raises(TemplateError, match=r"llama: packed rows see one another.*Set train\.sft\.packing: false"):
        prove_packing(leaky, random_rows())


@pytest.mark.parametrize("packing", [False, True])
def test_the_trainers_own_batches_are_proved(packing: bool, student: Path, tmp_path: Path) -> None:
    trainer, rows, template = make_trainer(student, tmp_path, packing=packing, max_length=128)
    record = prove_training(trainer, rows, template)
    assert record["sequences"] >= 8
    assert ("packing" in record) is packing


def test_a_trainer_that_cuts_rows_is_refused(student: Path, tmp_path: Path) -> None:
    trainer, rows, template = make_trainer(student, tmp_path, packing=True, max_length=24)
    with pytest.raises(TemplateError, match=r"cut from .* tokens, so its answer has no end\. Raise train\.max_length"):
        prove_training(trainer, rows, template)


def make_trainer(student: Path, folder: Path, *, packing: bool, max_length: int) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(student)
    template = adapt(tokenizer, "student")
    sources = [Source(f"r{i:02d}", [{"role": "user", "content": f"What is {i}?"}], f"It is {i * i}.") for i in range(12)]
    rows = encode(tokenizer, template, sources, 128).rows
    arguments = SFTConfig(
        output_dir=str(folder), packing=packing, max_length=max_length, use_cpu=True, bf16=False, report_to="none", dataset_num_proc=None
    )
    data = Dataset.from_dict({"input_ids": [row.ids for row in rows], "labels": [row.labels for row in rows]})
    model = AutoModelForCausalLM.from_pretrained(student)
    return SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer), rows, template
