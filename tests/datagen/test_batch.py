"""Runs through the batch APIs of two providers, which a server on this machine plays: files, batches, results, and all that goes wrong."""

import email.parser
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from datagen.cli import PENDING, main
from datagen.store import Store

MODELS = {"openai": "openai/gpt-4o-mini", "anthropic": "anthropic/claude-haiku-4-5"}
LIVE_USD = {"openai": (0.15e-6, 0.6e-6), "anthropic": (1e-6, 5e-6)}  # per token in, out; half of it in a batch
RECIPE = """
name: shop
taxonomy: shop.yaml
seed: 1
teachers:
  teacher: {{model: {model}, max_tokens: 200, timeout_s: 120, params: {{api_base: "{base}"}}}}
{more}
mix: {{topic: {topic}, preference: 4}}
attempts: 3
retries: 2
batch: {{live_below: 1, poll_s: 0.01, {batch}}}
"""


def answer(messages: str) -> str:
    """The same text for the same messages, live and in a batch."""
    digest = hashlib.sha256(messages.encode()).hexdigest()
    if "You write" in messages:
        return json.dumps([f"my parcel number {n} from shop {digest[:6]} is late" for n in range(4)])
    if "You judge" in messages:
        return '{"answer": 5, "input": 5, "reason": "right"}'
    if "You compare" in messages:
        return '{"better": "A", "reason": "first"}'
    found = {"intent": "late", "entities": {}, "decision": "wait"}
    return json.dumps({"steps": ["R2 holds."], "answer": found} if "steps" in messages else found)


class BatchServer:
    """OpenAI's and Anthropic's endpoints for chat and batches, for one account.

    fate        what happens to a request of a batch: "", or error:STATUS, expired, canceled, garbled, missing
    refuse      what is wrong with a batch as a whole, from its lines: (code, message), or None
    on_create   before answering the making of a batch: "lost" (made, no answer), "never" (not made, no answer), or an HTTP status
    looks       how often a batch must be looked at until it is done
    """

    def __init__(self) -> None:
        self.fate: Callable[[dict[str, Any]], str] = lambda request: ""
        self.refuse: Callable[[list[dict[str, Any]]], tuple[str, str] | None] = lambda requests: None
        self.on_create: list[str | int] = []
        self.on_look: list[int] = []
        self.looks = 2
        self.usd = 0.0
        self.live: list[dict[str, Any]] = []
        self.answered: Counter[str] = Counter()
        self.betas: set[str] = set()
        self.batches: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self._lock = threading.RLock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.handle_it(b"")

            def do_POST(self) -> None:
                self.handle_it(self.rfile.read(int(self.headers["Content-Length"])))

            def handle_it(self, data: bytes) -> None:
                assert self.headers.get("Authorization") == "Bearer sk-batch-test" or self.headers.get("x-api-key") == "sk-batch-test"
                with server._lock:
                    status, body = server.answer(self.command, self.path, data, self.headers)
                if status == 0:
                    self.close_connection = True
                    return
                sent = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.send_header("Connection", "close")  # litellm leaves its clients open
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # of 5, a slow machine drops connections that come together, and each waits seconds

        self.http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, method: str, path: str, data: bytes, headers: Any) -> tuple[int, Any]:
        path, _, query = path.partition("?")
        provider = "openai" if headers.get("Authorization") else "anthropic"
        if path == "/v1/chat/completions" or path == "/v1/messages":
            body = json.loads(data)
            self.live.append(body)
            return self.complete(provider, body, share=1.0)
        if path == "/v1/files" and method == "POST":
            message = email.parser.BytesParser().parsebytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + data)
            parts = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in message.get_payload()}  # type: ignore[union-attr]
            assert parts["purpose"] == b"batch"
            name = f"file-{len(self.files)}"
            self.files[name] = parts["file"]  # type: ignore[assignment]
            return 200, {
                "id": name, "object": "file", "bytes": len(data), "created_at": 1, "filename": "x", "purpose": "batch", "status": "processed",
            }  # fmt: skip
        if match := re.fullmatch(r"/v1/files/(.+)/content", path):
            return (200, self.files[match[1]]) if match[1] in self.files else (404, {"error": {"message": "no such file"}})
        if path == "/v1/batches" and method == "POST":
            body = json.loads(data)
            lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
            assert all(line["url"] == body["endpoint"] == "/v1/chat/completions" and line["method"] == "POST" for line in lines)
            return self.create("openai", [{"id": line["custom_id"], "body": line["body"]} for line in lines], body["metadata"])
        if path == "/v1/messages/batches" and method == "POST":
            self.betas |= set(headers["anthropic-beta"].split(","))
            assert headers["anthropic-version"]
            return self.create(
                "anthropic", [{"id": line["custom_id"], "body": line["params"]} for line in json.loads(data)["requests"]], {}
            )
        if path in ("/v1/batches", "/v1/messages/batches"):
            return 200, self.page(provider, query)
        if match := re.fullmatch(r"/v1/(?:messages/)?batches/([^/]+)", path):
            return self.look(match[1])
        if match := re.fullmatch(r"/v1/messages/batches/(.+)/results", path):
            return 200, self.files[match[1]]
        raise AssertionError(f"{method} {path}")

    def complete(self, provider: str, body: dict[str, Any], share: float) -> tuple[int, Any]:
        system = body.get("system") or ""
        said = [system if isinstance(system, str) else "".join(part["text"] for part in system)] if system else []
        for message in body["messages"]:
            content = message["content"]
            said.append(content if isinstance(content, str) else "".join(part["text"] for part in content))
        text = answer("\n".join(said))
        tokens = (len("\n".join(said)) // 4, len(text) // 4)
        self.usd += share * sum(count * usd for count, usd in zip(tokens, LIVE_USD[provider], strict=True))
        if provider == "openai":
            return 200, {
                "id": "x", "object": "chat.completion", "created": 1, "model": body["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)},
            }  # fmt: skip
        return 200, {
            "id": "msg_x", "type": "message", "role": "assistant", "model": body["model"], "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": tokens[0], "output_tokens": tokens[1]},
        }  # fmt: skip

    def create(self, provider: str, requests: list[dict[str, Any]], metadata: dict[str, str]) -> tuple[int, Any]:
        assert len({request["id"] for request in requests}) == len(requests)
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", request["id"]) for request in requests)
        event = self.on_create.pop(0) if self.on_create else ""
        if isinstance(event, int):
            return event, {"error": {"message": "not now", "type": "x", "code": "x"}}
        if event == "never":
            return 0, None
        batch = self.add(provider, requests, metadata)
        return (0, None) if event == "lost" else (200, self.shown(batch))

    def add(self, provider: str, requests: list[dict[str, Any]], metadata: dict[str, str]) -> dict[str, Any]:
        name = f"{'batch' if provider == 'openai' else 'msgbatch'}_{len(self.batches)}"
        self.batches[name] = {
            "id": name, "provider": provider, "requests": requests, "metadata": metadata, "looks": 0, "status": "open",
            "created": datetime.now(UTC), "failure": self.refuse(requests),
        }  # fmt: skip
        return self.batches[name]

    def page(self, provider: str, query: str) -> dict[str, Any]:
        wanted = dict(pair.split("=") for pair in query.split("&"))
        newest_first = [batch for batch in reversed(self.batches.values()) if batch["provider"] == provider]
        after = wanted.get("after") or wanted.get("after_id")
        start = next((n + 1 for n, batch in enumerate(newest_first) if batch["id"] == after), 0)
        shown = newest_first[start : start + min(2, int(wanted["limit"]))]  # two a page, to see that pages are turned
        more = start + len(shown) < len(newest_first)
        ids = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {}
        return {"object": "list", "data": [self.shown(batch) for batch in shown], "has_more": more, **ids}

    def look(self, name: str) -> tuple[int, Any]:
        if self.on_look:
            return self.on_look.pop(0), {"error": {"message": "not now", "type": "x", "code": "x"}}
        if name not in self.batches:
            return 404, {"error": {"message": "no such batch", "type": "not_found_error", "code": None}}
        batch = self.batches[name]
        batch["looks"] += 1
        if batch["status"] == "open" and batch["looks"] >= self.looks:
            self.finish(batch)
        return 200, self.shown(batch)

    def finish(self, batch: dict[str, Any], status: str = "done") -> None:
        batch["status"] = "failed" if batch["failure"] else status
        if batch["failure"]:
            return
        done, errors = [], []
        for request in reversed(batch["requests"]):  # results come in any order
            fate = "canceled" if status == "cancelled" else self.fate(request)
            if fate == "missing":
                continue
            (errors if fate and fate != "garbled" else done).append(self.line(batch["provider"], request, fate))
        if batch["provider"] == "anthropic":
            self.files[batch["id"]] = b"".join(done + errors)
            return
        for kind, lines in (("output", done), ("error", errors)):
            if lines:
                self.files[f"{batch['id']}-{kind}"] = b"".join(lines)

    def line(self, provider: str, request: dict[str, Any], fate: str) -> bytes:
        self.answered[request["id"]] += fate in ("", "garbled")
        kind, _, status = fate.partition(":")
        if provider == "anthropic":
            if kind == "error":
                name = "invalid_request_error" if status == "400" else "api_error"
                result = {"type": "errored", "error": {"type": "error", "error": {"type": name, "message": f"bad {status}"}}}
            elif kind in ("expired", "canceled"):
                result = {"type": kind}
            else:
                result = {"type": "succeeded", "message": self.complete(provider, request["body"], share=0.5)[1]}
            line: dict[str, Any] = {"custom_id": request["id"], "result": result}
        else:
            line = {"id": "r", "custom_id": request["id"], "response": None, "error": None}
            if kind == "error":
                error = {"message": f"bad {status}", "type": "x", "param": None, "code": None}
                line["response"] = {"status_code": int(status), "request_id": "q", "body": {"error": error}}
            elif kind in ("expired", "canceled"):
                line["error"] = {"code": f"batch_{kind}", "message": "it could not be executed in time"}
            else:
                line["response"] = {"status_code": 200, "request_id": "q", "body": self.complete(provider, request["body"], share=0.5)[1]}
        text = json.dumps(line).encode()
        return (text[: len(text) // 2] if kind == "garbled" else text) + b"\n"

    def shown(self, batch: dict[str, Any]) -> dict[str, Any]:
        number, status = len(batch["requests"]), batch["status"]
        if batch["provider"] == "anthropic":
            over = status != "open"
            stamp = batch["created"].isoformat().replace("+00:00", "Z")
            return {
                "id": batch["id"], "type": "message_batch", "processing_status": "ended" if over else "in_progress", "created_at": stamp,
                "ended_at": stamp if over else None, "expires_at": stamp, "cancel_initiated_at": None, "archived_at": None,
                "results_url": None,
                "request_counts": {
                    "processing": 0 if over else number, "succeeded": number if over else 0, "errored": 0, "canceled": 0, "expired": 0,
                },
            }  # fmt: skip
        code, message = batch["failure"] or ("", "")
        files = {f"{kind}_file_id": f"{batch['id']}-{kind}" for kind in ("output", "error") if f"{batch['id']}-{kind}" in self.files}
        return {
            "id": batch["id"], "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file", "completion_window": "24h",
            "created_at": int(batch["created"].timestamp()), "metadata": batch["metadata"],
            "status": {"open": "in_progress", "done": "completed"}.get(status, status),
            "errors": {"object": "list", "data": [{"code": code, "message": message, "line": None, "param": None}]} if code else None,
            "request_counts": {"total": number, "completed": number if status == "done" else 0, "failed": 0},
            **files,
        }  # fmt: skip


@pytest.fixture
def provider_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-batch-test")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-batch-test")
    server = BatchServer()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture(params=["openai", "anthropic"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Write = Callable[..., list[str]]


@pytest.fixture
def shop_run(shop_path: Path, tmp_path: Path, provider_server: BatchServer, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a recipe and gives the words of its `generate`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datagen.batch.SETTLE_S", 0.0)

    def write(provider: str, *, topic: int = 8, store: str = "a.duckdb", batch: str = "", more: str = "") -> list[str]:
        base = provider_server.url + ("/v1" if provider == "openai" else "")
        (tmp_path / "r.yaml").write_text(RECIPE.format(model=MODELS[provider], base=base, topic=topic, more=more, batch=batch))
        return ["generate", "--recipe", "r.yaml", "--store", store, "--terms", "a scripted server"]

    return write


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return int(exit_.value.code or 0)


def examples(store: str) -> list[tuple[Any, ...]]:
    rows = Store(Path(store)).query("SELECT id, completion, rejected, scores, calls FROM current_examples ORDER BY id")
    return [tuple(row.values()) for row in rows]


def paid(store: str) -> float:
    return Store(Path(store)).spent_usd()


def statuses(store: str) -> list[str]:
    return [row["status"] for row in Store(Path(store)).query("SELECT status FROM batches ORDER BY submitted_at")]


def test_a_batch_run_makes_the_same_examples_as_a_live_run_at_half_the_price(
    provider: str, shop_run: Write, provider_server: BatchServer
) -> None:
    assert run([*shop_run(provider, store="live.duckdb")]) == 0
    live_usd, calls = provider_server.usd, len(provider_server.live)
    assert paid("live.duckdb") == pytest.approx(live_usd, abs=1e-9)
    assert run([*shop_run(provider), "--batch"]) == 0
    assert examples("a.duckdb") == examples("live.duckdb") != []
    assert len(provider_server.live) == calls  # nothing more was asked live
    assert sum(len(batch["requests"]) for batch in provider_server.batches.values()) == calls
    assert provider_server.usd - live_usd == pytest.approx(live_usd / 2, abs=1e-9)
    assert paid("a.duckdb") == pytest.approx(live_usd / 2, abs=1e-9)


def test_every_training_row_of_a_batch_run_has_its_whole_lineage(shop_run: Write, provider_server: BatchServer, lineage_gaps: Any) -> None:
    assert run([*shop_run("openai"), "--batch"]) == 0
    assert run(["curate", "--recipe", "r.yaml", "--store", "a.duckdb"]) == 0
    rows, gaps = lineage_gaps(Store(Path("a.duckdb")))
    assert rows > 0
    assert gaps == 0


def test_a_request_of_a_batch_asks_what_a_live_call_asks(provider: str, shop_run: Write, provider_server: BatchServer) -> None:
    run(shop_run(provider, store="live.duckdb"))
    run([*shop_run(provider), "--batch"])

    def asked(bodies: list[dict[str, Any]]) -> list[str]:
        return sorted(json.dumps({k: v for k, v in body.items() if k != "stream"}, sort_keys=True) for body in bodies)

    batched = [request["body"] for batch in provider_server.batches.values() for request in batch["requests"]]
    assert asked(batched) == asked(provider_server.live)


def test_a_wave_is_as_deep_as_the_chain_not_as_long(shop_run: Write, provider_server: BatchServer) -> None:
    run([*shop_run("openai"), "--batch"])
    # inputs of 6 items; their answers, also the weak ones; comparisons, and scores of what needs none; scores of the pairs
    assert [len(batch["requests"]) for batch in provider_server.batches.values()] == [6, 16, 16, 4]


def test_a_second_batch_run_asks_nothing(shop_run: Write, provider_server: BatchServer) -> None:
    run([*shop_run("openai"), "--batch"])
    batches = len(provider_server.batches)
    assert run([*shop_run("openai"), "--batch"]) == 0
    assert len(provider_server.batches) == batches


def test_a_run_that_does_not_wait_goes_on_from_one_process_to_the_next(
    provider: str, shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run(shop_run(provider, store="live.duckdb"))
    codes = []
    while not codes or codes[-1] == PENDING:
        capsys.readouterr()
        codes.append(run([*shop_run(provider), "--batch", "--no-wait"]))
    assert codes[-1] == 0
    assert len(codes) > 4
    assert examples("a.duckdb") == examples("live.duckdb")
    assert max(provider_server.answered.values()) == 1
    assert set(statuses("a.duckdb")) == {"collected"}


@pytest.mark.slow
def test_rounds_of_a_quota_wait_for_their_batches_and_end_as_live_rounds_do(shop_run: Write, provider_server: BatchServer) -> None:
    more = "quota: {candidates: 2}"
    code = run(shop_run("openai", store="live.duckdb", more=more))
    codes = []
    while not codes or codes[-1] == PENDING:
        codes.append(run([*shop_run("openai", more=more), "--batch", "--no-wait"]))
    assert len(codes) > 4
    assert codes[-1] == code
    assert examples("a.duckdb") == examples("live.duckdb") != []
    assert max(provider_server.answered.values()) == 1


def test_a_pending_run_says_so(shop_run: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*shop_run("openai"), "--batch", "--no-wait"]) == PENDING
    said = capsys.readouterr().err
    assert "Submitting 6 requests to openai/gpt-4o-mini, at most $0.0007 (50% of the live price), answered within 24 h" in said
    assert "6 requests are pending in batches. The same command goes on from here" in said


def test_an_interrupt_leaves_the_batch_open_and_the_same_command_goes_on(
    shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run(shop_run("openai", store="live.duckdb"))

    def press_ctrl_c(requests: list[dict[str, Any]]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    provider_server.refuse = press_ctrl_c
    assert run([*shop_run("openai"), "--batch"]) == 130
    assert "The same command goes on from here" in capsys.readouterr().err
    assert statuses("a.duckdb") == ["open"]
    assert Store(Path("a.duckdb")).ledger.open_usd > 0
    provider_server.refuse = lambda requests: None
    assert run([*shop_run("openai"), "--batch"]) == 0
    assert examples("a.duckdb") == examples("live.duckdb")
    assert max(provider_server.answered.values()) == 1


def test_the_key_is_in_no_file_that_is_uploaded_or_kept_and_in_nothing_that_is_said(
    provider: str, shop_run: Write, provider_server: BatchServer, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    key = os.environ["OPENAI_API_KEY"]
    echo = {"error": {"message": f"Incorrect API key provided: {key}", "type": "x", "code": "x"}}
    provider_server.on_look = [500, 429]
    look = provider_server.look

    def echoing(name: str) -> tuple[int, Any]:
        status, body = look(name)
        return status, body if status == 200 else echo

    provider_server.look = echoing  # type: ignore[method-assign]
    fates = itertools.cycle(["", "error:500", "error:400"])
    provider_server.fate = lambda request: next(fates)
    line = provider_server.line
    provider_server.line = lambda *asked: line(*asked).replace(b"bad ", f"Bearer {key} ".encode())  # type: ignore[method-assign]
    assert run([*shop_run(provider), "--batch"]) == 1
    said = capfd.readouterr()
    assert "Incorrect API key provided: [key]" in said.err
    assert key not in said.out + said.err
    uploaded = json.dumps([batch["requests"] for batch in provider_server.batches.values()])
    assert "You write" in uploaded
    assert key not in uploaded
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert not [name for name, data in provider_server.files.items() if name.startswith("file-") and key.encode() in data]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_stopped_while_it_waits_pays_for_nothing_twice(
    how: signal.Signals, provider: str, shop_run: Write, provider_server: BatchServer
) -> None:
    run(shop_run(provider, store="live.duckdb"))
    usd = provider_server.usd
    provider_server.looks = sys.maxsize
    command = [*shop_run(provider), "--batch"]
    waiting = subprocess.Popen(
        [sys.executable, "-m", "datagen", *command], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not any(batch["looks"] for batch in provider_server.batches.values()):
        assert waiting.poll() is None
        time.sleep(0.02)
    waiting.send_signal(how)
    _, err = waiting.communicate()
    assert waiting.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL), err
    assert Store(Path("a.duckdb")).ledger.open_usd > 0
    provider_server.looks = 2
    assert run(command) == 0
    assert [len(batch["requests"]) for batch in provider_server.batches.values()] == [6, 16, 16, 4]
    assert max(provider_server.answered.values()) == 1
    assert examples("a.duckdb") == examples("live.duckdb")
    assert paid("a.duckdb") == pytest.approx(provider_server.usd - usd, abs=1e-9)
    assert Store(Path("a.duckdb")).ledger.unknown_usd == 0


def test_a_budget_that_is_raised_while_a_batch_is_open_sends_the_rest_once(
    provider: str, shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run(shop_run(provider, topic=20, store="live.duckdb"))
    usd = provider_server.usd
    run([*shop_run(provider, topic=20, store="whole.duckdb"), "--batch", "--no-wait"])
    (whole,) = Store(Path("whole.duckdb")).batches("open")
    provider_server.batches.clear()
    cap = whole.worst_usd * 0.6  # for a part of the first round
    assert run([*shop_run(provider, topic=20, more=f"budget_usd: {cap}"), "--batch", "--no-wait"]) == PENDING
    (first,) = Store(Path("a.duckdb")).batches("open")
    assert 0 < first.requests < whole.requests
    assert run([*shop_run(provider, topic=20, more="budget_usd: 10"), "--batch"]) == 0
    assert max(provider_server.answered.values()) == 1
    assert examples("a.duckdb") == examples("live.duckdb")
    assert paid("a.duckdb") == pytest.approx(provider_server.usd - usd, abs=1e-9)


@pytest.mark.slow
def test_a_budget_that_is_raised_after_a_run_that_it_stopped_goes_on_without_paying_twice(
    shop_run: Write, provider_server: BatchServer
) -> None:
    run(shop_run("openai", topic=20, store="live.duckdb"))
    usd = provider_server.usd
    assert run([*shop_run("openai", topic=20, more="budget_usd: 0.0008"), "--batch"]) == 1
    assert provider_server.usd - usd <= 0.0008
    assert run([*shop_run("openai", topic=20, more="budget_usd: 10"), "--batch"]) == 0
    assert max(provider_server.answered.values()) == 1
    assert examples("a.duckdb") == examples("live.duckdb")
    assert paid("a.duckdb") == pytest.approx(provider_server.usd - usd, abs=1e-9)


def test_another_teacher_while_a_batch_is_open_is_refused_and_the_first_collects_it(
    shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*shop_run("openai"), "--batch", "--no-wait"]) == PENDING
    for more in (["--batch"], []):
        assert run([*shop_run("openai"), *more, "--teacher", "openai/gpt-4.1-mini"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"the recipe no longer names that model at {provider_server.url}/v1. Put it back to collect the batch" in said
    assert len(provider_server.batches) == 1
    assert not provider_server.live
    assert run([*shop_run("openai"), "--batch"]) == 0
    assert max(provider_server.answered.values()) == 1


def test_other_settings_of_the_teacher_while_a_batch_is_open_collect_it_and_ask_anew(shop_run: Write, provider_server: BatchServer) -> None:
    run([*shop_run("openai"), "--batch", "--no-wait"])
    command = [*shop_run("openai"), "--batch"]
    Path("r.yaml").write_text(Path("r.yaml").read_text().replace("max_tokens: 200", "max_tokens: 200, temperature: 0.3"))
    assert run(command) == 0
    assert [batch["requests"][0]["body"]["temperature"] for batch in provider_server.batches.values()] == [1.0, 0.3, 0.3, 0.3, 0.3]
    assert max(provider_server.answered.values()) == 1
    assert paid("a.duckdb") == pytest.approx(provider_server.usd, abs=1e-9)


def test_a_pilot_while_batches_are_open_is_refused_before_it_is_agreed_to(
    shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    command = shop_run("openai")
    run([*command, "--batch", "--no-wait"])
    capsys.readouterr()
    assert run(["plan", *command[1:], "--pilot", "2", "--yes"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "6 requests wait in batches and would be paid twice. Add --batch to `generate` to collect them" in said
    assert "it costs at most" not in said
    assert not provider_server.live
    assert run(["plan", *command[1:]]) == 0
    assert len(provider_server.batches) == 1
    assert run([*command, "--batch"]) == 0
    assert run(["plan", *command[1:], "--pilot", "2", "--yes"]) == 0  # nothing is left to ask
    assert not provider_server.live


def test_what_a_batch_did_not_answer_is_asked_live(provider: str, shop_run: Write, provider_server: BatchServer) -> None:
    run(shop_run(provider, store="live.duckdb"))
    before, usd = len(provider_server.live), provider_server.usd
    fates = itertools.cycle(["", "expired", "error:500", "garbled", "missing", ""])
    provider_server.fate = lambda request: next(fates)  # by their order: ids differ with the server's port
    assert run([*shop_run(provider), "--batch"]) == 0
    assert examples("a.duckdb") == examples("live.duckdb")
    assert len(provider_server.live) > before
    # a garbled line was paid, too, and nobody can read what it cost: its worst case covers it
    assert paid("a.duckdb") <= provider_server.usd - usd
    ledger = Store(Path("a.duckdb")).ledger
    assert ledger.open_usd == 0
    assert ledger.spent_usd + ledger.unknown_usd >= provider_server.usd - usd
    reasons = Store(Path("a.duckdb")).query("SELECT message FROM failures")
    assert any("expired" in row["message"] for row in reasons)
    assert any("no line" in row["message"] for row in reasons)


def test_the_bill_is_the_servers_where_requests_fail_and_are_asked_live(
    provider: str, shop_run: Write, provider_server: BatchServer
) -> None:
    fates = itertools.cycle(["", "expired", "error:500"])
    provider_server.fate = lambda request: next(fates)
    assert run([*shop_run(provider), "--batch"]) == 0
    assert provider_server.live
    assert paid("a.duckdb") == pytest.approx(provider_server.usd, abs=1e-9)


def test_a_refused_request_is_final_and_is_not_asked_again(
    provider: str, shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    provider_server.fate = lambda request: "error:400" if "You write" in json.dumps(request["body"]) else ""
    codes = []
    while not codes or codes[-1] == PENDING:
        codes.append(run([*shop_run(provider), "--batch", "--no-wait"]))
    assert codes[-1] == 1
    assert run([*shop_run(provider), "--batch"]) == 1
    assert not provider_server.live
    assert len(provider_server.batches) == 1
    errors = {row["error"] for row in Store(Path("a.duckdb")).query("SELECT error FROM items WHERE status = 'failed'")}
    assert all("refused in a batch" in error and "bad 400" in error for error in errors)


def test_a_batch_whose_answer_was_lost_is_found_and_not_paid_twice(
    provider: str, shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(5):  # other people's batches of the same account; two a page
        strange = [{"id": f"other-{n}-{m}", "body": {}} for m in range(6 if n % 2 else 3)]
        made = provider_server.add(provider, strange, {"retort_batch": f"other-{n}"})
        made["status"] = "done"
        provider_server.files[made["id"]] = b"".join(
            json.dumps({"custom_id": r["id"], "result": {"type": "canceled"}}).encode() + b"\n" for r in strange
        )
    provider_server.on_create = ["lost"]
    assert run([*shop_run(provider), "--batch"]) == 0
    assert "Found a batch of 6 requests" in capsys.readouterr().err
    assert max(provider_server.answered.values()) == 1
    assert set(statuses("a.duckdb")) == {"collected"}


def test_a_batch_that_never_arrived_is_sent_again(
    provider: str, shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    old = provider_server.add(provider, [{"id": f"x{n}", "body": {}} for n in range(6)], {})
    old["created"] -= timedelta(days=3)
    provider_server.on_create = ["never"]
    assert run([*shop_run(provider), "--batch"]) == 0
    assert "never arrived" in capsys.readouterr().err
    assert max(provider_server.answered.values()) == 1
    assert statuses("a.duckdb").count("lost") == 1


def test_a_crash_between_sending_and_hearing_pays_once(provider: str, shop_run: Write, provider_server: BatchServer) -> None:
    provider_server.on_create = ["lost"]
    assert run([*shop_run(provider), "--batch", "--no-wait"]) == PENDING
    assert statuses("a.duckdb") == ["submitting"]  # what a killed process leaves
    assert run([*shop_run(provider), "--batch"]) == 0
    assert max(provider_server.answered.values()) == 1


def test_a_batch_of_somebody_else_that_looks_like_ours_is_told_apart_when_it_ends(
    shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    provider_server.on_create = ["lost"]
    run([*shop_run("anthropic"), "--batch", "--no-wait"])
    theirs = provider_server.add("anthropic", [{"id": f"x{n}", "body": {"model": "m", "messages": []}} for n in range(6)], {})
    assert run([*shop_run("anthropic"), "--batch"]) == 0
    assert f"The batch {theirs['id']} is not ours after all" in capsys.readouterr().err
    assert max(provider_server.answered.values()) == 1


def test_a_batch_that_is_refused_as_a_whole_stops_the_run_unpaid(
    shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    provider_server.refuse = lambda requests: ("invalid_json_line", "line 3 is no JSON")
    assert run([*shop_run("openai"), "--batch"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "refused the batch batch_0 as a whole: invalid_json_line: line 3 is no JSON. Nothing was charged" in said
    provider_server.refuse = lambda requests: None
    assert run([*shop_run("openai"), "--batch"]) == 0


@pytest.mark.parametrize(("status", "advice"), [(401, "Check the key"), (404, "no batch API at this address"), (400, "Mend the cause")])
def test_a_submission_that_is_refused_stops_the_run_with_advice(
    status: int, advice: str, provider: str, shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    provider_server.on_create = [status]
    assert run([*shop_run(provider), "--batch"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert advice in said
    assert "not now" in said
    assert "sk-batch-test" not in said
    assert run([*shop_run(provider), "--batch"]) == 0


def test_a_busy_provider_is_asked_again(shop_run: Write, provider_server: BatchServer) -> None:
    provider_server.on_create = [429, 429]
    provider_server.on_look = [500, 429]
    assert run([*shop_run("openai"), "--batch"]) == 0
    assert max(provider_server.answered.values()) == 1


def test_a_full_queue_makes_smaller_batches(shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]) -> None:
    def tokens(requests: list[dict[str, Any]]) -> int:
        return sum(len(json.dumps(request["body"]["messages"])) for request in requests) // 4

    def full(requests: list[dict[str, Any]]) -> tuple[str, str] | None:
        waiting = sum(tokens(batch["requests"]) for batch in provider_server.batches.values() if batch["status"] == "open")
        if waiting + tokens(requests) > 2500:
            return "token_limit_exceeded", "Enqueued token limit reached for gpt-4o-mini in organization x. Limit: 2,500 enqueued tokens."
        return None

    provider_server.refuse = full
    assert run([*shop_run("openai"), "--batch"]) == 0
    assert "Smaller batches: " in capsys.readouterr().err
    assert max(provider_server.answered.values()) == 1


def test_the_recipes_queue_limit_is_kept(shop_run: Write, provider_server: BatchServer) -> None:
    assert run([*shop_run("openai", batch="enqueued_tokens: 3000"), "--batch"]) == 0
    assert len(provider_server.batches) > 4
    assert all(batch.tokens <= 3000 for batch in Store(Path("a.duckdb")).batches("collected"))
    assert max(provider_server.answered.values()) == 1


def test_a_last_handful_is_asked_live(shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]) -> None:
    run(shop_run("openai", store="live.duckdb"))
    before = len(provider_server.live)
    recipe = shop_run("openai")
    Path("r.yaml").write_text(Path("r.yaml").read_text().replace("live_below: 1", "live_below: 7"))
    assert run([*recipe, "--batch"]) == 0
    assert "6 requests are too few to wait a day for (batch.live_below): asked live" in capsys.readouterr().err
    assert len(provider_server.live) == before + 6 + 4
    assert examples("a.duckdb") == examples("live.duckdb")


def test_a_wave_is_cut_to_the_budget_and_the_cap_holds(
    shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    cap = 0.0008
    command = shop_run("openai", topic=20, more=f"budget_usd: {cap}")
    assert run([*command, "--batch"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"of budget_usd {cap}" in said
    assert 0.4 * cap < provider_server.usd <= cap
    assert paid("a.duckdb") == pytest.approx(provider_server.usd, abs=1e-9)


def test_what_open_batches_can_cost_is_kept_from_the_budget(shop_run: Write) -> None:
    run([*shop_run("openai"), "--batch", "--no-wait"])
    assert Store(Path("a.duckdb")).ledger.open_usd > 0
    run([*shop_run("openai"), "--batch"])
    assert Store(Path("a.duckdb")).ledger.open_usd == 0


def test_nothing_is_asked_live_that_a_batch_may_answer(
    shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run([*shop_run("openai"), "--batch", "--no-wait"])
    capsys.readouterr()
    assert run(shop_run("openai")) == 2
    assert "6 requests wait in batches and would be paid twice. Add --batch" in " ".join(capsys.readouterr().err.split())
    assert not provider_server.live
    assert run([*shop_run("openai"), "--drop-batches"]) == 0
    assert "Given up: batch batch_0 of 6 requests" in capsys.readouterr().err
    ledger = Store(Path("a.duckdb")).ledger
    assert ledger.open_usd == 0
    assert ledger.unknown_usd > 0  # the provider may charge for it


def test_roles_with_different_models_have_batches_of_their_own_and_others_go_live(shop_run: Write, provider_server: BatchServer) -> None:
    run(shop_run("openai", store="live.duckdb"))
    weak = f'  weak: {{model: anthropic/claude-haiku-4-5, max_tokens: 200, params: {{api_base: "{provider_server.url}"}}}}'
    judge = (
        f"  judge: {{model: hosted_vllm/local, max_tokens: 200, price: {{input_per_million: 0, output_per_million: 0}},"
        f' params: {{api_base: "{provider_server.url}/v1", api_key: "${{OPENAI_API_KEY}}"}}}}'
    )
    before = len(provider_server.live)
    assert run([*shop_run("openai", more=f"{weak}\n{judge}"), "--batch"]) == 0
    assert {batch["provider"] for batch in provider_server.batches.values()} == {"openai", "anthropic"}
    assert {body["model"] for body in provider_server.live[before:]} == {"local"}
    assert [row[1] for row in examples("a.duckdb")] == [row[1] for row in examples("live.duckdb")]


def test_a_cancelled_batch_keeps_its_answers_and_stops_the_run_once(
    provider: str, shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run([*shop_run(provider), "--batch", "--no-wait"])
    provider_server.finish(next(iter(provider_server.batches.values())), "cancelled")
    assert run([*shop_run(provider), "--batch"]) == 2
    assert "was cancelled at the provider" in " ".join(capsys.readouterr().err.split())
    assert run([*shop_run(provider), "--batch"]) == 0
    assert max(provider_server.answered.values()) == 1
    assert not provider_server.live


def test_a_batch_that_the_provider_does_not_know_says_how_to_go_on(
    shop_run: Write, provider_server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run([*shop_run("openai"), "--batch", "--no-wait"])
    provider_server.batches.clear()
    assert run([*shop_run("openai"), "--batch"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "is not known there: is the key of another organisation set?" in said
    assert "--drop-batches" in said
    assert run([*shop_run("openai"), "--batch", "--drop-batches"]) == 0


def test_an_open_batch_of_a_model_that_left_the_recipe_must_be_settled(shop_run: Write, capsys: pytest.CaptureFixture[str]) -> None:
    run([*shop_run("openai"), "--batch", "--no-wait"])
    assert run([*shop_run("anthropic"), "--batch"]) == 2
    assert "the recipe no longer names that model" in " ".join(capsys.readouterr().err.split())


def test_the_offline_teacher_needs_no_batches(shop_run: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*shop_run("openai"), "--batch", "--teacher", "offline/banking"]) == 2
    assert "the offline teacher is free and answers at once" in capsys.readouterr().err


def test_a_model_without_a_batch_api_is_refused_before_any_call(shop_run: Write, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*shop_run("openai"), "--batch", "--teacher", "deepseek/deepseek-chat"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPSEEK_API_KEY", "x" * 20)
        assert run(arguments) == 2
    assert "none of the recipe's models has a batch API" in capsys.readouterr().err


def test_not_waiting_needs_batches(shop_run: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*shop_run("openai"), "--no-wait"]) == 2
    assert "Add --batch" in capsys.readouterr().err


def test_a_schema_reaches_the_provider_with_the_beta_that_it_needs(shop_run: Write, provider_server: BatchServer) -> None:
    schema = "{type: json_schema, json_schema: {name: a, schema: {type: object, properties: {}, required: []}}}"
    command = shop_run("anthropic")
    recipe = Path("r.yaml").read_text().replace("params: {", f"params: {{response_format: {schema}, ").replace("haiku-4-5", "sonnet-4-5")
    Path("r.yaml").write_text(recipe)
    run([*command, "--batch", "--no-wait"])
    (batch,) = provider_server.batches.values()
    assert all("output_format" in request["body"] or "tools" in request["body"] for request in batch["requests"])
    assert "message-batches-2024-09-24" in provider_server.betas
    assert any(beta.startswith("structured-outputs") for beta in provider_server.betas)
