"""The train half of a recipe. What belongs to SFTConfig, DPOConfig or KTOConfig is passed through untouched.

    config = read_config(Path("recipes/banking.yaml"), student="Qwen/Qwen2.5-0.5B-Instruct")

A recipe is one YAML file per experiment. This half reads `name`, `seed` and `train:`; the other known keys
belong to the making of the data and are left alone. Unknown keys are refused, with the near one suggested.
"""

import difflib
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from train.errors import ConfigError

# All keys that a recipe may have at its top, those of the data half included.
RECIPE_KEYS = [
    *("name", "description", "taxonomy", "seed", "teachers", "concurrency", "retries", "attempts", "budget_usd", "mix", "per_call"),
    *("judge", "rubric", "reasoning", "preference", "conversation", "sources", "failures", "seeds", "design", "quota", "filters"),
    *("evaluation_sets", "retired", "embedding", "split", "export", "terms", "batch", "train"),
]
BUILT_IN = "train/students/tiny"
TINY = Path(__file__).parent / "students" / "tiny"
GENERAL = Path(__file__).parent / "general"
SFT_DEFAULTS: dict[str, Any] = {
    "learning_rate": 2e-4,
    "num_train_epochs": 3,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "train_sampling_strategy": "group_by_length",
}
DPO_DEFAULTS: dict[str, Any] = {
    "learning_rate": 5e-6,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "beta": 0.1,
    "loss_type": ["sigmoid", "sft"],
    "loss_weights": [1.0, 0.2],
}
KTO_DEFAULTS: dict[str, Any] = {
    "learning_rate": 5e-6,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "beta": 0.1,
}
# Set by the run itself: two places for one thing would contradict each other.
OWNED = {
    "output_dir": "--out",
    "max_length": "train.max_length",
    "seed": "train.seed",
    "data_seed": "train.seed",
    "trust_remote_code": "train.trust_remote_code",
    "dataset_kwargs": "nothing: rows arrive tokenised",
    "chat_template_path": "the student's own tokenizer",
    "eos_token": "the student's own chat template",
    "model_init_kwargs": "train.student and train.method",
    "precompute_ref_log_probs": "nothing: they are always computed once",
}


class Section(BaseModel):
    """A part of the recipe that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# Ranks and layers by how much a student has to learn; what the recipe says beside a preset wins.
LORA_PRESETS: dict[str, dict[str, Any]] = {
    "simple": {"r": 8, "alpha": 16, "target_modules": "attention"},
    "domain": {"r": 32, "alpha": 64, "target_modules": "all-linear"},
}


class Lora(Section):
    """Low-rank adapters (arXiv 2106.09685). All linear layers by default: attention alone learns less.

    `target_modules` is "all-linear", "attention", or a list of module names. `preset` is "simple" for a form or a style, "domain" for new
    matter. `dora` also trains the length of each weight column (arXiv 2402.09353): a little better at low ranks, and slower.
    """

    r: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"
    preset: Literal["simple", "domain"] | None = None
    dora: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("preset") in LORA_PRESETS:
            return {**LORA_PRESETS[value["preset"]], **value}
        return value


class General(Section):
    """General rows in SFT against forgetting. `share` is their part of all rows that a step sees.

    `loss` says what is learned from them: "labels" trains on their completions like on any row; "features" holds the
    hidden states on them to the base's, `weight` times (train/retain.py), and keeps far more where training is hard.
    `budget` is how far general ability may fall while SFT runs: percentage points of exact match on rows of the source that are
    set aside for it. Beyond it the weight is doubled (features) or the run stops (labels), and only a point within it is kept.
    """

    source: str = "built-in"
    share: float = Field(default=0.1, ge=0, lt=1)
    loss: Literal["labels", "features"] = "labels"
    weight: float = Field(default=4.0, gt=0)
    budget: float | None = Field(default=None, ge=0, le=100)

    def path(self) -> Path:
        """Return the JSON lines file of the source."""
        return GENERAL / "train.jsonl" if self.source == "built-in" else Path(self.source)


class Evaluation(Section):
    """How much is generated to choose a checkpoint (validation) and for the final table (test).

    `few_shot` training examples are put into the prompt of the untuned base, which is the rival that costs no training; 0 leaves it out.
    `embedding` names a model, by folder or hub id, whose embeddings say how near a text is to its reference; it then picks the checkpoint.
    `usd_per_hour` is what the machine costs that would serve the student: from it follows what 1,000 requests cost.
    """

    validation_rows: int = Field(default=200, ge=1)
    test_rows: int = Field(default=500, ge=1)
    points: int = Field(default=8, ge=1)
    max_new_tokens: int = Field(default=256, ge=1)
    batch_size: int = Field(default=32, ge=1)
    few_shot: int = Field(default=3, ge=0)
    usd_per_hour: float | None = Field(default=None, ge=0)
    embedding: str | None = None


class Gate(Section):
    """What an artifact must show before it ships: on the same held-out rows it is worse than its adapter by less than `delta`
    percentage points, with 95 % confidence. `rows` bounds the domain's rows and the general ones, each; without it all count.
    """

    delta: float = Field(default=1.0, gt=0, le=100)
    rows: int | None = Field(default=None, ge=1)


class Without(Section):
    """Training rows that are left out, by what is known of their making: an empty list leaves nothing out.

    A topic stands for all below it ("cards" for "cards/lost"). `rows` are row ids.
    """

    topics: list[str] = Field(default_factory=list)
    generators: list[str] = Field(default_factory=list)
    teachers: list[str] = Field(default_factory=list)
    rows: list[str] = Field(default_factory=list)

    @property
    def named(self) -> dict[str, list[str]]:
        """What is left out, by kind, without the empty kinds."""
        return {kind: values for kind, values in self.model_dump().items() if values}


FORMATS = ("gguf-f16", "gguf-q8_0", "gguf-q4_k_m", "gguf-lora", "awq", "gptq")


class Quantize(Section):
    """The forms beside the merged model, calibrated on `rows` training rows; all that this student can take where `formats` is not given.

    `iterations` of auto-round's search for the rounding of AWQ and GPTQ weights; 0 rounds by the inputs' importance alone, in seconds.
    """

    formats: list[str] | None = None
    rows: int = Field(default=128, ge=1)
    iterations: int = Field(default=0, ge=0)

    @field_validator("formats")
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        for name in value or []:
            if name not in FORMATS:
                raise ValueError(f"{name} is no format{near(name, list(FORMATS))}; known: {', '.join(FORMATS)}")
        return None if value is None else list(dict.fromkeys(value))


class TrainConfig(Section):
    """One training experiment: recipe, command-line overrides and defaults, resolved."""

    name: str = "training"
    data: Path = Path("data")
    out: Path = Path("runs")
    student: str = BUILT_IN
    method: Literal["lora", "qlora", "full"] = "lora"
    lora: Lora = Lora()
    max_length: int = Field(default=1024, ge=8)
    seed: int = 0
    trust_remote_code: bool = False
    sft: dict[str, Any] = Field(default_factory=dict)
    dpo: dict[str, Any] | None = Field(default_factory=dict)
    kto: dict[str, Any] | None = Field(default_factory=dict)
    weighting: Literal["label", "topic"] | None = None
    general: General | None = None
    evaluation: Evaluation = Evaluation()
    quantize: Quantize | None = Quantize()
    gate: Gate = Gate()
    without: Without | None = None

    @field_validator("sft", "dpo", "kto")
    @classmethod
    def _numbers(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if value is None else {key: _number(item) for key, item in value.items()}

    @property
    def sft_options(self) -> dict[str, Any]:
        """The recipe's `sft:` over the defaults. Training all weights takes a tenth of the rate that adapters take
        (Thinking Machines, LoRA Without Regret, 2025)."""
        return {**SFT_DEFAULTS, **({"learning_rate": 2e-5} if self.method == "full" else {}), **self.sft}

    def sft_epochs(self, rows: int) -> float:
        """How often SFT sees its `rows`: as the recipe says, or by their number."""
        return float(self.sft.get("num_train_epochs") or epochs_for(rows))

    @property
    def dpo_options(self) -> dict[str, Any]:
        """The recipe's `dpo:` over the defaults."""
        return {**DPO_DEFAULTS, **(self.dpo or {})}

    @property
    def kto_options(self) -> dict[str, Any]:
        """The recipe's `kto:` over the defaults."""
        return {**KTO_DEFAULTS, **(self.kto or {})}


def read_config(recipe: Path | None, *, student: str | None = None, data: Path | None = None, out: Path | None = None) -> TrainConfig:
    """Read a recipe's train half; `student`, `data` and `out` come from the command line and win.

    Raises ConfigError naming file, field, value and, for an unknown key, the near one.
    """
    raw = _read_yaml(recipe) if recipe else {}
    where = str(recipe) if recipe else "options"
    for key in raw:
        if key not in RECIPE_KEYS:
            raise ConfigError(f"{where}: unknown key `{key}`{near(str(key), RECIPE_KEYS)}. Known: {', '.join(RECIPE_KEYS)}.")
    section = raw.get("train") or {}
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: train is {type(section).__name__}; it must be a mapping of settings.")
    for key in ("name", "data", "out"):
        if key in section:
            raise ConfigError(f"{where}: train.{key} is not a setting; `{key}` comes from the recipe or the command line.")
    name = str(raw.get("name") or (recipe.stem if recipe else "training"))
    values: dict[str, Any] = {
        "seed": raw.get("seed", 0),
        **section,
        "name": name,
        "data": data or Path("data") / name,
        "out": out or Path("runs"),
    }
    if student:
        values["student"] = student
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, where)) from error


def with_formats(config: TrainConfig, formats: list[str]) -> TrainConfig:
    """The same settings with other formats to quantize to. Raises ConfigError for an unknown one, with the near name."""
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"--format {name}: no such format{near(name, list(FORMATS))}. Known: {', '.join(FORMATS)}.")
    asked = (config.quantize or Quantize()).model_dump()
    return config.model_copy(update={"quantize": Quantize.model_validate({**asked, "formats": formats})})


def epochs_for(rows: int) -> int:
    """Three epochs; more for so few rows that a student would see fewer than 100, fewer where it would see more than 25,000.

    The rule is OpenAI's for its fine-tuning service (OpenAI Cookbook, "Data preparation and analysis for chat model fine-tuning").
    """
    if rows * 3 < 100:
        return min(25, max(1, 100 // max(rows, 1)))
    return max(1, 25_000 // rows) if rows * 3 > 25_000 else 3


def check_options(where: str, options: dict[str, Any], known: list[str]) -> None:
    """Refuse an option that the trainer's config does not have, or that the run sets itself."""
    for key in options:
        if key in OWNED:
            raise ConfigError(f"{where}.{key} is set by the run. Remove it; what decides it is {OWNED[key]}.")
        if key not in known:
            raise ConfigError(f"{where}: unknown option `{key}`{near(key, known)}.")


def near(word: str, known: list[str]) -> str:
    """Return " (did you mean `x`?)", or an empty string when nothing is near."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _number(value: Any) -> Any:
    """YAML 1.1 reads `2e-4` as text, because it has no dot; nobody means that."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such recipe. Recipes are in recipes/; choose one with --recipe FILE.") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of settings, this is {type(raw).__name__}.")
    return raw


def _explain(error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    field = ".".join(["train", *path])
    if first["type"] == "extra_forbidden":
        known = list(_section_at(path[:-1]).model_fields)
        return f"{where}: unknown key `{field}`{near(path[-1], known)}. Known here: {', '.join(known)}."
    return f"{where}: {field} is {first['input']!r}: {first['msg'].lower()}."


def _section_at(path: list[str]) -> type[Section]:
    sections: dict[str, type[Section]] = {
        "lora": Lora,
        "general": General,
        "evaluation": Evaluation,
        "quantize": Quantize,
        "gate": Gate,
        "without": Without,
    }
    return sections[path[0]] if path else TrainConfig
