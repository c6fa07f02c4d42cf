"""The routes over aiohttp: parse, promise an arm, queue, answer; and how the server starts and stops.

    run_server(find_target("runs/latest"), Settings(port=8000, log=Path("runs/serving.duckdb")), say=print)

The event loop never waits for torch: the engine's thread hands pieces over. Each answer is in the log before its last byte goes out. A
client that goes away ends its row. On Ctrl-C the port closes, what is in flight is answered (for DRAIN_S at most), the log is taken in.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

from train.errors import ConfigError, ServingError, TemplateError, TrainError
from train.serving import wire
from train.serving.engine import Arm, Engine, Job, Piece, Sampling
from train.serving.journal import Journal
from train.serving.split import Split, user_key
from train.serving.target import Target, rank_limit
from train.serving.wire import Refusal

DRAIN_S = 10.0
FLUSH_S = 2.0
BODY_BYTES = 4 << 20
KEY = "RETORT_API_KEY"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = logging.getLogger(__name__)


class Settings(NamedTuple):
    """How to serve. Without `ab`, the name `served` is the target's best adapter; `hashes_only` keeps texts out of the log."""

    log: Path
    host: str = "127.0.0.1"
    port: int = 8000
    served: str = "retort"
    ab: str | None = None
    batch_size: int = 32
    max_queue: int = 256
    max_lora_rank: int | None = None
    hashes_only: bool = False
    api_key: str | None = None


class Server:
    """The state of a running endpoint, and its routes."""

    def __init__(self, engine: Engine, journal: Journal, split: Split, settings: Settings) -> None:
        self.engine = engine
        self.journal = journal
        self.split = split
        self.settings = settings
        self.started = int(time.time())
        self.draining = False
        self.answered = 0

    def application(self) -> web.Application:
        """The routes with what surrounds each: key, errors in OpenAI's shape."""
        app = web.Application(client_max_size=BODY_BYTES)
        routes: dict[str, tuple[str, Handler]] = {
            "/health": ("GET", self.health),
            "/v1/models": ("GET", self.models),
            "/v1/models/{name:.+}": ("GET", self.one_model),
            "/v1/chat/completions": ("POST", self.chat),
            "/v1/load_lora_adapter": ("POST", self.load),
            "/v1/unload_lora_adapter": ("POST", self.unload),
            "/v1/feedback": ("POST", self.feedback),
        }
        for path, (method, handler) in routes.items():
            app.router.add_route(method, path, self._around(handler))
            app.router.add_route("*", path, self._around(self._not_that_way))
        app.router.add_route("*", "/{path:.*}", self._around(self._nowhere))
        return app

    def _around(self, handler: Handler) -> Handler:
        """A route with its key asked for and its errors in OpenAI's shape. Not a middleware: aiohttp would keep those until the process
        ends, and DuckDB then prints that it was not freed."""

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                if request.path != "/health":
                    self._check_key(request)
                return await handler(request)
            except Refusal as error:
                headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
                return web.json_response(error.body, status=error.status, headers=headers)
            except web.HTTPRequestEntityTooLarge:
                return web.json_response(Refusal(413, f"The body has more than {BODY_BYTES:,} bytes.").body, status=413)
            except (asyncio.CancelledError, ConnectionError):
                raise
            except Exception as error:
                log.exception("a request failed")
                refusal = Refusal(500, f"The server failed: {type(error).__name__}.", kind="server_error")
                return web.json_response(refusal.body, status=500)

        return answer

    async def _nowhere(self, request: web.Request) -> web.StreamResponse:
        raise Refusal(404, f"{request.method} {request.path}: there is no such path.")

    async def _not_that_way(self, request: web.Request) -> web.StreamResponse:
        raise Refusal(405, f"{request.method} {request.path}: another method is wanted.")

    def _check_key(self, request: web.Request) -> None:
        if self.settings.api_key is None:
            return
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        theirs, ours = (key.encode(errors="surrogateescape") for key in (given, self.settings.api_key))
        if not hmac.compare_digest(theirs, ours):
            said = "is not this server's" if given else "is missing: set Authorization: Bearer KEY"
            raise Refusal(401, f"The API key {said}.", kind="authentication_error", code="invalid_api_key")

    # -- what there is

    async def health(self, request: web.Request) -> web.Response:
        """200 while requests are taken, with what runs and waits."""
        good = self.engine.alive and not self.draining
        state = {
            "status": "ok" if good else "draining" if self.draining else "failed",
            "running": self.engine.running,
            "waiting": self.engine.waiting,
            "answered": self.answered,
        }
        return web.json_response(state, status=200 if good else 503)

    def _model(self, name: str) -> dict[str, Any] | None:
        listed = {"id": name, "object": "model", "created": self.started, "owned_by": "retort"}
        if name == self.split.name:
            return {**listed, "root": name, "parent": None, "arms": dict(self.split.weights)}
        arm = self.engine.arms.get(name)
        if arm is None:
            return None
        own = self.engine.target.own
        limit = self.engine.context
        return {**listed, "root": arm.path, "parent": None if name == own else own, "fingerprint": arm.fingerprint, "max_model_len": limit}

    @property
    def names(self) -> list[str]:
        """The model names that are known now."""
        return [self.split.name, *self.engine.arms]

    async def models(self, request: web.Request) -> web.Response:
        """GET /v1/models."""
        return web.json_response({"object": "list", "data": [self._model(name) for name in self.names]})

    async def one_model(self, request: web.Request) -> web.Response:
        """GET /v1/models/NAME."""
        found = self._model(request.match_info["name"])
        if found is None:
            raise self._unknown(request.match_info["name"])
        return web.json_response(found)

    def _unknown(self, name: str) -> Refusal:
        return Refusal(404, f"The model {name!r} does not exist. Known: {', '.join(self.names)}.", param="model", code="model_not_found")

    # -- answering

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions."""
        asked = wire.read(wire.ChatRequest, await _body(request))
        wire.check(asked)
        messages = wire.conversation(asked.messages)
        begin = time.monotonic()
        user = asked.user or request.headers.get("X-User")
        key = user_key(self.journal.salt, user) if user else None
        name = self.split.choose(key or secrets.token_bytes(16)) if asked.model == self.split.name else asked.model
        arm = self.engine.promise(name)
        if arm is None:
            raise self._unknown(asked.model)
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def emit(piece: Piece) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        try:
            self._check_room()
            ids = await asyncio.to_thread(self._encode, arm, messages)
            limit = self._limit(len(ids), asked.limit, arm)
            sampling = Sampling(asked.temperature or 0.0, 1.0 if asked.top_p is None else asked.top_p, asked.seed)
            job = Job(arm, ids, limit, emit, sampling=sampling, stops=asked.stops, stream=asked.stream)
        except BaseException:
            self.engine.release(arm)
            raise
        answer = _Answer(
            id=f"chatcmpl-{secrets.token_hex(12)}", created=datetime.now(UTC), begin=begin, served=asked.model, job=job,
            messages=messages, user=key.hex() if key else None,
        )  # fmt: skip
        self.engine.submit(job)
        try:
            if asked.stream:
                return await self._stream(request, answer, pieces, bool(asked.stream_options and asked.stream_options.include_usage))
            return await self._whole(answer, pieces)
        except (asyncio.CancelledError, ConnectionError):
            self.engine.cancel(job)
            if not answer.logged:
                with contextlib.suppress(Refusal):
                    self._log(answer, Piece("", "cancelled", 0))
            raise

    def _check_room(self) -> None:
        if self.draining:
            raise Refusal(503, "The server is stopping.", kind="server_error", code="shutting_down", retry_after=5)
        if not self.engine.alive:
            raise Refusal(503, "The engine has stopped. Start the server again.", kind="server_error")
        if self.engine.waiting >= self.settings.max_queue:
            seconds = self.engine.waiting * self.engine.seconds_per_answer / self.engine.batch_size
            raise Refusal(
                503, f"{self.engine.waiting} requests are waiting, which is all that this server queues. Try again later.",
                kind="server_error", code="overloaded", retry_after=max(1, min(60, round(seconds))),
            )  # fmt: skip

    def _encode(self, arm: Arm, messages: list[dict[str, str]]) -> list[int]:
        try:
            return self.engine.encode(arm, messages)
        except TemplateError as error:
            raise Refusal(400, f"messages: {error}", param="messages") from error

    def _limit(self, prompt: int, wanted: int | None, arm: Arm) -> int:
        """How many tokens may be generated. Raises Refusal where prompt and wish do not fit the context."""
        context = self.engine.context
        room = context - prompt
        if room < 1 or (wanted or 1) > room:
            asks = f", and {wanted} more are asked for" if wanted and room >= 1 else ""
            raise Refusal(
                400, f"messages: the prompt has {prompt} tokens{asks}; this model's maximum context length is {context} tokens.",
                param="messages", code="context_length_exceeded",
            )  # fmt: skip
        return wanted or min(room, arm.max_new_tokens)

    async def _whole(self, answer: "_Answer", pieces: "asyncio.Queue[Piece]") -> web.Response:
        last = await pieces.get()
        answer.text = last.text
        self._log(answer, last)
        counts = wire.usage(len(answer.job.ids), last.tokens)
        return web.json_response(wire.completion(answer.head, last.text, str(last.finish), counts), headers={"X-Request-Id": answer.id})

    async def _stream(
        self, request: web.Request, answer: "_Answer", pieces: "asyncio.Queue[Piece]", with_usage: bool
    ) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Request-Id": answer.id}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(wire.chunk(answer.head, {"role": "assistant", "content": ""}))
        while True:
            piece = await pieces.get()
            if piece.text:
                answer.said(piece.text)
                await response.write(wire.chunk(answer.head, {"content": piece.text}))
            if piece.finish is None:
                continue
            try:
                self._log(answer, piece)
            except Refusal as error:
                await response.write(wire.event(error.body))
                break
            await response.write(wire.chunk(answer.head, {}, piece.finish))
            if with_usage:
                await response.write(wire.chunk(answer.head, None, counts=wire.usage(len(answer.job.ids), piece.tokens)))
            await response.write(b"data: [DONE]\n\n")
            break
        await response.write_eof()
        return response

    def _log(self, answer: "_Answer", last: Piece) -> None:
        """Write the answer down. Raises Refusal where it failed, or cannot be written: what is not in the log is not answered."""
        answer.logged = True
        try:
            self.journal.write("answers", answer.row(last, hashes_only=self.settings.hashes_only))
        except OSError as error:
            log.error("the log of answers cannot be written: %s", error)
            raise Refusal(503, "The log of answers cannot be written, so nothing is answered.", kind="server_error") from error
        if last.finish == "error":
            raise Refusal(500, "The model failed on this batch. Try again.", kind="server_error")
        self.answered += last.finish != "cancelled"

    # -- adapters and feedback

    def _check_may_change(self, request: web.Request) -> None:
        if self.settings.api_key is None and self.settings.host not in LOOPBACK:
            raise Refusal(403, f"Adapters are changed from this machine alone, or with a key: set {KEY}.", kind="permission_error")

    async def load(self, request: web.Request) -> web.Response:
        """POST /v1/load_lora_adapter. What is in flight keeps the version that it was promised."""
        self._check_may_change(request)
        asked = wire.read(wire.LoadRequest, await _body(request))
        name = asked.lora_name
        if name in (self.split.name, self.engine.target.own):
            raise Refusal(
                400, f"lora_name: {name!r} is taken by {'the A/B test' if name == self.split.name else 'the base'}.", param="lora_name"
            )
        if name in self.engine.arms and not asked.load_inplace:
            raise Refusal(400, f"lora_name: {name!r} is loaded already. Set load_inplace to replace it.", param="lora_name")
        try:
            arm = await asyncio.shield(asyncio.wrap_future(self.engine.load(name, Path(asked.lora_path))))
        except TrainError as error:
            raise Refusal(400, f"lora_path: {error}", param="lora_path") from error
        return web.json_response({"status": "ok", "lora_name": name, "fingerprint": arm.fingerprint, "sha256": arm.sha256})

    async def unload(self, request: web.Request) -> web.Response:
        """POST /v1/unload_lora_adapter."""
        self._check_may_change(request)
        name = wire.read(wire.UnloadRequest, await _body(request)).lora_name
        if name in self.split.weights:
            raise Refusal(
                400, f"lora_name: {name!r} takes part in {self.split.name!r}. Replace it, or start without it.", param="lora_name"
            )
        if not self.engine.unload(name):
            raise self._unknown(name)
        return web.json_response({"status": "ok", "lora_name": name})

    async def feedback(self, request: web.Request) -> web.Response:
        """POST /v1/feedback. All is kept; the last score counts."""
        asked = wire.read(wire.FeedbackRequest, await _body(request))
        try:
            known = await asyncio.to_thread(self.journal.knows, asked.id)
        except ServingError as error:
            raise Refusal(503, str(error), kind="server_error", retry_after=5) from error
        if not known:
            raise Refusal(404, f"id: no answer {asked.id!r} was given here.", param="id", code="answer_not_found")
        row = {
            "id": f"feedback-{secrets.token_hex(12)}", "answer_id": asked.id, "created": _stamp(datetime.now(UTC)),
            "score": asked.value, "label": asked.label, "comment": asked.comment,
        }  # fmt: skip
        try:
            self.journal.write("feedback", row)
        except OSError as error:
            raise Refusal(503, "The log cannot be written.", kind="server_error") from error
        return web.json_response({"id": row["id"], "object": "feedback", "answer_id": asked.id, "score": asked.value})


class _Answer:
    """An answer on its way: what the log says of it, and the head of every chunk."""

    def __init__(
        self, *, id: str, created: datetime, begin: float, served: str, job: Job, messages: list[dict[str, str]], user: str | None
    ) -> None:
        self.id = id
        self.created = created
        self.begin = begin
        self.served = served
        self.job = job
        self.messages = messages
        self.user = user
        self.text = ""
        self.first_s: float | None = None
        self.logged = False

    @property
    def head(self) -> dict[str, Any]:
        """What every chunk has."""
        return {
            "id": self.id,
            "created": int(self.created.timestamp()),
            "model": self.job.arm.name,
            "system_fingerprint": self.job.arm.fingerprint,
        }

    def said(self, text: str) -> None:
        """A piece went out."""
        self.text += text
        if self.first_s is None:
            self.first_s = time.monotonic() - self.begin

    def row(self, last: Piece, *, hashes_only: bool) -> dict[str, Any]:
        """The line of the log. Prompts are those that were sent, without the system message that the arm adds."""
        now = time.monotonic() - self.begin
        prompt = json.dumps(self.messages, ensure_ascii=False)
        return {
            "id": self.id,
            "created": _stamp(self.created),
            "served": self.served,
            "arm": self.job.arm.name,
            "fingerprint": self.job.arm.fingerprint,
            "sha256": self.job.arm.sha256,
            "user": self.user,
            "prompt": None if hashes_only else self.messages,
            "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
            "answer": None if hashes_only else self.text,
            "answer_sha256": hashlib.sha256(self.text.encode()).hexdigest(),
            "finish": last.finish,
            "error": last.error or None,
            "prompt_tokens": len(self.job.ids),
            "completion_tokens": last.tokens,
            "queued_s": None if self.job.started is None else round(self.job.started - self.begin, 6),
            "first_s": round(now if self.first_s is None else self.first_s, 6),
            "latency_s": round(now, 6),
            "temperature": self.job.sampling.temperature,
            "stream": self.job.stream,
        }


def _stamp(when: datetime) -> str:
    return when.replace(tzinfo=None).isoformat()


async def _body(request: web.Request) -> bytes:
    """The body of a request that says it is JSON, which a web page of another origin cannot without asking."""
    if request.content_type != "application/json":
        raise Refusal(415, f"Content-Type is {request.content_type}; application/json is wanted.")
    return await request.read()


def run_server(target: Target, settings: Settings, *, say: Callable[[str], None], ready: Callable[["Running"], None] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM; return the number of answers.

    Before the model is loaded: the arms of an A/B test are checked, the port is taken, the log is opened. `ready` is told once the first
    request can come. Raises ConfigError, ModelError or ServingError.
    """
    names = [target.own, *target.adapters]
    split = Split.parse(settings.served, settings.ab) if settings.ab else Split(settings.served, {target.best: 1.0})
    for arm in split.weights:
        if arm not in names:
            raise ConfigError(f"--ab {settings.ab}: there is no {arm} to serve. Known: {', '.join(names)}.")
    if settings.served in names:
        raise ConfigError(f"--served-model-name {settings.served}: is the name of an arm already. Choose another.")
    limit = settings.max_lora_rank or rank_limit([adapter.rank for adapter in target.adapters.values()])
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(settings.host, settings.port))
        journal = Journal(settings.log)
        stack.callback(journal.close)
        engine = Engine(target, limit=limit, batch_size=settings.batch_size)
        stack.callback(engine.close)
        server = Server(engine, journal, split, settings)
        asyncio.run(_serve(server, listener, say, ready))
    return server.answered


class Running(NamedTuple):
    """A server that answers: its address, and how to stop it from another thread."""

    url: str
    stop: Callable[[], None]


async def _serve(server: Server, listener: socket.socket, say: Callable[[str], None], ready: Callable[[Running], None] | None) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop(number: int | None = None) -> None:
        server.draining = True
        stopped.set()
        if number is not None:
            loop.remove_signal_handler(number)  # a second Ctrl-C ends at once

    def halt() -> None:
        loop.call_soon_threadsafe(stop)

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(RuntimeError, ValueError):  # only the main thread takes signals
            loop.add_signal_handler(number, stop, number)
    runner = web.AppRunner(server.application(), handler_cancellation=True, shutdown_timeout=DRAIN_S, access_log=None, keepalive_timeout=75)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    say(f"Answering at {url} as {', '.join(server.names)}. Ctrl-C ends it.")
    if ready:
        ready(Running(url, halt))
    async with _flushing(server.journal):
        try:
            await stopped.wait()
            waiting = server.engine.running + server.engine.waiting
            say(f"Stopping: {waiting} answers are still being written." if waiting else "Stopping.")
        finally:
            server.draining = True
            await runner.cleanup()


@contextlib.asynccontextmanager
async def _flushing(journal: Journal) -> AsyncIterator[None]:
    async def often() -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await asyncio.to_thread(journal.flush)
            except (OSError, ServingError) as error:  # it stays in the log
                log.error("the log of answers waits: %s", error)

    task = asyncio.create_task(often())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is loaded. Raises ServingError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(512)
        except OSError:
            listener.close()
            raise
        return listener
    except (OSError, OverflowError) as error:
        words = "is in use" if getattr(error, "errno", None) == 98 else f"cannot be taken: {error}"
        raise ServingError(f"{host}:{port}: this port {words}. Choose another with --port, or stop what listens there.") from error
