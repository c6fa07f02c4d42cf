"""Table of contents of the filters: what decides whether an example is fit for training.

An example filter is `(Example, FilterContext) -> reason or None`; a set filter is `(examples by id, FilterContext) -> verdicts`.
A reason begins with its kind and a colon ("label: asked card_arrival, answered change_pin"), so that
`split_part(reason, ':', 1)` groups reasons in SQL. To add a filter: a function, a line here, its settings in context.DEFAULTS.
"""

from collections.abc import Callable, Mapping, Sequence

from datagen.filters.context import DEFAULTS, FilterContext
from datagen.filters.decontaminate import decontaminate
from datagen.filters.dedup import duplicate, near_duplicate
from datagen.filters.quota import earlier, quota, too_near_seed
from datagen.filters.scores import judge
from datagen.filters.text import language, length, pii, refusal, schema
from datagen.filters.truth import preference, truth
from datagen.records import Example, Verdict

ExampleFilter = Callable[[Example, FilterContext], str | None]
SetFilter = Callable[[Sequence[Example], FilterContext], list[Verdict]]

EXAMPLE_FILTERS: Mapping[str, ExampleFilter] = {
    "schema": schema,
    "length": length,
    "refusal": refusal,
    "language": language,
    "pii": pii,
    "truth": truth,
    "preference": preference,
    "judge": judge,
}

# The gate runs over all examples; the others over what every filter before them kept: `quota` is the last, for it counts what is left.
GATES: Mapping[str, SetFilter] = {"decontaminate": decontaminate}
SET_FILTERS: Mapping[str, SetFilter] = {
    "earlier": earlier,
    "duplicate": duplicate,
    "near_duplicate": near_duplicate,
    "too_near_seed": too_near_seed,
    "quota": quota,
}

__all__ = [
    "DEFAULTS", "EXAMPLE_FILTERS", "GATES", "SET_FILTERS", "ExampleFilter", "FilterContext", "SetFilter",
]  # fmt: skip
