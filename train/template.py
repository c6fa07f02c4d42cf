"""Chat templates: rows to token ids with a loss mask, and the seal by which a trained template is known again.

    template = adapt(tokenizer, "the student's folder")
    encoding = encode(tokenizer, template, rows, max_length=1024)
    seal(tokenizer, folder)                                 after training
    check_seal(tokenizer, folder, "the student's folder")   before the trained weights are used

What is supervised is exactly what inference has to generate after the generation prompt: the answer and the stop
token. Nothing of the prompt, and nothing that the template writes after the stop token. We tokenise and mask here,
not in the trainer, so that `proof` can show it before the first step.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import jinja2
from transformers import PreTrainedTokenizerBase

from train.dataset import Message
from train.errors import TemplateError

# For a student without a template of its own: plain words as role names, only tokens that every tokenizer has.
FALLBACK = (
    "{{ bos_token or '' }}{% for message in messages %}{{ '### ' + message['role'] + '\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant\\n' }}{% endif %}"
)
FOLD = (
    "{%- if messages|length > 1 and messages[0]['role'] == 'system' and messages[1]['role'] == 'user' %}"
    "{%- set messages = [{'role': 'user', 'content': messages[0]['content'] ~ '\\n\\n' ~ messages[1]['content']}]"
    " + messages[2:] %}{%- endif %}"
)


# The day that a template's clock is stopped at: the one that Llama 3's own template falls back on.
DAY = date(2024, 7, 26)
SEAL = "template.json"
# The label that the loss of transformers leaves out.
IGNORED = -100
WRITTEN_OUT = "{%- set additional_special_tokens = "
ROLES = ("system", "user", "assistant")


def _thinking_off(template: str) -> str:
    return "{%- set enable_thinking = false %}" + template


def _folded(template: str) -> str:
    return FOLD + template


def _unopened(template: str) -> str:
    return re.sub(r"<think>\\n(?=['\"]\s*-?\}\})", "", template)


# Changes to a template that fails as it stands. They are made in its text, so that training, evaluation and serving, which
# all render with this text, stay alike.
REPAIRS: dict[str, Callable[[str], str]] = {
    "thinking off": _thinking_off,
    "system message folded into the first user message": _folded,
    "generation prompt opens no thinking block": _unopened,
}
ATTEMPTS = ((), *((name,) for name in REPAIRS), tuple(REPAIRS)[:2])
PROBE_PROMPT = [{"role": "system", "content": "Name the colour."}, {"role": "user", "content": "What is grass?"}]
PROBE_ANSWER = "It is green."


class Template(NamedTuple):
    """How a student is spoken to and how it ends its turn.

    `lead` and `trail` are white space that the template itself puts around an answer; the student generates it too.
    """

    source: str
    changes: tuple[str, ...]
    lead: str
    trail: str
    stop: str
    stop_id: int
    sha256: str


class _Refusal(TemplateError):
    """A template refused at a step of its description: of several attempts, the one that came furthest says what is wrong."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Source(NamedTuple):
    """A row as text, before it is rendered."""

    id: str
    prompt: list[Message]
    completion: str


class Encoded(NamedTuple):
    """A row as token ids; the loss is on the ids from `prompt_length` on."""

    id: str
    ids: list[int]
    prompt_length: int

    @property
    def labels(self) -> list[int]:
        """The ids, with IGNORED for the prompt."""
        return [IGNORED] * self.prompt_length + self.ids[self.prompt_length :]


class Encoding(NamedTuple):
    """Encoded rows in the order given, and the ids of rows left out, by reason."""

    rows: list[Encoded]
    dropped: dict[str, list[str]]


def adapt(tokenizer: PreTrainedTokenizerBase, where: str) -> Template:
    """Make the tokenizer's chat template one that can be trained on, and describe it.

    A student without a template gets FALLBACK. A template that reads the clock gets a fixed day; one that has no place
    for a system message, or that opens a thinking block, is repaired (REPAIRS). Raises TemplateError when nothing helps.
    """
    known: Template | None = getattr(tokenizer, "adapted_template", None)
    if known and known.sha256 == _sha256(tokenizer):
        return known  # so that what was changed at loading is still known when it is asked for again
    source = "own"
    if not tokenizer.chat_template:
        source = "fallback"
        if not tokenizer.eos_token:
            raise TemplateError(
                f"{where}: the tokenizer has neither a chat template nor an end-of-text token, so an answer could not end. "
                "Set `chat_template` and `eos_token` in its tokenizer_config.json."
            )
        tokenizer.chat_template = FALLBACK
    original = tokenizer.chat_template
    if not isinstance(original, str):
        raise TemplateError(f"{where}: has several named chat templates {sorted(original)}. Keep one in its tokenizer.")
    refusals = []
    fixed, always = _fixed(original, tokenizer, where)
    for changes in ATTEMPTS:
        changed = fixed
        for name in changes:
            changed = REPAIRS[name](changed)
        tokenizer.chat_template = changed
        try:
            found = _describe(tokenizer, source, (*always, *changes), where)
            tokenizer.adapted_template = found
            return found
        except _Refusal as error:
            refusals.append(error)
    tokenizer.chat_template = original
    raise max(refusals, key=lambda refusal: refusal.step)


def render(tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, generation_prompt: bool) -> str:
    """Return the text of a conversation. Raises TemplateError with the template's own words when it refuses."""
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
    except (jinja2.TemplateError, TypeError) as error:
        roles = ", ".join(message["role"] for message in messages)
        mend = "Mend the order of roles in the data, or edit `chat_template`"
        if undefined := re.search(r"'(\w+_token)' is undefined", str(error)):
            mend = f"Set `{undefined[1]}` in the tokenizer's tokenizer_config.json"
        raise TemplateError(f"the chat template refuses a conversation of {roles}: {error}. {mend}.") from error
    return str(text)


def encode(tokenizer: PreTrainedTokenizerBase, template: Template, rows: Sequence[Source], max_length: int) -> Encoding:
    """Render, tokenise and mask rows.

    A row longer than `max_length` tokens, without an answer, or with a special token inside its answer is left out and
    named, never cut. Raises TemplateError when a row's roles are out of order, the prompt does not show all its messages,
    or the training text is not generation prompt + answer + stop token.
    """
    prompts, answers = [], []
    for row in rows:
        _check_roles(row)
        try:
            prompt = render(tokenizer, row.prompt, generation_prompt=True)
            full = render(tokenizer, [*row.prompt, {"role": "assistant", "content": row.completion}], generation_prompt=False)
        except TemplateError as error:
            raise TemplateError(f"row {row.id}: {error}") from error
        check_messages(row, prompt)
        prompts.append(prompt)
        answers.append(_answer_text(prompt, full, row, template))
    prompt_ids = _tokenize(tokenizer, prompts)
    full_ids = _tokenize(tokenizer, [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
    special = special_ids(tokenizer)
    encoded: list[Encoded] = []
    dropped: dict[str, list[str]] = {}
    for row, before, ids, answer in zip(rows, prompt_ids, full_ids, answers, strict=True):
        if ids[: len(before)] != before:
            # A token spans the boundary. Inference tokenises the prompt alone, so training must as well.
            ids = before + _tokenize(tokenizer, [answer])[0]
        supervised = ids[len(before) :]
        if not row.completion.strip():
            dropped.setdefault("empty completion", []).append(row.id)
        elif not supervised or supervised[-1] != template.stop_id:
            raise TemplateError(
                f"row {row.id}: its token ids end in {supervised[-1:]}, not in the stop token {template.stop!r} "
                f"({template.stop_id}); the student would never learn to stop. Make {template.stop!r} a special token of the tokenizer."
            )
        elif special.intersection(supervised[:-1]):
            dropped.setdefault("special token inside the completion", []).append(row.id)
        elif len(ids) > max_length:
            dropped.setdefault(f"longer than {max_length} tokens", []).append(row.id)
        else:
            encoded.append(Encoded(row.id, ids, len(before)))
    return Encoding(encoded, dropped)


def seal(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Keep the template that was trained on beside the weights: its hash, its stop token and its text."""
    described = adapt(tokenizer, str(folder))
    kept = {
        "sha256": described.sha256,
        "stop": {"text": described.stop, "id": described.stop_id},
        "changes": list(described.changes),
        "text": tokenizer.chat_template,
    }
    (folder / SEAL).write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def check_seal(tokenizer: PreTrainedTokenizerBase, folder: Path, where: str) -> None:
    """Refuse a template that is not the one that the weights in `folder` were trained on; weights without a seal pass.

    `where` is the folder or hub id that the tokenizer came from. Raises TemplateError with the first difference.
    """
    path = folder / SEAL
    if not path.is_file():
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        sha256, text, stop = kept["sha256"], str(kept["text"]), kept["stop"]
    except (ValueError, KeyError, TypeError) as error:
        raise TemplateError(f"{path}: not a template's seal: {error!r}. Train again, or remove it to use the weights unchecked.") from error
    if hashlib.sha256(text.encode()).hexdigest() != sha256:
        raise TemplateError(f"{path}: its text was edited: it no longer has sha256 {sha256[:12]}. Train again, or restore the file.")
    mend = f"Put the text of {path} back as its chat_template, or train again."
    beside = folder / "chat_template.jinja"
    templates = {where: str(tokenizer.chat_template)}
    if beside.is_file():
        templates[str(beside)] = beside.read_text(encoding="utf-8")
    for name, now in templates.items():
        if now != text:
            raise TemplateError(
                f"{name}: the chat template was edited after training: {folder} was trained with {sha256[:12]}, this is "
                f"{hashlib.sha256(now.encode()).hexdigest()[:12]}. {mend}\n{difference(text, now, ('trained', 'now'))}"
            )
    found = tokenizer.convert_tokens_to_ids(stop["text"])
    if found != stop["id"]:
        raise TemplateError(
            f"{where}: its stop token {stop['text']!r} has the id {found}, {folder} was trained with {stop['id']}: the tokenizer was "
            "changed after training. Put the trained one back, or train again."
        )


def difference(expected: str, found: str, names: tuple[str, str]) -> str:
    """Show where two texts part, in three lines."""
    pairs = zip(expected, found, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(expected), len(found)))
    near = slice(max(0, at - 40), at + 60)
    width = max(map(len, names)) + 1
    return (
        f"  {names[0] + ':':<{width}} {expected[near]!r}\n  {names[1] + ':':<{width}} {found[near]!r}\n  first difference at character {at}"
    )


def check_messages(row: Source, prompt: str) -> None:
    """Refuse a rendered prompt that leaves out a message of its row, or shows the messages in another order."""
    at = 0
    for message in row.prompt:
        content = message["content"].strip()
        found = prompt.find(content, at)
        if found < 0:
            where = "in another place than its turn" if content in prompt else "not at all"
            raise TemplateError(
                f"row {row.id}: the chat template shows the {message['role']} message {content[:60]!r} {where}. "
                "Use a template that writes every message in order, or put its text into the user's message."
            )
        at = found + len(content)


def _check_roles(row: Source) -> None:
    roles = [message["role"] for message in row.prompt]
    unknown = sorted(set(roles) - set(ROLES))
    if unknown:
        raise TemplateError(f"row {row.id}: has the role {unknown[0]!r}; known are {', '.join(ROLES)}. Rename it in the data.")
    if roles[-1:] != ["user"] or "system" in roles[1:]:
        raise TemplateError(
            f"row {row.id}: its prompt has the roles {', '.join(roles) or 'none'}; a system message comes first if there is one, and the "
            "last message is the user's, which the completion answers. Mend the order in the data."
        )


def _fixed(template: str, tokenizer: PreTrainedTokenizerBase, where: str) -> tuple[str, tuple[str, ...]]:
    """Take out of a template what would render otherwise on another day, or not at all in this version of transformers."""
    changes = []
    if "strftime_now" in template:
        template = re.sub(r"strftime_now\((['\"])([^'\"]*)\1\)", lambda call: repr(DAY.strftime(call[2])), template)
        changes.append(f"today's date fixed at {DAY}")
        if "strftime_now(" in template:
            raise TemplateError(
                f"{where}: the chat template writes the date of the day in a way that cannot be fixed, so that the prompt at inference "
                "would not be the one in training. Write a fixed date in `chat_template`."
            )
    if "additional_special_tokens" in template and not template.startswith(WRITTEN_OUT):
        tokens = [str(token) for token in tokenizer.extra_special_tokens]
        template = f"{WRITTEN_OUT}{tokens!r} -%}}{template}"
        changes.append("additional special tokens written out")
    return template, tuple(changes)


def _describe(tokenizer: PreTrainedTokenizerBase, source: str, changes: tuple[str, ...], where: str) -> Template:
    try:
        prompt = render(tokenizer, PROBE_PROMPT, generation_prompt=True)
        full = render(tokenizer, [*PROBE_PROMPT, {"role": "assistant", "content": PROBE_ANSWER}], generation_prompt=False)
    except TemplateError as error:
        raise _Refusal(f"{where}: {error}", 0) from error
    for message in PROBE_PROMPT:
        if message["content"] not in prompt:
            raise _Refusal(f"{where}: the chat template leaves out the {message['role']} message. Use a template that writes it.", 1)
    if not full.startswith(prompt):
        raise _Refusal(
            f"{where}: the generation prompt is not a prefix of the training text: training would show another prompt than inference "
            "gives. Edit `chat_template` so that what it writes under add_generation_prompt is what it writes before an assistant's "
            "content.\n" + difference(full[: len(prompt)], prompt, ("training", "inference")),
            2,
        )
    lead, found, rest = full[len(prompt) :].partition(PROBE_ANSWER)
    if not found:
        raise _Refusal(
            f"{where}: the chat template changes the answer. Edit `chat_template` to write an assistant's content as it is.\n"
            + difference(lead, PROBE_ANSWER, ("training", "inference")),
            3,
        )
    if lead.strip():
        raise _Refusal(
            f"{where}: the chat template writes {lead!r} before the answer, which the generation prompt does not give, so that it would be "
            "in the loss. Write it under add_generation_prompt too, or not at all.",
            4,
        )
    stop = rest.lstrip()
    ids = _tokenize(tokenizer, [stop])[0] if stop else []
    if not ids or ids[0] not in special_ids(tokenizer) | set(tokenizer.added_tokens_decoder):
        raise _Refusal(
            f"{where}: after the answer the chat template writes {rest!r}, which does not begin with one special token of "
            "this tokenizer: the student could not learn when to stop. Let the template end the assistant's turn with its stop token "
            "(append \"{% if messages[-1]['role'] == 'assistant' %}{{ eos_token }}{% endif %}\" to `chat_template`), or add its "
            "end-of-turn token to the tokenizer.",
            5,
        )
    text = str(tokenizer.convert_ids_to_tokens(ids[0]))
    if prompt.rstrip().endswith(text) and not _ends_each_turn(tokenizer, text):
        raise _Refusal(
            f"{where}: after the answer the chat template writes {text!r}, which is how it opens the assistant's turn, not a stop token: "
            "the student could not learn when to stop. Write it only under add_generation_prompt, and `eos_token` after an assistant's "
            "content.",
            6,
        )
    return Template(
        source=source,
        changes=changes,
        lead=lead,
        trail=rest[: len(rest) - len(stop)],
        stop=text,
        stop_id=ids[0],
        sha256=_sha256(tokenizer),
    )


def _ends_each_turn(tokenizer: PreTrainedTokenizerBase, stop: str) -> bool:
    """Whether an answer is followed by `stop` when the conversation goes on as well."""
    going_on = [*PROBE_PROMPT, {"role": "assistant", "content": PROBE_ANSWER}, {"role": "user", "content": "What is snow?"}]
    return render(tokenizer, going_on, generation_prompt=True).rpartition(PROBE_ANSWER)[2].lstrip().startswith(stop)


def _sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def _answer_text(prompt: str, full: str, row: Source, template: Template) -> str:
    """Return what follows the generation prompt, through the stop token; the rest of the template's text is dropped."""
    if not full.startswith(prompt):
        raise TemplateError(
            f"row {row.id}: the generation prompt is not a prefix of the training text. Edit `chat_template` so that both agree.\n"
            + difference(full[: len(prompt)], prompt, ("training", "inference"))
        )
    span = full[len(prompt) :]
    # Some templates (Llama 3, Gemma) trim what they are given; then the trimmed answer is what is taught.
    for completion in (row.completion, row.completion.strip()):
        wanted = template.lead + completion + template.trail + template.stop
        if span.startswith(wanted):
            return wanted
    raise TemplateError(
        f"row {row.id}: the chat template changes the answer. Edit `chat_template` to write an assistant's content as it is, or leave "
        "the row out.\n" + difference(span, template.lead + row.completion + template.trail + template.stop, ("training", "inference"))
    )


def _tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Texts of a template hold their own begin token, so none is added."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids of all special tokens, added ones among them."""
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)
