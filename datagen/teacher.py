"""Request to Response: the only door to a model. Two lanes behind it, litellm for every provider and a direct one for endpoints
that speak OpenAI's protocol; pace.py says when a try may be sent, tenacity retries what may pass.

Prices come from litellm's bundled map (never fetched) or from the recipe; a model with neither is refused, because a run
whose cost nobody can tell is not run.
"""

import asyncio
import atexit
import base64
import gc
import math
import os
import sys
import time
import warnings
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import tenacity

from datagen import direct, offline, prices, wire_schema
from datagen.config import ModelConfig
from datagen.direct import CallFailed, DirectLane, Reply
from datagen.errors import ConfigError, TeacherError
from datagen.ledger import most_answers, most_tokens
from datagen.pace import Breaker, Pace, Pool, Size, Used, retry_after_s
from datagen.records import Request, Response
from datagen.secrets import redact

OFFLINE = "offline/"
OnFailure = Callable[[Request, str, str], None]
# Errors by litellm's class names that end an item at once; of these, those in _FATAL end the run: every call would meet them.
_FINAL = (
    "BadRequestError",
    "ContextWindowExceededError",
    "ContentPolicyViolationError",
    "UnprocessableEntityError",
    "UnsupportedParamsError",
)
_FATAL = ("AuthenticationError", "NotFoundError", "PermissionDeniedError", "BudgetExceededError")
_OVERLOADED = ("RateLimitError", "ServiceUnavailableError", "Timeout")
_UNREACHABLE = ("ClientConnectorError", "ConnectError", "ConnectionRefusedError")
_WHERE = "Check the endpoint in the recipe (api_base; most end with /v1)"
_ADVICE = {
    "AuthenticationError": "Check the key in the environment and run again.",
    "PermissionDeniedError": "Check what the key may do and run again.",
    "NotFoundError": f"{_WHERE} and the model's name, and run again.",
    "APIConnectionError": f"{_WHERE}, and that the server runs, and run again.",
    "InvalidResponse": f"{_WHERE} and run again.",
    "InsufficientBalance": "Put money on the account and run again.",
    "RateLimitError": "Put money on the account, or raise its quota, and run again.",
}
_MAX_WAIT_S = 60.0
_PATIENCE = 10  # tries that wait out a rate limit, for each one that the recipe's `retries` allows
_BACKOFF = tenacity.wait_exponential_jitter(multiplier=0.2, max=20)
# Anthropic caches no shorter prompt (docs.claude.com, prompt caching); where the price map names a longer least, that counts
_CACHED_FROM_TOKENS = 1024
POISONED = ("1.82.7", "1.82.8")  # releases of litellm that sent keys away; removed from the index, yet still in caches and mirrors


class FatalTeacherError(TeacherError):
    """Every call would fail alike: a wrong key, an unknown model, or too many failures to go on."""


def refuse_poisoned(installed: str) -> None:
    """Raise TeacherError for a release of litellm that is known to steal keys."""
    if installed in POISONED:
        raise TeacherError(
            f"litellm {installed} is a compromised release that steals keys. Remove the environment (`make clean`), install again with "
            "`make setup`, and change every key that this machine has held."
        )


@cache
def _litellm() -> Any:
    """litellm, imported on first use (it takes seconds; a rerun that asks nothing does without), kept from fetching its
    price map, from reporting its use and from printing advice. Raises TeacherError for a poisoned release, before it is imported."""
    refuse_poisoned(version("litellm"))
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ.setdefault("LITELLM_LOG", "ERROR")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # OpenAI's models by the HTTP handler that litellm has for most providers: a quarter less work a call than by OpenAI's own client
    os.environ.setdefault("EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER", "True")
    import litellm

    # it makes the call's coroutine in a thread: where the call is cancelled meanwhile, nobody awaits it
    warnings.filterwarnings("ignore", message=r"coroutine '.*completion' was never awaited", category=RuntimeWarning)
    litellm.telemetry = False

    litellm.suppress_debug_info = True
    litellm.drop_params = True
    _spare_the_collector()
    return litellm


def _spare_the_collector() -> None:
    """Leave what is loaded out of garbage collection, and collect seldom: scanning litellm's 3,000 modules of objects was measured
    at 7 % of each call, and the scans of a long run's answers at 5 % of each row."""
    gc.collect()
    atexit.register(gc.unfreeze)  # or DuckDB's bindings complain of leaks at exit
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class Lane(Protocol):
    """One try of a call, by whichever way."""

    async def call(self, request: Request, base: str, extra: Mapping[str, Any]) -> Reply:
        """The reply of the endpoint at `base`. Raises CallFailed."""


class _Line(NamedTuple):
    """How one role's model is reached. Roles with the same model at the same endpoints share pool and breaker."""

    config: ModelConfig
    lane: Lane
    pool: Pool
    breaker: Breaker
    prices: prices.TokenPrices
    schema: wire_schema.How
    objects_only: bool


class Asked(NamedTuple):
    """A request in litellm's words: its messages, and the parameters beside them."""

    messages: list[dict[str, Any]]
    params: dict[str, Any]


class Teacher:
    """The models of a recipe's roles behind one call. Use within one event loop.

    concurrency  the most calls in flight to one endpoint
    retries      tries per call on errors that may pass; waiting for a rate limit takes none of them
    on_failure   told of every try that brought no answer: request, the error's name, its message
    share        of every rate that is learned, for one of several processes that ask the same endpoints
    """

    def __init__(
        self,
        roles: Mapping[str, ModelConfig],
        *,
        concurrency: int,
        retries: int,
        on_failure: OnFailure,
        side_file: Path | None = None,
        share: float = 1.0,
    ) -> None:
        self._retries = retries
        self._on_failure = on_failure
        shared: dict[tuple[str, tuple[str, ...]], tuple[Pool, Breaker]] = {}
        self._lines: dict[str, _Line] = {}
        for role, config in roles.items():
            where = f"teachers.{role}"
            embeds = role == "embedding"
            direct_lane = not embeds and config.lane == "auto" and direct.speaks(config.model, config.params)
            bases = direct.endpoints(config.model, config, where) if direct_lane else _litellm_endpoints(config, where)
            key = config.model, bases
            if key not in shared:
                limits = config.limits.by_name()
                paces = [Pace(ceiling=concurrency, limits={n: r * share for n, r in limits.items()}, share=share, url=b) for b in bases]
                shared[key] = Pool(paces), Breaker()
            self._lines[role] = _Line(
                config,
                DirectLane(config.model, config) if direct_lane else (_EmbeddingLane if embeds else _LitellmLane)(config, side_file),
                *shared[key],
                _prices(config, where, direct_lane),
                _how(config, direct_lane),
                objects_only=config.model.partition("/")[0] not in ("hosted_vllm", "lm_studio"),
            )
        if not gc.get_freeze_count():
            _spare_the_collector()
        self.prices = {role: (line.prices.input, line.prices.cached, line.prices.output) for role, line in self._lines.items()}

    def worst_case_usd(self, request: Request) -> float:
        """The most that one try of a call can cost: a token per byte of prompt, and all of max_tokens."""
        line = self._lines[request.role]
        answers = most_answers(request, max(line.config.max_tokens, _max_tokens(request, line.config)))
        return max(line.prices.input, line.prices.written) * most_tokens(request) + line.prices.output * answers

    async def complete(self, request: Request) -> Response:
        """The model's answer, after retries of what may pass.

        Raises FatalTeacherError for what every call would meet, TeacherError for this call's end.
        """
        line = self._lines[request.role]
        size = Size(sum(len(message.content) for message in request.messages), _max_tokens(request, line.config))
        extra = wire_schema.parameters(request.response_schema, line.schema, objects_only=line.objects_only)
        tries = _Tries(self._retries)
        try:
            return await self._try(request, line, size, extra, tries)
        except CallFailed as error:
            failures = [error]
        # tenacity's machinery costs more than the rest of a call, so it is set up only where a first try has failed
        async for attempt in tenacity.AsyncRetrying(
            stop=tries.are_over, wait=_wait, retry=tenacity.retry_if_exception_type(CallFailed), reraise=True
        ):
            with attempt:
                if failures:
                    raise failures.pop()
                return await self._try(request, line, size, extra, tries)
        raise AssertionError("the last try returns or raises")

    async def _try(self, request: Request, line: _Line, size: Size, extra: Mapping[str, Any], tries: "_Tries") -> Response:
        """One try. Raises CallFailed where another one is due, and what ends the call or the run."""
        place = await line.pool.enter(size)
        loop = asyncio.get_running_loop()
        pace = place.pace
        try:
            self._stop_if_hopeless(request, line)  # it may have tripped while this call waited for its place
            reply = await line.lane.call(request, pace.url, extra)
            now = loop.time()
            pace.learn(now, reply.headers)
            pace.settle(now, size, place.estimate, Used(reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens))
        except CallFailed as error:
            now, asked = loop.time(), retry_after_s(error.headers, time.time)
            pace.learn(now, error.headers)
            if error.overloaded:
                pace.overloaded(now, place.sent_at, asked)
            if error.unreachable:
                pace.unreachable(now, place.sent_at)
            elsewhere = error.unreachable and any(other.healthy for other in line.pool.paces)
            tries.note(waited=elsewhere or error.name == "RateLimitError")
            # the pool holds all back until Retry-After, and leads past an endpoint that is not there
            error.wait_s = 0.0 if elsewhere or (error.overloaded and asked is not None) else asked
            self._failed(request, line, error, tries, pace.url)
            raise
        finally:
            line.pool.leave(place)
        line.breaker.note()
        return self._response(request, line, reply, size, now - place.sent_at, tries.total + 1)

    def asked(self, request: Request) -> Asked:
        """What a live call of the request asks, for who asks it otherwise."""
        line = self._lines[request.role]
        extra = wire_schema.parameters(request.response_schema, line.schema, objects_only=line.objects_only)
        return Asked(_marked_messages(request, _cached_from_tokens(line.config)), {**request.params, **extra})

    def _failed(self, request: Request, line: _Line, error: CallFailed, tries: "_Tries", url: str) -> None:
        """Report a failed try; raise what ends the call or the run. Returns where another try is due."""
        message = redact(error.message)
        self._on_failure(request, error.name, message)
        if error.kind == "fatal":
            raise FatalTeacherError(_told(request, url, error.name, message)) from error
        if error.kind == "passing" and not tries.are_over(None):
            return
        told = f"{error.name} after {tries.total} tries: {_first_line(message)}"
        if (error.unreachable or error.stranger) and not any(pace.answered for pace in line.pool.paces):
            raise FatalTeacherError(_told(request, "" if error.unreachable else url, told, "")) from error
        line.breaker.note(error.name, _first_line(message))
        self._stop_if_hopeless(request, line)
        raise TeacherError(told) from error

    def _stop_if_hopeless(self, request: Request, line: _Line) -> None:
        verdict = line.breaker.verdict
        if verdict is not None:
            raise FatalTeacherError(
                f"{request.model}: stopped, because the run cannot succeed like this: {verdict}. "
                "What was answered is kept; mend the cause and run again."
            )

    def _response(self, request: Request, line: _Line, reply: Reply, size: Size, latency_s: float, attempts: int) -> Response:
        prompt_tokens, completion_tokens = reply.prompt_tokens, reply.completion_tokens
        if not reply.usage_known:  # a server that does not say what it billed: better an estimate than nothing
            prompt_tokens, completion_tokens = math.ceil(size.characters / 4), math.ceil(len(reply.text) / 4)
        return Response(
            request_id=request.id,
            text=reply.text,
            reasoning=reply.reasoning,
            finish_reason=reply.finish_reason,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cached_tokens=reply.cached_tokens,
            cost_usd=line.prices.cost_usd(prompt_tokens, reply.cached_tokens, reply.written_tokens, completion_tokens),
            latency_s=round(latency_s, 4),
            attempts=attempts,
        )


class _Tries:
    """How often a call was tried: counted against the recipe's `retries`, or waited out (a rate limit, an endpoint that is gone)."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self.counted = self.waited = 0

    @property
    def total(self) -> int:
        return self.counted + self.waited

    def note(self, *, waited: bool) -> None:
        self.waited += waited
        self.counted += not waited

    def are_over(self, _: object) -> bool:
        """Whether no more are allowed; tenacity's stop condition."""
        return self.counted >= self._retries or self.waited >= self._retries * _PATIENCE


class _LitellmLane:
    """One model by litellm, which knows every provider's protocol."""

    def __init__(self, config: ModelConfig, side_file: Path | None) -> None:
        self._config = config
        self._side_file = side_file
        self._ready = False
        self._cached_from = _cached_from_tokens(config)

    async def call(self, request: Request, base: str, extra: Mapping[str, Any]) -> Reply:
        """One try. Raises CallFailed."""
        litellm = _litellm()
        if not self._ready:
            self._introduce(litellm)
            self._ready = True
        named: dict[str, Any] = {"api_base": base} if base else {}
        if "tools" in extra or "tools" in request.params:
            named["_skip_mcp_handler"] = True  # or litellm 1.106.2 looks for a package that it does not require
        with _told_as_failures():
            answer = await litellm.acompletion(
                model=request.model,
                messages=_marked_messages(request, self._cached_from),
                timeout=self._config.timeout_s,
                metadata={"request_id": request.id},
                num_retries=0,
                max_retries=0,
                **{**request.params, **self._config.secret_params(), **named, **extra},
            )
        return _reply(answer)

    def _introduce(self, litellm: Any) -> None:
        """Tell litellm of a model that it does not know; for one, it goes through its whole table ten times in each call."""
        if self._config.model.startswith(OFFLINE):
            offline.register(self._side_file)
        elif self._config.price is not None and prices.entry(self._config.model) is None:
            price = self._config.price
            cost = {"input_cost_per_token": price.input_per_million / 1e6, "output_cost_per_token": price.output_per_million / 1e6}
            provider, _, name = self._config.model.partition("/")
            entry = {**cost, "litellm_provider": provider, "mode": "chat"}
            litellm.register_model({model: entry for model in (self._config.model, name) if prices.entry(model) is None})


class _EmbeddingLane(_LitellmLane):
    """Vectors of texts by litellm. The reply's text is base64 of their 32-bit numbers, little-endian, in the order of the messages."""

    async def call(self, request: Request, base: str, extra: Mapping[str, Any]) -> Reply:
        """One try. Raises CallFailed."""
        named: dict[str, Any] = {"api_base": base} if base else {}
        with _told_as_failures():
            answer = await _litellm().aembedding(
                model=request.model,
                input=[message.content for message in request.messages],
                timeout=self._config.timeout_s,
                encoding_format="float",
                num_retries=0,
                max_retries=0,
                **{**request.params, **self._config.secret_params(), **named},
            )
        rows = sorted(answer.data, key=lambda row: row["index"])
        numbers = array("f", [number for row in rows for number in row["embedding"]])
        if sys.byteorder == "big":
            numbers.byteswap()
        used = answer.usage
        return Reply(
            text=base64.b64encode(numbers.tobytes()).decode(), reasoning=None, finish_reason="stop",
            prompt_tokens=used.prompt_tokens if used else 0, completion_tokens=0, cached_tokens=0, written_tokens=0,
            usage_known=bool(used and used.prompt_tokens), headers={},
        )  # fmt: skip


def _marked_messages(request: Request, cached_from: int | None) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [message.model_dump() for message in request.messages]
    first = messages[0]
    if cached_from is not None and first["role"] == "system" and len(first["content"]) / 4 >= cached_from:
        # Anthropic caches what it is asked to; written once at 1.25 times the price, read at a tenth of it
        first["content"] = [{"type": "text", "text": first["content"], "cache_control": {"type": "ephemeral"}}]
    return messages


def _reply(answer: Any) -> Reply:
    usage = getattr(answer, "usage", None)
    details = getattr(usage, "prompt_tokens_details", None)
    written = getattr(details, "cache_creation_tokens", None) or getattr(usage, "cache_creation_input_tokens", None)
    headers = (getattr(answer, "_hidden_params", None) or {}).get("additional_headers") or {}
    text, reasoning, finish = "", None, "unreadable"
    if answer.choices:
        choice = answer.choices[0]
        calls = getattr(choice.message, "tool_calls", None)
        text = choice.message.content or (str(calls[0].function.arguments) if calls else "")
        reasoning = getattr(choice.message, "reasoning_content", None)
        finish = "stop" if calls and choice.finish_reason == "tool_calls" else str(choice.finish_reason or "stop")
    return Reply(
        text=text,
        reasoning=reasoning,
        finish_reason=finish,
        prompt_tokens=int(getattr(usage, "prompt_tokens", None) or 0),
        completion_tokens=int(getattr(usage, "completion_tokens", None) or 0),
        cached_tokens=int(getattr(details, "cached_tokens", None) or 0),
        written_tokens=int(written or 0),
        usage_known=usage is not None,
        headers={name.removeprefix("llm_provider-"): value for name, value in headers.items()},
    )


@contextmanager
def _told_as_failures() -> Iterator[None]:
    """A provider's error becomes CallFailed; any other is a bug and stays what it is."""
    try:
        yield
    except Exception as error:
        failed = _translated(error)
        if failed is None:
            raise
        raise failed from error


def _translated(error: Exception) -> CallFailed | None:
    """A provider's error as litellm raises it; None for what is no provider's."""
    name, names = type(error).__name__, {cls.__name__ for cls in type(error).__mro__}
    # litellm puts an empty response into its RateLimitError and the provider's headers beside it
    headers = getattr(error, "litellm_response_headers", None) or getattr(getattr(error, "response", None), "headers", None)
    message = str(error).removeprefix(f"litellm.{name}: ")
    # OpenAI says 429 to an account without money: waiting does not help
    if names & set(_FATAL) or (name == "RateLimitError" and "insufficient_quota" in str(error)):
        return CallFailed("fatal", name, message, headers=headers)
    if names & set(_FINAL):
        return CallFailed("final", name, message, headers=headers)
    if "OpenAIError" not in names and not isinstance(error, (TimeoutError, ConnectionError)):
        return None
    return CallFailed(
        "passing", name, message, overloaded=bool(names & set(_OVERLOADED)), unreachable=_nobody_there(error), headers=headers
    )


def _nobody_there(error: BaseException | None) -> bool:
    while error is not None:
        if {cls.__name__ for cls in type(error).__mro__} & set(_UNREACHABLE):
            return True
        error = error.__cause__ or error.__context__
    return False


def _litellm_endpoints(config: ModelConfig, where: str) -> tuple[str, ...]:
    """Where litellm asks a model; "" where it knows by itself. Raises ConfigError for an unknown provider and a missing key."""
    if config.model.startswith(OFFLINE):
        if config.model.removeprefix(OFFLINE) not in offline.MODELS:
            known = ", ".join(OFFLINE + name for name in offline.MODELS)
            raise ConfigError(f"{where}.model is {config.model!r}: there is no such offline teacher; there are {known}.")
        return ("",)
    given = config.endpoints
    direct.require_urls(given, where)
    try:
        _, provider, _, _ = _litellm().get_llm_provider(config.model, api_base=given[0] if given else None)
    except Exception as error:  # litellm raises its BadRequestError for a provider it does not know
        raise ConfigError(
            f"{where}.model is {config.model!r}: no provider of that name is known. Write provider/model, for example openai/gpt-4o."
        ) from error
    missing = _litellm().validate_environment(config.model)["missing_keys"]
    if missing and "api_key" not in config.params and not given:
        raise ConfigError(
            f"{where}.model is {config.model!r}: {provider} needs {' and '.join(missing)} in the environment. Set it and run again."
        )
    return given or ("",)


def _prices(config: ModelConfig, where: str, direct_lane: bool) -> prices.TokenPrices:
    if config.model.startswith(OFFLINE):
        return prices.TokenPrices(0.0, 0.0, 0.0, 0.0)
    if config.price is not None:
        inputs, outputs = config.price.input_per_million / 1e6, config.price.output_per_million / 1e6
        return prices.TokenPrices(inputs, inputs, inputs, outputs)
    info = prices.entry(config.model) if direct_lane else None
    try:
        return prices.token_prices(info or _litellm().get_model_info(config.model))
    except Exception as error:
        raise ConfigError(
            f"{where}.model is {config.model!r}, whose price is not known. "
            f"Set {where}.price: {{input_per_million: ..., output_per_million: ...}} (0 for a server of your own)."
        ) from error


def _how(config: ModelConfig, direct_lane: bool) -> wire_schema.How:
    """How the schema of an answer is sent to a model: as the recipe says, or as the provider can."""
    if config.structured != "auto":
        return config.structured
    if config.model.startswith(OFFLINE):
        return "none"
    if direct_lane:
        return direct.PROVIDERS[config.model.partition("/")[0]].schema
    if _litellm().supports_response_schema(config.model):  # Anthropic's models among them: litellm makes a tool of it where it must
        return "json_schema"
    return "tool" if _litellm().supports_function_calling(config.model) else "none"


def _cached_from_tokens(config: ModelConfig) -> int | None:
    """From how many tokens on a system message is worth Anthropic's cache_control; None for models that know no such thing."""
    provider, _, name = config.model.partition("/")
    if provider != "anthropic" and not name.rpartition("/")[2].startswith("claude"):
        return None
    return max(_CACHED_FROM_TOKENS, int((prices.entry(config.model) or {}).get("prompt_cache_min_tokens") or 0))


def _max_tokens(request: Request, config: ModelConfig) -> int:
    said = request.params.get("max_completion_tokens") or request.params.get("max_tokens")
    return int(said or config.max_tokens)


def _wait(state: tenacity.RetryCallState) -> float:
    """Seconds before the next try: what the provider asked of this call alone, or exponential with jitter."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait_s if isinstance(error, CallFailed) else None
    if asked == 0.0:
        return 0.0
    return min(_MAX_WAIT_S, max(asked or 0.0, _BACKOFF(state)))


def _told(request: Request, url: str, name: str, message: str) -> str:
    """What ends a run: model, endpoint, what was said, and what to do."""
    kind = name.partition(" ")[0]
    at = f" at {direct.place(url)}" if url else ""
    said = ": ".join([name, *filter(None, [message and _first_line(message)])]).rstrip(".")
    return f"{request.model}{at}: {said}. {_ADVICE.get(kind, 'Mend the cause and run again.')}"


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0][:300] if message.strip() else "no message"
