"""Memory of training: what it will take, part by part, and going on when a batch does not fit.

    class Trainer(HalvesBatches, SFTTrainer): ...
    needs = expect(trainer, rows=8, width=1024)

transformers' own answer to a lack of memory makes the batch smaller, so the effective batch and the schedule change without a word.
Here the step is done again with each of its micro-batches in two parts: the same rows, the same gradient, the same schedule.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from train import processes
from train.errors import TrainError
from train.model import backbone

Batch = dict[str, Any]


class Part(NamedTuple):
    """A part of a micro-batch, with the share of its mean loss in the whole one's."""

    batch: Batch
    share: float


class HalvesBatches:
    """A trainer (put before TRL's) that does a step again in smaller parts when its memory does not suffice.

    parts    in how many parts a micro-batch goes through the model
    halved   called with the new number of parts, the rows of a micro-batch and the step when it grew
    sides    how many texts a row has in a batch: 1, or 2 for preference pairs
    """

    parts: int = 1
    sides: int = 1
    halved: Callable[[int, int, int], None] = staticmethod(lambda parts, rows, step: None)
    first_part: bool = True
    _share: float = 1.0

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        """TRL's step on one micro-batch. Raises TrainError when a single row does not fit."""
        window: list[Batch] = self.__dict__.setdefault("_window", [])
        window.append(inputs)
        loss = self._or_none(model, [inputs], num_items_in_batch)
        if loss is None and processes.count() > 1:
            # the others wait in the middle of this step, and would not follow
            raise TrainError(
                f"out of memory with {rows_in(inputs, self.sides)} rows of {inputs['input_ids'].shape[1]:,} tokens in one of "
                f"{processes.count()} processes. Halve per_device_train_batch_size and double gradient_accumulation_steps: that is "
                "the same training. The last checkpoint is kept."
            )
        while loss is None:
            self._halve(inputs, model)
            # what earlier micro-batches of this step had added to the gradients went with the part that failed: do them again
            loss = self._or_none(model, window, num_items_in_batch)
        if self.accelerator.sync_gradients:  # type: ignore[attr-defined]
            window.clear()
        return loss

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss; of a part, its share of the whole micro-batch's."""
        loss = super().compute_loss(*args, **kwargs)  # type: ignore[misc]
        return loss if self._share == 1.0 else loss * self._share

    def _or_none(self, model: Any, batches: Sequence[Batch], items: Any) -> torch.Tensor | None:
        """The loss of the last batch, or None where memory did not suffice; outside of `except`, so that nothing holds the tensors."""
        try:
            return [self._in_parts(model, batch, items) for batch in batches][-1]
        except torch.OutOfMemoryError:
            return None
        finally:
            self._share, self.first_part = 1.0, True

    def _in_parts(self, model: Any, batch: Batch, items: Any) -> torch.Tensor:
        if self.parts == 1:
            loss: torch.Tensor = super().training_step(model, batch, items)  # type: ignore[misc]
            return loss
        losses = []
        for number, part in enumerate(split(batch, self.parts, self.sides)):
            # a loss that is a sum over the step's tokens adds up by itself
            self._share = part.share if items is None or self.sides > 1 else 1.0
            self.first_part = number == 0
            losses.append(super().training_step(model, part.batch, items))  # type: ignore[misc]
        return torch.stack(losses).sum()

    def _halve(self, batch: Batch, model: Any) -> None:
        rows = rows_in(batch, self.sides)
        if self.parts >= rows:
            raise too_small(batch["input_ids"].shape[1])
        self.parts = min(rows, 2 * self.parts)
        model.zero_grad(set_to_none=True)
        release()
        self.halved(self.parts, rows, self.state.global_step + 1)  # type: ignore[attr-defined]


def too_small(width: int) -> TrainError:
    """What is said when not even one row fits."""
    return TrainError(
        f"out of memory with one row of {width:,} tokens at a time. Lower train.max_length, set train.method: qlora, take a smaller "
        "student, or a GPU with more memory. The last checkpoint is kept."
    )


def release() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def rows_in(batch: Batch, sides: int = 1) -> int:
    """Rows of a micro-batch; those that are packed into one line of tokens count each."""
    if _packed(batch):
        return int((batch["position_ids"][0] == 0).sum())
    return len(batch["input_ids"]) // sides


def split(batch: Batch, parts: int, sides: int = 1) -> list[Part]:
    """A micro-batch in at most `parts` parts of whole rows, padding beyond a part's longest row cut off.

    With two sides the first half of the lines are the better answers and the second the worse ones, pair by pair.
    """
    if _packed(batch):
        return _split_packed(batch, parts)
    lines = len(batch["input_ids"])
    rows = lines // sides
    found = []
    for chosen in torch.arange(rows).tensor_split(min(parts, rows)):
        every = torch.cat([chosen + side * rows for side in range(sides)])
        part = {
            name: value[every] if len(value) == lines else value[chosen] for name, value in batch.items() if isinstance(value, torch.Tensor)
        }
        found.append(_trimmed(part))
    return _with_shares(found, sides)


def _trimmed(part: Batch) -> Batch:
    """A part without the columns that are padding in all its rows; KTO's answers to other prompts (KL_...) have a width of their own."""
    for prefix in ("", "KL_"):
        mask = part.get(f"{prefix}attention_mask")
        if mask is not None and mask.dim() == 2:
            own = [n for n, v in part.items() if v.dim() == 2 and v.shape == mask.shape and n.startswith("KL_") == bool(prefix)]
            longest = int(mask.sum(1).max())
            part = {**part, **{n: part[n][:, :longest] for n in own}}
    return part


def _packed(batch: Batch) -> bool:
    return "position_ids" in batch and "attention_mask" not in batch and len(batch["input_ids"]) == 1


def _split_packed(batch: Batch, parts: int) -> list[Part]:
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    length = batch["input_ids"].shape[1]
    cuts = sorted({min(starts, key=lambda start: abs(start - length * k / parts)) for k in range(parts)} | {0})
    found = [
        {name: value[:, begin:end] for name, value in batch.items() if isinstance(value, torch.Tensor) and value.shape[-1] == length}
        for begin, end in zip(cuts, [*cuts[1:], length], strict=True)
    ]
    return _with_shares(found, 1)


def _with_shares(parts: Sequence[Batch], sides: int) -> list[Part]:
    if sides > 1 or "labels" not in parts[0]:
        weights = [float(len(part["input_ids"])) for part in parts]
    else:
        weights = [float((part["labels"][:, 1:] != -100).sum()) for part in parts]
    return [Part(part, weight / max(1.0, sum(weights))) for part, weight in zip(parts, weights, strict=True)]


# -- what it will take


class Needs(NamedTuple):
    """Bytes of the device's memory by what they hold, at the step that takes most."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)

    def shared(self, processes: int) -> "Needs":
        """Of one process, where each holds its part of all but the activations."""
        weights, gradients, optimizer = (part // processes for part in self[:3])
        return Needs(weights, gradients, optimizer, self.activations)

    def told(self) -> str:
        """In words."""
        parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in self._asdict().items())
        return f"{gigabytes(self.total)} ({parts})"


def gigabytes(size: float) -> str:
    """Bytes for people: GB, or MB for small sizes."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def peak(trainer: Any) -> dict[str, Any]:
    """What training took at most, for run.json: bytes (None on a CPU), and in how many parts micro-batches went."""
    on_gpu = next(trainer.model.parameters()).is_cuda
    return {"peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None, "parts": trainer.parts}


class Fit(NamedTuple):
    """How a run's memory was found: bytes expected, bytes that two steps on the longest micro-batch took (None on a CPU), in how many
    parts that micro-batch goes, and the seconds of one pass over it (None on a CPU)."""

    expected: Needs
    probed: int | None
    parts: int
    seconds: float | None

    def told(self) -> str:
        """In words, for the person who reads the plan."""
        if self.probed is None:
            return f"about {self.expected.told()}"
        room = torch.cuda.get_device_properties(0).total_memory
        halved = f"; micro-batches go in {self.parts} parts" if self.parts > 1 else ""
        return (
            f"expected {self.expected.told()}; two steps on the longest micro-batch: {gigabytes(self.probed)} of {gigabytes(room)}{halved}"
        )

    def record(self) -> dict[str, Any]:
        """For run.json."""
        return {"expected_bytes": self.expected._asdict(), "probed_bytes": self.probed, "parts": self.parts}


def make_room(trainer: Any, lengths: Sequence[int]) -> Fit:
    """Say what a step takes at most, and on a GPU try it: two passes over the longest micro-batch, whose gradients are thrown away.

    Where it does not fit, it is halved here, before the first step. `lengths` are the rows' tokens. Raises TrainError when a single row
    does not fit.
    """
    arguments = trainer.args
    per_batch = int(arguments.per_device_train_batch_size)
    longest = sorted(range(len(lengths)), key=lambda row: -lengths[row])[:per_batch]
    # a packed line is as long as may be; an unpacked micro-batch is as wide as its longest row
    width = int(arguments.max_length or max(lengths)) if getattr(arguments, "packing", False) else max(lengths)
    checkpointing, autocast = bool(arguments.gradient_checkpointing), bool(arguments.bf16)
    net = trainer.model
    tokens = trainer.sides * len(longest) * width

    def expected() -> Needs:
        per_part = -(-tokens // trainer.parts)
        return expect(net, per_part, optim=str(arguments.optim), checkpointing=checkpointing, autocast=autocast)

    try:
        needs = expected()
    except torch.OutOfMemoryError as error:
        raise too_small(_LONG) from error
    if processes.count() > 1:
        return Fit(needs.shared(processes.count() if arguments.fsdp else 1), None, 1, None)
    if not next(net.parameters()).is_cuda:
        return Fit(needs, None, 1, None)
    rows = [trainer.train_dataset[row] for row in (range(per_batch) if getattr(arguments, "packing", False) else longest)]
    trainer.current_gradient_accumulation_steps = 1
    if checkpointing:  # as the trainer will
        net.gradient_checkpointing_enable(arguments.activation_checkpointing_kwargs or {"use_reentrant": False})
    tried = 0
    with torch.random.fork_rng(devices=[0]):
        while tried != trainer.parts:  # once more where it was halved: what the failed try took says nothing
            tried = trainer.parts
            release()
            torch.cuda.reset_peak_memory_stats()
            for _ in range(2):
                torch.cuda.synchronize()
                began = time.monotonic()
                with _autocast(torch.device("cuda"), autocast):
                    trainer.training_step(net, trainer.data_collator(rows))
                torch.cuda.synchronize()
                seconds = time.monotonic() - began
            probed = torch.cuda.max_memory_allocated()
            net.zero_grad(set_to_none=True)
    trainer._metrics["train"].clear()
    trainer._total_train_tokens = 0
    release()
    torch.cuda.reset_peak_memory_stats()
    needs = expected()
    probed += needs.optimizer
    return Fit(needs, probed, trainer.parts, seconds)


def expect(net: Any, tokens: int, *, optim: str, checkpointing: bool, autocast: bool) -> Needs:
    """What a step on a micro-batch of `tokens` tokens takes.

    Weights, gradients and optimizer state are counted. Activations are measured: what autograd keeps of a short text, by the token,
    times `tokens`; with checkpointing, the borders of all layers and the inside of one.
    """
    weights = sum(p.untyped_storage().nbytes() for p in {p.data_ptr(): p for p in _tensors(net)}.values())
    trained = [p for p in net.parameters() if p.requires_grad]
    gradients = sum(p.numel() * p.element_size() for p in trained)
    # two moments of the parameter's own type, or of a byte where they are quantized
    optimizer = sum(p.numel() for p in trained) * 2 if "8bit" in optim else 2 * gradients
    return Needs(weights, gradients, optimizer, round(tokens * _kept_per_token(net, checkpointing, autocast)))


def _tensors(net: Any) -> Iterator[torch.Tensor]:
    yield from net.parameters()
    yield from net.buffers()


_SHORT, _LONG = 64, 192  # tokens; two lengths, so that what does not grow with the text drops out


def _kept_per_token(net: Any, checkpointing: bool, autocast: bool) -> float:
    """Bytes that autograd keeps for each token, and what a layer's backward pass takes beside them."""
    config = net.config.get_text_config()
    layers, width = config.num_hidden_layers, config.hidden_size
    all_layers = (_kept(net, _LONG, autocast) - _kept(net, _SHORT, autocast)) / (2 * (_LONG - _SHORT))
    number = 2 if autocast else next(net.parameters()).element_size()
    kept = number * width * layers + all_layers / layers if checkpointing else all_layers
    # gradients of one layer's widest activations live beside what is kept, in float32 where adapters are
    return float(kept + 3 * number * (getattr(config, "intermediate_size", None) or 4 * width))


def _kept(net: Any, length: int, autocast: bool) -> int:
    """Bytes that autograd keeps in a forward pass over two texts of `length` tokens, one of them padded, weights apart."""
    own = {tensor.untyped_storage().data_ptr() for tensor in _tensors(net)}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> None:
        """Count a tensor, and keep none: nobody goes back, and a graph that held itself would never be freed."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(storage)  # or its address would be given out again and counted once

    held: list[Any] = []
    place = next(net.parameters()).device
    ids = torch.randint(0, 100, (2, length), device=place)
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    with _plain(net), torch.autograd.graph.saved_tensors_hooks(note, lambda nothing: nothing), _autocast(place, autocast):
        backbone(net)(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(kept.values())


@contextmanager
def _plain(net: Any) -> Iterator[None]:
    """Without checkpointing, which would hide what a layer keeps, and in training mode."""
    was, training = getattr(net, "is_gradient_checkpointing", False), net.training
    if was:
        net.gradient_checkpointing_disable()
    net.train()
    try:
        yield
    finally:
        net.train(training)
        if was:
            net.gradient_checkpointing_enable({"use_reentrant": False})


def _autocast(place: torch.device, on: bool) -> Any:
    return torch.autocast(place.type, dtype=torch.bfloat16, enabled=on)
