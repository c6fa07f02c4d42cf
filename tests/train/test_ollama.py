"""A Go template is written only where it writes what the student's own template writes."""

from collections.abc import Callable
from typing import Any

import pytest

from train import ollama
from train.template import adapt, render

LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start|>' + message['role'] + '<|head|>\n\n' + message['content'] | trim + '<|eot|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|head|>\n\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe good.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FORGETS = (
    "{% for message in messages %}{% if loop.last or message['role'] != 'assistant' %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_chatml_and_a_default_system_message_are_put_into_go(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(DEFAULT_SYSTEM)
    found = ollama.joints(tokenizer)
    assert found is not None
    assert found.start_without == "<|im_start|>system\nBe good.<|im_end|>\n<|im_start|>user\n"
    messages = [{"role": "system", "content": ollama.S}, {"role": "user", "content": ollama.U}]
    assert ollama.assemble(found, (ollama.S, ollama.U)) == render(tokenizer, messages, generation_prompt=True)
    assert "{{ .Content }}<|im_end|>\n<|im_start|>assistant\n" in ollama.go_template(found)


def test_a_begin_token_of_the_template_stays_where_the_tokenizer_adds_none(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(LLAMA3, ("<|eos|>", "<|bos|>", "<|start|>", "<|head|>", "<|eot|>"))
    tokenizer.bos_token = "<|bos|>"
    found = ollama.joints(tokenizer)
    assert found is not None
    assert found.start == "<|bos|><|start|>system<|head|>\n\n"


def test_a_template_that_no_go_template_equals_is_left_out_and_said(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(FORGETS)
    adapt(tokenizer, "here")
    text = ollama.modelfile("x.gguf", tokenizer, 'Say """no""".', max_new_tokens=8, context=64)
    assert "TEMPLATE" not in text
    assert "# The chat template could not be put into Ollama's form" in text
    assert "SYSTEM \"\"\"Say '''no'''.\"\"\"" in text


@pytest.mark.parametrize(("text", "literal"), [("a{{b", 'a{{ "{{" }}b'), ("a}}b", "a}}b")])
def test_braces_are_kept_from_go(text: str, literal: str) -> None:
    assert ollama._literal(text) == literal
