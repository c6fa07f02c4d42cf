"""The merged model in smaller forms: GGUF (f16, q8_0, q4_k_m, and the LoRA adapter), AWQ and GPTQ with 4 bits.

    record = quantize_run(config, manifest, run_dir, progress=Silent())

Each form is made from merged/ and lies in quantized/<form>/ with an artifact.json that says how it was made. What is rounded is
rounded where the domain's own rows feel it least: they are rendered by the template as in training, and come from the training
split, never from rows that are scored. AWQ and GPTQ are file layouts here; the numbers in both are auto-round's (arXiv 2309.05516).
"""

import gc
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch

from train import gguf_file, model, template
from train.artifacts import GGUF_NAME
from train.config import FORMATS, TrainConfig, near
from train.dataset import Manifest, Row, read_rows
from train.errors import ConfigError, ModelError
from train.merge import trained
from train.sums import FACTS, QUANTIZED, changed, file_sha256, read_facts
from train.watch import Progress, write_json

LORA_GGUF = "gguf-lora"
GROUPS = (128, 64, 32)
BLOCK = 512  # tokens of a sequence on which 4-bit weights are fitted, at most
# What a form takes at most, as a part of the merged folder in the width that it has.
SHARE = {"gguf-f16": 1.0, "gguf-q8_0": 0.6, "gguf-q4_k_m": 0.5, LORA_GGUF: 0.2, "awq": 0.7, "gptq": 0.7}


class Material(NamedTuple):
    """What forms are made with: the merged folder, rendered prompts, and training rows as token ids."""

    merged: Path
    prompts: list[str]
    rows: list[list[int]]


def quantize_run(config: TrainConfig, manifest: Manifest, run_dir: Path, *, progress: Progress) -> dict[str, Any]:
    """Make the forms that `train.quantize` asks for and the run does not have; return the record of all of them.

    A form that cannot be made of this student is an error where the recipe names it, and else a skip with its reason.
    Raises ModelError without a merged model, ConfigError for too little disk.
    """
    asked = config.quantize
    if asked is None or asked.formats == []:
        return {"skipped": "train.quantize asks for no format"}
    merged = run_dir / "merged"
    if not (merged / "config.json").is_file():
        raise ModelError(f"{merged}: no merged model is here to quantize. Merge first: `python -m train merge --model {run_dir}`.")
    source = fingerprint(merged)
    record: dict[str, Any] = {"merged_sha256": source, "formats": {}}
    missing = []
    for name in asked.formats or FORMATS:
        facts = read_facts(run_dir / QUANTIZED / name)
        if facts.get("merged_sha256") == source and not changed(run_dir / QUANTIZED / name, facts):
            record["formats"][name] = facts
        else:
            missing.append(name)
    check_disk(run_dir, merged, missing)
    material = gather(config, manifest, merged) if missing else None
    for name in missing:
        progress.start(f"quantize {name}", 1)
        try:
            record["formats"][name] = make(name, config, material, run_dir, source)
        except ModelError as error:
            if asked.formats is not None:
                raise
            progress.note(f"{name} skipped: {error}")
            record["formats"][name] = {"skipped": str(error)}
        progress.advance(1)
    for name in FORMATS:
        facts = read_facts(run_dir / QUANTIZED / name)
        if facts.get("merged_sha256") == source:
            record["formats"].setdefault(name, facts)
        elif facts:
            progress.note(f"{name} was made of another merged model. Make it again: `python -m train quantize --format {name}`.")
    return record


def make(name: str, config: TrainConfig, material: Material | None, run_dir: Path, source: str) -> dict[str, Any]:
    """Make one form in a fresh folder, then move it where it belongs; return its facts. Raises ModelError for an unknown name."""
    if name not in MAKERS:
        raise ModelError(f"{name}: no form has this name{near(name, list(MAKERS))}. Known: {', '.join(MAKERS)}.")
    assert material is not None
    started = time.process_time()
    target = run_dir / QUANTIZED / name
    fresh = target.with_name(name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        found = MAKERS[name](config, material, fresh)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    files = {path.name: file_sha256(path) for path in sorted(fresh.iterdir())}
    facts = {
        "name": name,
        "merged_sha256": source,
        "bytes": sum(path.stat().st_size for path in fresh.iterdir()),
        "sha256": files,
        **found,
        "versions": {library: metadata.version(library) for library in ("gguf", "auto-round", "transformers", "torch")},
        "cpu_seconds": round(time.process_time() - started, 1),
    }
    write_json(fresh / FACTS, facts)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return facts


def gather(config: TrainConfig, manifest: Manifest, merged: Path) -> Material:
    """Training rows, evenly over the split, as training saw them: rendered prompts and token ids."""
    assert config.quantize is not None
    rows = read_rows(manifest.path("sft/train.parquet")) if manifest.count("sft/train.parquet") else []
    if not rows:
        raise ModelError(f"{manifest.directory}: has no training rows to calibrate on. Export again with a train split.")
    chosen: list[Row] = rows[:: max(1, len(rows) // config.quantize.rows)][: config.quantize.rows]
    tokenizer = model.load_tokenizer(str(merged), trust_remote_code=config.trust_remote_code)
    sources = [template.Source(row.id, row.prompt, row.completion or "") for row in chosen]
    encoding = template.encode(tokenizer, template.adapt(tokenizer, str(merged)), sources, config.max_length)
    prompts = [template.render(tokenizer, row.prompt, generation_prompt=True) for row in chosen]
    return Material(merged, prompts, [encoded.ids for encoded in encoding.rows])


def importance(config: TrainConfig, material: Material) -> dict[str, torch.Tensor]:
    """Mean square of each linear layer's inputs on the rows, float32 (in), by the weight's name; llama.cpp calls it an imatrix."""
    student = model.load_student(str(material.merged), config, quantize=False)
    sums: dict[str, torch.Tensor] = {}
    seen: dict[str, int] = {}

    def listen(name: str) -> Callable[..., None]:
        def hook(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            flat = inputs[0].detach().float().reshape(-1, inputs[0].shape[-1])
            sums[name] = sums.get(name, torch.zeros(flat.shape[-1])) + flat.pow(2).sum(0).cpu()
            seen[name] = seen.get(name, 0) + flat.shape[0]

        return hook

    for name, module in student.model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(listen(f"{name}.weight"))
    with torch.inference_mode():
        for ids in material.rows:
            student.model(input_ids=torch.tensor([ids], device=student.model.device))
    return {name: total / seen[name] for name, total in sums.items()}


def _gguf(form: gguf_file.Form) -> Callable[[TrainConfig, Material, Path], dict[str, Any]]:
    def write(config: TrainConfig, material: Material, folder: Path) -> dict[str, Any]:
        weights = importance(config, material) if form == "q4_k_m" else None
        facts = gguf_file.write_model(material.merged, folder / GGUF_NAME, form, material.prompts, weights)
        return {**facts, "calibration_rows": len(material.rows) if weights else 0}

    return write


def _gguf_lora(config: TrainConfig, material: Material, folder: Path) -> dict[str, Any]:
    run_dir = material.merged.parent
    adapter = trained(run_dir)
    if adapter is None or not (adapter / "adapter_config.json").is_file():
        raise ModelError(f"{run_dir}: has no LoRA adapter, as all weights were trained. Take {LORA_GGUF} out of train.quantize.formats.")
    return {**gguf_file.write_adapter(adapter, material.merged, folder / "adapter.gguf"), "base": config.student}


def _four_bits(kind: str) -> Callable[[TrainConfig, Material, Path], dict[str, Any]]:
    def write(config: TrainConfig, material: Material, folder: Path) -> dict[str, Any]:
        return _round(kind, config, material, folder)

    return write


def _round(kind: str, config: TrainConfig, material: Material, folder: Path) -> dict[str, Any]:
    """4-bit weights by auto-round, symmetric around zero in both layouts, as only there it weighs by the inputs without a search."""
    assert config.quantize is not None
    try:
        from auto_round import AutoRound
    except ImportError as error:
        raise ModelError("AWQ and GPTQ need auto-round, which is not installed: `make setup-train`, or pip install auto-round.") from error
    student = model.load_student(str(material.merged), config, quantize=False)
    group = group_size(student.model)
    stream = [number for row in material.rows for number in row]
    length = min(BLOCK, config.max_length, len(stream))
    blocks = torch.tensor(stream[: len(stream) // length * length]).reshape(-1, length)
    loader: Any = torch.utils.data.DataLoader(
        [{"input_ids": block, "attention_mask": torch.ones_like(block)} for block in blocks],  # type: ignore[arg-type]
        batch_size=min(8, len(blocks)),
    )
    logging.getLogger("autoround").setLevel(logging.ERROR)
    threads, said = torch.get_num_threads(), StringIO()
    with redirect_stderr(said), redirect_stdout(said), _little_garbage():
        AutoRound(
            student.model,
            student.tokenizer,
            scheme="W4A16",
            group_size=group,
            sym=True,
            iters=config.quantize.iterations,
            dataset=loader,
            nsamples=len(blocks),
            seqlen=length,
            batch_size=min(8, len(blocks)),
            device_map=str(model.device()),
            seed=config.seed,
        ).quantize_and_save(str(folder / "made"), format=f"auto_{kind}")
    torch.set_num_threads(threads)
    made = next(path.parent for path in sorted((folder / "made").rglob("config.json")))
    for path in [*made.glob("*.safetensors*"), made / "config.json", made / "quantization_config.json"]:
        path.rename(folder / path.name)
    shutil.rmtree(folder / "made")
    for path in sorted(material.merged.iterdir()):  # tokenizer, template and its seal, generation config with the stop ids, retort.json
        if path.suffix != ".safetensors" and not path.name.endswith(".index.json") and path.name != "config.json":
            shutil.copyfile(path, folder / path.name)
    quantization = _declare(folder, kind)
    kept = quantization.get("modules_to_not_convert") or [re_text.strip("-:.*") for re_text in quantization.get("dynamic", {})]
    return {
        "bits": 4,
        "group_size": group,
        "iterations": config.quantize.iterations,
        "calibration_tokens": int(blocks.numel()),
        "not_quantized": sorted(name.replace("\\", "") for name in kept if name != "lm_head"),
    }


def _declare(folder: Path, kind: str) -> dict[str, Any]:
    """Return the folder's quantization settings; AWQ's zero points are in the file, and its fast kernels want that said."""
    path = folder / "quantization_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if kind == "awq":
        settings["zero_point"] = True
        write_json(path, settings)
        whole = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        write_json(folder / "config.json", {**whole, "quantization_config": settings})
    return settings


@contextmanager
def _little_garbage() -> Iterator[None]:
    """auto-round collects garbage after each layer; looking through all that torch imported is then two thirds of a small model's time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


MAKERS: dict[str, Callable[[TrainConfig, Material, Path], dict[str, Any]]] = {
    "gguf-f16": _gguf("f16"),
    "gguf-q8_0": _gguf("q8_0"),
    "gguf-q4_k_m": _gguf("q4_k_m"),
    LORA_GGUF: _gguf_lora,
    "awq": _four_bits("awq"),
    "gptq": _four_bits("gptq"),
}


def group_size(net: Any) -> int:
    """The largest usual group of weights with one scale that divides every linear layer's inputs. Raises ModelError for none."""
    widths = {module.in_features for name, module in net.named_modules() if isinstance(module, torch.nn.Linear) and name != "lm_head"}
    for group in GROUPS:
        if all(width % group == 0 for width in widths):
            return group
    raise ModelError(f"layers of {min(widths)} inputs and the like cannot be cut into groups of 32. Take awq and gptq out of the formats.")


def described(run_dir: Path) -> str:
    """The forms of a run in words, a line each, and what to do next."""
    lines = []
    for folder in sorted((run_dir / QUANTIZED).iterdir()):
        if facts := read_facts(folder):
            lines.append(f"{facts['name']:<14} {facts['bytes'] / 1e6:>9.1f} MB  {folder}")
    return "\n".join([*lines, f"Next: python -m train dist --model {run_dir}"])


def check_disk(run_dir: Path, merged: Path, names: list[str]) -> None:
    """Raise ConfigError when the disk has no room for these forms."""
    size = sum(path.stat().st_size for path in merged.iterdir())
    needed = sum(int(size * SHARE.get(name, 1.0)) for name in names)
    free = shutil.disk_usage(run_dir).free
    if free < needed:
        raise ConfigError(
            f"{run_dir}: {free // 1_000_000} MB free, {', '.join(names)} may need {needed // 1_000_000}. Free some, or ask for fewer "
            "in train.quantize.formats."
        )


def fingerprint(folder: Path) -> str:
    """Hash a model folder's weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja") and path.name != "retort.json":
            digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()
