"""Money against a server that counts: the reported sum is the server's own under faults, a cap is a cap, kills lose nothing."""

import hashlib
import json
import random
import subprocess
import sys
import time
import urllib.request
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
    max_tokens: {max_tokens}
    timeout_s: 10
    price: {{input_per_million: 3.0, output_per_million: 15.0}}
    params: {{api_base: "{url}", api_key: none}}
terms: {{openai/local: {{decision: a scripted server, by: tests}}}}
mix: {{topic: {inputs}}}
judge: false
concurrency: 8
attempts: 3
retries: 8
"""


def answer(body: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()[:10]
    if body["messages"][0]["content"].startswith("You write"):
        return json.dumps([f"my parcel number {n} from shop {digest} is late" for n in range(4)])
    return json.dumps({"intent": "late", "entities": {}, "decision": "wait"})


def fate(body: dict[str, Any], nth: int) -> int:
    return int(hashlib.sha256(f"{json.dumps(body['messages'])}{nth}".encode()).hexdigest(), 16) % 100


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return int(exit_.value.code or 0)


def test_the_reported_sum_is_the_servers_own_to_the_cent_under_faults(
    server: Any, shop_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE.format(url=server.url, inputs=80, max_tokens=400))
    billed: list[float] = []

    def reply(body: dict[str, Any], nth: int) -> Any:
        struck = fate(body, nth)
        if struck < 5:
            return server.error(500, "broken", {"Retry-After": "0"})
        text = answer(body)
        if struck < 13:
            text = text[: len(text) // 2]  # billed all the same
        billed.append(100 * 3e-6 + 20 * 15e-6)
        return server.chat(text, finish="length" if 8 <= struck < 13 else "stop")

    server.reply = reply
    run("generate", "--recipe", "r.yaml", "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["cost_usd"] == pytest.approx(sum(billed), abs=0.005)
    assert report["maybe_billed_usd"] == 0
    store = Store(tmp_path / "data/shop.duckdb")
    assert store.ledger.spent_usd == pytest.approx(sum(billed))
    made = len(store.current_examples())
    assert made + sum(entry["inputs"] for entry in report["missing"]) == 80


def test_an_answer_whose_connection_was_lost_may_have_been_billed_and_is_told_apart(
    server: Any, shop_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE.format(url=server.url, inputs=24, max_tokens=400))
    whole: list[float] = []
    cut: list[float] = []

    def reply(body: dict[str, Any], nth: int) -> Any:
        status, headers, data = server.chat(answer(body))
        if fate(body, nth) < 10:
            cut.append(0.0006)
            return status, {"Content-Length": str(len(data) + 100), "Connection": "close"}, data
        whole.append(0.0006)
        return status, headers, data

    server.reply = reply
    assert run("generate", "--recipe", "r.yaml") == 0
    assert cut
    assert "more may have been billed for calls that never came back" in capsys.readouterr().err
    store = Store(tmp_path / "data/shop.duckdb")
    assert store.ledger.spent_usd == pytest.approx(sum(whole))
    assert sum(cut) <= store.ledger.unknown_usd
    (row,) = store.query("SELECT count(*) AS n FROM failures WHERE billed = 'maybe'")
    assert row["n"] == len(cut)
    assert run("costs", "--recipe", "r.yaml", "--release") == 0
    said = capsys.readouterr()
    assert f"{len(whole)}" in said.out
    assert "Released $" in said.err
    assert Store(tmp_path / "data/shop.duckdb").ledger.unknown_usd == 0


def test_a_second_teacher_is_told_of_the_first(
    server: Any, shop_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = RECIPE.format(url=server.url, inputs=8, max_tokens=400)
    (tmp_path / "r.yaml").write_text(recipe)
    server.reply = lambda body, nth: server.chat(answer(body))
    assert run("generate", "--recipe", "r.yaml", "--quiet") == 0
    assert "calls/s" not in capsys.readouterr().err
    (tmp_path / "r.yaml").write_text(recipe.replace("openai/local", "openai/other"))
    assert run("generate", "--recipe", "r.yaml") == 0
    said = capsys.readouterr().err
    assert "answers of openai/local as teacher" in said
    assert "which now asks openai/other" in said
    assert "calls/s" in said


def test_the_cap_holds_against_a_server_that_always_answers_at_max_tokens(
    server: Any, shop_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = RECIPE.format(url=server.url, inputs=80, max_tokens=1000) + "budget_usd: 1.0\n"
    (tmp_path / "r.yaml").write_text(recipe)

    def reply(body: dict[str, Any], nth: int) -> Any:
        status, headers, data = server.chat(answer(body))
        usage = {"prompt_tokens": 200, "completion_tokens": 1000, "total_tokens": 1200}
        return status, headers, json.dumps({**json.loads(data), "usage": usage}).encode()

    server.reply = reply
    for _ in range(2):  # the cap holds over a restart
        assert run("generate", "--recipe", "r.yaml") == 1
        assert 0.9 < server.seen.total() * (200 * 3e-6 + 1000 * 15e-6) <= 1.0
    assert "Short of what was asked: stopped: the next call may cost" in capsys.readouterr().err
    assert run("costs", "--recipe", "r.yaml", "--json") == 0
    account = json.loads(capsys.readouterr().out)
    assert account["spent_usd"] == pytest.approx(server.seen.total() * 0.0156)
    assert account["budget_usd"] == 1.0


def test_a_plan_says_what_it_will_cost_and_a_pilot_makes_it_sharper(
    server: Any, shop_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE.format(url=server.url, inputs=120, max_tokens=400))
    server.reply = lambda body, nth: server.chat(answer(body))
    assert run("plan", "--recipe", "r.yaml", "--json") == 0
    guess = json.loads(capsys.readouterr().out)["forecast"]
    assert [part["basis"] for part in guess["generators"]] == [0]
    assert not (tmp_path / "data").exists()
    assert run("plan", "--recipe", "r.yaml", "--pilot", "4") == 2
    assert "Add --yes" in capsys.readouterr().err
    assert server.seen.total() == 0
    assert run("plan", "--recipe", "r.yaml", "--pilot", "4", "--yes") == 0
    said = capsys.readouterr()
    assert "it costs at most $" in said.err
    assert "4 items of the store" in said.out
    paid = server.seen.total()
    assert 12 <= paid <= 20
    assert run("plan", "--recipe", "r.yaml", "--json") == 0
    ahead = json.loads(capsys.readouterr().out)["forecast"]
    assert run("generate", "--recipe", "r.yaml") == 0
    assert "Forecast against actual: calls" in capsys.readouterr().err
    store = Store(tmp_path / "data/shop.duckdb")
    assert len(store.current_examples()) == 120
    actual = server.seen.total() - paid
    assert ahead["calls"]["low"] <= actual <= ahead["calls"]["high"]
    assert ahead["usd"]["low"] - 1e-9 <= actual * 0.0006 <= ahead["usd"]["high"] + 1e-9
    stored = store.query("SELECT forecast FROM runs WHERE command = 'generate'")[0]["forecast"]
    assert json.loads(stored)["usd"]["mean"] == pytest.approx(ahead["usd"]["mean"])
    assert run("plan", "--recipe", "r.yaml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["forecast"]["calls"]["mean"] == 0
    assert run("plan", "--recipe", "r.yaml", "--pilot", "2", "--yes") == 0
    assert "the store has an answer to everything" in capsys.readouterr().err


SERVER = """
import hashlib, json, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
sys.path.insert(0, sys.argv[1])
from test_money_on_the_wire import answer
answered, lock = [0], threading.Lock()
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def send(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        self.send(answered[0])
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(0.02)
        with lock:
            answered[0] += 1
        message = {"role": "assistant", "content": answer(body)}
        self.send({"id": "x", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}})
    def log_message(self, *args): pass
http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(http.server_port, flush=True)
http.serve_forever()
"""


@pytest.mark.slow
def test_killed_twenty_times_a_run_of_a_thousand_loses_nothing_and_pays_twice_only_what_was_in_flight(
    shop_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng, here = random.Random(20), str(Path(__file__).parent)
    with subprocess.Popen([sys.executable, "-c", SERVER, here], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"

        def answered() -> int:
            return int(urllib.request.urlopen(url).read())

        (tmp_path / "r.yaml").write_text(RECIPE.format(url=f"{url}/v1", inputs=1000, max_tokens=400) + "budget_usd: 100\n")
        command = [sys.executable, "-m", "datagen", "generate", "--recipe", "r.yaml", "--quiet"]
        path, before = tmp_path / "data/shop.duckdb", set[str]()
        try:
            for _ in range(20):
                target, moment = answered() + rng.randrange(1, 100), rng.random() * 0.05
                with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                    while answered() < target:
                        assert process.poll() is None, "the run ended before it could be killed"
                        time.sleep(0.01)
                    time.sleep(moment)
                    process.kill()
                now = set(Store(path).answers())  # the file always opens
                assert before <= now, "an answer that was there is lost"
                before = now
            assert subprocess.run(command, check=False, capture_output=True).returncode == 0
            total = answered()
        finally:
            server.kill()
    store = Store(path)
    items = store.query("SELECT count(*) AS n FROM items")[0]["n"]
    calls = items + 1000  # one that writes an item's inputs, one for each answer
    for table, rows in (("calls", calls), ("examples", 1000), ("items", items)):
        (row,) = store.query(f"SELECT count(*) AS n, count(DISTINCT id) AS ids FROM {table}")
        assert row == {"n": rows, "ids": rows}
    assert 0 <= total - calls <= 20 * 8  # paid twice: only what was in flight at one of the twenty kills
    assert store.ledger.spent_usd == pytest.approx(calls * (100 * 3e-6 + 20 * 15e-6))
    # what was in flight counts as perhaps billed, so that the account is never below the server's
    (lost,) = store.query("SELECT count(*) AS n FROM failures WHERE error = 'killed' AND billed = 'maybe'")
    assert total - calls <= lost["n"] <= 20 * 8
