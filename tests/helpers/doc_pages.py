"""Reading of Markdown pages."""

import re
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)


class CodeBlock(NamedTuple):
    """Code block of a page.

    Attributes:
        language: first word after the fence.
        code: its content.
        reason: why no test runs it, from the comment `<!-- not run: REASON -->` above it; None if a test runs it.
    """

    language: str
    code: str
    reason: str | None

    @property
    def lines(self) -> list[str]:
        """Commands of the block: lines, continued ones joined, without comments and empty ones."""
        lines = re.sub(r" *\\\n *", " ", self.code).splitlines()
        return [line for line in lines if line and not line.startswith("#")]


def all_blocks(page: Path) -> list[CodeBlock]:
    """Return the code blocks of a page, those that no test runs included."""
    blocks = BLOCK.finditer(page.read_text())
    return [CodeBlock(block["language"], block["code"], block["reason"]) for block in blocks]


def code_blocks(page: Path, language: str) -> list[str]:
    """Return the content of the page's code blocks in a language that are not marked as not run."""
    return [block.code for block in all_blocks(page) if block.language == language and block.reason is None]


def headings(page: Path) -> set[str]:
    """Return the anchors of the page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
