"""What a run will take: calls, tokens, dollars and minutes, each with an interval, before anything is paid.

From the store's own items where it has some (95 % t-interval from the mean per planned call, by generator); from the lengths of the
rendered prompts and typical lengths of answers where it has none: then the interval is half to double, and says so.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datagen.ask import Asker
from datagen.config import ModelConfig
from datagen.errors import ConfigError, TeacherError
from datagen.generate import run_item
from datagen.plan import PlannedAsk, asks_of, calls_of
from datagen.prices import TokenPrices, entry, token_prices
from datagen.prompts import load_prompt, render
from datagen.records import PlanItem, Request, Response
from datagen.second import ROLE

_BYTES_PER_TOKEN = 4.0
_TYPICAL_ANSWER_TOKENS = {"answer": 90, "student": 90, "judge": 50, "compare": 50, "reason": 250, "write_turn": 40, "quote": 130}
_TOKENS_PER_WRITTEN_INPUT = 35
_TOKENS_PER_CRITERION = 40
_HOSTED_LATENCY_S = 4.0
_OFFLINE_LATENCY_S = 0.002
_BATCH_PRICE = 0.5  # OpenAI and Anthropic: half the price within 24 hours
_BATCH_PROVIDERS = ("openai", "anthropic")
_CACHED_FROM_TOKENS = 1024  # shorter prompts are not cached by OpenAI and Anthropic
_SAMPLED_ITEMS = 8


class Range(NamedTuple):
    """A number that is not known yet: what is expected, and between which bounds it most likely ends."""

    low: float
    mean: float
    high: float


def total_of(ranges: Sequence[Range]) -> Range:
    """The sum of independent numbers: their spreads add like the sides of a right angle."""
    mean = sum(entry.mean for entry in ranges)
    down = math.hypot(*(entry.mean - entry.low for entry in ranges))
    up = math.hypot(*(entry.high - entry.mean for entry in ranges))
    return Range(mean - down, mean, mean + up)


class Part(NamedTuple):
    """One generator's share. `basis` says what it was derived from: that many items of the store, or 0 for prompt lengths."""

    generator: str
    inputs: float
    calls: Range
    prompt_tokens: Range
    completion_tokens: Range
    usd: Range
    basis: int


class Forecast(NamedTuple):
    """A whole run. `cached_usd` and `batch_usd`: the same where the provider's cache, or its batch API, takes part; None where not."""

    parts: tuple[Part, ...]
    calls: Range
    prompt_tokens: Range
    completion_tokens: Range
    usd: Range
    minutes: Range
    cached_usd: float | None
    batch_usd: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        ranges = {name: getattr(self, name)._asdict() for name in ("calls", "prompt_tokens", "completion_tokens", "usd", "minutes")}
        parts = [
            {name: value._asdict() if isinstance(value, Range) else value for name, value in part._asdict().items()} for part in self.parts
        ]
        return {**ranges, "cached_usd": self.cached_usd, "batch_usd": self.batch_usd, "generators": parts}


class _Nobody:
    """A teacher that answers nothing: what the store has not got shows."""

    async def complete(self, request: Request) -> Response:
        raise TeacherError("not asked: a forecast")

    def worst_case_usd(self, request: Request) -> float:
        return 0.0


def open_inputs(items: Sequence[PlanItem], asker: Asker, *, judged: bool) -> dict[str, float]:
    """How many inputs of each item are still to be asked for, by item id; what the store answers is not. Asks nobody."""

    async def walk() -> dict[str, float]:
        left: dict[str, float] = {}
        for item in items:
            before = asker.reused
            outcome = await run_item(item, asker, judged=judged)
            if any(entry.reason == "TeacherError" for entry in outcome.problems):
                calls = calls_of(item, judged, ROLE in asker.roles)
                left[item.id] = item.count * max(0.05, 1 - (asker.reused - before) / calls)
        return left

    return asyncio.run(walk())


def nobody() -> _Nobody:
    """A teacher for `open_inputs`."""
    return _Nobody()


def forecast(
    items: Sequence[PlanItem],
    left: Mapping[str, float],
    asker: Asker,
    prices: Mapping[str, TokenPrices],
    *,
    judged: bool,
    concurrency: int,
) -> Forecast:
    """What asking for the inputs in `left` (item id -> inputs) will take."""
    second = ROLE in asker.roles
    by_generator: dict[str, list[PlanItem]] = {}
    for item in items:
        if item.id in left:
            by_generator.setdefault(item.generator, []).append(item)
    names = {_prompt(ask, asker) for own in by_generator.values() for item in _forms(own) for ask in asks_of(item, judged, second)} | {
        "write_inputs"
    }
    history = _history(asker, sorted(load_prompt(name).ref for name in names))
    parts: list[Part] = []
    latencies: list[float] = []
    shared_tokens = shared_usd = 0.0
    for generator, own in by_generator.items():
        inputs = sum(left[item.id] for item in own)
        rows = [row for row in history if row["generator"] == generator]
        guess = _guess(own, inputs, asker, prices, judged)
        shared_usd += guess.cache_saves_usd
        shared_tokens += guess.part.usd.mean
        if len(rows) >= 2:
            planned = sum(calls_of(item, judged, second) * left[item.id] / item.count for item in own)
            units = [calls_of(own[0].model_copy(update={"count": row["count"]}), judged, second) for row in rows]
            parts.append(_measured(generator, inputs, planned, rows, units))
            latencies += [row["latency_s"] for row in rows]
        else:
            parts.append(guess.part)
    calls, usd = total_of([part.calls for part in parts]), total_of([part.usd for part in parts])
    prompt_tokens = total_of([part.prompt_tokens for part in parts])
    completion_tokens = total_of([part.completion_tokens for part in parts])
    models = [config.model for config in asker.roles.values()]
    offline = all(model.startswith("offline/") for model in models)
    latency_s = sum(latencies) / len(latencies) if latencies else _OFFLINE_LATENCY_S if offline else _HOSTED_LATENCY_S
    sums = (calls, prompt_tokens, completion_tokens)
    minutes = _minutes(sums, asker.roles, latency_s, measured=bool(latencies), at_once=1 if offline else concurrency)
    batched = usd.mean and all(model.partition("/")[0] in _BATCH_PROVIDERS for model in models)
    saved = shared_usd / shared_tokens if shared_tokens else 0.0  # as a share, so that it holds for measured sums too
    return Forecast(
        tuple(parts), calls, prompt_tokens, completion_tokens, usd, minutes,
        cached_usd=usd.mean * (1 - saved) if saved else None,
        batch_usd=usd.mean * _BATCH_PRICE if batched else None,
    )  # fmt: skip


def _forms(items: Sequence[PlanItem]) -> list[PlanItem]:
    """One item for each prompt that writes inputs."""
    return list({item.writes: item for item in items}.values())


def _history(asker: Asker, refs: Sequence[str]) -> list[dict[str, Any]]:
    """What each item of the store took whose calls were made by the recipe's models with the present prompts."""
    return asker.store.item_costs(refs, {role: config.model for role, config in asker.roles.items()})


def _measured(generator: str, inputs: float, planned: float, rows: Sequence[Mapping[str, Any]], units: Sequence[int]) -> Part:
    """By the planned call (`units` of each row): items differ in how many inputs they have, and the call that writes them is shared."""

    def total(column: str) -> Range:
        return t_interval([row[column] / unit for row, unit in zip(rows, units, strict=True)], planned, sum(units) / len(units))

    columns = ("calls", "prompt_tokens", "completion_tokens", "cost_usd")
    calls, prompts, completions, usd = (total(column) for column in columns)
    return Part(generator, inputs, calls, prompts, completions, usd, len(rows))


def t_interval(per_unit: Sequence[float], units: float, units_per_item: float) -> Range:
    """The total over `units` more: a 95 % prediction interval by Student's t from items of the same kind."""
    from scipy.stats import t  # half a second to import: only where there is something to measure

    n = len(per_unit)
    mean = sum(per_unit) / n
    variance = sum((value - mean) ** 2 for value in per_unit) / (n - 1)
    spread = float(t.ppf(0.975, n - 1)) * math.sqrt(variance * units * (units / n + units_per_item))
    return Range(max(0.0, mean * units - spread), mean * units, mean * units + spread)


class _Guess(NamedTuple):
    part: Part
    cache_saves_usd: float


def _guess(own: Sequence[PlanItem], inputs: float, asker: Asker, prices: Mapping[str, TokenPrices], judged: bool) -> _Guess:
    """From what the prompts would be for some of the items, with a made-up input of ordinary length."""
    sample = [own[index * len(own) // min(len(own), _SAMPLED_ITEMS)] for index in range(min(len(own), _SAMPLED_ITEMS))]
    calls = prompts = completions = usd = saved = most = 0.0
    for item in sample:
        text = item.seed or (item.examples[0] if item.examples else "a message of about this many words, as people write them")
        for ask in asks_of(item, judged, ROLE in asker.roles):
            times = ask.times(item.count)
            before = _before(item, (item.count - 1) / 2, len(text) + _BYTES_PER_TOKEN * _TYPICAL_ANSWER_TOKENS["answer"])
            given = text if ask.prompt == "quote" else before + text
            _, messages = render(
                _prompt(ask, asker),
                {**asker.variables, "item": item, "input": given, "answer": text * 2, "first": text, "second": text, "transcript": before},
            )
            shared, whole = _tokens(messages[0].content), sum(_tokens(message.content) for message in messages)
            limit = int(asker.params[ask.role]["max_tokens"])
            typical = _TOKENS_PER_WRITTEN_INPUT * item.count if ask.writes else _answer_tokens(ask, asker)
            price = prices[ask.role]
            calls += times
            prompts += times * whole
            completions += times * min(typical, limit)
            usd += times * (price.input * whole + price.output * min(typical, limit))
            most += times * (2 * price.input * whole + price.output * min(4 * typical, limit))
            saved += times * (price.input - price.cached) * shared if shared >= _CACHED_FROM_TOKENS else 0.0
    scale = inputs / sum(item.count for item in sample)
    used = _used(own)

    def loosely(value: float) -> Range:
        return Range(value * scale * used.low / 2, value * scale * used.mean, value * scale * 2)

    exact = Range(calls * scale * used.low, calls * scale * used.mean, calls * scale * 1.1)
    price_range = loosely(usd)._replace(high=max(usd * 2, most) * scale)
    return _Guess(Part(own[0].generator, inputs, exact, loosely(prompts), loosely(completions), price_range, 0), saved * scale)


def _prompt(ask: PlannedAsk, asker: Asker) -> str:
    """The prompt of a planned question: the judge's is the rubric's where there is one."""
    rubric = asker.rubric
    return rubric.prompt_name if rubric is not None and ask.prompt == "judge" else ask.prompt


def _answer_tokens(ask: PlannedAsk, asker: Asker) -> int:
    rubric = asker.rubric
    return (
        _TOKENS_PER_CRITERION * len(rubric.criteria) if rubric is not None and ask.prompt == "judge" else _TYPICAL_ANSWER_TOKENS[ask.prompt]
    )


def _used(items: Sequence[PlanItem]) -> Range:
    """Which part of the planned calls is made. Nobody knows when a conversation will have met its goal: after one turn, or at its last."""
    if items[0].generator != "conversation":
        return Range(1.0, 1.0, 1.0)
    least = len(items) / sum(item.count for item in items)
    return Range(least, (least + 1) / 2, 1.0)


def _before(item: PlanItem, turns: float, turn_chars: float) -> str:
    """Text as long as what stands before an item's input: the passage, or the earlier turns of a conversation."""
    if item.passage is not None:
        return item.passage.block
    return "x" * int(turns * turn_chars) if item.generator == "conversation" else ""


def _tokens(text: str) -> float:
    return len(text.encode()) / _BYTES_PER_TOKEN


def _minutes(
    sums: tuple[Range, Range, Range], roles: Mapping[str, ModelConfig], latency_s: float, *, measured: bool, at_once: int
) -> Range:
    """Calls over what may be in flight, or over the slowest rate limit that the recipe states."""
    low, mean, high = (
        max([calls * latency_s / at_once / 60, *_limited(roles, calls, prompts, completions)])
        for calls, prompts, completions in zip(*sums, strict=True)
    )
    return Range(low, mean, high * 1.3) if measured else Range(low / 3, mean, high * 3)


def _limited(roles: Mapping[str, ModelConfig], calls: float, prompts: float, completions: float) -> list[float]:
    # all calls against each model's rates: an upper bound where roles share the calls between models
    amounts = {"requests": calls, "tokens": prompts + completions, "input_tokens": prompts, "output_tokens": completions}
    models = {config.model: config for config in roles.values()}
    limits = [(rate * max(1, len(config.api_bases)), name) for config in models.values() for name, rate in config.limits.by_name().items()]
    return [amounts[name] / len(models) / rate for rate, name in limits]


def worst_case_usd(items: Sequence[PlanItem], asker: Asker, teacher: Any, *, judged: bool) -> float:
    """A cap for a pilot over `items`: each of their calls, once, at its worst case. Its ledger is held to it."""
    total = 0.0
    for item in items:
        text = item.seed or (item.examples[0] if item.examples else "x" * 80)
        for ask in asks_of(item, judged, ROLE in asker.roles):
            long = text * 4
            before = _before(item, item.count - 1, 2 * _BYTES_PER_TOKEN * int(asker.params["teacher"]["max_tokens"]))
            variables = {**asker.variables, "item": item, "answer": long, "first": long, "second": long}
            variables |= {"input": before + long, "transcript": before}
            ref, messages = render(_prompt(ask, asker), variables)
            request = Request.model_construct(
                item_id=item.id, prompt=ref, role=ask.role, model=asker.roles[ask.role].model, messages=messages,
                params=asker.params[ask.role], sample="", response_schema=None,
            )  # fmt: skip
            total += ask.times(item.count) * teacher.worst_case_usd(request)
    return total


def pilot_items(items: Sequence[PlanItem], left: Mapping[str, float], per_generator: int) -> list[PlanItem]:
    """`per_generator` items of each generator that are still to be asked, evenly spread over its topics."""
    by_generator: dict[str, list[PlanItem]] = {}
    for item in items:
        if item.id in left:
            by_generator.setdefault(item.generator, []).append(item)
    chosen: list[PlanItem] = []
    for own in by_generator.values():
        count = min(per_generator, len(own))
        chosen += [own[(2 * index + 1) * len(own) // (2 * count)] for index in range(count)]
    return chosen


def known_prices(roles: Mapping[str, ModelConfig]) -> dict[str, TokenPrices]:
    """Each role's prices per token, from the recipe or litellm's table. Raises ConfigError for a model with neither."""
    found: dict[str, TokenPrices] = {}
    for role, config in roles.items():
        info = entry(config.model)
        if config.model.startswith("offline/"):
            found[role] = TokenPrices(0.0, 0.0, 0.0, 0.0)
        elif config.price is not None:
            inputs, outputs = config.price.input_per_million / 1e6, config.price.output_per_million / 1e6
            found[role] = TokenPrices(inputs, inputs, inputs, outputs)
        elif info is not None:
            found[role] = token_prices(info)
        else:
            raise ConfigError(
                f"teachers.{role}.model is {config.model!r}, whose price is not known. "
                f"Set teachers.{role}.price: {{input_per_million: ..., output_per_million: ...}} (0 for a server of your own)."
            )
    return found
