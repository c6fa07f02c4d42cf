"""The forms in which a run's result leaves: which there are, and how each is loaded again from its own files.

    for artifact in found(run_dir):              # adapter, merged, gguf-f16, gguf-q8_0, gguf-q4_k_m, awq, gptq
        net, tokenizer = load(artifact, config)

An artifact is read as a stranger would read it: weights, template and stop ids come from its own files, never from the
run that made it. GGUF weights are read by transformers, which unpacks them. For AWQ and GPTQ transformers asks for kernels that
a CPU does not have, so that their 4-bit weights are unpacked here, by the published layouts, into the plain model.
"""

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from train import gguf_file, model, template
from train.config import TrainConfig, near
from train.errors import ModelError, TrainError
from train.merge import trained
from train.sums import QUANTIZED

Kind = Literal["adapter", "merged", "gguf", "awq", "gptq"]
GGUF_NAME = "model.gguf"
NAMES = ("adapter", "merged", "gguf-f16", "gguf-q8_0", "gguf-q4_k_m", "awq", "gptq")
# Eight 4-bit numbers lie in an int32: GPTQ's in order, AWQ's in the order that its kernels take them out.
AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]


class Artifact(NamedTuple):
    """One form of a run's result; `path` is a folder, or for GGUF a file."""

    name: str
    kind: Kind
    path: Path


def found(run_dir: Path) -> list[Artifact]:
    """The artifacts that a run has, in the order of NAMES."""
    return [artifact for name in NAMES if (artifact := place(run_dir, name)).path.exists()]


def place(run_dir: Path, name: str) -> Artifact:
    """Where a run keeps an artifact, whether or not it is there. Raises ModelError for an unknown name."""
    if name not in NAMES:
        raise ModelError(f"{name}: no artifact has this name{near(name, list(NAMES))}. Known: {', '.join(NAMES)}.")
    if name == "adapter":
        return Artifact(name, "adapter", trained(run_dir) or run_dir / "sft")
    if name == "merged":
        return Artifact(name, "merged", run_dir / "merged")
    folder = run_dir / QUANTIZED / name
    if name.startswith("gguf-"):
        return Artifact(name, "gguf", folder / GGUF_NAME)
    return Artifact(name, "awq" if name == "awq" else "gptq", folder)


def load(artifact: Artifact, config: TrainConfig) -> model.Student:
    """Load an artifact for scoring; `config` is the run's, which names the base of an adapter.

    Raises ModelError with one line for a file that is missing or damaged, TemplateError for a template that is not the trained one.
    """
    if not artifact.path.exists():
        raise ModelError(f"{artifact.path}: is not there. Make it with `python -m train {_maker(artifact.kind)}`.")
    try:
        if artifact.kind == "adapter":
            if (artifact.path / "adapter_config.json").is_file():
                return model.load_student(config.student, config, adapter=artifact.path)
            return model.load_student(str(artifact.path), config, quantize=False)
        if artifact.kind == "merged":
            return model.load_student(str(artifact.path), config, quantize=False)
        if artifact.kind == "gguf":
            return _load_gguf(artifact.path)
        return _load_packed(artifact, config)
    except TrainError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, IndexError, StopIteration) as error:
        raise ModelError(f"{artifact.path}: damaged, or not {_article(artifact.kind)} model: {_line(error)}. Make it again.") from error


def _load_gguf(path: Path) -> model.Student:
    """Weights by transformers' reader; tokenizer, template and stop ids from the file's own fields."""
    speech = gguf_file.read_speech(path)
    heads = gguf_file.read_heads(path)
    with redirect_stderr(StringIO()):  # its progress bar asks nobody
        settings = AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name)
        settings.head_dim = heads.width
        net: Any = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, config=settings, dtype=torch.float32)
    if heads.rope_factors is not None:
        net.model.rotary_emb.inv_freq /= heads.rope_factors
    net = net.to(model.device())
    net.generation_config = GenerationConfig(eos_token_id=speech.stop_ids, pad_token_id=speech.tokenizer.pad_token_id, do_sample=False)
    return model.Student(net.eval(), speech.tokenizer)


def _load_packed(artifact: Artifact, config: TrainConfig) -> model.Student:
    """The plain model of the folder's configuration, with 4-bit weights unpacked into it."""
    folder = artifact.path
    settings = AutoConfig.from_pretrained(str(folder), trust_remote_code=config.trust_remote_code)
    quantization = settings.quantization_config
    if quantization["quant_method"] != artifact.kind or quantization["bits"] != 4 or quantization.get("desc_act"):
        raise ModelError(f"{folder}: holds {quantization['quant_method']} of another kind than is read here. Quantize again.")
    del settings.quantization_config
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    packed = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    if not packed:
        raise ModelError(f"{folder}: has no packed weights. Make it again with `python -m train quantize`.")
    unpack = unpack_awq if artifact.kind == "awq" else unpack_gptq
    for name in packed:
        tensors.pop(f"{name}.g_idx", None)
        tensors[f"{name}.weight"] = unpack(*(tensors.pop(f"{name}.{part}") for part in ("qweight", "qzeros", "scales")))
    net: Any = AutoModelForCausalLM.from_config(settings, trust_remote_code=config.trust_remote_code, dtype=torch.float32)
    missing, unexpected = net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    tied = set(net._tied_weights_keys or []) if settings.tie_word_embeddings else set()
    if set(missing) - tied or unexpected:
        raise ModelError(f"{folder}: its weights are not the model's: missing {sorted(set(missing) - tied)}, unknown {sorted(unexpected)}.")
    net.tie_weights()
    net.generation_config = GenerationConfig.from_pretrained(str(folder))
    net = net.to(model.device())
    tokenizer = model.load_tokenizer(str(folder), trust_remote_code=config.trust_remote_code)
    template.check_seal(tokenizer, folder, str(folder))
    return model.Student(net.eval(), tokenizer)


def unpack_gptq(qweight: torch.Tensor, qzeros: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Weights (out, in) from GPTQ's layout: qweight int32 (in / 8, out), qzeros int32 (groups, out / 8) less one, scales (groups, out).

    Groups are of neighbouring inputs (`desc_act: false`). Layout: AutoGPTQ, "gptq" checkpoint format.
    """
    shifts = torch.arange(0, 32, 4)
    weights = ((qweight[:, None, :] >> shifts[None, :, None]) & 15).reshape(-1, qweight.shape[1])
    zeros = ((qzeros[:, :, None] >> shifts) & 15).reshape(qzeros.shape[0], -1) + 1
    return _scaled(weights, zeros, scales)


def unpack_awq(qweight: torch.Tensor, qzeros: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Weights (out, in) from AWQ's "gemm" layout: qweight int32 (in, out / 8), qzeros int32 (groups, out / 8), scales (groups, out)."""
    shifts = torch.arange(0, 32, 4)[AWQ_ORDER]
    weights = ((qweight[:, :, None] >> shifts) & 15).reshape(qweight.shape[0], -1)
    zeros = ((qzeros[:, :, None] >> shifts) & 15).reshape(qzeros.shape[0], -1)
    return _scaled(weights, zeros, scales)


def _scaled(weights: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    group = weights.shape[0] // scales.shape[0]
    wide = [part.float().repeat_interleave(group, 0) for part in (zeros, scales)]
    return ((weights.float() - wide[0]) * wide[1]).T.contiguous()


def _maker(kind: Kind) -> str:
    return {"adapter": "run", "merged": "merge"}.get(kind, "quantize")


def _article(kind: Kind) -> str:
    return {"adapter": "an adapter", "merged": "a merged", "gguf": "a GGUF", "awq": "an AWQ", "gptq": "a GPTQ"}[kind]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
