"""How fast an endpoint may be asked: places in flight, rates by the minute, one gate for Retry-After, and when to give up.

A `Pace` is one endpoint's state. It is told the time, so that it can be tested without waiting. Concurrency follows additive
increase and multiplicative decrease (Chiu and Jain 1989); before the first overload it grows with every answer, as TCP's slow start
does (RFC 5681), and with the time that passes: answers take seconds, but who has too much says so at once. Rates are token buckets,
from the recipe or learned from the provider's headers. A `Pool` hands out the endpoints of one model in the order of asking; a
`Breaker` says when a run cannot succeed.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import NamedTuple

_FIRST_PLACES = 32  # in flight at once, before anything has come back
_DOUBLED_EVERY_S = 0.1  # until an endpoint says that it is too much, or all places are open
_DECREASE = 0.7
_MARGIN = 0.97  # of a learned rate: the provider's clock is not ours
_BURST_S = 1.0  # what a bucket holds: providers enforce their rates by the second or finer
_MAX_GATE_S = 600.0
_COOLDOWN_S = 0.5
_MAX_COOLDOWN_S = 30.0

REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS = "requests", "tokens", "input_tokens", "output_tokens"
_LIMIT_HEADERS = {  # per minute, in the form of OpenAI and of those who follow it, and of Anthropic
    REQUESTS: ("x-ratelimit-limit-requests", "anthropic-ratelimit-requests-limit"),
    TOKENS: ("x-ratelimit-limit-tokens", "anthropic-ratelimit-tokens-limit"),
    INPUT_TOKENS: ("anthropic-ratelimit-input-tokens-limit",),
    OUTPUT_TOKENS: ("anthropic-ratelimit-output-tokens-limit",),
}


class Size(NamedTuple):
    """How large a call is: characters of its prompt, and the most tokens that its answer may have."""

    characters: int
    max_tokens: int


class Used(NamedTuple):
    """What a call was billed for; cached tokens are part of the input."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


class Bucket:
    """A token bucket: refilled at `rate` a second, holding one second's worth. An amount above that is lent and paid back."""

    def __init__(self, rate: float, now: float, level: float | None = None) -> None:
        self.rate = rate
        self.capacity = max(1.0, rate * _BURST_S)
        self.level = self.capacity if level is None else level
        self._at = now

    def _refill(self, now: float) -> None:
        self.level = min(self.capacity, self.level + (now - self._at) * self.rate)
        self._at = now

    def wait_s(self, now: float, amount: float) -> float:
        """Seconds until `amount` may be taken."""
        self._refill(now)
        missing = min(amount, self.capacity) - self.level
        return missing / self.rate if missing > 1e-9 else 0.0

    def take(self, now: float, amount: float) -> None:
        """Take `amount`, below zero if need be; a negative amount gives back."""
        self._refill(now)
        self.level = min(self.capacity, self.level - amount)

    def set_rate(self, now: float, rate: float) -> None:
        """Go on at another rate."""
        self._refill(now)
        self.rate = rate
        self.capacity = max(1.0, rate * _BURST_S)
        self.level = min(self.level, self.capacity)


class Pace:
    """One endpoint: how many calls are in flight, how many may be, and from when on.

    ceiling  the most calls in flight
    limits   rates per minute that the recipe sets, by name; learned ones can only lower them
    url      where it is; "" where the lane knows by itself
    share    of every learned rate, for one of several processes that ask the same endpoint
    """

    def __init__(self, *, ceiling: int, limits: Mapping[str, float], now: float = 0.0, share: float = 1.0, url: str = "") -> None:
        self.url = url
        self.ceiling = ceiling
        self.places = float(min(ceiling, _FIRST_PLACES))
        self.in_flight = 0
        self.sent = 0
        self.answered = False
        self.closed_until = -math.inf
        self._share = share
        self._limits = {name: per_minute / 60 for name, per_minute in limits.items()}
        self._buckets = {name: Bucket(rate, now) for name, rate in self._limits.items()}
        self._seen: dict[str, str] = {}
        self._growing = True
        self._first_sent_at: float | None = None
        self._last_cut = -math.inf
        self._aside = 0  # times in a row that nobody was there
        # token estimates: a prior of 4 characters a token, corrected by every bill
        self._characters, self._input_tokens = 4000.0, 1000.0
        self._outputs, self._output_tokens = 0, 0.0

    @property
    def healthy(self) -> bool:
        """Whether the endpoint was there when it was last tried."""
        return self._aside == 0

    def estimate(self, size: Size) -> Used:
        """What a call will use, by what calls have used so far."""
        inputs = math.ceil(size.characters * self._input_tokens / self._characters)
        outputs = self._output_tokens / self._outputs if self._outputs else size.max_tokens
        return Used(inputs, math.ceil(min(outputs, size.max_tokens)))

    def wait_s(self, now: float, size: Size) -> float:
        """Seconds until a call may be sent; infinite where only the end of another call makes a place."""
        if self.in_flight >= int(self.places):
            opens_in = self._open_with_time(now)
            if self.in_flight >= int(self.places):
                return opens_in
        wait = max(0.0, self.closed_until - now)
        if self._buckets:
            amounts = _amounts(self.estimate(size))
            for name, bucket in self._buckets.items():
                wait = max(wait, bucket.wait_s(now, amounts[name]))
        return wait

    def _open_with_time(self, now: float) -> float:
        """Open the places that are due. Returns the seconds until the next one is; infinite where only an answer opens one."""
        if not self._growing or self._first_sent_at is None or self.places >= self.ceiling:
            return math.inf
        due = _FIRST_PLACES * 2 ** min(32.0, (now - self._first_sent_at) / _DOUBLED_EVERY_S)
        self.places = min(float(self.ceiling), max(self.places, due))
        more = math.log2((int(self.places) + 1) / _FIRST_PLACES) * _DOUBLED_EVERY_S
        return max(0.001, self._first_sent_at + more - now)

    def start(self, now: float, size: Size) -> Used:
        """A call is sent. Returns the estimate that was taken, for `settle`."""
        if self._first_sent_at is None:
            self._first_sent_at = now
        self.in_flight += 1
        self.sent += 1
        if not self._buckets:
            return Used(0, 0)
        estimate = self.estimate(size)
        amounts = _amounts(estimate)
        for name, bucket in self._buckets.items():
            bucket.take(now, amounts[name])
        return estimate

    def leave(self) -> None:
        """A call has ended, in whichever way."""
        self.in_flight -= 1

    def settle(self, now: float, size: Size, estimate: Used, used: Used) -> None:
        """A call was answered: grow, and correct the token estimates and buckets by its bill."""
        self.answered = True
        self._aside = 0
        if self.places < self.ceiling:
            self.places = min(self.ceiling, self.places + (1 if self._growing else 1 / self.places))
        if used.input_tokens:
            self._characters += size.characters
            self._input_tokens += used.input_tokens
        self._outputs += 1
        self._output_tokens += used.output_tokens
        more_in, more_out = used.input_tokens - estimate.input_tokens, used.output_tokens - estimate.output_tokens
        # Anthropic does not count what is read from its cache as input (docs: rate limits, "cache-aware ITPM")
        more = {TOKENS: more_in + more_out, INPUT_TOKENS: more_in - used.cached_tokens, OUTPUT_TOKENS: more_out}
        for name, bucket in self._buckets.items():
            if name in more:
                bucket.take(now, more[name])

    def overloaded(self, now: float, sent_at: float, retry_after_s: float | None) -> None:
        """The endpoint said "too much" to a call of `sent_at`: fewer at once, and nobody before it said."""
        if sent_at >= self._last_cut:  # calls that were sent before the last cut say nothing about the places since
            self.places = max(1.0, min(self.places, self.in_flight + 1) * _DECREASE)
            self._last_cut = now
        self._growing = False
        if retry_after_s:
            self.closed_until = max(self.closed_until, now + min(retry_after_s, _MAX_GATE_S))

    def unreachable(self, now: float, sent_at: float) -> None:
        """Nobody was there: set the endpoint aside, longer each time in a row."""
        if sent_at >= self._last_cut:
            self.closed_until = max(self.closed_until, now + min(_MAX_COOLDOWN_S, _COOLDOWN_S * 2**self._aside))
            self._aside += 1
            self._last_cut = now

    def learn(self, now: float, headers: Mapping[str, str]) -> None:
        """Take over the rates that an answer's headers name. They may change while a run goes on."""
        for name, spellings in _LIMIT_HEADERS.items():
            for header in spellings:
                said = headers.get(header)
                if said is None or self._seen.get(header) == said:
                    continue
                self._seen[header] = said
                try:
                    rate = float(said) / 60 * _MARGIN * self._share
                except ValueError:
                    continue
                if not rate > 0 or math.isinf(rate):
                    continue
                rate = min(rate, self._limits.get(name, math.inf))
                if name in self._buckets:
                    self._buckets[name].set_rate(now, rate)
                else:  # empty: what was sent until now was taken from it already
                    self._buckets[name] = Bucket(rate, now, level=0.0)


def _amounts(used: Used) -> dict[str, float]:
    return {
        REQUESTS: 1,
        TOKENS: used.input_tokens + used.output_tokens,
        INPUT_TOKENS: used.input_tokens,
        OUTPUT_TOKENS: used.output_tokens,
    }


class Place(NamedTuple):
    """The right to send one call to an endpoint."""

    pace: Pace
    estimate: Used
    sent_at: float


class _Waiting(NamedTuple):
    size: Size
    place: "asyncio.Future[Place]"


class Pool:
    """The endpoints of one model. `enter` waits, first come first served, for the least loaded one that may be asked now.

    Time is the event loop's.
    """

    def __init__(self, paces: Sequence[Pace]) -> None:
        self.paces = paces
        self._waiting: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, size: Size) -> Place:
        """A place, which must be given to `leave` when the call has ended."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            place, _ = self._try(loop.time(), size)
            if place is not None:
                return place
        waiting = _Waiting(size, loop.create_future())
        self._waiting.append(waiting)
        self._serve(loop)
        try:
            return await waiting.place
        except asyncio.CancelledError:
            if waiting.place.done() and not waiting.place.cancelled():
                self.leave(waiting.place.result())
            raise

    def leave(self, place: Place) -> None:
        """The call of a place has ended; who waits may have it."""
        place.pace.leave()
        if self._waiting:
            self._serve(asyncio.get_running_loop())

    def _try(self, now: float, size: Size) -> tuple[Place | None, float]:
        """A place, or the seconds until there may be one."""
        best: Pace | None = None
        soonest = math.inf
        for pace in self.paces:
            wait = pace.wait_s(now, size)
            if wait > 0:
                soonest = min(soonest, wait)
            elif best is None or (pace.in_flight / pace.places, pace.sent) < (best.in_flight / best.places, best.sent):
                best = pace
        if best is None:
            return None, soonest
        return Place(best, best.start(now, size), now), 0.0

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            size, future = self._waiting[0]
            if future.done():  # its caller was cancelled
                self._waiting.popleft()
                continue
            place, wait = self._try(loop.time(), size)
            if place is None:
                if wait < math.inf:
                    self._timer = loop.call_later(wait, self._serve, loop)
                return
            self._waiting.popleft()
            future.set_result(place)


class Breaker:
    """Says when a run cannot succeed: at least half of the last calls (100, or the first 20 and more) ended for good without an
    answer. Tries that are retried do not count, nor does waiting for a rate limit."""

    def __init__(self, *, window: int = 100, at_least: int = 20, share: float = 0.5) -> None:
        self._ends: deque[tuple[str, str] | None] = deque(maxlen=window)
        self._at_least = at_least
        self._share = share
        self._failed = 0

    def note(self, error: str | None = None, message: str = "") -> None:
        """How a call ended: answered, or with this error."""
        if len(self._ends) == self._ends.maxlen and self._ends[0] is not None:
            self._failed -= 1
        self._ends.append(None if error is None else (error, message))
        self._failed += error is not None

    @property
    def verdict(self) -> str | None:
        """What was seen, once it is enough to stop."""
        if len(self._ends) < self._at_least or self._failed < self._share * len(self._ends):
            return None
        failures = [end for end in self._ends if end is not None]
        kinds = ", ".join(f"{count} {name}" for name, count in Counter(name for name, _ in failures).most_common())
        return f"{self._failed} of the last {len(self._ends)} calls failed ({kinds}); the last: {failures[-1][1]}"


def retry_after_s(headers: Mapping[str, str], wall_clock: Callable[[], float]) -> float | None:
    """Seconds that a provider asks to wait: `retry-after-ms`, or Retry-After in seconds or as a date (RFC 9110, 10.2.3)."""
    milliseconds, said = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        if milliseconds is not None:
            return max(0.0, float(milliseconds) / 1000)
        if said is None:
            return None
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said or "").timestamp() - wall_clock())
    except ValueError:
        return None
