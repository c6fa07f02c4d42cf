"""The money of a store in memory: what is spent, what may have been billed, what is reserved for calls in flight, and the cap.

A cap holds because the most that a call can cost is reserved before it is sent. What came back is settled at its price; what
never came back stays counted at its worst case, for the provider may have billed it.
"""

import json
import re
from collections.abc import Mapping

from datagen.errors import BudgetError
from datagen.records import Request

_ROUNDING_USD = 1e-9  # sums of floats; far below the smallest price of a call


def money(usd: float) -> str:
    """Dollars for people: cents, or four places for a small sum."""
    return f"${usd:,.2f}" if usd >= 10 else f"${usd:.4f}"


class Ledger:
    """The account of one store. All amounts are US dollars.

    spent_usd    the price of all answers, also of those that were of no use
    unknown_usd  the most that attempts without an answer can have cost (a timeout, a lost connection, a killed process)
    open_usd     reserved for calls in flight
    """

    def __init__(self, cap_usd: float | None = None) -> None:
        self.cap_usd = cap_usd
        self.reset(0.0, 0.0, {})

    def reset(self, spent_usd: float, unknown_usd: float, open_usd: Mapping[str, float]) -> None:
        """Begin anew from what is stored; the cap stays."""
        self.spent_usd = spent_usd
        self.unknown_usd = unknown_usd
        self._open = dict(open_usd)
        self.open_usd = sum(open_usd.values())

    @property
    def committed_usd(self) -> float:
        """What counts against the cap: spent, perhaps billed, and in flight."""
        return self.spent_usd + self.unknown_usd + self.open_usd

    @property
    def left_usd(self) -> float | None:
        """What is left under the cap; None where there is no cap."""
        return None if self.cap_usd is None else max(0.0, self.cap_usd - self.committed_usd)

    def fits(self, usd: float) -> bool:
        """Whether a call that costs at most `usd` may be sent now."""
        return self.cap_usd is None or self.committed_usd + usd <= self.cap_usd + _ROUNDING_USD

    def is_open(self, key: str) -> bool:
        """Whether money is reserved under `key`."""
        return key in self._open

    def reserve(self, key: str, usd: float) -> None:
        """Set `usd` aside for the call `key`. Raises BudgetError where it does not fit."""
        if not self.fits(usd):
            raise BudgetError(self.why_not(usd))
        self._open[key] = usd
        self.open_usd += usd

    def why_not(self, usd: float) -> str:
        """Why a call that may cost `usd` is not sent, and what to do."""
        unknown = f", {money(self.unknown_usd)} may have been billed for calls that never came back" if self.unknown_usd else ""
        return (
            f"the next call may cost {money(usd)}, and {money(self.spent_usd)} of budget_usd {self.cap_usd} is spent{unknown}. "
            "Raise budget_usd in the recipe to go on; what was answered is kept."
        )

    def settle(self, key: str, usd: float) -> None:
        """The call `key` came back and cost `usd`; a call without a reservation counts too."""
        self._close(key)
        self.spent_usd += usd

    def lose(self, key: str, usd: float = 0.0) -> float:
        """The call `key` gave no answer but may have been billed: what was reserved, or else `usd`, stays counted; returns it."""
        usd = self._close(key) or usd
        self.unknown_usd += usd
        return usd

    def release(self, key: str) -> bool:
        """The call `key` was not billed, or not sent: give its reservation back. False where there was none."""
        return self._close(key) > 0

    def _close(self, key: str) -> float:
        usd = self._open.pop(key, 0.0)
        self.open_usd = self.open_usd - usd if self._open else 0.0
        return usd


# A provider charges for none of these: it refused, or was not there.
_NOT_BILLED = {
    "RateLimitError", "AuthenticationError", "PermissionDeniedError", "NotFoundError", "BadRequestError", "UnprocessableEntityError",
    "ContextWindowExceededError", "ContentPolicyViolationError", "UnsupportedParamsError", "ServiceUnavailableError",
    "InternalServerError", "BudgetExceededError",
}  # fmt: skip
_CUT = re.compile(r"connect|timed? ?out|incomplete|payload|reset by peer|\beof\b", re.IGNORECASE)
_NOT_SENT = re.compile(r"nobody answers|cannot connect|refused|name or service not known", re.IGNORECASE)
_STATUS = re.compile(r"\d{3}: ")


def may_be_billed(error: str, message: str) -> bool:
    """Whether a provider may charge for a try that ended in `error` (its class name): all but what was refused or never sent.

    litellm calls a lost connection InternalServerError too, so there the message decides; one that begins with a status came back.
    """
    if _NOT_SENT.search(message):
        return False
    return error not in _NOT_BILLED or (error == "InternalServerError" and not _STATUS.match(message) and bool(_CUT.search(message)))


_MESSAGE_TOKENS = 16  # what a chat template puts round a message
_REQUEST_TOKENS = 64
_TOOL_TOKENS = 600  # what Anthropic adds to a request that carries a tool; others add less


def most_tokens(request: Request) -> int:
    """More input tokens than a request can have: one for every byte of UTF-8, the bound of byte-level BPE, and the template's own."""
    total = _REQUEST_TOKENS
    for message in request.messages:
        text = message.content
        total += _MESSAGE_TOKENS + (len(text) if text.isascii() else len(text.encode(errors="replace")))
    if request.response_schema is not None:
        total += len(json.dumps(dict(request.response_schema))) + _TOOL_TOKENS
    return total


def most_answers(request: Request, max_tokens: int) -> int:
    """More output tokens than a request can bring: `max_tokens`, or what its params say, for each of the answers it asks for."""
    limits = [request.params.get(name) for name in ("max_tokens", "max_completion_tokens")]
    return int(request.params.get("n") or 1) * max([max_tokens, *(int(limit) for limit in limits if limit)])


def share_budget(left_usd: float, worst_usd: float, processes: int) -> list[float]:
    """Equal shares of what is left for processes that work at the same time, each a cap of its own; their sum is `left_usd`.

    A share below `worst_usd`, the most that one call can cost, would be money that nobody can use: then there are fewer shares
    than processes, perhaps none. Hand a share out with `Store.reserve` under the process's name, so that it stays counted if
    the process dies; settle it with what the process spent.
    """
    if worst_usd > 0:
        processes = min(processes, int((left_usd + _ROUNDING_USD) / worst_usd))
    return [left_usd / processes] * processes if processes > 0 else []
