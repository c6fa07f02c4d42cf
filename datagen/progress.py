"""How far a run is, in words: items by generator, examples, calls a second, rate limits met, dollars, and the time left as a range."""

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from datagen.ledger import money
from datagen.records import PlanItem

if TYPE_CHECKING:  # it loads DuckDB, which --help can do without
    from datagen.ask import Asker

_WINDOWS = 12  # of ticks; the time left is told from these alone, for a run that begins with stored answers begins fast


class Watch:
    """A run as it goes. `ended` is told of every item, `tick` of the time; all else is read from the asker when it is asked for."""

    def __init__(self, items: Sequence[PlanItem], asker: "Asker", now: float) -> None:
        self._asker = asker
        self._planned: dict[str, int] = {}
        for item in items:
            self._planned[item.generator] = self._planned.get(item.generator, 0) + 1
        self._ended = dict.fromkeys(self._planned, 0)
        self._inputs, self._inputs_ended = sum(item.count for item in items), 0
        self._ticks: deque[tuple[float, int, int]] = deque([(now, 0, 0)], maxlen=_WINDOWS + 1)

    def ended(self, item: PlanItem) -> None:
        """An item ended."""
        self._ended[item.generator] += 1
        self._inputs_ended += item.count

    @property
    def items_ended(self) -> int:
        """How many items ended, of all generators."""
        return sum(self._ended.values())

    def tick(self, now: float) -> None:
        """Take the time, some seconds after the last."""
        self._ticks.append((now, self._inputs_ended, self._asker.calls))

    def calls_per_s(self) -> float:
        """Answers that came in a second, over the last ticks."""
        (first, _, before), (last, _, after) = self._ticks[0], self._ticks[-1]
        return (after - before) / (last - first) if last > first else 0.0

    def seconds_left(self) -> tuple[float, float] | None:
        """Between what bounds the run most likely ends: two standard errors of the pace either way. None while too little is seen."""
        ticks = list(self._ticks)
        paces = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(ticks) if b[0] > a[0]]
        if len(paces) < 3 or not sum(paces):
            return None
        mean = sum(paces) / len(paces)
        error = math.sqrt(sum((pace - mean) ** 2 for pace in paces) / (len(paces) - 1) / len(paces))
        left = self._inputs - self._inputs_ended
        return left / (mean + 2 * error), left / max(mean - 2 * error, mean / 3)

    def line(self) -> str:
        """All of it in one line."""
        ledger = self._asker.store.ledger
        parts = [", ".join(f"{name} {self._ended[name]}/{planned}" for name, planned in self._planned.items())]
        parts += [f"{self._asker.examples:,} examples", f"{self.calls_per_s():.1f} calls/s"]
        limited = self._asker.store.failures["RateLimitError"]
        if limited:
            parts.append(f"{limited} rate limits met")
        other = self._asker.store.failures.total() - limited
        if other:
            parts.append(f"{other} errors")
        if ledger.committed_usd or ledger.cap_usd is not None:
            of = f" of {money(ledger.cap_usd)}" if ledger.cap_usd is not None else ""
            parts.append(f"{money(ledger.spent_usd)}{of}")
        left = self.seconds_left()
        parts.append("time left not known yet" if left is None else f"{between(*left)} left")
        return " | ".join(parts)


def between(low_s: float, high_s: float) -> str:
    """A range of time for people: "4 to 7 min", "40 to 55 s"."""
    for unit, seconds in (("h", 3600), ("min", 60), ("s", 1)):
        if high_s >= 2 * seconds or seconds == 1:
            low, high = math.floor(low_s / seconds), math.ceil(high_s / seconds)
            return f"about {high} {unit}" if low == high else f"{low} to {high} {unit}"
    raise AssertionError("seconds are the last unit")
