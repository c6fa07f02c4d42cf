"""GGUF, the file format of llama.cpp: a model or a LoRA adapter written, and a file's own tokenizer, template and stop ids read.

    facts = write_model(Path("merged"), Path("model.gguf"), "q8_0", texts)
    write_adapter(Path("sft"), Path("merged"), Path("adapter.gguf"))
    speech = read_speech(Path("model.gguf"))

Written with the `gguf` package alone, so that no compiler is needed. llama.cpp knows tokenizers by name; the name is found by what it does:
that whose way of cutting text gives the same ids as the student's tokenizer. Reading builds the tokenizer as llama.cpp would, from the
file's own fields. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from train.errors import ModelError

Form = Literal["f16", "q8_0", "q4_k_m"]
FILE_TYPES: dict[Form, int] = {"f16": 1, "q8_0": 7, "q4_k_m": 15}  # llama.cpp's numbers for a mixture of tensor types
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}  # transformers' name: llama.cpp's
ROTATED = {"llama"}  # architectures whose queries and keys llama.cpp rotates in neighbouring pairs, and transformers in halves
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
F16_MAX = 65504.0

_LOWER = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+",
    r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*",
)
_SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


class Pre(NamedTuple):
    """How llama.cpp cuts text before it merges: patterns one after the other; `whole` takes a piece that is a token as it is."""

    patterns: tuple[str, ...]
    whole: bool = False


# Those of llama.cpp's pre-tokenizers (src/llama-vocab.cpp) that byte-level students use.
PRES = {
    "qwen2": Pre((rf"{_LOWER}|{_WORD}|\p{{N}}|{_REST}",)),
    "llama-bpe": Pre((rf"{_LOWER}|{_WORD}|\p{{N}}{{1,3}}|{_REST}",), whole=True),
    "gpt-2": Pre((_GPT2,)),
    "smollm": Pre((r"\p{N}", _GPT2)),
    "tekken": Pre((rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}|{_SLASHED}",), whole=True),
    "gpt-4o": Pre((rf"{_CASED[0]}{_LOWER}?|{_CASED[1]}{_LOWER}?|\p{{N}}{{1,3}}|{_SLASHED}",)),
    "qwen35": Pre(
        (rf"{_LOWER}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",)
    ),
}
# What tokenizers cut differently: spaces, line ends, digits, cases, contractions, signs, scripts.
SAMPLES = (
    "What's up? It'S 3 o'clock, they'LL pay 1234567.89 EUR",
    "two  spaces,   three, a\ttab and the end ",
    "lines\n\nof\r\n text\n  with indents\n\n\n",
    "  2 leading and 100  before digits",
    "a space \nbefore a line's end, \n5 times",
    '\'Tis (all) <of> "these" #tags @names -dashed',
    "camelCase, HTTPServer, snake_case/path\n// and ... !?!? {}[]<>",
    "Größe ÉCOLE naïve Привет МИР 你好世界 こんにちは 안녕 مرحبا ไทย हिन्दी",
    "🚀🔥 e\u0301 \u200d ½ ² Ⅷ",
    '{"intent":"card_lost","entities":{"amount":"12,50"}}',
)


class Speech(NamedTuple):
    """How a GGUF file is spoken to: its tokenizer, with its template, and the ids at which it stops."""

    tokenizer: PreTrainedTokenizerBase
    stop_ids: list[int]


class Heads(NamedTuple):
    """The width of an attention head, and the divisors of its rotary frequencies (width / 2) where there are some."""

    width: int
    rope_factors: torch.Tensor | None


def write_model(
    folder: Path, target: Path, form: Form, texts: Sequence[str], importance: Mapping[str, torch.Tensor] | None = None
) -> dict[str, Any]:
    """Write a model folder as GGUF; return the facts of it: pre-tokenizer, tensor types, fallbacks.

    `texts` are rendered prompts on which the file's tokenizer must give the student's ids. `importance` is the mean square of each
    linear layer's inputs, by the weight's name: K-quants round less where it is large. A row whose length K-quants do not divide
    gets the type that llama.cpp itself would take. Raises ModelError for an architecture or a tokenizer that llama.cpp does not know.
    """
    gguf = library()
    config = AutoConfig.from_pretrained(str(folder))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    tensors = _Tensors(folder)
    writer = gguf.GGUFWriter(str(target), architecture(config, folder))
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(folder.resolve().parent.name)
    writer.add_file_type(FILE_TYPES[form])
    if form != "f16":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, config)
    stops = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    rows = tensors.rows("model.embed_tokens.weight")
    facts = _add_tokenizer(writer, tokenizer, [stops] if isinstance(stops, int) else list(stops), rows, texts)
    types: dict[str, int] = {}
    fallbacks: dict[str, str] = {}
    names = name_map(config)
    tied = "lm_head.weight" not in tensors.names or config.tie_word_embeddings
    for name in tensors.names:
        if tied and name == "lm_head.weight":
            continue
        weight = _rotated(tensors.read(name), name, config)
        ours = names(name)
        wanted, kind = tensor_type(ours, tuple(weight.shape), form, config.num_hidden_layers, tied=tied)
        if kind != wanted:
            fallbacks[ours] = f"{kind} for {wanted}"
        types[kind] = types.get(kind, 0) + 1
        writer.add_tensor(ours, _packed(weight, kind, (importance or {}).get(name), name), raw_dtype=gguf.GGMLQuantizationType[kind])
    if (factors := _rope_factors(config)) is not None:
        writer.add_tensor("rope_freqs.weight", factors.numpy())
    _save(writer)
    return {**facts, "tensor_types": types, "fallbacks": fallbacks}


def write_adapter(adapter: Path, base: Path, target: Path) -> dict[str, Any]:
    """Write a LoRA adapter as GGUF, which llama.cpp loads beside its base's GGUF; `base` is a folder of the same architecture.

    Raises ModelError for DoRA and whatever else llama.cpp has no place for.
    """
    gguf = library()
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    for key in ("use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern"):
        if settings.get(key):
            raise ModelError(f"{adapter}: its {key} is {settings[key]!r}, for which llama.cpp has no adapter. Use the merged GGUF.")
    config = AutoConfig.from_pretrained(str(base))
    names = name_map(config)
    writer = gguf.GGUFWriter(str(target), architecture(config, base))
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(settings["lora_alpha"]))
    count = 0
    with safe_open(str(adapter / "adapter_model.safetensors"), "pt") as file:
        for key in sorted(file.keys()):
            match = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", key)
            if match is None:
                raise ModelError(f"{adapter}: has the tensor {key}, for which llama.cpp has no place. Use the merged GGUF.")
            weight = file.get_tensor(key).float()
            if match[2] == "B":
                weight = _rotated(weight, f"{match[1]}.weight", config)
            writer.add_tensor(f"{names(match[1] + '.weight')}.lora_{match[2].lower()}", weight.numpy().astype(np.float32))
            count += 1
    _save(writer)
    return {"alpha": settings["lora_alpha"], "rank": settings["r"], "tensors": count}


def read_speech(path: Path) -> Speech:
    """Build the tokenizer that a GGUF file describes, as llama.cpp would. Raises ModelError for a file that says too little."""
    gguf = library()
    try:
        fields = gguf.GGUFReader(str(path)).fields
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read as GGUF: {' '.join(str(error).split())[:200]}. Make it again.") from error

    def read(key: str, *, needed: bool = True) -> Any:
        if field := fields.get(f"tokenizer.{key}"):
            return field.contents()
        if needed:
            raise ModelError(f"{path}: has no tokenizer.{key}. Make it again with `python -m train quantize`.")
        return None

    name = read("ggml.pre")
    if read("ggml.model") != "gpt2" or name not in PRES:
        raise ModelError(f"{path}: its tokenizer is {read('ggml.model')}/{name}, which is not read here. Known: {', '.join(PRES)}.")
    tokens, types = read("ggml.tokens"), read("ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in read("ggml.merges")]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=PRES[name].whole))
    backend.pre_tokenizer = _cutter(PRES[name])
    backend.decoder = decoders.ByteLevel()
    for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [AddedToken(token, special=special, normalized=False) for token, t in zip(tokens, types, strict=True) if t == kind]
        (backend.add_special_tokens if special else backend.add_tokens)(added)
    roles = {role: read(f"ggml.{key}_token_id", needed=False) for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))}
    given = {f"{role}_token": tokens[number] for role, number in roles.items() if number is not None}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, padding_side="left", **given)
    tokenizer.chat_template = read("chat_template")
    stops = [read(f"ggml.{key}_token_id", needed=False) for key in ("eot", "eos", "eom")]
    return Speech(tokenizer, list(dict.fromkeys(stop for stop in stops if stop is not None)))


def read_heads(path: Path) -> Heads:
    """Read what transformers leaves unread of a file's attention."""
    reader = library().GGUFReader(str(path))
    width = next(int(field.contents()) for name, field in reader.fields.items() if name.endswith(".attention.key_length"))
    factors = next((torch.from_numpy(np.array(tensor.data)) for tensor in reader.tensors if tensor.name == "rope_freqs.weight"), None)
    return Heads(width, factors)


def architecture(config: Any, folder: Path) -> str:
    """llama.cpp's name of an architecture. Raises ModelError where this room does not write it."""
    if config.model_type not in ARCHITECTURES:
        raise ModelError(
            f"{folder}: its architecture {config.model_type} is not written as GGUF here; known are {', '.join(ARCHITECTURES)}. "
            "Take the gguf formats out of train.quantize.formats; llama.cpp's own convert_hf_to_gguf.py reads the merged folder."
        )
    return ARCHITECTURES[config.model_type]


def name_map(config: Any) -> Callable[[str], str]:
    """A function from a weight's name in transformers to its name in llama.cpp."""
    gguf = library()
    kind = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == ARCHITECTURES[config.model_type])
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)

    def find(name: str) -> str:
        ours = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if ours is None:
            raise ModelError(f"{name}: llama.cpp has no such weight in {config.model_type}. Take the gguf formats out.")
        return str(ours)

    return find


def tensor_type(name: str, shape: tuple[int, ...], form: Form, layers: int, *, tied: bool) -> tuple[str, str]:
    """The type that a form wants for a tensor, and the one that its row length allows: llama.cpp's rules (src/llama-quant.cpp)."""
    if len(shape) == 1:
        return "F32", "F32"
    if form == "f16":
        return "F16", "F16"
    wanted = "Q8_0" if form == "q8_0" else "Q4_K"
    if form == "q4_k_m":
        if name == "output.weight" or (tied and name == "token_embd.weight"):
            wanted = "Q6_K" if shape[-1] % 256 == 0 else "Q8_0"
        elif match := re.fullmatch(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight", name):
            layer, eighth = int(match[1]), layers // 8
            if layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2:
                wanted = "Q6_K"
    kind = wanted
    if kind in ("Q4_K", "Q6_K") and shape[-1] % 256:
        kind = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}[kind]
    return wanted, kind if shape[-1] % 32 == 0 else "F16"


def find_pre(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, Any]:
    """The name of the pre-tokenizer that gives the tokenizer's own ids on `texts`, and the samples on which it does not.

    Raises ModelError when none does on all of `texts`.
    """
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    if document["model"]["type"] != "BPE" or document["model"].get("byte_fallback") or document["normalizer"]:
        raise ModelError(
            "the student's tokenizer is not a byte-level BPE without normalizer, the only kind that is written as GGUF here. Take the "
            "gguf formats out of train.quantize.formats; llama.cpp's own convert_hf_to_gguf.py reads the merged folder."
        )
    right = _ids(tokenizer.backend_tokenizer, texts)
    samples = _ids(tokenizer.backend_tokenizer, SAMPLES)
    best: dict[str, Any] = {}
    for name, pre in PRES.items():
        document["model"]["ignore_merges"] = pre.whole
        candidate = Tokenizer.from_str(json.dumps(document))
        candidate.pre_tokenizer = _cutter(pre)
        if _ids(candidate, texts) == right:
            wrong = [s for s, a, b in zip(SAMPLES, samples, _ids(candidate, SAMPLES), strict=True) if a != b]
            if not best or len(wrong) < len(best["differs_on"]):
                best = {"pre": name, "differs_on": wrong}
    if not best:
        raise ModelError(
            f"none of llama.cpp's ways of cutting text gives the student's token ids on its own {len(texts)} prompts "
            f"(tried {', '.join(PRES)}). Take the gguf formats out of train.quantize.formats."
        )
    return best


def library() -> Any:
    """The `gguf` package. Raises ModelError where it is not installed."""
    try:
        import gguf
    except ImportError as error:
        raise ModelError("GGUF files need the `gguf` package, which is not installed: `make setup-train`, or pip install gguf.") from error
    return gguf


class _Tensors:
    """The weights of a folder, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(str(path), "pt") as file:
                self.files.update(dict.fromkeys(file.keys(), path))
        self.names = sorted(self.files)
        if not self.names:
            raise ModelError(f"{folder}: has no weights (*.safetensors). Merge again with `python -m train merge`.")

    def read(self, name: str) -> torch.Tensor:
        with safe_open(str(self.files[name]), "pt") as file:
            weight: torch.Tensor = file.get_tensor(name).float()
        return weight

    def rows(self, name: str) -> int:
        with safe_open(str(self.files[name]), "pt") as file:
            return int(file.get_slice(name).get_shape()[0])


def _add_shape(writer: Any, config: Any) -> None:
    rope = dict(config.rope_parameters)
    if rope.get("rope_type", "default") not in ("default", "llama3"):
        raise ModelError(
            f"rope_type {rope['rope_type']}: is not written as GGUF here. Take the gguf formats out of train.quantize.formats."
        )
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(width)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, tokenizer: PreTrainedTokenizerBase, stops: list[int], rows: int, texts: Sequence[str]) -> dict[str, Any]:
    """Vocabulary, merges, special ids and template. The first stop is the template's, which ends a turn."""
    chosen = find_pre(tokenizer, texts)
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = [f"[UNUSED{number}]" for number in range(rows)]
    types = [UNUSED] * rows
    for token, number in document["model"]["vocab"].items():
        tokens[number], types[number] = token, NORMAL
    for added in document["added_tokens"]:
        tokens[added["id"]], types[added["id"]] = added["content"], CONTROL if added["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in document["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(chosen["pre"])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_chat_template(str(tokenizer.chat_template))
    # A template may write the tokenizer's own end-of-text token, so that one keeps its place; what ends a turn is named beside it.
    end = tokenizer.eos_token_id if tokenizer.eos_token_id in stops else stops[0]
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(stops[0])
    for number in [stop for stop in stops[1:] if stop != end][:1]:
        writer.add_uint32("tokenizer.ggml.eom_token_id", number)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    begins = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    writer.add_add_bos_token(begins)
    writer.add_add_eos_token(False)
    return {**chosen, "stop_ids": stops, "adds_bos": begins}


def _cutter(pre: Pre) -> Any:
    cuts: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    return pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def _rotated(weight: torch.Tensor, name: str, config: Any) -> torch.Tensor:
    """Rows of queries and keys in llama.cpp's order: (heads, 2, half) becomes (heads, half, 2)."""
    match = re.search(r"\.(q|k)_proj\.(weight|bias)$", name)
    if match is None or ARCHITECTURES[config.model_type] not in ROTATED:
        return weight
    heads = config.num_attention_heads if match[1] == "q" else config.num_key_value_heads
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _packed(weight: torch.Tensor, kind: str, importance: torch.Tensor | None, name: str) -> Any:
    """A tensor's bytes. Plain rounding is the gguf package's; K-quants are auto-round's, which search scale and offset of each block."""
    gguf = library()
    if kind in ("Q4_K", "Q6_K"):
        from auto_round.export.export_to_gguf.packing import ggml_quant

        # a layer that saw nothing of some input would divide by nothing
        weights = None if importance is None else importance.clamp(min=float(importance.mean()) * 1e-4 + 1e-12)
        return np.ascontiguousarray(ggml_quant(weight, kind.lower(), imatrix=weights, device="cpu"))
    if kind == "F16" and float(weight.abs().max()) > F16_MAX:
        raise ModelError(f"{name}: holds {float(weight.abs().max()):.3g}, beyond what f16 can. Take the gguf formats out.")
    return gguf.quantize(np.ascontiguousarray(weight.numpy()), gguf.GGMLQuantizationType[kind])


def _rope_factors(config: Any) -> torch.Tensor | None:
    """Divisors of the rotary frequencies by Llama 3.1's rule: long wavelengths are stretched, short ones kept, those between mixed."""
    rope = dict(config.rope_parameters)
    if rope.get("rope_type", "default") != "llama3":
        return None
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    wavelength = 2 * math.pi * rope["rope_theta"] ** (torch.arange(0, width, 2).float() / width)
    low, high, context = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    share: torch.Tensor = ((context / wavelength - low) / (high - low)).clamp(0, 1)
    factors: torch.Tensor = 1 / ((1 - share) / rope["factor"] + share)
    return factors


def _save(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
