"""What a folder offers to serve: a base, adapters by name, and the system message and answer length of training.

    target = find_target("runs/latest")
    adapter = read_adapter(Path("runs/latest/dpo"))

A run offers `base`, `sft` and `dpo`; a folder with adapters in it (a deploy folder) those, by the names of their folders; an adapter
itself; a merged model or any student under the name `merged` or `base`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from train.config import BUILT_IN, TINY, TrainConfig
from train.errors import ModelError
from train.merge import read_card
from train.predict import training_of
from train.run import config_of

BASE = "base"
WEIGHTS = "adapter_model.safetensors"
# What vLLM 0.33 takes for --max-lora-rank; the endpoint here keeps to the same, so that a folder runs on both.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class Adapter(NamedTuple):
    """An adapter on disk. `rank` is the highest of its layers; `system` and `max_new_tokens` are those it was trained with, if known."""

    path: Path
    base: str
    rank: int
    sha256: str
    system: str | None
    max_new_tokens: int | None


class Target(NamedTuple):
    """What will be served: `names` in the order best last, `own` being the base's."""

    name: str
    folder: Path | None
    base: str
    own: str
    config: TrainConfig
    adapters: dict[str, Adapter]
    system: str
    max_new_tokens: int

    @property
    def best(self) -> str:
        """The name that was trained last."""
        return list(self.adapters)[-1] if self.adapters else self.own


def find_target(where: str) -> Target:
    """Say what `where` offers. Raises ModelError or DataError when it is neither a run, nor holds a model or adapters."""
    folder = Path(where)
    if (folder / "run.json").is_file():
        return _of_run(folder)
    if (folder / "adapter_config.json").is_file():
        return _of_adapters(folder.resolve().name, folder, {folder.resolve().name: folder})
    if (folder / "config.json").is_file() or not folder.is_dir():
        card = read_card(folder)
        own = "merged" if card else BASE
        system, length = str(card.get("system", "")), int(card.get("max_new_tokens", 256))
        return Target(str(card.get("name", own)), folder if card else None, where, own, TrainConfig(), {}, system, length)
    inside = {path.parent.name: path.parent for path in sorted(folder.glob("*/adapter_config.json"))}
    if inside:
        return _of_adapters(folder.resolve().name, folder, inside)
    if (folder / "merged" / "config.json").is_file():
        return find_target(str(folder / "merged"))
    raise ModelError(
        f"{folder}: has neither a model (config.json, merged/) nor an adapter (adapter_config.json) to serve. "
        "Train one with `python -m train run`, or name another with --model."
    )


def read_adapter(path: Path) -> Adapter:
    """Describe the LoRA adapter in a folder. Raises ModelError for what is none, or what would run code when it is read."""
    file = path / "adapter_config.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        kind, base = raw["peft_type"], raw["base_model_name_or_path"]
        rank = max([int(raw["r"]), *map(int, (raw.get("rank_pattern") or {}).values())])
    except OSError as error:
        raise ModelError(f"{path}: no adapter here (adapter_config.json is missing). Train one with `python -m train run`.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: not an adapter's configuration: {error!r}. Save the adapter again.") from error
    if kind != "LORA":
        raise ModelError(f"{file}: peft_type is {kind!r}; only LORA adapters share a base here. Merge it, and serve the merged model.")
    if not base:
        raise ModelError(f"{file}: does not name its base model. Set base_model_name_or_path.")
    if not (path / WEIGHTS).is_file():
        raise ModelError(f"{path}: has no {WEIGHTS}. Save the adapter again, as safetensors.")
    system, length = _taught(path)
    return Adapter(path, str(base), rank, hash_files([file, path / WEIGHTS]), system, length)


def check_adapter(adapter: Adapter, base: str, limit: int) -> None:
    """Refuse an adapter for another base, or of a higher rank than the server takes. Raises ModelError."""
    if place(adapter.base) != place(base):
        raise ModelError(
            f"{adapter.path}: this adapter was trained on {adapter.base}, the server's base is {base}. Serve it on its own; if both are "
            f"the same weights, set base_model_name_or_path in {adapter.path / 'adapter_config.json'}."
        )
    if adapter.rank > limit:
        wanted = rank_limit([adapter.rank])
        raise ModelError(
            f"{adapter.path}: its rank is {adapter.rank}, this server takes up to {limit}. Start it with --max-lora-rank {wanted}."
        )


def rank_limit(ranks: list[int]) -> int:
    """The smallest of RANKS that holds all, 16 at least as vLLM has it. Raises ModelError above the largest."""
    wanted = max([16, *ranks])
    if wanted > RANKS[-1]:
        raise ModelError(f"An adapter has rank {wanted}; vLLM takes up to {RANKS[-1]}. Merge it, and serve the merged model.")
    return next(rank for rank in RANKS if rank >= wanted)


def place(base: str) -> str:
    """A base's folder as one absolute path, or its hub id."""
    path = Path(base).expanduser()
    if base == BUILT_IN and not path.is_dir():
        path = TINY
    return str(path.resolve()) if path.is_dir() else base


def hash_files(paths: list[Path]) -> str:
    """SHA-256 over the bytes of files, one after the other."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                whole.update(block)
    return whole.hexdigest()


def hash_base(base: str, commit: str | None) -> str:
    """What tells a base from another: its weights and configuration, or the hub's commit."""
    folder = Path(place(base))
    if folder.is_dir():
        return hash_files([folder / "config.json", *sorted(folder.glob("*.safetensors"))])
    return hashlib.sha256(f"{base}@{commit}".encode()).hexdigest()


def _of_run(folder: Path) -> Target:
    config = config_of(folder)
    adapters = {s: read_adapter(folder / s) for s in ("sft", "dpo", "kto") if (folder / s / "adapter_config.json").is_file()}
    if not adapters:
        if (folder / "merged" / "config.json").is_file():
            return find_target(str(folder / "merged"))._replace(folder=folder)
        raise ModelError(
            f"{folder}: this run has neither adapters (sft/, dpo/) nor a merged model yet. Run `python -m train merge --model {folder}`."
        )
    system, length = training_of(folder, config)
    return Target(config.name, folder, config.student, BASE, config, adapters, system, length)


def _of_adapters(name: str, folder: Path, paths: dict[str, Path]) -> Target:
    adapters = {name: read_adapter(path) for name, path in paths.items()}
    first = next(iter(adapters.values()))
    for other in adapters.values():
        check_adapter(other, first.base, RANKS[-1])
    runs = [path.resolve().parent for path in paths.values()]
    config = next((config_of(run) for run in runs if (run / "run.json").is_file()), TrainConfig())
    system, length = first.system or "", first.max_new_tokens or config.evaluation.max_new_tokens
    return Target(name, folder, first.base, BASE, config, adapters, system, length)


def _taught(path: Path) -> tuple[str | None, int | None]:
    """The system message and answer length that an adapter was trained with: from its own card, its folder's, or its run's."""
    parent = path.resolve().parent
    for folder in (path, parent, parent / "merged"):
        card: dict[str, Any] = read_card(folder)
        if card:
            return str(card.get("system", "")), int(card.get("max_new_tokens", 256))
    if (parent / "run.json").is_file():
        return training_of(parent, config_of(parent))
    return None, None
