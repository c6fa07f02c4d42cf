"""Answers of a student on held-out rows, scored: base, SFT, DPO and merged side by side.

    measures = evaluate_run(run_dir, config, manifest)               writes evaluation.json, comparisons.json, analysis.json,
                                                                     answers.parquet, failures.parquet, answers/
    measures = evaluate_model("runs/latest/merged", {"mine": Path("mine.jsonl")}, task)

Generation is greedy, so the same weights give the same answers. A set is a list of rows with the task by which they
are scored: the run's own test rows, the general probe, and each external evaluation set. A system that is not a student (the
teacher, a product) takes part by a file of its answers, which lies in the run's `systems/`.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicLayer

from train import processes
from train.advice import TEACHER, advice
from train.calibration import calibration
from train.config import GENERAL, TrainConfig
from train.cost import costs, speed
from train.dataset import Manifest, Message, Row, read_general, read_rows
from train.errors import DataError, TrainError
from train.memory import release
from train.metrics import (
    METRICS,
    Answer,
    Comparison,
    Measure,
    TaskSpec,
    apart,
    failed_metrics,
    number_right,
    primary_metric,
    read_answer,
    score,
)
from train.model import Student, device, has_plain_cache, load_student, load_with_adapters, stop_ids
from train.similarity import Similarity
from train.slices import slices
from train.template import render
from train.watch import Progress, Silent, write_json

FEW_SHOT = "few_shot"  # the base with examples in its prompt
PAIRS = (
    *(("base", "sft"), ("sft", "dpo"), ("base", "dpo"), ("dpo", "merged"), ("sft", "merged")),
    *((FEW_SHOT, "sft"), (FEW_SHOT, "dpo")),
    *((TEACHER, "sft"), (TEACHER, "dpo")),
    *(("sft", "kto"), ("base", "kto"), ("kto", "merged"), (FEW_SHOT, "kto"), (TEACHER, "kto")),
)
SYSTEMS = "systems"  # the folder of a run with the answers of others
TEXT = TaskSpec(type="general", output="text")
HELD_OUT = "test"  # the set of the export's own held-out rows, whose references are the teacher's answers
OWN = ("base", FEW_SHOT, "sft", "dpo", "kto", "merged")


class EvaluationRows(NamedTuple):
    """Rows that are scored together. `slices` also scores each `kind` apart, as `metric/kind`."""

    name: str
    rows: list[Row]
    task: TaskSpec
    metrics: tuple[str, ...] = tuple(METRICS)
    slices: bool = False


class Written(NamedTuple):
    """An answer with what is known of its making: None where a system that was not timed gave it.

    `tokens` counts the stop token, if one came, and not the prompt. `logprob` is their mean log-probability in nats. `seconds` run
    from the begin of the row's batch to its last token. `ids` are the answer's token ids without the stop token.
    """

    text: str
    tokens: int | None = None
    prompt_tokens: int | None = None
    logprob: float | None = None
    seconds: float | None = None
    ids: tuple[int, ...] | None = None


class Decoded(NamedTuple):
    """Token ids of one answer, without the stop token, and the log-probability in nats of each that was chosen, with it."""

    ids: list[int]
    logprobs: list[float]
    seconds: float


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    batch_size: int,
    report: Callable[[int], None] | None = None,
    halved: Callable[[int], None] | None = None,
) -> list[str]:
    """The texts of `write`."""
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "report": report, "halved": halved}
    return [w.text for w in write(model, tokenizer, prompts, **options)]


def write(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    batch_size: int,
    report: Callable[[int], None] | None = None,
    halved: Callable[[int], None] | None = None,
) -> list[Written]:
    """Answer each prompt greedily; answers come in the order of the prompts, without special tokens.

    Rows are sorted by length and padded on the left. What all prompts of a batch begin with (the system message) is
    computed once, and rows that have stopped leave the batch: the answers are those of `model.generate`, sooner.
    `report` is told the number of rows done. A batch that does not fit into memory is halved, and `halved` is told the new size: the
    answers are the same. Raises TrainError where a single row does not fit.
    """
    texts = [render(tokenizer, list(prompt), generation_prompt=True) for prompt in prompts]
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: (-len(ids[i]), i))  # longest first: too little memory shows at once
    stops = stop_ids(model) or [i for i in [tokenizer.eos_token_id] if i is not None]
    decode = _greedy if has_plain_cache(model) else _greedy_by_library
    answers = [Written("")] * len(ids)
    was_training = model.training
    model.eval()
    try:
        start = 0
        while start < len(order):
            batch = order[start : start + batch_size]
            new = _or_none(decode, model, [ids[i] for i in batch], stops, max_new_tokens)
            if new is None:
                if len(batch) == 1:
                    raise TrainError(
                        f"out of memory with one answer to a prompt of {len(ids[batch[0]]):,} tokens. Lower "
                        "train.evaluation.max_new_tokens, set train.method: qlora, or take a smaller student."
                    )
                batch_size = (len(batch) + 1) // 2
                release()
                if halved:
                    halved(batch_size)
                continue
            start += len(batch)
            for i, row in zip(batch, new, strict=True):
                text = str(tokenizer.decode(row.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
                answers[i] = Written(
                    text, len(row.logprobs), len(ids[i]), sum(row.logprobs) / len(row.logprobs), row.seconds, tuple(row.ids)
                )
            if report:
                report(start)
    finally:
        model.train(was_training)
    return answers


def _or_none(decode: Callable[..., list[Decoded]], *args: Any) -> list[Decoded] | None:
    """The answers of a batch, or None where memory did not suffice; outside of `except`, so that nothing holds the tensors."""
    try:
        return decode(*args)
    except torch.OutOfMemoryError:
        return None


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, with room for tokens to come: copying them at every step took a quarter of the time."""

    room = 32

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held: list[torch.Tensor] = []

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (rows, heads, tokens, width) and return all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if not self.held or after > self.held[0].shape[-2]:
            old = (self.keys, self.values)
            self.held = [new.new_empty((*new.shape[:-2], after + self.room, new.shape[-1])) for new in (key_states, value_states)]
            for held, kept in zip(self.held, old, strict=True):
                if before and kept is not None:
                    held[..., :before, :] = kept
        for held, new in zip(self.held, (key_states, value_states), strict=True):
            held[..., before:after, :] = new
        self.keys, self.values = (held[..., :after, :] for held in self.held)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        super().batch_repeat_interleave(repeats)
        self.held = []

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep only these rows."""
        super().batch_select_indices(indices)
        self.held = []


@torch.inference_mode()
def _greedy(model: Any, prompts: list[list[int]], stops: list[int], max_new_tokens: int) -> list[Decoded]:
    """Greedy decoding of one batch of token ids."""
    begin = time.monotonic()
    device = next(model.parameters()).device
    shared = shared_prefix(prompts)
    rests = [prompt[shared:] for prompt in prompts]
    width = max(map(len, rests))
    tokens = torch.tensor([[0] * (width - len(rest)) + rest for rest in rests], device=device)
    mask = torch.tensor([[1] * shared + [0] * (width - len(r)) + [1] * len(r) for r in rests], device=device)
    positions = (mask.cumsum(1) - 1)[:, shared:].clamp(min=0)
    cache = Cache(layer_class_to_replicate=RoomyLayer)
    if shared:
        model(input_ids=torch.tensor([prompts[0][:shared]], device=device), past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(prompts))
    last_only = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
    ends = torch.tensor(stops, device=device)
    answers = [Decoded([], [], 0.0) for _ in prompts]
    owners = list(range(len(prompts)))
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    for _ in range(max_new_tokens):
        output = model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **last_only,
        )
        logits = output.logits[:, -1]
        chosen = logits.argmax(-1)
        over_before, ended = ended.tolist(), ended | torch.isin(chosen, ends)
        steps = zip(owners, chosen.tolist(), over_before, ended.tolist(), _chosen_logprobs(logits, chosen), strict=True)
        now = time.monotonic() - begin
        for owner, token, was_over, over, logprob in steps:
            if was_over:
                continue
            answers[owner].logprobs.append(logprob)
            if not over:
                answers[owner].ids.append(token)
            answers[owner] = answers[owner]._replace(seconds=now)
        over_count = int(ended.sum())
        if over_count == len(owners):
            break
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(owners), 1)], 1)
        if over_count * 4 >= len(owners):  # copying the cache for every single row would cost more than it saves
            keep = (~ended).nonzero().flatten()
            cache.batch_select_indices(keep)
            mask, positions, chosen, ended = mask[keep], positions[keep], chosen[keep], ended[keep]
            owners = [owners[i] for i in keep.tolist()]
        tokens = chosen[:, None]
    return answers


def _chosen_logprobs(logits: torch.Tensor, chosen: torch.Tensor) -> list[float]:
    """Log-probabilities (rows,) of the chosen tokens from logits (rows, tokens)."""
    wide = logits.float()
    return list((wide.gather(1, chosen[:, None])[:, 0] - wide.logsumexp(-1)).tolist())


@torch.inference_mode()
def _greedy_by_library(model: Any, prompts: list[list[int]], stops: list[int], max_new_tokens: int) -> list[Decoded]:
    """The same by `model.generate`, for sliding windows, linear attention and other caches of their own kind."""
    begin = time.monotonic()
    logprobs: list[list[float]] = []

    def listen(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        logprobs.append(_chosen_logprobs(logits, logits.argmax(-1)))
        return logits

    device = next(model.parameters()).device
    width = max(map(len, prompts))
    tokens = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    options = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,  # otherwise the model's own generation config would set it
        max_new_tokens=max_new_tokens,
        eos_token_id=stops or None,
        pad_token_id=stops[0] if stops else 0,
    )
    listeners = LogitsProcessorList([listen])
    rows = model.generate(input_ids=tokens, attention_mask=mask, generation_config=options, logits_processor=listeners)
    ends, seconds = set(stops), time.monotonic() - begin
    decoded = []
    for number, row in enumerate(rows[:, width:].tolist()):
        stop = next((i for i, token in enumerate(row) if token in ends), len(row))
        decoded.append(Decoded(row[:stop], [step[number] for step in logprobs[: stop + 1]], seconds))
    return decoded


def shared_prefix(rows: list[list[int]]) -> int:
    """How many tokens all rows begin with, leaving each at least one of its own."""
    if len(rows) == 1:
        return 0
    first, last = min(rows), max(rows)  # in lexical order, what these two share all share
    limit = min(map(len, rows)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


def task_score(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    task: TaskSpec,
    *,
    max_new_tokens: int,
    batch_size: int,
    seen: Callable[[Sequence[str]], None] | None = None,
    halved: Callable[[int], None] | None = None,
    similar: Similarity | None = None,
) -> Measure:
    """The task's own metric on `rows` (metrics.primary_metric), or exact match where that does not apply. DataError without a score.

    With `similar` texts are measured by it. `seen` is shown the answers themselves, `halved` told a batch size that fits where the one
    given does not.
    """

    def answer(prompts: Sequence[Sequence[Message]]) -> list[str]:
        return generate(model, tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, halved=halved)

    with processes.whole(model):
        completions = processes.spread([row.prompt for row in rows], answer)
    if seen is not None:
        seen(completions)
    answers = read_answers(rows, completions, task, similar)
    own = ["embedding_similarity"] if any(answer.similarity is not None for answer in answers) else []
    if answers and all(number_right(answer) is not None for answer in answers):
        own.insert(0, "numeric_match")  # "42" and "It is 42." are the same answer, and no overlap of words says so
    for metric in (*own, primary_metric(task), "exact_match"):
        scores = score({"model": answers}, [metric]).measures["model"] if answers else []
        if scores:
            return scores[0]
    raise DataError(f"none of the {len(rows)} rows has a label or a completion to score against. Export a split with completions.")


def smaller_batches(size: int) -> str:
    """What is said when a batch of answers did not fit into memory."""
    return f"out of memory while answers were generated; they go in batches of {size} from here on. They stay the same."


def read_answers(rows: Sequence[Row], completions: Sequence[str], task: TaskSpec, similar: Similarity | None = None) -> list[Answer]:
    """Completions beside their rows, read for scoring, and measured by `similar` if there is one."""
    answers = [
        read_answer(task, user_text(row.prompt), completion, row.completion, row.label)
        for row, completion in zip(rows, completions, strict=True)
    ]
    return similar(answers) if similar else answers


def similarity(config: TrainConfig) -> Similarity | None:
    """What the recipe's model of embeddings measures, if it names one. Raises ModelError."""
    return Similarity(config.evaluation.embedding) if config.evaluation.embedding else None


def user_text(prompt: Sequence[Message]) -> str:
    """What the user wrote, in every turn: the input that an answer's entities must come from."""
    return "\n".join(m["content"] for m in prompt if m["role"] == "user")


def evaluate_run(run_dir: Path, config: TrainConfig, manifest: Manifest, *, progress: Progress | None = None) -> list[dict[str, Any]]:
    """Evaluate every stage that a run has on every set, and write the run's evaluation files.

    Returns evaluation.json's lines. Raises DataError when the export has no rows to evaluate on.
    """
    progress = progress or Silent()
    sets = run_sets(config, manifest)
    if not sets:
        raise DataError(f"{manifest.directory}: no test rows and no evaluation set. Export again with a test split.")
    similar = similarity(config)
    completions: dict[str, dict[str, Sequence[Written]]] = {s.name: {} for s in sets}
    speeds: list[dict[str, Any]] = []
    fits = [config.evaluation.batch_size]

    def halved(size: int) -> None:
        fits.append(size)
        progress.note(smaller_batches(size))

    def answer(name: str, student: Student, asked: Sequence[EvaluationRows], shots: Sequence[Row] = ()) -> None:
        progress.start(f"evaluate {name}", sum(len(s.rows) for s in asked))
        before, begin = 0, time.monotonic()
        for s in asked:

            def report(done: int, before: int = before) -> None:
                progress.advance(before + done)

            completions[s.name][name] = write(
                student.model,
                student.tokenizer,
                [with_examples(row.prompt, shots) for row in s.rows],
                max_new_tokens=config.evaluation.max_new_tokens,
                batch_size=fits[-1],
                report=report,
                halved=halved,
            )
            before += len(s.rows)
        speeds.append(_speed(name, [w for s in asked for w in completions[s.name][name]], time.monotonic() - begin, config))

    taught = read_rows(manifest.path("sft/train.parquet")) if manifest.count("sft/train.parquet") else []
    shots = examples(taught, config.evaluation.few_shot, config.seed)
    for name, student in run_models(run_dir, config):
        answer(name, student, sets)
        own = [s for s in sets if s.task is manifest.task]
        if name == "base" and shots and own:
            if _fits(student, [with_examples(row.prompt, shots) for s in own for row in s.rows], config.evaluation.max_new_tokens):
                answer(FEW_SHOT, student, own, shots)
            else:
                progress.note(f"{len(shots)} examples do not fit the student's context: no few-shot base. Lower train.evaluation.few_shot.")
    for name, given in other_systems(run_dir).items():
        for s in sets:
            found = [given.get(row.id) for row in s.rows]
            if all(found):
                completions[s.name] = {name: [w for w in found if w], **completions[s.name]}
            elif any(found):
                missing = len(found) - sum(map(bool, found))
                progress.note(f"{name} has no answer to {missing} of the {len(found)} rows of {s.name} and is left out there.")
    for s in sets:
        if s.name == HELD_OUT and TEACHER not in completions[s.name] and all(row.completion for row in s.rows):
            completions[s.name] = {TEACHER: [Written(row.completion or "") for row in s.rows], **completions[s.name]}
    simulated = all(t.get("simulated") for t in manifest.teachers)
    price = costs(
        [line for line in speeds if line["model"] != FEW_SHOT],
        usd_per_hour=config.evaluation.usd_per_hour,
        teacher=manifest.data.get("answering"),
        simulated=simulated,
    )
    extra = {"speed": speeds, "cost": price}
    return write_evaluation(run_dir, sets, completions, seed=config.seed, extra=extra, similar=similar)


def _speed(name: str, written: Sequence[Written], seconds: float, config: TrainConfig) -> dict[str, Any]:
    """How fast a model gave these answers, in `seconds` for all of them."""
    return speed(
        name,
        [w.seconds or 0.0 for w in written],
        [w.tokens or 0 for w in written],
        [w.prompt_tokens or 0 for w in written],
        total=seconds,
        batch_size=config.evaluation.batch_size,
        device=torch.cuda.get_device_name() if device().type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
    )


def give_answers(run_dir: Path, name: str, source: Path) -> None:
    """Let a system take part in a run's evaluations by a file of its answers: JSON lines of {"id", "answer"}, ids as in the sets.

    Raises DataError for a name that a student has, and with file and line for what cannot be read.
    """
    if name in OWN or not name.replace("_", "").isalnum():
        raise DataError(f"--answers {name}: is the name of a student of the run, or no name. Take another, such as teacher.")
    read_given(source)
    target = run_dir / SYSTEMS / f"{name}.jsonl"
    target.parent.mkdir(exist_ok=True)
    if source.resolve() != target.resolve():
        shutil.copyfile(source, target)


def other_systems(run_dir: Path) -> dict[str, dict[str, Written]]:
    """The answers of others by system and row id."""
    return {path.stem: read_given(path) for path in sorted((run_dir / SYSTEMS).glob("*.jsonl"))}


def read_given(path: Path) -> dict[str, Written]:
    """Read answers by row id. Raises DataError with file and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}. Give --answers NAME=FILE.jsonl.") from error
    found: dict[str, Written] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            row, text = record["id"], record["answer"]
            if not isinstance(row, str) or not isinstance(text, str) or row in found:
                raise ValueError(f"id {row!r} is no text, comes twice, or has no text as answer")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f'{path}:{number}: not {{"id": the row\'s, "answer": text}}: {error!r}') from error
        found[row] = Written(text)
    if not found:
        raise DataError(f"{path}: has no answers. One JSON object per line is expected.")
    return found


def evaluate_model(
    model_dir: str,
    sets: Mapping[str, Path],
    task: TaskSpec,
    config: TrainConfig | None = None,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Evaluate a model folder (or hub id) on JSON lines files; `out` is a folder for the same files as a run's.

    A line is {"text" | "prompt", "label" | "intent" (optional), "completion" (optional)}; a text, or a prompt without a
    system message, gets the task's. Returns lines like evaluation.json's, with the model named "model".
    """
    progress, config = progress or Silent(), config or TrainConfig()
    listed = [EvaluationRows(name, read_jsonl(path, task), task) for name, path in sorted(sets.items())]
    similar = similarity(config)
    student = load_student(model_dir, config, quantize=False)
    completions: dict[str, dict[str, Sequence[Written]]] = {}
    for s in listed:
        progress.start(f"evaluate {s.name}", len(s.rows))
        completions[s.name] = {
            "model": write(
                student.model,
                student.tokenizer,
                [row.prompt for row in s.rows],
                max_new_tokens=config.evaluation.max_new_tokens,
                batch_size=config.evaluation.batch_size,
                report=progress.advance,
            )
        }
    if out is not None:
        return write_evaluation(out, listed, completions, seed=config.seed, similar=similar)
    return _scored(listed, _read_all(listed, completions, similar), seed=config.seed)[0]


def run_sets(config: TrainConfig, manifest: Manifest) -> list[EvaluationRows]:
    """The sets of a run: `test` (at most `evaluation.test_rows` rows), `general`, and every external set whole."""
    sets = []
    if manifest.count("sft/test.parquet"):
        rows = read_rows(manifest.path("sft/test.parquet"))
        sets.append(EvaluationRows(HELD_OUT, sample(rows, config.evaluation.test_rows, config.seed), manifest.task))
    for name, path in manifest.evaluation_sets().items():
        sets.append(EvaluationRows(name, read_rows(path), manifest.task))
    probe = GENERAL / "probe.jsonl"
    if probe.is_file():
        sets.append(EvaluationRows("general", read_general(probe), TEXT, ("exact_match",), slices=True))
    return [s for s in sets if s.rows]


def sample(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """`count` rows by the order of a hash of their ids: a row stays in or out while the data grows around it."""

    def drawn(row: Row) -> str:
        return hashlib.sha256(f"{seed}:{row.id}".encode()).hexdigest()

    return sorted(sorted(rows, key=drawn)[:count], key=lambda row: row.id)


def examples(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """`count` training rows to show in a prompt: of as many different labels as there are, drawn by the hash of their ids."""
    drawn = sorted((row for row in rows if row.completion), key=lambda row: hashlib.sha256(f"{seed}:{row.id}".encode()).hexdigest())
    first: dict[str | None, Row] = {}
    for row in drawn:
        first.setdefault(row.label, row)
    rest = [row for row in drawn if first[row.label] is not row]
    return [*first.values(), *rest][:count]


def with_examples(prompt: list[Message], shots: Sequence[Row]) -> list[Message]:
    """A prompt with examples as earlier turns, after its system message."""
    system = [message for message in prompt if message["role"] == "system"]
    turns: list[Message] = []
    for shot in shots:
        turns += [*(m for m in shot.prompt if m["role"] != "system"), {"role": "assistant", "content": shot.completion or ""}]
    return [*system, *turns, *(message for message in prompt if message["role"] != "system")]


def _fits(student: Student, prompts: Sequence[list[Message]], max_new_tokens: int) -> bool:
    """Whether the longest of the prompts, by characters, and an answer fit the model's context."""
    context = getattr(student.model.config.get_text_config(), "max_position_embeddings", None)
    longest = max((render(student.tokenizer, prompt, generation_prompt=True) for prompt in prompts), key=len)
    ids = student.tokenizer(longest, add_special_tokens=False)["input_ids"]
    return context is None or len(ids) + max_new_tokens <= context


def run_models(run_dir: Path, config: TrainConfig) -> Iterator[tuple[str, Student]]:
    """Yield base, sft, dpo or kto, and merged, one after the other, as far as the run has them.

    Adapters share one base, so they are loaded once; the yielded model is what it says only until the next.
    """
    adapters = {s: run_dir / s for s in ("sft", "dpo", "kto") if (run_dir / s / "adapter_config.json").is_file()}
    whole = [s for s in ("sft", "dpo", "kto") if s not in adapters and (run_dir / s / "config.json").is_file()]
    student = load_with_adapters(config.student, adapters, config)
    with student.model.disable_adapter() if adapters else nullcontext():
        yield "base", student
    for name in adapters:
        student.model.set_adapter(name)
        yield name, student
    del student
    for name in [*whole, *(["merged"] if (run_dir / "merged" / "config.json").is_file() else [])]:
        yield name, load_student(str(run_dir / name), config, quantize=False)


Completions = Mapping[str, Mapping[str, Sequence[str | Written]]]


def write_evaluation(
    run_dir: Path,
    sets: Sequence[EvaluationRows],
    completions: Completions,
    *,
    seed: int = 0,
    extra: Mapping[str, Any] | None = None,
    similar: Similarity | None = None,
) -> list[dict[str, Any]]:
    """Score completions (set -> model -> one per row) and write a run's evaluation files; returns the measures.

    `extra` goes into analysis.json as it is; its `cost` into the advice too.
    """
    answers = _read_all(sets, completions, similar)
    measures, comparisons = _scored(sets, answers, seed=seed)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / "evaluation.json", measures)
    write_json(run_dir / "comparisons.json", comparisons)
    for stale in (run_dir / "answers").glob("*/*.jsonl"):  # judgements beside them stay
        stale.unlink()
    lines = []
    for s in sets:
        for name, texts in completions[s.name].items():
            written = [_written(text) for text in texts]
            own = list(_answer_lines(s, name, written, answers[s.name][name]))
            lines += own
            _write_jsonl(run_dir / "answers" / s.name / f"{name}.jsonl", own)
    _write_parquet(run_dir / "answers.parquet", lines, ANSWER_COLUMNS)
    last = {
        s.name: next((m for m in ("merged", "dpo", "kto", "sft") if m in completions[s.name]), list(completions[s.name])[-1]) for s in sets
    }
    failures = [
        {**line, "reason": _reason(line)}
        for line in lines
        if line["failed"] and last[line["set"]] == line["model"] and line["set"] not in {s.name for s in sets if s.slices}
    ]
    _write_parquet(run_dir / "failures.parquet", failures, FAILURE_COLUMNS)
    found = _analysis(sets, completions, answers, seed=seed)
    said = advice(measures, comparisons, (extra or {}).get("cost"))
    write_json(run_dir / "analysis.json", {**(extra or {}), **found, "advice": said})
    return measures


def _written(answer: str | Written) -> Written:
    return answer if isinstance(answer, Written) else Written(answer)


Answers = Mapping[str, Mapping[str, list[Answer]]]


def _read_all(sets: Sequence[EvaluationRows], completions: Completions, similar: Similarity | None = None) -> Answers:
    """All answers (set -> model -> one per row), read for scoring."""
    return {
        s.name: {
            name: read_answers(s.rows, [_written(t).text for t in texts], s.task, similar) for name, texts in completions[s.name].items()
        }
        for s in sets
    }


def _scored(sets: Sequence[EvaluationRows], read: Answers, *, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    measures: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    for s in sets:
        answers = read[s.name]
        slices: dict[str, list[int]] = {"": list(range(len(s.rows)))}
        if s.slices:
            for kind in sorted({row.kind for row in s.rows if row.kind}):
                slices[f"/{kind}"] = [i for i, row in enumerate(s.rows) if row.kind == kind]
        pairs = [(a, b) for a, b in PAIRS if a in answers and b in answers]
        if "dpo" in answers or "kto" in answers:
            pairs = [pair for pair in pairs if pair not in (("sft", "merged"), (TEACHER, "sft"))]
        for suffix, chosen in slices.items():
            part = {name: [listed[i] for i in chosen] for name, listed in answers.items()}
            scores = score(part, s.metrics, pairs, seed=seed)
            measures += [
                {"set": s.name, "model": name, **m._replace(metric=m.metric + suffix)._asdict()}
                for name, listed in scores.measures.items()
                for m in listed
            ]
            comparisons += [_line(s.name, c._replace(metric=c.metric + suffix)) for c in scores.comparisons]
    return measures, comparisons


def _analysis(sets: Sequence[EvaluationRows], completions: Completions, read: Answers, *, seed: int) -> dict[str, Any]:
    """Where the tuned student is weak, and whether it knows it: of every set but the general probe."""
    weak, known = [], []
    for s in sets:
        answers = read[s.name]
        model = next((m for m in ("dpo", "kto", "sft", "merged") if m in answers), list(answers)[-1])
        if s.slices:
            continue
        found = slices(s.name, s.rows, answers, model=model, rivals=(FEW_SHOT, "base"), seed=seed)
        if found is None:
            continue
        weak.append(found)
        for name, listed in answers.items():
            held = [w.logprob for w in map(_written, completions[s.name][name])]
            metric = METRICS[found["metric"]]
            if metric.kind != "proportion" or name not in (model, "base"):
                continue
            tally = metric.tally(listed)
            pairs = [(math.exp(p), t[0] > 0) for p, t in zip(held, tally, strict=True) if p is not None and t[1] > 0]
            curve = calibration([p for p, _ in pairs], [ok for _, ok in pairs], seed=seed)
            if curve is not None:
                known.append({"set": s.name, "model": name, "metric": found["metric"], **curve})
    return {"slices": weak, "confidence": known}


def _line(name: str, comparison: Comparison) -> dict[str, Any]:
    return {"set": name, **comparison._asdict()}


ABOUT = ("set", "model", "id", "topic", "generator", "kind", "dimensions", "input")
ANSWER_COLUMNS = (
    *(*ABOUT, "reference", "completion", "label", "predicted", "parsed", "failed"),
    *("tokens", "prompt_tokens", "logprob", "seconds"),
)
# What the next round of data reads: which input went wrong, how, and where in the taxonomy it belongs.
FAILURE_COLUMNS = (*ABOUT, "prompt", "expected", "answer", "label", "predicted", "parsed", "failed", "reason")
_TYPES = {
    "failed": pa.list_(pa.string()),
    "parsed": pa.bool_(),
    "logprob": pa.float64(),
    "seconds": pa.float64(),
    "tokens": pa.int64(),
    "prompt_tokens": pa.int64(),
    "prompt": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
}


def _answer_lines(s: EvaluationRows, model: str, written: Sequence[Written], answers: Sequence[Answer]) -> Iterator[dict[str, Any]]:
    for row, given, answer in zip(s.rows, written, answers, strict=True):
        yield {
            "set": s.name,
            "model": model,
            "id": row.id,
            "topic": row.topic,
            "generator": row.generator,
            "kind": row.kind,
            "dimensions": json.dumps(dict(row.dimensions), ensure_ascii=False) if row.dimensions else None,
            "input": answer.input,
            "prompt": row.prompt,
            "reference": row.completion,
            "completion": given.text,
            "answer": answer.completion,
            "expected": answer.reference or answer.label,
            "label": answer.label,
            "predicted": answer.predicted,
            "parsed": answer.parsed is not None if s.task.output == "json" else None,
            "failed": [name for name in failed_metrics(answer) if name in s.metrics],
            "tokens": given.tokens,
            "prompt_tokens": given.prompt_tokens,
            "logprob": given.logprob,
            "seconds": given.seconds,
        }


def _reason(line: Mapping[str, Any]) -> str:
    """What went wrong with an answer, in words."""
    if "endless_reasoning" in line["failed"]:
        return "the reasoning never ended"
    if line["parsed"] is False:
        return "the answer is not one JSON object"
    if line["label"] is not None and line["predicted"] != line["label"]:
        return f"gave {line['predicted'] or 'no label'}, wanted {line['label']}"
    return ", ".join(line["failed"])


def _write_jsonl(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """The answers of one system to one set, as `python -m datagen compare` and `train evaluate --answers` read them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records = (
        {
            **{name: line[name] for name in ("id", "topic", "generator", "kind", "input")},
            **{name: line[name] for name in ("expected", "answer")},
            "right": not line["failed"],
            **({"reasoning": thought} if (thought := apart(line["completion"]).reasoning) is not None else {}),
        }
        for line in lines
    )
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def _write_parquet(path: Path, lines: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    schema = pa.schema([(name, _TYPES.get(name, pa.string())) for name in columns])
    pq.write_table(pa.Table.from_pylist(list(lines), schema=schema), path)


def read_jsonl(path: Path, task: TaskSpec) -> list[Row]:
    """Read rows to evaluate on. Raises DataError with file and line for one that has no text or prompt."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}. Give --set NAME=FILE.jsonl.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            label, completion = record.get("label", record.get("intent")), record.get("completion")
            rows.append(
                Row(
                    id=str(record.get("id", f"{number:06d}")),
                    prompt=_prompt(record, task),
                    completion=completion if completion is None or isinstance(completion, str) else completion[0]["content"],
                    label=None if label is None else str(label),
                    kind=record.get("kind"),
                    topic=record.get("topic"),
                    group_id=None,
                )
            )
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise DataError(f'{path}:{number}: not {{"text" or "prompt", "label" or "intent", "completion"}}: {error!r}') from error
    if not rows:
        raise DataError(f"{path}: has no rows. One JSON object per line is expected.")
    return rows


def _prompt(record: Mapping[str, Any], task: TaskSpec) -> list[Message]:
    prompt = record["prompt"] if "prompt" in record else record["text"]
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in prompt]
    if task.system and all(m["role"] != "system" for m in messages):
        messages.insert(0, {"role": "system", "content": task.system})
    return messages
