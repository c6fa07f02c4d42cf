"""The whole of data generation against an OpenAI-compatible server with 10 % 500s, some 429s and broken JSON."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from datagen.cli import main
from datagen.store import Store

RECIPE = """
name: shop
taxonomy: shop.yaml
seed: 1
teachers:
  teacher:
    model: openai/local
    max_tokens: 200
    timeout_s: 10
    price: {{input_per_million: 1.0, output_per_million: 2.0}}
    params: {{api_base: "{url}", api_key: none}}
mix: {{seed: 16, topic: 40, adversarial: 16, reasoning: 8, preference: 12}}
concurrency: 8
attempts: 3
retries: 6
terms: {{openai/local: {{decision: a scripted server, by: tests}}}}
"""


def answer(body: dict[str, Any]) -> str:
    system, user = body["messages"][0]["content"], body["messages"][-1]["content"]
    digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()[:6]
    if system.startswith(("You write", "You rewrite")):
        return json.dumps([f"my parcel number {n} from shop {digest} is late" for n in range(4)])
    if system.startswith("You judge"):
        return '{"answer": 5, "input": 5, "reason": "right"}'
    if system.startswith("You compare"):
        return '{"better": "A", "reason": "first"}'
    found = {"intent": "late", "entities": {}, "decision": "wait"}
    if "steps" in system:
        return json.dumps({"steps": ["R2 holds."], "answer": found})
    assert user
    return json.dumps(found)


def test_every_planned_item_is_done_or_failed_with_its_reason(
    server: Any, shop_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE.format(url=server.url))
    answered: list[str] = []

    def reply(body: dict[str, Any], nth: int) -> Any:
        fate = int(hashlib.sha256(f"{json.dumps(body)}{nth}".encode()).hexdigest(), 16) % 100
        if fate < 10:
            return server.error(500, "broken", {"Retry-After": "0"})
        if fate < 14:
            return server.error(429, "slow down", {"Retry-After": "0"})
        text = answer(body)
        if fate < 22:
            text = text[: len(text) // 2]
        answered.append(text)
        return server.chat(text)

    server.reply = reply
    code = run(["generate", "--recipe", "r.yaml", "--json"])
    report = json.loads(capsys.readouterr().out)
    store = Store(tmp_path / "data/shop.duckdb")
    items = store.query("SELECT status, error, example_ids FROM items")
    assert len(items) == report["items"] == report["done"] + report["failed"]
    assert code == (1 if report["failed"] or report["missing"] else 0)
    for item in items:
        assert (item["status"] == "done") is bool(item["example_ids"])
        assert item["status"] == "done" or item["error"]
    # every answer that came over the wire is journaled and billed, the broken ones too
    (paid,) = store.query("SELECT count(*) AS calls, sum(cost_usd) AS usd FROM calls")
    assert paid["calls"] == len(answered)
    assert paid["usd"] == pytest.approx(len(answered) * (100 * 1e-6 + 20 * 2e-6))
    (lost,) = store.query("SELECT count(*) AS n, count(DISTINCT error) AS kinds FROM failures")
    assert lost["n"] == server.seen.total() - len(answered)
    assert lost["kinds"] == 2
    # no invalid row is delivered
    assert all(json.loads(row["completion"]) for row in store.query("SELECT completion FROM examples"))


def test_one_poisoned_input_fails_alone(
    server: Any, shop_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE.format(url=server.url).replace("topic: 40", "topic: 8"))

    def reply(body: dict[str, Any], nth: int) -> Any:
        text = body["messages"][-1]["content"]
        if "number 1" in text and not body["messages"][0]["content"].startswith("You "):
            return server.error(400, "content policy")
        return server.chat(answer(body))

    server.reply = reply
    assert run(["generate", "--recipe", "r.yaml", "--json"]) == 1
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["failed"] == 0
    assert report["problems"] == report["items"]
    assert report["missing"] == [{"reason": "BadRequestError", "inputs": report["items"], "cost_usd": 0.0}]
    last = said.err.strip().splitlines()[-1]
    assert last.startswith(f"Short of what was asked: {report['items']} of 60 inputs are missing")
    (row,) = Store(tmp_path / "data/shop.duckdb").query("SELECT error FROM items LIMIT 1")
    assert row["error"].startswith("input 1: BadRequestError after 1 tries")


def test_a_wrong_key_ends_the_run_with_exit_2(
    server: Any, shop_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE.format(url=server.url))
    server.reply = lambda body, nth: server.error(401, "invalid key")
    assert run(["generate", "--recipe", "r.yaml"]) == 2
    assert f"error: openai/local at {server.url}: AuthenticationError: 401: invalid key. Check the key" in capsys.readouterr().err
    assert server.seen.total() <= 8


def test_killed_three_times_only_what_was_in_flight_is_paid_again(
    server: Any, shop_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE.format(url=server.url).replace("topic: 40", "topic: 200"))

    def reply(body: dict[str, Any], nth: int) -> Any:
        time.sleep(0.02)
        return server.chat(answer(body))

    server.reply = reply
    command = [sys.executable, "-m", "datagen", "generate", "--recipe", "r.yaml"]
    for _ in range(3):
        before = server.seen.total()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while server.seen.total() < before + 120:
                assert process.poll() is None, "the run ended before it could be killed"
                time.sleep(0.005)
            process.kill()
    assert run(["generate", "--recipe", "r.yaml"]) == 0
    store = Store(tmp_path / "data/shop.duckdb")
    (calls,) = store.query("SELECT count(*) AS n, count(DISTINCT id) AS ids FROM calls")
    assert calls["n"] == calls["ids"]
    paid_again = server.seen.total() - calls["n"]
    assert 0 <= paid_again <= 3 * 8  # three kills, eight calls in flight at each
    (examples,) = store.query("SELECT count(*) AS n, count(DISTINCT id) AS ids FROM examples")
    assert examples["n"] == examples["ids"]


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return int(exit_.value.code or 0)
