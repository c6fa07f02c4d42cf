"""The report shows what a run left, loads nothing from elsewhere, and says what is missing."""

import hashlib
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from train.dataset import Row
from train.errors import DataError
from train.evaluate import TEXT, EvaluationRows, Written, write_evaluation
from train.metrics import TaskSpec
from train.report import SECTIONS, headline, read_run, write_report

LABELS = ("card_arrival", "change_pin", "exchange_rate", "lost_or_stolen_card", "top_up_failed", "out_of_scope")
TASK = TaskSpec(
    system="You read messages to a bank's support desk. Reply with one JSON object.",
    label_field="intent",
    labels=LABELS,
    abstain_label="out_of_scope",
    entities_field="entities",
    decision_fields=("decision",),
    forbidden=("pin", "cvv"),
    output_schema={"type": "object", "required": ["intent", "entities"]},
)
SKILLS = ("copying", "counting", "sorting", "yes or no")


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def rows_of(name: str, count: int, rng: random.Random, *, only_labels: bool) -> list[Row]:
    rows = []
    for i in range(count):
        label = rng.choice(LABELS)
        answer: dict[str, Any] = {"intent": label, "entities": {"amount": f"£{10 + i}"} if i % 3 == 0 else {}}
        if i % 5 == 0:
            answer["decision"] = rng.choice(["refund", "wait", "block"])
        text = f"Message {i} to {name}: I paid £{10 + i} & <b>waited</b> 3 days, what about my {label.replace('_', ' ')}?"
        rows.append(
            Row(
                id=f"{name}-{i:04d}",
                prompt=[{"role": "system", "content": TASK.system}, {"role": "user", "content": text}],
                completion=None if only_labels else dumps(answer),
                label=label,
                kind=None,
                topic=f"cards/{label}",
                group_id=None,
            )
        )
    return rows


def answer_of(row: Row, skill: float, bad: float, rng: random.Random) -> str:
    answer = json.loads(row.completion or dumps({"intent": row.label, "entities": {}}))
    if rng.random() > skill:
        answer["intent"] = rng.choice([label for label in LABELS if label != row.label])
    if rng.random() < bad:
        answer["entities"] = {"amount": "£999999"}
    if rng.random() < bad / 3:
        answer["ask"] = "your PIN"
    return dumps(answer)


def make_run(folder: Path, *, rows: int = 120, seed: int = 0) -> Path:
    """A run folder as the trainer leaves it, with made-up answers."""
    rng = random.Random(seed)
    sets = [
        EvaluationRows("test", rows_of("test", rows, rng, only_labels=False), TASK),
        EvaluationRows("real messages", rows_of("real", rows, rng, only_labels=True), TASK),
        EvaluationRows(
            "general",
            [Row(f"general/{i}", [{"role": "user", "content": f"Say {i}"}], str(i), None, SKILLS[i % 4], None, None) for i in range(rows)],
            TEXT,
            ("exact_match",),
            slices=True,
        ),
    ]
    skill = {"base": 0.05, "sft": 0.86, "dpo": 0.9}
    bad = {"base": 0.1, "sft": 0.12, "dpo": 0.03}
    completions: dict[str, dict[str, list[str]]] = {}
    for s in sets:
        completions[s.name] = {}
        for model in skill:
            if s.slices:
                texts = [row.completion if rng.random() < 0.93 else "?" for row in s.rows]
            elif model == "base":
                texts = [f"I think {row.id} is about a bank." for row in s.rows]
            else:
                texts = [answer_of(row, skill[model], bad[model], rng) for row in s.rows]
            completions[s.name][model] = [str(text) for text in texts]
        completions[s.name]["merged"] = list(completions[s.name]["dpo"])
    write_evaluation(folder, sets, completions)

    history: list[dict[str, Any]] = []
    for step in range(1, 121):
        history.append({"stage": "sft", "step": step, "tokens": step * 4000, "loss": 3.2 * 0.96**step + rng.random() / 8})
        if step % 15 == 0:
            value = 0.9 - 0.8 * 0.95**step
            point = {"metric": "macro_f1", "value": value, "low": value - 0.04, "high": value + 0.03, "n": 200}
            history.append({"stage": "sft", "step": step, "tokens": step * 4000, **point})
    for step in range(1, 41):
        numbers = {"loss": 0.69 * 0.97**step, "margin": 0.08 * step, "chosen_logp": -4 - 0.02 * step, "rejected_logp": -9 - step / 3}
        history.append({"stage": "dpo", "step": step, "tokens": step * 4000, **numbers})
        if step % 10 == 0:
            point = {"metric": "macro_f1", "value": 0.9, "low": 0.86, "high": 0.93, "n": 200}
            history.append({"stage": "dpo", "step": step, "tokens": step * 4000, **point})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))

    data = folder / "data"
    data.mkdir()
    manifest = {
        "format": 1,
        "name": "banking",
        "seed": 7,
        "recipe_sha256": "ab" * 32,
        "taxonomy": {"name": "banking_support", "path": "taxonomies/banking_support.yaml", "sha256": "cd" * 32},
        "teachers": [{"role": "teacher", "model": "offline/banking", "simulated": True, "terms": {}}],
        "decontamination": {"passed": True, "sets": [{"name": "real messages", "rows": rows, "dropped": 61, "sha256": "e"}]},
        "data": {
            "examples": 4100,
            "accepted": 3212,
            "rejected": 888,
            "reasons": [
                {"by": "filter:truth", "reason": "label differs from the rule engine", "count": 512},
                {"by": "filter:near_duplicate", "reason": "near-duplicate", "count": 301},
            ],
            "generators": [
                {"generator": "seed", "examples": 1000, "accepted": 801},
                {"generator": "adversarial", "examples": 700, "accepted": 512},
            ],
            "topics": [
                {"topic": f"cards/{x}", "target": 200, "examples": 260, "accepted": 180 + 10 * i, "low": 0.62, "high": 0.9}
                for i, x in enumerate(LABELS)
            ],
            "costs": [
                {
                    "role": "teacher",
                    "model": "offline/banking",
                    "calls": 5120,
                    "prompt_tokens": 2400000,
                    "completion_tokens": 310000,
                    "cost_usd": 0.0,
                }
            ],
            "review": {
                "rates": [{"reviewer": "ana", "stratum": "all", "reviewed": 200, "defects": 9, "rate": 0.045, "low": 0.02, "high": 0.084}]
            },
        },
    }
    text = json.dumps(manifest)
    (data / "manifest.json").write_text(text)
    record = {
        "id": "20261124-081500-banking",
        "name": "banking",
        "created": "2026-11-24T08:15:00+00:00",
        "status": "done",
        "student": "train/students/tiny",
        "method": "lora",
        "seed": 7,
        "data": str(data),
        "manifest_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "config_sha256": "ef" * 32,
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
        "stages": {
            "sft": {
                "rows": 2480,
                "general_rows": 248,
                "rows_dropped": 3,
                "steps": 120,
                "trainable": 210000,
                "parameters": 5400000,
                "tokens_per_second": 5100,
                "seconds": 140.0,
                "best": {"step": 105, "value": 0.896},
            },
            "dpo": {"pairs": 610, "steps": 40, "kept": "last", "guard": None, "seconds": 60.0},
        },
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


class Page(HTMLParser):
    """What a browser would find: ids, headings, text, and everything that it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.open_tables = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "poster") and value and not value.startswith("#"):
                self.fetched.append(value)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run_dir: Path) -> str:
    return write_report(run_dir).read_text(encoding="utf-8")


@pytest.mark.parametrize("anchor", [anchor for anchor, _ in SECTIONS])
def test_every_section_is_there(page: str, anchor: str) -> None:
    assert f'<section id="{anchor}">' in page


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    found = Page(page)
    assert found.fetched == []
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(found.tags)
    assert not re.search(r"@import|url\((?!#)", page)
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, "only names of namespaces"


def test_ids_are_unique_although_there_are_several_plots(page: str) -> None:
    ids = Page(page).ids
    assert page.count("<svg ") == 3
    assert len(ids) == len(set(ids))


def test_references_inside_plots_reach_their_target(page: str) -> None:
    targets = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', page))
    assert targets
    assert targets <= set(Page(page).ids)


def test_tables_have_captions_and_header_cells(page: str) -> None:
    tables = re.findall(r"<table>(.*?)</table>", page, re.DOTALL)
    assert tables
    assert all("<caption>" in t and 'scope="col"' in t and 'scope="row"' in t for t in tables)


def test_answers_cannot_inject_markup(page: str) -> None:
    assert "<b>waited</b>" not in page
    assert "&lt;b&gt;waited&lt;/b&gt;" in page


def test_the_headline_gives_accuracy_with_interval_and_what_it_was_before(run_dir: Path) -> None:
    first = headline(read_run(run_dir))[0]
    assert re.match(r"On 120 held-out rows, the tuned student names the right label in \d+\.\d % of cases \(95 % interval", first)
    assert "before training it was 0.0 %, a clear difference" in first


def test_the_headline_says_what_dpo_did_to_bad_answers(run_dir: Path) -> None:
    assert any(s.startswith("Bad answers") and "fewer" in s for s in headline(read_run(run_dir)))


def test_a_difference_is_marked_by_the_metrics_own_direction(run_dir: Path) -> None:
    run = read_run(run_dir)
    fewer = run.comparison("test", "bad_behaviour", "sft", "dpo")
    assert fewer is not None
    assert fewer["difference"] < 0
    row = next(r for r in re.findall(r"<tr>.*?</tr>", write_report(run_dir).read_text(), re.DOTALL) if "test: bad_behaviour" in r)
    assert '<span class="better">▲' in row


def test_a_simulated_teacher_and_a_tiny_student_are_named_as_limits(page: str) -> None:
    limits = page[page.index('<section id="limits">') :]
    assert "The teacher was simulated" in limits
    assert "Logistic regression" in limits


def test_a_newer_export_is_not_passed_off_as_the_runs_data(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows=12)
    manifest = run / "data" / "manifest.json"
    assert "exported again after this run" not in write_report(run).read_text()
    manifest.write_text(manifest.read_text().replace("4100", "4200"))
    assert "exported again after this run" in write_report(run).read_text()


@pytest.mark.parametrize(
    "missing", ["run.json", "metrics.jsonl", "evaluation.json", "comparisons.json", "answers.parquet", "failures.parquet", "data"]
)
def test_a_missing_part_leaves_the_rest(tmp_path: Path, missing: str) -> None:
    run = make_run(tmp_path / "run", rows=12)
    (run / missing).rename(tmp_path / "gone")
    page = write_report(run).read_text()
    assert all(f'<section id="{anchor}">' in page for anchor, _ in SECTIONS)


def test_an_empty_run_says_that_nothing_was_run(tmp_path: Path) -> None:
    page = write_report(tmp_path).read_text()
    assert page.count("Not run:") >= 8
    assert "was not evaluated" in page


def test_a_skipped_stage_says_why(tmp_path: Path) -> None:
    record = {"name": "x", "stages": {"dpo": {"skipped": "train.dpo is null", "done": True}}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert "train.dpo is null" in write_report(tmp_path).read_text()


def test_a_guard_that_stopped_dpo_is_shown(tmp_path: Path) -> None:
    record = {"name": "x", "stages": {"dpo": {"pairs": 3, "guard": "chosen answers lost 0.40 nats per token"}}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert "chosen answers lost 0.40 nats per token" in write_report(tmp_path).read_text()


def test_the_same_run_gives_the_same_report(run_dir: Path) -> None:
    assert write_report(run_dir).read_bytes() == write_report(run_dir).read_bytes()


def test_a_folder_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such run"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["evaluation.json", "answers.parquet"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{")
    with pytest.raises(DataError, match=name):
        write_report(tmp_path)


def with_few_shot(folder: Path, gain: float, low: float, high: float) -> Any:
    """A run whose untuned base also answered with examples in its prompt."""
    run = read_run(make_run(folder))
    rival = {"set": "test", "model": "few_shot", "metric": "label_accuracy", "value": 0.6, "low": 0.5, "high": 0.7, "n": 120}
    change = {
        "set": "test", "metric": "label_accuracy", "a": "few_shot", "b": "dpo", "difference": gain, "low": low, "high": high, "n": 120, "p": 0.1,
    }  # fmt: skip
    return run._replace(measures=[*run.measures, rival], comparisons=[*run.comparisons, change])


@pytest.mark.parametrize(
    ("gain", "low", "high", "advice"),
    [
        (0.3, 0.2, 0.4, "Tuning is worth it here (+30.0"),
        (-0.3, -0.4, -0.2, "Tuning made it worse: use the base with examples (-30.0"),
        (0.02, -0.05, 0.09, "No clear gain from tuning: try examples in the prompt"),
    ],
)
def test_the_advice_weighs_tuning_against_examples_in_the_prompt(tmp_path: Path, gain: float, low: float, high: float, advice: str) -> None:
    said = " ".join(headline(with_few_shot(tmp_path, gain, low, high)))
    assert "The untuned base with examples in its prompt reaches 60.0 % on test" in said
    assert advice in said


def timed(folder: Path) -> Path:
    """A run with everything that an evaluation can know: confidences, speeds, prices, a teacher, a judge's word."""
    rng = random.Random(3)
    rows = [
        row._replace(generator=rng.choice(("seed", "topic")), dimensions=(("difficulty", rng.choice(("easy", "hard"))),))
        for row in rows_of("real", 150, rng, only_labels=True)
    ]
    told: dict[str, list[Any]] = {}
    for model, skill in (("base", 0.2), ("few_shot", 0.5), ("teacher", 0.95), ("sft", 0.8), ("dpo", 0.85)):
        told[model] = []
        for row in rows:
            weak = model == "dpo" and row.label == "change_pin"
            text = answer_of(row, 0.05 if weak else skill, 0.0, rng)
            right = json.loads(text)["intent"] == row.label
            told[model].append(Written(text, 12, 90, -0.05 * rng.random() if right else -0.4 * rng.random(), 0.5 + rng.random()))
    speeds = [
        {"model": m, "device": "cpu", "batch_size": 32, "rows": 150, "median_s": 0.8, "p95_s": 1.4, "rows_per_second": 20.0,
         "tokens_per_second": 240.0, "prompt_tokens": 90.0, "completion_tokens": 12.0} for m in ("base", "dpo")
    ]  # fmt: skip
    cost = {
        "per": 1000, "students": [{"model": "dpo", "usd": 0.012, "why": "at $0.9 an hour"}],
        "teacher": {"model": "gpt", "usd": 3.5, "why": "from 900 answers that were paid for"},
    }  # fmt: skip
    write_evaluation(folder, [EvaluationRows("mine", rows, TASK)], {"mine": told}, extra={"speed": speeds, "cost": cost})
    share = {"value": 0.6, "low": 0.5, "high": 0.7}
    judged = {
        "a": "few_shot", "b": "dpo", "judge": "gpt-judge", "rows": 150, "win": share, "tie": share, "lose": share, "win_rate": share,
        "win_rate_at_equal_length": None, "agreement": share, "position": share, "sentence": "On 150 rows dpo wins <most>.",
        "warnings": ["Position bias: what stands first is preferred"],
        "second": {"file": "dpo.jsonl", "sha256": hashlib.sha256((folder / "answers/mine/dpo.jsonl").read_bytes()).hexdigest()},
    }  # fmt: skip
    (folder / "answers/mine/judged.few_shot-dpo.json").write_text(json.dumps(judged))
    return folder


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(timed(tmp_path_factory.mktemp("timed"))).read_text()


def section(page: str, anchor: str) -> str:
    start = page.index(f'<section id="{anchor}">')
    return page[start : page.index("</section>", start)]


def test_weak_spots_are_named_with_the_number_of_slices_looked_at(full: str) -> None:
    said = section(full, "weak")
    assert re.search(r"Of \d+ slices, \d+ (is|are) worse than the rest of the set beyond chance: .*change_pin", said)
    assert "topic: cards/change_pin" in said and "difficulty: hard" in said and "generator: seed" in said


def test_confidence_is_told_and_drawn(full: str) -> None:
    said = section(full, "confidence")
    assert re.search(r"On mine, dpo is wrong in .* of rows; in the 80 % that it is surest of", said)
    assert "<svg" in said


def test_speed_cost_and_the_teachers_price_are_told(full: str) -> None:
    said = section(full, "cost")
    assert "0.0120" in said and "3.50" in said and "cpu" in said and "240" in said


def test_a_judges_word_and_its_biases_are_told(full: str) -> None:
    said = section(full, "judged")
    assert "dpo against few_shot" in said and "gpt-judge" in said and "Position bias" in said
    assert "&lt;most&gt;" in said
    assert "made anew" not in said


def test_a_judges_word_on_other_answers_is_not_passed_off_as_one_on_these(tmp_path: Path) -> None:
    run = timed(tmp_path)
    (run / "answers/mine/dpo.jsonl").write_text("")
    assert "made anew since they were judged" in section(write_report(run).read_text(), "judged")


def test_the_teacher_is_weighed_with_its_price(full: str) -> None:
    said = section(full, "result")
    assert "The teacher reaches" in said
    assert "1,000 requests cost $0.01 by the student and $3.50 by the teacher" in said


def test_what_the_rows_can_show_is_told_with_the_differences(full: str) -> None:
    assert "What 150 rows can show" in section(full, "evaluation")


def test_a_full_page_is_still_one_file_with_ids_of_its_own(full: str) -> None:
    found = Page(full)
    assert found.fetched == []
    assert len(found.ids) == len(set(found.ids))
