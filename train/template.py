"""Chat templates: rows to token ids with a loss mask, and the proof that training equals inference.

    template = adapt(tokenizer, "the student's folder")
    encoding = encode(tokenizer, template, rows, max_length=1024)
    proof = prove(tokenizer, template, rows, encoding.rows, stop_ids)

What is supervised is exactly what inference has to generate after the generation prompt: the answer and the stop
token. Nothing of the prompt, and nothing that the template writes after the stop token. We tokenise and mask here,
not in the trainer, so that it can be shown before the first step.
"""

import hashlib
import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

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
        """The ids with -100, the index that the loss ignores, for the prompt."""
        return [-100] * self.prompt_length + self.ids[self.prompt_length :]


class Encoding(NamedTuple):
    """Encoded rows in the order given, and the ids of rows left out, by reason."""

    rows: list[Encoded]
    dropped: dict[str, list[str]]


def adapt(tokenizer: PreTrainedTokenizerBase, where: str) -> Template:
    """Make the tokenizer's chat template one that can be trained on, and describe it.

    A student without a template gets FALLBACK. A template that has no place for a system message, or that opens a
    thinking block, is repaired (REPAIRS). Raises TemplateError when neither helps.
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
    for changes in ATTEMPTS:
        changed = original
        for name in changes:
            changed = REPAIRS[name](changed)
        tokenizer.chat_template = changed
        try:
            found = _describe(tokenizer, source, changes, where)
            tokenizer.adapted_template = found
            return found
        except TemplateError as error:
            refusals.append(error)
    tokenizer.chat_template = original
    raise refusals[0]


def render(tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, generation_prompt: bool) -> str:
    """Return the text of a conversation. Raises TemplateError with the template's own words when it refuses."""
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
    except (jinja2.TemplateError, TypeError) as error:
        roles = ", ".join(message["role"] for message in messages)
        raise TemplateError(f"the chat template refuses a conversation of {roles}: {error}") from error
    return str(text)


def encode(tokenizer: PreTrainedTokenizerBase, template: Template, rows: Sequence[Source], max_length: int) -> Encoding:
    """Render, tokenise and mask rows.

    A row longer than `max_length` tokens, without an answer, or with a special token inside its answer is left out and
    named, never cut. Raises TemplateError when a row's training text is not generation prompt + answer + stop token.
    """
    prompts, answers = [], []
    for row in rows:
        prompt = render(tokenizer, row.prompt, generation_prompt=True)
        full = render(tokenizer, [*row.prompt, {"role": "assistant", "content": row.completion}], generation_prompt=False)
        prompts.append(prompt)
        answers.append(_answer_text(prompt, full, row, template))
    prompt_ids = _tokenize(tokenizer, prompts)
    full_ids = _tokenize(tokenizer, [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
    special = _special_ids(tokenizer)
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
                f"({template.stop_id}); the student would never learn to stop. Check the tokenizer's special tokens."
            )
        elif special.intersection(supervised[:-1]):
            dropped.setdefault("special token inside the completion", []).append(row.id)
        elif len(ids) > max_length:
            dropped.setdefault(f"longer than {max_length} tokens", []).append(row.id)
        else:
            encoded.append(Encoded(row.id, ids, len(before)))
    return Encoding(encoded, dropped)


def prove(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    rows: Sequence[Source],
    encoded: Sequence[Encoded],
    stop_ids: Iterable[int],
    *,
    sample: int = 64,
    longest: int = 8,
    seed: int = 0,
) -> dict[str, Any]:
    """Show on sampled and longest rows that training equals inference, and return the record of it.

    `stop_ids` are those of the model's generation config. Raises TemplateError with the difference and what to set.
    """
    texts = {row.id: row for row in rows}
    ordered = sorted(encoded, key=lambda row: (-len(row.ids), row.id))
    chosen = ordered[:longest] + random.Random(seed).sample(ordered[longest:], min(sample, len(ordered[longest:])))
    if not chosen:
        raise TemplateError("no row is left to train on; see the reasons in run.json, and raise train.max_length if they were too long.")
    stop_ids = list(stop_ids)
    if template.stop_id not in stop_ids:
        raise TemplateError(
            f"the template ends a turn with {template.stop!r} ({template.stop_id}), but generation stops only at {stop_ids}: "
            "answers would run on. Add it to eos_token_id in the student's generation_config.json."
        )
    special = _special_ids(tokenizer)
    for row in chosen:
        source = texts[row.id]
        prompt = render(tokenizer, source.prompt, generation_prompt=True)
        inference = tokenizer.apply_chat_template(source.prompt, tokenize=True, add_generation_prompt=True, return_dict=False)
        if list(inference) != row.ids[: row.prompt_length]:
            raise TemplateError(_difference(row.id, "prompt", str(tokenizer.decode(row.ids[: row.prompt_length])), prompt))
        bos = tokenizer.bos_token_id
        if bos is not None and row.ids[:2] == [bos, bos]:
            raise TemplateError(
                f"row {row.id}: the text begins with two {tokenizer.bos_token!r}. Remove it from the chat template, "
                "or set add_bos_token to false in the tokenizer's configuration."
            )
        labels = [label for label in row.labels if label != -100]
        expected = template.lead + source.completion.strip() + template.trail + template.stop
        loose = template.lead + source.completion + template.trail + template.stop
        if _decoded(tokenizer, row) not in (_normal(expected), _normal(loose)):
            raise TemplateError(_difference(row.id, "answer", _decoded(tokenizer, row), loose))
        if labels[-1] != template.stop_id or special.intersection(labels[:-1]):
            raise TemplateError(f"row {row.id}: the stop token {template.stop!r} is not the one and last of the supervised tokens.")
    shown = min(chosen, key=lambda row: (len(row.ids), row.id))
    return {
        "template": template.source,
        "changes": list(template.changes),
        "template_sha256": template.sha256,
        "stop": {"text": template.stop, "id": template.stop_id},
        "stop_ids": stop_ids,
        "rows_encoded": len(encoded),
        "rows_proved": len(chosen),
        "longest_tokens": len(ordered[0].ids),
        "proved": [
            "the generation prompt is a prefix of the training text",
            "prompt ids in training equal prompt ids at inference",
            "the supervised bytes are the answer and the stop token, and nothing of the prompt",
            "the stop token is among those at which generation stops",
            "the text begins with at most one begin token",
        ],
        "example": {
            "id": shown.id,
            "prompt": tokenizer.decode(shown.ids[: shown.prompt_length]),
            "supervised": tokenizer.decode(shown.ids[shown.prompt_length :]),
        },
    }


def _describe(tokenizer: PreTrainedTokenizerBase, source: str, changes: tuple[str, ...], where: str) -> Template:
    prompt = render(tokenizer, PROBE_PROMPT, generation_prompt=True)
    full = render(tokenizer, [*PROBE_PROMPT, {"role": "assistant", "content": PROBE_ANSWER}], generation_prompt=False)
    for message in PROBE_PROMPT:
        if message["content"] not in prompt:
            raise TemplateError(f"{where}: the chat template leaves out the {message['role']} message. Use a template that writes it.")
    if not full.startswith(prompt):
        raise TemplateError(
            f"{where}: "
            + _difference("probe", "generation prompt", full[: len(prompt)], prompt)
            + "\nTraining would show another prompt than inference gives. Edit `chat_template` so that both agree."
        )
    lead, found, rest = full[len(prompt) :].partition(PROBE_ANSWER)
    if not found or lead.strip():
        raise TemplateError(
            f"{where}: "
            + _difference("probe", "answer", full[len(prompt) :], PROBE_ANSWER)
            + "\nThe template writes something before the answer that the generation prompt does not give."
        )
    stop = rest.lstrip()
    ids = _tokenize(tokenizer, [stop])[0] if stop else []
    if not ids or ids[0] not in _special_ids(tokenizer) | set(tokenizer.added_tokens_decoder):
        raise TemplateError(
            f"{where}: after the answer the chat template writes {rest!r}, which does not begin with one special token of "
            "this tokenizer: the student could not learn when to stop. Let the template end the assistant's turn with "
            "`eos_token`, or add its end-of-turn token to the tokenizer."
        )
    text = str(tokenizer.convert_ids_to_tokens(ids[0]))
    return Template(
        source=source,
        changes=changes,
        lead=lead,
        trail=rest[: len(rest) - len(stop)],
        stop=text,
        stop_id=ids[0],
        sha256=_sha256(tokenizer),
    )


def _sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def _answer_text(prompt: str, full: str, row: Source, template: Template) -> str:
    """Return what follows the generation prompt, through the stop token; the rest of the template's text is dropped."""
    if not full.startswith(prompt):
        raise TemplateError(_difference(row.id, "generation prompt", full[: len(prompt)], prompt))
    span = full[len(prompt) :]
    # Some templates (Llama 3, Gemma) trim what they are given; then the trimmed answer is what is taught.
    for completion in (row.completion, row.completion.strip()):
        wanted = template.lead + completion + template.trail + template.stop
        if span.startswith(wanted):
            return wanted
    raise TemplateError(_difference(row.id, "answer", span, template.lead + row.completion + template.trail + template.stop))


def _tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Texts of a template hold their own begin token, so none is added."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _decoded(tokenizer: PreTrainedTokenizerBase, row: Encoded) -> str:
    """Decode the supervised ids in their context: some decoders drop a space at the start of a text."""
    before = str(tokenizer.decode(row.ids[: row.prompt_length], clean_up_tokenization_spaces=False))
    whole = str(tokenizer.decode(row.ids, clean_up_tokenization_spaces=False))
    return _normal(whole[len(before) :])


def _normal(text: str) -> str:
    """Qwen's tokenizer composes characters (NFC) before it splits them; that is no difference to a reader."""
    return unicodedata.normalize("NFC", text)


def _difference(row: str, what: str, training: str, inference: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(training, inference, strict=False)) if a != b), min(len(training), len(inference)))
    near = slice(max(0, at - 40), at + 60)
    return (
        f"row {row}: the {what} in training is not the one at inference.\n"
        f"  training:  {training[near]!r}\n  inference: {inference[near]!r}\n  first difference at character {at}"
    )
