"""The run-time type checker that `conftest.py` puts on every function of cdred."""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

# jaxtyping decorates functions one by one, outside of the class that `Self` would mean.
check = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: Any})))
