"""A planted key is nowhere in what a run leaves or says; a recipe that holds one is refused; the command line loads no teacher."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from datagen.ask import Ask
from datagen.cli import main
from datagen.config import ModelConfig, load_recipe
from datagen.errors import ConfigError
from datagen.records import PlanItem
from datagen.secrets import redact, refuse_literals, resolved, without

KEY = "sk-planted-3f9a7c51e2d84b60ZQ"
PARTS = (KEY, KEY[:10], KEY[-8:])
RECIPE = """
name: small
taxonomy: shop.yaml
seed: 3
teachers:
  teacher: {model: openai/local, max_tokens: 200, price: {input_per_million: 0, output_per_million: 0}, params: {api_base: "URL"}}
mix: {topic: 24}
judge: true
concurrency: 2
retries: 3
split: {validation: 0, test: 0}
filters: {near_duplicate: {threshold: 0.99}}
terms: {openai/local: {decision: a scripted server, by: tests}}
"""


@pytest.fixture
def recipe(tmp_path: Path, server: Any, shop_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE.replace("URL", server.url))
    return path


def command(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OPENAI_API_KEY": KEY, "LITELLM_LOG": "DEBUG", "PYTHONPATH": str(Path(__file__).parents[2]), **variables}
    return subprocess.run(
        [sys.executable, "-m", "datagen", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )


def leaks(folder: Path, *said: subprocess.CompletedProcess[str]) -> list[str]:
    """Where a part of the key is found: in files, byte by byte, and in what commands printed."""
    found = [f"{path}: {part}" for path in folder.rglob("*") if path.is_file() for part in PARTS if part.encode() in path.read_bytes()]
    for done in said:
        found += [f"{done.args[3]} says {line}" for line in (done.stdout + done.stderr).splitlines() for part in PARTS if part in line]
    return found


def test_a_planted_key_is_in_no_output_of_a_whole_run(recipe: Path, tmp_path: Path, server: Any, shop_reply: Any) -> None:
    authorization: list[str] = []

    def reply(body: dict[str, Any], nth: int) -> Any:
        authorization.append(body["model"])
        echo = f"Incorrect API key provided: {KEY[:8]}*****{KEY[-4:]}. Sent: Bearer {KEY}."
        if "islands" in body["messages"][-1]["content"]:
            return server.error(400, echo)  # fails its input for good
        if nth == 1 and len(body["messages"][-1]["content"]) % 3 == 0:
            return server.error(500, echo)  # passes with the next try
        return shop_reply(body, nth)

    server.reply = reply
    said = [command(tmp_path, verb, "--recipe", "small.yaml") for verb in ("plan", "generate", "curate", "export", "report")]
    # 1: the input that the server refused is missing
    assert [done.returncode for done in said] == [0, 1, 0, 0, 0], [done.stderr[-800:] for done in said]
    assert {path.suffix for path in (tmp_path / "data").rglob("*") if path.is_file()} >= {
        ".duckdb",
        ".html",
        ".json",
        ".jsonl",
        ".parquet",
        ".md",
    }
    rows = command(tmp_path, "sql", "SELECT message FROM failures", "--recipe", "small.yaml", "--json")
    messages = [row["message"] for row in json.loads(rows.stdout)]
    assert messages
    assert all("[key]" in message for message in messages)
    assert leaks(tmp_path, *said, rows) == []


def test_a_wrong_key_is_one_line_without_the_key(recipe: Path, tmp_path: Path, server: Any) -> None:
    server.reply = lambda body, nth: server.error(401, f"Incorrect API key provided: {KEY[:7]}***********{KEY[-4:]}. Bearer {KEY}")
    done = command(tmp_path, "generate", "--recipe", "small.yaml")
    assert done.returncode == 2
    assert "Incorrect API key provided: [key]" in done.stderr
    assert leaks(tmp_path, done) == []


def test_a_bug_s_traceback_is_without_the_key(tmp_path: Path) -> None:
    script = "from datagen import cli\n@cli.app.command()\ndef crash():\n    raise RuntimeError('Bearer ' + __import__('os').environ['OPENAI_API_KEY'])\ncli.main(['crash'])"
    environment = {**os.environ, "OPENAI_API_KEY": KEY, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RuntimeError: Bearer [key]" in done.stderr
    assert not any(part in done.stderr for part in PARTS)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ('{api_key: "my-own-key-123"}', "teachers.teacher.params.api_key holds a key as text"),
        ('{extra_headers: {Authorization: "Bearer abc"}}', "extra_headers.Authorization holds a key as text"),
        ('{aws_secret_access_key: "abc"}', "aws_secret_access_key holds a key as text"),
        ('{user: "sk-proj-0123456789abcdef0123"}', "params.user holds what looks like a key"),
        ('{api_key: "${HOME}"}', "names the variable HOME"),
    ],
)
def test_a_recipe_with_a_key_in_it_is_refused_without_showing_it(recipe: Path, params: str, words: str) -> None:
    recipe.write_text(recipe.read_text().replace("params: {", f"params: {params[:-1]}, "))
    with pytest.raises(ConfigError) as refused:
        load_recipe(recipe)
    assert words in str(refused.value)
    assert not any(value in str(refused.value) for value in ("my-own-key", "Bearer", "abc", "sk-proj"))


@pytest.mark.parametrize("value", ["none", "", "EMPTY", "${MY_SERVER_KEY}", "Bearer ${MY_TOKEN}"])
def test_no_key_and_a_variable_are_allowed(value: str) -> None:
    refuse_literals(
        {"params": {"api_key": value, "max_completion_tokens": "9", "prompt_cache_key": "shop", "stop_token_ids": ["1"]}}, "r.yaml"
    )


def test_a_key_by_reference_reaches_the_server_and_no_file(
    recipe: Path, tmp_path: Path, server: Any, shop_reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.reply = shop_reply
    recipe.write_text(recipe.read_text().replace("params: {", 'params: {api_key: "${SHOP_SERVER_KEY}", '))
    missing = command(tmp_path, "generate", "--recipe", "small.yaml")
    assert missing.returncode == 2
    assert "needs SHOP_SERVER_KEY in the environment" in missing.stderr
    assert not server.bodies
    done = command(tmp_path, "generate", "--recipe", "small.yaml", SHOP_SERVER_KEY=KEY, OPENAI_API_KEY="")
    assert done.returncode == 0, done.stderr
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert leaks(tmp_path, missing, done) == []


def test_a_key_is_no_part_of_what_was_asked(make_asker: Any, scripted: Any, roles: Any) -> None:
    ids = set()
    for params in ({}, {"api_key": "none"}, {"api_key": "${MY_KEY}"}):
        roles["teacher"] = ModelConfig(model="test/big", params={**params, "top_p": 0.9})
        asker = make_asker(scripted(lambda request: "x"))
        request = Ask(asker, PlanItem(topic="a", generator="topic", index=0, count=1))._request(
            "p@1", (), "teacher", "s", asker.params["teacher"]
        )
        assert "api_key" not in request.params
        assert request.params["top_p"] == 0.9
        ids.add(request.id)
    assert len(ids) == 1


def test_headers_keep_what_is_no_key() -> None:
    params = {"extra_headers": {"Authorization": "Bearer ${A_TOKEN}", "X-Project": "shop"}, "api_base": "u"}
    assert without(params) == {"extra_headers": {"X-Project": "shop"}, "api_base": "u"}
    assert resolved(params, "p", {"A_TOKEN": "t"}) == {"extra_headers": {"Authorization": "Bearer t", "X-Project": "shop"}}


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"sent {KEY}", "sent [key]"),
        (f"sent {KEY[:9]}...", "sent [key]"),
        (f"sent ***{KEY[-6:]}.", "sent [key]."),
        ("sent abcd****wxyz now", "sent [key] now"),
        ("AKIAABCDEFGHIJKLMNOP", "[key]"),
        ("an ordinary sentence about a basket and a skeleton-key", "an ordinary sentence about a basket and a skeleton-key"),
    ],
)
def test_a_text_is_cleaned_of_keys_whole_and_in_part(text: str, clean: str) -> None:
    assert redact(text, {"OPENAI_API_KEY": KEY, "PASS": "short", "GOOGLE_APPLICATION_CREDENTIALS": "/home/a/key.json"}) == clean


def loaded_by(*arguments: str) -> set[str]:
    """The top-level modules that a command imports."""
    script = f"import sys; from datagen.cli import main\ntry: main({list(arguments)!r})\nfinally: sys.stderr.write('MODULES ' + ' '.join(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    return {name.split(".")[0] for name in done.stderr.split("MODULES ")[1].split()}


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"]])
def test_help_loads_no_teacher_no_store_and_no_numbers(arguments: list[str]) -> None:
    assert loaded_by(*arguments) & {"litellm", "duckdb", "pandas", "numpy", "scipy", "openai", "aiohttp", "jinja2"} == set()


def test_litellm_reports_nothing_and_fetches_nothing() -> None:
    from datagen.teacher import _litellm

    litellm = _litellm()
    assert litellm.telemetry is False
    assert (os.environ["LITELLM_LOCAL_MODEL_COST_MAP"], os.environ["HF_HUB_DISABLE_TELEMETRY"]) == ("True", "1")
    assert not [*litellm.success_callback, *litellm.failure_callback, *litellm.callbacks]


def test_the_help_answers_with_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "generate" in capsys.readouterr().out
