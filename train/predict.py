"""Answer prompts from a file with a student, as evaluation does.

    count = predict("runs/latest", Path("prompts.jsonl"), Path("answers.jsonl"), progress=Silent())

A model is a merged folder, an adapter folder, a run's folder, or any student by folder or hub id.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from train.config import TrainConfig
from train.dataset import Manifest, Message
from train.errors import DataError, ModelError
from train.evaluate import generate
from train.merge import read_card
from train.model import Student, load_student
from train.run import config_of, read_record
from train.watch import Progress


class Speaker(NamedTuple):
    """A loaded student with the system message it was trained with, if that is known."""

    student: Student
    system: str
    max_new_tokens: int


def predict(
    where: str, input_path: Path, output_path: Path, *, progress: Progress, max_new_tokens: int | None = None, batch_size: int = 32
) -> int:
    """Answer each line of `input_path` and write it with "completion" added, in the same order; return the number.

    Raises DataError with file and line for a line without a prompt, before the model is loaded.
    """
    records = read_prompts(input_path)
    speaker = load_speaker(where)
    prompts = [with_system(record["prompt"], speaker.system) for record in records]
    progress.start("predict", len(prompts))
    completions = generate(
        speaker.student.model,
        speaker.student.tokenizer,
        prompts,
        max_new_tokens=max_new_tokens or speaker.max_new_tokens,
        batch_size=batch_size,
        report=progress.advance,
    )
    lines = [
        json.dumps({**record, "completion": completion}, ensure_ascii=False)
        for record, completion in zip(records, completions, strict=True)
    ]
    try:
        output_path.parent.mkdir(parents=True, exist_ok=True)
        fresh = output_path.with_name(output_path.name + ".new")
        fresh.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        fresh.replace(output_path)
    except OSError as error:
        raise DataError(f"{output_path}: cannot be written: {error}. Set --output FILE.") from error
    return len(lines)


def load_speaker(where: str) -> Speaker:
    """Load what `where` names: a run's merged model, a merged folder, an adapter on its base, or a plain student."""
    folder = Path(where)
    if (folder / "run.json").is_file():
        if not (folder / "merged").is_dir():
            mend = f"Run `python -m train merge --model {where}`, or name {where}/sft."
            raise ModelError(f"{where}: this run has no merged model yet. {mend}")
        folder = folder / "merged"
    if (folder / "adapter_config.json").is_file():
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base:
            raise ModelError(f"{folder / 'adapter_config.json'}: does not name its base model. Set base_model_name_or_path.")
        run_dir = folder.resolve().parent
        config = config_of(run_dir) if (run_dir / "run.json").is_file() else TrainConfig()
        return Speaker(load_student(base, config, adapter=folder), *training_of(run_dir, config))
    student = load_student(str(folder) if folder.is_dir() else where)
    card = read_card(folder)
    if not card and folder.is_dir() and (folder.resolve().parent / "run.json").is_file():
        run_dir = folder.resolve().parent
        return Speaker(student, *training_of(run_dir, config_of(run_dir)))
    return Speaker(student, str(card.get("system", "")), int(card.get("max_new_tokens", 256)))


def with_system(prompt: Any, system: str) -> list[Message]:
    """Return messages; a prompt without a system message gets `system`."""
    messages: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if system and not any(message["role"] == "system" for message in messages):
        return [{"role": "system", "content": system}, *messages]
    return messages


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines of {"prompt": messages or text, ...}."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}. Set --input FILE with a JSON object per line.") from error
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            prompt = record["prompt"]
            good = isinstance(prompt, str) or (
                bool(prompt) and all(isinstance(m["role"], str) and isinstance(m["content"], str) for m in prompt)
            )
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            raise DataError(f'{path}:{number}: not {{"prompt": text or messages with role and content}}: {line[:80]}')
        records.append(record)
    return records


def training_of(run_dir: Path, config: TrainConfig) -> tuple[str, int]:
    """The system message and answer length that a run trained with."""
    card = read_card(run_dir / "merged")
    if card:
        return str(card["system"]), int(card["max_new_tokens"])
    if not (run_dir / "run.json").is_file():
        return "", config.evaluation.max_new_tokens
    data = Path(read_record(run_dir)["data"])
    return Manifest.read(data).task.system, config.evaluation.max_new_tokens
