"""Merge an adapter into its base in full precision: a plain model folder that anything can load.

    result = merge_run(config, manifest, run_dir)

Never into 4-bit weights: rounding there costs quality, so for QLoRA the base is loaded again unquantised. Tokenizer,
chat template and generation config, with the stop token that training used, travel along, and `retort.json` says what
the folder is and which system message it was trained with.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from train import model, template
from train.config import TrainConfig
from train.dataset import Manifest, Message, read_rows
from train.errors import ModelError
from train.watch import write_json

# Largest difference of a logit between adapter and merged weights, as a part of the largest logit. The sums are the same
# in another order, so it is rounding: 24 bits of precision in float32, 8 in bf16.
RELATIVE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
PROBES = 8


def merge_run(config: TrainConfig, manifest: Manifest, run_dir: Path) -> dict[str, Any]:
    """Merge run_dir/dpo (or kto, or sft, whichever came last) into run_dir/merged and check it; return the record.

    Raises ModelError when there is nothing to merge or the merged model answers differently.
    """
    started = time.monotonic()
    stage = next((s for s in ("dpo", "kto", "sft") if (run_dir / s).is_dir()), None)
    if stage is None:
        raise ModelError(f"{run_dir}: has neither dpo/, kto/ nor sft/ to merge. Train first: `python -m train run`.")
    source = run_dir / stage
    if (source / "adapter_config.json").is_file():
        net, tokenizer = model.load_student(config.student, config, adapter=source, quantize=False)
    else:
        net, tokenizer = model.load_student(str(source), config, quantize=False)
    prompts = probes(manifest)
    before = logits(net, tokenizer, prompts)
    if isinstance(net, PeftModel):
        net = net.merge_and_unload(safe_merge=True)
    drift = compare(before, logits(net, tokenizer, prompts))
    if drift["relative"] > RELATIVE[net.dtype]:
        raise ModelError(
            f"{source}: merged weights answer differently from the adapter: relative logit difference "
            f"{drift['relative']:.2g} is above {RELATIVE[net.dtype]:g}. Serve the adapter unmerged, and report this."
        )
    fresh = run_dir / "merged.new"
    shutil.rmtree(fresh, ignore_errors=True)
    net.save_pretrained(str(fresh))
    tokenizer.save_pretrained(str(fresh))
    template.seal(tokenizer, fresh)
    write_json(fresh / "retort.json", card(config, manifest, stage, tokenizer))
    shutil.rmtree(run_dir / "merged", ignore_errors=True)
    fresh.rename(run_dir / "merged")
    return {
        "from": stage,
        "dtype": str(net.dtype).removeprefix("torch."),
        "max_logit_difference": drift["absolute"],
        "relative_logit_difference": drift["relative"],
        "tolerance": RELATIVE[net.dtype],
        "seconds": round(time.monotonic() - started, 1),
    }


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
