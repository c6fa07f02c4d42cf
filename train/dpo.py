"""Direct preference optimization on the SFT adapter (arXiv 2305.18290, TRL's DPOTrainer).

    result = train_dpo(config, manifest, run_dir, progress=Silent())

The reference is a frozen copy of the SFT adapter; its log-probabilities are computed once. The known danger is that the
likelihood of the better answer falls together with the worse one's while margins look fine, so the default loss adds an
SFT term (RPO, arXiv 2404.19733) and a guard watches the chosen answers: see `Guard`.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from train import cpu, memory, model, processes, template
from train.config import TrainConfig
from train.dataset import Manifest, read_pairs, read_rows, take
from train.errors import DataError
from train.metrics import Measure
from train.proof import prove, prove_training
from train.sft import build_arguments, context_of, finish, fit, known_options, minutes, save, scorer, steps_of, tell_halved
from train.template import Encoded, Source
from train.watch import History, Progress, Watch, write_json

# Mean log-probability per token of the chosen answers may fall this far below the reference's (nats): a fall to 82 %.
COLLAPSE = 0.2
# A rise of the mean entropy per token (nats): a student that was sure no longer knows what to write.
ENTROPY = 1.0
# Answers may become this many times longer or shorter: the known drift of DPO is towards length (arXiv 2403.19159).
LENGTH = 1.5
SLACK = 20  # characters beside that: an answer of one word is not judged by another word
ENOUGH = 20  # answers, for a mean length that says something
# The task's metric on validation rows may fall this far below SFT's before the best point is kept instead: some two standard errors of a
# paired difference on 300 rows. A tighter bound threw away runs that were no worse on test rows; the final table shows the cost with
# its interval.
TOLERANCE = 0.03


class Trainer(processes.InStep, memory.HalvesBatches, DPOTrainer):
    """TRL's trainer for pairs that arrive tokenised: it would tokenise again, and cut the stop token's surroundings."""

    sides = 2

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss; of a micro-batch that several processes share, the SFT term is the mean over the tokens of all of them."""
        if self.shared_by == 1 or "sft" not in self.loss_types:
            return super().compute_loss(model, inputs, *args, **kwargs)
        mask = inputs["completion_mask"]
        tokens = processes.gather(int(mask[: len(mask) // 2, 1:].sum()))
        group = processes.rank() // self.shared_by * self.shared_by
        share = tokens[processes.rank()] * self.shared_by / max(1, sum(tokens[group : group + self.shared_by]))
        weights = self.loss_weights
        self.loss_weights = [w * share if name == "sft" else w for name, w in zip(self.loss_types, weights, strict=True)]
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            self.loss_weights = weights


def train_dpo(config: TrainConfig, manifest: Manifest, run_dir: Path, *, progress: Progress) -> dict[str, Any]:
    """Train on preference pairs from run_dir/sft, leave the result in run_dir/dpo, and return the record for run.json.

    Raises ConfigError, DataError, ModelError or TemplateError before the first step.
    """
    started = time.monotonic()
    options = config.dpo_options
    known_options("train.dpo", options, DPOConfig)
    pairs = read_pairs(manifest.path("preference/train.parquet"))
    if not pairs:
        raise DataError(f"{manifest.directory / 'preference/train.parquet'}: has no pairs. Set train.dpo: null to skip DPO.")
    net, tokenizer = load_policy(config, run_dir)
    described = template.adapt(tokenizer, config.student)
    limit = min(config.max_length, context_of(net))
    chosen_sources = [Source(pair.id, pair.prompt, pair.chosen) for pair in pairs]
    rejected_sources = [Source(pair.id, pair.prompt, pair.rejected) for pair in pairs]
    chosen = template.encode(tokenizer, described, chosen_sources, limit)
    rejected = template.encode(tokenizer, described, rejected_sources, limit)
    stops = model.stop_ids(net)
    proof = prove(tokenizer, described, chosen_sources, chosen.rows, stops, seed=config.seed)
    prove(tokenizer, described, rejected_sources, rejected.rows, stops, seed=config.seed)
    rows, mismatched = align(chosen.rows, rejected.rows)
    dropped = {f"{side}: {reason}": ids for side, e in (("chosen", chosen), ("rejected", rejected)) for reason, ids in e.dropped.items()}
    if mismatched:
        dropped["chosen and rejected are the same"] = mismatched
    if not rows:
        raise DataError(f"{manifest.directory / 'preference/train.parquet'}: no pair can be used: {dropped}")
    share = model.share(net)
    folder = run_dir / "work" / "dpo"
    options = {**options, "precompute_ref_log_probs": True}
    arguments = build_arguments("train.dpo", DPOConfig, config, options, folder, len(rows), share.total)
    steps = steps_of(arguments, len(rows))
    tokens = sum(2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    # One more forward pass over all pairs gives the reference's log-probabilities.
    forecast = minutes(tokens * (arguments.num_train_epochs + 0.5), share, config.method)
    progress.plan(
        "Direct preference optimization",
        {
            "pairs": f"{len(rows):,} ({len(pairs) - len(rows):,} left out)",
            "loss": " + ".join(f"{w:g} {name}" for name, w in zip(arguments.loss_type, arguments.loss_weights or [1.0] * 9, strict=False)),
            "tokens per epoch": f"{tokens:,}",
            "steps": f"{steps:,}, {arguments.num_train_epochs:g} epochs, beta {arguments.beta:g}",
            "forecast": f"about {forecast:.1f} min, evaluation apart",
        },
    )
    validation = []
    if manifest.count("sft/validation.parquet"):
        validation = take(read_rows(manifest.path("sft/validation.parquet")), config.evaluation.validation_rows, config.seed)
    history = History(run_dir / "metrics.jsonl")
    guard = Guard(arguments.beta, sum(len(row["chosen_ids"]) for row in rows) / len(rows))
    score = scorer(net, tokenizer, validation, manifest.task, config, guard.see)
    start = sft_score(history, score, guard)
    cpu.speed_up(net, [row["prompt_ids"] + row["chosen_ids"] for row in rows], checkpointing=arguments.gradient_checkpointing)
    trainer = Trainer(model=net, args=arguments, train_dataset=as_dataset(rows, folder), processing_class=tokenizer)
    trainer.shared_by = options["per_device_train_batch_size"] // arguments.per_device_train_batch_size
    trainer.halved = tell_halved(progress)
    batches = prove_training(trainer, [*chosen.rows, *rejected.rows], described)
    if processes.first():
        write_json(run_dir / "template_proof.json", {**_read_proof(run_dir), "preference": {**proof, "batches": batches}})
    watch = Watch(
        "dpo",
        folder,
        history,
        progress,
        points=max(1, config.evaluation.points // 2),
        tokens_per_epoch=tokens,
        score=score,
        keep=lambda path: save(net, path),
        stop=guard,
    )
    seconds = fit(trainer, watch, folder)
    kept, why = choose(start, watch)
    if kept == "last":
        save(net, folder / "chosen")
    elif processes.first():
        shutil.copytree(folder / "best" if kept == "best" else run_dir / "sft", folder / "chosen", dirs_exist_ok=True)
    if why:
        progress.note(why)
    finish(folder / "chosen", run_dir / "dpo", tokenizer)
    return {
        "pairs": len(rows),
        "pairs_dropped": len(pairs) - len(rows),
        "dropped": dropped,
        "steps": trainer.state.global_step,
        "tokens_per_second": watch.speed(seconds),
        "memory": memory.peak(trainer),
        "kept": kept,
        "guard": why,
        "sft_score": start.value if start else None,
        "last_score": watch.last.value if watch.last else None,
        "best": watch.best._asdict() if watch.best else None,
        "train_seconds": round(seconds, 1),
        "seconds": round(time.monotonic() - started, 1),
    }


def load_policy(config: TrainConfig, run_dir: Path) -> model.Student:
    """Load what SFT left, trainable: the adapter on its base, or the whole model."""
    if config.method == "full":
        return model.load_student(str(run_dir / "sft"), config)
    net, tokenizer = model.load_student(config.student, config, adapter=run_dir / "sft")
    for name, parameter in net.named_parameters():
        parameter.requires_grad_("lora_" in name)
    net.peft_config["default"].inference_mode = False
    net.peft_config["default"].base_model_name_or_path = config.student
    return model.Student(net, tokenizer)


def as_dataset(rows: list[dict[str, Any]], folder: Path) -> Dataset:
    """The rows as the trainer's data set: on disk where several processes share the reference's log-probabilities."""
    data = Dataset.from_list(rows)
    if processes.count() == 1:
        return data
    if processes.first():
        data.save_to_disk(str(folder / "pairs"))
    processes.wait()
    return Dataset.load_from_disk(str(folder / "pairs"))


def align(chosen: list[Encoded], rejected: list[Encoded]) -> tuple[list[dict[str, Any]], list[str]]:
    """Join both sides of each pair by id into TRL's columns; name the pairs whose sides are the same."""
    worse = {row.id: row for row in rejected}
    rows, same = [], []
    for better in chosen:
        other = worse.get(better.id)
        if other is None:
            continue
        if other.ids == better.ids:
            same.append(better.id)
            continue
        rows.append(
            {
                "prompt_ids": better.ids[: better.prompt_length],
                "chosen_ids": better.ids[better.prompt_length :],
                "rejected_ids": other.ids[other.prompt_length :],
            }
        )
    return rows, same


class Guard:
    """Says that DPO breaks the student: by the likelihood of the chosen answers, the entropy, and the length of what it writes.

    beta and the mean number of tokens of a chosen answer turn its reward, beta * (log p - log p of the reference), into nats per
    token. Entropy is compared with the first three log lines, lengths with the answers of the SFT student on the same rows.
    """

    def __init__(self, beta: float, length: float) -> None:
        self._beta, self._length = beta, length
        self._entropies: list[float] = []
        self.before: float | None = None
        self._now: float | None = None

    def see(self, answers: Sequence[str]) -> None:
        """Take the answers of a scoring; those of the SFT student come first, or `before` was set from an interrupted run."""
        mean = sum(map(len, answers)) / len(answers)
        if len(answers) < ENOUGH:
            return
        if self.before is None:
            self.before = mean
        else:
            self._now = mean

    def __call__(self, numbers: Mapping[str, float]) -> str | None:
        """Look at a log line, or with an empty one at the answers seen last; the reason to stop, or None."""
        fall = -numbers.get("chosen_reward", 0.0) / self._beta / self._length
        if fall > COLLAPSE:
            return f"chosen answers lost {fall:.2f} nats per token against the SFT student (bound {COLLAPSE}): stopped"
        if "entropy" in numbers:
            self._entropies.append(numbers["entropy"])
            start = self._entropies[:3]
            rise = numbers["entropy"] - sum(start) / len(start)
            if rise > ENTROPY:
                return f"entropy rose by {rise:.2f} nats per token (bound {ENTROPY:g}): stopped"
        if self.before is not None and self._now is not None:
            ratio = (self._now + SLACK) / (self.before + SLACK)
            if not 1 / LENGTH <= ratio <= LENGTH:
                return f"answers became {ratio:.2f} times as long as the SFT student's (bound {LENGTH:g}): stopped"
        return None


def choose(start: Measure | None, watch: Watch) -> tuple[str, str | None]:
    """Return which weights to keep, "last", "best" or "sft", and why if not the last.

    DPO is meant to change behaviour that the task's metric may not see, so the last weights are kept unless likelihood
    collapsed or the metric fell by more than TOLERANCE; then the best point counts, the SFT student among them.
    """
    reason = watch.stopped
    if start is None or watch.last is None:
        return ("sft", f"{reason}; kept the SFT weights") if reason else ("last", None)
    fell = start.value - watch.last.value
    if not reason and fell <= TOLERANCE:
        return "last", None
    reason = reason or f"{watch.last.metric} fell by {100 * fell:.1f} points below SFT's"
    if watch.best is None or watch.best.value < start.value:
        return "sft", f"{reason}; kept the SFT weights ({start.metric} {start.value:.3f})"
    return "best", f"{reason}; kept step {watch.best.step} ({start.metric} {watch.best.value:.3f})"


def sft_score(history: History, score: Any, guard: Guard) -> Measure | None:
    """Measure the student before DPO, on the same rows; kept in the history as step 0 for a resumed run."""
    if score is None:
        return None
    for line in history.lines:
        if line["stage"] == "dpo" and line["step"] == 0:
            guard.before = line.get("characters")
            return Measure(line["metric"], line["value"], line["low"], line["high"], line["n"])
    measure: Measure = score()
    history.add("dpo", 0, 0, **measure._asdict(), **({} if guard.before is None else {"characters": guard.before}))
    return measure


def _read_proof(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "template_proof.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
