"""Parsing of HTML pages, with checks that every page must pass."""

from html.parser import HTMLParser
from itertools import pairwise

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
# Attributes with addresses that a browser may load or follow.
ADDRESSES = {"href", "src", "srcset", "action", "data", "poster", "xlink:href", "formaction"}


class Page(HTMLParser):
    """A page that is well-formed: every element is closed, in order.

    Attributes:
        elements: tag and attributes of every element, in order.
        ids: values of `id`.
        addresses: values of attributes that a browser may load or follow.
        tables: cells of each table as text, by its label.
        text: of all elements but scripts and styles.
    """

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._open: list[str] = []
        self._table: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute is given twice: {tag} {names}"
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.addresses += [str(value) for name, value in attrs if name in ADDRESSES]
        if tag == "table":
            self._table = self.tables.setdefault(attributes["aria-label"] or "", [])
        if tag == "tr":
            self._table.append([])
        if tag in ("td", "th"):
            self._table[-1].append("")
        elif self._in_cell() and (tag == "small" or str(attributes.get("class")).startswith("chip")):
            # On a line of its own.
            self._table[-1][-1] += "\n"
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert tag not in VOID
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("script", "style"):
            self.text += data
        if self._in_cell():
            self._table[-1][-1] += data

    def _in_cell(self) -> bool:
        return "td" in self._open or "th" in self._open

    def count(self, tag: str) -> int:
        """Return the number of elements of a tag."""
        return sum(name == tag for name, _ in self.elements)


def check_page(text: str) -> Page:
    """Parse a page, and check what holds for each: unique ids, resolving anchors, headings in order, no addresses."""
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    for address in page.addresses:
        if address.startswith("#"):
            assert address[1:] in page.ids
        else:
            assert address.startswith(("data:", "./")), address
    levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for tag, attributes in page.elements:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "svg" and attributes.get("role") == "img":
            assert attributes["aria-label"]
        if tag == "svg" and attributes.get("role") != "img":
            assert attributes["aria-hidden"] == "true"
        if tag == "img":
            assert attributes["alt"]
        if tag == "video":
            assert attributes["aria-label"]
    return page
