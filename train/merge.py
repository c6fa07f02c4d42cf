"""Merge an adapter into its base in full precision: a plain model folder that anything can load.

    result = merge_run(config, manifest, run_dir)

Never into 4-bit weights: rounding there costs quality, so for QLoRA the base is loaded again unquantised. The adapter was trained
beside rounded weights, though, so it is also merged into the base with the values that the 4-bit weights stand for, and the one that
answers the validation rows better is kept. Tokenizer, chat template and generation config, with the stop token that training used,
travel along, and `retort.json` says what the folder is and which system message it was trained with.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from train import model, template
from train.config import TrainConfig
from train.dataset import Manifest, Message, Row, read_rows
from train.errors import ModelError
from train.evaluate import generate, read_answers, sample
from train.metrics import Answer, primary_metric, score
from train.watch import write_json

# Largest difference of a logit between adapter and merged weights, as a part of the largest logit. The sums are the same
# in another order, so it is rounding: 24 bits of precision in float32, 8 in bf16.
RELATIVE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
PROBES = 8
Base = Literal["full", "dequantized"]
BASES: tuple[Base, Base] = ("full", "dequantized")
DIVERGENCE_ROWS = 64


def merge_run(config: TrainConfig, manifest: Manifest, run_dir: Path) -> dict[str, Any]:
    """Merge run_dir/dpo (or kto, or sft, whichever came last) into run_dir/merged and check it; return the record.

    Raises ModelError when there is nothing to merge or the merged model answers differently.
    """
    started = time.monotonic()
    source = trained(run_dir)
    if source is None:
        raise ModelError(f"{run_dir}: has neither dpo/, kto/ nor sft/ to merge. Train first: `python -m train run`.")
    prompts = probes(manifest)
    trial: dict[str, Any] = {}
    if (source / "adapter_config.json").is_file():
        if config.method == "qlora":
            trial = try_bases(config, manifest, source, prompts)
        net, tokenizer, drift = merge_into(trial.get("chosen", "full"), config, source, prompts)
    else:
        net, tokenizer = model.load_student(str(source), config, quantize=False)
        drift = compare(*[logits(net, tokenizer, prompts)] * 2)
    fresh = run_dir / "merged.new"
    shutil.rmtree(fresh, ignore_errors=True)
    net.save_pretrained(str(fresh))
    tokenizer.save_pretrained(str(fresh))
    template.seal(tokenizer, fresh)
    write_json(fresh / "retort.json", card(config, manifest, source.name, tokenizer))
    shutil.rmtree(run_dir / "merged", ignore_errors=True)
    fresh.rename(run_dir / "merged")
    return {
        "from": source.name,
        "dtype": str(net.dtype).removeprefix("torch."),
        "max_logit_difference": drift["absolute"],
        "relative_logit_difference": drift["relative"],
        "tolerance": RELATIVE[net.dtype],
        **({"bases": trial} if trial else {}),
        "seconds": round(time.monotonic() - started, 1),
    }


def trained(run_dir: Path) -> Path | None:
    """The folder that the last stage of training left; None in a run without any."""
    return next((run_dir / stage for stage in ("dpo", "kto", "sft") if (run_dir / stage).is_dir()), None)


class Merged(NamedTuple):
    """Merged weights, and how far they answer from the adapter beside the same base."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    drift: dict[str, float]


def merge_into(base: Base, config: TrainConfig, source: Path, prompts: list[list[Message]]) -> Merged:
    """Merge an adapter into its base as it is ("full"), or as its 4-bit weights stand for it ("dequantized"). Raises ModelError when
    the merged weights answer differently from the adapter beside that base."""
    net, tokenizer = model.load_student(config.student, config, adapter=source, quantize=False)
    if base == "dequantized":
        model.dequantize_into(net.get_base_model(), model.load_student(config.student, config, quantize=True).model)
    before = logits(net, tokenizer, prompts)
    net = net.merge_and_unload(safe_merge=True)
    drift = compare(before, logits(net, tokenizer, prompts))
    if drift["relative"] > RELATIVE[net.dtype]:
        raise ModelError(
            f"{source}: merged weights answer differently from the adapter: relative logit difference "
            f"{drift['relative']:.2g} is above {RELATIVE[net.dtype]:g}. Serve the adapter unmerged, and report this."
        )
    return Merged(net, tokenizer, drift)


def try_bases(config: TrainConfig, manifest: Manifest, source: Path, prompts: list[list[Message]]) -> dict[str, Any]:
    """Merge a QLoRA adapter into both bases and choose by the task's metric on the validation rows, paired; where that shows no
    difference, by the smaller divergence from the adapter as it was trained."""
    name = "sft/validation.parquet" if manifest.count("sft/validation.parquet") else "sft/train.parquet"
    rows = sample(read_rows(manifest.path(name)), config.evaluation.validation_rows, config.seed)
    trained = model.load_student(config.student, config, adapter=source, quantize=True)
    right = answer_logprobs(trained.model, trained.tokenizer, rows[:DIVERGENCE_ROWS], config)
    answers: dict[str, list[Answer]] = {}
    divergence: dict[str, float] = {}
    for base in BASES:
        net, tokenizer, _ = merge_into(base, config, source, prompts)
        texts = generate(
            net,
            tokenizer,
            [row.prompt for row in rows],
            max_new_tokens=config.evaluation.max_new_tokens,
            batch_size=config.evaluation.batch_size,
        )
        answers[base] = read_answers(rows, texts, manifest.task)
        found = answer_logprobs(net, tokenizer, rows[:DIVERGENCE_ROWS], config)
        divergence[base] = mean_divergence(right, found)
    metric = primary_metric(manifest.task)
    scores = score(answers, [metric], [BASES], seed=config.seed)
    compared = scores.comparisons[0] if scores.comparisons else None
    chosen: Base = min(BASES, key=lambda base: divergence[base])
    why = "smaller divergence from the adapter, as the task's metric shows no difference"
    if compared is not None and (compared.low > 0 or compared.high < 0):
        chosen, why = "dequantized" if compared.low > 0 else "full", f"better {metric} on the validation rows"
    return {
        "chosen": chosen,
        "why": why,
        "rows": len(rows),
        "set": name,
        "metric": metric,
        "values": {base: measures[0].value for base, measures in scores.measures.items() if measures},
        "difference": compared._asdict() if compared else None,
        "divergence": divergence,
    }


@torch.inference_mode()
def answer_logprobs(net: Any, tokenizer: PreTrainedTokenizerBase, rows: list[Row], config: TrainConfig) -> list[torch.Tensor]:
    """Log-probabilities (tokens, vocabulary) at the tokens of each row's own answer, float32."""
    sources = [template.Source(row.id, row.prompt, row.completion or "") for row in rows]
    encoding = template.encode(tokenizer, template.adapt(tokenizer, config.student), sources, config.max_length)
    net.eval()
    found = []
    for row in encoding.rows:
        logits = net(input_ids=torch.tensor([row.ids], device=net.device)).logits[0, row.prompt_length - 1 : -1]
        found.append(logits.float().log_softmax(-1).cpu())
    return found


def mean_divergence(right: list[torch.Tensor], found: list[torch.Tensor]) -> float:
    """Kullback-Leibler divergence of `found` from `right` in nats, mean over all tokens; 0 without any."""
    each = [(a.exp() * (a - b)).sum(-1) for a, b in zip(right, found, strict=True)]
    return float(torch.cat(each).mean()) if each else 0.0


def card(config: TrainConfig, manifest: Manifest, stage: str, tokenizer: Any) -> dict[str, Any]:
    """What a served model must know of its training, for retort.json."""
    described = template.adapt(tokenizer, config.student)
    return {
        "name": config.name,
        "base": config.student,
        "stage": stage,
        "system": manifest.task.system,
        "manifest_sha256": manifest.sha256,
        "teachers": manifest.teachers,
        "template": described.source,
        "template_sha256": described.sha256,
        "stop": described.stop,
        "max_new_tokens": config.evaluation.max_new_tokens,
    }


def read_card(folder: Path) -> dict[str, Any]:
    """Return a model folder's retort.json; empty where it has none."""
    path = folder / "retort.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def probes(manifest: Manifest) -> list[list[Message]]:
    """A few prompts of the data itself: weights that agree there agree where it matters."""
    name = "sft/test.parquet" if manifest.count("sft/test.parquet") else "sft/train.parquet"
    return [row.prompt for row in read_rows(manifest.path(name))[:PROBES]]


@torch.inference_mode()
def logits(net: Any, tokenizer: Any, prompts: list[list[Message]]) -> list[torch.Tensor]:
    """Return float32 logits (tokens, vocabulary) of each prompt."""
    net.eval()
    found = []
    for prompt in prompts:
        text = template.render(tokenizer, prompt, generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids.to(net.device)
        found.append(net(input_ids=ids).logits[0].float().cpu())
    return found


def compare(a: list[torch.Tensor], b: list[torch.Tensor]) -> dict[str, float]:
    """Return the largest absolute difference, and its ratio to the largest logit."""
    absolute = max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))
    return {"absolute": absolute, "relative": absolute / max(float(x.abs().max()) for x in a)}
