"""The direct lane against sockets that answer with any bytes at all."""

import asyncio
import gzip
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from datagen.config import ModelConfig
from datagen.direct import COST_UNKNOWN, CallFailed, DirectLane, Reply, endpoints, failure, read, speaks
from datagen.errors import ConfigError
from datagen.records import Message, Request

KEY = "sk-planted-0123456789"
USAGE = {"prompt_tokens": 100, "completion_tokens": 20}
GOOD = {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}], "usage": USAGE}


def request(**params: Any) -> Request:
    return Request(
        item_id="i", prompt="p@1", role="teacher", model="openai/local", messages=(Message(role="user", content="hi"),),
        params={"temperature": 0.5, "max_tokens": 64, **params}, sample="0",
    )  # fmt: skip


def http(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in {"Content-Length": str(len(body)), **headers}.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def ask(reply: bytes | None, *, timeout_s: float = 5.0, extra: Mapping[str, Any] | None = None, **params: Any) -> tuple[Reply, bytes]:
    """What the lane makes of a server's bytes (None: never a byte), and what the server was sent."""
    seen = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        seen.extend(head + await reader.readexactly(length))
        if reply is None:
            await reader.read()  # until the client leaves
        else:
            writer.write(reply)
        writer.close()

    async def work() -> Reply:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        config = ModelConfig(model="openai/local", timeout_s=timeout_s, params={"api_key": KEY, **params})
        try:
            return await DirectLane("openai/local", config).call(request(**params), f"http://127.0.0.1:{port}/v1", extra or {})
        finally:
            await asyncio.sleep(0.02)  # let the server see the client leave
            server.close()

    return asyncio.run(work()), bytes(seen)


def test_an_answer_is_read_with_its_usage_and_headers() -> None:
    reply, _ = ask(http(json.dumps(GOOD).encode(), x_ratelimit_limit_requests="500"))
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == ("hello", "stop", 100, 20)
    assert reply.headers["X-RateLimit-Limit-Requests"] == "500"


def test_what_is_sent_is_the_model_the_messages_and_the_parameters() -> None:
    extra = {"response_format": {"type": "json_object"}}
    _, sent = ask(http(json.dumps(GOOD).encode()), extra=extra, top_p=0.9, extra_body={"guided": 1}, extra_headers={"X-Team": "ana"})
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1")
    assert f"Authorization: Bearer {KEY}".encode() in head
    assert b"X-Team: ana" in head
    assert json.loads(body) == {
        "model": "local", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "max_tokens": 64, "top_p": 0.9,
        "guided": 1, **extra,
    }  # fmt: skip


def test_a_compressed_answer_is_read() -> None:
    reply, _ = ask(http(gzip.compress(json.dumps(GOOD).encode()), Content_Encoding="gzip"))
    assert reply.text == "hello"


def test_blank_lines_that_keep_a_slow_answer_open_are_skipped() -> None:
    assert ask(http(b"\n\n\n" + json.dumps(GOOD).encode()))[0].text == "hello"


@pytest.mark.parametrize(
    ("reply", "kind", "name", "words"),
    [
        (http(b"<html><h1>Busy</h1></html>"), "passing", "InvalidResponse", r"a web page \('Busy'\)"),
        (http(b'{"choices": [{"mess'), "passing", "InvalidResponse", "not JSON"),
        (http(b"[]"), "passing", "InvalidResponse", "a JSON list"),
        (http(b'{"ok": true}'), "passing", "InvalidResponse", "no message"),
        (http(b'{"choices": []}'), "passing", "InvalidResponse", "no message"),
        (http(b"", "204 No Content"), "passing", "InvalidResponse", "status 204"),
        (http(b"not gzip", Content_Encoding="gzip"), "passing", "ConnectionDropped", "in its body"),
        (http(json.dumps(GOOD).encode())[:-30], "passing", "ConnectionDropped", "in its body"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "passing", "ConnectionDropped", "in its head"),
        (b"", "passing", "ConnectionDropped", "in its head"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "passing", "ConnectionDropped", "in its head"),
    ],
    ids=[
        "html", "torn", "list", "no choices", "empty choices", "204", "bad gzip", "dropped in body", "dropped in head", "dropped at once",
        "not HTTP",
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_read_may_pass_and_says_that_its_cost_is_unknown(reply: bytes, kind: str, name: str, words: str) -> None:
    with pytest.raises(CallFailed, match=words) as caught:
        ask(reply)
    assert (caught.value.kind, caught.value.name) == (kind, name)
    assert COST_UNKNOWN in caught.value.message


def test_a_server_that_says_nothing_is_left_at_the_timeout() -> None:
    with pytest.raises(CallFailed, match=r"within 0\.2 s") as caught:
        ask(None, timeout_s=0.2)
    assert (caught.value.kind, caught.value.name, caught.value.overloaded) == ("passing", "Timeout", True)


def test_an_answer_with_a_bill_and_no_message_is_a_reply_that_cannot_be_read() -> None:
    reply, _ = ask(http(json.dumps({"choices": [{"message": {"content": [1]}}], "usage": USAGE}).encode()))
    assert (reply.text, reply.finish_reason, reply.prompt_tokens) == ("", "unreadable", 100)


@pytest.mark.parametrize(
    ("status", "kind", "name"),
    [
        (302, "passing", "UnexpectedRedirect"),
        (308, "fatal", "NotFoundError"),
        (400, "final", "BadRequestError"),
        (401, "fatal", "AuthenticationError"),
        (402, "fatal", "InsufficientBalance"),
        (403, "fatal", "PermissionDeniedError"),
        (404, "fatal", "NotFoundError"),
        (408, "passing", "Timeout"),
        (413, "final", "BadRequestError"),
        (422, "final", "UnprocessableEntityError"),
        (429, "passing", "RateLimitError"),
        (500, "passing", "InternalServerError"),
        (502, "passing", "BadGatewayError"),
        (503, "passing", "ServiceUnavailableError"),
        (529, "passing", "ServiceUnavailableError"),
        (599, "passing", "InternalServerError"),
    ],
)
def test_a_status_has_a_kind_and_a_name(status: int, kind: str, name: str) -> None:
    failed = failure(status, {"Location": "http://user:secret@elsewhere/v1"}, b'{"error": {"message": "because"}}', "http://here")
    assert (failed.kind, failed.name) == (kind, name)
    assert failed.overloaded is (status in (429, 503, 529))
    assert ("elsewhere" if status < 400 else "because") in failed.message
    assert "secret" not in failed.message


@pytest.mark.parametrize(
    ("code", "kind", "name"),
    [
        ("insufficient_quota", "fatal", "RateLimitError"),
        ("context_length_exceeded", "final", "ContextWindowExceededError"),
        ("content_policy_violation", "final", "ContentPolicyViolationError"),
    ],
)
def test_an_errors_code_says_more_than_its_status(code: str, kind: str, name: str) -> None:
    failed = failure(429, {}, json.dumps({"error": {"message": "m", "code": code}}).encode(), "http://here")
    assert (failed.kind, failed.name) == (kind, name)


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"busy", "busy"), (b'{"detail": "no such"}', "no such"), (b'{"error": "flat"}', "flat"), (b'["x"]', "x"), (b"", "no message")],
)
def test_an_errors_message_is_found_in_every_shape(body: bytes, message: str) -> None:
    assert message in failure(400, {}, body, "http://here").message


def test_a_tool_call_is_the_answer() -> None:
    call = {"function": {"name": "answer", "arguments": '{"a": 1}'}}
    body = {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}], "usage": USAGE}
    reply = read(json.dumps(body).encode(), {})
    assert (reply.text, reply.finish_reason) == ('{"a": 1}', "stop")


def test_reasoning_and_cached_tokens_are_read_in_deepseeks_form_too() -> None:
    message = {"content": "x", "reasoning_content": "because"}
    body = {"choices": [{"message": message}], "usage": {**USAGE, "prompt_cache_hit_tokens": 64}}
    reply = read(json.dumps(body).encode(), {})
    assert (reply.reasoning, reply.cached_tokens) == ("because", 64)


def test_an_answer_without_usage_says_so() -> None:
    assert read(json.dumps({"choices": GOOD["choices"]}).encode(), {}).usage_known is False


@pytest.mark.parametrize(
    ("model", "params", "direct"),
    [
        ("openai/gpt-4o", {"top_p": 0.9}, True),
        ("hosted_vllm/qwen", {"min_p": 0.1, "extra_body": {}}, True),
        ("deepseek/deepseek-chat", {}, True),
        ("openai/gpt-5-mini", {}, False),
        ("openai/o3", {}, False),
        ("openai/gpt-4o", {"reasoning_effort": "low"}, False),
        ("anthropic/claude-sonnet-4-5", {}, False),
        ("offline/banking", {}, False),
        ("gpt-4o", {}, False),
    ],
)
def test_the_lane_is_chosen_by_provider_and_parameters(model: str, params: dict[str, Any], direct: bool) -> None:
    assert speaks(model, params) is direct


def test_a_key_that_ends_with_a_newline_and_half_a_sign_are_sent_all_the_same() -> None:
    _, sent = ask(http(json.dumps(GOOD).encode()), api_key=KEY + "\n", stop="\ud83d")
    assert f"Bearer {KEY}\r\n".encode() in sent


def test_a_key_that_the_recipe_names_by_its_variable_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_API_KEY", KEY)
    _, sent = ask(http(json.dumps(GOOD).encode()), api_key="${TEAM_API_KEY}", extra_headers={"X-Api-Key": "${TEAM_API_KEY}"})
    assert f"Bearer {KEY}\r\n".encode() in sent
    assert f"X-Api-Key: {KEY}\r\n".encode() in sent


@pytest.mark.parametrize(("location", "named"), [("/login?token=secret", "/login"), ("https://u:secret@b.org/v1", "https://b.org/v1")])
def test_where_a_redirect_leads_is_told_without_secrets(location: str, named: str) -> None:
    message = failure(302, {"Location": location}, b"", "http://here").message
    assert f"redirects to {named};" in message
    assert "secret" not in message


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "HOSTED_VLLM_API_BASE", "DEEPSEEK_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_endpoints_come_from_the_recipe_the_environment_or_the_provider(no_keys: pytest.MonkeyPatch) -> None:
    no_keys.setenv("OPENAI_API_KEY", KEY)
    model = "openai/gpt-4o"
    assert endpoints(model, ModelConfig(model=model), "t") == ("https://api.openai.com/v1",)
    no_keys.setenv("OPENAI_BASE_URL", "http://proxy/v1/")
    assert endpoints(model, ModelConfig(model=model), "t") == ("http://proxy/v1",)
    assert endpoints(model, ModelConfig(model=model, api_bases=("http://a/v1", "http://b/v1")), "t") == ("http://a/v1", "http://b/v1")
    assert endpoints(model, ModelConfig(model=model, params={"api_base": "http://c"}), "t") == ("http://c",)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "deepseek/deepseek-chat"}, "needs DEEPSEEK_API_KEY in the environment"),
        ({"model": "hosted_vllm/qwen"}, r"Set teachers\.weak\.api_bases: \[http://host:8000/v1\], or HOSTED_VLLM_API_BASE"),
        ({"model": "hosted_vllm/qwen", "api_bases": ("localhost:8000/v1",)}, "is no URL"),
    ],
)
def test_what_is_missing_is_named_before_the_first_call(no_keys: pytest.MonkeyPatch, fields: dict[str, Any], words: str) -> None:
    config = ModelConfig(**fields)
    with pytest.raises(ConfigError, match=words):
        endpoints(config.model, config, "teachers.weak")


def test_endpoints_are_named_in_one_place() -> None:
    with pytest.raises(ValueError, match="api_bases and params.api_base both name endpoints"):
        ModelConfig(model="openai/x", api_bases=("http://a",), params={"api_base": "http://b"})


def test_a_direct_run_never_imports_litellm() -> None:
    code = """
import sys
from datagen.config import ModelConfig
from datagen.teacher import Teacher
config = ModelConfig(model="openai/gpt-4o", params={"api_base": "http://127.0.0.1:9/v1"})
teacher = Teacher({"teacher": config}, concurrency=1, retries=1, on_failure=print)
assert teacher.prices["teacher"] == (2.5e-6, 1.25e-6, 1e-5), teacher.prices
assert "litellm" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
