"""Table of contents of the filters: what decides whether an example is fit for training.

An example filter is `(Example, FilterContext) -> reason or None`; a set filter is `(examples by id, FilterContext) -> verdicts`.
A reason begins with its kind and a colon ("label: asked card_arrival, answered change_pin"), so that
`split_part(reason, ':', 1)` groups reasons in SQL. To add a filter: a function, a line here, its settings in context.DEFAULTS.
"""

from collections.abc import Callable, Mapping, Sequence

from datagen.filters.adversarial import adversarial
from datagen.filters.context import DEFAULTS, FilterContext
from datagen.filters.decontaminate import decontaminate
from datagen.filters.dedup import duplicate, near_duplicate
from datagen.filters.grounded import grounded
from datagen.filters.label_noise import label_noise
from datagen.filters.language import language
from datagen.filters.privacy import pii
from datagen.filters.quota import earlier, quota, too_near_seed
from datagen.filters.reasoning import reasoning
from datagen.filters.residue import leak, placeholder, repetition, truncated
from datagen.filters.scores import agreement, judge
from datagen.filters.semantic import semantic_duplicate
from datagen.filters.style import style
from datagen.filters.text import length, refusal, schema
from datagen.filters.truth import preference, truth
from datagen.filters.verify import verify
from datagen.records import Example, Verdict

ExampleFilter = Callable[[Example, FilterContext], str | None]
SetFilter = Callable[[Sequence[Example], FilterContext], list[Verdict]]

EXAMPLE_FILTERS: Mapping[str, ExampleFilter] = {
    "schema": schema,
    "length": length,
    "refusal": refusal,
    "language": language,
    "pii": pii,
    "repetition": repetition,
    "placeholder": placeholder,
    "leak": leak,
    "truncated": truncated,
    "truth": truth,
    "adversarial": adversarial,
    "reasoning": reasoning,
    "grounded": grounded,
    "preference": preference,
    "judge": judge,
    "agreement": agreement,
}

# Gates look at each of all examples by itself, many at once; set filters at what every filter before them kept, together: `quota` is the
# last, for it counts what is left.
GATES: Mapping[str, SetFilter] = {"decontaminate": decontaminate, "verify": verify}
SET_FILTERS: Mapping[str, SetFilter] = {
    "style": style,
    "earlier": earlier,
    "duplicate": duplicate,
    "near_duplicate": near_duplicate,
    "semantic_duplicate": semantic_duplicate,
    "too_near_seed": too_near_seed,
    "label_noise": label_noise,
    "quota": quota,
}

__all__ = [
    "DEFAULTS", "EXAMPLE_FILTERS", "GATES", "SET_FILTERS", "ExampleFilter", "FilterContext", "SetFilter",
]  # fmt: skip
