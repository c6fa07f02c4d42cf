"""Chat templates, data sets for them, and faults to plant: what the proof must refuse, and what it must let pass.

A fault is planted where such faults happen: in the template, in the rows, in the tokenizer, in what was encoded, in the batch, or
after training. `check` is the way that a training run takes from rows to its first step, and on to the loading of the result.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from train.proof import prove, prove_batches
from train.template import IGNORED, Encoded, Source, Template, adapt, check_seal, encode, render, seal

SPECIALS = (
    *("<|im_end|>", "<|im_start|>", "<|im_sep|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>", "<|end_of_turn|>"),
    *("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>", "<end_of_turn>", "<start_of_turn>", "<bos>", "<eos>"),
    *("</s>", "<s>", "[INST]", "[/INST]", "<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<|turn_end|>", "<|EOT|>", "<|end_of_text|>"),
    *("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<|role_sep|>", "<|message_sep|>"),
    *("<|function_start|>", "<|function_end|>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[gMASK]", "sop"),
)
# The end and begin tokens that these models' tokenizers have, where the case file does not say; by a part of the name.
TOKENS = {
    "OpenHermes": ("<|im_end|>", "<s>"),
    "gemma": ("<eos>", "<bos>"),
    "openchat": ("<|end_of_turn|>", "<s>"),
    "deepseek": ("<|EOT|>", "<｜begin▁of▁sentence｜>"),
    "DeepSeek-V2": ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"),
    "DeepSeek-R1": ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"),
    "Llama-3": ("<|eot_id|>", "<|begin_of_text|>"),
    "llama3": ("<|eot_id|>", "<|begin_of_text|>"),
    "Phi-3": ("<|endoftext|>", "<s>"),
    "phi3": ("<|endoftext|>", "<s>"),
    "Qwen2.5": ("<|im_end|>", None),
    "qwen": ("<|im_end|>", None),
    "phi-4": ("<|im_end|>", "<|endoftext|>"),
    "granite": ("<|end_of_text|>", "<|end_of_text|>"),
    "Megrez": ("<|turn_end|>", None),
}
EXTRA = ["<|role_sep|>", "<|message_sep|>", "<|function_start|>", "<|function_end|>"]

# Templates of the given set that cannot be trained on as they are, with the words of the refusal: they never end an answer.
UNSOUND = {
    "ChatGLM3": "could not learn when to stop",
    "ChatGLM4": "could not learn when to stop",
    "MiniCPM-3B-OpenHermes-2.5-v2-GGUF": "could not learn when to stop",
    "GLMEdge": "which is how it opens the assistant's turn",
}

OWN = {
    "turns": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "headers": "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim }}"
    "{{ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "instructions": "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\n' }}{% elif m.role == 'user' %}"
    "{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}",
    "no system role": "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ '<start_of_turn>' + m.role + '\n' + m.content + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>assistant\n' }}{% endif %}",
    "thinking": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and loop.last %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{% endif %}",
}  # fmt: skip


class Case(NamedTuple):
    """A template with the end and begin tokens of its tokenizer."""

    name: str
    text: str
    eos: str
    bos: str | None


SYSTEM = {"role": "system", "content": "You sort messages. Reply with one JSON object."}
QUESTION = {"role": "user", "content": "My card has not arrived. What now?"}
TURNS = [QUESTION, {"role": "assistant", "content": "Since when?"}, {"role": "user", "content": "Since Monday."}]
JSON = '{"intent": "Card_Arrival", "days": 3}'
DATASETS = {
    "json": [Source("j1", [SYSTEM, QUESTION], JSON), Source("j2", [SYSTEM, TURNS[2]], '{"intent": "Other"}')],
    "no system": [Source("n1", [QUESTION], "It is on its way.")],
    "turns": [Source("t1", [SYSTEM, *TURNS], JSON), Source("t2", TURNS, "It comes on Thursday.")],
    "signs": [
        Source("s1", [SYSTEM, {"role": "user", "content": "Où est ma carte ? 卡片在哪里? 🙂"}], "Zoë: 三天 🙂 é"),
        Source("s2", [{"role": "user", "content": "<b>&amp; {{ braces }} {% set x = 1 %}</b>"}], "{{ x }} <b>&amp;</b> \\n"),
    ],
    "code": [Source("c1", [QUESTION], "def f(x):\n    if x:\n        return 1\n\n    return 2")],
    "loose": [Source("l1", [SYSTEM, QUESTION], "  two spaces before, a line after\n")],
}


def own_cases() -> list[Case]:
    """Templates of our own, of the forms that are in use."""
    ends = {
        "turns": "<|im_end|>",
        "headers": "<|eot_id|>",
        "instructions": "</s>",
        "no system role": "<end_of_turn>",
        "thinking": "<|im_end|>",
    }
    return [Case(name, text, ends[name], "<s>") for name, text in OWN.items()]


def real_cases(folder: Path) -> list[Case]:
    """The real templates in `folder`: chat_templates/*.jinja and those of chat_templates/cases.json."""
    cases = []
    for path in sorted((folder / "chat_templates").glob("*.jinja")):
        eos, bos = _tokens(path.stem)
        cases.append(Case(path.name, path.read_text(encoding="utf-8"), eos, bos))
    for case in json.loads((folder / "chat_templates/cases.json").read_text(encoding="utf-8"))["cases"]:
        eos, bos = _tokens(case["name"])
        cases.append(Case(case["name"], case["template"], case["eos"] or eos, case["bos"] or bos))
    return cases


def _tokens(name: str) -> tuple[str, str | None]:
    found = [tokens for part, tokens in TOKENS.items() if part in name]
    return found[-1] if found else ("</s>", "<s>")


@lru_cache(maxsize=256)
def _trained(specials: tuple[str, ...]) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([SYSTEM["content"], QUESTION["content"], JSON], trainer)
    return str(tokenizer.to_str())


def make_tokenizer(
    case: Case, *, first: tuple[str, ...] = (), without: tuple[str, ...] = (), normalizer: Any = None
) -> PreTrainedTokenizerFast:
    """A byte-level BPE that has every special token that these templates write, some new ones `first`, apart from those `without`."""
    own = (*first, case.eos, *([case.bos] if case.bos else []))
    tokenizer = Tokenizer.from_str(_trained(tuple(token for token in dict.fromkeys((*own, *SPECIALS)) if token not in without)))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=case.eos,
        bos_token=case.bos,
        pad_token="<|endoftext|>",
        extra_special_tokens=[token for token in EXTRA if token not in without],
    )
    made.chat_template = case.text
    return made


class Subject:
    """A student about to be trained: everything that a fault may touch."""

    def __init__(self, case: Case, rows: list[Source]) -> None:
        self.case = case
        self.rows = rows
        self.tokenizer = make_tokenizer(case)
        self.template: Template | None = None
        self.encoded: list[Encoded] = []
        self.stop_ids: list[int] = []
        self.batch: dict[str, torch.Tensor] = {}
        self.folder = Path()


Plant = Callable[[Subject], None]
STAGES = ("start", "encoded", "batch", "trained")


class Fault(NamedTuple):
    """`plant` breaks something at a stage; `words` are what the refusal must say. `applies`: to this template at all."""

    name: str
    stage: str
    plant: Plant
    words: str
    applies: Callable[[Subject], bool] = lambda subject: True


def check(case: Case, rows: list[Source], fault: Fault | None = None) -> Subject:
    """Go from rows to the first step, and load the result; raises TemplateError where something is wrong.

    Raises NotImplementedError when the fault does not apply to this template.
    """
    subject = Subject(case, rows)

    def plant(stage: str) -> None:
        if fault and fault.stage == stage:
            if not fault.applies(subject):
                raise NotImplementedError(fault.name)
            fault.plant(subject)

    plant("start")
    subject.template = adapt(subject.tokenizer, case.name)
    encoding = encode(subject.tokenizer, subject.template, subject.rows, 2048)
    assert not encoding.dropped, encoding.dropped
    subject.encoded = encoding.rows
    subject.stop_ids = [subject.template.stop_id]
    plant("encoded")
    prove(subject.tokenizer, subject.template, subject.rows, subject.encoded, subject.stop_ids)
    collate = DataCollatorForLanguageModeling(pad_token_id=subject.tokenizer.pad_token_id)
    subject.batch = collate([{"input_ids": row.ids, "labels": row.labels} for row in subject.encoded])
    plant("batch")
    prove_batches(subject.tokenizer, subject.template, [subject.batch], subject.encoded)
    with tempfile.TemporaryDirectory() as folder:
        subject.folder = Path(folder)
        subject.tokenizer.save_pretrained(folder)
        seal(subject.tokenizer, subject.folder)
        plant("trained")
        check_seal(subject.tokenizer, subject.folder, case.name)
    return subject


# --- faults of the template ------------------------------------------------------------------------------------------------------


def _last_answer(change: str) -> str:
    return (
        "{%- if messages[-1]['role'] == 'assistant' -%}{%- set messages = messages[:-1] + [{'role': 'assistant', 'content': "
        + change
        + "}] -%}{%- endif -%}"
    )


def _before(text: str) -> Plant:
    def plant(subject: Subject) -> None:
        subject.tokenizer.chat_template = text + subject.case.text

    return plant


def _after(text: str) -> Plant:
    def plant(subject: Subject) -> None:
        subject.tokenizer.chat_template = subject.case.text + text

    return plant


def _writes_thinking(subject: Subject) -> bool:
    """Some templates take a thinking block out of an answer again, or write an empty one themselves."""
    tokenizer = make_tokenizer(subject.case)
    adapt(tokenizer, "")
    answers = ("Yes.", "<think>\n\n</think>\n\nYes.")
    plain, thought = (render(tokenizer, [QUESTION, {"role": "assistant", "content": a}], generation_prompt=False) for a in answers)
    return thought.count("<think>") > plain.count("<think>")


def _double_bos(subject: Subject) -> None:
    subject.tokenizer.chat_template = "{{ bos_token + bos_token }}" + subject.case.text.replace("{{ bos_token }}", "", 1)


def _has_bos(subject: Subject) -> bool:
    return subject.case.bos is not None


def _stop_is_text(subject: Subject) -> None:
    """The tokenizer does not know the template's end token: it becomes some ten tokens of text."""
    known = adapt(make_tokenizer(subject.case), "").stop
    eos, bos = ("<other>" if token == known else token for token in (subject.case.eos, subject.case.bos))
    case = subject.case._replace(eos=eos, bos=bos)
    subject.tokenizer = make_tokenizer(case, without=(known,))
    subject.tokenizer.chat_template = subject.case.text.replace("eos_token", repr(known))


def _stop_has_a_name(subject: Subject) -> bool:
    """Not where the template asks the tokenizer for its end token by number."""
    return adapt(make_tokenizer(subject.case), "").stop not in EXTRA


def _swap_data(subject: Subject) -> None:
    subject.rows = [row._replace(prompt=row.prompt[::-1]) for row in subject.rows]


def _answered_prompt(subject: Subject) -> None:
    subject.rows = [row._replace(prompt=[*row.prompt, {"role": "assistant", "content": "Well."}]) for row in subject.rows]


def _foreign_roles(subject: Subject) -> None:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    subject.rows = [row._replace(prompt=[{**m, "role": names[m["role"]]} for m in row.prompt]) for row in subject.rows]


def _lower_case(subject: Subject) -> None:
    subject.tokenizer = make_tokenizer(subject.case, normalizer=normalizers.Lowercase())


# --- faults of what was encoded ---------------------------------------------------------------------------------------------------


def _rows(change: Callable[[Subject, Encoded], Encoded]) -> Plant:
    def plant(subject: Subject) -> None:
        subject.encoded = [change(subject, row) for row in subject.encoded]

    return plant


def _no_system(subject: Subject) -> None:
    assert subject.template is not None
    bare = [row._replace(prompt=[m for m in row.prompt if m["role"] != "system"]) for row in subject.rows]
    subject.encoded = encode(subject.tokenizer, subject.template, bare, 2048).rows


def _thinking_taught(subject: Subject, row: Encoded) -> Encoded:
    opening = len(_ids(subject, "<think>\n\n</think>\n\n"))
    return row._replace(prompt_length=row.prompt_length - opening)


def _thinks_in_prompt(subject: Subject) -> bool:
    row = subject.encoded[0]
    return str(subject.tokenizer.decode(row.ids[: row.prompt_length])).endswith("</think>\n\n")


def _ids(subject: Subject, text: str) -> list[int]:
    return list(subject.tokenizer(text, add_special_tokens=False)["input_ids"])


def _other_template(subject: Subject) -> None:
    """The rows were encoded with another template than the one that inference renders with."""
    subject.tokenizer.chat_template = subject.tokenizer.chat_template + "{%- if add_generation_prompt -%}{{ 'JSON: ' }}{%- endif -%}"


def _other_stop_ids(subject: Subject) -> None:
    subject.stop_ids = [int(subject.tokenizer.convert_tokens_to_ids("sop"))]


# --- faults of the batch ----------------------------------------------------------------------------------------------------------


def _pad_masked(subject: Subject) -> None:
    """What a collator does that masks ids equal to the padding, where the padding is the stop token."""
    assert subject.template is not None
    subject.tokenizer.pad_token = subject.template.stop
    subject.batch["labels"][subject.batch["input_ids"] == subject.template.stop_id] = IGNORED


def _cut(subject: Subject) -> None:
    width = min(len(row.ids) for row in subject.encoded) - 2
    subject.batch = {name: value[:, :width] for name, value in subject.batch.items()}


def _bos_added(subject: Subject) -> None:
    begin = subject.tokenizer.bos_token_id
    for name, first in (("input_ids", begin), ("attention_mask", 1), ("labels", IGNORED)):
        column = torch.full((len(subject.batch[name]), 1), first)
        if name == "input_ids" and not bool((subject.batch[name][:, 0] == begin).all()):
            column = column.repeat(1, 2)  # so that there are two in a template without any
        elif name != "input_ids" and subject.batch["input_ids"].shape[1] > subject.batch[name].shape[1] + 1:
            column = column.repeat(1, 2)
        subject.batch[name] = torch.cat([column, subject.batch[name]], 1)


def _everything_taught(subject: Subject) -> None:
    subject.batch["labels"] = torch.where(subject.batch["attention_mask"] == 1, subject.batch["input_ids"], IGNORED)


def _shifted(subject: Subject) -> None:
    subject.batch["labels"] = torch.roll(subject.batch["labels"], 1, 1)


def _stop_dropped(subject: Subject) -> None:
    for line, row in enumerate(subject.encoded):
        subject.batch["labels"][line, len(row.ids) - 1] = IGNORED


# --- faults after training ---------------------------------------------------------------------------------------------------------


def _edited(subject: Subject) -> None:
    subject.tokenizer.chat_template = subject.tokenizer.chat_template + " "


def _edited_beside(subject: Subject) -> None:
    path = subject.folder / "chat_template.jinja"
    path.write_text(path.read_text(encoding="utf-8") + "{# mine #}", encoding="utf-8")


def _edited_seal(subject: Subject) -> None:
    path = subject.folder / "template.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**kept, "text": kept["text"] + " "}), encoding="utf-8")


def _other_ids(subject: Subject) -> None:
    text = subject.tokenizer.chat_template
    subject.tokenizer = make_tokenizer(subject.case, first=("<new>",))
    subject.tokenizer.chat_template = text


FAULTS = [
    Fault("answer changed by the template", "start", _before(_last_answer("messages[-1]['content'] | upper")), "changes the answer"),
    Fault("answer cut by the template", "start", _before(_last_answer("messages[-1]['content'][:8]")), "changes the answer"),
    Fault(
        "answer's signs escaped by the template",
        "start",
        _before(_last_answer("messages[-1]['content'] | replace('\"', '&#34;')")),
        "row j1: the chat template changes the answer",
    ),
    Fault(
        "thinking block before the answer, in training only",
        "start",
        _before(_last_answer("'<think>\\n\\n</think>\\n\\n' ~ messages[-1]['content']")),
        "before the answer",
        _writes_thinking,
    ),
    Fault(
        "generation prompt not a prefix", "start", _after("{%- if add_generation_prompt -%}{{ 'Answer: ' }}{%- endif -%}"), "not a prefix"
    ),
    Fault(
        "turns in another order",
        "start",
        _before("{%- set messages = messages | reverse | list -%}"),
        "not a prefix|refuses|leaves out|changes",
    ),
    Fault(
        "system message left out where it is long",
        "start",
        _before(
            "{%- if messages[0]['role'] == 'system' and messages[0]['content'] | length > 20 -%}"
            "{%- set messages = [{'role': 'system', 'content': 'Be kind.'}] + messages[1:] -%}{%- endif -%}"
        ),
        "shows the system message .* not at all",
        lambda subject: not any("folded" in change for change in adapt(make_tokenizer(subject.case), "").changes),
    ),
    Fault("two begin tokens in the template", "start", _double_bos, "begins with two", _has_bos),
    Fault("date of the day in the prompt", "start", _before("{{ strftime_now('%d ' ~ '%B') }}"), "the date of the day"),
    Fault("stop token unknown to the tokenizer", "start", _stop_is_text, "could not learn when to stop", _stop_has_a_name),
    Fault("system message after the user's", "start", _swap_data, "a system message comes first"),
    Fault("prompt that ends with an answer", "start", _answered_prompt, "the last message is the user's"),
    Fault("roles of another format", "start", _foreign_roles, "has the role 'human'"),
    Fault("tokenizer that loses text", "start", _lower_case, "the answer in training is not|special tokens|not do survive|stop"),
    Fault(
        "stop token not encoded", "encoded", _rows(lambda s, row: row._replace(ids=row.ids[:-1])), "the stop token .* is not in the loss"
    ),
    Fault(
        "stop token twice",
        "encoded",
        _rows(lambda s, row: row._replace(ids=[*row.ids, row.ids[-1]])),
        "after the stop token is in the loss",
    ),
    Fault(
        "line break after the stop token in the loss",
        "encoded",
        _rows(lambda s, row: row._replace(ids=[*row.ids, *_ids(s, "\n")])),
        r"'\\n' after the stop token is in the loss",
    ),
    Fault(
        "end of the prompt in the loss",
        "encoded",
        _rows(lambda s, row: row._replace(prompt_length=row.prompt_length - 2)),
        "of the prompt is in the loss",
    ),
    Fault(
        "thinking block of the generation prompt in the loss",
        "encoded",
        _rows(_thinking_taught),
        r"think>\\n\\n' of the prompt is in the loss",
        _thinks_in_prompt,
    ),
    Fault(
        "beginning of the answer not in the loss",
        "encoded",
        _rows(lambda s, row: row._replace(prompt_length=row.prompt_length + 2)),
        "of the answer is not in the loss",
    ),
    Fault(
        "answer cut, with a stop token",
        "encoded",
        _rows(lambda s, row: row._replace(ids=[*row.ids[:-4], row.ids[-1]])),
        "the answer is cut",
    ),
    Fault("answer cut, without a stop token", "encoded", _rows(lambda s, row: row._replace(ids=row.ids[:-4])), "the answer is cut"),
    Fault(
        "two begin tokens in the ids",
        "encoded",
        _rows(lambda s, row: Encoded(row.id, [s.tokenizer.bos_token_id] * 2 + row.ids, row.prompt_length + 2)),
        "begins with two",
        _has_bos,
    ),
    Fault("system message not encoded", "encoded", _no_system, "the prompt in training is not the one at inference"),
    Fault("template changed after encoding", "encoded", _other_template, "the prompt in training is not the one at inference"),
    Fault("stop id missing from the generation config", "encoded", _other_stop_ids, "answers would run on"),
    Fault("padding is the stop token, and masked", "batch", _pad_masked, "It is the padding token as well"),
    Fault("stop token masked in the batch", "batch", _stop_dropped, "the stop token .* is not in the loss"),
    Fault("rows cut in the batch", "batch", _cut, "in its batch: cut from"),
    Fault("begin token added in the batch", "batch", _bos_added, "begins with two", _has_bos),
    Fault("whole text in the loss", "batch", _everything_taught, "of the prompt is in the loss"),
    Fault("labels shifted by one", "batch", _shifted, "is not in the loss|the answer is cut|in training is not"),
    Fault("template edited after training", "trained", _edited, "edited after training"),
    Fault("template beside the adapter edited", "trained", _edited_beside, "edited after training"),
    Fault("seal edited", "trained", _edited_seal, "its text was edited"),
    Fault("tokenizer changed after training", "trained", _other_ids, "changed after training"),
]


def planted(cases: list[Case]) -> Iterator[tuple[Case, Fault]]:
    """Every fault with every template that is sound without it."""
    for case in cases:
        if case.name not in UNSOUND:
            for fault in FAULTS:
                yield case, fault
