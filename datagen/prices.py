"""What a model's tokens cost, from the price map that litellm brings along; read without importing litellm, which takes seconds."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple


class TokenPrices(NamedTuple):
    """US dollars per token: of input, of input read from the provider's cache, of input written to it, and of output."""

    input: float
    cached: float
    written: float
    output: float

    def cost_usd(self, input_tokens: int, cached_tokens: int, written_tokens: int, output_tokens: int) -> float:
        """The bill of a call; cached and written tokens are part of the input."""
        fresh = input_tokens - cached_tokens - written_tokens
        return self.input * fresh + self.cached * cached_tokens + self.written * written_tokens + self.output * output_tokens


@cache
def price_map() -> dict[str, dict[str, Any]]:
    """litellm's bundled table: model name to prices, limits and abilities. Never fetched."""
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    path = Path(spec.origin).with_name("model_prices_and_context_window_backup.json")
    entries: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return entries


def entry(model: str) -> dict[str, Any] | None:
    """The table's entry of `provider/name`, which it may list without the provider."""
    found = price_map().get(model)
    if found is not None:
        return found
    provider, _, name = model.partition("/")
    found = price_map().get(name)
    return found if found is not None and found.get("litellm_provider") == provider else None


def token_prices(info: dict[str, Any]) -> TokenPrices:
    """The prices of an entry. What is not named costs what input costs."""
    inputs = float(info.get("input_cost_per_token") or 0)
    return TokenPrices(
        input=inputs,
        cached=float(info.get("cache_read_input_token_cost") or inputs),
        written=float(info.get("cache_creation_input_token_cost") or inputs),
        output=float(info.get("output_cost_per_token") or 0),
    )
