"""The endpoint over a real socket: OpenAI's protocol with litellm as client, errors, swaps in flight, A/B, feedback, stopping."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from train.errors import ConfigError, ModelError, ServingError
from train.serving.app import Settings, run_server
from train.serving.journal import _read, read_arms, read_rated
from train.serving.split import Split
from train.serving.start import serve_model, with_adapters
from train.serving.target import find_target

Say = Callable[..., str]
ROOT = Path(__file__).parents[3]


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def rows_of(log: Path, where: str = "true") -> list[dict[str, Any]]:
    return _read(log, f"FROM answers WHERE {where} ORDER BY created")


def test_models_are_listed_with_their_versions(endpoint: Any) -> None:
    listed = {model["id"]: model for model in endpoint.client.get("/models").json()["data"]}
    assert list(listed) == ["retort", "base", "one", "two"]
    assert listed["retort"]["arms"] == {"two": 90, "one": 10}
    assert listed["one"]["parent"] == "base" and listed["one"]["fingerprint"].startswith("one@")
    assert endpoint.client.get("/models/two").json() == listed["two"]
    assert endpoint.client.get("/models/three").status_code == 404


@pytest.mark.parametrize("name", ["base", "one", "two"])
def test_an_answer_is_that_of_the_evaluation(endpoint: Any, say: Say, name: str) -> None:
    answer = endpoint.chat("What is grass?", name).json()
    choice = answer["choices"][0]
    assert choice["message"]["content"] == say(None if name == "base" else name, "What is grass?")
    assert (choice["finish_reason"], answer["model"]) == ("length", name)
    assert answer["system_fingerprint"].split("@")[0] == name
    assert answer["usage"]["completion_tokens"] == 24
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 24


def test_the_clients_own_system_message_takes_the_place_of_training_s(endpoint: Any, say: Say) -> None:
    messages = [{"role": "system", "content": "Sing."}, {"role": "user", "content": [{"type": "text", "text": "What is snow?"}]}]
    answer = endpoint.client.post("/chat/completions", json={"model": "one", "messages": messages}).json()
    assert answer["choices"][0]["message"]["content"] == say("one", "What is snow?", system="Sing.")


def test_litellm_is_answered_whole_and_streamed(endpoint: Any, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    asked = {
        "model": "openai/two", "api_base": endpoint.url, "api_key": "none", "messages": [{"role": "user", "content": "What is coal?"}],
        "max_tokens": 20, "temperature": 0, "user": "ana",
    }  # fmt: skip
    expected = say("two", "What is coal?", max_new_tokens=20)
    whole = litellm.completion(**asked)
    assert whole.choices[0].message.content == expected
    assert whole.usage.completion_tokens == 20
    chunks = list(litellm.completion(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected
    assert chunks[-1].usage.completion_tokens == 20
    with pytest.raises(litellm.NotFoundError, match="Known: retort, base, one, two"):
        litellm.completion(**{**asked, "model": "openai/three"})
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**{**asked, "messages": [{"role": "user", "content": "snow " * 300}]})


def test_a_stream_is_server_sent_events(endpoint: Any) -> None:
    response = endpoint.chat("What is snow?", "one", stream=True, stop=["never"])
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1


USER = [{"role": "user", "content": "What is snow?"}]


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({"model": "three", "messages": USER}, 404, "model", "'three' does not exist. Known: retort, base, one, two."),
        ("{", 400, None, "The body is not JSON"),
        ("[]", 400, None, "The body: input should be an object"),
        ({"messages": USER}, 400, "model", "model: field required"),
        ({"model": "one", "messages": []}, 400, "messages", "at least 1 item"),
        ({"model": "one", "messages": [{"role": "tool", "content": "x"}]}, 400, "messages.0.role", "'tool' is unknown; known are system"),
        ({"model": "one", "messages": [{"role": "user", "content": 5}]}, 400, "messages.0.content", "found 5"),
        ({"model": "one", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages.0.content", "type text"),
        ({"model": "one", "messages": [*USER, {"role": "system", "content": "x"}]}, 400, "messages.1.role", "comes first or not at all"),
        ({"model": "one", "messages": [*USER, {"role": "assistant", "content": "x"}]}, 400, "messages", "must be the user's"),
        ({"model": "one", "messages": USER, "temperature": 3}, 400, "temperature", "less than or equal to 2 (found 3)"),
        ({"model": "one", "messages": USER, "max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
        ({"model": "one", "messages": USER, "max_tokens": 900}, 400, "messages", "900 more are asked for; this model's maximum context length is 256"),
        ({"model": "one", "messages": [{"role": "user", "content": "a b " * 300}]}, 400, "messages", "this model's maximum context length is 256"),
        ({"model": "one", "messages": USER, "n": 2}, 400, "n", "not supported here (found 2). Leave it out, or set 1."),
        ({"model": "one", "messages": USER, "tools": [{"type": "function"}]}, 400, "tools", "not supported here"),
        ({"model": "one", "messages": USER, "stop": [""]}, 400, "stop", "not empty"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_what_is_wrong(endpoint: Any, body: Any, status: int, param: str | None, words: str) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    response = endpoint.client.post("/chat/completions", content=content, headers={"Content-Type": "application/json"})
    error = error_of(response)
    assert (response.status_code, error["param"]) == (status, param)
    assert words in error["message"]


def test_a_wrong_path_method_or_type_is_told(endpoint: Any) -> None:
    client = endpoint.client
    assert error_of(client.get("/nothing"))["message"] == "GET /v1/nothing: there is no such path."
    assert client.get("/chat/completions").status_code == 405
    assert client.post("/chat/completions", content="{}", headers={"Content-Type": "text/plain"}).status_code == 415
    big = client.post("/chat/completions", content=b" " * (5 << 20), headers={"Content-Type": "application/json"})
    assert big.status_code == 413 and "4,194,304 bytes" in error_of(big)["message"]


def test_fields_that_change_nothing_are_let_through(endpoint: Any) -> None:
    harmless = {"n": 1, "tools": [], "response_format": {"type": "text"}, "metadata": {"a": "b"}, "presence_penalty": 0}
    assert endpoint.chat("What is snow?", "one", max_tokens=2, **harmless).status_code == 200


def test_fifty_requests_in_flight_are_answered_by_the_version_they_were_promised(
    serve: Callable[..., Any], say: Say, deployed: Path, student: Path, adapter_of: Callable[..., Path], tmp_path: Path
) -> None:
    versions = {"old": deployed / "one", "new": adapter_of(tmp_path / "new", student, 21)}
    with serve(tmp_path / "log/serving.duckdb", batch_size=8) as running:
        questions = [f"What is {thing}{'?' * (1 + n % 5)}" for n, thing in enumerate(["grass", "snow", "coal", "blood"] * 15)]
        with ThreadPoolExecutor(60) as pool:
            asked = [pool.submit(running.chat, q, "one", max_tokens=40, stream=n % 2 == 1) for n, q in enumerate(questions[:50])]
            health = running.url.removesuffix("/v1") + "/health"
            while (state := httpx.get(health).json())["running"] + state["waiting"] + state["answered"] < 50:
                time.sleep(0.005)
            assert state["answered"] < 40
            swap = running.client.post(
                "/load_lora_adapter", json={"lora_name": "one", "lora_path": str(versions["new"]), "load_inplace": True}
            )
            assert swap.status_code == 200
            asked += [pool.submit(running.chat, q, "one", max_tokens=40) for q in questions[50:]]
            responses = [future.result() for future in asked]
    prints = {"old": read_arms(running.log)[0]["fingerprint"], "new": swap.json()["fingerprint"]}
    assert len(set(prints.values()) | {row["fingerprint"] for row in read_arms(running.log)}) == 2
    prints["old"] = next(row["fingerprint"] for row in read_arms(running.log) if row["fingerprint"] != prints["new"])
    promised = {row["id"]: row["fingerprint"] for row in rows_of(running.log)}
    for n, (question, response) in enumerate(zip(questions, responses, strict=True)):
        assert response.status_code == 200
        version = "old" if n < 50 else "new"
        if response.headers["content-type"].startswith("text/event-stream"):
            chunks = [json.loads(line[6:]) for line in response.text.split("\n\n") if line and not line.endswith("[DONE]")]
            text, fingerprint = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks), chunks[0]["system_fingerprint"]
        else:
            text, fingerprint = response.json()["choices"][0]["message"]["content"], response.json()["system_fingerprint"]
        assert fingerprint == prints[version] == promised[response.headers["x-request-id"]]
        assert text == say(versions[version], question, max_new_tokens=40)


def test_adapters_come_and_go_by_vllm_s_requests(endpoint: Any, deployed: Path, make_student: Callable[..., Path], tmp_path: Path) -> None:
    def load(**body: Any) -> httpx.Response:
        return endpoint.client.post("/load_lora_adapter", json=body)  # type: ignore[no-any-return]

    path = str(deployed / "one")
    assert load(lora_name="more", lora_path=path).status_code == 200
    assert endpoint.chat("What is snow?", "more", max_tokens=2).json()["model"] == "more"
    for body, words in (
        ({"lora_name": "more", "lora_path": path}, "is loaded already. Set load_inplace"),
        ({"lora_name": "retort", "lora_path": path}, "taken by the A/B test"),
        ({"lora_name": "base", "lora_path": path}, "taken by the base"),
        ({"lora_name": "x", "lora_path": str(tmp_path)}, "no adapter here"),
        ({"lora_name": "../x", "lora_path": path}, "lora_name: string should match"),
        ({"lora_name": "x"}, "lora_path: field required"),
    ):
        response = load(**body)
        assert response.status_code == 400 and words in error_of(response)["message"]
    unload = "/unload_lora_adapter"
    assert endpoint.client.post(unload, json={"lora_name": "more"}).status_code == 200
    assert endpoint.client.post(unload, json={"lora_name": "more"}).status_code == 404
    assert endpoint.chat("What is snow?", "more").status_code == 404
    assert "takes part in 'retort'" in error_of(endpoint.client.post(unload, json={"lora_name": "two"}))["message"]


def test_a_user_keeps_the_arm_and_the_log_has_each_answer(endpoint: Any) -> None:
    given = {}
    for user in [f"user{n}" for n in range(12)] * 2:
        answer = endpoint.chat("What is snow?", user=user, max_tokens=2).json()
        assert given.setdefault(user, answer["model"]) == answer["model"]
    header = endpoint.client.post(
        "/chat/completions", json={"model": "retort", "messages": USER, "max_tokens": 2}, headers={"X-User": "user3"}
    ).json()
    assert header["model"] == given["user3"]
    last = endpoint.chat("What is blood?", user="ana", max_tokens=3).json()
    deadline = time.monotonic() + 10
    while not (found := rows_of(endpoint.log, f"id = '{last['id']}'")) and time.monotonic() < deadline:
        time.sleep(0.2)
    row = found[0]
    assert row["answer"] == last["choices"][0]["message"]["content"]
    assert row["prompt"] == [{"role": "user", "content": "What is blood?"}]
    assert (row["served"], row["arm"], row["fingerprint"]) == ("retort", last["model"], last["system_fingerprint"])
    assert (row["finish"], row["completion_tokens"]) == ("length", 3) and 0 <= row["queued_s"] <= row["first_s"] <= row["latency_s"]
    assert row["user"] and "ana" not in row["user"]
    users = Counter(r["user"] for r in rows_of(endpoint.log, "served = 'retort' AND \"user\" IS NOT NULL"))
    assert sorted(users.values())[-1] == 3 and len(users) == 13


def test_the_last_feedback_counts_and_all_is_kept(endpoint: Any) -> None:
    answer = endpoint.chat("What is grass?", user="ben", max_tokens=2).json()

    def rate(**body: Any) -> httpx.Response:
        return endpoint.client.post("/feedback", json={"id": answer["id"], **body})  # type: ignore[no-any-return]

    assert rate(thumbs="up").json()["score"] == 1
    assert rate(score=0.25, comment="Hm.").json()["score"] == 0.25
    assert rate(label="wrong topic").json()["score"] is None
    for body, words in (
        ({}, "give score (0 to 1), thumbs (up or down) or label"),
        ({"score": 2}, "less than or equal to 1 (found 2)"),
        ({"score": 1, "thumbs": "up"}, "not both"),
        ({"thumbs": "sideways"}, "thumbs"),
    ):
        assert rate(**body).status_code == 400 and words in error_of(rate(**body))["message"]
    assert error_of(endpoint.client.post("/feedback", json={"id": "nobody", "score": 1}))["code"] == "answer_not_found"
    deadline = time.monotonic() + 10
    sql = f"SELECT score, label FROM feedback WHERE answer_id = '{answer['id']}' ORDER BY created"
    while len(found := _read(endpoint.log, sql)) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [row["score"] for row in found] == [1, 0.25, None]
    assert [row["score"] for row in read_rated(endpoint.log)] == [0.25]


def test_a_client_that_goes_away_frees_its_place_and_is_in_the_log(serve: Callable[..., Any], tmp_path: Path) -> None:
    with serve(tmp_path / "serving.duckdb", batch_size=1, max_queue=1) as running:
        body = {"model": "one", "messages": USER, "max_tokens": 200}
        with running.client.stream("POST", "/chat/completions", json={**body, "stream": True}) as response:
            lines = response.iter_lines()
            for _ in range(5):
                next(lines)
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(httpx.post, running.url + "/chat/completions", json={**body, "max_tokens": 2}, timeout=30)
                while not httpx.get(running.url.removesuffix("/v1") + "/health").json()["waiting"]:
                    time.sleep(0.005)
                full = httpx.post(running.url + "/chat/completions", json=body)
                assert full.status_code == 503 and int(full.headers["retry-after"]) >= 1
                assert error_of(full)["code"] == "overloaded"
                response.close()
                assert waiting.result().status_code == 200
    assert sorted((row["finish"], bool(row["answer"])) for row in rows_of(running.log)) == [("cancelled", True), ("length", True)]


def test_a_key_is_asked_for_and_kept_nowhere(serve: Callable[..., Any], tmp_path: Path) -> None:
    with serve(tmp_path / "serving.duckdb", api_key="s3cret-key", hashes_only=True) as running:
        assert error_of(running.chat("What is snow?"))["code"] == "invalid_api_key"
        for given in ("Bearer wrong", "Bearer s3cret-ke\u00ff".encode("latin-1")):
            assert running.client.get("/models", headers={"Authorization": given}).status_code == 401
        running.client.headers["Authorization"] = "Bearer s3cret-key"
        answer = running.chat("What is snow?", user="ana")
        assert answer.json()["model"] == "two"  # without an A/B test the name is the last adapter's
    row = rows_of(running.log)[0]
    assert row["prompt"] is row["answer"] is None and len(row["prompt_sha256"]) == len(row["answer_sha256"]) == 64
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    text = answer.json()["choices"][0]["message"]["content"]
    assert not any(word in kept for word in (b"s3cret-key", b"What is snow?", text.encode()))


def test_beyond_loopback_adapters_are_changed_with_a_key_alone(serve: Callable[..., Any], deployed: Path, tmp_path: Path) -> None:
    with serve(tmp_path / "serving.duckdb", host="0.0.0.0") as running:
        url = running.url.replace("0.0.0.0", "127.0.0.1")
        body = {"lora_name": "x", "lora_path": str(deployed / "one")}
        assert httpx.post(url + "/load_lora_adapter", json=body).status_code == 403


def test_an_answer_that_cannot_be_logged_is_not_given(endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr("os.write", lambda file, data: real(file, data[:5]) if b'"table"' in data else real(file, data))
    refused = endpoint.chat("What is snow?", "one", max_tokens=2)
    assert refused.status_code == 503 and "log of answers cannot be written" in error_of(refused)["message"]
    streamed = endpoint.chat("What is snow?", "one", max_tokens=2, stream=True)
    assert "log of answers cannot be written" in streamed.text and "[DONE]" not in streamed.text
    assert endpoint.client.post("/feedback", json={"id": refused.headers.get("x", "none"), "score": 1}).status_code == 404
    monkeypatch.undo()
    assert endpoint.chat("What is snow?", "one", max_tokens=2).status_code == 200


def test_what_cannot_be_served_is_told_before_anything_is_loaded(
    deployed: Path, student: Path, make_student: Callable[..., Path], adapter_of: Callable[..., Path], tmp_path: Path
) -> None:
    target = find_target(str(deployed))

    def start(**settings: Any) -> None:
        run_server(target, Settings(**{"log": tmp_path / "a.duckdb", "port": 0, **settings}), say=print)

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ServingError, match="this port is in use. Choose another"):
        start(port=taken.getsockname()[1])
    for ab, words in (("three=1", "there is no three to serve. Known: base, one, two"), ("one", "'one' is not NAME=WEIGHT")):
        with pytest.raises(ConfigError, match=words):
            start(ab=ab)
    with pytest.raises(ConfigError, match="is the name of an arm already"):
        start(served="two")
    with pytest.raises(ServingError, match="cannot be taken"):
        start(host="no.such.host.invalid")
    (tmp_path / "text.duckdb").write_text("hello, this is no database")
    with pytest.raises(ServingError, match="not a valid DuckDB database"):
        start(log=tmp_path / "text.duckdb")
    empty = tmp_path / "empty"
    empty.mkdir()
    settings = Settings(log=tmp_path / "a.duckdb")
    with pytest.raises(ModelError, match="has neither a model .* nor an adapter"):
        serve_model(str(empty), [], settings, say=print)
    for lora, words in (("x", "write NAME=FOLDER"), (f"one={deployed}/two", "one is there already")):
        with pytest.raises(ConfigError, match=words):
            with_adapters(str(deployed), [lora], settings)
    high = adapter_of(tmp_path / "high", student, 1, r=32)
    with pytest.raises(ModelError, match="its rank is 32, this server takes up to 16"):
        with_adapters(str(deployed), [f"high={high}"], settings._replace(max_lora_rank=16))
    assert list(with_adapters(str(deployed), [f"high={high}"], settings).adapters) == ["one", "two", "high"]
    other = adapter_of(tmp_path / "other", make_student(tmp_path / "wide", hidden_size=64), 1)
    with pytest.raises(ModelError, match="was trained on .*wide"):
        with_adapters(str(deployed), [f"other={other}"], settings)


def test_stopping_answers_what_is_in_flight(serve: Callable[..., Any], tmp_path: Path) -> None:
    with serve(tmp_path / "serving.duckdb", batch_size=4) as running, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(running.chat, "What is snow?", max_tokens=100) for _ in range(8)]
        health = running.url.removesuffix("/v1") + "/health"
        while (state := httpx.get(health).json())["running"] + state["waiting"] + state["answered"] < 8:
            time.sleep(0.005)
        running.stop()
        assert [future.result().json()["usage"]["completion_tokens"] for future in asked] == [100] * 8
    assert len(rows_of(running.log)) == 8


@pytest.mark.slow
def test_ctrl_c_answers_what_is_in_flight_and_ends_within_seconds(deployed: Path, tmp_path: Path) -> None:
    log = tmp_path / "serving.duckdb"
    command = [sys.executable, "-m", "train", "serve", "--model", str(deployed), "--port", "0", "--log", str(log)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    url = next(line for line in process.stderr if "Answering at" in line).split()[2]
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr or ()))
    reader.start()
    with ThreadPoolExecutor(8) as pool:
        body = {"model": "retort", "messages": USER, "max_tokens": 150}
        asked = [pool.submit(httpx.post, url + "/chat/completions", json=body, timeout=60) for _ in range(8)]
        health = url.removesuffix("/v1") + "/health"
        while (state := httpx.get(health).json())["running"] + state["waiting"] + state["answered"] < 8:
            time.sleep(0.005)
        process.send_signal(2)
        began = time.monotonic()
        assert [future.result().json()["usage"]["completion_tokens"] for future in asked] == [150] * 8
    assert process.wait(20) == 0
    assert time.monotonic() - began < 10
    reader.join()
    process.stderr.close()
    assert "8 answers are in" in "".join(said) and "leaked" not in "".join(said) and "Traceback" not in "".join(said)
    assert len(rows_of(log)) == 8


def test_a_split_of_one_arm_answers_everybody() -> None:
    assert Split("retort", {"dpo": 1.0}).choose(b"x") == "dpo"
