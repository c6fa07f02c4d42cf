"""What `python -m train serve` does: find the folder, add adapters, check, and serve it here or write the script for vLLM."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from train.errors import ConfigError
from train.model import quiet
from train.run import find_run
from train.serving import vllm
from train.serving.app import KEY, LOOPBACK, Running, Settings, run_server
from train.serving.target import RANKS, Target, check_adapter, find_target, read_adapter

__all__ = ["Settings", "serve_model", "vllm_script"]


def serve_model(
    where: str, loras: Sequence[str], settings: Settings, *, say: Callable[[str], None], ready: Callable[[Running], None] | None = None
) -> int:
    """Serve until Ctrl-C; return the number of answers. The API key comes from the environment alone. Raises a TrainError."""
    quiet()
    settings = settings._replace(api_key=os.environ.get(KEY) or None)
    target = with_adapters(where, loras, settings)
    if settings.host not in LOOPBACK and settings.api_key is None:
        say(f"note: {settings.host} is reached by others, and no key is asked for. Set {KEY} to ask for one.")
    return run_server(target, settings, say=say, ready=ready)


def vllm_script(where: str, loras: Sequence[str], settings: Settings) -> Path:
    """Write the script that serves the same on vLLM; return its path. Raises a TrainError."""
    quiet()
    target = with_adapters(where, loras, settings)
    return vllm.write_script(target, served=settings.served, host=settings.host, port=settings.port, limit=settings.max_lora_rank)


def with_adapters(where: str, loras: Sequence[str], settings: Settings) -> Target:
    """The target with further adapters (NAME=FOLDER). Raises ConfigError or ModelError before anything is loaded."""
    if Path(where).name == "latest" and not Path(where).exists():
        find_run(Path(where), Path(where).parent)  # says that there is no run yet
    target = find_target(where)
    for text in loras:
        name, equals, path = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--lora {text}: write NAME=FOLDER, such as --lora try=runs/x/dpo.")
        if name in (target.own, *target.adapters):
            raise ConfigError(f"--lora {text}: {name} is there already. Choose another name.")
        target = target._replace(adapters={**target.adapters, name: read_adapter(Path(path))})
    for adapter in target.adapters.values():
        check_adapter(adapter, target.base, settings.max_lora_rank or RANKS[-1])
    return target
