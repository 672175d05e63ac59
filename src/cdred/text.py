"""Text of messages."""


def shorten(text: str, limit: int = 80) -> str:
    """Return text on one line, cut after `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]} ..."


def plural(count: object, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is 1: `1 seed`, `3 seeds`."""
    return f"{count} {noun}{'s' * (str(count) != '1')}"


def printable(text: str) -> str:
    r"""Return text in which characters that control a terminal are escaped, such as `\x1b`; line breaks are kept.

    Names of files and the content of files may have them, and bytes that are no text.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
