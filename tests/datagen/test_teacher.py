"""The door to a model, against a real HTTP server on this machine that misbehaves."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from datagen.config import ModelConfig, Price
from datagen.errors import ConfigError, TeacherError
from datagen.records import Message, Request
from datagen.teacher import FatalTeacherError, Teacher


def request(text: str = "hi", model: str = "openai/local") -> Request:
    params = {"temperature": 0.5, "max_tokens": 64}
    return Request(
        item_id="i", prompt="p@1", role="teacher", model=model, messages=(Message(role="user", content=text),), params=params, sample=text
    )


def make_teacher(server: Any, failures: list[str] | None = None, *, retries: int = 4, timeout_s: float = 10.0) -> Teacher:
    config = ModelConfig(
        model="openai/local", max_tokens=64, timeout_s=timeout_s, price=Price(input_per_million=1.0, output_per_million=10.0),
        params={"api_base": server.url, "api_key": "none"},
    )  # fmt: skip
    noted = failures if failures is not None else []
    return Teacher({"teacher": config}, concurrency=8, retries=retries, on_failure=lambda request, kind, message: noted.append(kind))


def complete(teacher: Teacher, server: Any, text: str = "hi") -> Any:
    ask = request(text).model_copy(update={"params": {"temperature": 0.5, "max_tokens": 64, "api_base": server.url, "api_key": "none"}})
    return asyncio.run(teacher.complete(ask))


def test_an_answer_comes_with_its_tokens_and_its_price(server: Any) -> None:
    response = complete(make_teacher(server), server)
    assert response.text == "hello"
    assert (response.prompt_tokens, response.completion_tokens) == (100, 20)
    assert response.cost_usd == pytest.approx(100 / 1e6 + 20 * 10 / 1e6)
    assert server.bodies[0]["max_tokens"] == 64


def test_cached_tokens_are_counted_apart(server: Any) -> None:
    server.reply = lambda body, nth: server.chat("hello", cached=60)
    assert complete(make_teacher(server), server).cached_tokens == 60


@pytest.mark.parametrize(("status", "kind"), [(500, "InternalServerError"), (429, "RateLimitError"), (503, "ServiceUnavailableError")])
def test_what_may_pass_is_tried_again_and_noted(server: Any, status: int, kind: str) -> None:
    failures: list[str] = []
    server.reply = lambda body, nth: server.error(status, "try later", {"Retry-After": "0"}) if nth < 3 else server.chat("at last")
    response = complete(make_teacher(server, failures), server)
    assert (response.text, response.attempts) == ("at last", 3)
    assert failures == [kind, kind]


def test_retry_after_is_waited_for(server: Any) -> None:
    import time

    server.reply = lambda body, nth: server.error(429, "slow down", {"Retry-After": "1"}) if nth == 1 else server.chat("ok")
    started = time.monotonic()
    complete(make_teacher(server), server)
    assert time.monotonic() - started >= 1.0


def test_retries_end(server: Any) -> None:
    server.reply = lambda body, nth: server.error(500, "never", {"Retry-After": "0"})
    with pytest.raises(TeacherError, match="InternalServerError after 2 tries"):
        complete(make_teacher(server, retries=2), server)
    assert server.seen.total() == 2


def test_a_refusal_for_good_is_not_tried_again(server: Any) -> None:
    server.reply = lambda body, nth: server.error(400, "content policy")
    with pytest.raises(TeacherError, match="content policy") as caught:
        complete(make_teacher(server), server)
    assert not isinstance(caught.value, FatalTeacherError)
    assert server.seen.total() == 1


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key_or_model_would_meet_every_call(server: Any, status: int) -> None:
    server.reply = lambda body, nth: server.error(status, "no such thing")
    with pytest.raises(FatalTeacherError, match="no such thing"):
        complete(make_teacher(server), server)
    assert server.seen.total() == 1


def test_a_server_that_hangs_is_left_after_the_timeout(server: Any) -> None:
    import time

    def hang(body: dict[str, Any], nth: int) -> Any:
        if nth == 1:
            time.sleep(1.5)
        return server.chat("late")

    server.reply = hang
    failures: list[str] = []
    assert complete(make_teacher(server, failures, timeout_s=0.5), server).text == "late"
    assert failures == ["Timeout"]


def test_nobody_listening_is_a_failure_with_its_reason(server: Any) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(TeacherError, match="InternalServerError after 2 tries|APIConnectionError after 2 tries"):
        complete(make_teacher(server, retries=2), server)


def _teacher(config: ModelConfig) -> Teacher:
    return Teacher({"teacher": config}, concurrency=1, retries=1, on_failure=lambda *_: None)


def test_a_missing_key_is_told_before_the_first_call() -> None:
    with pytest.raises(ConfigError, match="needs OPENAI_API_KEY in the environment"):
        _teacher(ModelConfig(model="openai/gpt-4o"))


def test_an_unknown_provider_is_told() -> None:
    with pytest.raises(ConfigError, match="no provider of that name is known"):
        _teacher(ModelConfig(model="no-such-provider-at-all"))


def test_a_model_without_a_price_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    with pytest.raises(ConfigError, match=r"price is not known\. Set teachers\.teacher\.price"):
        _teacher(ModelConfig(model="openai/gpt-nobody-knows"))


def test_prices_come_from_the_bundled_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    teacher = _teacher(ModelConfig(model="openai/gpt-4o", max_tokens=1000))
    assert teacher.prices["teacher"] == (2.5e-6, 1.25e-6, 1e-5)
    assert teacher.worst_case_usd(request()) >= 1000 * 1e-5


@pytest.mark.parametrize("version", ["1.82.7", "1.82.8"])
def test_the_poisoned_releases_of_litellm_are_not_what_is_pinned(version: str) -> None:
    root = Path(__file__).parents[2]
    pins = (root / "pyproject.toml").read_text() + (root / "constraints.txt").read_text()
    assert f"litellm=={version}\n" not in pins
    assert pins.count("litellm==1.106.2") == 2
