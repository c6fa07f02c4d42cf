"""The protocol: requests as pydantic models, replies and errors in OpenAI's shapes.

    request = read(ChatRequest, body)       or a Refusal, which is a 4xx
    messages = conversation(request)

A field that would change the answer and is not done here (tools, several choices, JSON mode) is refused by name, not ignored; fields that
change nothing (metadata, store) are let through. Shapes: OpenAI API reference, "Chat" and "Errors".
"""

import json
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from train.dataset import Message
from train.template import ROLES

# What is not done here, with the values that ask for nothing.
NOT_DONE: dict[str, tuple[Any, ...]] = {
    **{name: (None, [], {}) for name in ("tools", "functions", "function_call", "logit_bias", "audio", "prediction")},
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "top_logprobs"), (None, 0, 0.0)),
    "logprobs": (None, False),
    "n": (None, 1),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "tool_choice": (None, "none", "auto"),
}


class Refusal(Exception):
    """A request that is answered with an error: status, words, and the fields of OpenAI's error object."""

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None,
        retry_after: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Body(BaseModel):
    """A request's JSON object; a field of the wrong type is refused, not converted."""

    model_config = ConfigDict(strict=True, frozen=True)


class ChatMessage(Body):
    """A turn. Content is text, or parts of it."""

    role: str
    content: str | list[dict[str, Any]]


class StreamOptions(Body):
    """Whether a last chunk with the usage is wanted."""

    include_usage: bool = False


class ChatRequest(Body):
    """POST /v1/chat/completions. Temperature is 0 when not given: a student that was tuned for a task is asked for its best answer."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    user: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts."""
        return () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def limit(self) -> int | None:
        """The most tokens that are wanted, by the new name or the old."""
        return self.max_completion_tokens or self.max_tokens


class LoadRequest(Body):
    """POST /v1/load_lora_adapter, as vLLM has it; `load_inplace` replaces what is under the name."""

    lora_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")
    lora_path: str = Field(min_length=1)
    load_inplace: bool = False


class UnloadRequest(Body):
    """POST /v1/unload_lora_adapter."""

    lora_name: str


class FeedbackRequest(Body):
    """POST /v1/feedback: how good the answer `id` was, as a share from 0 to 1, a thumb, or words."""

    id: str
    score: float | None = Field(default=None, ge=0, le=1)
    thumbs: Literal["up", "down"] | None = None
    label: str | None = Field(default=None, max_length=200)
    comment: str | None = Field(default=None, max_length=10_000)

    @model_validator(mode="after")
    def _says_something(self) -> "FeedbackRequest":
        if self.score is not None and self.thumbs is not None:
            raise ValueError("give score or thumbs, not both")
        if self.score is None and self.thumbs is None and self.label is None:
            raise ValueError("give score (0 to 1), thumbs (up or down) or label")
        return self

    @property
    def value(self) -> float | None:
        """The score; a thumb up is 1."""
        return self.score if self.thumbs is None else float(self.thumbs == "up")


Shape = TypeVar("Shape", bound=Body)


def read(shape: type[Shape], body: bytes) -> Shape:
    """Read a request's body. Raises Refusal (400) that names the field and what was found."""
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if not isinstance(part, str) or part in _fields(shape)) or None
        if first["type"] == "json_invalid":
            raise Refusal(400, f"The body is not JSON: {first['msg']}.", code="invalid_json") from error
        found = "" if first["type"] == "missing" or where is None else f" (found {_short(first['input'])})"
        raise Refusal(400, f"{where or 'The body'}: {first['msg'].lower()}{found}.", param=where) from error


def _fields(shape: type[Body]) -> set[str]:
    """The names that a path of pydantic's may show; the rest of it are names of types."""
    return {*shape.model_fields, *ChatMessage.model_fields, *StreamOptions.model_fields}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:60] + "..."


def check(request: ChatRequest) -> None:
    """Refuse what is not done here."""
    for name, neutral in NOT_DONE.items():
        value = (request.model_extra or {}).get(name)
        if value not in neutral:
            wanted = " or ".join(json.dumps(v) for v in neutral if v is not None)
            raise Refusal(
                400,
                f"{name}: not supported here (found {_short(value)}). Leave it out{', or set ' + wanted if wanted else ''}.",
                param=name,
            )
    if not 0 <= len(request.stops) <= 4 or not all(request.stops):
        raise Refusal(400, f"stop: up to 4 texts that are not empty (found {_short(request.stop)}).", param="stop")


def conversation(messages: Sequence[ChatMessage]) -> list[Message]:
    """The messages as the template takes them. Raises Refusal for an unknown role, an order that training never shows, or pictures."""
    found: list[Message] = []
    for number, message in enumerate(messages):
        where = f"messages.{number}"
        if message.role not in ROLES:
            raise Refusal(400, f"{where}.role: {message.role!r} is unknown; known are {', '.join(ROLES)}.", param=f"{where}.role")
        text = message.content
        if not isinstance(text, str):
            if not all(part.get("type") == "text" and isinstance(part.get("text"), str) for part in text):
                raise Refusal(
                    400, f"{where}.content: parts must be of type text; this student reads nothing else.", param=f"{where}.content"
                )
            text = "".join(part["text"] for part in text)
        if message.role == "system" and number:
            raise Refusal(400, f"{where}.role: a system message comes first or not at all.", param=f"{where}.role")
        found.append({"role": message.role, "content": text})
    if found[-1]["role"] != "user":
        raise Refusal(400, "messages: the last one must be the user's, which is answered.", param="messages")
    return found


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Token counts; the completion's holds its stop token, as in the evaluation."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def completion(head: dict[str, Any], text: str, finish: str, counts: dict[str, int]) -> dict[str, Any]:
    """A whole answer. `head` has id, created, model and system_fingerprint."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        **head,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": counts,
    }


def chunk(head: dict[str, Any], delta: dict[str, str] | None, finish: str | None = None, counts: dict[str, int] | None = None) -> bytes:
    """A server-sent event of a streamed answer; without `delta` the last one, which has the usage alone."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    return event({**head, "object": "chat.completion.chunk", "choices": choices, **({"usage": counts} if counts else {})})


def event(value: Any) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
