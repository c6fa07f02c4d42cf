"""The main job by its commands, small: a data set from the offline teacher, then a real student through every stage."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipe r.yaml and its exported data set."""
    folder = tmp_path_factory.mktemp("job")
    recipe = yaml.safe_load((ROOT / "recipes/banking.yaml").read_text(encoding="utf-8"))
    recipe["name"] = "small"
    recipe["taxonomy"] = str(ROOT / recipe["taxonomy"])
    recipe["teachers"]["teacher"]["params"]["faults"].pop("contaminated_from")
    recipe["teachers"]["teacher"]["params"]["faults"].pop("contaminated")
    recipe["evaluation_sets"] = [{"name": "handwritten", "path": str(ROOT / "taxonomies/banking_support.eval.jsonl")}]
    recipe["mix"] = {name: count // 12 for name, count in recipe["mix"].items()}
    recipe["split"] = {"validation": 0.1, "test": 0.15}
    recipe["train"]["sft"] |= {"max_steps": 12}
    recipe["train"]["dpo"] |= {"max_steps": 3}
    recipe["train"]["evaluation"] |= {"validation_rows": 16, "test_rows": 40, "points": 1, "max_new_tokens": 24}
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    for verb in ("generate", "curate", "export"):
        run(folder, "datagen", verb, "--recipe", "r.yaml")
    return folder


def train(folder: Path, student: str, **changes: object) -> list[dict[str, object]]:
    recipe = yaml.safe_load((folder / "r.yaml").read_text())
    recipe["train"] |= {"student": student, **changes}
    (folder / "t.yaml").write_text(yaml.safe_dump(recipe))
    run(folder, "train", "run", "--recipe", "t.yaml")
    latest = folder / "runs/latest"
    assert {p.name for p in latest.iterdir()} >= {"sft", "dpo", "merged", "report.html", "failures.parquet", "template_proof.json"}
    measures: list[dict[str, object]] = json.loads((latest / "evaluation.json").read_text())
    assert {m["model"] for m in measures} >= {"base", "teacher", "sft", "dpo", "merged"}
    assert {m["set"] for m in measures} == {"test", "general", "handwritten"}
    (folder / "prompts.jsonl").write_text('{"prompt": "Where is my card?", "id": 7}\n')
    run(folder, "train", "predict", "--model", "runs/latest", "--input", "prompts.jsonl", "--output", "answers.jsonl")
    answer = json.loads((folder / "answers.jsonl").read_text())
    assert answer["id"] == 7
    assert isinstance(answer["completion"], str)
    return measures


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_built_in_student_goes_through_every_stage(data: Path, method: str) -> None:
    train(data, str(ROOT / "train/students/tiny"), method=method)


@pytest.mark.slow
@pytest.mark.real_data
def test_a_real_pretrained_model_goes_through_every_stage(data: Path, real_data: Path) -> None:
    train(data, str(real_data / "stories260k_hf"), max_length=512)
