"""One thread owns torch and answers all requests in one running batch, each row by its own adapter.

    engine = Engine(target, limit=64)          loads the base and its adapters
    arm = engine.promise("dpo")                this version of it answers, whatever is loaded meanwhile
    engine.submit(Job(arm, ids, ...))          pieces come by job.emit, from the engine's thread
    engine.load("dpo", path).result()          the next promise is of the new version
    engine.close()

Requests that wait join the batch between two tokens (continuous batching: Yu et al., Orca, OSDI 2022), and rows that have ended leave
it. Where an architecture's cache cannot be cut (sliding windows, linear attention), they join when the batch is empty. Rows of different
adapters share a forward pass by peft's mixed batches (`adapter_names`); a batch of one adapter goes without, which is quicker.
"""

import logging
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from transformers import PreTrainedTokenizerBase
from transformers.cache_utils import Cache

from train import model, template
from train.dataset import Message
from train.errors import ModelError
from train.evaluate import RoomyLayer
from train.serving.target import WEIGHTS, Adapter, Target, check_adapter, hash_base, read_adapter

NONE = "__base__"  # peft's name for a row without adapter
Finish = Literal["stop", "length", "cancelled", "error"]
log = logging.getLogger(__name__)


class Arm(NamedTuple):
    """A version of an adapter (or the base) under a name. `key` is its name inside of peft, `fingerprint` the one that people see."""

    name: str
    key: str
    sha256: str
    system: str
    max_new_tokens: int
    path: str

    @property
    def fingerprint(self) -> str:
        """Name and hash."""
        return f"{self.name}@{self.sha256[:12]}"


class Piece(NamedTuple):
    """What a row has to say: text, and at its end why it ended and how many tokens were generated, the stop token included."""

    text: str
    finish: Finish | None = None
    tokens: int = 0
    error: str = ""


class Sampling(NamedTuple):
    """How tokens are chosen: greedily at temperature 0, else from the nucleus of `top_p` (arXiv 1904.09751), by `seed` alone."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


class Job:
    """One request on its way. `emit` is called in the engine's thread; with `stream` for every piece of text, else at the end alone."""

    def __init__(
        self, arm: Arm, ids: list[int], limit: int, emit: Callable[[Piece], None], *,
        sampling: Sampling | None = None, stops: Sequence[str] = (), stream: bool = False,
    ) -> None:  # fmt: skip
        self.arm = arm
        self.ids = ids
        self.limit = limit
        self.emit = emit
        self.sampling = sampling or Sampling()
        self.stops = tuple(stops)
        self.stream = stream
        self.cancelled = False
        self.started: float | None = None


class _Row:
    """A job in the batch: its tokens so far, its own source of chance, and the text that may go out."""

    def __init__(self, job: Job, tokenizer: PreTrainedTokenizerBase) -> None:
        self.job = job
        self.tokenizer = tokenizer
        self.tokens = 0
        self.ids: list[int] = []
        self.text = ""
        self.sent = 0
        self.piecewise = job.stream or bool(job.stops)
        self.cut = False
        self.done = False
        self._from = self._read = 0
        self.chance = torch.Generator()
        if job.sampling.seed is None:
            self.chance.seed()
        else:
            self.chance.manual_seed(job.sampling.seed)

    def choose(self, logits: torch.Tensor) -> int:
        """Draw a token from logits (vocabulary,)."""
        chances = (logits.float().cpu() / self.job.sampling.temperature).softmax(-1)
        if self.job.sampling.top_p < 1:
            ordered, order = chances.sort(descending=True)
            outside = ordered.cumsum(-1) - ordered >= self.job.sampling.top_p  # the first is never outside
            chances[order[outside]] = 0
        return int(torch.multinomial(chances, 1, generator=self.chance))

    def take(self, token: int, stops: set[int]) -> Finish | None:
        """Add a token; say whether, and why, the answer ends with it."""
        self.tokens += 1
        if token in stops:
            return "stop"
        self.ids.append(token)
        if self.piecewise and (new := self._new()) and not new.endswith("\N{REPLACEMENT CHARACTER}"):
            self.text += new
            self._from, self._read = self._read, len(self.ids)
            ends = [at for stop in self.job.stops if (at := self.text.find(stop, self.sent)) >= 0]
            if ends:
                self.text, self.cut = self.text[: min(ends)], True
                return "stop"
        return "length" if self.tokens >= self.job.limit else None

    def piece(self, finish: Finish | None) -> Piece:
        """What may go out now: not a beginning of what could become a stop text, nor half of a character."""
        if finish is None:
            held = max((n for stop in self.job.stops for n in range(1, len(stop)) if self.text.endswith(stop[:n])), default=0)
            end = max(self.sent, len(self.text) - held)
        else:
            if not self.piecewise:
                self.text = self._said(self.ids)
            elif not self.cut:
                self.text += self._new()
            end = len(self.text)
        ready, self.sent = self.text[self.sent : end], end
        return Piece(ready, finish, self.tokens)

    def _said(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _new(self) -> str:
        """What the last tokens add; decoded with those before them, since a tokenizer may write the beginning of a text otherwise."""
        before = self._said(self.ids[self._from : self._read])
        return self._said(self.ids[self._from :])[len(before) :]


class _Batch(NamedTuple):
    """Rows that run together: the token to be read next (rows, 1), the mask of all read and padded (rows, tokens), and the cache."""

    rows: list[_Row]
    tokens: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    cache: Any


class Engine:
    """A base with its adapters, answering. Every method but `close` returns at once."""

    def __init__(self, target: Target, *, limit: int, batch_size: int = 32) -> None:
        self.target = target
        self.limit = limit
        self.batch_size = batch_size
        self.model, self.tokenizer = model.load_student(target.base, target.config)
        self.stops = set(model.stop_ids(self.model))
        self.context = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)
        self._plain = model.has_plain_cache(self.model)
        self._last_only = {"logits_to_keep": 1} if self.model._supports_logits_to_keep() else {}
        self._device = next(self.model.parameters()).device
        self._ends = torch.tensor(sorted(self.stops), device=self._device)
        self._active = NONE
        self._numbers = 0
        base_hash = hash_base(target.base, getattr(self.model.config, "_commit_hash", None))
        own = Arm(target.own, NONE, base_hash, target.system, target.max_new_tokens, target.base)
        self.arms: dict[str, Arm] = {own.name: own}
        self._uses: Counter[str] = Counter()
        self._wake = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._batch: _Batch | None = None
        self._closing = False
        self.seconds_per_answer = 1.0
        self.tokenizer(["warm"], add_special_tokens=False)  # sets its options once; later calls from other threads only read
        for name, adapter in target.adapters.items():
            self._load(name, adapter)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # -- called by others

    def promise(self, name: str) -> Arm | None:
        """The present version of an arm, kept until the job with it has ended or `release` is called; None for a name nobody has."""
        with self._wake:
            arm = self.arms.get(name)
            if arm is not None:
                self._uses[arm.key] += 1
            return arm

    def release(self, arm: Arm) -> None:
        """Take a promise back."""
        with self._wake:
            self._uses[arm.key] -= 1
            if self._is_spent(arm.key):
                self._calls.append((Future(), lambda: self._drop(arm.key)))
                self._wake.notify()

    def encode(self, arm: Arm, messages: list[Message]) -> list[int]:
        """Token ids of a conversation as training rendered it, with the arm's system message where it has none. Raises TemplateError."""
        if arm.system and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": arm.system}, *messages]
        text = template.render(self.tokenizer, messages, generation_prompt=True)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return ids

    @property
    def waiting(self) -> int:
        """Jobs that are in no batch yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Rows in the batch."""
        batch = self._batch
        return sum(not row.done for row in batch.rows) if batch else 0

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Queue a job; its last piece has a `finish`."""
        with self._wake:
            self._waiting.append(job)
            self._wake.notify()

    def cancel(self, job: Job) -> None:
        """Let a job end at the next token."""
        job.cancelled = True
        with self._wake:
            self._wake.notify()

    def load(self, name: str, path: Path) -> "Future[Arm]":
        """Load an adapter under a name, in place of what is there. The future has ModelError or TemplateError where it does not fit."""
        return self._call(lambda: self._load(name, read_adapter(path)))

    def unload(self, name: str) -> bool:
        """Take an adapter's name away; jobs that were promised it keep it. Return whether there was one."""
        with self._wake:
            arm = self.arms.get(name)
            if arm is None or arm.key == NONE:
                return False
            del self.arms[name]
        self._call(lambda: self._drop(arm.key))
        return True

    def close(self) -> None:
        """Answer what was submitted, then end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    # -- in the engine's thread

    def _call(self, function: Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        with self._wake:
            self._calls.append((future, function))
            self._wake.notify()
        return future

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                with self._wake:
                    while not (self._calls or self._waiting or self._batch or self._closing):
                        self._wake.wait()
                    if self._closing and not (self._calls or self._waiting or self._batch):
                        return
                    calls = [self._calls.popleft() for _ in range(len(self._calls))]
                    newcomers = self._newcomers()
                for future, function in calls:
                    try:
                        future.set_result(function())
                    except Exception as error:
                        future.set_exception(error)
                self._work(newcomers)

    def _newcomers(self) -> list[_Row]:
        room = self.batch_size - (len(self._batch.rows) if self._batch else 0)
        if self._batch and not self._plain:
            room = 0
        return [_Row(self._waiting.popleft(), self.tokenizer) for _ in range(min(room, len(self._waiting)))]

    def _work(self, newcomers: list[_Row]) -> None:
        """One step: all rows write a token, then newcomers read their prompts and join."""
        for row in newcomers:
            row.job.started = time.monotonic()
        if before := self._batch:
            self._batch = self._tried(before.rows, lambda: self._step(before))
        fresh = [row for row in newcomers if not self._is_cancelled(row)]
        new = self._tried(fresh, lambda: self._read(fresh)) if fresh else None
        self._batch = _joined(self._batch, new) if self._batch and new else self._batch or new

    def _tried(self, rows: list[_Row], step: Callable[[], "_Batch | None"]) -> "_Batch | None":
        """Do a step; where it fails (out of memory, say) its rows end with the error, and the engine goes on."""
        try:
            return step()
        except Exception as error:
            log.exception("a batch failed")
            for row in rows:
                if not row.done:
                    self._end(row, Piece("", "error", row.tokens, f"{type(error).__name__}: {error}"))
            return None

    def _read(self, rows: list[_Row]) -> _Batch | None:
        """Read the prompts of new rows, padded on the left, and write the first token of each."""
        width = max(len(row.job.ids) for row in rows)
        pads = [width - len(row.job.ids) for row in rows]
        tokens = torch.tensor([[0] * pad + row.job.ids for pad, row in zip(pads, rows, strict=True)], device=self._device)
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads], device=self._device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return self._step(_Batch(rows, tokens, mask, positions, Cache(layer_class_to_replicate=RoomyLayer) if self._plain else None))

    def _step(self, batch: _Batch) -> _Batch | None:
        names = [row.job.arm.key for row in batch.rows]
        output = self._forward(names, batch)
        logits = output.logits[:, -1]
        chosen = logits.argmax(-1)
        for number, row in enumerate(batch.rows):
            if not row.done and row.job.sampling.temperature > 0:
                chosen[number] = row.choose(logits[number])
        for row, token in zip(batch.rows, chosen.tolist(), strict=True):
            if row.done or self._is_cancelled(row):
                continue
            finish = row.take(token, self.stops)
            if finish:
                self._end(row, row.piece(finish))
            elif row.job.stream and (piece := row.piece(None)).text:
                row.job.emit(piece)
        if all(row.done for row in batch.rows):
            return None
        mask = torch.cat([batch.mask, batch.mask.new_ones(len(batch.rows), 1)], 1)
        after = _Batch(batch.rows, chosen[:, None], mask, batch.positions[:, -1:] + 1, batch.cache or output.past_key_values)
        return _without_ended(after) if self._plain and any(row.done for row in batch.rows) else after

    def _forward(self, names: list[str], batch: _Batch) -> Any:
        options: dict[str, Any] = dict(self._last_only)
        if isinstance(self.model, PeftModel):
            if len(set(names)) > 1 or names[0] == NONE:
                options["adapter_names"] = names
            else:
                self._activate(names[0])
        return self.model(
            input_ids=batch.tokens,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            past_key_values=batch.cache,
            use_cache=True,
            **options,
        )

    def _activate(self, key: str) -> None:
        if key != self._active:
            self.model.set_adapter(key, inference_mode=True)
            self._active = key

    def _is_cancelled(self, row: _Row) -> bool:
        if row.job.cancelled and not row.done:
            self._end(row, Piece("", "cancelled", row.tokens))
        return row.done

    def _end(self, row: _Row, piece: Piece) -> None:
        row.done = True
        if row.job.started is not None and piece.finish in ("stop", "length"):
            self.seconds_per_answer += 0.1 * (time.monotonic() - row.job.started - self.seconds_per_answer)
        self.release(row.job.arm)
        row.job.emit(piece)

    # -- adapters, in the engine's thread (or before it starts)

    def _load(self, name: str, adapter: Adapter) -> Arm:
        check_adapter(adapter, self.target.base, self.limit)
        template.check_seal(self.tokenizer, adapter.path, self.target.base)
        if name == self.target.own:
            raise ModelError(f"{name}: is the name of the base. Load the adapter under another.")
        self._numbers += 1
        key = f"arm{self._numbers}"
        system = self.target.system if adapter.system is None else adapter.system
        arm = Arm(name, key, adapter.sha256, system, adapter.max_new_tokens or self.target.max_new_tokens, str(adapter.path))
        with torch.inference_mode(False):
            try:
                self.model = model.with_adapter(self.model, adapter.path, key).eval()
                self._check_layers(adapter, key)
            except ModelError:
                self._forget(key)
                raise
        if self._active == NONE:
            self._active = key
        with self._wake:
            before = self.arms.get(name)
            self.arms[name] = arm
        if before is not None:
            self._drop(before.key)
        return arm

    def _check_layers(self, adapter: Adapter, key: str) -> None:
        """Peft leaves out weights for layers that the base does not have, and says nothing that stops."""
        with safe_open(adapter.path / WEIGHTS, "pt") as file:
            there = sum(".lora_A." in name or ".lora_embedding_A" in name for name in file.keys())  # noqa: SIM118
        layers = [m for m in self.model.modules() if isinstance(m, LoraLayer)]
        found = sum(key in layer.lora_A or key in layer.lora_embedding_A for layer in layers)
        if there != found:
            raise ModelError(f"{adapter.path}: has weights for {there} layers, and {found} of its base take them: it is for another base.")

    def _is_spent(self, key: str) -> bool:
        return key != NONE and self._uses[key] <= 0 and all(arm.key != key for arm in self.arms.values())

    def _drop(self, key: str) -> None:
        """Free a version that no name has and no job was promised."""
        with self._wake:
            spent = self._is_spent(key)
        if spent:
            self._forget(key)

    def _forget(self, key: str) -> None:
        if not isinstance(self.model, PeftModel):  # the first adapter failed halfway: its layers are in the base already
            for path, layer in list(self.model.named_modules()):
                if isinstance(layer, LoraLayer):
                    self.model.set_submodule(path, layer.get_base_layer())
            with suppress(AttributeError):
                del self.model.peft_config
            return
        if key not in self.model.peft_config:
            return
        others = [name for name in self.model.peft_config if name != key]
        if not others:
            self.model, self._active = self.model.unload(), NONE
            return
        if self._active == key:
            self._activate(others[0])
        with suppress(KeyError), warnings.catch_warnings(action="ignore"):
            self.model.delete_adapter(key)


def _without_ended(batch: _Batch) -> _Batch:
    """The batch without rows that have ended, and without columns that are padding in all that are left."""
    left = torch.tensor([number for number, row in enumerate(batch.rows) if not row.done], device=batch.tokens.device)
    mask = batch.mask[left]
    first = int(mask.any(0).int().argmax())
    batch.cache.batch_select_indices(left)
    _cut(batch.cache, first)
    rows = [row for row in batch.rows if not row.done]
    return _Batch(rows, batch.tokens[left], mask[:, first:], batch.positions[left], batch.cache)


def _cut(cache: Cache, first: int) -> None:
    if first:
        for layer in cast("list[RoomyLayer]", cache.layers):
            assert layer.keys is not None and layer.values is not None
            layer.keys, layer.values, layer.held = layer.keys[..., first:, :], layer.values[..., first:, :], []


def _joined(a: _Batch, b: _Batch) -> _Batch:
    """Two batches in one, the shorter padded on the left. The caches hold one token less than the masks: the one to be read next."""
    width = max(a.mask.shape[1], b.mask.shape[1])

    def wide(x: torch.Tensor, missing: int) -> torch.Tensor:
        return torch.nn.functional.pad(x, (0, 0, missing, 0)) if missing else x

    missing = [width - batch.mask.shape[1] for batch in (a, b)]
    for mine, theirs in zip(a.cache.layers, b.cache.layers, strict=True):
        mine.keys = torch.cat([wide(mine.keys, missing[0]), wide(theirs.keys, missing[1])])
        mine.values = torch.cat([wide(mine.values, missing[0]), wide(theirs.values, missing[1])])
        mine.held = []
    masks = [torch.nn.functional.pad(batch.mask, (short, 0)) for batch, short in zip((a, b), missing, strict=True)]
    return _Batch(
        [*a.rows, *b.rows],
        torch.cat([a.tokens, b.tokens]),
        torch.cat(masks),
        torch.cat([a.positions, b.positions]),
        a.cache,
    )
