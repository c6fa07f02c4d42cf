"""The account of a store: a cap is a cap, also over kills; what may have been billed stays counted; two kinds of sums stay apart."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datagen.ask import Ask, Asker
from datagen.errors import BudgetError, ConfigError, StoreError
from datagen.ledger import Ledger, may_be_billed, most_answers, most_tokens, share_budget
from datagen.parse import parse_object
from datagen.records import Message, PlanItem, Request, Response
from datagen.store import Store

ITEM = PlanItem(topic="parcels/late", generator="topic", index=0, count=2, label="late")
GOOD = '{"intent": "late"}'


def a_request(text: str = "hello", **params: Any) -> Request:
    return Request(
        item_id=ITEM.id, prompt="answer@1", role="teacher", model="m", messages=(Message(role="user", content=text),),
        params=params, sample=f"{ITEM.id}/0/{text}",
    )  # fmt: skip


def ask_all(asker: Asker, *texts: str) -> list[Any]:
    async def run() -> list[Any]:
        with asker.store.writing():
            ask = Ask(asker, ITEM)
            return await asyncio.gather(*(ask("answer", parse_object, input=text) for text in texts), return_exceptions=True)

    return asyncio.run(run())


class Slow:
    """A teacher whose calls take a moment, cost less than they might, and fail as they are told: (name, message) or None."""

    def __init__(self, store: Store, cost: float, worst: float, fails: Callable[[int], tuple[str, str] | None] = lambda n: None) -> None:
        self.store, self.cost, self.worst, self.fails, self.sent, self.now, self.most = store, cost, worst, fails, 0, 0, 0

    def worst_case_usd(self, request: Request) -> float:
        return self.worst

    async def complete(self, request: Request) -> Response:
        while True:
            self.sent += 1
            self.now += 1
            self.most = max(self.most, self.now)
            failed = self.fails(self.sent)
            await asyncio.sleep(0.005)
            self.now -= 1
            if failed is None:
                return Response(request_id=request.id, text=GOOD, cost_usd=self.cost)
            self.store.add_failure(request, *failed)


def test_money_that_is_only_reserved_is_waited_for(make_asker: Callable[..., Asker], store: Store) -> None:
    teacher = Slow(store, cost=0.1, worst=0.5)
    answers = ask_all(make_asker(teacher, budget_usd=1.05), *"abcdef")
    assert all(not isinstance(answer, Exception) for answer in answers)
    assert store.ledger.spent_usd == pytest.approx(0.6)
    assert teacher.most == 2


def test_a_server_that_always_answers_at_the_worst_case_never_passes_the_cap(make_asker: Callable[..., Asker], store: Store) -> None:
    answers = ask_all(make_asker(Slow(store, cost=0.07, worst=0.07), budget_usd=1.0), *map(str, range(40)))
    assert sum(isinstance(answer, BudgetError) for answer in answers) == 40 - 14
    assert store.ledger.spent_usd == pytest.approx(0.98)
    assert store.ledger.open_usd == 0


def test_a_try_that_may_have_been_billed_stays_counted_and_the_retry_is_reserved_anew(
    make_asker: Callable[..., Asker], store: Store
) -> None:
    teacher = Slow(store, cost=0.1, worst=0.4, fails=lambda n: ("Timeout", "no answer in 5 s") if n == 1 else None)
    (answer,) = ask_all(make_asker(teacher, budget_usd=1.0), "a")
    assert answer.value == {"intent": "late"}
    assert (store.ledger.spent_usd, store.ledger.unknown_usd, store.ledger.open_usd) == (0.1, 0.4, 0.0)
    assert Store(store.path).ledger.committed_usd == pytest.approx(0.5)
    assert store.query("SELECT error, billed, worst_usd FROM failures") == [{"error": "Timeout", "billed": "maybe", "worst_usd": 0.4}]


def test_retries_that_may_each_be_billed_end_at_the_cap(make_asker: Callable[..., Asker], store: Store) -> None:
    teacher = Slow(store, cost=0.1, worst=0.4, fails=lambda n: ("Timeout", "no answer"))
    (answer,) = ask_all(make_asker(teacher, budget_usd=1.0), "a")
    assert isinstance(answer, BudgetError)
    assert "$0.8000 may have been billed for calls that never came back" in str(answer)
    assert teacher.sent == 2


def test_a_try_that_was_refused_costs_nothing(make_asker: Callable[..., Asker], store: Store) -> None:
    teacher = Slow(store, cost=0.1, worst=0.4, fails=lambda n: ("RateLimitError", "slow down") if n < 9 else None)
    ask_all(make_asker(teacher, budget_usd=0.5), "a")
    assert (store.ledger.spent_usd, store.ledger.unknown_usd) == (0.1, 0.0)


KILLED = """
import os, signal, sys
from pathlib import Path
from datagen.records import Request, Response
from datagen.store import Store
request = Request(item_id="a/b:topic:0", prompt="answer@1", role="teacher", model="m", messages=(), params={}, sample="0")
with Store(Path(sys.argv[1])).writing() as store:
    for id in (request.id, "b", "c"):
        store.reserve(id, 0.3)
    store.add_call(request, Response(request_id=request.id, text="x", cost_usd=0.05))
    store.unsent("c")
    store.flush()  # the log is empty now: the database alone knows what is in flight
    store.reserve("d", 0.25)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_had_sent_counts_until_a_person_releases_it(make_asker: Callable[..., Asker], store: Store) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(store.path)], check=False).returncode == -signal.SIGKILL
    assert store.log_path.read_bytes().count(b"\n") == 1
    again = Store(store.path)
    assert (again.ledger.spent_usd, again.ledger.unknown_usd, again.ledger.open_usd) == (0.05, pytest.approx(0.55), 0.0)
    assert again.query("SELECT error, billed FROM failures GROUP BY ALL") == [{"error": "killed", "billed": "maybe"}]
    assert Store(store.path).ledger.unknown_usd == pytest.approx(0.55)  # counted once, however often it is opened
    (answer,) = ask_all(make_asker(Slow(again, 0.1, 0.5), budget_usd=1.0), "q")
    assert isinstance(answer, BudgetError)
    assert again.release_unknown() == pytest.approx(0.55)
    assert Store(store.path).ledger.committed_usd == pytest.approx(0.05)


def test_a_lasting_reservation_stays_reserved_in_the_next_process(store: Store) -> None:
    with store.writing():
        store.reserve("batch-1", 0.4, lasting=True)
    with Store(store.path).writing() as again:
        assert (again.ledger.open_usd, again.ledger.unknown_usd) == (0.4, 0.0)
        again.unsent("batch-1")
    assert Store(store.path).ledger.committed_usd == 0.0


def test_calls_without_a_price_are_not_written_down_before_they_are_sent(make_asker: Callable[..., Asker], store: Store) -> None:
    with store.writing():
        store.reserve("x", 0.0)
        assert store.log_path.read_bytes() == b""


def test_a_budget_of_nothing_with_a_paid_teacher_is_refused_before_any_call(make_asker: Callable[..., Asker], store: Store) -> None:
    teacher = Slow(store, 0.1, 0.4)
    with pytest.raises(
        ConfigError, match=r"budget_usd is 0, so no call can be paid, and test/big \(teachers\.teacher\) is paid by the token"
    ):
        make_asker(teacher, budget_usd=0.0)
    assert teacher.sent == 0
    make_asker(Slow(store, 0.0, 0.0), budget_usd=0.0)


@pytest.mark.parametrize(
    ("error", "message", "billed"),
    [
        ("RateLimitError", "slow down", False),
        ("BadRequestError", "content policy", False),
        ("InternalServerError", "500: upstream connect error", False),
        ("InternalServerError", "litellm.InternalServerError: OpenAIException - Connection error.", True),
        ("Timeout", "no answer in 120 s", True),
        ("ConnectionDropped", "after half of the body", True),
        ("InvalidResponse", "status 200, but the body is not JSON", True),
        ("APIConnectionError", "nobody answers at http://127.0.0.1:1", False),
    ],
)
def test_only_what_was_refused_or_never_sent_is_surely_free(error: str, message: str, billed: bool) -> None:
    assert may_be_billed(error, message) is billed


@pytest.mark.parametrize("text", ["plain words", "漢字かな交じり文" * 50, "a=b+[{}]();\n\t" * 40, "🙂" * 30, ""])
def test_no_text_has_more_tokens_than_bytes(text: str) -> None:
    assert most_tokens(a_request(text)) >= len(text.encode()) + 64
    with_schema = a_request(text).model_copy(update={"response_schema": {"type": "object"}})
    assert most_tokens(with_schema) > most_tokens(a_request(text)) + 600


def test_params_can_ask_for_more_than_max_tokens() -> None:
    assert most_answers(a_request(max_tokens=100), 100) == 100
    assert most_answers(a_request(max_completion_tokens=900, n=2), 100) == 1800


def test_shares_of_a_budget_never_sum_to_more_and_are_never_too_small_to_use() -> None:
    assert share_budget(10.0, 0.1, 4) == [2.5] * 4
    assert share_budget(1.0, 0.4, 4) == [0.5] * 2
    assert share_budget(0.3, 0.4, 4) == []
    assert share_budget(1.0, 0.0, 2) == [0.5] * 2


def test_an_account_without_a_cap_takes_all() -> None:
    ledger = Ledger()
    ledger.reserve("a", 1e9)
    assert (ledger.left_usd, ledger.committed_usd, ledger.is_open("a")) == (None, 1e9, True)
    ledger.cap_usd = 1.0
    assert (ledger.left_usd, ledger.fits(0.1)) == (0.0, False)


def test_a_stopped_run_sends_nothing_more_and_counts_what_it_gave_up(make_asker: Callable[..., Asker], store: Store) -> None:
    asker = make_asker(Slow(store, 0.1, 0.4), budget_usd=5.0)

    async def run() -> BaseException | None:
        with store.writing():
            task = asyncio.create_task(asker.answer(a_request("a")))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            asker.stop()
            return (await asyncio.gather(asker.answer(a_request("b")), return_exceptions=True))[0]  # type: ignore[return-value]

    assert "stopped" in str(asyncio.run(run()))
    assert store.query("SELECT error, billed, worst_usd FROM failures") == [{"error": "Cancelled", "billed": "maybe", "worst_usd": 0.4}]


def test_spending_tells_billed_from_perhaps_billed_by_model_and_generator(make_asker: Callable[..., Asker], store: Store) -> None:
    teacher = Slow(store, cost=0.1, worst=0.4, fails=lambda n: ("Timeout", "no answer") if n == 1 else None)
    ask_all(make_asker(teacher), "a", "b")
    (row,) = store.query("SELECT model, role, generator, calls, cost_usd, unanswered, unknown_usd FROM spending")
    assert row == {
        "model": "test/big", "role": "teacher", "generator": "topic", "calls": 2, "cost_usd": pytest.approx(0.2), "unanswered": 1,
        "unknown_usd": 0.4,
    }  # fmt: skip


def test_a_log_line_of_a_table_that_nobody_knows_is_damage(store: Store) -> None:
    store.log_path.write_text(json.dumps(["nonsense", {}]) + "\n")
    with pytest.raises(StoreError, match="is damaged"):
        Store(store.path)


def test_text_that_no_database_can_hold_is_mended_before_it_is_used(make_asker: Callable[..., Asker], scripted: Any, store: Store) -> None:
    (answer,) = ask_all(make_asker(scripted(lambda request: '{"intent": "la\ud83dte\0"}')), "a")
    assert store.answers()[answer.call_id].text == answer.text == '{"intent": "la?te"}'


def test_a_reader_may_open_the_store_while_a_run_writes(store: Store, tmp_path: Path) -> None:
    with store.writing():
        store.add_call(a_request("a"), Response(request_id=a_request("a").id, text="x"))
        assert Store(store.path).query("SELECT count(*) AS n FROM calls") == [{"n": 0}]
