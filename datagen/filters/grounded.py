"""Filter on grounding: an answer from a document names words of its passage that really stand there."""

from datagen.filters.context import FilterContext
from datagen.records import Example


def grounded(example: Example, context: FilterContext) -> str | None:
    """The quotation occurs in the passage, white space aside, and is long enough to prove something."""
    if example.grounding is None:
        return None
    quote = " ".join(example.grounding.quote.split())
    least = context.setting("grounded", "min_quote_chars")
    if len(quote) < least:
        return f"grounded: the quote has {len(quote)} characters, at least {least:g}"
    if example.grounding.start is None:
        return f"grounded: the quote does not occur in {example.grounding.passage.source}: {quote[:80]!r}"
    return None
