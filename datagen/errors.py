"""Errors a user can mend. The CLI prints them without a traceback and exits 2; anything else is a bug.

RetortError
|-- ConfigError      a recipe, taxonomy or prompt file is wrong: says file, path, field
|-- StoreError       the store is locked, damaged, or of a newer version
|-- TeacherError     a model cannot be reached: unknown, no key, refused for good
|   |-- BudgetError  the next call could pass the recipe's budget_usd
|   `-- StoppedError the user stopped the run
`-- ParseError       a teacher's answer is not in the form that was asked (becomes a failed item)
"""


class RetortError(Exception):
    """Something the user can mend; the message says what was found, where, and what to do."""


class ConfigError(RetortError):
    """A recipe, taxonomy or prompt file is wrong."""


class StoreError(RetortError):
    """The store cannot be opened or is not what this version writes."""


class TeacherError(RetortError):
    """A model cannot be reached or refused for good."""


class BudgetError(TeacherError):
    """The next call could pass `budget_usd`."""


class StoppedError(TeacherError):
    """The user stopped the run: no further call is sent."""


class ParseError(RetortError):
    """A teacher's answer is not in the form that was asked. `reason` says so in a word, to count by."""

    def __init__(self, message: str, reason: str = "not in the form that was asked") -> None:
        super().__init__(message)
        self.reason = reason
