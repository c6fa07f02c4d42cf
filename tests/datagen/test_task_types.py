"""Every type of task from its recipe to an export, against a scripted teacher behind HTTP; its defaults, and its guide in `plan`."""

import hashlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from datagen.cli import main
from datagen.config import load_recipe
from datagen.errors import ConfigError
from datagen.filters import EXAMPLE_FILTERS
from datagen.records import PlanItem, Task
from datagen.sources import passages_of
from datagen.store import Store
from datagen.tasks import TASK_TYPES, volume, with_defaults
from datagen.taxonomy import load_taxonomy
from tests.datagen.conftest import NAMES
from train.metrics import METRICS, TaskSpec, primary_metric

ROOT = Path(__file__).parents[2]
WORDS = NAMES


def sentence(key: str) -> str:
    """Thirteen different words and some of English, the same for the same key."""
    rng = random.Random(hashlib.sha256(key.encode()).hexdigest())
    a, b, c, d, e, f, g, h, i = rng.sample(WORDS, 9)
    return f"the {a} {b} by the {c} is {d} and {e}, so we have {f} of the {g} and {h} {i}"


Body = dict[str, Any]


def writer(body: Body, nth: int, about: Callable[[str], str]) -> str:
    user = body["messages"][-1]["content"]
    topic = re.search(r"^Topic: (.*)$", user, re.MULTILINE)
    count = re.search(r"^Number of inputs: (\d+)$", user, re.MULTILINE)
    assert topic
    assert count
    return json.dumps([f"{about(topic[1])} {sentence(f'{user}/{nth}/{n}')}" for n in range(int(count[1]))])


def classify(body: Body, nth: int) -> str:
    labels = {topic.path: topic.label for topic in load_taxonomy(ROOT / "taxonomies/city_desk.yaml")[0].leaves()}
    if body["messages"][0]["content"].startswith("You "):
        return writer(body, nth, lambda topic: f"Please see to {labels[topic]} soon:")
    found = re.search(r"see to (\w+) soon", body["messages"][-1]["content"])
    return json.dumps({"label": found[1] if found else "other"})


def extract(body: Body, nth: int) -> str:
    if body["messages"][0]["content"].startswith("You "):
        return writer(body, nth, lambda topic: "Come to the hall at nine:")
    wrong = len(body["messages"][-1]["content"]) % 5 == 0  # a span that the input does not have
    return json.dumps({"entities": {"place": "the hall", "time": "at ten" if wrong else "at nine"}})


def generate(body: Body, nth: int) -> str:
    system, user = body["messages"][0]["content"], body["messages"][-1]["content"]
    if system.startswith("You judge"):
        return json.dumps({"answer": 2 if len(user) % 7 == 0 else 5, "input": 5, "reason": "so"})
    if system.startswith("You write"):
        return writer(body, nth, lambda topic: "It is stated that")
    return f"You can do this: {sentence('answer ' + user)}."


def ask_library(body: Body, nth: int) -> str:
    system, user = body["messages"][0]["content"], body["messages"][-1]["content"]
    if system.startswith("You write"):
        return writer(body, nth, lambda topic: "What is to be done when")
    mark, text = re.findall(r"^begin (\w+)\n(.*)\nend \1$", user, re.MULTILINE | re.DOTALL)[0]
    assert mark
    words = text.split()
    quote = " ".join(words[3:9]) if len(user) % 6 else "words that nobody wrote there"
    return json.dumps({"answer": f"The rules say so, in short: {sentence(user)}.", "quote": quote})


def help_line(body: Body, nth: int) -> str:
    system, user = body["messages"][0]["content"], body["messages"][-1]["content"]
    if system.startswith("You judge"):
        return '{"answer": 5, "input": 5, "reason": "right"}'
    if system.startswith("You play"):
        turns = user.count("\nUser: ") + user.startswith("User: ")
        done = turns >= 1 + len(user) % 4
        return json.dumps({"done": done, "message": "" if done else f"My machine stands still here, {sentence(user)}."})
    if system.startswith("You write"):
        return writer(body, nth, lambda topic: "My machine does this:")
    key = f"reply {len(body['messages'])} {user}"
    return f"Please look at this for me: {sentence(key)}."


CASES = {
    "city-desk": ("classification", classify, 0.03, set()),
    "event-notices": ("extraction", extract, 0.03, {"entities"}),
    "plain-words": ("generation", generate, 0.01, {"judge_answer"}),
    "library": ("question_answering", ask_library, 0.5, {"grounded"}),
    "appliance-help": ("conversation", help_line, 0.012, set()),
}  # fmt: skip


def run(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return int(exit_.value.code or 0)


def test_every_type_of_task_has_a_recipe() -> None:
    assert sorted(kind for kind, *_ in CASES.values()) == sorted(TASK_TYPES) == sorted(get_args(Task.model_fields["type"].annotation))


QUICK = ("city-desk", "library")


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES])
def test_a_type_of_task_from_its_recipe_to_an_export(
    name: str, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, script, scale, dropped = CASES[name]
    data = yaml.safe_load((ROOT / f"recipes/{name}.yaml").read_text())
    model = {"model": "openai/scripted", "api_bases": [server.url], "price": {"input_per_million": 0, "output_per_million": 0}}
    data |= {"teachers": {"teacher": {**model, "params": {"api_key": "none"}}}, "taxonomy": str(ROOT / data["taxonomy"])}
    data |= {"terms": {"openai/scripted": {"decision": "a scripted server", "by": "tests"}}, "split": {"validation": 0.2, "test": 0.2}}
    data["concurrency"] = 1  # the script answers by order of arrival, and with 8 passages the order decides whether a split is empty
    if "sources" in data:
        data["sources"]["folder"] = str(ROOT / data["sources"]["folder"])
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(yaml.safe_dump(data))
    server.reply = lambda body, nth: server.chat(script(body, nth))
    arguments = ("--recipe", "r.yaml", "--json")
    assert run("plan", *arguments, "--scale", scale) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["volume"].startswith(kind)
    assert run("generate", *arguments, "--scale", scale, "--quiet") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["calls"] <= planned["calls"]
    assert run("curate", *arguments) == 0
    curated = json.loads(capsys.readouterr().out)
    assert 0.6 * curated["examples"] < curated["accepted"] <= curated["examples"]
    store = Store(tmp_path / f"data/{name}.duckdb")
    reasons = {row["kind"] for row in store.query("SELECT DISTINCT split_part(reason, ':', 1) AS kind FROM rejected")}
    assert reasons - {"duplicate", "near_duplicate"} == dropped
    assert run("export", *arguments) == 0
    manifest = json.loads(capsys.readouterr().out)
    task = manifest["task"]
    assert (task["type"], task["output"]) == (kind, "json" if kind in ("classification", "extraction") else "text")
    assert sum(manifest["files"][f"sft/{part}.parquet"]["rows"] for part in ("train", "validation", "test")) == curated["accepted"]
    assert store.query("SELECT max(n) AS n FROM (SELECT count(DISTINCT split) AS n FROM accepted GROUP BY group_id)") == [{"n": 1}]
    if kind == "question_answering":
        rows = [json.loads(line) for line in Path(f"data/{name}/grounding.jsonl").read_text().splitlines()]
        assert len(rows) == curated["accepted"]
        assert {row["source"] for row in rows} == {"lending.md", "rooms.txt", "programme.html"}
        assert all(" ".join(row["passage"][row["quote_start"] : row["quote_end"]].split()) == row["quote"] for row in rows)
    if kind == "conversation":
        lengths = {row["n"] for row in store.query("SELECT DISTINCT len(prompt) AS n FROM accepted WHERE generator = 'conversation'")}
        assert {2, 4} <= lengths
        assert store.query(
            "SELECT count(*) AS n FROM (SELECT family FROM accepted WHERE family IS NOT NULL GROUP BY 1 HAVING count(DISTINCT split) > 1)"
        ) == [{"n": 0}]


def test_a_changed_document_asks_for_its_own_passages_alone(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("papers").mkdir()
    for path in (ROOT / "sources/library").iterdir():
        (Path("papers") / path.name).write_bytes(path.read_bytes())
    model = f'{{model: openai/scripted, api_bases: ["{server.url}"], price: {{input_per_million: 0, output_per_million: 0}}, params: {{api_key: none}}}}'
    Path("r.yaml").write_text(
        f"name: library\ntaxonomy: {ROOT}/taxonomies/library_rules.yaml\nsources: {{folder: papers, max_chars: 900}}\nteachers: {{teacher: {model}}}\n"
        "mix: {grounded: 48}\njudge: false\nterms: {openai/scripted: {decision: a scripted server, by: tests}}\n"
    )
    server.reply = lambda body, nth: server.chat(ask_library(body, nth))
    assert run("generate", "--recipe", "r.yaml", "--quiet") == 0
    before = len(server.bodies)
    lending = Path("papers/lending.md")
    lending.write_text(lending.read_text().replace("twenty cents", "thirty cents"))
    assert run("generate", "--recipe", "r.yaml", "--quiet") == 0
    again = server.bodies[before:]
    assert 0 < len(again) < before / 2
    assert all("thirty cents" in body["messages"][-1]["content"] for body in again)
    capsys.readouterr()


def test_a_task_without_a_schema_gets_that_of_its_type(text_task: Task) -> None:
    def schema(kind: str) -> Any:
        return with_defaults(text_task.model_copy(update={"type": kind}), ["a", "b"]).output_schema

    assert schema("classification")["properties"] == {"label": {"enum": ["a", "b"]}}
    assert schema("extraction")["required"] == ["entities"]
    assert [schema(kind) for kind in ("question_answering", "generation", "conversation")] == [None] * 3
    own = text_task.model_copy(update={"type": "classification", "output_schema": {"type": "object"}})
    assert with_defaults(own, ["a", "b"]) is own


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topics": {"a": {"description": "a", "label": "x"}}}, "task.type is classification, but the topics have 1 label"),
        ({"topics": {"a": {"description": "a", "label": "x"}, "b": {"description": "b"}}}, "label is missing; task.label_field is 'label'"),
    ],
)
def test_a_classification_needs_labels(change: Any, message: str, tmp_path: Path) -> None:
    data = yaml.safe_load((ROOT / "taxonomies/city_desk.yaml").read_text()) | change
    data["task"].pop("abstain_label")
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_taxonomy(tmp_path / "t.yaml")


def test_a_field_that_the_schema_does_not_have_is_refused(shop_path: Path) -> None:
    shop_path.write_text(shop_path.read_text().replace("label_field: intent", "label_field: intention"))
    with pytest.raises(
        ConfigError, match=r"task\.label_field is 'intention', which output_schema\.properties does not have: intent, entities"
    ):
        load_taxonomy(shop_path)


def items(*labels_and_counts: tuple[str | None, int]) -> list[PlanItem]:
    return [PlanItem(topic="t", generator="topic", index=n, count=count, label=label) for n, (label, count) in enumerate(labels_and_counts)]


@pytest.mark.parametrize(
    ("kind", "planned", "line"),
    [
        (
            "classification",
            [("a", 417), ("b", 400), ("b", 17)],
            "classification, 2 labels: 417 rows a label planned; the guide says 500-2,000",
        ),
        ("classification", [("a", 600), (None, 9)], "classification, 2 labels: 0 to 600 rows a label planned; the guide says 500-2,000"),
        ("extraction", [("a", 1500), (None, 1500)], "extraction: 3,000 rows planned; the guide says 2,000-5,000"),
        ("conversation", [(None, 12)], "conversation: 12 rows planned; the guide says 10,000-50,000"),
    ],
)
def test_the_plan_is_held_against_the_guide(kind: str, planned: Any, line: str, text_task: Task) -> None:
    assert volume(text_task.model_copy(update={"type": kind}), ["a", "b"], items(*planned)) == line


def test_the_table_in_the_docs_says_what_the_code_does() -> None:
    page = (ROOT / "docs/generation.md").read_text(encoding="utf-8")
    for name, kind in TASK_TYPES.items():
        assert set(kind.checks) <= set(EXAMPLE_FILTERS)
        json_output = name in ("classification", "extraction")
        fields = {"classification": {"label_field": "label"}, "extraction": {"entities_field": "entities"}}.get(name, {})
        metric = primary_metric(TaskSpec(type=name, output="json" if json_output else "text", **fields))
        assert metric in METRICS
        checks = ", ".join(f"`{check}`" for check in kind.checks)
        rows = f"{kind.low:,}-{kind.high:,}{' of each label' if kind.per_label else ''}"
        assert f"| `{name}` | {kind.answer} | {checks} | `{metric}` | {rows} |" in page


def test_the_library_s_documents_are_three_kinds_of_file() -> None:
    found, shown = passages_of(load_recipe(ROOT / "recipes/library.yaml"))
    assert shown
    assert {passage.source for passage in found} == {"lending.md", "rooms.txt", "programme.html"}
    assert not any("Printed on recycled paper" in passage.text or "Home" in passage.text for passage in found)
