"""What a run made that can be deployed, and how each is loaded again."""

from pathlib import Path
from typing import NamedTuple

from train.config import TrainConfig
from train.model import Student, load_student


class Artifact(NamedTuple):
    """Something of a run that can be deployed."""

    name: str
    kind: str
    path: Path


def found(run_dir: Path) -> list[Artifact]:
    """The artifacts of a run."""
    stage = next((s for s in ("dpo", "sft") if (run_dir / s).is_dir()), None)
    listed = [Artifact("adapter", "adapter", run_dir / stage)] if stage else []
    if (run_dir / "merged" / "config.json").is_file():
        listed.append(Artifact("merged", "merged", run_dir / "merged"))
    return listed


def load(artifact: Artifact, config: TrainConfig) -> Student:
    """Load one again."""
    if artifact.kind == "adapter" and (artifact.path / "adapter_config.json").is_file():
        return load_student(config.student, config, adapter=artifact.path)
    return load_student(str(artifact.path), config, quantize=False)
