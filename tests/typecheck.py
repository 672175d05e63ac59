"""Run-time type checker that `conftest.py` applies to the functions of cdred."""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

# jaxtyping decorates functions one by one, without the class that `Self` refers to.
check = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: Any})))
