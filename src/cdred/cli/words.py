"""The words of a command, read by tyro; what it says of wrong ones in the form of a `UserError`.

tyro tells of an error in a box of many lines and ends the process. There is no public way to ask it for the facts, so
the box is taken apart, and what a word may have been meant to be is looked up among the options that `--help` lists.
"""

import ast
import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from difflib import get_close_matches
from typing import TypeVar

from cdred.errors import UserError

T = TypeVar("T")
MOST = 300


def understood(read: Callable[[list[str]], T], words: Sequence[str], prog: str) -> T:
    """What `read` makes of `words`.

    Args:
        read: calls tyro with them.
        words: as the user gave them.
        prog: how to call the verb in a message.

    Raises:
        UserError: tyro cannot make anything of them.
        SystemExit: with code 0, after `--help`.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return read(list(words))
    except SystemExit as end:
        if not end.code:
            raise
        title, parts = _box(said.getvalue())
        raise UserError(f"{_complaint(title, parts, read, words)}\nSee `{prog} --help`.") from None


def _box(text: str) -> tuple[str, list[list[str]]]:
    """A box's title, and its lines between the rules; where only ASCII is written, it has no frame."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    framed = re.search(r"^╭─ (.+?) ─*╮$", plain, re.MULTILINE)
    title, _, rest = plain.strip().partition("\n")
    inner, within = (r"^│ (.*?) *│$", plain) if framed else (r"^  (.*?) *$", rest)
    parts: list[list[str]] = [[]]
    for line in re.findall(inner, within, re.MULTILINE):
        if re.fullmatch(r" *[─-]+", line):
            parts.append([])
        elif line:
            parts[-1].append(line)
    return framed.group(1) if framed else title.strip(), parts


def _complaint(title: str, parts: list[list[str]], read: Callable[[list[str]], object], words: Sequence[str]) -> str:
    first = " ".join(line.strip() for line in parts[0])
    if title == "Unrecognized options":
        return _unknown(first.partition(": ")[2].split(", "), parts, _options(read, words))
    choice = re.fullmatch(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of (\(.*\))\.", first, re.DOTALL)
    if choice:
        return _no_choice(*choice.groups())
    if title == "Required options":
        # Their descriptions stand further to the right.
        needed = [line.strip() for line in parts[0] if re.match(r" {4}\S", line)]
        return f"missing: {', '.join(needed)}."
    if title == "Missing argument":
        return re.sub(r"Missing value for argument '(.*?)'.*", r"\1 needs a value.", first)
    expected = f" Expected {parts[1][1].strip()}." if len(parts) > 1 and parts[1][0] == "Argument helptext:" else ""
    return _short(_plain(first).rstrip(".") + ".") + expected


def _plain(text: str) -> str:
    """Python's words for a value that is no number, in everybody's."""
    text = text.removeprefix("Error parsing ")
    text = text.replace("Could not find valid parse for arguments:", "cannot be read from")
    text = re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number", text)
    return re.sub(r"could not convert string to float: (.*)", r"\1 is not a number", text)


def _unknown(words: list[str], parts: list[list[str]], options: list[str]) -> str:
    named = [word for word in words if word.startswith("-")]
    if named:
        word = named[0].partition("=")[0]
        return f"no option {_short(word)}.{_did_you_mean(word.replace('_', '-'), options)}"
    listed = next((line for part in parts for line in part if line.startswith("Available subcommands: ")), "")
    verbs = listed.partition(": ")[2].split(", ") if listed else []
    there = f" There are {', '.join(verbs)}." if verbs else ""
    return f"nothing takes the word {_short(repr(words[0]))}.{_did_you_mean(words[0], verbs)}{there}"


def _no_choice(value: str, option: str, choices: str) -> str:
    known = [one for one in ast.literal_eval(choices) if one != "None"]
    return f"{option} {_short(value)}: expected one of {', '.join(known)}.{_did_you_mean(value, known)}"


def _options(read: Callable[[list[str]], object], words: Sequence[str]) -> list[str]:
    """Every option of the verb, as its help lists them."""
    page = io.StringIO()
    try:
        with redirect_stdout(page):
            read([*words[:1], "--help"] if words and not words[0].startswith("-") else ["--help"])
    except SystemExit:
        pass
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", page.getvalue())))


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""


def _short(text: str) -> str:
    return text if len(text) <= MOST else f"{text[:MOST]} ..."
