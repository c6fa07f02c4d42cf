"""The commands as a user runs them, with the offline teacher, from plan to export; and what a wrong word costs: one line, exit 2."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from datagen.cli import main
from datagen.store import Store

ROOT = Path(__file__).parents[2]
RECIPE = """
name: small
taxonomy: {root}/taxonomies/banking_support.yaml
seed: 3
teachers:
  teacher:
    model: offline/banking
    params: {{faults: {{wrong_label: 0.15, invalid_json: 0.05, refusal: 0.03, truncated: 0.02, rate_limited: 0.02}}}}
  weak: {{model: offline/banking-weak}}
  judge: {{model: offline/banking-judge}}
mix: {{seed: 40, topic: 80, adversarial: 40, reasoning: 24, preference: 40}}
evaluation_sets: [{{name: handwritten, path: "{root}/taxonomies/banking_support.eval.jsonl"}}]
split: {{validation: 0.15, test: 0.15}}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE.format(root=ROOT))
    return path


def run(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return int(exit_.value.code or 0)


def run_json(capsys: pytest.CaptureFixture[str], *arguments: Any) -> Any:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_data_set_from_taxonomy_to_export(recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, lineage_gaps: Any) -> None:
    planned = run_json(capsys, "plan", "--recipe", recipe)
    assert planned["inputs"] == 224
    first = run_json(capsys, "generate", "--recipe", recipe)
    assert (first["items"], first["failed"], first["reused"]) == (planned["items"], 0, 0)
    rows = Store(tmp_path / "data/small.duckdb").query("SELECT count(*) AS calls FROM calls")
    again = run_json(capsys, "generate", "--recipe", recipe)
    assert (again["calls"], again["new_examples"]) == (0, 0)
    assert Store(tmp_path / "data/small.duckdb").query("SELECT count(*) AS calls FROM calls") == rows

    curated = run_json(capsys, "curate", "--recipe", recipe)
    assert 100 < curated["accepted"] < curated["examples"]
    assert run_json(capsys, "curate", "--new", "--recipe", recipe)["examples"] == 0
    summary = run_json(capsys, "report", "--recipe", recipe)
    assert summary["accepted"] == curated["accepted"]
    assert all(row["accepted"] for row in summary["generators"])

    assert run("review", "--recipe", recipe, "--n", 10, "--reviewer", "ana", "--export", "sample.jsonl") == 0
    sample = [json.loads(line) for line in Path("sample.jsonl").read_text().splitlines()]
    sample[0] |= {"decision": "reject", "reason": "not how people talk"}
    sample[1] |= {"decision": "accept"}
    Path("sample.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sample[:2]))
    capsys.readouterr()
    rates = run_json(capsys, "review", "--recipe", recipe, "--reviewer", "ana", "--import", "sample.jsonl")["defects"]
    assert (rates[0]["reviewed"], rates[0]["defects"]) == (2, 1)

    manifest = run_json(capsys, "export", "--recipe", recipe)
    assert manifest["decontamination"]["passed"]
    assert manifest["teachers"][0]["simulated"]
    exported = sum(manifest["files"][f"sft/{split}.parquet"]["rows"] for split in ("train", "validation", "test"))
    assert exported == curated["accepted"] - 1
    assert (tmp_path / "data/small/README.md").exists()
    (row,) = run_json(capsys, "sql", "SELECT count(*) AS n, count(teacher) AS t, count(prompt_hash) AS p FROM lineage", "--recipe", recipe)
    assert row == {"n": exported, "t": exported, "p": exported}
    assert lineage_gaps(Store(tmp_path / "data/small.duckdb")) == (exported, 0)
    assert run("curate", "--new", "--recipe", recipe) == 0
    assert "people's words or the plan changed" in capsys.readouterr().err
    assert run("curate", "--new", "--recipe", recipe) == 0
    assert "0 new examples" in capsys.readouterr().out
    sample[2] |= {"decision": "edit", "new_input": "Where on earth has the card gone that I was promised for Friday?"}
    Path("sample.jsonl").write_text(json.dumps(sample[2]))
    assert run("review", "--recipe", recipe, "--reviewer", "ana", "--import", "sample.jsonl") == 0
    for verb in ("plan", "report", "curate"):
        assert run(verb, "--recipe", recipe) == 0
    said = capsys.readouterr().out
    assert "Why examples were dropped" in said
    assert "All generators: " in said
    assert "<svg" in (tmp_path / "data/small.report.html").read_text()
    store = Store(tmp_path / "data/small.duckdb")
    assert lineage_gaps(store)[1] == 0
    assert store.query("SELECT count(*) AS n FROM lineage WHERE parent IS NOT NULL") == [{"n": 1}]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 3", "sed: 3", "sed is not a known key. Did you mean 'seed'?"),
        ("{root}/taxonomies/banking_support.yaml", "none.yaml", "'none.yaml' is not there"),
        ("model: offline/banking\n", "model: openai/gpt-4o\n", "needs OPENAI_API_KEY"),
        ("model: offline/banking\n", "model: offline/cooking\n", "offline"),
        ("model: offline/banking\n", "model: nobody/knows\n", "no provider of that name"),
    ],
)
def test_a_wrong_recipe_is_one_clear_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert old in RECIPE
    (tmp_path / "r.yaml").write_text(RECIPE.replace(old, new).format(root=ROOT))
    assert run("generate", "--recipe", "r.yaml", "--terms", "a test") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_an_unknown_option_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--recipee", "x") == 2
    assert "--recipee" in capsys.readouterr().err


def test_a_store_that_is_not_there_says_how_to_make_it(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("curate", "--recipe", recipe) == 2
    assert "Run `make datagen` first" in capsys.readouterr().err


def test_wrong_filter_settings_suggest_the_near_name(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", "--recipe", recipe, "--scale", "0.05") == 0
    recipe.write_text(recipe.read_text() + "filters: {lenght: {}}\n")
    for verb in ("curate", "generate"):  # before anybody is asked, too
        assert run(verb, "--recipe", recipe) == 2
        assert "Did you mean 'length'?" in capsys.readouterr().err


def test_the_sql_prompt_answers_several_queries(recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Store(Path("data/small.duckdb"))
    lines = iter(["SELECT 1 + 1", "AS two;", "SELECT nonsense;", ".quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert run("sql", "--recipe", recipe) == 0
    captured = capsys.readouterr()
    assert "lineage" in captured.out
    assert "two" in captured.out
    assert "nonsense" in captured.err


def test_reviewing_in_the_terminal_stores_each_decision_at_once(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("generate", "--recipe", recipe, "--scale", "0.1") == 0
    assert run("curate", "--recipe", recipe) == 0
    typed = iter(["a", "what?", "r too odd", "s", "q"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert run("review", "--recipe", recipe, "--n", 6, "--reviewer", "ben") == 0
    verdicts = [v for v in Store(Path("data/small.duckdb")).verdicts() if v.by == "human:ben"]
    assert [(v.keep, v.reason) for v in verdicts][1] == (False, "review: too odd")
    assert "1 defects in 2 reviewed" in capsys.readouterr().out


RUBRIC = """
rubric:
  criteria:
    accuracy: {description: right in every field, weight: 2, anchors: {1: wrong or unsafe, 3: partly right, 5: right in every field}}
    naturalness: {description: "the input is a person's words"}
filters: {judge: {min: 4, min_naturalness: 2, min_mean: 3}}
"""


def test_a_rubric_is_scored_filtered_and_held_against_people(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(recipe.read_text() + RUBRIC)
    assert run("plan", "--recipe", recipe) == 0
    assert run("generate", "--recipe", recipe, "--scale", "0.3") == 0
    assert run("curate", "--recipe", recipe) == 0
    store = Store(Path("data/small.duckdb"))
    assert all({"judge_accuracy", "judge_naturalness"} <= set(example.scores) for example in store.current_examples())
    assert store.query("SELECT DISTINCT split_part(reason, ':', 1) AS kind FROM verdicts WHERE decided_by = 'filter:judge' AND NOT keep")
    for reviewer in ("ana", "bo"):
        sample = Path(f"{reviewer}.jsonl")
        assert run("review", "--recipe", recipe, "--calibrate", "--reviewer", reviewer, "--export", sample) == 0
        rows = [json.loads(line) for line in sample.read_text().splitlines()]
        rows = [{**row, "decision": "reject" if n % 3 == 0 else "accept", "reason": "odd"} for n, row in enumerate(rows)]
        sample.write_text("".join(json.dumps(row) + "\n" for row in rows))
        capsys.readouterr()
        assert run("review", "--recipe", recipe, "--reviewer", reviewer, "--import", sample) == 0
    told = capsys.readouterr().out
    assert "Judge and people: " in told
    assert "ana and bo agree on 100.0%" in told
    assert "95 % interval" in told
    summary = run_json(capsys, "report", "--recipe", recipe)
    assert {row["criterion"] for row in summary["judge"]["criteria"]} == {"accuracy", "naturalness"}
    assert run("report", "--recipe", recipe) == 0
    shown = capsys.readouterr().out
    assert "ana and bo on" in shown
    assert "Judge and people: " in shown


def test_review_without_a_terminal_says_what_to_use(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", "--recipe", recipe, "--scale", "0.05") == 0
    assert run("curate", "--recipe", recipe) == 0
    assert run("review", "--recipe", recipe) == 2
    assert "--export FILE" in capsys.readouterr().err


def _generate(recipe: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "datagen", "generate", "--recipe", str(recipe)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _calls(path: Path) -> int:
    """Answers on disk: those in the log and those in DuckDB (read only while nobody writes)."""
    return len(Store(path).answers())


@pytest.mark.slow
def test_killed_three_times_a_run_loses_nothing_and_repeats_only_what_was_in_flight(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(recipe.read_text().replace("topic: 80", "topic: 400") + "concurrency: 8\n")
    path, log = tmp_path / "data/small.duckdb", tmp_path / "data/small.log"
    rng = random.Random(5)
    answered: set[str] = set()
    for _ in range(3):
        process = _generate(recipe)
        deadline = time.monotonic() + 60
        while not (log.exists() and log.stat().st_size > 100_000 * rng.uniform(0.5, 2)) and time.monotonic() < deadline:
            time.sleep(0.01)
            assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = set(Store(path).answers())
        assert answered < now
        answered = now
    assert _generate(recipe).wait() == 0
    store = Store(path)
    assert answered <= set(store.answers())
    for table in ("calls", "examples", "items"):
        (row,) = store.query(f"SELECT count(*) AS n, count(DISTINCT id) AS ids FROM {table}")
        assert row["n"] == row["ids"]
    # the same plan without a kill asks the same questions
    other = tmp_path / "other.duckdb"
    quiet = subprocess.run(
        [sys.executable, "-m", "datagen", "generate", "--recipe", str(recipe), "--store", str(other)], capture_output=True, check=False
    )
    assert quiet.returncode == 0, quiet.stderr
    assert set(Store(other).answers()) == set(store.answers())
    assert [e.id for e in Store(other).current_examples()] == [e.id for e in store.current_examples()]


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(recipe.read_text().replace("topic: 80", "topic: 1200"))
    process = _generate(recipe)
    log = tmp_path / "data/small.log"
    while not (log.exists() and log.stat().st_size > 100_000):
        time.sleep(0.01)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    assert process.wait() == 130
    store = Store(tmp_path / "data/small.duckdb")
    assert len(store.answers()) > 0
    assert store.query("SELECT status FROM runs") == [{"status": "interrupted"}]


def test_a_second_ctrl_c_ends_at_once(server: Any, shop_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    price = "price: {input_per_million: 1, output_per_million: 1}"
    teacher = f"{{model: openai/local, {price}, params: {{api_base: '{server.url}', api_key: none}}}}"
    Path("r.yaml").write_text(
        f"name: shop\ntaxonomy: shop.yaml\nteachers: {{teacher: {teacher}}}\nterms: {{openai/local: {{decision: a test server, by: me}}}}\nmix: {{topic: 8}}\n"
    )
    server.reply = lambda body, nth: (time.sleep(8), server.chat("[]"))[1]
    process = subprocess.Popen([sys.executable, "-m", "datagen", "generate", "--recipe", "r.yaml"], stdout=subprocess.PIPE, text=True)
    while not server.bodies:
        time.sleep(0.01)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None, "the first lets what is in flight come back"
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate()
    assert (process.returncode, said) == (130, "")  # a run that drains tells what it did
    assert Store(tmp_path / "data/shop.duckdb").query("SELECT DISTINCT error, billed FROM failures") == [
        {"error": "Cancelled", "billed": "maybe"}
    ]


def test_a_run_over_http_closes_its_connections_without_a_word(
    server: Any, shop_path: Path, shop_reply: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server.reply = shop_reply
    price = "price: {input_per_million: 0, output_per_million: 0}"
    teacher = f"{{model: openai/local, {price}, params: {{api_base: '{server.url}', api_key: none}}}}"
    Path("r.yaml").write_text(f"name: shop\ntaxonomy: shop.yaml\nteachers: {{teacher: {teacher}}}\nmix: {{topic: 8}}\njudge: false\n")
    command = [sys.executable, "-m", "datagen", "generate", "--recipe", "r.yaml", "--terms", "a test server"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Task" not in done.stderr and "Unclosed" not in done.stderr


def test_failures_of_a_training_run_ask_for_inputs_like_them(recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = [
        {"input": "not lost, where is my new card", "answer": '{"intent":"lost_or_stolen_card"}', "label": "card_arrival"},
        {"input": "what will a dollar cost me", "answer": '{"intent":"out_of_scope"}', "label": "exchange_rate", "set": "handwritten"},
    ]
    (tmp_path / "failures.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = recipe.read_text().replace(
        "mix: {seed: 40, topic: 80, adversarial: 40, reasoning: 24, preference: 40}", "mix: {adversarial: 120}"
    )
    recipe.write_text(text + "failures: {path: failures.jsonl, weight: 40}\n")
    assert run_json(capsys, "plan", "--recipe", recipe)["inputs"] == 120
    run_json(capsys, "generate", "--recipe", recipe)
    run_json(capsys, "curate", "--recipe", recipe)
    made = Store(tmp_path / "data/small.duckdb").query(
        "SELECT topic, label, count(*) AS n, count(*) FILTER (d.keep) AS kept FROM current_examples e JOIN decisions d ON d.example_id = e.id "
        "WHERE kind = 'observed_failure' GROUP BY ALL ORDER BY ALL"
    )
    assert {row["label"] for row in made} == {"card_arrival", "exchange_rate"}
    assert all(row["kept"] for row in made)


def test_sampled_reasoning_and_ranked_pairs_from_recipe_to_verdict(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = recipe.read_text().replace(
        "seed: 40, topic: 80, adversarial: 40, reasoning: 24, preference: 40", "reasoning: 12, preference: 12"
    )
    recipe.write_text(text + "reasoning: {samples: 3}\npreference: {temperatures: [0.5, 1.0], weak: 1, chosen: any}\n")
    planned = run_json(capsys, "plan", "--recipe", recipe)
    assert planned["calls"] == planned["items"] + 12 * (3 + 1) + 12 * (3 + 6 + 1)
    run_json(capsys, "generate", "--recipe", recipe)
    run_json(capsys, "curate", "--recipe", recipe)
    store = Store(tmp_path / "data/small.duckdb")
    assert store.query("SELECT count(*) AS n FROM accepted WHERE reasoning IS NOT NULL AND (scores->>'samples')::DOUBLE = 3")[0]["n"] > 6
    pairs = store.query(
        "SELECT completion, rejected, (scores->>'chosen_margin')::DOUBLE AS margin FROM accepted WHERE rejected IS NOT NULL"
    )
    assert pairs
    assert all(pair["margin"] > 0 and pair["completion"] != pair["rejected"] for pair in pairs)
