"""The script for vLLM names what is served here, and its template renders what training rendered."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from train import cli, model, template
from train.errors import ModelError, ServingError
from train.serving.target import RANKS, find_target, rank_limit
from train.serving.vllm import with_system, write_script

SYSTEM = "Name the colour as JSON."


@pytest.fixture
def folder(deployed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(deployed, tmp_path / "deployed"))


def test_the_script_serves_the_same_names_from_wherever_it_lies(
    folder: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as code:
        cli.main(["serve", "--print-vllm", "--model", str(folder), "--port", "8123"])
    assert code.value.code == 0
    printed = capsys.readouterr().out
    moved = Path(shutil.move(folder, tmp_path / "moved"))
    (tmp_path / "vllm").write_text('#!/bin/sh\npwd\necho "$VLLM_ALLOW_RUNTIME_LORA_UPDATING"\nfor a in "$@"; do echo "$a"; done\n')
    (tmp_path / "vllm").chmod(0o755)
    run = subprocess.run(
        [moved / "vllm/serve.sh", "--extra"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    where, allowed, *arguments = run.stdout.splitlines()
    assert (where, allowed) == (str(moved), "1")
    assert arguments[:4] == ["serve", str(student), "--served-model-name", "base"]
    text = " ".join(arguments)
    assert "--enable-lora --max-loras 3 --max-lora-rank 16 --lora-modules one=./one two=./two retort=./two --extra" in text
    assert (
        '--port 8123 --chat-template ./vllm/chat_template.jinja --generation-config ./vllm --override-generation-config {"temperature": 0.0}'
        in text
    )
    assert (moved / "vllm/serve.sh").read_text() == printed
    assert json.loads((moved / "vllm/generation_config.json").read_text()) == {"eos_token_id": [2, 0], "max_new_tokens": 24}


@pytest.mark.parametrize("system", ["", SYSTEM, "Say \"no\"\nor \\ {{ yes }} 'ä'."])
def test_its_template_renders_what_training_rendered(system: str, student: Path) -> None:
    tokenizer = model.load_tokenizer(str(student))
    user = [{"role": "user", "content": "What is snow?"}]
    wanted = template.render(tokenizer, [*([{"role": "system", "content": system}] if system else []), *user], generation_prompt=True)
    own = template.render(tokenizer, [{"role": "system", "content": "Own."}, *user], generation_prompt=True)
    tokenizer.chat_template = with_system(str(tokenizer.chat_template), system)
    assert template.render(tokenizer, user, generation_prompt=True) == wanted
    assert template.render(tokenizer, [{"role": "system", "content": "Own."}, *user], generation_prompt=True) == own


def test_the_rank_is_the_smallest_that_vllm_takes() -> None:
    assert [rank_limit(ranks) for ranks in ([], [4], [16, 4], [17], [64], [65], [300], [512])] == [16, 16, 16, 32, 64, 128, 320, 512]
    assert all(rank_limit([rank]) == max(16, rank) for rank in RANKS)
    with pytest.raises(ModelError, match="rank 513; vLLM takes up to 512"):
        rank_limit([513])


def test_a_plain_student_has_no_folder_to_write_to(student: Path) -> None:
    with pytest.raises(ServingError, match="not a run, and no folder of adapters"):
        write_script(find_target(str(student)), served="retort", host="127.0.0.1", port=8000)


def test_what_a_folder_offers(deployed: Path, student: Path, adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    whole = find_target(str(deployed))
    assert (list(whole.adapters), whole.best, whole.system, whole.max_new_tokens) == (["one", "two"], "two", SYSTEM, 24)
    alone = find_target(str(deployed / "one"))
    assert (list(alone.adapters), alone.system) == (["one"], SYSTEM)
    plain = find_target(str(student))
    assert (plain.adapters, plain.best, plain.system) == ({}, "base", "")
    merged = Path(shutil.copytree(student, tmp_path / "dist/merged"))
    (merged / "retort.json").write_text(json.dumps({"name": "toy", "system": "S", "max_new_tokens": 9}))
    found = find_target(str(tmp_path / "dist"))
    assert (found.own, found.name, found.system, found.max_new_tokens) == ("merged", "toy", "S", 9)
    other = adapter_of(tmp_path / "lone/a", student, 1)
    assert find_target(str(other)).system == ""


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "not an adapter's configuration"),
        ('{"peft_type": "LORA", "base_model_name_or_path": "x"}', "not an adapter's configuration: KeyError"),
        ('{"peft_type": "IA3", "base_model_name_or_path": "x", "r": 1}', "only LORA adapters share a base"),
        ('{"peft_type": "LORA", "base_model_name_or_path": null, "r": 1}', "does not name its base"),
        ('{"peft_type": "LORA", "base_model_name_or_path": "x", "r": 1}', "has no adapter_model.safetensors"),
    ],
)
def test_a_broken_adapter_is_told(config: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(ModelError, match=words):
        find_target(str(tmp_path))


def test_a_run_offers_its_adapters_or_its_merged_model(deployed: Path, student: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/x"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"config": {"name": "toy", "student": str(student), "method": "qlora"}}))
    with pytest.raises(ModelError, match="neither adapters .* nor a merged model yet. Run `python -m train merge --model"):
        find_target(str(run))
    shutil.copytree(student, run / "merged")
    (run / "merged/retort.json").write_text(json.dumps({"name": "toy", "system": SYSTEM, "max_new_tokens": 9}))
    merged = find_target(str(run))
    assert (merged.own, merged.adapters, merged.folder, merged.system) == ("merged", {}, run, SYSTEM)
    for name, stage in (("one", "sft"), ("two", "dpo")):
        shutil.copytree(deployed / name, run / stage)
    found = find_target(str(run))
    assert (found.own, list(found.adapters), found.best) == ("base", ["sft", "dpo"], "dpo")
    assert (found.system, found.max_new_tokens, found.adapters["dpo"].system) == (SYSTEM, 9, SYSTEM)
    script = write_script(found, served="retort", host="127.0.0.1", port=8000).read_text()
    assert "--lora-modules sft=./sft dpo=./dpo retort=./dpo" in script and "full-precision base" in script
