"""Suggestions for misspelt names in error messages."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str], *, prefix: str = "", num: int = 1) -> str:
    """Return ` Did you mean ...?` with the known names closest to `word`, or an empty string if none is close.

    Args:
        word: the unknown name.
        known: the valid names.
        prefix: written before each suggestion.
        num: maximum number of suggestions.
    """
    close = get_close_matches(word, list(known), n=num)
    return f" Did you mean {', '.join(prefix + name for name in close)}?" if close else ""
