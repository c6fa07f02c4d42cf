"""Kahneman-Tversky optimization on the SFT adapter, where answers were accepted or rejected but never paired (arXiv 2402.01306).

    result = train_kto(config, manifest, run_dir, progress=Silent())

DPO and ORPO need a better and a worse answer to one prompt. KTO needs only a verdict on each answer: it raises what was accepted and
lowers what was rejected, measured from a reference point, the mean shift of the student on answers to other prompts of the batch. The
reference is a frozen copy of the SFT adapter, its log-probabilities are computed once, and the guard of DPO watches the accepted answers.
"""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from trl import KTOConfig, KTOTrainer

from train import cpu, memory, model, processes, template
from train.config import TrainConfig
from train.dataset import JUDGED, Judged, Manifest, read_judged
from train.errors import ConfigError, DataError
from train.memory import Batch
from train.preference import FindsNaN, add_proof, load_policy, train_guarded
from train.proof import prove, prove_training
from train.sft import build_arguments, context_of, known_options, minutes, steps_of, tell_halved
from train.template import Encoded, Source
from train.watch import Progress

# Accepted answers for each rejected one: they were learned in SFT already, and most batches should hold one of either kind.
ACCEPTED = 4


class Balance(NamedTuple):
    """Weights of accepted and of rejected answers in the loss."""

    desirable: float
    undesirable: float


class Trainer(FindsNaN, memory.HalvesBatches, KTOTrainer):
    """TRL's trainer for answers that arrive tokenised. Where a micro-batch goes in parts, its reference point stays that of the whole."""

    _shift: torch.Tensor | None = None

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _in_parts(self, model: Any, batch: Batch, items: Any) -> torch.Tensor:
        if self.parts > 1 and self.calculate_KL:
            batch = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                parts = [part.batch for part in memory.split(batch, self.parts)]
                shifts = [self._compute_kl_logps(model, part) - part["ref_KL_logps"] for part in parts]
            self._shift = torch.cat(shifts).mean()
        try:
            return super()._in_parts(model, batch, items)
        finally:
            self._shift = None

    def _compute_kl_logps(self, model: Any, batch: Batch) -> Any:
        return super()._compute_kl_logps(model, batch) if self._shift is None else batch["ref_KL_logps"] + self._shift


def train_kto(config: TrainConfig, manifest: Manifest, run_dir: Path, *, progress: Progress) -> dict[str, Any]:
    """Train on accepted and rejected answers from run_dir/sft, leave the result in run_dir/kto, and return the record for run.json.

    Raises ConfigError, DataError, ModelError or TemplateError before the first step.
    """
    started = time.monotonic()
    if processes.count() > 1:
        raise ConfigError("KTO lays its batches out for one process. Run again without --processes; the stages that are done stay done.")
    options = config.kto_options
    known_options("train.kto", options, KTOConfig)
    if options.get("train_sampling_strategy", "sequential") != "sequential":
        raise ConfigError("train.kto.train_sampling_strategy is set by the run: batches are laid out before the first step. Remove it.")
    path = manifest.path(JUDGED)
    all_of = read_judged(path)
    judged = draw(all_of, config.seed)
    net, tokenizer = load_policy(config, run_dir)
    described = template.adapt(tokenizer, config.student)
    sources = [Source(row.id, row.prompt, row.completion) for row in judged]
    encoding = template.encode(tokenizer, described, sources, min(config.max_length, context_of(net)))
    proof = prove(tokenizer, described, sources, encoding.rows, model.stop_ids(net), seed=config.seed)
    options = {**options, "precompute_ref_log_probs": True}
    share = model.share(net)
    arguments = build_arguments("train.kto", KTOConfig, config, options, run_dir / "work" / "kto", len(encoding.rows), share.total)
    per_batch = int(arguments.per_device_train_batch_size)
    if per_batch < 2:
        raise ConfigError("train.kto.per_device_train_batch_size is 1; the reference point needs answers to other prompts. Set 2 or more.")
    accepted = {row.id: row.accepted for row in judged}
    rows = lay_out(encoding.rows, accepted, per_batch, config.seed)
    rejected = sum(not row["label"] for row in rows)
    if not rejected or rejected == len(rows):
        raise DataError(
            f"{path}: {len(rows) - rejected} accepted and {rejected} rejected answers can be used; KTO needs both: {encoding.dropped}"
        )
    weights = balance(len(rows) - rejected, rejected)
    if not {"desirable_weight", "undesirable_weight"} & options.keys():
        arguments.desirable_weight, arguments.undesirable_weight = weights
    steps = steps_of(arguments, len(rows))
    tokens = sum(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows)
    # The reference point is a forward pass over as many tokens again, and the reference's own log-probabilities two more.
    forecast = minutes(tokens * (arguments.num_train_epochs * 1.33 + 0.67), share, config.method)
    progress.plan(
        "Kahneman-Tversky optimization",
        {
            "answers": f"{len(rows) - rejected:,} accepted (weight {arguments.desirable_weight:g}), {rejected:,} rejected "
            f"(weight {arguments.undesirable_weight:g}); {len(all_of) - len(rows):,} left out",
            "tokens per epoch": f"{tokens:,}",
            "steps": f"{steps:,}, {arguments.num_train_epochs:g} epochs, loss {arguments.loss_type}, beta {arguments.beta:g}",
            "forecast": f"about {forecast:.1f} min, evaluation apart",
        },
    )
    cpu.speed_up(net, [row["prompt_ids"] + row["completion_ids"] for row in rows], checkpointing=arguments.gradient_checkpointing)
    trainer = Trainer(model=net, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.halved = tell_halved(progress)
    trainer.rows = encoding.rows
    batches = prove_training(trainer, encoding.rows, described)
    add_proof(run_dir, "judged", {**proof, "batches": batches})
    length = sum(len(row["completion_ids"]) for row in rows if row["label"]) / (len(rows) - rejected)
    found = train_guarded("kto", trainer, config, manifest, run_dir, length=length, tokens=tokens, progress=progress)
    return {
        "accepted": len(rows) - rejected,
        "rejected": rejected,
        "desirable_weight": arguments.desirable_weight,
        "undesirable_weight": arguments.undesirable_weight,
        "dropped": encoding.dropped,
        **found,
        "seconds": round(time.monotonic() - started, 1),
    }


def draw(judged: Sequence[Judged], seed: int) -> list[Judged]:
    """All rejected answers, and at most ACCEPTED times as many accepted ones, drawn by the seed."""
    rejected = [row for row in judged if not row.accepted]
    accepted = sorted((row for row in judged if row.accepted), key=lambda row: row.id)
    drawn = random.Random(seed).sample(accepted, min(len(accepted), ACCEPTED * len(rejected)))
    return sorted([*rejected, *drawn], key=lambda row: row.id)


def balance(accepted: int, rejected: int) -> Balance:
    """Weights at which both sides count alike in the whole: the rarer one is raised (equation 8 of the paper, its lower bound)."""
    most = max(accepted, rejected)
    return Balance(round(most / accepted, 3), round(most / rejected, 3))


def lay_out(rows: Sequence[Encoded], accepted: dict[str, bool], per_batch: int, seed: int) -> list[dict[str, Any]]:
    """The rows in TRL's columns and in the order in which they are trained, rejected ones spread evenly among accepted ones.

    The reference point needs answers to other prompts: within each batch every prompt gets its neighbour's answer. So a batch is fixed
    here, the sampler is sequential, and a last batch of one row, which has no neighbour, is joined to nothing and left out.
    """
    sides = {side: [row for row in rows if accepted[row.id] == side] for side in (True, False)}
    places = []
    for side, found in sides.items():
        mixed = random.Random(seed).sample(found, len(found))
        places += [((number + 0.5) / len(mixed), side, row) for number, row in enumerate(mixed)]
    ordered = [(side, row) for _, side, row in sorted(places, key=lambda place: (place[0], place[2].id))]
    if len(ordered) % per_batch == 1:
        ordered.pop()
    laid = []
    for start in range(0, len(ordered), per_batch):
        batch = ordered[start : start + per_batch]
        answers = [row.ids[row.prompt_length :] for _, row in batch]
        for (side, row), own, other in zip(batch, answers, [answers[-1], *answers[:-1]], strict=True):
            laid.append({"prompt_ids": row.ids[: row.prompt_length], "completion_ids": own, "KL_completion_ids": other, "label": side})
    return laid
