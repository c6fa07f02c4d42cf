"""Answers of a student on held-out rows, scored: base, SFT, DPO and merged side by side.

    measures = evaluate_run(run_dir, config, manifest)               writes evaluation.json, comparisons.json,
                                                                     answers.parquet, failures.parquet
    measures = evaluate_model("runs/latest/merged", {"mine": Path("mine.jsonl")}, task)

Generation is greedy, so the same weights give the same answers. A set is a list of rows with the task by which they
are scored: the run's own test rows, the general probe, and each external evaluation set.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicLayer

from train.config import GENERAL, TrainConfig
from train.dataset import Manifest, Message, Row, read_general, read_rows
from train.errors import DataError
from train.metrics import (
    METRICS,
    Answer,
    Comparison,
    Measure,
    TaskSpec,
    failed_metrics,
    primary_metric,
    read_answer,
    score,
)
from train.model import Student, has_plain_cache, load_student, load_with_adapters, stop_ids
from train.template import render
from train.watch import Progress, Silent, write_json

FEW_SHOT = "few_shot"  # the base with examples in its prompt
PAIRS = (
    *(("base", "sft"), ("sft", "dpo"), ("base", "dpo"), ("dpo", "merged"), ("sft", "merged")),
    *((FEW_SHOT, "sft"), (FEW_SHOT, "dpo")),
)
TEXT = TaskSpec(type="general", output="text")


class EvaluationRows(NamedTuple):
    """Rows that are scored together. `slices` also scores each `kind` apart, as `metric/kind`."""

    name: str
    rows: list[Row]
    task: TaskSpec
    metrics: tuple[str, ...] = tuple(METRICS)
    slices: bool = False


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    batch_size: int,
    report: Callable[[int], None] | None = None,
) -> list[str]:
    """Answer each prompt greedily; answers come in the order of the prompts, without special tokens.

    Rows are sorted by length and padded on the left. What all prompts of a batch begin with (the system message) is
    computed once, and rows that have stopped leave the batch: the answers are those of `model.generate`, sooner.
    `report` is told the number of rows done.
    """
    texts = [render(tokenizer, list(prompt), generation_prompt=True) for prompt in prompts]
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: (-len(ids[i]), i))  # longest first: too little memory shows at once
    stops = stop_ids(model) or [i for i in [tokenizer.eos_token_id] if i is not None]
    decode = _greedy if has_plain_cache(model) else _greedy_by_library
    answers = [""] * len(ids)
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            new = decode(model, [ids[i] for i in batch], stops, max_new_tokens)
            for i, row in zip(batch, new, strict=True):
                answers[i] = str(tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False))
            if report:
                report(start + len(batch))
    finally:
        model.train(was_training)
    return answers


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
def _greedy(model: Any, prompts: list[list[int]], stops: list[int], max_new_tokens: int) -> list[list[int]]:
    """Greedy decoding of one batch of token ids, without the stop token."""
    device = next(model.parameters()).device
    shared = _common_prefix(prompts)
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
    answers: list[list[int]] = [[] for _ in prompts]
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
        chosen = output.logits[:, -1].argmax(-1)
        ended = ended | torch.isin(chosen, ends)
        for owner, token, over in zip(owners, chosen.tolist(), ended.tolist(), strict=True):
            if not over:
                answers[owner].append(token)
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


@torch.inference_mode()
def _greedy_by_library(model: Any, prompts: list[list[int]], stops: list[int], max_new_tokens: int) -> list[list[int]]:
    """The same by `model.generate`, for sliding windows, linear attention and other caches of their own kind."""
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
    rows = model.generate(input_ids=tokens, attention_mask=mask, generation_config=options)[:, width:].tolist()
    ends = set(stops)
    return [row[: next((i for i, token in enumerate(row) if token in ends), len(row))] for row in rows]


def _common_prefix(rows: list[list[int]]) -> int:
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
) -> Measure:
    """The task's own metric on `rows` (metrics.primary_metric), or exact match where that does not apply. DataError without a score.

    `seen` is shown the answers themselves.
    """
    completions = generate(model, tokenizer, [row.prompt for row in rows], max_new_tokens=max_new_tokens, batch_size=batch_size)
    if seen is not None:
        seen(completions)
    answers = read_answers(rows, completions, task)
    for metric in (primary_metric(task), "exact_match"):
        scores = score({"model": answers}, [metric]).measures["model"] if answers else []
        if scores:
            return scores[0]
    raise DataError(f"none of the {len(rows)} rows has a label or a completion to score against. Export a split with completions.")


def read_answers(rows: Sequence[Row], completions: Sequence[str], task: TaskSpec) -> list[Answer]:
    """Completions beside their rows, read for scoring."""
    return [
        read_answer(task, user_text(row.prompt), completion, row.completion, row.label)
        for row, completion in zip(rows, completions, strict=True)
    ]


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
    completions: dict[str, dict[str, list[str]]] = {s.name: {} for s in sets}

    def answer(name: str, student: Student, asked: Sequence[EvaluationRows], shots: Sequence[Row] = ()) -> None:
        progress.start(f"evaluate {name}", sum(len(s.rows) for s in asked))
        before = 0
        for s in asked:

            def report(done: int, before: int = before) -> None:
                progress.advance(before + done)

            completions[s.name][name] = generate(
                student.model,
                student.tokenizer,
                [with_examples(row.prompt, shots) for row in s.rows],
                max_new_tokens=config.evaluation.max_new_tokens,
                batch_size=config.evaluation.batch_size,
                report=report,
            )
            before += len(s.rows)

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
    return write_evaluation(run_dir, sets, completions, seed=config.seed)


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
    student = load_student(model_dir, config, quantize=False)
    completions = {}
    for s in listed:
        progress.start(f"evaluate {s.name}", len(s.rows))
        completions[s.name] = {
            "model": generate(
                student.model,
                student.tokenizer,
                [row.prompt for row in s.rows],
                max_new_tokens=config.evaluation.max_new_tokens,
                batch_size=config.evaluation.batch_size,
                report=progress.advance,
            )
        }
    if out is not None:
        return write_evaluation(out, listed, completions, seed=config.seed)
    return _scored(listed, completions, seed=config.seed)[0]


def run_sets(config: TrainConfig, manifest: Manifest) -> list[EvaluationRows]:
    """The sets of a run: `test` (at most `evaluation.test_rows` rows), `general`, and every external set whole."""
    sets = []
    if manifest.count("sft/test.parquet"):
        rows = read_rows(manifest.path("sft/test.parquet"))
        sets.append(EvaluationRows("test", sample(rows, config.evaluation.test_rows, config.seed), manifest.task))
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
    """Yield base, sft, dpo and merged, one after the other, as far as the run has them.

    Adapters share one base, so they are loaded once; the yielded model is what it says only until the next.
    """
    adapters = {s: run_dir / s for s in ("sft", "dpo") if (run_dir / s / "adapter_config.json").is_file()}
    whole = [s for s in ("sft", "dpo") if s not in adapters and (run_dir / s / "config.json").is_file()]
    student = load_with_adapters(config.student, adapters, config)
    with student.model.disable_adapter() if adapters else nullcontext():
        yield "base", student
    for name in adapters:
        student.model.set_adapter(name)
        yield name, student
    del student
    for name in [*whole, *(["merged"] if (run_dir / "merged" / "config.json").is_file() else [])]:
        yield name, load_student(str(run_dir / name), config, quantize=False)


def write_evaluation(
    run_dir: Path,
    sets: Sequence[EvaluationRows],
    completions: Mapping[str, Mapping[str, Sequence[str]]],
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Score completions (set -> model -> one per row) and write a run's four evaluation files; returns the measures."""
    measures, comparisons = _scored(sets, completions, seed=seed)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / "evaluation.json", measures)
    write_json(run_dir / "comparisons.json", comparisons)
    lines = [
        line
        for s in sets
        for name, texts in completions[s.name].items()
        for line in _answer_lines(s, name, read_answers(s.rows, texts, s.task))
    ]
    _write_parquet(run_dir / "answers.parquet", lines, (*ANSWER_COLUMNS, "model", "failed"))
    last = {s.name: list(completions[s.name])[-1] for s in sets if not s.slices}
    failures = [line for line in lines if line["failed"] and last.get(line["set"]) == line["model"]]
    _write_parquet(run_dir / "failures.parquet", failures, (*ANSWER_COLUMNS, "model", "failed"))
    return measures


def _scored(
    sets: Sequence[EvaluationRows], completions: Mapping[str, Mapping[str, Sequence[str]]], *, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    measures: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    for s in sets:
        answers = {name: read_answers(s.rows, texts, s.task) for name, texts in completions[s.name].items()}
        slices: dict[str, list[int]] = {"": list(range(len(s.rows)))}
        if s.slices:
            for kind in sorted({row.kind for row in s.rows if row.kind}):
                slices[f"/{kind}"] = [i for i, row in enumerate(s.rows) if row.kind == kind]
        pairs = [(a, b) for a, b in PAIRS if a in answers and b in answers]
        if "dpo" in answers:
            pairs = [pair for pair in pairs if pair != ("sft", "merged")]
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


def _line(name: str, comparison: Comparison) -> dict[str, Any]:
    return {"set": name, **comparison._asdict()}


ANSWER_COLUMNS = ("set", "id", "input", "reference", "completion", "label", "predicted", "kind", "topic")


def _answer_lines(s: EvaluationRows, model: str, answers: Sequence[Answer]) -> Iterator[dict[str, Any]]:
    for row, answer in zip(s.rows, answers, strict=True):
        yield {
            "set": s.name,
            "model": model,
            "id": row.id,
            "input": answer.input,
            "reference": row.completion,
            "completion": answer.completion,
            "label": answer.label,
            "predicted": answer.predicted,
            "kind": row.kind,
            "topic": row.topic,
            "failed": [name for name in failed_metrics(answer) if name in s.metrics],
        }


def _write_parquet(path: Path, lines: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    kinds = {"failed": pa.list_(pa.string())}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])
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
