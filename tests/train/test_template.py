"""What is trained is what inference has to generate, on plain and on real templates; everything else is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.train.conftest import SPECIALS
from train.errors import TemplateError
from train.proof import prove
from train.template import FALLBACK, Encoded, Encoding, Source, Template, adapt, encode

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]
PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is grass?"}]
ROW = Source("r1", PROMPT, '{"intent":"green"}')
IM = "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
SURE = "{{ '<|im_start|>assistant\nSure: ' + message['content'] }}"
OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def encoded(tokenizer: Any, rows: list[Source] | None = None, max_length: int = 512) -> tuple[Template, Encoding]:
    template = adapt(tokenizer, "student")
    return template, encode(tokenizer, template, rows or [ROW], max_length)


def test_the_supervised_text_is_the_answer_and_the_stop_token(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    _, encoding = encoded(tokenizer)
    row = encoding.rows[0]
    assert tokenizer.decode([i for i in row.labels if i != -100]) == '{"intent":"green"}<|im_end|>'
    assert tokenizer.decode(row.ids[: row.prompt_length]).endswith("<|im_start|>assistant\n")


def test_the_prompt_ids_are_those_of_inference(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    row = encoded(tokenizer)[1].rows[0]
    assert row.ids[: row.prompt_length] == tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True, return_dict=False)


def test_the_newline_after_the_stop_token_is_not_taught(make_tokenizer: MakeTokenizer) -> None:
    template, encoding = encoded(make_tokenizer())
    assert encoding.rows[0].ids[-1] == template.stop_id


def test_a_token_across_the_boundary_is_split_as_inference_splits_it(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(
        "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    )
    prompt = [{"role": "system", "content": "x"}, {"role": "user", "content": "gr"}]
    row = encoded(tokenizer, [Source("1", prompt, "ass")])[1].rows[0]
    assert row.ids[: row.prompt_length] == tokenizer("xgr")["input_ids"]
    assert tokenizer.decode(row.ids[row.prompt_length :]) == "ass<|endoftext|>"


def test_a_student_without_template_gets_the_fallback(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(None)
    template, encoding = encoded(tokenizer)
    assert (template.source, template.stop, tokenizer.chat_template) == ("fallback", "<|endoftext|>", FALLBACK)
    assert tokenizer.decode(encoding.rows[0].ids).endswith('### assistant\n{"intent":"green"}<|endoftext|>')


def test_without_template_and_end_token_the_message_says_what_to_set(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(None)
    tokenizer.eos_token = None
    with pytest.raises(TemplateError, match=r"Set `chat_template` and `eos_token`"):
        adapt(tokenizer, "student")


def test_a_template_without_system_role_gets_it_in_the_first_user_message(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}" + IM + "{{ '<|im_end|>\n' }}{% endfor %}" + OPEN
    )
    template, encoding = encoded(tokenizer)
    assert template.changes == ("system message folded into the first user message",)
    assert "user\nBe brief.\n\nWhat is grass?" in tokenizer.decode(encoding.rows[0].ids)


def test_a_thinking_block_goes_to_the_prompt(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
        "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
    )
    template, encoding = encoded(tokenizer)
    row = encoding.rows[0]
    assert template.changes == ("thinking off",)
    assert tokenizer.decode(row.ids[row.prompt_length :]) == '{"intent":"green"}<|im_end|>'


def test_what_was_changed_at_loading_is_known_when_asked_again(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(None)
    adapt(tokenizer, "student")
    assert adapt(tokenizer, "student").source == "fallback"
    tokenizer.chat_template += "{# mine #}"
    assert adapt(tokenizer, "student").source == "own", "a template changed by hand is looked at afresh"


def test_an_adapted_template_needs_no_second_change(make_tokenizer: MakeTokenizer, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(None)
    first = adapt(tokenizer, "student")
    tokenizer.save_pretrained(tmp_path)
    again = adapt(AutoTokenizer.from_pretrained(tmp_path), "student")
    assert (again.sha256, again.changes, again.stop_id) == (first.sha256, (), first.stop_id)


def test_rows_that_cannot_be_taught_are_named_and_never_cut(make_tokenizer: MakeTokenizer) -> None:
    rows = [
        ROW,
        Source("long", PROMPT, "x" * 600),
        Source("empty", PROMPT, "  "),
        Source("special", PROMPT, "a<|im_end|>b"),
    ]
    _, encoding = encoded(make_tokenizer(), rows)
    assert [row.id for row in encoding.rows] == ["r1"]
    assert encoding.dropped == {
        "longer than 512 tokens": ["long"],
        "empty completion": ["empty"],
        "special token inside the completion": ["special"],
    }


def chat(body: str, opening: str = OPEN) -> str:
    return "{% for message in messages %}" + body + "{% endfor %}" + opening


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (chat(IM + "{{ '\n' }}"), "could not learn when to stop"),
        (chat(IM + "{{ '<stop>\n' }}"), "could not learn when to stop"),
        (chat(IM + "{{ '<|im_end|>\n' }}", "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"), "generation prompt"),
        (chat("{% if message['role'] != 'user' %}" + IM + "{{ '<|im_end|>\n' }}{% endif %}"), "leaves out the user message"),
        (chat(IM.replace("message['content']", "message['content'][:4]") + "{{ '<|im_end|>\n' }}"), "leaves out the system message"),
        (chat("{% if message['role'] == 'assistant' %}" + SURE + "{% else %}" + IM + "{% endif %}<|im_end|>"), "before the answer"),
        ("{{ raise_exception('never') }}", "refuses a conversation of system, user"),
    ],
    ids=["no stop", "stop is text", "other prompt", "no user", "cut", "words before", "raises"],
)  # fmt: skip
def test_a_faulty_template_is_refused_before_training(make_tokenizer: MakeTokenizer, template: str, words: str) -> None:
    tokenizer = make_tokenizer(template)
    with pytest.raises(TemplateError, match=words):
        adapt(tokenizer, "student")


def test_a_template_that_drops_the_system_message_gets_it_in_the_first_user_message(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(chat("{% if message['role'] != 'system' %}" + IM + "{{ '<|im_end|>\n' }}{% endif %}"))
    assert adapt(tokenizer, "student").changes == ("system message folded into the first user message",)


def test_the_proof_holds_for_sound_rows_and_shows_one(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    template, encoding = encoded(tokenizer)
    proof = prove(tokenizer, template, [ROW], encoding.rows, [template.stop_id])
    assert proof["example"]["supervised"] == '{"intent":"green"}<|im_end|>'
    assert proof["rows_proved"] == 1


@pytest.mark.parametrize("source", ["own", "fallback"])
def test_of_a_conversation_the_last_answer_alone_is_taught_and_proved(source: str, make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer() if source == "own" else make_tokenizer(None)
    turns = [{"role": "assistant", "content": "Green, mostly."}, {"role": "user", "content": "And snow?"}]
    rows = [ROW, Source("r2", [*PROMPT, *turns], "White.")]
    template, encoding = encoded(tokenizer, rows)
    long = encoding.rows[1]
    assert tokenizer.decode([i for i in long.labels if i != -100]) == f"White.{template.stop}"
    before = tokenizer.decode(long.ids[: long.prompt_length])
    assert f"Green, mostly.{template.stop}" in before
    assert before.index("What is grass?") < before.index("Green, mostly.") < before.index("And snow?")
    assert prove(tokenizer, template, rows, encoding.rows, [template.stop_id])["rows_proved"] == 2


def tampered(row: Encoded, what: str, tokenizer: Any) -> Encoded:
    if what == "stop masked":
        return row._replace(ids=row.ids[:-1])
    if what == "prompt in the loss":
        return row._replace(prompt_length=row.prompt_length - 1)
    if what == "answer in the prompt":
        return row._replace(prompt_length=row.prompt_length + 1)
    if what == "newline after the stop":
        return row._replace(ids=[*row.ids, *tokenizer("\n")["input_ids"]])
    if what == "two stops":
        return row._replace(ids=[*row.ids, row.ids[-1]])
    return row._replace(ids=[*row.ids[:-3], row.ids[-1]])


@pytest.mark.parametrize(
    "what", ["stop masked", "prompt in the loss", "answer in the prompt", "newline after the stop", "two stops", "answer cut"]
)
def test_the_proof_refuses_a_wrong_mask(make_tokenizer: MakeTokenizer, what: str) -> None:
    tokenizer = make_tokenizer()
    template, encoding = encoded(tokenizer)
    with pytest.raises(TemplateError, match="row r1"):
        prove(tokenizer, template, [ROW], [tampered(encoding.rows[0], what, tokenizer)], [template.stop_id])


def test_the_proof_refuses_a_stop_token_at_which_generation_does_not_stop(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    template, encoding = encoded(tokenizer)
    with pytest.raises(TemplateError, match=r"answers would run on.*generation_config\.json"):
        prove(tokenizer, template, [ROW], encoding.rows, [0])


def test_the_proof_refuses_two_begin_tokens(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = "{{ bos_token + bos_token }}" + tokenizer.chat_template
    template, encoding = encoded(tokenizer)
    with pytest.raises(TemplateError, match="begins with two"):
        prove(tokenizer, template, [ROW], encoding.rows, [template.stop_id])


def test_the_proof_refuses_a_template_that_changed_after_encoding(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    template, encoding = encoded(tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n", "assistant:\n")
    with pytest.raises(TemplateError, match="first difference at character"):
        prove(tokenizer, template, [ROW], encoding.rows, [template.stop_id])


def test_no_rows_prove_nothing(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    template = adapt(tokenizer, "student")
    with pytest.raises(TemplateError, match="no row is left"):
        prove(tokenizer, template, [], [], [template.stop_id])


CASE_SPECIALS = (
    *("</s>", "<s>", "<|im_end|>", "<|im_start|>", "<|end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>", "[INST]", "[/INST]"),
    *("<|user|>", "<|assistant|>", "<|system|>", "<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<｜end▁of▁sentence｜>"),
)


@pytest.mark.real_data
def test_every_real_template_is_proved(real_data: Path, make_tokenizer: MakeTokenizer) -> None:
    files = sorted((real_data / "chat_templates").glob("*.jinja"))
    assert files
    for path in files:
        name = next(key for key in SPECIALS if key.lower() in path.name.lower())
        tokenizer = make_tokenizer(path.read_text(encoding="utf-8"), SPECIALS[name])
        tokenizer.bos_token = SPECIALS[name][-1]
        template, encoding = encoded(tokenizer)
        proof = prove(tokenizer, template, [ROW], encoding.rows, [template.stop_id])
        assert proof["example"]["supervised"] == ROW.completion + SPECIALS[name][0], path.name


@pytest.mark.real_data
def test_the_templates_of_the_case_file_are_proved_or_refused_with_a_reason(real_data: Path, make_tokenizer: MakeTokenizer) -> None:
    cases = json.loads((real_data / "chat_templates/cases.json").read_text(encoding="utf-8"))
    cases = dict(cases) if isinstance(cases, list) else cases
    proved, refused = [], {}
    for case in cases["cases"]:
        tokenizer = make_tokenizer(case["template"], CASE_SPECIALS)
        tokenizer.bos_token = "<s>"
        try:
            template, encoding = encoded(tokenizer)
            prove(tokenizer, template, [ROW], encoding.rows, [template.stop_id])
            proved.append(case["name"])
        except TemplateError as error:
            refused[case["name"]] = str(error)
    assert len(proved) >= 20, refused
