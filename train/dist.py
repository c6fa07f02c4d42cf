"""The folder that a run's result leaves in, its check, and its way to the Hub.

folder = build(run_dir, config, manifest, Path("dist"))
verify(folder)                                             raises DataError with the name of a changed file
listed = plan_upload(folder, "owner/name")                 what would be sent, without a network
url = upload(folder, "owner/name")

dist/<name>/   adapter/  merged/  gguf/ (with a Modelfile for Ollama)  awq/  gptq/
               README.md  evaluation.json  LICENCES.md  SHA256SUMS
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from train import artifacts, model, ollama
from train.artifacts import Artifact
from train.config import BUILT_IN, TINY, TrainConfig
from train.errors import ConfigError, DataError, ModelError
from train.merge import read_card
from train.quantize import LORA_GGUF
from train.sums import SUMS, files_of, verify, write_sums
from train.verdicts import held_back

# Files of a run that travel along where they are there: the card, scores, the gate's verdicts, where each row came from.
PAPERS = (
    "README.md",
    "evaluation.json",
    "comparisons.json",
    "analysis.json",
    "gate.json",
    "provenance.json",
    "provenance.parquet",
    "template_proof.json",
)
MODELFILE_OF = ("gguf-q4_k_m", "gguf-q8_0", "gguf-f16")  # the first that is there is what Ollama runs


def build(run_dir: Path, config: TrainConfig, out: Path) -> Path:
    """Copy a run's artifacts and papers into out/<name>/ and return it; it is whole or not there at all.

    What the gate held back stays behind. An older folder of the same name is replaced if it is as it was written. Raises ConfigError for
    too little disk or a folder that was changed by hand, ModelError for a run that was not merged, DataError for one whose merged model did
    not pass the gate, or that did not go through it.
    """
    card = read_card(run_dir / "merged")
    if not card:
        raise ModelError(f"{run_dir}: has no merged model to hand out. Merge first: `python -m train merge --model {run_dir}`.")
    if why := held_back(run_dir, "merged"):
        mend = f'`python -m train gate --model {run_dir} --accept merged --by NAME --because "..."` puts your own decision on record.'
        raise DataError(f"{run_dir}: nothing of this run ships: {why}. {mend}")
    found = [artifact for artifact in artifacts.found(run_dir) if held_back(run_dir, artifact.name) is None]
    target = out / config.name
    needed = size(run_dir)
    free = shutil.disk_usage(_existing(out)).free
    if free < needed:
        raise ConfigError(f"{target}: {free // 1_000_000} MB free, its files take {needed // 1_000_000}. Free some, or set --out.")
    _check_replaceable(target)
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for artifact in found:
        _copy(artifact, fresh, config.name)
    lora = run_dir / artifacts.QUANTIZED / LORA_GGUF / "adapter.gguf"
    if lora.is_file():
        (fresh / "gguf").mkdir(exist_ok=True)
        shutil.copyfile(lora, fresh / "gguf" / f"{config.name}-lora.gguf")
    for name in PAPERS:
        if (run_dir / name).is_file():
            shutil.copyfile(run_dir / name, fresh / name)
    first = next((name for name in MODELFILE_OF if any(artifact.name == name for artifact in found)), None)
    if first:
        tokenizer = model.load_tokenizer(str(run_dir / "merged"), trust_remote_code=config.trust_remote_code)
        text = ollama.modelfile(
            _gguf_name(config.name, first),
            tokenizer,
            str(card["system"]),
            max_new_tokens=config.evaluation.max_new_tokens,
            context=config.max_length,
        )
        (fresh / "gguf" / "Modelfile").write_text(text, encoding="utf-8")
    (fresh / "LICENCES.md").write_text(licences(config.student, card["teachers"]), encoding="utf-8")
    write_sums(fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target


def size(run_dir: Path) -> int:
    """Bytes that a run's artifacts will take in a folder of their own."""
    paths = [artifact.path for artifact in artifacts.found(run_dir)] + [run_dir / artifacts.QUANTIZED / LORA_GGUF]
    return sum(file.stat().st_size for path in paths if path.exists() for file in files_of(path))


def licences(student: str, teachers: Sequence[Mapping[str, Any]]) -> str:
    """What is known of the terms under which base and teachers' outputs may be used, as Markdown; it decides nothing."""
    lines = [
        "# Licences and terms",
        "",
        "What the makers of the parts say. The weights here come from both: the base's licence and the teachers' terms bind together.",
        "",
        f"- Base `{student}`: {base_licence(student)}",
    ]
    for teacher in teachers:
        terms: Mapping[str, Any] = teacher.get("terms") or {}
        said = terms.get("says") or "no terms are on record"
        source = f" ({terms['source']}, read {terms.get('read', 'on an unknown day')})" if terms.get("source") else ""
        decision = f" Decided by the user: {json.dumps(teacher['decision'], ensure_ascii=False)}." if teacher.get("decision") else ""
        kind = "simulated" if teacher.get("simulated") else "asked"
        lines.append(f"- {str(teacher.get('role', 'teacher')).capitalize()} `{teacher.get('model')}`, {kind}: {said}{source}.{decision}")
    return "\n".join(lines) + "\n"


def base_licence(student: str) -> str:
    """The licence that a base's own card names, or where to look for it."""
    if student == BUILT_IN or Path(student).expanduser() == TINY:
        return "Apache-2.0, made by this project's own script."
    folder = Path(student).expanduser()
    card = folder / "README.md"
    if card.is_file() and (header := re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8"), re.DOTALL)):
        try:
            metadata = yaml.safe_load(header[1]) or {}
        except yaml.YAMLError:
            metadata = {}
        if name := metadata.get("license_name") or metadata.get("license"):
            link = f", {metadata['license_link']}" if metadata.get("license_link") else ""
            return f"{name}{link}, as its card says."
    if folder.is_dir():
        named = next((path.name for path in sorted(folder.iterdir()) if path.name.upper().startswith(("LICENSE", "LICENCE"))), None)
        return f"see its file {named}." if named else "its folder says nothing. Ask whoever gave it to you."
    return f"see https://huggingface.co/{student}."


def _copy(artifact: Artifact, folder: Path, name: str) -> None:
    if artifact.kind == "gguf":
        target = folder / "gguf" / _gguf_name(name, artifact.name)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(artifact.path, target)
        return
    for path in files_of(artifact.path):
        target = folder / artifact.name / path.relative_to(artifact.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _gguf_name(name: str, artifact: str) -> str:
    return f"{name}-{artifact.removeprefix('gguf-')}.gguf"


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.resolve().parents) if p.exists())


def _check_replaceable(target: Path) -> None:
    if not target.exists():
        return
    try:
        known = {*verify(target), SUMS}
    except (DataError, NotADirectoryError) as error:
        raise ConfigError(f"{target}: is in the way and not as `dist` wrote it ({error}) Move it, or set --out.") from error
    own = [p for p in files_of(target) if p.relative_to(target).as_posix() not in known]
    if own:
        raise ConfigError(f"{own[0]}: is not one of ours, and making {target} again would remove it. Move it, or set --out.")
