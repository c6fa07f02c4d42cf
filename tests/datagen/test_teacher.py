"""The door to a model, against a real HTTP server on this machine that misbehaves."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from datagen.config import Limits, ModelConfig, Price
from datagen.errors import ConfigError, TeacherError
from datagen.pace import Size
from datagen.records import Message, Request
from datagen.teacher import FatalTeacherError, Teacher

LANES = pytest.mark.parametrize("lane", ["auto", "litellm"])


def request(text: str = "hi", model: str = "openai/local") -> Request:
    params = {"temperature": 0.5, "max_tokens": 64}
    return Request(
        item_id="i", prompt="p@1", role="teacher", model=model, messages=(Message(role="user", content=text),), params=params, sample=text
    )


def make_teacher(
    server: Any, failures: list[str] | None = None, *, retries: int = 4, timeout_s: float = 10.0, lane: Any = "auto"
) -> Teacher:
    config = ModelConfig(
        model="openai/local", max_tokens=64, timeout_s=timeout_s, price=Price(input_per_million=1.0, output_per_million=10.0),
        params={"api_base": server.url, "api_key": "none"}, lane=lane,
    )  # fmt: skip
    noted = failures if failures is not None else []
    return Teacher({"teacher": config}, concurrency=8, retries=retries, on_failure=lambda request, kind, message: noted.append(kind))


def complete(teacher: Teacher, server: Any, text: str = "hi") -> Any:
    ask = request(text).model_copy(update={"params": {"temperature": 0.5, "max_tokens": 64, "api_base": server.url, "api_key": "none"}})
    return asyncio.run(teacher.complete(ask))


@LANES
def test_an_answer_comes_with_its_tokens_and_its_price(server: Any, lane: str) -> None:
    response = complete(make_teacher(server, lane=lane), server)
    assert response.text == "hello"
    assert (response.prompt_tokens, response.completion_tokens) == (100, 20)
    assert response.cost_usd == pytest.approx(100 / 1e6 + 20 * 10 / 1e6)
    assert server.bodies[0]["max_tokens"] == 64


@LANES
def test_cached_tokens_are_counted_apart(server: Any, lane: str) -> None:
    server.reply = lambda body, nth: server.chat("hello", cached=60)
    assert complete(make_teacher(server, lane=lane), server).cached_tokens == 60


@LANES
@pytest.mark.parametrize(("status", "kind"), [(500, "InternalServerError"), (429, "RateLimitError"), (503, "ServiceUnavailableError")])
def test_what_may_pass_is_tried_again_and_noted(server: Any, status: int, kind: str, lane: str) -> None:
    failures: list[str] = []
    server.reply = lambda body, nth: server.error(status, "try later", {"Retry-After": "0"}) if nth < 3 else server.chat("at last")
    response = complete(make_teacher(server, failures, lane=lane), server)
    assert (response.text, response.attempts) == ("at last", 3)
    assert failures == [kind, kind]


@LANES
def test_retry_after_is_waited_for(server: Any, lane: str) -> None:
    server.reply = lambda body, nth: server.error(429, "slow down", {"Retry-After": "1"}) if nth == 1 else server.chat("ok")
    started = time.monotonic()
    complete(make_teacher(server, lane=lane), server)
    assert time.monotonic() - started >= 1.0


@LANES
def test_retries_end(server: Any, lane: str) -> None:
    server.reply = lambda body, nth: server.error(500, "never", {"Retry-After": "0"})
    with pytest.raises(TeacherError, match="InternalServerError after 2 tries"):
        complete(make_teacher(server, retries=2, lane=lane), server)
    assert server.seen.total() == 2


@LANES
def test_a_refusal_for_good_is_not_tried_again(server: Any, lane: str) -> None:
    server.reply = lambda body, nth: server.error(400, "content policy")
    with pytest.raises(TeacherError, match="content policy") as caught:
        complete(make_teacher(server, lane=lane), server)
    assert not isinstance(caught.value, FatalTeacherError)
    assert server.seen.total() == 1


@LANES
@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key_or_model_would_meet_every_call(server: Any, status: int, lane: str) -> None:
    server.reply = lambda body, nth: server.error(status, "no such thing")
    with pytest.raises(FatalTeacherError, match="no such thing"):
        complete(make_teacher(server, lane=lane), server)
    assert server.seen.total() == 1


@LANES
def test_a_server_that_hangs_is_left_after_the_timeout(server: Any, lane: str) -> None:
    def hang(body: dict[str, Any], nth: int) -> Any:
        if nth == 1:
            time.sleep(1.5)
        return server.chat("late")

    server.reply = hang
    failures: list[str] = []
    assert complete(make_teacher(server, failures, timeout_s=0.5, lane=lane), server).text == "late"
    assert failures == ["Timeout"]


@LANES
def test_nobody_listening_ends_the_run_with_its_reason(server: Any, lane: str) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(FatalTeacherError, match="InternalServerError after 2 tries|APIConnectionError after 2 tries"):
        complete(make_teacher(server, retries=2, lane=lane), server)


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


# -- waiting, giving up, bills


def test_a_rate_limit_that_is_waited_out_takes_no_retries(server: Any) -> None:
    server.reply = lambda body, nth: server.error(429, "slow down", {"Retry-After": "0.01"}) if nth < 8 else server.chat("at last")
    response = complete(make_teacher(server, retries=2), server)
    assert (response.text, response.attempts) == ("at last", 8)


def test_an_account_without_money_is_not_waited_for(server: Any) -> None:
    body = json.dumps({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}).encode()
    server.reply = lambda asked, nth: (429, {}, body)
    with pytest.raises(FatalTeacherError, match="exceeded your current quota"):
        complete(make_teacher(server), server)


def test_retry_after_holds_all_workers_back(server: Any) -> None:
    times: list[float] = []

    def reply(body: dict[str, Any], nth: int) -> Any:
        times.append(time.monotonic())
        return server.error(429, "slow down", {"Retry-After": "0.6"}) if len(times) == 1 else server.chat("ok")

    server.reply = reply
    teacher, asks = make_teacher(server), [request(str(n)) for n in range(5)]

    async def work() -> None:
        first = asyncio.create_task(teacher.complete(asks[0]))
        while not times:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await asyncio.gather(first, *(teacher.complete(ask) for ask in asks[1:]))

    asyncio.run(work())
    assert min(times[1:]) - times[0] >= 0.6


def _complete_all(teacher: Teacher, count: int, role: Any = "teacher", model: str = "openai/local") -> list[Any]:
    """Responses or errors of `count` requests."""

    async def work() -> list[Any]:
        asks = (request(str(n), model).model_copy(update={"role": role}) for n in range(count))
        return await asyncio.gather(*(teacher.complete(ask) for ask in asks), return_exceptions=True)

    return asyncio.run(work())


def test_a_run_that_cannot_succeed_stops_and_says_what_it_saw(server: Any) -> None:
    server.reply = lambda body, nth: server.error(400, "no such field: temprature")
    ends = _complete_all(make_teacher(server), 200)
    stopped = [end for end in ends if isinstance(end, FatalTeacherError)]
    assert server.seen.total() < 40
    assert len(stopped) > 150
    assert "calls failed (2" in str(stopped[0])
    assert "BadRequestError); the last: 400: no such field: temprature. What was answered is kept" in str(stopped[0])


def test_a_tenth_of_500s_stops_nothing(server: Any) -> None:
    server.reply = lambda body, nth: (
        server.error(500, "broken") if hash(body["messages"][0]["content"]) % 10 == 0 and nth == 1 else server.chat("x")
    )
    assert all(end.text == "x" for end in _complete_all(make_teacher(server), 60))


def test_a_bill_without_a_message_is_billed(server: Any) -> None:
    broken = {"choices": [{"message": {"content": {"no": "text"}}}], "usage": {"prompt_tokens": 100, "completion_tokens": 20}}
    server.reply = lambda body, nth: (200, {}, json.dumps(broken).encode())
    response = complete(make_teacher(server), server)
    assert (response.text, response.finish_reason) == ("", "unreadable")
    assert response.cost_usd == pytest.approx(100 / 1e6 + 20 * 10 / 1e6)


def test_a_server_that_does_not_say_what_it_billed_is_estimated(server: Any) -> None:
    server.reply = lambda body, nth: (200, {}, json.dumps({"choices": [{"message": {"content": "x" * 40}}]}).encode())
    response = complete(make_teacher(server), server, "y" * 400)
    assert (response.prompt_tokens, response.completion_tokens) == (100, 10)


def test_a_key_in_a_providers_message_is_blotted_out(server: Any) -> None:
    key, told = "sk-planted-0123456789", []
    config = ModelConfig(
        model="openai/local", price=Price(input_per_million=0, output_per_million=0), params={"api_base": server.url, "api_key": key}
    )
    server.reply = lambda body, nth: server.error(401, f"Incorrect API key provided: {key}")
    teacher = Teacher({"teacher": config}, concurrency=1, retries=1, on_failure=lambda *args: told.append(args[2]))
    with pytest.raises(FatalTeacherError) as caught:
        complete(teacher, server)
    assert told == ["401: Incorrect API key provided: [key]"]
    assert key not in str(caught.value)


def test_the_worst_case_holds_for_every_script() -> None:
    config = ModelConfig(
        model="hosted_vllm/x", max_tokens=10, api_bases=("http://127.0.0.1:9",), price=Price(input_per_million=1e6, output_per_million=0)
    )
    teacher = _teacher(config)
    assert 1000 <= teacher.worst_case_usd(request("x" * 1000)) < 1200  # a token a byte
    assert teacher.worst_case_usd(request("\u6f22" * 1000)) >= 3000
    assert teacher.worst_case_usd(request("x").model_copy(update={"response_schema": {"description": "y" * 1000}})) >= 1000


def test_several_answers_to_one_call_are_all_reserved() -> None:
    config = ModelConfig(
        model="hosted_vllm/x", max_tokens=10, api_bases=("http://127.0.0.1:9",), price=Price(input_per_million=0, output_per_million=1e6)
    )
    assert _teacher(config).worst_case_usd(request().model_copy(update={"params": {"n": 3, "max_tokens": 64}})) == 3 * 64


# -- endpoints and roles


def _pooled(*urls: str, concurrency: int = 8, **fields: Any) -> Teacher:
    price = Price(input_per_million=0, output_per_million=0)
    config = ModelConfig(model="hosted_vllm/student", api_bases=urls, price=price, **fields)
    return Teacher({"teacher": config, "weak": config}, concurrency=concurrency, retries=2, on_failure=lambda *_: None)


@pytest.fixture
def fleet() -> Any:
    from tests.datagen.conftest import ChatServer

    servers = [ChatServer() for _ in range(3)]
    yield servers
    for one in servers:
        one.http.shutdown()
        one.http.server_close()


def test_calls_are_spread_over_the_endpoints(fleet: Any) -> None:
    assert all(end.text == "hello" for end in _complete_all(_pooled(*(one.url for one in fleet)), 90))
    assert all(one.seen.total() >= 20 for one in fleet)


@LANES
def test_an_endpoint_that_is_gone_costs_no_call(fleet: Any, lane: str) -> None:
    fleet[0].http.shutdown()
    fleet[0].http.server_close()
    ends = _complete_all(_pooled(*(one.url for one in fleet), lane=lane), 60, model="hosted_vllm/student")
    assert [getattr(end, "text", end) for end in ends] == ["hello"] * 60


def test_the_recipes_rate_holds_for_each_endpoint(server: Any) -> None:
    started = time.monotonic()
    _complete_all(_pooled(server.url, limits=Limits(requests_per_minute=600)), 20)
    assert 0.9 <= time.monotonic() - started < 3.0  # ten at once, ten at 10 a second


def test_the_student_itself_can_be_the_weak_model(server: Any) -> None:
    teacher = _pooled(server.url)
    (end,) = _complete_all(teacher, 1, role="weak")
    assert (end.text, server.bodies[0]["model"]) == ("hello", "student")


def test_a_requests_id_is_what_it_always_was() -> None:
    assert request().id == "7d3af917b042c439dde84fd83ad61b47"
    assert request().model_copy(update={"response_schema": {"type": "object"}}).id != request().id


# -- schemas and caches

OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


@LANES
@pytest.mark.parametrize(("structured", "sent"), [("json_schema", "response_format"), ("tool", "tools"), ("none", None)])
def test_a_schema_is_sent_as_the_recipe_says(server: Any, structured: Any, sent: str | None, lane: Any) -> None:
    price = Price(input_per_million=0, output_per_million=0)
    params = {"api_base": server.url, "api_key": "none"}
    config = ModelConfig(model="openai/local", price=price, params=params, structured=structured, lane=lane)
    ask = request().model_copy(update={"response_schema": OBJECT, "params": {"max_tokens": 64, **params}})
    asyncio.run(_teacher(config).complete(ask))
    assert {"response_format", "tools"} & set(server.bodies[0]) == ({sent} if sent else set())


@pytest.mark.parametrize(
    ("model", "sent"), [("openai/local", "response_format"), ("hosted_vllm/x", "response_format"), ("deepseek/x", "tools")]
)
def test_a_schema_is_sent_as_the_provider_takes_it(server: Any, model: str, sent: str) -> None:
    config = ModelConfig(model=model, price=Price(input_per_million=0, output_per_million=0), api_bases=(server.url,))
    asyncio.run(_teacher(config).complete(request(model=model).model_copy(update={"response_schema": OBJECT})))
    assert sent in server.bodies[0]


def _claude(usage: dict[str, int]) -> bytes:
    return json.dumps(
        {
            "id": "x", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": "hello"}], "usage": usage,
        }
    ).encode()  # fmt: skip


@pytest.mark.parametrize(("words", "marked"), [(300, False), (1500, True)])
def test_a_long_system_message_is_cached_at_anthropic_and_priced(server: Any, words: int, marked: bool) -> None:
    usage = {"input_tokens": 50, "cache_creation_input_tokens": 2000, "cache_read_input_tokens": 1000, "output_tokens": 20}
    server.reply = lambda body, nth: (200, {"anthropic-ratelimit-requests-limit": "600"}, _claude(usage))
    config = ModelConfig(model="anthropic/claude-sonnet-4-5", max_tokens=64, params={"api_base": server.url, "api_key": "none"})
    teacher = _teacher(config)
    messages = (Message(role="system", content="word " * words), Message(role="user", content="hi"))
    params = {"max_tokens": 64, **config.params}
    response = asyncio.run(teacher.complete(request(model=config.model).model_copy(update={"messages": messages, "params": params})))
    assert ("cache_control" in json.dumps(server.bodies[0]["system"])) is marked
    assert (response.prompt_tokens, response.cached_tokens) == (3050, 1000)
    assert response.cost_usd == pytest.approx((50 * 3 + 2000 * 3.75 + 1000 * 0.3 + 20 * 15) / 1e6)
    assert teacher._lines["teacher"].pool.paces[0].wait_s(0.0, Size(1, 1)) > 0  # the rate was learned from the headers
