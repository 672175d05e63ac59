"""The table of presets agrees with the code."""

import re
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

from cdred import preset

PAGE = Path(__file__).parents[2] / "docs" / "presets.md"


def flat(tree, prefix=""):
    values = {}
    for key, value in tree.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return values


def as_text(value):
    if isinstance(value, float) and len(str(value)) > 6:
        return str(Fraction(value).limit_denominator(100))
    return str(value)


def test_table_lists_exactly_the_options_that_differ():
    presets = [flat(asdict(preset(name))) for name in ("paper", "cpu", "debug")]
    expected = {
        key: tuple(as_text(values[key]) for values in presets)
        for key in presets[0]
        if key != "preset" and len({str(values[key]) for values in presets}) > 1
    }
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| [^|]*\|$", PAGE.read_text(), re.M)
    assert {key: tuple(values) for key, *values in rows} == expected
