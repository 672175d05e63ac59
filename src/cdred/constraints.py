"""Types of settings, by the values that they accept, which `cdred.config.validate` enforces; check of a choice."""

import math
from collections.abc import Sequence
from typing import Annotated

from annotated_types import Interval

from cdred.errors import UserError
from cdred.suggest import suggest_value
from cdred.text import shorten

# Counters on the device have 32 bits.
INT32_MAX = 2**31 - 1

NonNegativeInt = Annotated[int, Interval(ge=0, le=INT32_MAX)]
PositiveInt = Annotated[int, Interval(ge=1, le=INT32_MAX)]
NonNegative = Annotated[float, Interval(ge=0, lt=math.inf)]
Positive = Annotated[float, Interval(gt=0, lt=math.inf)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
PositiveFraction = Annotated[float, Interval(gt=0, le=1)]
HiddenDims = tuple[PositiveInt, ...]


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check that a setting's value is one of `choices`.

    Raises:
        UserError: it is none of them; the message suggests the one that is meant.
    """
    if value not in choices:
        *others, last = map(repr, choices)
        expected = f"{', '.join(others)} or {last}"
        raise UserError(f"{name} should be {expected}, got {shorten(repr(value))}.{suggest_value(value, choices)}")
