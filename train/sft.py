"""Supervised fine-tuning: teach the student the completions of the data (TRL's SFTTrainer).

    result = train_sft(config, manifest, run_dir, progress=Silent())

Rows are tokenised and masked by `template`, proved, and only then handed to the trainer. A run that was interrupted goes
on from its last checkpoint when it is called again with the same folder.
"""

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PrinterCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from trl import SFTConfig, SFTTrainer

from train import cpu, evaluate, memory, model, processes, template
from train.config import TrainConfig, check_options, near
from train.dataset import GENERAL_ID, Manifest, Row, mix, read_general, read_rows, read_training, take, weigh
from train.errors import ConfigError, TrainError
from train.metrics import Measure, TaskSpec
from train.proof import prove, prove_training
from train.retain import Retention
from train.template import Encoded, Source
from train.watch import Budget, History, Progress, Silent, Watch, last_checkpoint, too_high, write_json

# Settings of which nothing comes where they are 0.
POSITIVE = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps")


class Prepared(NamedTuple):
    """Everything SFT needs, loaded and proved, before the first step."""

    student: model.Student
    rows: list[Encoded]
    general: list[Encoded]
    aside: list[Row]
    validation: list[Row]
    proof: dict[str, Any]
    facts: dict[str, Any]
    weights: dict[tuple[int, ...], float] | None


class Weighted:
    """A model whose log-probabilities count `weights` (rows, tokens) times; with all else it is the model."""

    def __init__(self, model: Any, weights: torch.Tensor) -> None:
        self._model, self._weights = model, weights

    def __call__(self, **inputs: Any) -> Any:
        """The model's output with weighted log-probabilities (rows, tokens - 1)."""
        output = self._model(**inputs)
        output.log_probs = output.log_probs * self._weights[:, -output.log_probs.shape[1] :]
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class Trainer(processes.InStep, memory.HalvesBatches, SFTTrainer):
    """TRL's trainer with rows by weight, if `weights` has them by their ids, and with one more term in the loss: what `retention`
    measures on general rows, if there is one."""

    retention: Retention | None = None
    names: Callable[[Any], list[str]]
    weights: Mapping[tuple[int, ...], float] | None = None
    _draw: int | None = None

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """TRL's loss, and the retention's while training. Raises TrainError naming the rows where it is no number."""
        asked = Weighted(model, weights_in(inputs, self.weights)) if self.weights and model.training else model
        loss = super().compute_loss(asked, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch)
        if model.training and not torch.isfinite(loss):
            raise TrainError(
                f"train.sft: the loss is {loss.item()} at step {self.state.global_step + 1}; the rows of that batch: "
                f"{', '.join(self.names(inputs['input_ids']))}. The last checkpoint is kept. "
                "Lower train.sft.learning_rate or look at these rows."
            )
        if self.retention is not None and model.training and self.first_part:
            if self._draw is None:  # a resumed run goes on with the rows that would have come next
                self._draw = self.state.global_step * self.args.gradient_accumulation_steps
            term = self.retention.loss(self.accelerator.unwrap_model(model), self.micro_batch(self._draw))
            self._draw += 1
            self._metrics["train"]["general_drift"].append(processes.mean(term.item()) / self.retention.weight)
            # the task's part is normalised by the tokens of all micro-batches of a step; this one must be as well
            loss = loss + term / (self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1)
        return loss


def train_sft(config: TrainConfig, manifest: Manifest, run_dir: Path, *, progress: Progress) -> dict[str, Any]:
    """Train, keep the best checkpoint by the task's metric in run_dir/sft, and return the record for run.json.

    Raises ConfigError, DataError, ModelError or TemplateError before the first step.
    """
    started = time.monotonic()
    options = config.sft_options
    known_options("train.sft", options, SFTConfig)
    if config.weighting and options.get("loss_type", "nll") == "dft":
        raise ConfigError("train.weighting weighs the log-likelihood; train.sft.loss_type is dft. Leave one of them out.")
    prepared = prepare(config, manifest)
    net, tokenizer = prepared.student
    if config.method != "full":
        net = model.add_lora(net, config)
        net.peft_config["default"].base_model_name_or_path = config.student
    share = model.share(net)
    folder = run_dir / "work" / "sft"
    options["num_train_epochs"] = config.sft_epochs(len(prepared.rows))
    arguments = build_arguments("train.sft", SFTConfig, config, options, folder, len(prepared.rows), share.total)
    steps = steps_of(arguments, len(prepared.rows))
    tokens = sum(len(row.ids) for row in prepared.rows)
    epochs = arguments.num_train_epochs
    retention = retain(config, prepared, options["per_device_train_batch_size"], tokenizer.pad_token_id)
    # the rows held to the base pass once more without gradients: a third of what a training pass costs
    held = steps * retention.tokens * 4 / 3 if retention else 0.0
    forecast = minutes(tokens * epochs + held, share, config.method)
    progress.plan(
        "Supervised fine-tuning",
        {
            "student": f"{config.student} ({share.total:,} parameters, {net.dtype})".replace("torch.", ""),
            "method": f"{described_method(config)}, {share.trainable:,} trainable ({share.percent:.2f} %)",
            "chat template": describe_template(prepared.proof),
            "rows": f"{len(prepared.rows):,} ({prepared.facts['general_rows']:,} general; {prepared.facts['rows_dropped']:,} left out)",
            **(
                {"weights": "every {} counts the same: rows from {} to {} times".format(config.weighting, *prepared.facts["weights"])}
                if prepared.weights
                else {}
            ),
            "general ability": describe_general(config, prepared, retention),
            "tokens per epoch": f"{tokens:,} ({sum(len(r.ids) - r.prompt_length for r in prepared.rows):,} in the loss)",
            "steps": f"{steps:,} of {tokens * epochs / max(steps, 1):,.0f} tokens, {epochs:g} epochs",
            "forecast": f"about {forecast:.1f} min, evaluation apart",
        },
    )
    history = History(run_dir / "metrics.jsonl")
    shared = cpu.speed_up(net, [row.ids for row in prepared.rows], checkpointing=arguments.gradient_checkpointing)
    trainer = Trainer(
        model=net,
        args=arguments,
        train_dataset=Dataset.from_dict({"input_ids": [row.ids for row in prepared.rows], "labels": [row.labels for row in prepared.rows]}),
        processing_class=tokenizer,
    )
    trainer.shared_by = options["per_device_train_batch_size"] // arguments.per_device_train_batch_size
    trainer.halved = tell_halved(progress)
    room = memory.make_room(trainer, [len(row.ids) for row in prepared.rows])
    progress.note(f"memory: {room.told()}")
    if room.seconds is not None:  # a small model waits for kernels to start, of which the forecast from its size knows nothing
        longest = steps * arguments.gradient_accumulation_steps * room.seconds
        progress.note(f"time: {max(forecast, longest / 60):.1f} min at most by a step that was timed, general rows and evaluation apart")
    trainer.retention = retention
    trainer.weights = prepared.weights
    trainer.names = lambda batch: rows_of(batch, prepared.rows)
    batches = prove_training(trainer, prepared.rows, template.adapt(tokenizer, config.student))
    if processes.first():
        write_json(run_dir / "template_proof.json", {**prepared.proof, "batches": batches})
    watch = Watch(
        "sft",
        folder,
        history,
        progress,
        points=config.evaluation.points,
        tokens_per_epoch=tokens,
        score=scorer(net, tokenizer, prepared.validation, manifest.task, config, progress=progress),
        keep=lambda path: save(net, path),
        budget=limit_forgetting(config, prepared, net, retention, history, folder),
    )
    seconds = fit(trainer, watch, folder)
    signs = too_high(history.lines, "sft")
    if signs:
        progress.note(f"the learning rate may be too high: {'; '.join(signs)}. Try a half or a third of train.sft.learning_rate.")
    if watch.best is None:
        if watch.budget and not [line["general_within"] for line in history.lines if "general_within" in line][-1]:
            raise TrainError(
                f"{watch.stopped or 'general ability was below the budget at every point'}; no point can be kept. Lower "
                "train.sft.learning_rate, set train.general.loss: features with a higher weight, or raise train.general.budget."
            )
        save(net, folder / "best")
    finish(folder / "best", run_dir / "sft", tokenizer)
    return {
        **prepared.facts,
        "shared_prefix_tokens": shared,
        "trainable": share.trainable,
        "parameters": share.total,
        "steps": trainer.state.global_step,
        "tokens": watch_tokens(history, "sft"),
        "tokens_per_second": watch.speed(seconds),
        "best": watch.best._asdict() if watch.best else None,
        "stopped": watch.stopped,
        "learning_rate_too_high": signs,
        "memory": {**room.record(), **memory.peak(trainer)},
        "train_seconds": round(seconds, 1),
        "seconds": round(time.monotonic() - started, 1),
    }


def described_method(config: TrainConfig) -> str:
    """The method in a word or two."""
    return f"{config.method} with DoRA" if config.lora.dora and config.method != "full" else config.method


def describe_template(proof: Mapping[str, Any]) -> str:
    """Whose chat template it is that the student is trained with, and what was changed in it."""
    source = "a plain one, for the student has none of its own" if proof["template"] == "fallback" else "the student's own"
    return f"{source}{', changed: ' if proof['changes'] else ''}{'; '.join(proof['changes'])}; ends a turn with {proof['stop']['text']}"


def tell_halved(progress: Progress) -> Callable[[int, int, int], None]:
    """What a trainer calls whose micro-batches did not fit."""

    def halved(parts: int, rows: int, step: int) -> None:
        progress.note(
            f"step {step}: out of memory; its micro-batches of {rows} rows go in {parts} parts from here on. The effective batch stays."
        )

    return halved


def prepare(config: TrainConfig, manifest: Manifest) -> Prepared:
    """Load the student and the rows, encode, and prove."""
    rows = read_training(manifest)
    general = 0
    held: list[Row] = []
    aside: list[Row] = []
    if config.general is not None and config.general.share > 0:
        held = read_general(config.general.path())
        if config.general.budget is not None:
            aside = take(held, min(config.evaluation.validation_rows, len(held) // 2), config.seed)
            measured = {row.id for row in aside}
            held = [row for row in held if row.id not in measured]
        if config.general.loss == "labels":
            rows, general = mix(rows, held, config.general.share, config.seed)
            held = []
        elif config.method == "full":
            raise ConfigError(
                "train.general.loss is 'features', which asks the base while the adapter is off; train.method is 'full' and has no "
                "adapter. Set train.general.loss: labels, or another method."
            )
    student = model.load_student(config.student, config)
    tokenizer = student.tokenizer
    described = template.adapt(tokenizer, config.student)
    limit = min(config.max_length, context_of(student.model))
    sources = sources_of(rows)
    encoding = template.encode(tokenizer, described, sources, limit)
    proof = prove(tokenizer, described, sources, encoding.rows, model.stop_ids(student.model), seed=config.seed)
    kept = template.encode(tokenizer, described, sources_of(held), limit).rows
    validation = []
    if manifest.count("sft/validation.parquet"):
        validation = take(read_rows(manifest.path("sft/validation.parquet")), config.evaluation.validation_rows, config.seed)
    weights = weights_of(config, rows, encoding.rows)
    facts = {
        "rows": len(encoding.rows),
        "general_rows": general,
        "held_rows": len(kept),
        "rows_dropped": sum(len(ids) for ids in encoding.dropped.values()),
        "dropped": encoding.dropped,
        "validation_rows": len(validation),
        "weights": [round(min(weights.values()), 3), round(max(weights.values()), 3)] if weights else None,
    }
    return Prepared(student, encoding.rows, kept, aside, validation, {"student": config.student, **proof}, facts, weights)


def sources_of(rows: Sequence[Row]) -> list[Source]:
    """The rows as the template renders them."""
    return [Source(row.id, row.prompt, row.completion or "") for row in rows]


def rows_of(batch: torch.Tensor, rows: Sequence[Encoded]) -> list[str]:
    """The ids of the rows that a batch of token ids (rows, tokens) holds, packed ones too."""
    texts = [f",{','.join(map(str, line))}," for line in batch.tolist()]
    return [row.id for row in rows if any(f",{','.join(map(str, row.ids))}," in text for text in texts)]


def weights_in(batch: Any, weights: Mapping[tuple[int, ...], float]) -> torch.Tensor:
    """The weight of each token of a batch (rows, tokens): that of its row, also where rows are packed into one line; 1 elsewhere."""
    ids = batch["input_ids"]
    found = torch.ones(ids.shape, device=ids.device)
    packed = "attention_mask" not in batch
    marks = batch["position_ids"] if packed else batch["attention_mask"]
    for number, (line, mark) in enumerate(zip(ids.tolist(), marks.tolist(), strict=True)):
        starts = [i for i, position in enumerate(mark) if position == 0] if packed else [mark.index(1)]
        ends = [*starts[1:], len(line)] if packed else [starts[0] + sum(mark)]
        for start, end in zip(starts, ends, strict=True):
            found[number, start:end] = weights.get(tuple(line[start:end]), 1.0)
    return found


def weights_of(config: TrainConfig, rows: Sequence[Row], encoded: Sequence[Encoded]) -> dict[tuple[int, ...], float] | None:
    """What `train.weighting` makes of the rows, by their token ids; general rows are not weighed. None where nothing is to be weighed.

    Raises ConfigError where no row has what they are to be weighed by.
    """
    if config.weighting is None:
        return None
    classes = {row.id: getattr(row, config.weighting) for row in rows if not row.id.startswith(GENERAL_ID)}
    if not any(classes.values()):
        raise ConfigError(f"train.weighting is {config.weighting}, but no row has a {config.weighting}. Set train.weighting: null.")
    own = [row for row in encoded if row.id in classes]
    weights = weigh({row.id: classes[row.id] for row in own}, {row.id: len(row.ids) - row.prompt_length for row in own})
    return {tuple(row.ids): weights[row.id] for row in own}


def retain(config: TrainConfig, prepared: Prepared, batch: int, pad: int) -> Retention | None:
    """What holds the student to its base, with as many rows beside `batch` as the recipe's share says; None where nothing does."""
    if config.general is None or not prepared.general:
        return None
    count = round(batch * config.general.share / (1 - config.general.share))
    rows = [row.ids for row in prepared.general]
    return Retention(rows, count=max(1, count), weight=config.general.weight, pad=pad, seed=config.seed)


def limit_forgetting(
    config: TrainConfig, prepared: Prepared, net: Any, retention: Retention | None, history: History, folder: Path
) -> Budget | None:
    """The recipe's budget with its remedy: a hold that is doubled where there is one, the end of the stage where there is none.

    The base is measured here, before the first step, with the fresh adapter that is still the base.
    """
    score = scorer(net, prepared.student.tokenizer, prepared.aside, evaluate.TEXT, config)
    if config.general is None or config.general.budget is None or score is None:
        return None
    base: Measure = score()

    def over() -> str | None:
        if retention is None:
            return "stopped"
        retention.weight *= 2
        return None

    budget = Budget(score, base.value, config.general.budget, over)
    checkpoint = last_checkpoint(folder)
    done = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    for line in history.lines:
        if line["stage"] == "sft" and line["step"] <= done and line.get("general_within") is False:
            over()  # a resumed run holds as hard as it did
    return budget


def describe_general(config: TrainConfig, prepared: Prepared, retention: Retention | None) -> str:
    """What is done for general ability, for the person who reads the plan."""
    if retention:
        text = f"held to the base's on {retention.count} of {len(prepared.general):,} general rows a step"
    else:
        text = "general rows by their labels" if prepared.facts["general_rows"] else "not held"
    if config.general and config.general.budget is not None:
        text += f"; may fall by {config.general.budget:g} points on {len(prepared.aside)} rows set aside"
    return text


def scorer(
    net: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    task: TaskSpec,
    config: TrainConfig,
    seen: Callable[[Sequence[str]], None] | None = None,
    progress: Progress | None = None,
) -> Any:
    """Return a function that measures the task's metric of `net` on `rows`, or None when there are none; `seen` is shown the answers."""
    if not rows:
        return None
    fits = [config.evaluation.batch_size]
    similar = evaluate.similarity(config)

    def halved(size: int) -> None:
        fits.append(size)
        (progress or Silent()).note(evaluate.smaller_batches(size))

    def score() -> Measure:
        net.eval()
        try:
            return evaluate.task_score(
                net,
                tokenizer,
                list(rows),
                task,
                max_new_tokens=config.evaluation.max_new_tokens,
                batch_size=fits[-1],
                seen=seen,
                halved=halved,
                similar=similar,
            )
        finally:
            net.train()

    return score


def fit(trainer: Any, watch: Watch, folder: Path) -> float:
    """Train from the start or the last checkpoint; return the seconds spent on steps, scoring apart."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watch)

    def tell(numbers: Mapping[str, float]) -> None:
        """Show our own measurements to the trackers that the recipe names."""
        for callback in trainer.callback_handler.callbacks:
            if callback is not watch:
                callback.on_log(trainer.args, trainer.state, trainer.control, logs=dict(numbers), model=trainer.model)

    watch.tell = tell
    scoring = 0.0
    if watch.score is not None:
        inner = watch.score

        def timed() -> Measure:
            nonlocal scoring
            begin = time.monotonic()
            try:
                return inner()
            finally:
                scoring += time.monotonic() - begin

        watch.score = timed
    checkpoint = last_checkpoint(folder)
    begin = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except torch.OutOfMemoryError as error:
        raise TrainError(
            f"out of memory outside the model's own steps: {' '.join(str(error).split())[:200]}. Set train.sft.optim: paged_adamw_8bit, "
            "train.method: qlora, or take a smaller student. The last checkpoint is kept."
        ) from error
    except OSError as error:
        raise TrainError(f"{folder}: cannot write: {error}. Free some space and run again; it goes on from the last checkpoint.") from error
    return time.monotonic() - begin - scoring


def save(net: Any, path: Path) -> None:
    """Save the trained weights: the adapter alone, or the whole model when all of it was trained. All processes must ask."""
    weights = processes.gathered(net)
    if not processes.first():
        return
    if isinstance(net, PeftModel):
        net.save_pretrained(str(path), selected_adapters=["default"], state_dict=weights)
        (path / "README.md").unlink(missing_ok=True)
    else:
        net.save_pretrained(str(path), state_dict=weights)


def finish(best: Path, target: Path, tokenizer: Any) -> None:
    """Put the best weights in their place, with the tokenizer and template of training; remove the stage's workshop."""
    if processes.first():
        tokenizer.save_pretrained(str(best))
        template.seal(tokenizer, best)
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(best, target)
        shutil.rmtree(best.parent)
        if not any(best.parent.parent.iterdir()):
            best.parent.parent.rmdir()
    processes.wait()


def known_options(where: str, options: dict[str, Any], kind: type[Any]) -> None:
    """Refuse options that the trainer's config does not have, text in the place of numbers, and trackers that are not there.

    Raises ConfigError naming the near one.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    check_options(where, options, list(fields))
    for name, value in options.items():
        default = fields[name].default
        number = isinstance(default, int | float) and not isinstance(default, bool)
        if number and not isinstance(value, int | float):
            raise ConfigError(f"{where}.{name} is {value!r}; it must be a number, such as {default:g}.")
        if name in POSITIVE and not value > 0 and not (name == "num_train_epochs" and options.get("max_steps", 0) > 0):
            raise ConfigError(f"{where}.{name} is {value!r}; it must be above 0.")
    asked = options.get("report_to") or []
    for name in [asked] if isinstance(asked, str) else asked:
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise ConfigError(f"{where}.report_to: no tracker is called {name!r}{near(str(name), list(INTEGRATION_TO_CALLBACK))}.")
        if name not in get_available_reporting_integrations():
            package = str(name).replace("_", "-")
            raise ConfigError(f"{where}.report_to is {name!r}, and it is not installed. Install it: .venv/bin/pip install {package}")


def build_arguments(
    where: str, kind: type[Any], config: TrainConfig, options: dict[str, Any], folder: Path, rows: int, parameters: int
) -> Any:
    """Make the trainer's config: the recipe's options over what this machine and this run need."""
    gpu = torch.cuda.is_available()
    part = processes.divide(where, int(options.get("per_device_train_batch_size", 8)), int(options.get("gradient_accumulation_steps", 1)))
    own: dict[str, Any] = {
        "output_dir": str(folder),
        "seed": config.seed,
        "data_seed": config.seed,
        "max_length": config.max_length,
        "use_cpu": not gpu,
        "bf16": gpu,
        # Recomputing activations saves memory that a small model does not need, for a third more time.
        "activation_checkpointing": gpu and parameters > 1_000_000_000,
        "dataloader_pin_memory": gpu,
        # QLoRA's own optimizer: its states leave the GPU when memory is short (arXiv 2305.14314)
        **({"optim": "paged_adamw_8bit"} if gpu and config.method == "qlora" else {}),
        "save_strategy": "no",
        "save_total_limit": 1,
        "disable_tqdm": True,
        "report_to": "none",
        "project": config.name,
        "run_name": f"{folder.parent.parent.name}-{folder.name}",
        "logging_steps": 1,
        # of several GPUs each holds a part of the weights (FSDP2), and writes it; of several processes on a CPU each holds them all
        **({"fsdp": True, "fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}} if gpu and processes.count() > 1 else {}),
    }
    share = {"per_device_train_batch_size": part.batch, "gradient_accumulation_steps": part.accumulation}
    if kind is SFTConfig and not options.get("packing"):
        own["dataset_kwargs"] = {"skip_prepare_dataset": True}
    try:
        arguments = kind(**{**own, **options, **share})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error
    if "logging_steps" not in options:
        arguments.logging_steps = max(1, steps_of(arguments, rows) // 60)
    return arguments


def steps_of(arguments: Any, rows: int) -> int:
    """Count optimizer steps, packing apart."""
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    batches = math.ceil(rows / int(arguments.per_device_train_batch_size) / processes.count())
    updates = math.ceil(batches / int(arguments.gradient_accumulation_steps))
    return math.ceil(updates * float(arguments.num_train_epochs))


def minutes(tokens: float, share: model.Share, method: str) -> float:
    """Forecast training time from this machine's matrix multiplication speed.

    A frozen base costs 4 floating point operations a parameter and token (forward, and gradients of the activations),
    full training 6. A small model reaches about a third of the speed of large matrices.
    """
    where = model.device()
    size = 4096 if where.type == "cuda" else 512
    matrix = torch.randn(size, size, device=where, dtype=torch.bfloat16 if where.type == "cuda" else torch.float32)
    done, begin = 0, time.monotonic()
    while time.monotonic() - begin < 0.2:
        (matrix @ matrix)[0, 0].item()
        done += 1
    speed = done * 2 * size**3 / (time.monotonic() - begin)
    return tokens * share.total * (6 if method == "full" else 4) / (0.33 * speed) / 60 / processes.count()


def context_of(net: Any) -> int:
    """The longest text that the model was made for."""
    return int(getattr(net.config, "max_position_embeddings", None) or 1_000_000)


def watch_tokens(history: History, stage: str) -> int:
    """Tokens seen by a stage, from its last line."""
    return int(max((line["tokens"] for line in history.lines if line["stage"] == stage), default=0))
