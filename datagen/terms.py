"""What a teacher's terms say about training on its outputs: a small table, carried into the manifest and the model card."""

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from datagen.config import ModelConfig

_TERMS = Path(__file__).with_name("terms.yaml")


def terms_of(model: str) -> dict[str, str]:
    """outputs_may_train (yes, no, unknown), source and note for a model string; unknown where the table is silent."""
    for row in yaml.safe_load(_TERMS.read_text(encoding="utf-8")):
        if fnmatch(model.lower(), row["match"]):
            return {key: row[key] for key in ("outputs_may_train", "source", "note")}
    return {"outputs_may_train": "unknown", "source": "", "note": "not in the table: read the provider's terms"}


def describe_teachers(roles: Mapping[str, ModelConfig]) -> list[dict[str, Any]]:
    """One entry per role for the manifest: model, whether it is simulated, and its terms."""
    return [
        {"role": role, "model": config.model, "simulated": config.model.startswith("offline/"), "terms": terms_of(config.model)}
        for role, config in roles.items()
    ]
