"""The providers' batch APIs behind one shape: encode a request, submit, find again, look, read the answers.

OpenAI goes through litellm's batch functions. litellm 1.106 can look at Anthropic's message batches, but neither make nor list them, so
these are asked for here by litellm's HTTP client with its headers and request bodies. All calls are litellm's blocking ones in a thread:
its async ones leave connections open.
Sources: platform.openai.com/docs/guides/batch; docs.anthropic.com/en/docs/build-with-claude/batch-processing.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, Protocol

from datagen.config import ModelConfig
from datagen.errors import TeacherError
from datagen.records import Batch, Request, Response
from datagen.secrets import redact
from datagen.teacher import Asked, _litellm, _reply

# Parameters of a recipe that say how to reach a model, not what to ask of it.
_CONNECTION = ("api_base", "api_key", "organization")
_NOT_ASKED = (*_CONNECTION, "base_url", "timeout", "max_retries", "num_retries", "headers", "extra_headers", "metadata")
_TIMEOUT_S = 600.0  # an input file has up to 200 MB
_CLOCKS_DIFFER = timedelta(minutes=10)
_FINAL_STATUS = (400, 404, 413, 422)  # a live call would end the same way
Kind = Literal["unsure", "busy", "key", "missing", "refused"]


class BatchApiError(TeacherError):
    """A batch API said no, or nothing. kind: unsure (what was sent may have arrived), busy (429), key, missing (404), refused."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Line(NamedTuple):
    """A request as a provider takes it in a batch: its JSON, and the beta headers that it needs."""

    data: bytes
    betas: frozenset[str]


class State(NamedTuple):
    """What a provider says of a batch. `files` hold its results; `code` and `message` say why a batch as a whole failed."""

    status: Literal["waiting", "ended", "cancelled", "failed"]
    done: int
    files: tuple[str, ...] = ()
    code: str = ""
    message: str = ""


class Result(NamedTuple):
    """How one request of a batch ended. Without a response: `refused` means that a live call would be refused too, and
    `cancelled` that the request was never tried, and `billed` that there was an answer, which cannot be read."""

    request_id: str
    response: Response | None
    refused: bool = False
    cancelled: bool = False
    billed: bool = False
    message: str = ""


class BatchApi(Protocol):
    """One model's batch API."""

    provider: str
    model: str
    api_base: str | None
    max_requests: int
    max_bytes: int
    price_share: float

    def encode(self, request: Request) -> Line:
        """A request as one line of a batch."""

    async def submit(self, batch: Batch, lines: Sequence[Line]) -> str:
        """Start a batch; its id at the provider. Raises BatchApiError."""

    async def find(self, batch: Batch, others: frozenset[str], requests: Mapping[str, Request]) -> str | None:
        """The provider's id of a batch whose submission got no answer; None when it never arrived."""

    async def look(self, provider_id: str) -> State:
        """What became of a batch so far."""

    async def results(self, files: Sequence[str], requests: Mapping[str, Request]) -> list[Result]:
        """How each request ended, in the provider's order; lines that cannot be read are left out."""


def batch_api(config: ModelConfig, asked: Callable[[Request], Asked]) -> BatchApi | None:
    """The batch API of a role's model; None where there is none that is known here. `asked` says what a live call would ask."""
    if config.model.startswith("offline/"):
        return None
    _, provider, _, _ = _litellm().get_llm_provider(config.model, api_base=address(config))
    if provider == "openai":
        return _OpenAI(config, asked)
    return _Anthropic(config, asked) if provider == "anthropic" else None


def address(config: ModelConfig) -> str | None:
    """Where a model's batches are made: its first endpoint, where the recipe names any."""
    return config.api_bases[0] if config.api_bases else config.params.get("api_base")


class _Model:
    """What both providers share: names, prices, and litellm's translation of requests and answers."""

    provider = ""

    def __init__(self, config: ModelConfig, asked: Callable[[Request], Asked]) -> None:
        self.model = config.model
        self.api_base = address(config)
        params = {**config.params, **config.secret_params()}
        self.connection = {name: params[name] for name in _CONNECTION if params.get(name)}
        if self.api_base:
            self.connection["api_base"] = self.api_base
        self._asked = asked
        self._name = _litellm().get_llm_provider(config.model, api_base=self.api_base)[0]
        self._info = self._prices(config)
        self.price_share = self._share()
        from litellm.utils import ProviderConfigManager

        self._chat: Any = ProviderConfigManager.get_provider_chat_config(
            model=self._name, provider=_litellm().types.utils.LlmProviders(self.provider)
        )

    def _prices(self, config: ModelConfig) -> dict[str, Any]:
        if config.price is not None:
            return {
                "input_cost_per_token": config.price.input_per_million / 1e6,
                "output_cost_per_token": config.price.output_per_million / 1e6,
                "cache_read_input_token_cost": config.price.input_per_million / 1e6,
            }
        return dict(_litellm().get_model_info(config.model))

    def _share(self) -> float:
        """The batch price as a share of the live one: what the price map says, or half."""
        shares = [0.5]
        for side in ("input", "output"):
            live, batched = self._info.get(f"{side}_cost_per_token"), self._info.get(f"{side}_cost_per_token_batches")
            if live and batched is not None:
                shares.append(batched / live)
        return float(max(shares))

    def _translate(self, request: Request) -> tuple[dict[str, Any], dict[str, Any], bool]:
        """A request's body and headers as litellm sends them live, and whether the answer comes as a tool call in JSON's place."""
        from litellm.utils import get_optional_params

        asked = self._asked(request)
        messages: list[Any] = asked.messages
        params = {name: value for name, value in asked.params.items() if name not in _NOT_ASKED}
        options = get_optional_params(model=self._name, custom_llm_provider=self.provider, messages=messages, **params)
        json_mode = bool(options.pop("json_mode", False))
        headers: dict[str, Any] = {}
        if self.provider == "anthropic":  # whose parameters decide which betas the headers must name
            headers = self._chat.validate_environment(
                headers=headers, model=self._name, messages=messages, optional_params=options, litellm_params={},
                api_key=self.connection.get("api_key"), api_base=self.api_base,
            )  # fmt: skip
        body = self._chat.transform_request(
            model=self._name, messages=messages, optional_params=options, litellm_params={}, headers=headers
        )
        body.update(body.pop("extra_body", None) or {})
        body.pop("stream", None)
        return body, headers, json_mode

    def _response(self, request: Request, answer: Any) -> Response:
        """An answer with what it cost as part of a batch."""
        from litellm.cost_calculator import batch_cost_calculator

        reply = _reply(answer)
        return Response(
            request_id=request.id,
            text=reply.text,
            reasoning=reply.reasoning,
            finish_reason=reply.finish_reason,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            cached_tokens=reply.cached_tokens,
            cost_usd=sum(
                batch_cost_calculator(usage=answer.usage, model=self._name, custom_llm_provider=self.provider, model_info=self._info)  # type: ignore[arg-type]
            ),
        )


class _OpenAI(_Model):
    """OpenAI's /v1/files and /v1/batches; our batch id travels in the batch's metadata."""

    provider = "openai"
    max_requests = 50_000
    max_bytes = 200_000_000

    def encode(self, request: Request) -> Line:
        body, _, _ = self._translate(request)
        line = {"custom_id": request.id, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return Line(json.dumps(line, ensure_ascii=False).encode() + b"\n", frozenset())

    async def submit(self, batch: Batch, lines: Sequence[Line]) -> str:
        data = b"".join(line.data for line in lines)
        try:
            file = await self._call(_litellm().create_file, file=(f"{batch.id}.jsonl", data, "application/jsonl"), purpose="batch")
        except BatchApiError as error:
            if error.kind == "unsure":  # a file alone is no batch: it can be sent again
                raise BatchApiError("busy", str(error)) from error
            raise
        made = await self._call(
            _litellm().create_batch,
            completion_window="24h",
            endpoint="/v1/chat/completions",
            input_file_id=file.id,
            metadata={"retort_batch": batch.id},
        )
        return str(made.id)

    async def find(self, batch: Batch, others: frozenset[str], requests: Mapping[str, Request]) -> str | None:
        after: str | None = None
        while True:
            page = await self._call(_litellm().list_batches, after=after, limit=100)
            for found in page.data:
                if (found.metadata or {}).get("retort_batch") == batch.id:
                    return str(found.id)
            oldest = min((found.created_at for found in page.data), default=0)
            if not page.has_more or oldest < (batch.submitted_at - timedelta(days=1)).timestamp():
                return None
            after = page.data[-1].id

    async def look(self, provider_id: str) -> State:
        found = await self._call(_litellm().retrieve_batch, batch_id=provider_id)
        files = tuple(file for file in (found.output_file_id, found.error_file_id) if file)
        done = found.request_counts.completed + found.request_counts.failed if found.request_counts else 0
        if found.status in ("completed", "expired"):
            return State("ended", done, files)
        if found.status in ("cancelled", "failed"):
            errors = list(found.errors.data or []) if found.errors else []
            code = next((error.code or "" for error in errors), "")
            return State(found.status, done, files, code, "; ".join(f"{error.code}: {error.message}" for error in errors[:3]))
        return State("waiting", done)

    async def results(self, files: Sequence[str], requests: Mapping[str, Request]) -> list[Result]:
        contents = [await self._call(_litellm().file_content, file_id=file) for file in files]
        return [self._result(line, requests) for content in contents for line in _json_lines(content.content)]

    async def _call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        with _provider_errors(self.provider):
            return await asyncio.to_thread(
                function, custom_llm_provider=self.provider, max_retries=0, timeout=_TIMEOUT_S, **arguments, **self.connection
            )

    def _result(self, line: Mapping[str, Any], requests: Mapping[str, Request]) -> Result:
        request_id = str(line.get("custom_id"))
        answered, error = line.get("response") or {}, line.get("error") or {}
        body = answered.get("body") or {}
        status = answered.get("status_code")
        if status == 200 and request_id in requests:
            from litellm.utils import convert_to_model_response_object

            try:
                answer = convert_to_model_response_object(response_object=body, model_response_object=_litellm().ModelResponse())
                return Result(request_id, self._response(requests[request_id], answer))
            except Exception as broken:  # a body that litellm cannot read is this request's failure alone
                return Result(request_id, None, billed=True, message=redact(f"an answer that cannot be read: {broken}"))
        if isinstance(body, Mapping):
            error = error or body.get("error") or {}
        message = redact(f"{status or error.get('code')}: {error.get('message', 'no answer')}")
        return Result(request_id, None, refused=status in _FINAL_STATUS, message=message)


class _Anthropic(_Model):
    """Anthropic's /v1/messages/batches. A batch carries no name of ours, so a lost one is known by its size and time, and by the
    ids of its results as soon as there are any."""

    provider = "anthropic"
    max_requests = 100_000
    max_bytes = 256_000_000

    def encode(self, request: Request) -> Line:
        body, headers, _ = self._translate(request)
        betas = frozenset(filter(None, (beta.strip() for beta in str(headers.get("anthropic-beta") or "").split(","))))
        return Line(json.dumps({"custom_id": request.id, "params": body}, ensure_ascii=False).encode(), betas)

    async def submit(self, batch: Batch, lines: Sequence[Line]) -> str:
        data = b'{"requests":[' + b",".join(line.data for line in lines) + b"]}"
        made = await self._call("POST", data=data, betas=frozenset().union(*(line.betas for line in lines)))
        return str(json.loads(made)["id"])

    async def find(self, batch: Batch, others: frozenset[str], requests: Mapping[str, Request]) -> str | None:
        query = {"limit": "100"}
        while True:
            page = json.loads(await self._call("GET", query=query))
            for found in page["data"]:
                if datetime.fromisoformat(found["created_at"].replace("Z", "+00:00")) < batch.submitted_at - _CLOCKS_DIFFER:
                    return None
                if found["id"] in others or sum(found["request_counts"].values()) != batch.requests:
                    continue
                if found["processing_status"] != "ended":
                    return str(found["id"])  # whether it is ours will show when it has ended
                if any(result.request_id in requests for result in await self.results((found["id"],), {})):
                    return str(found["id"])
            if not page.get("has_more"):
                return None
            query["after_id"] = page["last_id"]

    async def look(self, provider_id: str) -> State:
        found = json.loads(await self._call("GET", f"/{provider_id}"))
        done = sum(found["request_counts"].values()) - found["request_counts"]["processing"]
        return State("ended", done, (provider_id,)) if found["processing_status"] == "ended" else State("waiting", done)

    async def results(self, files: Sequence[str], requests: Mapping[str, Request]) -> list[Result]:
        contents = [await self._call("GET", f"/{file}/results") for file in files]
        return [self._result(line, requests) for content in contents for line in _json_lines(content)]

    def _result(self, line: Mapping[str, Any], requests: Mapping[str, Request]) -> Result:
        request_id, result = str(line.get("custom_id")), line.get("result") or {}
        if result.get("type") == "succeeded" and request_id in requests:
            try:
                return Result(request_id, self._response(requests[request_id], self._answer(requests[request_id], result["message"])))
            except Exception as broken:  # a body that litellm cannot read is this request's failure alone
                return Result(request_id, None, billed=True, message=redact(f"an answer that cannot be read: {broken}"))
        error = (result.get("error") or {}).get("error") or {}
        message = redact(f"{error.get('type', result.get('type'))}: {error.get('message', 'no answer')}")
        refused = error.get("type") in ("invalid_request_error", "request_too_large", "not_found_error")
        return Result(request_id, None, refused=refused, cancelled=result.get("type") == "canceled", message=message)

    def _answer(self, request: Request, message: dict[str, Any]) -> Any:
        import httpx

        litellm = _litellm()
        empty = litellm.ModelResponse(choices=[litellm.Choices(message=litellm.Message(content=""))])
        return self._chat.transform_parsed_response(
            completion_response=message,
            raw_response=httpx.Response(200, json=message),
            model_response=empty,
            json_mode=self._translate(request)[2],
        )

    async def _call(
        self,
        method: str,
        path: str = "",
        *,
        query: Mapping[str, str] | None = None,
        data: bytes | None = None,
        betas: frozenset[str] = frozenset(),
    ) -> bytes:
        from litellm.llms.anthropic.batches import AnthropicBatchesConfig
        from litellm.llms.custom_httpx.http_handler import HTTPHandler

        def call() -> bytes:
            config: Any = AnthropicBatchesConfig()
            headers = config.validate_environment(
                headers={"anthropic-beta": ",".join(sorted(betas))} if betas else {}, model=self._name, messages=[],
                optional_params={}, litellm_params={}, api_key=self.connection.get("api_key"), api_base=self.api_base,
            )  # fmt: skip
            url = config.get_complete_batch_url(self.api_base, None, self._name, {}, {}, {})
            handler = HTTPHandler(timeout=_TIMEOUT_S)
            try:
                # the bare client: litellm's own post() sends again after a lost connection, and a batch must not be made twice
                answer = handler.client.request(method, url + path, params=query, content=data, headers=headers)
                answer.raise_for_status()
                return answer.content
            finally:
                handler.close()

        with _provider_errors(self.provider):
            return await asyncio.to_thread(call)


def _json_lines(content: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of results. A line that is none is skipped: its request counts as not answered."""
    for text in content.decode("utf-8", "replace").split("\n"):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line


@contextmanager
def _provider_errors(provider: str) -> Iterator[None]:
    """What the HTTP libraries raise, as BatchApiError. Anything else is a bug and passes."""
    try:
        yield
    except Exception as error:
        libraries = {cls.__module__.split(".")[0] for cls in type(error).__mro__}
        if not libraries & {"openai", "httpx", "httpcore", "aiohttp", "litellm"} and not isinstance(error, (OSError, TimeoutError)):
            raise
        answer = getattr(error, "response", None)
        status = getattr(error, "status_code", None) or getattr(answer, "status_code", None)
        text = getattr(answer, "text", "") if "httpx" in libraries else str(error)
        kind: Kind = "refused"
        if status is None or status == 408 or status >= 500:
            kind = "unsure"
        elif status in (401, 403, 404, 429):
            kind = {401: "key", 403: "key", 404: "missing", 429: "busy"}[status]  # type: ignore[assignment]
        said = redact(" ".join((text or str(error) or type(error).__name__).split()))[:300]
        raise BatchApiError(kind, f"{provider}'s batch API: {said}") from error


def now() -> datetime:
    """The time in UTC, as batches are stamped."""
    return datetime.now(UTC)
