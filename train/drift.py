"""How far an artifact has drifted from the adapter that it was made from, token by token and layer by layer.

    told = tell(adapter, prompts, max_new_tokens=64, batch_size=32)       the adapter's own answers
    found = follow(artifact, told, batch_size=32)                         where the artifact would have said another token
    kept = keep(adapter, told)                                            the adapter's distributions and layers on a few of them
    drift = compare(artifact, kept)                                       Kullback-Leibler divergence, and which layer it comes from

An artifact that is given the adapter's answer as far as it goes and would choose the same token at every place, the stop token too, would
have written that answer: greedy decoding asks nothing else. One pass over the answer shows it, and only the other rows need generation.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import Cache

from train.dataset import Message
from train.evaluate import RoomyLayer, Written, shared_prefix, write
from train.model import Student, backbone, has_plain_cache, stop_ids
from train.template import render

# Floats of logits to hold at once: 256 MB, so that a vocabulary of 150,000 goes in small batches.
HELD = 2**26
# What the layers are compared on, and the distributions: enough tokens to rank drift, few enough to keep.
LAYER_ROWS = 8
KEPT_TOKENS = 1500


class Told(NamedTuple):
    """An answer beside its prompt. `ids` are the answer's tokens without the stop; `stopped` says whether one came."""

    prompt: list[Message]
    written: Written
    ids: tuple[int, ...]
    stopped: bool


class Followed(NamedTuple):
    """Of the tokens of an answer, the stop token included, how many the artifact would have chosen as well."""

    same: int
    tokens: int

    @property
    def whole(self) -> bool:
        """Whether the artifact would have written this very answer."""
        return self.same == self.tokens


class Kept(NamedTuple):
    """What is kept of the adapter: rows with its log-probabilities (tokens, vocabulary), and its layers on some of them."""

    told: list[Told]
    logprobs: list[torch.Tensor]
    layers: "list[Layers] | None"


class Layers(NamedTuple):
    """One row through a model: token ids (1, tokens), what each layer was given, what it made, and the logits."""

    ids: torch.Tensor
    inputs: list[torch.Tensor]
    outputs: list[torch.Tensor]
    logits: torch.Tensor


class Place(NamedTuple):
    """A part of the model and its own error: |artifact - adapter| / |what the adapter's part adds|, both given the same input."""

    name: str
    error: float


class Drift(NamedTuple):
    """Mean and largest divergence of a token's distribution from the adapter's (nats), over `tokens`, and where it comes from."""

    kl: float
    kl_max: float
    tokens: int
    places: list[Place]

    @property
    def worst(self) -> Place | None:
        """The part that adds most, or None where parts could not be compared."""
        return max(self.places, key=lambda place: place.error, default=None)


def tell(
    student: Student,
    prompts: Sequence[list[Message]],
    *,
    max_new_tokens: int,
    batch_size: int,
    report: Callable[[int], None] | None = None,
) -> list[Told]:
    """A student's greedy answers with their token ids."""
    written = write(student.model, student.tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, report=report)
    return [Told(p, w, w.ids or (), (w.tokens or 0) > len(w.ids or ())) for p, w in zip(prompts, written, strict=True)]


def follow(student: Student, told: Sequence[Told], *, batch_size: int) -> list[Followed]:
    """How far each answer is what the student would have said itself, prompted by its own tokenizer and template."""
    stops = set(stop_ids(student.model))
    found = [Followed(0, 0)] * len(told)
    for i, logits in _forced(student, told, batch_size):
        chosen = logits.argmax(-1).tolist()
        wanted = told[i].ids
        same = sum(a == b for a, b in zip(chosen, wanted, strict=False))
        if told[i].stopped:
            same += chosen[len(wanted)] in stops
        found[i] = Followed(same, len(wanted) + told[i].stopped)
    return found


def keep(student: Student, told: Sequence[Told], *, batch_size: int) -> Kept:
    """Keep of the adapter what artifacts are compared with, on the first rows of `told`."""
    rows: list[Told] = []
    tokens = 0
    for row in told:
        tokens += len(row.ids) + row.stopped
        if tokens > min(KEPT_TOKENS, HELD // student.model.config.get_text_config().vocab_size) and rows:
            break
        rows.append(row)
    logprobs = [torch.empty(0)] * len(rows)
    for i, logits in _forced(student, rows, batch_size):
        logprobs[i] = logits.log_softmax(-1).cpu()
    prompts = _prompts(student, rows[:LAYER_ROWS])
    layers = [_through(student.model, [*ids, *row.ids]) for ids, row in zip(prompts, rows, strict=False)]
    return Kept(rows, logprobs, [found for found in layers if found] or None)


def compare(student: Student, kept: Kept, *, batch_size: int) -> Drift:
    """The student's distributions against those that were kept, on the adapter's own answers, and the error of each layer."""
    divergences: list[torch.Tensor] = []
    for i, logits in _forced(student, kept.told, batch_size):
        theirs = logits.log_softmax(-1).cpu()
        ours = kept.logprobs[i]
        width = min(ours.shape[-1], theirs.shape[-1])  # a vocabulary that was padded has no more tokens
        ours, theirs = ours[:, :width], theirs[:, :width]
        divergences.append((ours.exp() * (ours - theirs)).sum(-1).clamp(min=0))
    every = torch.cat(divergences) if divergences else torch.zeros(1)
    return Drift(float(every.mean()), float(every.max()), len(every), places(student.model, kept.layers))


def places(model: Any, kept: "Sequence[Layers] | None") -> list[Place]:
    """Error of the embeddings, of each layer and of the head, each given what the adapter's was given; empty where that cannot be done.

    So the error of one layer does not become that of those after it, as it would in a comparison of hidden states.
    """
    stack = _stack(model)
    if kept is None or stack is None or any(len(row.inputs) != len(stack) for row in kept):
        return []
    totals = [[0.0, 0.0] for _ in range(len(stack) + 2)]
    for row in kept:
        found = _through(model, row.ids[0].tolist(), row)
        if found is None or found.logits.shape[-1] < row.logits.shape[-1]:
            return []
        parts = [(found.inputs[0], row.inputs[0], row.inputs[0])]
        parts += [(f, o, o - i) for f, o, i in zip(found.outputs, row.outputs, row.inputs, strict=True)]
        parts += [(found.logits[..., : row.logits.shape[-1]], row.logits, row.logits)]
        for total, (theirs, ours, added) in zip(totals, parts, strict=True):
            total[0] += float((theirs - ours).square().sum())
            total[1] += float(added.square().sum())
    names = ["embeddings", *(f"layer {i}" for i in range(len(stack))), "head"]
    return [Place(name, (a / b) ** 0.5 if b else 0.0) for name, (a, b) in zip(names, totals, strict=True)]


def _stack(model: Any) -> Any:
    """The layers of a decoder, or None for one that names them otherwise."""
    body = backbone(model)
    return getattr(body, "layers", getattr(body, "h", None))


@torch.inference_mode()
def _through(model: Any, ids: Sequence[int], given: Layers | None = None) -> Layers | None:
    """One row through a model. With `given`, each layer is handed that row's input instead of what the layer before it made.

    None where the layers are not to be found or are called otherwise.
    """
    stack = _stack(model)
    if stack is None:
        return None
    inputs: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []

    def before(number: int) -> Callable[..., Any]:
        def hook(module: Any, arguments: tuple[Any, ...]) -> Any:
            if not arguments:
                return None
            inputs.append(arguments[0].float().cpu())
            return None if given is None else (given.inputs[number].to(arguments[0]), *arguments[1:])

        return hook

    def after(number: int) -> Callable[..., Any]:
        def hook(module: Any, arguments: Any, output: Any) -> Any:
            made = output[0] if isinstance(output, tuple) else output
            outputs.append(made.float().cpu())
            if given is None or number + 1 < len(stack):
                return None
            right = given.outputs[-1].to(made)  # the head, too, is given what the adapter's was given
            return (right, *output[1:]) if isinstance(output, tuple) else right

        return hook

    hooks = [layer.register_forward_pre_hook(before(i)) for i, layer in enumerate(stack)]
    hooks += [layer.register_forward_hook(after(i)) for i, layer in enumerate(stack)]
    try:
        tokens = torch.tensor([list(ids)], device=next(model.parameters()).device)
        logits = model(input_ids=tokens, use_cache=False).logits.float().cpu()
    finally:
        for hook in hooks:
            hook.remove()
    return Layers(tokens.cpu(), inputs, outputs, logits) if len(inputs) == len(outputs) == len(stack) else None


def _prompts(student: Student, told: Sequence[Told]) -> list[list[int]]:
    texts = [render(student.tokenizer, row.prompt, generation_prompt=True) for row in told]
    if not texts:
        return []
    ids: list[list[int]] = student.tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids


@torch.inference_mode()
def _forced(student: Student, told: Sequence[Told], batch_size: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (row, logits (answer tokens + 1, vocabulary)): what comes first, and what after each token of the answer.

    The last line, after the whole answer, is missing where the answer did not stop by itself.
    """
    model = student.model
    where = next(model.parameters()).device
    prompts = _prompts(student, told)
    order = sorted(range(len(told)), key=lambda i: (-len(prompts[i]) - len(told[i].ids), i))
    vocabulary = model.config.get_text_config().vocab_size
    while order:
        longest = max(len(told[i].ids) for i in order[:batch_size]) + 1
        batch, order = order[: (size := max(1, min(batch_size, HELD // (longest * vocabulary))))], order[size:]
        shared = shared_prefix([prompts[i] for i in batch]) if has_plain_cache(model) else 0
        rows = [[*prompts[i], *told[i].ids][shared:] for i in batch]
        width = max(map(len, rows))
        tokens = torch.tensor([[0] * (width - len(r)) + r for r in rows], device=where)
        mask = torch.tensor([[1] * shared + [0] * (width - len(r)) + [1] * len(r) for r in rows], device=where)
        options: dict[str, Any] = {"use_cache": False}
        if shared:
            cache = Cache(layer_class_to_replicate=RoomyLayer)
            model(input_ids=torch.tensor([prompts[batch[0]][:shared]], device=where), past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(len(batch))
            options = {"use_cache": True, "past_key_values": cache}
        if model._supports_logits_to_keep():
            options["logits_to_keep"] = longest
        logits = model(input_ids=tokens, attention_mask=mask, position_ids=(mask.cumsum(1) - 1)[:, shared:].clamp(min=0), **options).logits
        for i, line in zip(batch, logits, strict=True):
            count = len(told[i].ids) + 1
            yield i, line[-count:][: count if told[i].stopped else count - 1].float()
