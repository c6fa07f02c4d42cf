"""The proof, before the first step, that training equals inference: rows, batches, packing.

    record = prove(tokenizer, template, rows, encoding.rows, stop_ids)     the rows as they were encoded
    record = prove_training(trainer, encoding.rows)                        the batches that the trainer really makes of them
    record = prove_packing(model, [row.ids for row in encoding.rows])      rows that share a batch do not see one another

A fault raises TemplateError: what differs, where, and what to set. The records together are a run's template_proof.json.
"""

import random
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from train.errors import TemplateError
from train.template import IGNORED, Encoded, Source, Template, check_messages, difference, render, special_ids

# Largest difference of a logit, packed against alone, as a part of the largest logit. The sums are the same in another order,
# so it is rounding (24 bits of precision in float32, 8 in bf16); what a row sees of its neighbour is a thousand times that.
PACKED = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
BATCHED = 8
PROVED = (
    "every message of the prompt is in the text, in order",
    "the generation prompt is a prefix of the training text",
    "prompt ids in training equal prompt ids at inference",
    "the text begins with at most one begin token",
    "the supervised bytes are the answer and the stop token, and nothing of the prompt",
    "ids survive decoding and encoding",
    "the stop token is among those at which generation stops",
)


class Taught(NamedTuple):
    """One sequence of a batch: its ids, and whether each is in the loss."""

    ids: list[int]
    supervised: list[bool]


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
    record: dict[str, Any] = {
        "template": template.source,
        "changes": list(template.changes),
        "template_sha256": template.sha256,
        "stop": {"text": template.stop, "id": template.stop_id},
        "stop_ids": stop_ids,
        "begin": tokenizer.bos_token,
        "rows_encoded": len(encoded),
        "rows_proved": len(chosen),
        "longest_tokens": len(ordered[0].ids),
    }
    try:
        if template.stop_id not in stop_ids:
            raise TemplateError(
                f"the template ends a turn with {template.stop!r} ({template.stop_id}), but generation stops only at {stop_ids}: "
                "answers would run on. Add it to eos_token_id in the student's generation_config.json."
            )
        for row in chosen:
            _prove_row(tokenizer, template, texts[row.id], row)
    except TemplateError as error:
        raise TemplateError(str(error), {**record, "passed": False, "fault": str(error).splitlines()}) from error
    shown = min(chosen, key=lambda row: (len(row.ids), row.id))
    return {
        **record,
        "passed": True,
        "proved": list(PROVED),
        "answers_trimmed": sum(texts[row.id].completion != texts[row.id].completion.strip() for row in chosen),
        "example": {
            "id": shown.id,
            "prompt": tokenizer.decode(shown.ids[: shown.prompt_length]),
            "supervised": tokenizer.decode(shown.ids[shown.prompt_length :]),
        },
        "diff": picture(tokenizer, texts[shown.id], shown),
    }


def picture(tokenizer: PreTrainedTokenizerBase, source: Source, row: Encoded) -> list[str]:
    """A row line by line: "  " what inference is given, "+ " what it must generate, "- " what the template adds after that."""
    prompt = render(tokenizer, source.prompt, generation_prompt=True)
    full = render(tokenizer, [*source.prompt, {"role": "assistant", "content": source.completion}], generation_prompt=False)
    taught = _decoded(tokenizer, row.ids, [i >= row.prompt_length for i in range(len(row.ids))])
    after = full[len(prompt) + len(taught) :]
    parts = (("  ", prompt), ("+ ", taught), ("- ", after))
    return [mark + line for mark, text in parts for line in text.replace("\n", "⏎\n").splitlines()]


def prove_batches(
    tokenizer: PreTrainedTokenizerBase, template: Template, batches: Iterable[Mapping[str, Any]], rows: Sequence[Encoded]
) -> dict[str, Any]:
    """Show that batches hold the proved rows, whole, with the loss on the same ids; padding and packing taken off.

    This is what catches a collator that masks the stop token because it is also the padding, one that cuts, one that adds
    a begin token. Raises TemplateError.
    """
    known = {tuple(row.ids): row for row in rows}
    count = 0
    for batch in batches:
        for taught in sequences(batch, tokenizer.pad_token_id):
            row = known.get(tuple(taught.ids))
            if row is None:
                raise TemplateError(_stranger(tokenizer, taught, rows))
            wanted = [label != IGNORED for label in row.labels]
            if taught.supervised != wanted:
                found, expected = (_decoded(tokenizer, row.ids, mask) for mask in (taught.supervised, wanted))
                raise TemplateError(_explain(f"row {row.id}, in its batch", found, expected, template, tokenizer))
            count += 1
    return {"sequences": count, "proved": "batches hold the proved rows, whole, with the loss on the same ids"}


def sequences(batch: Mapping[str, Any], pad: int | None) -> Iterator[Taught]:
    """Take a batch of tensors (rows, tokens) apart: by its attention mask, or, packed, where positions begin again at 0."""
    ids = batch["input_ids"].tolist()
    if "completion_mask" in batch:  # preference batches
        labels = [[1 if inside else IGNORED for inside in line] for line in batch["completion_mask"].tolist()]
    else:
        labels = batch["labels"].tolist()
    if "position_ids" in batch and "attention_mask" not in batch:
        for line, targets, positions in zip(ids, labels, batch["position_ids"].tolist(), strict=True):
            starts = [i for i, position in enumerate(positions) if position == 0]
            for start, end in zip(starts, [*starts[1:], len(line)], strict=True):
                if line[start:end] != [pad]:  # what fills the batch up to a multiple
                    yield _taught(line[start:end], targets[start:end])
        return
    for line, targets, mask in zip(ids, labels, batch["attention_mask"].tolist(), strict=True):
        kept = [i for i, seen in enumerate(mask) if seen]
        yield _taught([line[i] for i in kept], [targets[i] for i in kept])


def prove_training(trainer: Any, rows: Sequence[Encoded], template: Template) -> dict[str, Any]:
    """Prove the batches of a TRL trainer (SFT, DPO or KTO) on its first, last and longest examples, and the packing where it packs.

    Only its data set and its collator are asked, so no random number is drawn. Raises TemplateError.
    """
    data = trainer.train_dataset
    column = next(name for name in ("input_ids", "chosen_ids", "completion_ids") if name in data.column_names)
    lengths = [len(ids) for ids in data[column]]
    longest = sorted(range(len(data)), key=lambda i: (-lengths[i], i))[:BATCHED]
    chosen = sorted({*range(min(BATCHED, len(data))), *longest, *range(max(0, len(data) - BATCHED), len(data))})
    batch = trainer.data_collator([data[i] for i in chosen])
    record = prove_batches(trainer.processing_class, template, [batch], rows)
    if "attention_mask" not in batch:
        record["packing"] = prove_packing(trainer.model, [row.ids for row in rows])
    return record


@torch.no_grad()
def prove_packing(model: Any, rows: Sequence[Sequence[int]], *, count: int = 4) -> dict[str, Any]:
    """Show that rows packed into one sequence give the logits that each gives alone, on this model.

    `rows` are token ids; the `count` shortest are run, in TRL's own packed form (positions that begin again, no mask, no
    cache). Raises TemplateError when a row sees its neighbour, as with architectures that ignore positions.
    """
    chosen = sorted((list(row) for row in rows), key=len)[:count]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        packed = _logits(model, collate([{"input_ids": row} for row in chosen]), device)
        alone = torch.cat([_logits(model, {"input_ids": torch.tensor([row])}, device) for row in chosen])
    finally:
        model.train(was_training)
    scale = max(1.0, float(alone.abs().max()))
    largest = float((packed - alone).abs().max())
    bound = PACKED[next(p.dtype for p in model.parameters() if p.dtype in PACKED)] * scale
    if not largest <= bound:  # nan is no proof
        raise TemplateError(
            f"{model.config.model_type}: packed rows see one another: their logits differ from separate rows' by {largest:.2g}, rounding "
            f"would be below {bound:.2g}. Set train.sft.packing: false (and padding_free: false) for this student."
        )
    return {"rows": len(chosen), "max_difference": largest, "bound": bound, "proved": "packed rows give the logits of separate rows"}


def _logits(model: Any, batch: Mapping[str, Any], device: torch.device) -> torch.Tensor:
    inputs = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items() if name != "labels"}
    logits: torch.Tensor = model(**inputs, use_cache=False).logits[0].float().cpu()
    return logits


def _prove_row(tokenizer: PreTrainedTokenizerBase, template: Template, source: Source, row: Encoded) -> None:
    prompt = render(tokenizer, source.prompt, generation_prompt=True)
    check_messages(source, prompt)
    bos = tokenizer.bos_token_id
    if bos is not None and row.ids[:2] == [bos, bos]:
        raise TemplateError(
            f"row {row.id}: the text begins with two {tokenizer.bos_token!r}. Remove it from the chat template, "
            "or set add_bos_token to false in the tokenizer's configuration."
        )
    inference = tokenizer.apply_chat_template(source.prompt, tokenize=True, add_generation_prompt=True, return_dict=False)
    texts = [_normal(template.lead + text + template.trail + template.stop) for text in (source.completion, source.completion.strip())]
    found = _decoded(tokenizer, row.ids, [label != IGNORED for label in row.labels])
    own = " " if _writes_own_space(tokenizer, template.stop) else ""
    if found not in texts and found.removeprefix(own) not in texts:
        full = render(tokenizer, [*source.prompt, {"role": "assistant", "content": source.completion}], generation_prompt=False)
        expected = next((text for text in texts if _normal(full).startswith(text, len(_normal(prompt)))), texts[0])
        raise TemplateError(_explain(f"row {row.id}", found, expected, template, tokenizer))
    if list(inference) != row.ids[: row.prompt_length]:
        raise TemplateError(
            f"row {row.id}: the prompt in training is not the one at inference. Encode and serve with the same chat template and "
            "tokenizer.\n" + difference(str(tokenizer.decode(row.ids[: row.prompt_length])), prompt, ("training", "inference"))
        )
    labels = [label for label in row.labels if label != IGNORED]
    if labels[-1] != template.stop_id or special_ids(tokenizer).intersection(labels[:-1]):
        raise TemplateError(
            f"row {row.id}: the stop token {template.stop!r} is not the one and last of the supervised tokens. Make it one special "
            "token of the tokenizer, and take special tokens out of the answer."
        )
    _prove_round_trip(tokenizer, row)


def _writes_own_space(tokenizer: PreTrainedTokenizerBase, special: str) -> bool:
    """Whether the tokenizer puts a space of its own after a special token, as older SentencePiece models do; it is generated as well."""
    ids = tokenizer(special + "x", add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)) == special + " x"


def _prove_round_trip(tokenizer: PreTrainedTokenizerBase, row: Encoded) -> None:
    """Decode and encode again, piece by piece: between special tokens, and where inference splits a token at the end of the prompt.

    Not the text as a whole: SentencePiece tokenizers write a space of their own at the start of each piece.
    """
    special = special_ids(tokenizer)
    lost: list[tuple[str, str]] = []
    for cut in (None, row.prompt_length):
        lost.clear()
        for piece in _pieces(row.ids, special, cut):
            text = str(tokenizer.decode(piece, clean_up_tokenization_spaces=False))
            again: list[int] = tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
            if again != piece:
                lost.append((text, str(tokenizer.decode(again, clean_up_tokenization_spaces=False))))
        if not lost:
            return
    raise TemplateError(
        f"row {row.id}: its ids do not survive decoding and encoding: the tokenizer loses text. Look for a normalizer that changes it, "
        "characters that are not in its vocabulary, or clean_up_tokenization_spaces in its configuration.\n"
        + difference(*lost[0], ("once", "again"))
    )


def _pieces(ids: list[int], special: set[int], cut: int | None) -> Iterator[list[int]]:
    """Runs of ids without a special one, and each special one alone; cut at an index as well."""
    piece: list[int] = []
    for at, token in enumerate(ids):
        if piece and (token in special or piece[-1] in special or at == cut):
            yield piece
            piece = []
        piece.append(token)
    yield piece


def _taught(ids: list[int], labels: list[int]) -> Taught:
    return Taught(ids, [label != IGNORED for label in labels])


def _stranger(tokenizer: PreTrainedTokenizerBase, taught: Taught, rows: Sequence[Encoded]) -> str:
    """Say what a sequence of a batch is that no row was encoded to."""

    def shared(row: Encoded) -> int:
        return next((i for i, (a, b) in enumerate(zip(row.ids, taught.ids, strict=False)) if a != b), min(len(row.ids), len(taught.ids)))

    bos = tokenizer.bos_token_id
    if bos is not None and taught.ids[:2] == [bos, bos]:
        return (
            f"a sequence in a batch begins with two {tokenizer.bos_token!r}: the trainer added one to the template's. Hand it token ids, "
            "or set add_bos_token to false in the tokenizer's configuration."
        )
    near = max(rows, key=shared)
    if taught.ids == near.ids[: len(taught.ids)]:
        return (
            f"row {near.id}, in its batch: cut from {len(near.ids)} to {len(taught.ids)} tokens, so its answer has no end. Raise "
            "train.max_length (and train.sft.max_length) to the longest row, or leave the row out."
        )
    return f"row {near.id}, in its batch: not the ids that were proved. Do not let the trainer tokenise or cut again.\n" + difference(
        str(tokenizer.decode(near.ids)), str(tokenizer.decode(taught.ids)), ("proved", "batch")
    )


def _explain(where: str, found: str, expected: str, template: Template, tokenizer: PreTrainedTokenizerBase) -> str:
    """Say in what way a supervised text is not the one that inference must generate, and what to set."""
    stop, extra, missing = template.stop, len(found) - len(expected), len(expected) - len(found)
    if found == expected.removesuffix(stop):
        padding = " It is the padding token as well: mask by position, or set another pad_token." if tokenizer.pad_token == stop else ""
        what = f"the stop token {stop!r} is not in the loss, so the student would never learn to stop.{padding} Let the labels cover it"
    elif extra > 0 and found.startswith(expected):
        what = f"{found[len(expected) :]!r} after the stop token is in the loss, and is never generated. End the labels at the stop token"
    elif extra > 0 and found.endswith(expected):
        what = f"{found[:extra][-80:]!r} of the prompt is in the loss. Begin the labels after the generation prompt"
    elif missing > 0 and found and expected.endswith(found):
        what = f"{expected[:missing][:80]!r} of the answer is not in the loss. Begin the labels right after the generation prompt"
    elif missing > 0 and expected.startswith(found.removesuffix(stop)):
        what = (
            f"the answer is cut after {len(found.removesuffix(stop))} of {len(expected) - len(stop)} characters. Raise train.max_length, "
            "or leave the row out"
        )
    else:
        what = "the answer in training is not the one that inference must generate. Supervise the answer and the stop token as they are"
    return f"{where}: {what}.\n" + difference(found, expected, ("training", "inference"))


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int], supervised: list[bool]) -> str:
    """Decode the supervised ids in their context: some decoders drop a space at the start of a text."""
    kept = [token for token, inside in zip(ids, supervised, strict=True) if inside]
    if not kept:
        return ""
    first, last = supervised.index(True), len(supervised) - 1 - supervised[::-1].index(True)
    if last - first + 1 != len(kept):  # a hole
        return _normal(str(tokenizer.decode(kept, clean_up_tokenization_spaces=False)))
    before = str(tokenizer.decode(ids[:first], clean_up_tokenization_spaces=False))
    whole = str(tokenizer.decode(ids[: last + 1], clean_up_tokenization_spaces=False))
    return _normal(whole[len(before) :])


def _normal(text: str) -> str:
    """Qwen's tokenizer composes characters (NFC) before it splits them; that is no difference to a reader."""
    return unicodedata.normalize("NFC", text)
