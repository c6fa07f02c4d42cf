"""The direct lane: chat completions over aiohttp, for endpoints that speak OpenAI's protocol as it is.

It knows no provider's peculiarities. What needs translation (other protocols, reasoning models that rename parameters, parameters
of litellm's own) goes by litellm. Both lanes give a `Reply` or raise a `CallFailed`, whose names are litellm's.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Literal, NamedTuple
from urllib.request import getproxies
from weakref import WeakKeyDictionary

import aiohttp
import orjson
from yarl import URL

from datagen.config import ModelConfig
from datagen.errors import ConfigError
from datagen.records import Request

Kind = Literal["passing", "final", "fatal"]
COST_UNKNOWN = "its cost is unknown"


class Reply(NamedTuple):
    """What a lane brings back of a call that was answered. Cached and written tokens are part of prompt_tokens.

    usage_known  False where the provider did not say what it billed
    """

    text: str
    reasoning: str | None
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    written_tokens: int
    usage_known: bool
    headers: Mapping[str, str]


class CallFailed(Exception):
    """A try that brought no answer.

    kind         passing: another try may help; final: this call never will; fatal: no call will
    overloaded   the endpoint asked for fewer calls
    unreachable  nobody was there: no connection was made
    stranger     who answered is no chat API: a web page, or JSON of another kind
    """

    def __init__(
        self,
        kind: Kind,
        name: str,
        message: str,
        *,
        overloaded: bool = False,
        unreachable: bool = False,
        stranger: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.name, self.message = kind, name, message
        self.overloaded, self.unreachable, self.stranger = overloaded, unreachable, stranger
        self.headers = headers or {}
        self.wait_s: float | None = None  # what the provider asks to wait; 0 where the pool holds back already


class Provider(NamedTuple):
    """Where an OpenAI-compatible provider is and how it is told who asks, as litellm has it: the variables are its own.

    schema  how an answer's JSON schema is sent: as response_format, or as the parameters of a tool
    """

    base_variables: tuple[str, ...]
    base: str | None
    key_variables: tuple[str, ...]
    needs_key: bool
    schema: Literal["json_schema", "tool"] = "json_schema"


PROVIDERS = {
    "openai": Provider(("OPENAI_BASE_URL", "OPENAI_API_BASE"), "https://api.openai.com/v1", ("OPENAI_API_KEY",), True),
    "hosted_vllm": Provider(("HOSTED_VLLM_API_BASE",), None, ("HOSTED_VLLM_API_KEY",), False),
    "lm_studio": Provider(("LM_STUDIO_API_BASE",), None, ("LM_STUDIO_API_KEY",), False),
    # DeepSeek knows no json_schema format (api-docs.deepseek.com/guides/json_mode), but tools
    "deepseek": Provider(("DEEPSEEK_API_BASE",), "https://api.deepseek.com/beta", ("DEEPSEEK_API_KEY",), True, "tool"),
    "together_ai": Provider(
        ("TOGETHER_AI_API_BASE",),
        "https://api.together.ai/v1",
        ("TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_TOKEN"),
        True,
    ),
}
_CONNECTION = {"api_base", "api_key", "extra_headers", "extra_body"}
# Parameters that go over the wire as they are; a recipe with any other goes by litellm, which may have to translate it.
_BODY = {
    "temperature", "max_tokens", "top_p", "top_k", "min_p", "n", "seed", "stop", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "logit_bias", "response_format", "tools", "tool_choice", "chat_template_kwargs", "user",
}  # fmt: skip


def speaks(model: str, params: Mapping[str, Any]) -> bool:
    """Whether the direct lane can ask this model with these parameters."""
    provider, _, name = model.partition("/")
    if provider not in PROVIDERS or not name or set(params) - _CONNECTION - _BODY:
        return False
    # OpenAI's reasoning models rename max_tokens and refuse a temperature: litellm translates
    return not (provider == "openai" and name.startswith(("o1", "o3", "o4", "gpt-5")))


def endpoints(model: str, config: ModelConfig, where: str) -> tuple[str, ...]:
    """The base URLs of a model that the direct lane asks. Raises ConfigError naming what is missing or wrong."""
    provider = PROVIDERS[model.partition("/")[0]]
    given = config.endpoints
    bases = list(given) or [base for base in [_first_set(provider.base_variables) or provider.base] if base]
    if not bases:
        raise ConfigError(
            f"{where}.model is {model!r}: nobody says where it is. Set {where}.api_bases: [http://host:8000/v1], "
            f"or {provider.base_variables[0]} in the environment."
        )
    require_urls(bases, where)
    if provider.needs_key and not given and key_of(model, config) is None:
        raise ConfigError(
            f"{where}.model is {model!r}: {model.partition('/')[0]} needs {provider.key_variables[0]} in the environment. "
            "Set it and run again."
        )
    return tuple(str(base).rstrip("/") for base in bases)


def require_urls(bases: Iterable[object], where: str) -> None:
    """Raise ConfigError for an endpoint of a recipe that is no URL."""
    for base in bases:
        if not str(base).startswith(("http://", "https://")):
            raise ConfigError(f"{where}: the endpoint {base!r} is no URL. Write it with http:// or https://, as http://host:8000/v1.")


def key_of(model: str, config: ModelConfig) -> str | None:
    """The key that a model's endpoint is told, if there is one."""
    provider = PROVIDERS[model.partition("/")[0]]
    key = config.secret_params().get("api_key") or _first_set(provider.key_variables)
    return str(key).strip() if key else None  # a key read from a file often ends with a newline, which no header may hold


def _first_set(variables: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in variables if os.environ.get(name)), None)


class DirectLane:
    """One model over aiohttp. The session belongs to the event loop in which it was first needed, and closes with it."""

    def __init__(self, model: str, config: ModelConfig) -> None:
        params = {**config.params, **config.secret_params()}
        self._name = model.partition("/")[2]
        self._extra = dict(params.get("extra_body") or {})
        self._headers = {"Content-Type": "application/json", **(params.get("extra_headers") or {})}
        key = key_of(model, config)
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeout = aiohttp.ClientTimeout(total=config.timeout_s, sock_connect=min(10.0, config.timeout_s))
        self._urls: dict[str, URL] = {}  # parsed once for each endpoint
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None

    async def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            # an async generator that is still open is closed by asyncio.run at its end, and the session with it; one that nobody
            # holds any more when its lane is gone would be closed too late
            held = _session(self._headers, self._timeout)
            _held.setdefault(loop, []).append(held)
            self._loop, self._session = loop, await anext(held)
        return self._session

    async def call(self, request: Request, base: str, extra: Mapping[str, Any]) -> Reply:
        """One try. `extra` goes into the body beside the request's parameters. Raises CallFailed."""
        params = request.params
        body = {
            "model": self._name,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            **{name: value for name, value in params.items() if name not in _CONNECTION},
            **extra,
            **self._extra,
        }
        session = await self._open()
        url = self._urls.get(base) or self._urls.setdefault(base, URL(f"{base}/chat/completions"))
        status = 0
        try:
            async with session.post(
                url,
                data=_encode(body),
                allow_redirects=False,
            ) as response:
                status, headers = response.status, response.headers
                data = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise CallFailed("passing", "APIConnectionError", f"nobody answers at {place(base)}: {error}", unreachable=True) from error
        except TimeoutError as error:
            told = f"no answer from {place(base)} within {self._timeout.total:g} s; {COST_UNKNOWN}"
            raise CallFailed("passing", "Timeout", told, overloaded=True) from error
        except aiohttp.InvalidURL as error:
            raise CallFailed("fatal", "NotFoundError", f"{place(base)} is no URL that can be asked") from error
        except (aiohttp.ClientError, OSError) as error:
            where = "in its head" if status == 0 else "in its body"
            told = f"the connection to {place(base)} broke {where} ({type(error).__name__}: {error}); {COST_UNKNOWN}"
            raise CallFailed("passing", "ConnectionDropped", told) from error
        if status != 200:
            raise failure(status, headers, data, place(base))
        return read(data, headers)


_held: WeakKeyDictionary[asyncio.AbstractEventLoop, list[AsyncGenerator[aiohttp.ClientSession, None]]] = WeakKeyDictionary()


async def _session(headers: Mapping[str, str], timeout: aiohttp.ClientTimeout) -> AsyncGenerator[aiohttp.ClientSession, None]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),  # places are the Pace's business
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        timeout=timeout,
        trust_env=bool(getproxies()),
    ) as session:
        yield session


def place(base: str) -> str:
    """The endpoint for messages, without the user, password and query that a URL may carry."""
    scheme, mark, rest = base.partition("?")[0].rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


# Names are litellm's exceptions', so that failures read alike whichever lane they came by.
_BY_STATUS: dict[int, tuple[Kind, str]] = {
    400: ("final", "BadRequestError"),
    401: ("fatal", "AuthenticationError"),
    402: ("fatal", "InsufficientBalance"),
    403: ("fatal", "PermissionDeniedError"),
    404: ("fatal", "NotFoundError"),
    405: ("fatal", "NotFoundError"),  # the address is another service's
    408: ("passing", "Timeout"),
    409: ("passing", "ConflictError"),
    422: ("final", "UnprocessableEntityError"),
    425: ("passing", "ConflictError"),
    429: ("passing", "RateLimitError"),
    502: ("passing", "BadGatewayError"),
    503: ("passing", "ServiceUnavailableError"),
    504: ("passing", "Timeout"),
    529: ("passing", "ServiceUnavailableError"),
}
_BY_CODE: dict[str, tuple[Kind, str]] = {
    "insufficient_quota": ("fatal", "RateLimitError"),  # OpenAI says 429 to an account without money: waiting does not help
    "context_length_exceeded": ("final", "ContextWindowExceededError"),
    "content_filter": ("final", "ContentPolicyViolationError"),
    "content_policy_violation": ("final", "ContentPolicyViolationError"),
}


def failure(status: int, headers: Mapping[str, str], data: bytes, where: str) -> CallFailed:
    """What an answer other than 200 means."""
    kind, name = _BY_STATUS.get(status, ("passing", "InternalServerError") if status >= 500 else ("final", "BadRequestError"))
    message, code = _error_message(data)
    if 300 <= status < 400:
        # 301 and 308 are for good: every call would meet them
        kind, name = ("fatal", "NotFoundError") if status in (301, 308) else ("passing", "UnexpectedRedirect")
        message = f"{where} redirects to {place(headers.get('Location', 'nowhere'))}; name that endpoint in the recipe if it is right"
    elif status < 300:
        kind, name, message = "passing", "InvalidResponse", f"status {status} without an answer; {COST_UNKNOWN}"
    kind, name = _BY_CODE.get(code, (kind, name))
    overloaded = kind == "passing" and status in (429, 503, 504, 529)
    return CallFailed(kind, name, f"{status}: {message or 'no message'}", overloaded=overloaded, headers=headers)


def _error_message(data: bytes) -> tuple[str, str]:
    """The message and code in an error's body, in the shapes that servers give it."""
    try:
        body = json.loads(data)
    except ValueError:
        return _web_page(data) or data[:300].decode(errors="replace"), ""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return str(error)[:2000], ""
    return str(error.get("message") or error.get("detail") or error)[:2000], str(error.get("code") or "")


def _web_page(data: bytes) -> str:
    """What a web page is called, for a message; "" for what is none."""
    text = data[:4000].decode(errors="replace")
    if not re.match(r"\s*<(!doctype|html|head|body)", text, re.IGNORECASE):
        return ""
    title = re.search(r"<(title|h1)[^>]*>\s*(.*?)\s*</\1>", text, re.IGNORECASE | re.DOTALL)
    return f"a web page ({' '.join(title.group(2).split())[:80]!r})" if title else "a web page"


def read(data: bytes, headers: Mapping[str, str]) -> Reply:
    """The reply in a 200's body.

    One whose bill can be read but whose message cannot is a reply with the finish reason `unreadable` and no text, so that it
    is journaled and billed like any other. Raises CallFailed (InvalidResponse) for a body that says neither.
    """
    try:
        body = _decode(data)
    except ValueError as error:
        page = _web_page(data)
        told = f"status 200, but the body is {page or f'not JSON ({error})'}; {COST_UNKNOWN}"
        raise CallFailed("passing", "InvalidResponse", told, stranger=bool(page)) from error
    if not isinstance(body, dict):
        raise CallFailed("passing", "InvalidResponse", f"status 200, but the body is a JSON {type(body).__name__}; {COST_UNKNOWN}")
    usage = body.get("usage")
    usage_known = isinstance(usage, dict) and isinstance(usage.get("prompt_tokens"), int)
    try:
        choice = body["choices"][0]
        message = choice["message"]
        calls = message.get("tool_calls") or []
        text = message.get("content") or (calls[0]["function"]["arguments"] if calls else "")
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        finish = "stop" if calls and choice.get("finish_reason") == "tool_calls" else str(choice.get("finish_reason") or "stop")
        if not isinstance(text, str):
            raise TypeError("content is no text")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        if not usage_known:
            told = f"status 200, but there is no message in it ({_shorten(body)}); {COST_UNKNOWN}"
            raise CallFailed("passing", "InvalidResponse", told, stranger="choices" not in body) from error
        text, reasoning, finish = "", None, "unreadable"
    counts = usage if isinstance(usage, dict) and usage_known else {}
    details = counts.get("prompt_tokens_details") or {}
    return Reply(
        text=text,
        reasoning=reasoning if isinstance(reasoning, str) else None,
        finish_reason=finish,
        prompt_tokens=int(counts.get("prompt_tokens") or 0),
        completion_tokens=int(counts.get("completion_tokens") or 0),
        cached_tokens=int(details.get("cached_tokens") or counts.get("prompt_cache_hit_tokens") or 0),
        written_tokens=0,  # who speaks this protocol does not charge for writing to the cache
        usage_known=usage_known,
        headers=headers,
    )


def _encode(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:  # half of a surrogate pair, which is no UTF-8, or a number of more than 64 bits
        return json.dumps(body, ensure_ascii=False).encode(errors="replace")


def _decode(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:  # Python's reader takes more: half of a surrogate pair, NaN
        return json.loads(data)


def _shorten(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)[:120]
