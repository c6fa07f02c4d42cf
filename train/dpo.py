"""Direct preference optimization on the SFT adapter (arXiv 2305.18290, TRL's DPOTrainer).

    result = train_dpo(config, manifest, run_dir, progress=Silent())

The reference is a frozen copy of the SFT adapter; its log-probabilities are computed once. The known danger is that the
likelihood of the better answer falls together with the worse one's while margins look fine, so the default loss adds an
SFT term (RPO, arXiv 2404.19733) and a guard watches the chosen answers: see `train/preference.py`.
"""

import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from train import cpu, memory, model, processes, template
from train.config import TrainConfig
from train.dataset import Manifest, read_pairs
from train.errors import DataError
from train.preference import FindsNaN, add_proof, load_policy, train_guarded
from train.proof import prove, prove_training
from train.sft import build_arguments, context_of, known_options, minutes, steps_of, tell_halved
from train.template import Encoded, Source
from train.watch import Progress


class Trainer(FindsNaN, processes.InStep, memory.HalvesBatches, DPOTrainer):
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
    cpu.speed_up(net, [row["prompt_ids"] + row["chosen_ids"] for row in rows], checkpointing=arguments.gradient_checkpointing)
    trainer = Trainer(model=net, args=arguments, train_dataset=as_dataset(rows, folder), processing_class=tokenizer)
    trainer.shared_by = options["per_device_train_batch_size"] // arguments.per_device_train_batch_size
    trainer.halved = tell_halved(progress)
    trainer.rows = [*chosen.rows, *rejected.rows]
    batches = prove_training(trainer, trainer.rows, described)
    add_proof(run_dir, "preference", {**proof, "batches": batches})
    length = sum(len(row["chosen_ids"]) for row in rows) / len(rows)
    found = train_guarded("dpo", trainer, config, manifest, run_dir, length=length, tokens=tokens, progress=progress)
    return {
        "pairs": len(rows),
        "pairs_dropped": len(pairs) - len(rows),
        "dropped": dropped,
        **found,
        "seconds": round(time.monotonic() - started, 1),
    }


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
