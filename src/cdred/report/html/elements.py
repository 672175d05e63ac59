"""HTML elements as trees of `xml.etree.ElementTree`. Its serializer escapes all text and attributes."""

import base64
import hashlib
from collections.abc import Iterable
from xml.etree.ElementTree import Element, tostring

from cdred.text import printable

Child = Element | str | None
Children = Child | Iterable[Child]
Attribute = str | int | float | None


def element(tag: str, *children: Children, **attributes: Attribute) -> Element:
    """Return an element.

    Args:
        tag: its name.
        children: elements and texts, or iterables of them; None is omitted. Characters of texts that are not printable
            are written as `\\x1b`: they may be from any file.
        attributes: by name, `_` for `-` and a `_` at the end for words that Python reserves (`class_`); None is
            omitted, and `""` is an attribute without a value.
    """
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    texts = {key: printable(str(value)) for key, value in named.items() if value is not None}
    return append(Element(tag, texts), *children)


def append(parent: Element, *children: Children) -> Element:
    """Append children, given as for `element`, and return the parent."""
    for child in _flat(children):
        if isinstance(child, Element):
            parent.append(child)
        elif len(parent):
            parent[-1].tail = (parent[-1].tail or "") + printable(child)
        else:
            parent.text = (parent.text or "") + printable(child)
    return parent


def _flat(children: Iterable[Children]) -> Iterable[Element | str]:
    for child in children:
        if isinstance(child, (Element, str)):
            yield child
        elif child is not None:
            yield from _flat(child)


def document(title: str, style: str, script: str, *body: Children) -> str:
    """Return an HTML document that loads nothing.

    Its content security policy lets a browser execute and apply only `script` and `style`, and show images and videos
    only from the page itself.

    Args:
        title: of the window.
        style: CSS.
        script: JavaScript.
        body: children of the body.
    """
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        # Otherwise a browser asks a server for one.
        element("link", rel="icon", href="data:,"),
        element("style", style),
    )
    root = element("html", head, element("body", *body, element("script", script)), lang="en")
    return f"<!DOCTYPE html>\n{tostring(root, encoding='unicode', method='html')}\n"


def _source(text: str) -> str:
    """Return an inline script or style as a source of a content security policy: by its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def table(caption: str, heads: Iterable[Children], rows: Iterable[Iterable[Element]], class_: str = "") -> Element:
    """Return a captioned table that scrolls sideways where it is wider than the page; `rows` are iterables of cells."""
    head = element("tr", [element("th", head, scope="col") for head in heads])
    body = element("tbody", [element("tr", row) for row in rows])
    content = element("table", element("thead", head), body, class_=class_ or None, aria_label=caption)
    # A region that scrolls must be reachable by the keyboard.
    region = element("div", content, class_="scroll", tabindex=0, role="region", aria_label=caption)
    return element("div", element("p", caption, class_="caption"), region, class_="table")


def definitions(entries: Iterable[tuple[str, Children]]) -> Element:
    """Return a list of names with their values."""
    return element("dl", [element("div", element("dt", name), element("dd", value)) for name, value in entries])
