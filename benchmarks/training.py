"""What the training half promises of its proofs and its numbers: planted faults, packing, intervals, metrics.

    REAL_DATA=FOLDER DATA=data/banking python benchmarks/training.py [EVALUATIONS]
    python benchmarks/training.py killed demo        # these parts alone; the other rows of the results stay

Faults are planted in the real chat templates of FOLDER where it is given, and in our own. Packed rows are compared with separate ones
on tiny random students. A run is killed and goes on. The demo is trained. Intervals are judged by how many of those of simulated evaluations, whose truth is known, hold it. Metrics
are compared with the implementations that others use, on random cases.
"""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from planted_templates import DATASETS, UNSOUND, check, own_cases, planted, real_cases
from results_file import RESULTS, Result, machine, publish
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score
from torchmetrics.functional.text import squad
from transformers import AutoConfig, AutoModelForCausalLM

from train.errors import TemplateError
from train.metrics import METRICS, Answer, TaskSpec, read_answer, score
from train.model import quiet
from train.proof import prove_packing
from train.watch import read_history

EVALUATIONS = next((int(word) for word in sys.argv[1:] if word.isdigit()), 200)
CASES = 1000
ROWS = (50, 120, 500)


def exact(count: int, total: int) -> tuple[float, float]:
    found = binomtest(count, total).proportion_ci(method="exact")
    return float(found.low), float(found.high)


# --- the template proof -----------------------------------------------------------------------------------------------------------


def faults() -> Iterator[Result]:
    folder = os.environ.get("REAL_DATA")
    cases = [*own_cases(), *(real_cases(Path(folder)) if folder else [])]
    sound = [case for case in cases if case.name not in UNSOUND]
    refused: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for case, fault in planted(cases):
        try:
            check(case, DATASETS["json"], fault)
        except NotImplementedError:
            continue
        except TemplateError as error:
            refused[fault.name] += re.search(fault.words, str(error)) is not None
        total[fault.name] += 1
    where = f"{len(sound)} sound templates ({len(own_cases())} of our own); {machine()}"
    caught = sum(refused[name] == total[name] for name in total)
    yield Result(
        "kinds of template fault refused", caught, f"of {len(total)}", caught, caught, "in every template, with its reason; " + where
    )
    done, all_of = sum(refused.values()), sum(total.values())
    yield Result("planted template faults refused", done / all_of, "share", *exact(done, all_of), f"{all_of} planted; {where}")
    wrong = runs = 0
    for case in sound:
        for rows in DATASETS.values():
            runs += 1
            try:
                check(case, rows)
            except TemplateError:
                wrong += 1
    yield Result(
        "false refusals", wrong / runs, "share", *exact(wrong, runs), f"{len(sound)} templates x {len(DATASETS)} data sets; {machine()}"
    )
    unsound = [case for case in cases if case.name in UNSOUND]
    if unsound:
        named = 0
        for case in unsound:
            try:
                check(case, DATASETS["json"])
            except TemplateError as error:
                named += UNSOUND[case.name] in str(error)
        conditions = "real templates that write no stop token after an answer: " + ", ".join(case.name for case in unsound)
        yield Result("templates without an end refused", named, f"of {len(unsound)}", named, named, conditions)


# --- packing ------------------------------------------------------------------------------------------------------------------------

SHAPE = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MODELS: dict[str, dict[str, int]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma2": {"sliding_window": 16},
    "gemma3_text": {"sliding_window": 16},
    "mistral": {"sliding_window": 16},
}


def packing() -> Iterator[Result]:
    for kind, more in MODELS.items():
        largest = 0.0
        for seed in range(5):
            torch.manual_seed(seed)
            config = AutoConfig.for_model(kind, **{**SHAPE, **more})
            rows = [torch.randint(3, 320, (int(n),)).tolist() for n in torch.randint(4, 60, (6,))]
            for attention in ("eager",) if kind == "gemma2" else ("sdpa", "eager"):
                model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
                largest = max(largest, prove_packing(model, rows, count=6)["max_difference"])
        conditions = f"largest difference of a logit, float32, 5 seeds, 6 rows of 4 to 60 tokens, sdpa and eager; {machine()}"
        yield Result(f"packed against separate rows: {kind}", largest, "logits", largest, largest, conditions)


# --- a run that is killed, and the demo ---------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]


def small_export(folder: Path, rows: int = 64) -> None:
    """A data set in the export's form, of the built-in general rows: the first words are better answers than the last ones."""
    lines = [json.loads(line) for line in (ROOT / "train/general/train.jsonl").read_text(encoding="utf-8").splitlines()[: rows + 1]]
    answers = [line["completion"] if isinstance(line["completion"], str) else line["completion"][0]["content"] for line in lines]
    said = [[{"role": "assistant", "content": answer}] for answer in answers]
    files = {}
    for name, split in (("train", range(rows)), ("validation", range(8))):
        for kind in ("sft", "preference"):
            found = [
                {"id": f"r{i:03d}", "prompt": lines[i]["prompt"], "label": None, "kind": None, "topic": None, "group_id": None}
                | ({"completion": said[i]} if kind == "sft" else {"chosen": said[i], "rejected": said[i + 1]})
                for i in split
            ]
            path = folder / kind / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(found), path)
            files[f"{kind}/{name}.parquet"] = {"rows": len(found), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    teachers = [{"role": "teacher", "model": "built-in", "simulated": True, "terms": {}, "settled": True}]
    task = {"type": "text", "system": "", "output": "text"}
    whole = {"format": 1, "name": "killed", "task": task, "files": files, "teachers": teachers, "decontamination": {"passed": True}}
    (folder / "manifest.json").write_text(json.dumps(whole))


def killed() -> Iterator[Result]:
    """Kill -9 when the second checkpoint of a stage is there, go on, and compare all losses with those of an undisturbed run."""
    few = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 24, "logging_steps": 1}
    section = {
        "sft": few,
        "dpo": few,
        "lora": {"r": 4},
        "max_length": 256,
        "evaluation": {"points": 6, "validation_rows": 2, "max_new_tokens": 2, "few_shot": 0},
    }
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        small_export(home / "data/killed")
        (home / "recipe.yaml").write_text(json.dumps({"name": "killed", "seed": 1, "train": section}))
        python = [sys.executable, "-m", "train"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}

        def command(stage: str, run: str) -> list[str]:
            return [*python, "sft", "--recipe", "recipe.yaml", "--out", run] if stage == "sft" else [*python, "dpo", "--model", run]

        for stage in ("sft", "dpo"):
            subprocess.run(command(stage, "whole"), cwd=home, env=env, check=True, capture_output=True)
            process = subprocess.Popen(command(stage, "broken"), cwd=home, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and not list(home.glob(f"broken/work/{stage}/checkpoint-8/trainer_state.json")):
                time.sleep(0.01)
            process.kill()
            assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"
            subprocess.run(command(stage, "broken"), cwd=home, env=env, check=True, capture_output=True)
            lines = [[x for x in read_history(home / run / "metrics.jsonl") if x["stage"] == stage] for run in ("whole", "broken")]
            whole, broken = ([x["loss"] for x in found if "loss" in x] for found in lines)
            off = max(abs(a - b) for a, b in zip(whole, broken, strict=True))
            conditions = f"largest difference of a loss in {len(whole)} steps, killed after the second of 6 checkpoints; {machine()}"
            yield Result(f"killed and resumed: {stage.upper()}", off, "nats", off, off, conditions)


def demo() -> Iterator[Result]:
    """`make train` on the demo's data, where DATA names the folder (`make datagen` makes data/banking)."""
    data = Path(os.environ.get("DATA", ROOT / "data/banking")).resolve()
    if not (data / "manifest.json").is_file():
        print(f"the demo's bar is left out: no data in {data}; run `make datagen`, or set DATA=FOLDER", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "demo"
        command = [sys.executable, "-m", "train", "run", "--recipe", "recipes/banking.yaml", "--data", str(data), "--out", str(run)]
        begin, spent = time.monotonic(), os.times()
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
        seconds, now = time.monotonic() - begin, os.times()
        cpu = now.children_user + now.children_system - spent.children_user - spent.children_system
        yield Result("demo: make train", seconds, "seconds", seconds, seconds, f"{cpu:.0f} CPU seconds; {machine()}")
        yield from gains(run)


def gains(run: Path) -> Iterator[Result]:
    """What a finished run's own records say of its last student against its base, on its test rows and on general ones."""
    for line in json.loads((run / "comparisons.json").read_text(encoding="utf-8")):
        if (line["a"], line["b"]) == ("base", "dpo") and (line["set"], line["metric"]) in (
            ("test", "label_accuracy"),
            ("general", "exact_match"),
        ):
            name = f"demo: {line['metric']} on {line['set']} rows, DPO against base"
            n = line.get("n", "")
            yield Result(name, line["difference"], "share", line["low"], line["high"], f"paired 95 % interval, {n} rows; {machine()}")


# --- intervals ----------------------------------------------------------------------------------------------------------------------


class Truth(NamedTuple):
    """Kinds of row that a simulated evaluation draws from, with what the models a and b answer, and what is true of them."""

    metric: str
    rows: list[dict[str, Answer]]
    chances: np.ndarray[Any, Any]


TEXT = TaskSpec(type="text", output="text")
LABELS = [f"l{i:02d}" for i in range(40)]
LABELLED = TaskSpec(output="json", label_field="intent", labels=tuple(LABELS), entities_field="entities")


def label_answer(wanted: str, said: str) -> Answer:
    return read_answer(LABELLED, "", f'{{"intent":"{said}"}}', f'{{"intent":"{wanted}"}}')


def entity_answer(said: str) -> Answer:
    return read_answer(LABELLED, "", f'{{"intent":"l00","entities":{said}}}', '{"intent":"l00","entities":{"a":"1","b":"2"}}')


RIGHT_WRONG = [label_answer("l00", "l00"), label_answer("l00", "l01")]
WORDS = "one two three four"
# token F1 of 1, 0.857, 0.667, 0.4, 0
TEXTS = [read_answer(TEXT, "", said, WORDS) for said in (WORDS, "one two three", "one two", "one", "none")]
ENTITIES = [entity_answer(said) for said in ('{"a":"1","b":"2"}', '{"a":"1"}', '{"a":"1","b":"3"}', '{"a":"1","b":"2","c":"3"}', "{}")]


def paired(answers: list[Answer], metric: str, chances: np.ndarray[Any, Any]) -> Truth:
    """Models a and b answer with i and j with the chance (i, j)."""
    rows = [{"a": a, "b": b} for a in answers for b in answers]
    return Truth(metric, rows, chances.ravel())


def joint(first: np.ndarray[Any, Any], stay: float, second: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """b answers as a with the chance `stay`, else by its own chances."""
    return stay * np.diag(first) + (1 - stay) * np.outer(first, second)


def shares(rng: np.random.Generator, regime: str) -> Truth:
    low, high = {"near 0": (0.005, 0.08), "middle": (0.15, 0.85), "near 1": (0.92, 0.995)}[regime]
    a, b = rng.uniform(low, high, 2)
    chances = joint(np.array([a, 1 - a]), 0.5, np.array([b, 1 - b]))
    return paired(RIGHT_WRONG, "label_accuracy", chances)


def graded(answers: list[Answer], metric: str) -> Callable[[np.random.Generator, str], Truth]:
    def make(rng: np.random.Generator, regime: str) -> Truth:
        ends = {"near 0": (1, 40), "middle": (8, 8), "near 1": (40, 1)}[regime]
        a, b = (rng.dirichlet([ends[0], 1, 1, 1, ends[1]]) for _ in range(2))
        return paired(answers, metric, joint(a, 0.5, b))

    return make


def macro(count: int) -> Callable[[np.random.Generator, str], Truth]:
    """Labels of unequal frequency, each with its own chance to be right; a wrong answer is one of two other labels."""

    def make(rng: np.random.Generator, regime: str) -> Truth:
        low, high = {"near 0": (0.05, 0.3), "middle": (0.4, 0.8), "near 1": (0.88, 0.98)}[regime]
        frequency = 1 / np.arange(1, count + 1) ** 0.5
        frequency /= frequency.sum()
        rows, chances = [], []
        for i in range(count):
            said = [LABELS[i], LABELS[(i + 1) % count], LABELS[(i + 2) % count]]
            a, b = (np.array([p, (1 - p) / 2, (1 - p) / 2]) for p in rng.uniform(low, high, 2))
            table = joint(a, 0.5, b)
            for j, one in enumerate(said):
                for k, other in enumerate(said):
                    rows.append({"a": label_answer(LABELS[i], one), "b": label_answer(LABELS[i], other)})
                    chances.append(frequency[i] * table[j, k])
        return Truth("macro_f1", rows, np.array(chances))

    return make


def truths(truth: Truth) -> dict[str, float]:
    """The metric where every kind of row occurs as often as its chance says."""
    metric = METRICS[truth.metric]
    return {m: float(metric.statistic(truth.chances @ metric.tally([row[m] for row in truth.rows]))) for m in ("a", "b")}


SIMULATIONS: dict[str, tuple[Callable[[np.random.Generator, str], Truth], str]] = {
    "share": (shares, "Wilson; Newcombe for differences"),
    "mean of row scores": (graded(TEXTS, "token_f1"), "studentised bootstrap"),
    "entity F1": (graded(ENTITIES, "entity_f1"), "studentised bootstrap"),
    "macro-F1 of 4 labels": (macro(4), "studentised bootstrap"),
    "macro-F1 of 12 labels": (macro(12), "studentised bootstrap"),
}
REGIMES = ("near 0", "middle", "near 1")


def coverage() -> Iterator[Result]:
    """Per kind of interval: how many of those of all simulated evaluations hold the truth, and in the worst cell of n and regime."""
    for name, (make, method) in SIMULATIONS.items():
        cells: dict[str, dict[tuple[int, str], list[bool]]] = {"": {}, " difference": {}}
        for rows in ROWS:
            for regime in REGIMES:
                rng = np.random.default_rng([rows, *regime.encode()])
                single, change = [], []
                for trial in range(EVALUATIONS):
                    truth = make(rng, regime)
                    known = truths(truth)
                    drawn = rng.choice(len(truth.rows), rows, p=truth.chances / truth.chances.sum())
                    models = {m: [truth.rows[i][m] for i in drawn] for m in ("a", "b")}
                    scores = score(models, [truth.metric], [("a", "b")], seed=trial, resamples=1000)
                    for measure in scores.measures["a"]:
                        single.append(measure.low <= known["a"] <= measure.high)
                    for compared in scores.comparisons:
                        change.append(compared.low <= known["b"] - known["a"] <= compared.high)
                cells[""][rows, regime], cells[" difference"][rows, regime] = single, change
        for suffix, table in cells.items():
            hits, total = sum(map(sum, table.values())), sum(map(len, table.values()))
            each = ", ".join(f"n {n} {regime} {100 * np.mean(found):.1f}" for (n, regime), found in table.items())
            conditions = f"{method}; {EVALUATIONS} evaluations in each cell (%): {each}"
            yield Result(f"coverage of 95 % intervals: {name}{suffix}", hits / total, "share", *exact(hits, total), conditions)


# --- metrics against others' ----------------------------------------------------------------------------------------------------------

SAID = ["the cat", "a cat sat", "The Cat, sat!", "on the mat", "mat", "", "an old_cat", "it's 3.5 cats", "a", "cat cat the mat"]


def random_text(rng: random.Random) -> str:
    return " ".join(rng.choice(SAID) for _ in range(rng.randrange(0, 5))).strip()


def text_cases(rng: random.Random) -> list[Answer]:
    return [read_answer(TEXT, "", random_text(rng), random_text(rng)) for _ in range(rng.randrange(1, 12))]


def label_cases(rng: random.Random) -> list[tuple[str, str]]:
    labels = LABELS[: rng.randrange(2, 8)]
    return [(rng.choice(labels), rng.choice([*labels, "other"])) for _ in range(rng.randrange(1, 40))]


def found(answers: list[Answer], metric: str) -> float:
    return score({"x": answers}, [metric], resamples=2).measures["x"][0].value


def agree_labels(rng: random.Random) -> list[tuple[float, float]]:
    pairs = label_cases(rng)
    wanted, said = [w for w, _ in pairs], [s for _, s in pairs]
    answers = [label_answer(w, s) for w, s in pairs]
    return [
        (found(answers, "label_accuracy"), accuracy_score(wanted, said)),
        (found(answers, "macro_f1"), f1_score(wanted, said, labels=sorted(set(wanted)), average="macro", zero_division=0)),
    ]


def agree_entities(rng: random.Random) -> list[tuple[float, float]]:
    """Entities as a multi-label problem: a column for each (name, value)."""
    pairs = [(name, value) for name in "ab" for value in "12"]
    rows = []
    for _ in range(rng.randrange(2, 20)):
        rows.append([{name: rng.choice("12") for name in "ab" if rng.random() < 0.7} for _ in range(2)])
    rows.append([{"a": "1"}, {"a": "1"}])
    columns = [np.array([[float(row[side].get(n) == v) for n, v in pairs] for row in rows]) for side in (0, 1)]
    answers = [
        read_answer(LABELLED, "", json.dumps({"intent": "l00", "entities": said}), json.dumps({"intent": "l00", "entities": wanted}))
        for wanted, said in rows
    ]
    return [(found(answers, "entity_f1"), f1_score(*columns, average="micro", zero_division=0))]


def agree_texts(rng: random.Random) -> list[tuple[float, float]]:
    # where neither text has a word, ROUGE says 0 and we say that they are the same
    answers = [a for a in text_cases(rng) if re.search(r"[a-z]", (a.completion + str(a.reference)).lower())]
    answers = answers or [read_answer(TEXT, "", "a cat", "cat")]
    rouge = RougeScorer(["rougeL"])
    ours = [(a.completion, str(a.reference)) for a in answers]
    best = [rouge.score(wanted, said)["rougeL"].fmeasure for said, wanted in ours]
    predicted = [{"prediction_text": said, "id": str(i)} for i, (said, _) in enumerate(ours)]
    targets = [{"answers": {"answer_start": [0], "text": [wanted]}, "id": str(i)} for i, (_, wanted) in enumerate(ours)]
    return [
        (found(answers, "rouge_l"), float(np.mean(best))),
        (found(answers, "token_f1"), float(squad(predicted, targets)["f1"]) / 100),
    ]


REFERENCES: dict[str, tuple[Callable[[random.Random], list[tuple[float, float]]], tuple[str, ...], str]] = {
    "labels": (agree_labels, ("label accuracy", "macro-F1"), "scikit-learn"),
    "entities": (agree_entities, ("entity F1",), "scikit-learn, micro-averaged"),
    "texts": (agree_texts, ("ROUGE-L", "token F1"), "rouge-score and torchmetrics' SQuAD"),
}


def references() -> Iterator[Result]:
    for agree, names, reference in REFERENCES.values():
        rng = random.Random(0)
        table = np.array([agree(rng) for _ in range(CASES)])
        for i, name in enumerate(names):
            off = np.abs(table[:, i, 0] - table[:, i, 1])
            equal = int((off <= 1e-6).sum())
            conditions = f"against {reference}; {CASES} random cases, largest difference {off.max():.1g}"
            yield Result(f"equal to the reference: {name}", equal / CASES, "share", *exact(equal, CASES), conditions)


def main() -> None:
    quiet()
    torch.set_num_threads(1)
    every = (faults, packing, killed, demo, references, coverage)
    asked = [part for part in every if part.__name__ in sys.argv[1:]]
    results: list[Result] = []
    for part in asked or every:
        for result in part():
            print(f"{result.bar}: {result.value:.4g} {result.unit}", file=sys.stderr, flush=True)
            results.append(result)
    if asked:
        again = {result.bar for result in results}
        stored = [Result(**line) for line in json.loads((RESULTS / "training.json").read_text(encoding="utf-8"))]
        results = [*(result for result in stored if result.bar not in again), *results]
    publish("training", results)


if __name__ == "__main__":
    main()
