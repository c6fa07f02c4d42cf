"""The learning curve: nested parts, points that are not trained twice, a law only where points support one, and what more rows cost."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from train import cli, curve
from train.config import TrainConfig
from train.curve import cut, fit_set, learn
from train.dataset import Manifest
from train.errors import ConfigError, DataError
from train.metrics import Answer, TaskSpec, read_answer
from train.report import write_report
from train.watch import Silent

MakeConfig = Callable[..., TrainConfig]
TASK = TaskSpec(output="text")
PAID = {"cost_usd": 0.02, "low": 0.015, "high": 0.025}


def with_facts(manifest: Manifest, **facts: Any) -> Manifest:
    teachers = [{**t, "simulated": False} for t in manifest.teachers]
    return manifest._replace(data={"per_accepted": PAID, **facts}, teachers=teachers)


def simulated(
    chances: dict[int, float], seeds: tuple[int, ...] = (0,), rows: int = 2000
) -> tuple[list[dict[str, Any]], list[list[Answer]]]:
    """Points of a curve whose true values are known: rows differ in how hard they are, and a hard row is hard at each point."""
    points, answers = [], []
    for seed in seeds:
        for size, chance in chances.items():
            points.append({"share": size / max(chances), "seed": seed, "rows": size})
            hard = random.Random(99)
            noise = random.Random(1000 * seed + size)
            levels = [0.7 * hard.random() + 0.3 * noise.random() for _ in range(rows)]
            bar = float(np.quantile(levels, chance))
            answers.append([read_answer(TASK, "", "yes" if level <= bar else "no", "yes") for level in levels])
    return points, answers


def law(n: float) -> float:
    return 0.95 - 2.0 * n**-0.4


def test_parts_are_nested_and_no_group_is_torn(manifest: Manifest, tmp_path: Path) -> None:
    ids = []
    for share in (0.12, 0.5, 1.0):
        part = cut(manifest, share, 3, tmp_path / str(share))
        rows = pq.read_table(part.path("sft/train.parquet")).to_pylist()
        ids.append({row["id"] for row in rows})
        assert part.count("sft/train.parquet") == len(rows)
        assert part.count("sft/validation.parquet") == manifest.count("sft/validation.parquet")
    assert ids[0] < ids[1] < ids[2]
    assert [len(found) for found in ids] == [6, 24, 48]


def test_another_seed_cuts_other_parts(manifest: Manifest, tmp_path: Path) -> None:
    def rows(seed: int) -> set[str]:
        path = cut(manifest, 0.25, seed, tmp_path / str(seed)).path("sft/train.parquet")
        return set(pq.read_table(path).column("id").to_pylist())

    assert rows(1) != rows(2)


def test_a_planted_law_is_found_and_its_forecast_holds_the_truth(manifest: Manifest) -> None:
    sizes = (240, 500, 1000, 2000)
    points, answers = simulated({n: law(n) for n in sizes})
    found = fit_set("mine", "exact_match", points, answers, with_facts(manifest))
    assert found["law"] is not None, found["why_no_law"]
    ahead = found["next"]
    truth = law(2000 + ahead["training_rows"]) - law(2000)
    assert ahead["low"] <= truth <= ahead["high"]
    assert ahead["training_rows"] == pytest.approx(1000 * 48 / 64)
    assert ahead["cost_usd"] == {"value": 20.0, "low": 15.0, "high": 25.0}
    assert any("$20.00 ($15.00 to $25.00)" in sentence for sentence in found["sentences"])


def test_forecasts_of_many_planted_laws_hold_the_truth(manifest: Manifest) -> None:
    holds = total = 0
    for seed in range(12):
        points, answers = simulated({n: law(n) for n in (240, 500, 1000, 2000)}, seeds=(seed,), rows=800)
        found = fit_set("mine", "exact_match", points, answers, with_facts(manifest), seed=seed)
        if found["law"] is not None:
            total += 1
            holds += found["next"]["low"] - 0.005 <= law(2750) - law(2000) <= found["next"]["high"] + 0.005
    assert total >= 8
    assert holds >= total - 2


@pytest.mark.parametrize(
    ("chances", "why"),
    [
        ({240: 0.8, 500: 0.8, 1000: 0.8, 2000: 0.8}, "does not clearly rise"),
        ({240: 0.5, 500: 0.9, 1000: 0.4, 2000: 0.7}, "off the best power law"),
        ({500: 0.5, 1000: 0.6, 2000: 0.7}, "3 sizes fit any curve"),
    ],
)
def test_points_that_are_no_law_are_not_made_one(manifest: Manifest, chances: dict[int, float], why: str) -> None:
    found = fit_set("mine", "exact_match", *simulated(chances), with_facts(manifest))
    assert found["law"] is None and found["next"] is None
    assert why in found["why_no_law"]
    assert any("Nothing is forecast" in sentence for sentence in found["sentences"])
    assert found["last_step"]["low"] <= found["last_step"]["value"] <= found["last_step"]["high"]


def test_seeds_widen_the_interval_by_the_luck_of_training(manifest: Manifest) -> None:
    def lucky(seed: int) -> dict[int, float]:
        return {n: min(1.0, law(n) + (seed - 1) * 0.05) for n in (240, 500, 1000, 2000)}

    points: list[Any] = []
    answers: list[Any] = []
    for seed in range(3):
        more = simulated(lucky(seed), seeds=(seed,))
        points += more[0]
        answers += more[1]
    several = fit_set("mine", "exact_match", points, answers, with_facts(manifest))
    one = fit_set("mine", "exact_match", points[4:8], answers[4:8], with_facts(manifest))
    assert several["law"] is not None and one["law"] is not None
    wide, narrow = (f["law"]["line"][20]["high"] - f["law"]["line"][20]["low"] for f in (several, one))
    assert wide > narrow
    assert "test rows and seeds" in several["sentences"][-1]


def test_a_simulated_teacher_or_an_older_export_has_no_price(manifest: Manifest) -> None:
    points, answers = simulated({n: law(n) for n in (240, 500, 1000, 2000)})
    assert fit_set("mine", "exact_match", points, answers, manifest)["next"]["why"].startswith("the teacher was simulated")
    unpaid = with_facts(manifest)._replace(data={})
    assert "export again" in fit_set("mine", "exact_match", points, answers, unpaid)["next"]["why"]


def few(make_config: MakeConfig) -> TrainConfig:
    return make_config(sft={"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 2, "learning_rate": 0.01})


def test_points_that_are_done_are_not_trained_again(
    make_config: MakeConfig, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = few(make_config)
    folder, found = learn(config, manifest, progress=Silent(), shares=(0.25, 1.0))
    assert [(p["rows"], p["seed"]) for p in found["points"]] == [(12, 0), (48, 0)]
    assert found["set"] == "real" and [c["set"] for c in found["others"]] == ["test"]
    assert not list(folder.glob("*/sft")), "weights are not kept"
    from train import sft

    monkeypatch.setattr(sft, "train_sft", lambda *args, **kwargs: pytest.fail("trained again"))
    again, same = learn(config, manifest, progress=Silent(), shares=(0.25, 1.0))
    assert (again, same) == (folder, found)
    (folder / "1000-seed0" / "point.json").unlink()
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        learn(config, manifest, progress=Silent(), shares=(0.25, 1.0))


def test_the_report_of_a_run_on_the_same_data_shows_the_curve(manifest: Manifest, tmp_path: Path) -> None:
    points, answers = simulated({n: law(n) for n in (240, 500, 1000, 2000)})
    fitted = fit_set("mine", "exact_match", points, answers, with_facts(manifest))
    facts = {"student": "x", "manifest_sha256": "m"}
    for name, content in {"run/run.json": facts, "curve-1/curve.json": {**facts, **fitted}}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(content))
    assert "By the fitted law the next 1,000 accepted rows" in write_report(tmp_path / "run").read_text()
    (tmp_path / "run/run.json").write_text(json.dumps({**facts, "student": "another"}))
    assert "no learning curve was measured" in write_report(tmp_path / "run").read_text()


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.25), (0.0, 1.0), (0.5, 1.5)])
def test_shares_that_do_not_rise_are_refused(make_config: MakeConfig, manifest: Manifest, shares: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="must rise"):
        learn(few(make_config), manifest, progress=Silent(), shares=shares)


def test_an_export_without_held_out_rows_is_refused(make_config: MakeConfig, manifest: Manifest) -> None:
    only = manifest._replace(files={"sft/train.parquet": manifest.files["sft/train.parquet"]})
    with pytest.raises(DataError, match="no test rows"):
        learn(few(make_config), only, progress=Silent())


def test_the_command_prints_the_points_and_what_follows(
    student: Path, write_export: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_export(tmp_path / "data/toy")
    section = {
        "student": str(student), "lora": {"r": 4}, "max_length": 128,
        "sft": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 1},
        "evaluation": {"validation_rows": 4, "test_rows": 4, "points": 1, "max_new_tokens": 4, "batch_size": 4},
    }  # fmt: skip
    Path("recipe.yaml").write_text(yaml.safe_dump({"name": "toy", "seed": 1, "train": section}))

    def call(*arguments: str) -> int:
        with pytest.raises(SystemExit) as exit_:
            cli.main(["curve", "--recipe", "recipe.yaml", *arguments])
        return int(exit_.value.code or 0)

    assert call("--shares", "half,1") == 2
    assert call("--shares", "0.5,1") == 0
    said = capsys.readouterr().out
    assert "training rows" in said and "do not support a power law: 2 sizes" in said
    assert call("--shares", "0.5,1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["law"] is None
    assert curve.NEXT == 1000
