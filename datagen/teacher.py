"""Request to Response: the only door to a model. litellm speaks to the provider, tenacity retries what may pass.

Prices come from litellm's bundled map (never fetched) or from the recipe; a model with neither is refused, because a run
whose cost nobody can tell is not run.
"""

import asyncio
import atexit
import gc
import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tenacity

from datagen import offline
from datagen.config import ModelConfig
from datagen.errors import ConfigError, TeacherError
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
_MAX_WAIT_S = 60.0
POISONED = ("1.82.7", "1.82.8")  # releases of litellm that sent keys away; removed from the index, yet still in caches and mirrors


class FatalTeacherError(TeacherError):
    """Every call would fail alike: a wrong key, an unknown model."""


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
    import litellm

    litellm.telemetry = False

    litellm.suppress_debug_info = True
    litellm.drop_params = True
    gc.collect()
    atexit.register(gc.unfreeze)  # or DuckDB's bindings complain of leaks at exit
    gc.freeze()  # litellm leaves 3,000 modules of objects; scanning them was measured at 7 % of each call
    gc.set_threshold(50_000, 20, 100)
    return litellm


class Teacher:
    """The models of a recipe's roles behind one call. Use within one event loop."""

    def __init__(
        self, roles: Mapping[str, ModelConfig], *, concurrency: int, retries: int, on_failure: OnFailure, side_file: Path | None = None
    ) -> None:
        self._roles = roles
        self._retries = retries
        self._on_failure = on_failure
        self._gate = asyncio.Semaphore(concurrency)
        self.prices = {role: self._price(role, config) for role, config in roles.items()}
        self._side_file = side_file
        self._offline_ready = False

    def _price(self, role: str, config: ModelConfig) -> tuple[float, float, float]:
        """US dollars per input, cached input and output token."""
        where = f"teachers.{role}"
        if config.model.startswith(OFFLINE):
            if config.model.removeprefix(OFFLINE) not in offline.MODELS:
                known = ", ".join(OFFLINE + name for name in offline.MODELS)
                raise ConfigError(f"{where}.model is {config.model!r}: there is no such offline teacher; there are {known}.")
            return 0.0, 0.0, 0.0
        try:
            _, provider, _, _ = _litellm().get_llm_provider(config.model, api_base=config.params.get("api_base"))
        except Exception as error:  # litellm raises its BadRequestError for a provider it does not know
            raise ConfigError(
                f"{where}.model is {config.model!r}: no provider of that name is known. Write provider/model, for example openai/gpt-4o."
            ) from error
        missing = _litellm().validate_environment(config.model)["missing_keys"]
        if missing and "api_key" not in config.params and "api_base" not in config.params:
            raise ConfigError(
                f"{where}.model is {config.model!r}: {provider} needs {' and '.join(missing)} in the environment. Set it and run again."
            )
        if config.price is not None:
            return config.price.input_per_million / 1e6, config.price.input_per_million / 1e6, config.price.output_per_million / 1e6
        try:
            info = _litellm().get_model_info(config.model)
        except Exception as error:
            raise ConfigError(
                f"{where}.model is {config.model!r}, whose price is not known. "
                f"Set {where}.price: {{input_per_million: ..., output_per_million: ...}} (0 for a server of your own)."
            ) from error
        inputs, outputs = float(info.get("input_cost_per_token") or 0), float(info.get("output_cost_per_token") or 0)
        return inputs, float(info.get("cache_read_input_token_cost") or inputs), outputs

    def worst_case_usd(self, request: Request) -> float:
        """The most that one try of a call can cost: a token per 2 characters of prompt, and all of max_tokens."""
        inputs, _, outputs = self.prices[request.role]
        characters = sum(len(message.content) for message in request.messages)
        return inputs * (characters / 2 + 16) + outputs * self._roles[request.role].max_tokens

    async def complete(self, request: Request) -> Response:
        """The model's answer, after retries of what may pass.

        Raises FatalTeacherError for what every call would meet, TeacherError for this call's end.
        """
        attempts = 0
        started = time.monotonic()
        async for attempt in tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._retries),
            wait=_wait,
            retry=tenacity.retry_if_exception(lambda error: _kind(error) == "passing"),
            retry_error_callback=_give_up,
        ):
            with attempt:
                attempts += 1
                try:
                    async with self._gate:
                        started = time.monotonic()
                        answer = await self._call(request)
                except Exception as error:
                    kind = _kind(error)
                    if kind == "bug":
                        raise
                    self._on_failure(request, type(error).__name__, redact(str(error)))
                    if kind == "fatal":
                        raise FatalTeacherError(f"{request.model}: {_first_line(error)}") from error
                    if kind == "final" or attempts == self._retries:
                        raise TeacherError(f"{type(error).__name__} after {attempts} tries: {_first_line(error)}") from error
                    raise
        return self._response(request, answer, time.monotonic() - started, attempts)

    async def _call(self, request: Request) -> Any:
        config, litellm = self._roles[request.role], _litellm()
        if request.model.startswith(OFFLINE) and not self._offline_ready:
            offline.register(self._side_file)
            self._offline_ready = True
        return await litellm.acompletion(
            model=request.model,
            messages=[message.model_dump() for message in request.messages],
            timeout=config.timeout_s,
            metadata={"request_id": request.id},
            num_retries=0,
            max_retries=0,
            **{**request.params, **config.secret_params()},
        )

    def _response(self, request: Request, answer: Any, latency_s: float, attempts: int) -> Response:
        choice, usage = answer.choices[0], answer.usage
        details = getattr(usage, "prompt_tokens_details", None)
        cached = int(getattr(details, "cached_tokens", None) or 0) if details is not None else 0
        inputs, cached_price, outputs = self.prices[request.role]
        prompt_tokens, completion_tokens = int(usage.prompt_tokens or 0), int(usage.completion_tokens or 0)
        return Response(
            request_id=request.id,
            text=choice.message.content or "",
            reasoning=getattr(choice.message, "reasoning_content", None),
            finish_reason=str(choice.finish_reason or "stop"),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cached_tokens=cached,
            cost_usd=inputs * (prompt_tokens - cached) + cached_price * cached + outputs * completion_tokens,
            latency_s=round(latency_s, 4),
            attempts=attempts,
        )


def _kind(error: BaseException) -> str:
    """passing (a retry may help), final (this call never will), fatal (no call will), bug (not the provider's)."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & set(_FATAL):
        return "fatal"
    if names & set(_FINAL):
        return "final"
    if "OpenAIError" in names or isinstance(error, (TimeoutError, ConnectionError)):
        return "passing"
    return "bug"


def _wait(state: tenacity.RetryCallState) -> float:
    """Seconds before the next try: what Retry-After says, or exponential with jitter."""
    error = state.outcome.exception() if state.outcome else None
    # litellm puts an empty response into its RateLimitError and the provider's headers beside it
    headers = getattr(error, "litellm_response_headers", None) or getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        asked = float(headers.get("retry-after", ""))
    except ValueError:
        asked = 0.0
    return min(_MAX_WAIT_S, max(asked, tenacity.wait_exponential_jitter(multiplier=0.2, max=20)(state)))


def _give_up(state: tenacity.RetryCallState) -> None:
    if state.outcome:
        state.outcome.result()  # raises the last error as it was


def _first_line(error: BaseException) -> str:
    return redact(str(error).strip().splitlines()[0])[:300] if str(error).strip() else type(error).__name__
