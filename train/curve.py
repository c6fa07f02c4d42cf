"""The learning curve: what more data would bring, and what it would cost.

    curve = learn(config, manifest, progress=Silent())

SFT alone is trained on nested parts of the data (12, 25, 50 and 100 %, cut by the hash of the group of near-duplicates) and each
student answers the same held-out rows. A power law, a - b n^-c, is fitted to the points; where they do not support one, nothing is
forecast. Everything is in runs/curve-<hash of settings and data>/, and a point that is done is not trained again.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from train.config import TrainConfig
from train.dataset import Manifest
from train.errors import ConfigError, DataError
from train.metrics import CONFIDENCE, METRICS, RESAMPLES, Answer, Metric, primary_metric, resampled_rows, score
from train.run import fingerprint
from train.watch import Progress, write_json

SHARES = (0.12, 0.25, 0.5, 1.0)
NEXT = 1000  # accepted rows whose gain is forecast
# Exponents of learning curves in text lie between these (Hestness et al. 2017 found 0.07 to 0.35 for language models); 2 is a step.
EXPONENTS = np.geomspace(0.03, 2.0, 80)
TRAIN, VALIDATION = "sft/train.parquet", "sft/validation.parquet"
Floats = NDArray[np.float64]


class Law(NamedTuple):
    """Metric = ceiling - drop * rows ** -exponent, and how far the points are from it: root mean square."""

    ceiling: float
    drop: float
    exponent: float
    misfit: float

    def at(self, rows: float) -> float:
        """The metric that the law expects at so many training rows."""
        return float(self.ceiling - self.drop * rows**-self.exponent)


# --- training --------------------------------------------------------------------------------------------------------


def learn(
    config: TrainConfig, manifest: Manifest, *, progress: Progress, shares: Sequence[float] = SHARES, seeds: int = 1
) -> tuple[Path, dict[str, Any]]:
    """Train and score every point that is not done, fit, and write curve.json; returns the folder and what is in it.

    The metric is the task's own on the first set that has one: external sets before held-out rows of the same generators.
    Raises ConfigError for shares that are no rising parts of 1, DataError for data without rows to score on.
    """
    from train.evaluate import read_answers, run_sets

    if len(shares) < 2 or sorted(set(shares)) != list(shares) or shares[0] <= 0 or shares[-1] > 1:
        raise ConfigError(f"--shares are {', '.join(f'{s:g}' for s in shares)}: they must rise, from above 0 to at most 1.")
    sets = [s for s in run_sets(config, manifest) if s.task is manifest.task]
    if not sets:
        raise DataError(f"{manifest.directory}: no test rows and no evaluation set. Export again with a test split.")
    folder = config.out / f"curve-{hashlib.sha256((fingerprint(config) + manifest.sha256).encode()).hexdigest()[:12]}"
    plan = [(share, config.seed + n) for n in range(seeds) for share in shares]
    progress.plan(
        "Learning curve",
        {
            "parts of the data": ", ".join(f"{100 * share:g} %" for share in shares),
            "trainings": f"{len(plan)}, {sum((folder / _name(*point) / 'point.json').is_file() for point in plan)} of them done",
            "data to train on": f"{sum(share for share, _ in plan):.2g} times that of one SFT",
            "scored on": ", ".join(f"{s.name} ({len(s.rows):,} rows)" for s in sets),
        },
    )
    points = []
    for share, seed in plan:
        points.append(_point(config.model_copy(update={"seed": seed}), manifest, sets, share, folder / _name(share, seed), progress))
    curves = []
    for s in sets:
        answers = [read_answers(s.rows, point["completions"][s.name], s.task) for point in points]
        metric = primary_metric(s.task)
        if not METRICS[metric].tally(answers[0]).any():
            metric = "exact_match"
        if METRICS[metric].tally(answers[0]).any():
            curves.append(fit_set(s.name, metric, points, answers, manifest, seed=config.seed))
    if not curves:
        raise DataError(f"{manifest.directory}: no set has a label or a completion to score against. Export a split with completions.")
    main = next((c for c in curves if c["set"] != "test"), curves[0])
    result = {
        "name": config.name, "student": config.student, "manifest_sha256": manifest.sha256, "config_sha256": fingerprint(config), **main,
        "others": [c for c in curves if c is not main],
    }  # fmt: skip
    write_json(folder / "curve.json", result)
    return folder, result


def _name(share: float, seed: int) -> str:
    return f"{round(1000 * share):04d}-seed{seed}"


def _point(config: TrainConfig, manifest: Manifest, sets: Sequence[Any], share: float, folder: Path, progress: Progress) -> dict[str, Any]:
    """One point: train on a part of the data, answer the held-out rows, keep the answers and forget the weights."""
    from train.evaluate import generate
    from train.model import load_student
    from train.sft import train_sft

    done = folder / "point.json"
    if done.is_file():
        found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return found
    part = cut(manifest, share, config.seed, folder / "data")
    progress.note(f"{100 * share:g} % of the data: {part.count(TRAIN):,} rows, seed {config.seed}")
    train_sft(config.model_copy(update={"data": part.directory}), part, folder, progress=progress)
    adapter = (folder / "sft" / "adapter_config.json").is_file()
    student = load_student(config.student, config, adapter=folder / "sft") if adapter else load_student(str(folder / "sft"), config)
    completions = {}
    for s in sets:
        progress.start(f"evaluate {s.name}", len(s.rows))
        completions[s.name] = generate(
            student.model,
            student.tokenizer,
            [row.prompt for row in s.rows],
            max_new_tokens=config.evaluation.max_new_tokens,
            batch_size=config.evaluation.batch_size,
            report=progress.advance,
        )
    found = {"share": share, "seed": config.seed, "rows": part.count(TRAIN), "completions": completions}
    write_json(done, found)
    shutil.rmtree(folder / "sft")
    return found


def cut(manifest: Manifest, share: float, seed: int, target: Path) -> Manifest:
    """A part of the training rows as an export of its own: groups by the order of a hash, so that a smaller part lies in a larger one.

    Validation rows stay as they are.
    """
    table = pq.read_table(manifest.path(TRAIN))
    groups = table.column("group_id" if "group_id" in table.column_names else "id").to_pylist()
    sizes = Counter(groups)
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest())
    before = np.cumsum([0, *(sizes[group] for group in order[:-1])])
    kept = {group for group, rows in zip(order, before, strict=True) if rows < share * len(groups)}
    chosen = table.filter(pa.array([group in kept for group in groups]))
    files = {}
    for name, rows in {TRAIN: chosen, **({VALIDATION: None} if manifest.count(VALIDATION) else {})}.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if rows is None:
            shutil.copyfile(manifest.path(name), path)
        else:
            pq.write_table(rows, path)
        files[name] = {
            "rows": manifest.count(name) if rows is None else rows.num_rows,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    write_json(target / "manifest.json", {**manifest.raw, "files": files})
    return Manifest.read(target)


# --- fitting ---------------------------------------------------------------------------------------------------------


def fit_set(
    name: str, metric: str, points: Sequence[Mapping[str, Any]], answers: Sequence[Sequence[Answer]], manifest: Manifest, *, seed: int = 0
) -> dict[str, Any]:
    """The curve of one set: points with intervals, the law with intervals if there is one, and what follows in words.

    Points are resampled together, by test rows and, where there are several, by seeds: the same rows were answered at each point.
    """
    rows = np.array([point["rows"] for point in points], dtype=float)
    tallies = [METRICS[metric].tally(listed) for listed in answers]
    values = np.array([float(METRICS[metric].statistic(t.sum(0))) for t in tallies])
    drawn = _resampled(METRICS[metric], tallies, len({point["seed"] for point in points}), seed)
    measured = []
    for point, listed in zip(points, answers, strict=True):
        m = score({"sft": listed}, [metric], seed=seed).measures["sft"][0]
        measured.append({"share": point["share"], "seed": point["seed"], "rows": point["rows"], **m._asdict()})
    sizes = sorted(set(rows))
    ends = [np.where(rows == size)[0] for size in (sizes[0], sizes[-2], sizes[-1])]
    whole = _gain(values, drawn, ends[0], ends[2])
    last = _gain(values, drawn, ends[1], ends[2])
    law, why = _supported(rows, values, drawn, whole)
    result: dict[str, Any] = {
        "set": name, "metric": metric, "points": measured, "gain": whole,
        "last_step": {"from": sizes[-2], "to": sizes[-1], **last}, "law": None, "why_no_law": why, "next": None,
    }  # fmt: skip
    if law is not None:
        laws = _fit(rows, np.vstack([values, drawn]))
        training = manifest.count(TRAIN) / max(1, sum(manifest.count(f"sft/{part}.parquet") for part in ("train", "validation", "test")))
        more = sizes[-1] + NEXT * training
        line = np.geomspace(sizes[0], max(more, 2 * sizes[-1]), 40)
        result["law"] = {
            "ceiling": _spread([one.ceiling for one in laws]),
            "exponent": _spread([one.exponent for one in laws]),
            "drop": law.drop,
            "misfit": law.misfit,
            "line": [{"rows": float(n), **_spread([one.at(n) for one in laws])} for n in line],
        }
        gain = _spread([one.at(more) - one.at(sizes[-1]) for one in laws])
        result["next"] = {"accepted_rows": NEXT, "training_rows": NEXT * training, **gain, **_price(manifest)}
    return {**result, "sentences": _sentences(result, {point["seed"] for point in points})}


def _resampled(metric: Metric, tallies: Sequence[Floats], seeds: int, seed: int) -> Floats:
    """The metric of each point (resamples, points) on resampled test rows, and of resampled seeds where there are several.

    Points come seed by seed, in the same order of sizes.
    """
    times = resampled_rows(len(tallies[0]), seed=seed, resamples=RESAMPLES // 2).astype(float)
    drawn: Floats = np.stack([metric.statistic(times @ t) for t in tallies], axis=1)
    if seeds > 1:
        again = np.random.default_rng(seed).integers(0, seeds, (len(drawn), seeds))
        drawn = drawn.reshape(len(drawn), seeds, -1)[np.arange(len(drawn))[:, None], again].reshape(len(drawn), -1)
    return drawn[~np.isnan(drawn).any(axis=1)]


def _gain(values: Floats, drawn: Floats, before: NDArray[np.int64], after: NDArray[np.int64]) -> dict[str, float]:
    """What the metric gained between two sizes, with its interval."""
    resampled = drawn[:, after].mean(1) - drawn[:, before].mean(1)
    return _spread([float(values[after].mean() - values[before].mean()), *resampled.tolist()])


def _spread(values: Sequence[float]) -> dict[str, float]:
    """The first value, with the quantiles of the others as its 95 % interval."""
    low, high = np.nanquantile(values[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"value": float(values[0]), "low": float(min(low, values[0])), "high": float(max(high, values[0]))}


def _fit(rows: Floats, values: Floats) -> list[Law]:
    """The least-squares power law of each line of `values` (fits, points), with a drop of at least 0 and a ceiling of at most 1.

    Given the exponent the law is a line in n^-c, so the best line is found for each exponent of a grid, and the best of those is
    taken (variable projection, Golub and Pereyra 1973): no start values, no local minima.
    """
    best = np.full(len(values), np.inf)
    found = np.zeros((len(values), 3))
    for exponent in EXPONENTS:
        x = rows**-exponent
        centred, mean = x - x.mean(), values.mean(1)
        drop = np.maximum(0.0, -((values - mean[:, None]) @ centred) / (centred @ centred))
        ceiling = mean + drop * x.mean()
        over = ceiling > 1  # then the ceiling is 1 and the drop follows alone
        drop = np.where(over, np.maximum(0.0, ((1 - values) @ x) / (x @ x)), drop)
        ceiling = np.where(over, 1.0, ceiling)
        misfit = ((values - (ceiling[:, None] - drop[:, None] * x)) ** 2).mean(1)
        better = misfit < best - 1e-15
        best = np.where(better, misfit, best)
        found[better] = np.stack([ceiling, drop, np.full(len(values), exponent)], axis=1)[better]
    return [Law(float(one[0]), float(one[1]), float(one[2]), float(error**0.5)) for one, error in zip(found, best, strict=True)]


def _supported(rows: Floats, values: Floats, drawn: Floats, whole: Mapping[str, float]) -> tuple[Law | None, str | None]:
    """The law of the points, or why they do not support one."""
    sizes = len(set(rows))
    if sizes < 4:
        return None, f"{sizes} sizes fit any curve of three numbers; a law needs 4 or more"
    if whole["low"] <= 0:
        return None, "the metric does not clearly rise from the smallest part of the data to the whole"
    (law,) = _fit(rows, values[None])
    noise = np.nanstd(drawn - np.nanmean(drawn, axis=1, keepdims=True), axis=0)  # of each point against the others, on the same rows
    residuals = np.array([law.at(n) for n in rows]) - values
    off = np.abs(residuals) / np.maximum(noise, 1e-9)
    # residuals of four points and three numbers are small; one that test rows alone would seldom give says that it is no such curve
    if off.max() > 2.5 and np.abs(residuals).max() > 0.01:
        where = int(off.argmax())
        far = f"{100 * abs(residuals[where]):.1f} points"
        return None, f"the point at {rows[where]:,.0f} rows is {far} off the best power law, more than chance"
    return law, None


def _price(manifest: Manifest) -> dict[str, Any]:
    """What NEXT accepted rows would cost, from what the present ones did; None where that is not known."""
    paid = manifest.data.get("per_accepted") or {}
    if all(t.get("simulated") for t in manifest.teachers):
        return {"cost_usd": None, "why": "the teacher was simulated and has no price"}
    if not paid.get("cost_usd"):
        return {"cost_usd": None, "why": "the manifest does not say what an accepted row cost; export again"}
    return {"cost_usd": {name: NEXT * paid[key] for name, key in (("value", "cost_usd"), ("low", "low"), ("high", "high"))}, "why": None}


def _sentences(curve: Mapping[str, Any], seeds: set[int]) -> list[str]:
    """What the curve says, in words."""

    def points(spread: Mapping[str, float]) -> str:
        return f"{100 * spread['value']:+.1f} points (95 % interval {100 * spread['low']:+.1f} to {100 * spread['high']:+.1f})"

    step, law, ahead = curve["last_step"], curve["law"], curve["next"]
    said = [f"From {step['from']:,.0f} to {step['to']:,.0f} training rows, {curve['metric']} on {curve['set']} changed by {points(step)}."]
    if law is None:
        said.append(f"The points do not support a power law: {curve['why_no_law']}. Nothing is forecast.")
    else:
        ceiling = f"{100 * law['ceiling']['value']:.0f} % ({100 * law['ceiling']['low']:.0f} to {100 * law['ceiling']['high']:.0f})"
        more = f"{ahead['accepted_rows']:,} accepted rows ({ahead['training_rows']:,.0f} of them for training)"
        said.append(f"By the fitted law the next {more} bring {points(ahead)}; this data and student level off at {ceiling}.")
        cost = ahead["cost_usd"]
        said.append(
            f"They would cost ${cost['value']:,.2f} (${cost['low']:,.2f} to ${cost['high']:,.2f}), as the present ones did."
            if cost
            else f"What they would cost is not known: {ahead['why']}."
        )
        if law["ceiling"]["high"] - law["ceiling"]["low"] > 0.1:
            said.append("The ceiling is hardly determined: trust the forecast near the data alone.")
    luck = "test rows and seeds" if len(seeds) > 1 else "the choice of test rows, not the luck of training"
    said.append(f"The intervals cover {luck}. Each part was trained by the recipe's epochs, so a smaller part saw fewer steps.")
    return said
