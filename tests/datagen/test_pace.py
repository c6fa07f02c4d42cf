"""Places, rates, gates and the breaker, on a clock of their own: no test here waits."""

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from datagen.pace import Breaker, Bucket, Pace, Pool, Size, Used, retry_after_s

SMALL = Size(characters=400, max_tokens=100)


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__(_NoWait(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class _NoWait(selectors.SelectSelector):
    def __init__(self, loop: FastLoop) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> Any:
        self.loop.now += timeout or 0.0
        return super().select(0)


def in_fast_time(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        return runner.run(work())


def pace(ceiling: int = 64, **limits: float) -> Pace:
    return Pace(ceiling=ceiling, limits=limits)


# -- buckets


def test_a_bucket_lets_a_burst_of_one_second_through_and_then_its_rate() -> None:
    bucket = Bucket(10.0, now=0.0)
    for _ in range(10):
        assert bucket.wait_s(0.0, 1) == 0.0
        bucket.take(0.0, 1)
    assert bucket.wait_s(0.0, 1) == pytest.approx(0.1)
    assert bucket.wait_s(0.1, 1) == 0.0


def test_an_amount_above_what_a_bucket_holds_is_lent_and_paid_back() -> None:
    bucket = Bucket(100.0, now=0.0)
    assert bucket.wait_s(0.0, 500) == 0.0
    bucket.take(0.0, 500)
    assert bucket.wait_s(0.0, 500) == pytest.approx(5.0)


def test_a_lower_rate_empties_a_bucket_to_what_it_may_hold() -> None:
    bucket = Bucket(100.0, now=0.0)
    bucket.set_rate(0.0, 2.0)
    assert bucket.level == 2.0


# -- places


def test_places_begin_low_and_grow_with_every_answer_up_to_the_ceiling() -> None:
    it = pace(ceiling=40)
    assert it.places == 32
    for _ in range(20):
        it.settle(0.0, SMALL, Used(0, 0), Used(100, 20))
    assert it.places == 40
    assert pace(ceiling=3).places == 3


def test_before_anything_comes_back_places_open_with_time() -> None:
    it = pace(ceiling=128)
    for _ in range(32):
        it.start(0.0, Size(400, 100))
    assert 0 < it.wait_s(0.0, Size(400, 100)) < 0.01
    assert it.wait_s(0.1, Size(400, 100)) == 0 and it.places == pytest.approx(64)
    for _ in range(32):
        it.start(0.1, Size(400, 100))
    assert it.wait_s(9.0, Size(400, 100)) == 0 and it.places == 128


def test_after_an_overload_time_opens_no_place() -> None:
    it = pace(ceiling=128)
    for _ in range(32):
        it.start(0.0, Size(400, 100))
    it.overloaded(0.05, 0.0, None)
    assert it.wait_s(5.0, Size(400, 100)) == math.inf


def test_places_are_cut_once_for_calls_that_were_in_flight_together() -> None:
    it = pace()
    it.in_flight = 32
    for _ in range(10):
        it.overloaded(1.0, sent_at=0.5, retry_after_s=None)
    assert it.places == pytest.approx(32 * 0.7)
    it.overloaded(2.0, sent_at=1.5, retry_after_s=None)
    assert it.places == pytest.approx(32 * 0.7 * 0.7)


def test_after_a_cut_a_window_of_answers_gives_one_place_more() -> None:
    it = pace()
    it.in_flight = 10
    it.overloaded(1.0, sent_at=0.5, retry_after_s=None)
    before = it.places
    for _ in range(int(before)):
        it.settle(2.0, SMALL, Used(0, 0), Used(100, 20))
    assert it.places == pytest.approx(before + 1, abs=0.15)


def test_there_is_always_one_place() -> None:
    it = pace()
    for second in range(50):
        it.overloaded(float(second), sent_at=float(second), retry_after_s=None)
    assert it.wait_s(99.0, SMALL) == 0.0


def test_a_full_endpoint_waits_for_the_end_of_a_call() -> None:
    it = pace(ceiling=1)
    it.start(0.0, SMALL)
    assert it.wait_s(0.0, SMALL) == math.inf
    it.leave()
    assert it.wait_s(0.0, SMALL) == 0.0


# -- rates


def test_retry_after_closes_the_gate_for_all() -> None:
    it = pace()
    it.overloaded(10.0, sent_at=9.0, retry_after_s=4.0)
    it.overloaded(10.0, sent_at=9.0, retry_after_s=2.0)
    assert it.wait_s(11.0, SMALL) == pytest.approx(3.0)
    assert it.wait_s(14.0, SMALL) == 0.0


@pytest.mark.parametrize(
    "headers",
    [{"x-ratelimit-limit-requests": "600"}, {"anthropic-ratelimit-requests-limit": "600"}],
    ids=["openai", "anthropic"],
)
def test_a_rate_is_learned_from_the_headers_with_a_margin(headers: dict[str, str]) -> None:
    it = pace()
    it.learn(0.0, headers)
    assert it.wait_s(0.0, SMALL) == pytest.approx(1 / (10 * 0.97))  # what was sent until now has used up the burst


def test_one_of_two_processes_takes_half_of_what_it_learns() -> None:
    it = Pace(ceiling=8, limits={}, share=0.5)
    it.learn(0.0, {"x-ratelimit-limit-requests": "600"})
    assert it.wait_s(0.0, SMALL) == pytest.approx(1 / (10 * 0.97 * 0.5))


def test_a_learned_rate_can_lower_the_recipes_and_not_raise_it() -> None:
    it = pace(requests=60.0)
    it.learn(0.0, {"x-ratelimit-limit-requests": "6000"})
    it.start(0.0, SMALL)
    assert it.wait_s(0.0, SMALL) == pytest.approx(1.0)
    it.learn(0.0, {"x-ratelimit-limit-requests": "30"})
    assert it.wait_s(0.0, SMALL) == pytest.approx(1 / (0.5 * 0.97))


@pytest.mark.parametrize("said", ["0", "-1", "unlimited", "inf", "nan"])
def test_a_header_that_is_no_rate_is_left_alone(said: str) -> None:
    it = pace()
    it.learn(0.0, {"x-ratelimit-limit-requests": said})
    assert it.wait_s(0.0, SMALL) == 0.0


def test_tokens_are_estimated_by_four_characters_and_corrected_by_bills() -> None:
    it = pace()
    assert it.estimate(Size(400, 100)) == Used(100, 100)
    for _ in range(100):
        it.settle(0.0, Size(400, 100), Used(0, 0), Used(200, 10))
    assert it.estimate(Size(400, 100)).input_tokens == pytest.approx(200, rel=0.1)
    assert it.estimate(Size(400, 100)).output_tokens == 10


def test_input_and_output_tokens_have_buckets_of_their_own() -> None:
    it = pace(input_tokens=6000.0, output_tokens=600.0)
    it.start(0.0, SMALL)  # 100 in of 100 a second, 100 out of 10 a second
    assert it.wait_s(0.0, SMALL) == pytest.approx(10.0)


def test_a_bill_corrects_what_the_estimate_took() -> None:
    it = pace(output_tokens=6000.0)
    taken = it.start(0.0, SMALL)
    assert it.wait_s(0.0, SMALL) == pytest.approx(1.0)
    it.settle(0.0, SMALL, taken, Used(100, 20))
    assert it.wait_s(0.0, SMALL) == 0.0


def test_what_is_read_from_the_cache_does_not_count_as_input() -> None:
    it = pace(input_tokens=6000.0)
    taken = it.start(0.0, SMALL)
    it.settle(0.0, SMALL, taken, Used(100, 20, cached_tokens=90))
    assert it.wait_s(0.0, Size(360, 100)) == 0.0


# -- pools, in fast time


async def _serve(pool: Pool, calls: int, workers: int, answer: Callable[[str], Coroutine[Any, Any, int]]) -> list[int]:
    """Statuses of all tries, by workers that try again at once."""
    statuses: list[int] = []
    loop = asyncio.get_running_loop()
    queue = iter(range(calls))

    async def worker() -> None:
        for _ in queue:
            status = 0
            while status != 200:
                place = await pool.enter(SMALL)
                status = await answer(place.pace.url)
                statuses.append(status)
                if status == 200:
                    place.pace.settle(loop.time(), SMALL, place.estimate, Used(100, 20))
                else:
                    place.pace.overloaded(loop.time(), place.sent_at, None)
                pool.leave(place)

    await asyncio.gather(*(worker() for _ in range(workers)))
    return statuses


def test_a_rate_from_the_recipe_is_kept_to_and_used() -> None:
    async def work() -> tuple[int, float]:
        async def answer(url: str) -> int:
            await asyncio.sleep(0.3)
            return 200

        statuses = await _serve(Pool([pace(requests=1500.0)]), 500, 64, answer)
        return len(statuses), asyncio.get_running_loop().time()

    sent, took = in_fast_time(work)
    assert sent == 500
    assert (500 - 25) / 25 <= took <= 20.0 * 1.02


def test_without_headers_places_come_down_to_what_the_server_takes() -> None:
    """A server that serves 8 at once and says 503 to more."""

    async def work() -> tuple[list[int], float]:
        busy = 0

        async def answer(url: str) -> int:
            nonlocal busy
            if busy >= 8:
                await asyncio.sleep(0.01)
                return 503
            busy += 1
            await asyncio.sleep(0.1)
            busy -= 1
            return 200

        return await _serve(Pool([pace()]), 1000, 64, answer), asyncio.get_running_loop().time()

    statuses, took = in_fast_time(work)
    assert statuses.count(200) == 1000
    assert statuses.count(503) < 200
    assert took < 1.4 * (1000 / 8 * 0.1)


def test_the_least_loaded_endpoint_is_asked() -> None:
    async def work() -> dict[str, int]:
        fast, slow = Pace(ceiling=64, limits={}, url="fast"), Pace(ceiling=64, limits={}, url="slow")

        async def answer(url: str) -> int:
            await asyncio.sleep(0.1 if url == "fast" else 0.4)
            return 200

        await _serve(Pool([fast, slow]), 1000, 32, answer)
        return {"fast": fast.sent, "slow": slow.sent}

    sent = in_fast_time(work)
    assert sent["fast"] > 3 * sent["slow"] > 0


def test_an_endpoint_that_is_gone_is_set_aside_longer_each_time_and_comes_back() -> None:
    it = pace()
    it.unreachable(1.0, sent_at=0.9)
    it.unreachable(1.0, sent_at=0.8)  # in flight at the same time: says nothing new
    assert it.wait_s(1.0, SMALL) == pytest.approx(0.5)
    assert not it.healthy
    it.unreachable(2.0, sent_at=1.6)
    assert it.wait_s(2.0, SMALL) == pytest.approx(1.0)
    it.settle(4.0, SMALL, Used(0, 0), Used(1, 1))
    assert it.healthy
    it.unreachable(5.0, sent_at=4.5)
    assert it.wait_s(5.0, SMALL) == pytest.approx(0.5)


def test_places_are_given_in_the_order_of_asking() -> None:
    async def work() -> list[int]:
        pool, order = Pool([pace(ceiling=1)]), []

        async def ask(number: int) -> None:
            place = await pool.enter(SMALL)
            order.append(number)
            await asyncio.sleep(0.1)
            pool.leave(place)

        await asyncio.gather(*(ask(number) for number in range(5)))
        return order

    assert in_fast_time(work) == [0, 1, 2, 3, 4]


def test_a_cancelled_asker_leaves_no_place_taken() -> None:
    async def work() -> tuple[int, bool]:
        it = pace(ceiling=1)
        pool = Pool([it])
        first = await pool.enter(SMALL)
        waiting = [asyncio.create_task(pool.enter(SMALL)) for _ in range(3)]
        await asyncio.sleep(0.1)
        waiting[0].cancel()  # while it waits
        pool.leave(first)  # the second has its place now,
        waiting[1].cancel()  # and is cancelled before it runs
        await asyncio.sleep(0.1)
        return it.in_flight, waiting[2].done()

    assert in_fast_time(work) == (1, True)


# -- giving up


def test_the_breaker_stops_when_half_of_the_last_calls_failed() -> None:
    breaker = Breaker()
    for _ in range(10):
        breaker.note()
        breaker.note("BadRequestError", "no such field")
    assert breaker.verdict == "10 of the last 20 calls failed (10 BadRequestError); the last: no such field"


def test_the_breaker_waits_for_twenty_calls() -> None:
    breaker = Breaker()
    for _ in range(19):
        breaker.note("Timeout", "late")
    assert breaker.verdict is None


def test_a_tenth_of_failures_never_stops_a_run() -> None:
    breaker = Breaker()
    for n in range(5000):
        breaker.note("InternalServerError" if n % 10 == 0 else None, "broken")
        assert breaker.verdict is None


def test_the_breaker_forgets_what_is_long_past() -> None:
    breaker = Breaker()
    for _ in range(200):
        breaker.note()
    for n in range(50):
        assert breaker.verdict is None, n
        breaker.note("APIConnectionError", "gone")
    assert breaker.verdict is not None
    for _ in range(60):
        breaker.note()
    assert breaker.verdict is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Tue, 24 Nov 2026 12:00:10 GMT"}, 10.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    noon = 1795521600.0  # 2026-11-24 12:00:00 UTC
    found = retry_after_s(headers, lambda: noon)
    assert found == (None if seconds is None else pytest.approx(seconds))
