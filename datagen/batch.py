"""A run through the providers' batch APIs: half the price, answers within a day.

The store is the checkpoint here too. A walk over the plan asks nobody: it gathers every request that can be asked now (`Deferred`),
these go out as batches, and the next walk finds their answers in the store and gathers what comes after them. A plan whose chains
have three links takes three rounds, and some more for answers that cannot be read. What a batch did not answer is asked live.

A batch is journaled with all that it asks before it is sent, and again when the provider has named it. One that was sent without
hearing of it (a crash, a lost connection) is looked for among the provider's batches before anything is sent again.
The most that it can cost is reserved in the store's ledger before it is sent, and given back when all that it cost is on disk.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from datagen.ask import Asker, CompletesRequests, Deferred, storable
from datagen.batch_api import BatchApi, BatchApiError, Line, State, address, batch_api, now
from datagen.config import Batching, ModelConfig
from datagen.errors import ConfigError, TeacherError
from datagen.generate import GenerateReport, generate
from datagen.ledger import money
from datagen.records import Batch, PlanItem, Request, Response, content_hash
from datagen.store import Store
from datagen.teacher import Teacher

# Kinds of failures in the store
REFUSED = "BatchRefused"  # a live call would be refused too
UNANSWERED = "BatchUnanswered"  # expired, overloaded, unreadable: asked live
SETTLE_S = 30.0  # a batch that was sent this very moment may not be listed yet
_CHARACTERS_PER_TOKEN = 3  # 4 in English prose; a provider counts a batch's tokens before it takes it


class BatchReport(NamedTuple):
    """What a run through batches came to. `pending` requests still wait at a provider, or for room there."""

    report: GenerateReport
    pending: int


class _Gathering:
    """A teacher that asks nobody where a batch will: it notes the request and defers the item."""

    def __init__(self, teacher: CompletesRequests, batched_roles: Sequence[str], live: set[str], store: Store) -> None:
        self._teacher = teacher
        self._batched_roles = batched_roles
        self._live = live
        self._sent = store.unanswered_in_batches()
        self._refused = {id: why for id, why in store.last_failures(REFUSED).items() if self._sent.get(id) == "settled"}
        self.gathered: dict[str, Request] = {}

    def _asks_live(self, request: Request) -> bool:
        if request.id in self._refused:
            return False
        return request.role not in self._batched_roles or request.id in self._live or self._sent.get(request.id) == "settled"

    def worst_case_usd(self, request: Request) -> float:
        """The most that a live call can cost; 0 for what goes into a batch, which is reserved when it is sent."""
        return self._teacher.worst_case_usd(request) if self._asks_live(request) else 0.0

    async def complete(self, request: Request) -> Response:
        """The answer of a live call. Raises Deferred for what a batch will answer, TeacherError for what one refused."""
        if request.id in self._refused:
            raise TeacherError(f"refused in a batch: {self._refused[request.id]}")
        if self._asks_live(request):
            return await self._teacher.complete(request)
        if request.id not in self._sent:
            self.gathered[request.id] = request
        raise Deferred


class BatchRun:
    """A recipe's run through batches, inside `store.writing()`. Use within one event loop."""

    def __init__(
        self,
        store: Store,
        teacher: Teacher,
        roles: Mapping[str, ModelConfig],
        settings: Batching,
        *,
        make_asker: Callable[[CompletesRequests], Asker],
        say: Callable[[str], None],
    ) -> None:
        self._store = store
        self._teacher = teacher
        self._settings = settings
        self._interrupt = asyncio.Event()
        self._make_asker = make_asker
        self._say = say
        apis = {(config.model, address(config)): batch_api(config, teacher.asked) for config in roles.values()}
        self._apis: dict[tuple[str, str | None], BatchApi] = {key: api for key, api in apis.items() if api is not None}
        self._api_of_role = {role: self._apis.get((config.model, address(config))) for role, config in roles.items()}
        self._live: set[str] = set()
        self._collected = 0
        self._room = dict.fromkeys(self._apis, settings.enqueued_tokens)
        if all(config.model.startswith("offline/") for config in roles.values()):
            raise ConfigError("--batch: the offline teacher is free and answers at once. Run without --batch.")
        if not self._apis:
            models = ", ".join(sorted({config.model for config in roles.values()}))
            raise ConfigError(
                f"--batch: none of the recipe's models has a batch API that is known here (openai/..., anthropic/...): {models}. "
                "Run without --batch."
            )

    async def run(
        self, items: Sequence[PlanItem], *, judged: bool, concurrency: int, wait: bool, interrupt: asyncio.Event,
        plan: Sequence[PlanItem] | None = None,
    ) -> BatchReport:  # fmt: skip
        """Walk, submit, collect, until nothing is left to ask; without `wait`, until nothing can be done now.

        Once `interrupt` is set, nothing further is sent, and the report says so; what is open stays open. `plan` is given where `items` are
        but a part of it.
        Raises TeacherError for what a person must see to: a wrong key, a batch that the provider refused as a whole.
        """
        self._interrupt = interrupt
        live_models = sorted({request for request, api in self._api_of_role.items() if api is None})
        if live_models:
            self._say(f"No batch API is known for the role(s) {', '.join(live_models)}: asked live, at the full price.")
        await self._collect()
        calls = new_examples = reused = 0
        report: GenerateReport | None = None
        gathered: dict[str, Request] = {}
        pause = self._settings.poll_s
        while True:
            if report is None:
                teacher = _Gathering(self._teacher, [role for role, api in self._api_of_role.items() if api], self._live, self._store)
                asker = self._make_asker(teacher)
                report = await generate(
                    items, asker, self._store, judged=judged, concurrency=concurrency, progress=lambda item, status: None,
                    interrupt=self._interrupt, plan=plan,
                )  # fmt: skip
                reused = asker.reused - calls - self._collected
                calls, new_examples = calls + report.calls, new_examples + report.new_examples
                gathered, pause = teacher.gathered, self._settings.poll_s
                report = report._replace(calls=calls + self._collected, reused=reused, new_examples=new_examples)
            refusal = await self._submit(gathered)
            waiting = self._store.batches("submitting", "open")
            pending = sum(batch.requests for batch in waiting) + len(gathered)
            if self._interrupt.is_set():
                return BatchReport(report._replace(interrupted=True), pending)
            if not waiting:
                few = {id for id, request in gathered.items() if self._is_few(request, gathered)}
                if few and report.stopped is None:
                    self._say(f"{len(few)} requests are too few to wait a day for (batch.live_below): asked live.")
                    self._live |= few
                    report = None
                    continue
                if not gathered or refusal or report.stopped:
                    return BatchReport(report._replace(stopped=report.stopped or refusal), 0)
            if not wait:
                return BatchReport(report, pending)
            await self._pause(pause)
            if self._interrupt.is_set():
                return BatchReport(report._replace(interrupted=True), pending)
            pause = min(pause * 1.5, self._settings.poll_s * 10)
            if await self._collect():
                report = None

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._interrupt.wait(), seconds)

    def _is_few(self, request: Request, gathered: Mapping[str, Request]) -> bool:
        same = sum(other.model == request.model and other.role == request.role for other in gathered.values())
        return same < self._settings.live_below

    # -- submitting

    async def _submit(self, gathered: dict[str, Request]) -> str | None:
        """Send what has room, and take it out of `gathered`. Returns why the budget holds back the rest, if it does."""
        refusal: str | None = None
        for key, api in self._apis.items():
            wanted = [request for request in gathered.values() if self._api_of_role[request.role] is api]
            wanted.sort(key=lambda request: (request.prompt, request.item_id, request.sample))  # equal beginnings side by side
            if len(wanted) < self._settings.live_below:
                continue
            while wanted and not self._interrupt.is_set():
                piece, lines, batch, refusal = self._cut(key, api, wanted)
                if not piece:
                    break
                self._store.add_batch(batch, piece)
                self._say(
                    f"Submitting {len(piece):,} requests to {api.model}, at most {money(batch.worst_usd)} "
                    f"({api.price_share:.0%} of the live price), answered within 24 h. Safe to interrupt: the same command goes on."
                )
                batch = await self._send(api, batch, lines)
                if batch.status == "lost":
                    break  # the provider is busy: again after the next pause
                for request in piece:
                    del gathered[request.id]
                wanted = wanted[len(piece) :]
        return refusal

    def _cut(
        self, key: tuple[str, str | None], api: BatchApi, wanted: Sequence[Request]
    ) -> tuple[list[Request], list[Line], Batch, str | None]:
        """The first of `wanted` that fit into one batch, the provider's queue and the budget."""
        waiting = self._store.batches("submitting", "open")
        room = self._room[key]
        queued = sum(batch.tokens for batch in waiting if (batch.model, batch.api_base) == key)
        ledger = self._store.ledger
        piece: list[Request] = []
        lines: list[Line] = []
        size = tokens = 0
        worst = 0.0
        refusal: str | None = None
        for request in wanted:
            line = api.encode(request)
            more = sum(len(message.content) for message in request.messages) // _CHARACTERS_PER_TOKEN + 16
            cost = self._teacher.worst_case_usd(request) * api.price_share
            if len(piece) == api.max_requests or size + len(line.data) > 0.95 * api.max_bytes:
                break
            if room is not None and queued + tokens + more > room and (piece or queued):
                break
            if not ledger.fits(worst + cost):
                refusal = (
                    f"the next request of a batch may cost {money(cost)}; of budget_usd {ledger.cap_usd}, {money(ledger.spent_usd)} is "
                    f"spent, {money(ledger.unknown_usd)} may have been billed for what never came back, and "
                    f"{money(ledger.open_usd + worst)} is kept for open batches. Raise budget_usd to go on; what was answered is kept."
                )
                break
            piece.append(request)
            lines.append(line)
            size, tokens, worst = size + len(line.data), tokens + more, worst + cost
        stamp = now()
        batch = Batch(
            id=content_hash([api.model, stamp.isoformat(), [request.id for request in piece]]), provider=api.provider, model=api.model,
            api_base=api.api_base, requests=len(piece), tokens=tokens, worst_usd=worst, submitted_at=stamp,
        )  # fmt: skip
        return piece, lines, batch, refusal

    async def _send(self, api: BatchApi, batch: Batch, lines: Sequence[Line]) -> Batch:
        try:
            provider_id = await api.submit(batch, lines)
        except BatchApiError as error:
            if error.kind == "unsure":
                self._say(f"{error}. Whether the batch arrived will show.")
                return batch
            return self._refused(batch, error)
        return self._set(batch, status="open", provider_id=provider_id)

    def _refused(self, batch: Batch, error: BatchApiError) -> Batch:
        batch = self._end(batch, "lost" if error.kind == "busy" else "failed", str(error))
        if error.kind == "busy":
            self._say(f"{error}. Tried again later.")
            return batch
        advice = {
            "key": "Check the key in the environment and run again.",
            "missing": "There is no batch API at this address, or no such model: run without --batch.",
        }.get(error.kind, "Mend the cause and run again, or run without --batch.")
        raise TeacherError(
            f"{batch.model}: a batch of {batch.requests:,} requests was refused: {error}. {advice} Nothing was charged for it."
        )

    def _set(self, batch: Batch, **changes: object) -> Batch:
        batch = batch.model_copy(update=changes)
        self._store.set_batch(batch)
        return batch

    def _end(self, batch: Batch, status: str, error: str | None) -> Batch:
        """Nothing more will be charged for the batch: its reservation goes first, so that a crash between leaves none without a batch."""
        self._store.unsent(batch.id)
        return self._set(batch, status=status, error=error)

    # -- collecting

    async def _collect(self) -> bool:
        """Look at every batch once and journal the answers of those that ended. Returns whether the plan must be walked again."""
        news = False
        troubles: list[str] = []
        for batch in self._store.batches("submitting", "open"):
            api = self._apis.get((batch.model, batch.api_base))
            if api is None:
                raise ConfigError(
                    f"{self._store.path}: a batch of {batch.requests:,} requests to {batch.model} is open, and the recipe no longer names "
                    f"that model{f' at {batch.api_base}' if batch.api_base else ''}. Put it back to collect the batch, or give it up by "
                    "--drop-batches."
                )
            try:
                if batch.status == "submitting":
                    batch = await self._find(api, batch)
                state = await api.look(batch.provider_id) if batch.provider_id else None
                if state is not None and state.status == "waiting":
                    self._say(f"{batch.model}: {state.done:,} of {batch.requests:,} requests of batch {batch.provider_id} are done.")
                elif state is not None:
                    state = await self._take(api, batch, state)
                    news = news or state.status != "waiting"
                    troubles += self._ended_badly(batch, state)
                news = news or batch.status == "lost"
            except BatchApiError as error:
                if error.kind == "missing":
                    troubles.append(
                        f"{error}. The batch {batch.provider_id} is not known there: is the key of another organisation set? "
                        "If the batch is gone, give it up by --drop-batches; its requests are then asked again."
                    )
                elif error.kind in ("key", "refused"):
                    troubles.append(str(error))
                else:
                    self._say(f"{error}. Tried again later.")
        if troubles:
            raise TeacherError(" ".join(troubles))
        return news

    async def _find(self, api: BatchApi, batch: Batch) -> Batch:
        """What became of a batch that was sent without hearing of it: open, or lost."""
        await self._pause(max(0.0, (batch.submitted_at - now()).total_seconds() + SETTLE_S))
        if self._interrupt.is_set():
            return batch
        others = frozenset(self._store.provider_ids())
        provider_id = await api.find(batch, others, self._store.batch_requests(batch.id))
        if provider_id is None:
            self._say(f"A batch of {batch.requests:,} requests to {batch.model} never arrived; its requests are sent again.")
            return self._end(batch, "lost", "never arrived")
        self._say(f"Found a batch of {batch.requests:,} requests to {batch.model} that had been sent: {provider_id}.")
        return self._set(batch, status="open", provider_id=provider_id)

    async def _take(self, api: BatchApi, batch: Batch, state: State) -> State:
        """Journal how each request ended; then, and only then, the batch is collected. Returns how the batch ended."""
        requests = self._store.batch_requests(batch.id)
        results = await api.results(state.files, requests)
        if results and not any(result.request_id in requests for result in results):
            self._say(f"The batch {batch.provider_id} is not ours after all.")  # only a batch that was searched for can be another's
            self._set(batch, status="submitting", provider_id=None)
            return state._replace(status="waiting")
        known = self._store.answered_of_batch(batch.id)  # a killed process may have been here before: nothing is paid for twice
        answers = tried = 0
        for result in results:
            request = requests.pop(result.request_id, None)
            if request is None:
                continue
            if result.response is not None:
                if request.id not in known:
                    self._store.add_call(request, storable(result.response))
                answers += 1
            elif not result.cancelled:
                self._fail(api, request, REFUSED if result.refused else UNANSWERED, result.message, billed=result.billed)
                tried += 1
            else:
                state = state._replace(status="cancelled", message=result.message)
        if state.status == "ended":
            for request in requests.values():
                self._fail(api, request, UNANSWERED, "the batch has no line for it that can be read", billed=True)
        not_answered = batch.requests - answers
        self._end(batch, "collected" if state.status == "ended" else state.status, state.message or None)
        self._say(
            f"Collected {answers:,} of {batch.requests:,} answers of {batch.model}."
            + (f" {not_answered:,} were not answered; refused ones stay so, the others are asked live." if not_answered and tried else "")
        )
        self._collected += answers
        return state

    def _fail(self, api: BatchApi, request: Request, error: str, message: str, *, billed: bool) -> None:
        worst = self._teacher.worst_case_usd(request) * api.price_share
        self._store.add_failure(request, error, message, billed=billed, worst_usd=worst)

    def _ended_badly(self, batch: Batch, state: State) -> list[str]:
        """A batch that was cancelled or failed as a whole: too large for the queue is mended here, the rest is a person's matter."""
        if state.status in ("ended", "waiting"):
            return []
        if state.status == "cancelled":
            return [
                f"{batch.model}: the batch {batch.provider_id} was cancelled at the provider. The answers that it had are kept; the same "
                "command sends the rest again."
            ]
        if state.code == "token_limit_exceeded" and batch.requests > 1:
            key = (batch.model, batch.api_base)
            said = re.search(r"[Ll]imit:\s*([\d,]+)", state.message)
            known = [int(said.group(1).replace(",", ""))] if said else []
            room = int(0.7 * min([batch.tokens, *known, *filter(None, [self._room[key]])]))
            self._room[key] = room
            self._say(f"{state.message}. Smaller batches: {room:,} tokens at a time (batch.enqueued_tokens in the recipe).")
            return []
        return [
            f"{batch.model}: the provider refused the batch {batch.provider_id} as a whole: {state.message or 'no reason given'}. "
            "Nothing was charged for it. Mend the cause and run again, or run without --batch."
        ]
