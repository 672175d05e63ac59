"""Types of settings, by the values that they accept; `cdred.config.validate` enforces them."""

import math
from typing import Annotated

from annotated_types import Interval

# Counters on the device have 32 bits.
INT32_MAX = 2**31 - 1

NonNegativeInt = Annotated[int, Interval(ge=0, le=INT32_MAX)]
PositiveInt = Annotated[int, Interval(ge=1, le=INT32_MAX)]
NonNegative = Annotated[float, Interval(ge=0, lt=math.inf)]
Positive = Annotated[float, Interval(gt=0, lt=math.inf)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
PositiveFraction = Annotated[float, Interval(gt=0, le=1)]
HiddenDims = tuple[PositiveInt, ...]
