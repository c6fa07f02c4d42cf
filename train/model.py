"""The student: tokenizer, weights, number format, adapters.

    model, tokenizer = load_student("train/students/tiny", config)
    model = add_lora(model, config)

On a GPU weights are bf16, on a CPU float32; `method: qlora` loads them as 4-bit NF4 (arXiv 2305.14314), which
bitsandbytes can do on a CPU as well. A tokenizer from here has its chat template adapted, so that everyone who
renders with it renders the same.
"""

import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import bitsandbytes
import datasets
import torch
import transformers
from huggingface_hub.errors import HFValidationError
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from train import template
from train.config import BUILT_IN, TINY, TrainConfig
from train.errors import ConfigError, ModelError

# Files of tokenizers that were saved before tokenizer.json was usual.
OLDER_TOKENIZERS = ("vocab.json", "vocab.txt", "spiece.model")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


class Student(NamedTuple):
    """A loaded model with its tokenizer."""

    model: Any
    tokenizer: PreTrainedTokenizerBase


class Share(NamedTuple):
    """Numbers of parameters."""

    trainable: int
    total: int

    @property
    def percent(self) -> float:
        """Trainable parameters per hundred."""
        return 100 * self.trainable / self.total


def quiet() -> None:
    """Silence what libraries say that asks nothing of the reader: progress bars, tips, coming deprecations."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in ("trl", "peft", "datasets", "accelerate", "bitsandbytes", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    warnings.filterwarnings("ignore", message=".*kernels.*", module="bitsandbytes.*")


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(student: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer with an adapted chat template and a pad token. Raises ModelError or TemplateError."""
    folder = Path(_folder(student))
    if folder.is_dir() and not any(folder.glob("tokenizer*")) and not any((folder / name).is_file() for name in OLDER_TOKENIZERS):
        raise ModelError(f"{student}: has no tokenizer (tokenizer.json is missing). Copy its base's tokenizer files into it.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(_folder(student), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, HFValidationError) as error:
        raise _unreachable(student, error) from error
    template.adapt(tokenizer, student)
    if tokenizer.pad_token is None:
        # Safe: padding is masked by the attention mask and by labels of -100, never by comparing ids.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def load_student(student: str, config: TrainConfig | None = None, *, adapter: Path | None = None, quantize: bool | None = None) -> Student:
    """Load a student by folder or hub id, with an adapter if one is named.

    `quantize` defaults to what `config.method` says. Generation stops at the template's stop token, which is added to
    the generation config where it lacks it. Raises ModelError, and TemplateError when the template was edited after training.
    """
    config = config or TrainConfig()
    quantize = config.method == "qlora" if quantize is None else quantize
    where = device()
    options: dict[str, Any] = {
        "dtype": torch.bfloat16 if where.type == "cuda" else torch.float32,
        "trust_remote_code": config.trust_remote_code,
        "use_safetensors": True,
    }
    if quantize:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=options["dtype"],
        )
        options["device_map"] = {"": where}
    tokenizer = load_tokenizer(student, trust_remote_code=config.trust_remote_code)
    _check_weights(student)
    try:
        both: Any = AutoModelForCausalLM.from_pretrained(_folder(student), output_loading_info=True, **options)
        model: Any = both[0]
        loaded: dict[str, Any] = both[1]
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, HFValidationError) as error:
        raise _unreachable(student, error) from error
    if loaded["missing_keys"]:
        missing = sorted(loaded["missing_keys"])
        raise ModelError(
            f"{student}: {len(missing)} of its weights are not in its files ({', '.join(missing[:3])}, ...): they would be random numbers. "
            "Its config.json is not that of its weights, or it is no causal language model."
        )
    if not quantize:
        model = model.to(where)
    elif where.type == "cpu":
        # bitsandbytes 0.50 repacks weights when a CPU with AVX512-BF16 evaluates, and fails where a width is no multiple of 64
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    model.config.use_cache = True
    _set_stop_ids(model, tokenizer, student)
    for folder in (Path(_folder(student)), adapter):
        if folder is not None:
            template.check_seal(tokenizer, folder, student)
    if adapter is not None:
        model = with_adapter(model, adapter, "default")
    return Student(model.eval(), tokenizer)


def load_encoder(name: str) -> Student:
    """Load a model that embeds texts, by folder or hub id, with its own tokenizer as it is. Raises ModelError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(_folder(name))
        net = AutoModel.from_pretrained(_folder(name), use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError, KeyError, HFValidationError, ModelError) as error:
        raise ModelError(
            f"train.evaluation.embedding is {name!r}, which cannot be loaded as a model of embeddings: {' '.join(str(error).split())[:300]}"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return Student(net.to(device()).eval(), tokenizer)


@torch.no_grad()
def dequantize_into(plain: Any, four_bit: Any) -> None:
    """Give a model's linear weights the values that another's 4-bit weights stand for; adapters beside them stay."""
    weights = dict(plain.named_parameters())
    for name, module in four_bit.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            target = next(weights[key] for key in (f"{name}.weight", f"{name}.base_layer.weight") if key in weights)
            packed: Any = module.weight
            target.copy_(bitsandbytes.functional.dequantize_4bit(packed.data, packed.quant_state).to(target.dtype))


def load_with_adapters(student: str, adapters: Mapping[str, Path], config: TrainConfig | None = None) -> Student:
    """Load one base with several named adapters: `set_adapter(name)` chooses one, `disable_adapter()` is the base."""
    model, tokenizer = load_student(student, config)
    for name, path in adapters.items():
        template.check_seal(tokenizer, path, student)
        model = with_adapter(model, path, name)
    return Student(model.eval(), tokenizer)


def add_lora(model: PreTrainedModel, config: TrainConfig) -> PeftModel:
    """Put fresh adapters on a model; with B = 0 it still writes what it wrote before."""
    targets: str | list[str] = config.lora.target_modules
    if targets == "attention":
        targets = ATTENTION
    lora = LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        use_dora=config.lora.dora,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(config.seed)
    try:
        return get_peft_model(model, lora)
    except ValueError as error:
        linear = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)})
        raise ConfigError(f"train.lora.target_modules is {targets!r}: {error}. This model's linear layers: {', '.join(linear)}.") from error


def share(model: Any) -> Share:
    """Count parameters; a 4-bit weight counts as the parameters it holds, and a tied one once."""
    total = trainable = 0
    for parameter in model.parameters():
        count = parameter.numel() * (2 if parameter.__class__.__name__ == "Params4bit" else 1)
        total += count
        trainable += count if parameter.requires_grad else 0
    return Share(trainable, total)


def parameters(student: str, *, trust_remote_code: bool = False) -> int:
    """Count a student's parameters from its configuration, without loading weights."""
    try:
        configuration = AutoConfig.from_pretrained(_folder(student), trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(configuration, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, HFValidationError) as error:
        raise _unreachable(student, error) from error
    return share(model).total


def stop_ids(model: Any) -> list[int]:
    """The ids at which generation ends."""
    ids = model.generation_config.eos_token_id
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)


def _set_stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    stop = template.adapt(tokenizer, where).stop_id
    known = stop_ids(model)
    model.generation_config.eos_token_id = known if stop in known else [stop, *known]
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def with_adapter(model: Any, path: Path, name: str) -> PeftModel:
    """Put a trained adapter on a model under a name. Raises ModelError when there is none or it does not fit."""
    if not (path / "adapter_config.json").is_file():
        raise ModelError(f"{path}: no adapter here (adapter_config.json is missing). Train one with `python -m train run`.")
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(path), adapter_name=name)
            return model
        return PeftModel.from_pretrained(model, str(path), adapter_name=name)
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError(f"{path}: this adapter does not fit its base: {' '.join(str(error).split())[:300]}") from error


def _folder(student: str) -> str:
    """A path that looks like one must exist: otherwise transformers would ask the hub for it."""
    looks_local = student.startswith((".", "/", "~")) or student.count("/") != 1
    path = Path(student).expanduser()
    if student == BUILT_IN and not path.is_dir():
        path = TINY  # called from another folder than the repository's
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{student}: a folder, but not a model: config.json is missing.")
        return str(path)
    if looks_local and path.parent != Path():
        raise ModelError(f"{student}: not a folder here and not a hub id (owner/name). Set train.student or STUDENT.")
    return student


def _check_weights(student: str) -> None:
    """Weights are read from safetensors alone: other formats run code when they are read."""
    folder = Path(_folder(student))
    old = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)) if folder.is_dir() else []
    if old and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{student}: holds its weights as {old[0]}, a format that can run code when it is read. Load it where you trust it and save it "
            "again: `model.save_pretrained(folder)` writes safetensors."
        )


def _unreachable(student: str, error: BaseException) -> ModelError:
    reason = " ".join(str(error).split())[:300]
    if "trust_remote_code" in str(error):
        return ModelError(f"{student}: brings code of its own. Read it; if you trust it, set train.trust_remote_code: true in the recipe.")
    if Path(student).expanduser().is_dir():
        return ModelError(f"{student}: cannot be loaded as a causal language model: {reason}")
    offline = " HF_HUB_OFFLINE is set." if os.environ.get("HF_HUB_OFFLINE") else ""
    return ModelError(
        f"{student}: not a folder here and not reachable as a hub id.{offline} Check the spelling, the network, or set a folder. ({reason})"
    )


def backbone(model: Any) -> Any:
    """The transformer without its language-model head, adapters included."""
    return model.get_base_model().base_model if isinstance(model, PeftModel) else model.base_model


def has_plain_cache(model: Any) -> bool:
    """Whether every layer attends to all tokens and keeps their keys and values, so that a prefix can be shared."""
    config = model.config.get_text_config()
    layers = getattr(config, "layer_types", None)
    if layers:
        return set(layers) == {"full_attention"}
    windowed = getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None)
    return not windowed and not getattr(model, "_is_stateful", False) and not config.is_encoder_decoder
