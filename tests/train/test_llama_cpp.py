"""llama.cpp itself reads what we write: same prompt bytes, same token ids, same answers, adapters beside their base.

Needs llama-cpp-python, which is compiled at installation: `make setup-gguf`.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import SPECIALS
from train import artifacts, gguf_file, model, quantize
from train.config import BUILT_IN, GENERAL, with_formats
from train.dataset import Message, read_general
from train.errors import TemplateError
from train.evaluate import generate
from train.template import adapt, render
from train.watch import Silent

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: make setup-gguf")
pytestmark = pytest.mark.slow

CASE_SPECIALS = (
    "</s>",
    "<s>",
    "<|im_end|>",
    "<|im_start|>",
    "<|eot_id|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<end_of_turn>",
)
CONVERSATIONS: list[list[Message]] = [
    [{"role": "system", "content": "Name the colour as JSON."}, {"role": "user", "content": text}] for text in gguf_file.SAMPLES
]


@contextmanager
def llama(path: Path, **settings: Any) -> Iterator[Any]:
    """A file in llama.cpp, closed before the interpreter takes its parts away."""
    loaded = llama_cpp.Llama(str(path), n_ctx=1024, n_threads=1, n_threads_batch=1, verbose=False, **settings)
    try:
        yield loaded
    finally:
        loaded.close()


def rendered(loaded: Any, messages: list[Message]) -> str:
    """A conversation by the template in the file, as llama-cpp-python renders it."""
    words = loaded._model.token_get_text
    formatter = llama_cpp.llama_chat_format.Jinja2ChatFormatter(
        template=loaded.metadata["tokenizer.chat_template"],
        eos_token=words(loaded.token_eos()),
        bos_token=words(loaded.token_bos()) if loaded.token_bos() >= 0 else "",
    )
    return str(formatter(messages=messages).prompt)


@pytest.fixture(scope="module")
def tiny(finish: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The built-in student with an adapter, as f16 and LoRA GGUF; `base.gguf` beside them is the student itself."""
    folder = tmp_path_factory.mktemp("llama")
    done = finish(folder, BUILT_IN, max_length=512, lora={"r": 8, "alpha": 64})
    config = with_formats(done.config, ["gguf-f16", "gguf-q8_0", "gguf-q4_k_m", "gguf-lora"])
    quantize.quantize_run(config, done.manifest, done.run_dir, progress=Silent())
    base = model.load_student(BUILT_IN)
    base.model.save_pretrained(str(folder / "base"))
    base.tokenizer.save_pretrained(str(folder / "base"))
    gguf_file.write_model(folder / "base", folder / "base.gguf", "f16", ["a"])
    return done, folder / "base.gguf"


def test_greedy_answers_are_those_of_transformers_from_the_same_file(tiny: Any) -> None:
    _, base = tiny
    student = artifacts.load(artifacts.Artifact("gguf-f16", "gguf", base), tiny[0].config)
    prompts = [row.prompt for row in read_general(GENERAL / "probe.jsonl")[:100]]
    ours = generate(student.model, student.tokenizer, prompts, max_new_tokens=64, batch_size=50)
    with llama(base) as loaded:
        theirs = [
            loaded.create_chat_completion(messages=p, temperature=0, max_tokens=64)["choices"][0]["message"]["content"] for p in prompts
        ]
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 98


def test_prompt_bytes_and_token_ids_are_those_of_training(tiny: Any) -> None:
    done, _ = tiny
    tokenizer = model.load_tokenizer(BUILT_IN)
    with llama(artifacts.place(done.run_dir, "gguf-q4_k_m").path) as loaded:
        for messages in CONVERSATIONS:
            text = render(tokenizer, messages, generation_prompt=True)
            assert rendered(loaded, messages) == text
            assert loaded.tokenize(text.encode(), add_bos=False, special=True) == tokenizer(text, add_special_tokens=False).input_ids


def test_an_adapter_beside_its_base_answers_as_the_merged_file(tiny: Any) -> None:
    done, base = tiny
    prompts = [row.prompt for row in read_general(GENERAL / "probe.jsonl")[:30]]
    answers = []
    adapter = done.run_dir / "quantized/gguf-lora/adapter.gguf"
    for path, settings in ((base, {"lora_path": str(adapter)}), (artifacts.place(done.run_dir, "gguf-f16").path, {}), (base, {})):
        with llama(path, **settings) as loaded:
            answers.append(
                [
                    loaded.create_chat_completion(messages=p, temperature=0, max_tokens=8)["choices"][0]["message"]["content"]
                    for p in prompts
                ]
            )
    assert sum(a == b for a, b in zip(answers[0], answers[1], strict=True)) >= 29
    assert sum(a == b for a, b in zip(answers[0], answers[2], strict=True)) < 15  # so that the adapter did something


@pytest.mark.parametrize("name", ["gguf-q8_0", "gguf-q4_k_m"])
def test_llama_cpp_reads_each_mixture_of_types(name: str, tiny: Any) -> None:
    with llama(artifacts.place(tiny[0].run_dir, name).path) as loaded:
        assert loaded.create_chat_completion(messages=CONVERSATIONS[0], temperature=0, max_tokens=8)["usage"]["completion_tokens"] > 0


@pytest.mark.real_data
def test_every_real_template_gives_the_bytes_and_ids_of_training(
    real_data: Path, make_tokenizer: Callable[..., Any], make_student: Callable[..., Path], tmp_path: Path
) -> None:
    folder = real_data / "chat_templates"
    templates = {
        path.name: (path.read_text(encoding="utf-8"), next(s for key, s in SPECIALS.items() if key.lower() in path.name.lower()))
        for path in sorted(folder.glob("*.jinja"))
    }
    templates |= {
        case["name"]: (case["template"], CASE_SPECIALS) for case in json.loads((folder / "cases.json").read_text(encoding="utf-8"))["cases"]
    }
    compared, wrong = 0, []
    for number, (name, (text, specials)) in enumerate(templates.items()):
        tokenizer = make_tokenizer(text, specials)
        tokenizer.bos_token = "<s>" if specials is CASE_SPECIALS else specials[-1]
        try:
            described = adapt(tokenizer, name)
        except TemplateError:
            continue  # training refuses it as well
        path = make_student(tmp_path / str(number), tokenizer)
        net = model.load_student(str(path)).model
        net.generation_config.eos_token_id = list(dict.fromkeys([described.stop_id, tokenizer.eos_token_id]))
        net.generation_config.save_pretrained(str(path))
        prompts = [render(tokenizer, messages, generation_prompt=True) for messages in CONVERSATIONS]
        gguf_file.write_model(path, path / "model.gguf", "f16", prompts)
        with llama(path / "model.gguf", vocab_only=True) as loaded:
            compared += 1
            for messages, right in zip(CONVERSATIONS, prompts, strict=True):
                ids = tokenizer(right, add_special_tokens=False).input_ids
                if rendered(loaded, messages) != right or loaded.tokenize(right.encode(), add_bos=False, special=True) != ids:
                    wrong.append(name)
                    break
            assert loaded._model.token_get_text(described.stop_id) == described.stop
    assert compared >= 30
    assert not wrong
