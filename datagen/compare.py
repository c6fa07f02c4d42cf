"""Evaluation by models: a judge compares the answers of two systems in both orders, and a teacher answers rows that others answered.

    pairs = pair_up(Path("answers/test/few_shot.jsonl"), Path("answers/test/dpo.jsonl"))
    found = await judge_pairs(pairs, asker)
    summary = summarize(found.results, a="few_shot", b="dpo")

Both go through `Ask` like everything that is asked: journaled, found again in the store, held to the budget. A file of answers has one
JSON object a line, {"id", "input", "answer"}, as an evaluation of the training half leaves them.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datagen.ask import Ask, Asker, CompletesRequests, Deferred
from datagen.errors import BudgetError, ConfigError, ParseError, StoppedError, TeacherError
from datagen.generators._example import ask_task, completion_text
from datagen.ledger import money
from datagen.parse import parse_better
from datagen.records import PlanItem, Request, Response
from datagen.review import exact_interval

DRAIN_S = 5.0
RESAMPLES = 1000
_QUANTILES = (0.025, 0.975)
_PRIOR_SD = 2.5  # of both coefficients: weakly informative, so that perfect separation gives a number (Gelman et al. 2008)
Floats = NDArray[np.float64]


class Given(NamedTuple):
    """One system's answer to one row."""

    id: str
    input: str
    answer: str


class Pair(NamedTuple):
    """Two systems' answers to the same row."""

    id: str
    input: str
    a: str
    b: str


class Judgement(NamedTuple):
    """What the judge said of a pair: "A", "B" or "tie" of what stood first and second, with `a` first and with `b` first.

    Equal answers are a tie that nobody was asked for: both words are empty.
    """

    id: str
    a_first: str
    b_first: str
    length_a: int
    length_b: int

    @property
    def points(self) -> float:
        """From -1 (a is better in both orders) to 1 (b is)."""
        return ({"A": -1, "B": 1}.get(self.a_first, 0) + {"A": 1, "B": -1}.get(self.b_first, 0)) / 2


class Asked(NamedTuple):
    """What came of asking: results, what is missing by reason, and why it ended early, if it did."""

    results: list[Any]
    missing: dict[str, int]
    stopped: str | None


# --- files -----------------------------------------------------------------------------------------------------------


def read_answers(path: Path) -> dict[str, Given]:
    """Answers by row id. Raises ConfigError with file and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Evaluations leave such files in runs/<id>/answers/.") from error
    found: dict[str, Given] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            given = Given(*(record[name] for name in Given._fields))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f'{path}:{number}: not {{"id", "input", "answer"}}: {error!r}.') from error
        if not all(isinstance(value, str) for value in given) or given.id in found:
            raise ConfigError(f"{path}:{number}: id, input and answer must be texts, and each id comes once; found {given.id!r}.")
        found[given.id] = given
    if not found:
        raise ConfigError(f"{path}: has no answers.")
    return found


def pair_up(a: Path, b: Path, rows: int | None = None) -> list[Pair]:
    """The pairs of two files, in the order of a hash of their ids, so that the first `rows` are a fair sample.

    Raises ConfigError where the files do not answer the same rows.
    """
    ours, theirs = read_answers(a), read_answers(b)
    if ours.keys() != theirs.keys():
        only = sorted(ours.keys() ^ theirs.keys())
        raise ConfigError(
            f"{a} and {b}: not the same rows; {len(only)} are in one of them alone, such as {only[0]!r}. Evaluate both again."
        )
    other = [row for row in ours if ours[row].input != theirs[row].input]
    if other:
        raise ConfigError(f"{a} and {b}: row {other[0]!r} has another input in each. Evaluate both again.")
    order = sorted(ours, key=lambda row: sha256(row.encode()).hexdigest())
    return [Pair(row, ours[row].input, ours[row].answer, theirs[row].answer) for row in order[:rows]]


def names_of(a: Path, b: Path) -> tuple[str, str]:
    """What to call two systems: the names of their files, with the run's where those are equal."""
    if a.stem != b.stem:
        return a.stem, b.stem
    first, second = (f"{path.resolve().parents[2].name}-{path.stem}" for path in (a, b))
    return (first, second) if first != second else (f"{a.stem} (a)", f"{b.stem} (b)")


# --- asking ----------------------------------------------------------------------------------------------------------


async def judge_pairs(pairs: Sequence[Pair], asker: Asker, interrupt: asyncio.Event | None = None) -> Asked:
    """Ask the judge for every pair, in both orders. A spent budget or an interrupt leaves what was judged so far."""

    async def one(ask: Ask, pair: Pair) -> Judgement:
        if pair.a == pair.b:
            return Judgement(pair.id, "", "", len(pair.a), len(pair.b))
        # the order is in the messages: the same draw for both lets the files be given in either order
        forth, back = await ask.together(
            ask("compare", parse_better, role="judge", draw=pair.id, input=pair.input, first=pair.a, second=pair.b),
            ask("compare", parse_better, role="judge", draw=pair.id, input=pair.input, first=pair.b, second=pair.a),
        )
        return Judgement(pair.id, forth.value, back.value, len(pair.a), len(pair.b))

    return await _each("compare", pairs, one, asker, interrupt)


async def answer_rows(rows: Sequence[Given], asker: Asker, interrupt: asyncio.Event | None = None) -> Asked:
    """Let the teacher answer rows as it answers inputs of the data set; one that it cannot answer gets an empty answer."""

    async def one(ask: Ask, row: Given) -> Given:
        try:
            answer = await ask_task(ask, row.input, draw=row.id)
        except ParseError:
            return row._replace(answer="")
        return row._replace(answer=completion_text(answer.value, ask.output_schema))

    return await _each("answer", rows, one, asker, interrupt)


async def _each(
    name: str, rows: Sequence[Any], work: Callable[[Ask, Any], Awaitable[Any]], asker: Asker, interrupt: asyncio.Event | None
) -> Asked:
    """`work` on every row, as many at a time as the asker lets through."""
    ask = Ask(asker, PlanItem(topic="evaluation", generator=name, index=0, count=len(rows)))
    results: list[Any] = []
    stopped: list[str] = []

    async def one(index: int, _: str) -> None:
        try:
            results.append(await work(ask, rows[index]))
        except (BudgetError, StoppedError) as error:
            stopped.append(str(error))
        except TeacherError as error:
            if type(error) is not TeacherError:
                asker.stop()  # what every call would meet
            raise

    asking: asyncio.Future[Any] = asyncio.ensure_future(ask.each([row.id for row in rows], one))
    watch = asyncio.ensure_future((interrupt or asyncio.Event()).wait())
    try:
        await asyncio.wait([asking, watch], return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            asker.stop()
            await asyncio.wait([asking], timeout=DRAIN_S)
        if not asking.done():
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        else:
            with contextlib.suppress(Deferred):
                await asking
    finally:
        watch.cancel()
    missing: dict[str, int] = {}
    for problem in ask.problems:
        missing[problem.reason] = missing.get(problem.reason, 0) + problem.inputs
    return Asked(sorted(results, key=lambda result: str(result.id)), missing, stopped[0] if stopped else None)


class Weigher:
    """A teacher that answers nothing and counts what it is asked, with the most that it can cost."""

    def __init__(self, teacher: CompletesRequests) -> None:
        self._teacher, self.calls, self.usd = teacher, 0, 0.0

    async def complete(self, request: Request) -> Response:
        """Count the request. Raises Deferred, so that what does not need its answer is counted too."""
        self.calls += 1
        self.usd += self._teacher.worst_case_usd(request)
        raise Deferred

    def worst_case_usd(self, request: Request) -> float:
        """Nothing is reserved for what is not asked."""
        return 0.0


# --- what was said ---------------------------------------------------------------------------------------------------


def summarize(judgements: Sequence[Judgement], *, a: str, b: str, seed: int = 0) -> dict[str, Any]:
    """Win, tie and loss of `b`, its win rate, position and length bias, each with a 95 % interval over rows, and what follows in words.

    Shares of rows have exact intervals, all else the bootstrap over rows, which keeps both orders of a row together.

    win_rate                   ties count half
    position                   how often what stood first was preferred, of all verdicts that were no tie; 0.5 is no bias
    agreement                  both orders name the same answer, or both say tie
    longer                     of decided rows whose answers differ in length, how often the longer one won; 0.5 is no bias
    length_slope               of a logistic regression of b's score on tanh(difference in length / its standard deviation)
    win_rate_at_equal_length   its prediction at no difference: the length-controlled win rate of Dubois et al. 2024 for one pair of
                               systems. It takes away what length explains, also where longer answers are better for good reason
    """
    if not judgements:
        raise ConfigError("nothing was judged, so there is nothing to say. See the reasons above, and run again.")
    points = np.array([j.points for j in judgements])
    score = (points + 1) / 2
    asked = [j for j in judgements if j.a_first]
    times = np.random.default_rng(seed).multinomial(len(points), np.full(len(points), 1 / len(points)), RESAMPLES).astype(float)
    said = [(j.a_first, j.b_first) for j in judgements]
    first = np.array([words.count("A") for words in said], dtype=float)
    decisions = np.array([words.count("A") + words.count("B") for words in said], dtype=float)
    gap = np.array([j.length_b - j.length_a for j in judgements], dtype=float)
    decided = (gap != 0) & (points != 0)
    same = sum({"A": "B", "B": "A"}.get(j.a_first, j.a_first) == j.b_first for j in asked)
    found: dict[str, Any] = {
        "a": a,
        "b": b,
        "rows": len(judgements),
        "identical": len(judgements) - len(asked),
        "win": _share(int((points > 0).sum()), len(points)),
        "tie": _share(int((points == 0).sum()), len(points)),
        "lose": _share(int((points < 0).sum()), len(points)),
        "win_rate": _ratio(score, np.ones(len(points)), times),
        "agreement": _share(same, len(asked)) if asked else None,
        "position": _ratio(first, decisions, times) if decisions.any() else None,
        "longer": _share(int((np.sign(gap) == np.sign(points))[decided].sum()), int(decided.sum())) if decided.any() else None,
        "length_slope": None,
        "win_rate_at_equal_length": None,
    }
    if gap.std() > 0:
        level, slope = _length_model(np.tanh(gap / gap.std()), score, np.vstack([np.ones(len(gap)), times]))
        found["length_slope"] = _with_quantiles(slope)
        found["win_rate_at_equal_length"] = _with_quantiles(1 / (1 + np.exp(-level)))
    return {**found, "sentence": _sentence(found), "warnings": _warnings(found)}


def _share(count: int, total: int) -> dict[str, float]:
    low, high = exact_interval(count, total)
    return {"value": count / total, "low": low, "high": high}


def _ratio(above: Floats, below: Floats, times: Floats) -> dict[str, float]:
    """Sum of `above` over sum of `below`; where all resampled rows are alike, with the exact interval of a share of as many rows."""
    value, total = float(above.sum() / below.sum()), times @ below
    low, high = np.quantile((times @ above)[total > 0] / total[total > 0], _QUANTILES)
    if high - low < 1e-9:
        rows = int((below > 0).sum())
        low, high = exact_interval(round(value * rows), rows)
    return {"value": value, "low": float(low), "high": float(high)}


def _with_quantiles(values: Floats) -> dict[str, float]:
    """The first value is that of the rows as they are, the others of resampled ones."""
    low, high = np.quantile(values[1:], _QUANTILES)
    return {"value": float(values[0]), "low": float(min(low, values[0])), "high": float(max(high, values[0]))}


def _length_model(length: Floats, score: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Level and slope of score = logistic(level + slope * length), for each line of `weights` (fits, rows), by Newton's method.

    A score of one half is half a win. Both coefficients have a normal prior, which 0.5 / variance each weighs.
    """
    level, slope = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(25):
        chance = 1 / (1 + np.exp(-(level[:, None] + slope[:, None] * length)))
        off = weights * (score - chance)
        steep = weights * chance * (1 - chance)
        g0, g1 = off.sum(1) - level / _PRIOR_SD**2, off @ length - slope / _PRIOR_SD**2
        h00, h01, h11 = steep.sum(1) + 1 / _PRIOR_SD**2, steep @ length, steep @ length**2 + 1 / _PRIOR_SD**2
        det = h00 * h11 - h01**2
        step0, step1 = (h11 * g0 - h01 * g1) / det, (h00 * g1 - h01 * g0) / det
        level, slope = level + np.clip(step0, -2, 2), slope + np.clip(step1, -2, 2)
        if max(np.abs(step0).max(), np.abs(step1).max()) < 1e-8:
            break
    return level, slope


def _told(share: Mapping[str, float]) -> str:
    return f"{share['value']:.1%} (95 % interval {share['low']:.1%} to {share['high']:.1%})"


def _sentence(found: Mapping[str, Any]) -> str:
    rate = found["win_rate"]
    verdict = "no clear difference"
    if rate["low"] > 0.5 or rate["high"] < 0.5:
        verdict = f"{found['b'] if rate['low'] > 0.5 else found['a']} is better"
    return (
        f"On {found['rows']:,} rows {found['b']} wins {found['win']['value']:.1%}, ties {found['tie']['value']:.1%} and loses "
        f"{found['lose']['value']:.1%} against {found['a']}: a win rate of {_told(rate)}, {verdict}."
    )


def _warnings(found: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the judge before believing it."""
    lines = []
    position, slope = found["position"], found["length_slope"]
    if position and not position["low"] <= 0.5 <= position["high"]:
        which = "first" if position["value"] > 0.5 else "second"
        lines.append(
            f"Position bias: what stands first is preferred in {_told(position)} of decided verdicts, so the judge leans to the {which}. "
            "Each pair was asked in both orders, so this costs ties and not the win rate."
        )
    if slope and not slope["low"] <= 0 <= slope["high"]:
        lines.append(
            f"Length bias, or longer answers are better: the {'longer' if slope['value'] > 0 else 'shorter'} answer wins more often "
            f"(slope {slope['value']:+.2f}, interval {slope['low']:+.2f} to {slope['high']:+.2f}). At equal length the win rate of "
            f"{found['b']} would be {_told(found['win_rate_at_equal_length'])}."
        )
    if found["agreement"] and found["agreement"]["high"] < 0.7:
        lines.append(
            f"The judge agrees with itself in {_told(found['agreement'])} of rows only when the order is swapped: look for a better one."
        )
    return lines


def render(summary: Mapping[str, Any], cost_usd: float) -> list[str]:
    """A summary in lines for the terminal."""
    lines = [summary["sentence"], *summary["warnings"]]
    if summary["agreement"]:
        lines.append(f"Both orders agree in {_told(summary['agreement'])}; {summary['identical']} pairs were equal and not asked.")
    if summary["missing"]:
        lines.append("Not judged: " + ", ".join(f"{count} {reason}" for reason, count in summary["missing"].items()) + ".")
    if summary["stopped"]:
        lines.append(f"Stopped: {summary['stopped']}")
    return [*lines, f"Judge {summary['judge']}{' (simulated)' if summary['simulated'] else ''}, {money(cost_usd)}."]
