"""Embeddings from a server on this machine: asked once for each text, paid like any call, on disk before anything else."""

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from datagen.cli import main
from datagen.config import ModelConfig, Price
from datagen.curate import curate, curate_new
from datagen.embed import embed
from datagen.errors import StoreError
from datagen.records import Request, Response, embedding_space
from datagen.store import Store
from datagen.teacher import Teacher


class Embeddings:
    """An OpenAI-compatible /embeddings: the vector of a text is counts of its letters; a text with `twin` has that of its rest."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.failures = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path.endswith("/embeddings")
                server.batches.append(body["input"])
                if server.failures:
                    server.failures -= 1
                    status, answer = 503, {"error": {"message": "busy", "type": "x", "code": None}}
                else:
                    data = [{"object": "embedding", "index": n, "embedding": vector(text)} for n, text in enumerate(body["input"])]
                    status, answer = 200, {
                        "object": "list", "model": "m", "data": data[::-1], "usage": {"prompt_tokens": 100, "total_tokens": 100},
                    }  # fmt: skip
                raw = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def vector(text: str) -> list[float]:
    said = text.replace("twin", "").lower()
    return [float(said.count(letter)) for letter in "abcdefghijklmnop"] + [0.1]


@pytest.fixture
def embeddings() -> Iterator[Embeddings]:
    server = Embeddings()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def model(embeddings: Embeddings) -> ModelConfig:
    price = Price(input_per_million=10, output_per_million=0)
    return ModelConfig(model="openai/letters", price=price, params={"api_base": embeddings.url, "api_key": "none"})


def ask(store: Store, model: ModelConfig, budget_usd: float | None = None) -> Any:
    teacher = Teacher({"embedding": model}, concurrency=2, retries=2, on_failure=store.add_failure)
    with store.writing():
        return asyncio.run(embed(store, teacher, model, budget_usd=budget_usd, concurrency=2))


def test_each_text_is_embedded_once_paid_and_used(
    embeddings: Embeddings, model: ModelConfig, bank_store: Any, bank_example: Any, bank_context: Any
) -> None:
    texts = [
        "My card has not come yet, where is it?",
        "Fees for cash abroad please, how much?",
        "Where is it, twin? Yet my card has come not.",
    ]
    store = bank_store([bank_example(text) for text in [*texts, texts[0]]])
    report = ask(store, model)
    assert (report.texts, report.new, report.stopped) == (3, 3, None)
    assert "3 prompts have one, 3 of them new." in report.told()
    assert sorted(embeddings.batches[0]) == sorted(texts)
    assert store.query("SELECT role, prompt, text, prompt_tokens, cost_usd FROM calls") == [
        {"role": "embedding", "prompt": "embedding", "text": "3 vectors of 17", "prompt_tokens": 100, "cost_usd": 0.001}
    ]
    assert store.ledger.open_usd == 0
    assert ask(store, model).new == 0
    assert len(embeddings.batches) == 1
    assert len(store.query("FROM embeddings")) == 3
    off = curate(store, bank_context)
    context = replace(bank_context, embedding=embedding_space(model.model, model.open_params))
    on = curate(store, context)
    assert [
        row["d"] for row in store.query("SELECT reason[:24] AS d FROM verdicts WHERE decided_by = 'filter:semantic_duplicate' AND NOT keep")
    ] == ["semantic_duplicate: 1.00"]
    assert on.accepted == off.accepted - 1
    assert curate_new(store, context) is None


def test_a_budget_that_is_spent_stops_it_and_a_busy_server_is_asked_again(
    embeddings: Embeddings, model: ModelConfig, bank_store: Any, bank_example: Any
) -> None:
    store = bank_store([bank_example("My card has not come yet")])
    report = ask(store, model, budget_usd=1e-9)
    assert (report.texts, report.new) == (0, 0)
    assert report.stopped is not None
    assert "budget" in report.told()
    assert not embeddings.batches
    embeddings.failures = 1
    assert ask(store, model).new == 1
    assert len(embeddings.batches) == 2


def test_a_crash_after_the_answer_loses_no_vector(model: ModelConfig, bank_store: Any, bank_example: Any) -> None:
    store = bank_store([bank_example("My card has not come yet")])
    ask(store, model)
    with store.writing():
        store.add_embeddings("other", "m", ["id"], np.array([[0.1, 2.5]], dtype=np.float32))
        data = store.log_path.read_bytes()
    with duckdb.connect(str(store.path)) as con:
        con.execute("DELETE FROM embeddings WHERE space = 'other'")
    store.log_path.write_bytes(data)
    assert Store(store.path).vectors("other").matrix.tolist() == [[pytest.approx(0.1), 2.5]]


def test_an_answer_that_is_no_vector_for_each_text_is_refused(model: ModelConfig, bank_store: Any, bank_example: Any) -> None:
    class Wrong:
        async def complete(self, request: Request) -> Response:
            return Response(request_id=request.id, text="")

        def worst_case_usd(self, request: Request) -> float:
            return 0.0

    store = bank_store([bank_example("My card has not come yet")])
    with store.writing():
        report = asyncio.run(embed(store, Wrong(), model, budget_usd=None, concurrency=1))
    assert report.stopped == "openai/letters: gave 0 numbers for 1 texts, not a vector for each"
    assert not store.query("FROM embeddings")


def test_vectors_of_two_lengths_under_one_name_are_refused(bank_store: Any, bank_example: Any) -> None:
    store = bank_store([bank_example("one")])
    with store.writing():
        store.add_embeddings("s", "m", ["a"], np.ones((1, 3), dtype=np.float32))
        store.add_embeddings("s", "m", ["b"], np.ones((1, 2), dtype=np.float32))
    with pytest.raises(StoreError, match="have 2 and 3 numbers"):
        store.vectors("s")
    assert store.vectors("none").matrix.shape == (0, 0)


RECIPE = """
name: shop
taxonomy: shop.yaml
teachers:
  teacher: {model: openai/local, price: {input_per_million: 1, output_per_million: 2}, params: {api_base: "URL", api_key: none}}
mix: {topic: 8}
embedding: {model: openai/letters, price: {input_per_million: 1, output_per_million: 0}, params: {api_base: "EMBEDDINGS", api_key: none}}
terms: {openai/local: {decision: a scripted server, by: tests}}
"""


def test_generate_asks_for_embeddings_and_curate_uses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, server: Any, embeddings: Embeddings, shop_path: Path, shop_reply: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    server.reply = shop_reply
    (tmp_path / "r.yaml").write_text(RECIPE.replace("URL", server.url).replace("EMBEDDINGS", embeddings.url))
    for verb in ("generate", "curate"):
        with pytest.raises(SystemExit) as exit_:
            main([verb, "--recipe", "r.yaml"])
        assert exit_.value.code == 0, capsys.readouterr().err
    assert "prompts have one" in capsys.readouterr().err
    store = Store(tmp_path / "data" / "shop.duckdb")
    assert store.query("SELECT count(*) > 0 AS some FROM verdicts WHERE decided_by = 'filter:semantic_duplicate'") == [{"some": True}]


def test_embeddings_that_do_not_come_are_an_end_that_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, server: Any, embeddings: Embeddings, shop_path: Path, shop_reply: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    server.reply = shop_reply
    embeddings.failures = 1000
    recipe = RECIPE.replace("URL", server.url).replace("EMBEDDINGS", embeddings.url) + "retries: 1\n"
    (tmp_path / "r.yaml").write_text(recipe)
    with pytest.raises(SystemExit) as exit_:
        main(["generate", "--recipe", "r.yaml", "--quiet"])
    assert exit_.value.code == 1
    assert "Not all: ServiceUnavailableError" in capsys.readouterr().err
