"""The same folder and names on vLLM: a script that starts it, with what it must know of the training.

    script = write_script(target, served="retort")

vLLM renders prompts by a template and stops at the ids of a generation config, and knows nothing of the training's system message. So the
template written here is the sealed one with that message before it, where a conversation has none; stop ids and answer length are in
generation_config.json; and answers are greedy unless the client says otherwise, as here. Written against vLLM 0.33.
"""

import json
import shlex
from pathlib import Path
from typing import Any

from train import model, template
from train.errors import ServingError
from train.serving.target import Target, place, rank_limit

FOLDER = "vllm"


def write_script(target: Target, *, served: str, host: str, port: int, limit: int | None = None) -> Path:
    """Write vllm/serve.sh, its template and generation config into the target's folder; return the script. Raises ServingError."""
    if target.folder is None:
        raise ServingError(f"{target.base}: not a run, and no folder of adapters. Give one of those by --model.")
    tokenizer = model.load_tokenizer(target.base, trust_remote_code=target.config.trust_remote_code)
    for adapter in target.adapters.values():
        template.check_seal(tokenizer, adapter.path, target.base)
    folder = target.folder.resolve() / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        (folder / "chat_template.jinja").write_text(with_system(str(tokenizer.chat_template), target.system), encoding="utf-8")
        stop = template.adapt(tokenizer, target.base).stop_id
        ends = sorted({stop, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])}, key=lambda id: id != stop)
        (folder / "generation_config.json").write_text(_json({"eos_token_id": ends, "max_new_tokens": target.max_new_tokens}))
        script = folder / "serve.sh"
        script.write_text(text(target, served=served, host=host, port=port, limit=limit), encoding="utf-8")
        script.chmod(0o755)
    except OSError as error:
        raise ServingError(f"{folder}: cannot be written: {error}.") from error
    return script


def with_system(sealed: str, system: str) -> str:
    """A template that renders what the sealed one does, with the training's system message where a conversation has none."""
    if not system:
        return sealed
    first = f"[{{'role': 'system', 'content': {json.dumps(system, ensure_ascii=False)}}}]"
    return f"{{%- if messages[0]['role'] != 'system' %}}{{%- set messages = {first} + messages %}}{{%- endif %}}{sealed}"


def text(target: Target, *, served: str, host: str, port: int, limit: int | None = None) -> str:
    """The script. Folders inside of the target's are named from there, so that it may be moved; the base by its absolute path or hub id."""
    home = (target.folder or Path()).resolve()

    def near(path: str | Path) -> str:
        whole = Path(place(str(path)))
        return f"./{whole.resolve().relative_to(home)}" if whole.is_dir() and whole.resolve().is_relative_to(home) else str(whole)

    paths = {name: near(adapter.path) for name, adapter in target.adapters.items()}
    modules = {**paths, served: paths[target.best]} if target.adapters else {}
    ranks = [adapter.rank for adapter in target.adapters.values()]
    lines = [
        f"vllm serve {shlex.quote(near(target.base))}",
        f"--served-model-name {shlex.quote(target.own)}" + ("" if target.adapters else f" {shlex.quote(served)}"),
        f"--host {shlex.quote(host)} --port {port}",
        f"--chat-template ./{FOLDER}/chat_template.jinja",
        f"--generation-config ./{FOLDER}",
        "--override-generation-config '{\"temperature\": 0.0}'",
    ]
    if modules:
        lines += [
            f"--enable-lora --max-loras {len(modules)} --max-lora-rank {rank_limit([limit] if limit else ranks)}",
            "--lora-modules " + " ".join(shlex.quote(f"{name}={path}") for name, path in modules.items()),
        ]
    if target.config.trust_remote_code:
        lines.append("--trust-remote-code")
    notes = ["# Starts vLLM with the names of `python -m train serve`. Install vLLM in an environment of its own."]
    if target.config.method == "qlora":
        notes.append("# Trained on a 4-bit base, which vLLM does not serve: here they answer on the full-precision base.")
    notes.append("# Adapters are loaded and unloaded while it runs, by POST /v1/load_lora_adapter: let nobody reach the port who may not.")
    return "\n".join(
        [
            "#!/bin/sh",
            *notes,
            'cd "$(dirname "$0")/.." || exit 1',
            "export VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
            "exec " + " \\\n  ".join([*lines, '"$@"']),
            "",
        ]
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
