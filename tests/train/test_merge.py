"""A merged folder answers as its adapter does, and says what it is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from train import model
from train.config import TrainConfig
from train.dataset import Manifest
from train.errors import ModelError, TemplateError
from train.evaluate import evaluate_run, generate
from train.merge import merge_run, read_card
from train.predict import load_speaker
from train.sft import train_sft
from train.template import check_seal
from train.watch import Silent

MakeConfig = Callable[..., TrainConfig]
PROMPTS = [[{"role": "user", "content": "What is grass?"}], [{"role": "user", "content": "What is snow?"}]]


def test_the_merged_folder_answers_as_the_adapter(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    train_sft(config, manifest, tmp_path, progress=Silent())
    record = merge_run(config, manifest, tmp_path)
    assert record["from"] == "sft"
    assert record["relative_logit_difference"] < record["tolerance"] == 1e-4
    adapter, merged = model.load_student(config.student, adapter=tmp_path / "sft"), model.load_student(str(tmp_path / "merged"))
    answers = [generate(s.model, s.tokenizer, PROMPTS, max_new_tokens=12, batch_size=2) for s in (adapter, merged)]
    assert answers[0] == answers[1]


def test_template_stop_ids_and_system_message_travel_along(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    train_sft(config, manifest, tmp_path, progress=Silent())
    merge_run(config, manifest, tmp_path)
    merged = model.load_student(str(tmp_path / "merged"))
    assert model.stop_ids(merged.model) == [2, 0]
    assert merged.tokenizer.chat_template == model.load_tokenizer(config.student).chat_template
    card = read_card(tmp_path / "merged")
    assert (card["system"], card["manifest_sha256"], card["stop"]) == (manifest.task.system, manifest.sha256, "<|im_end|>")


def test_a_template_that_was_edited_after_training_is_refused_wherever_the_weights_are_used(
    manifest: Manifest, make_config: MakeConfig, make_student: Callable[..., Path], tmp_path: Path
) -> None:
    student = make_student(tmp_path / "student")
    config = make_config(student=str(student))
    train_sft(config, manifest, tmp_path, progress=Silent())
    merge_run(config, manifest, tmp_path)
    kept = student / "chat_template.jinja"
    for edited in (kept, tmp_path / "sft/chat_template.jinja"):
        before = edited.read_text()
        edited.write_text("{{ ' ' }}" + before)
        for use in (
            lambda: merge_run(config, manifest, tmp_path),
            lambda: evaluate_run(tmp_path, config, manifest),
            lambda: load_speaker(str(tmp_path / "sft")),
        ):
            with pytest.raises(
                TemplateError, match=f"{edited if edited != kept else student}: the chat template was edited after training"
            ):
                use()
        edited.write_text(before)
    merged = tmp_path / "merged/chat_template.jinja"
    merged.write_text("{{ ' ' }}" + merged.read_text())
    with pytest.raises(TemplateError, match="edited after training"):
        load_speaker(str(tmp_path / "merged"))


@pytest.mark.parametrize(
    ("text", "words"), [("{", "not a template's seal"), ("{}", "not a template's seal"), ("null", "not a template's seal")]
)
def test_a_broken_seal_is_refused(text: str, words: str, student: Path, tmp_path: Path) -> None:
    (tmp_path / "template.json").write_text(text)
    with pytest.raises(TemplateError, match=words):
        check_seal(model.load_tokenizer(str(student)), tmp_path, "student")


def test_a_four_bit_student_is_merged_into_full_precision(
    manifest: Manifest, make_config: MakeConfig, make_student: Callable[..., Path], tmp_path: Path
) -> None:
    student = make_student(tmp_path / "student", hidden_size=64, intermediate_size=128)
    config = make_config(student=str(student), method="qlora")
    record = train_sft(config, manifest, tmp_path / "run", progress=Silent())
    assert record["trainable"] < record["parameters"]
    record = merge_run(config, manifest, tmp_path / "run")
    assert set(record["bases"]["divergence"]) == {"full", "dequantized"}
    saved = json.loads((tmp_path / "run/merged/config.json").read_text())
    assert "quantization_config" not in saved
    assert model.load_student(str(tmp_path / "run/merged")).model.dtype is torch.float32


def test_a_four_bit_adapter_is_merged_into_the_base_that_answers_more_like_it(
    manifest: Manifest, make_config: MakeConfig, make_student: Callable[..., Path], tmp_path: Path
) -> None:
    student = make_student(tmp_path / "student", hidden_size=64, intermediate_size=128)
    config = make_config(student=str(student), method="qlora")
    train_sft(config, manifest, tmp_path, progress=Silent())
    bases = merge_run(config, manifest, tmp_path)["bases"]
    assert bases["divergence"]["dequantized"] < 1e-6 < bases["divergence"]["full"]  # exact: the adapter was trained beside these values
    assert (bases["chosen"], bases["rows"], bases["metric"]) == ("dequantized", 4, "macro_f1")
    trained = model.load_student(str(student), config, adapter=tmp_path / "sft")
    merged = model.load_student(str(tmp_path / "merged"))
    answers = [generate(s.model, s.tokenizer, PROMPTS, max_new_tokens=12, batch_size=2) for s in (trained, merged)]
    assert answers[0] == answers[1]


def test_a_whole_model_is_taken_as_it_is(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(method="full")
    train_sft(config, manifest, tmp_path, progress=Silent())
    assert merge_run(config, manifest, tmp_path)["max_logit_difference"] == 0


def test_nothing_to_merge_is_refused(manifest: Manifest, make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither dpo/ nor sft/"):
        merge_run(make_config(), manifest, tmp_path)


def test_a_folder_without_card_has_an_empty_one(tmp_path: Path) -> None:
    assert read_card(tmp_path) == {}
