"""Suggestions for misspelt names."""

import pytest

from cdred.suggest import did_you_mean

KNOWN = ("point", "paint", "line")


@pytest.mark.parametrize(
    ("word", "options", "text"),
    [
        ("pint", {}, " Did you mean point?"),
        ("pint", {"num": 3}, " Did you mean point, paint?"),
        ("lne", {"prefix": "probe/"}, " Did you mean probe/line?"),
        ("xyz", {}, ""),
    ],
)
def test_suggestion(word, options, text):
    assert did_you_mean(word, KNOWN, **options) == text
