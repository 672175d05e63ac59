"""Check a built site: internal links and anchors, nothing loaded from elsewhere, lists and tables rendered."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

# Attributes of elements that make a browser load something.
LOADED = {("img", "src"), ("script", "src"), ("link", "href"), ("video", "src"), ("iframe", "src")}
LINKED = LOADED | {("a", "href")}
# Links of an HTML head that name a page and load nothing.
NOT_LOADED = {"canonical", "prev", "next", "alternate"}


class Page(HTMLParser):
    """Anchors, links and paragraphs of one HTML page.

    Attributes:
        anchors: values of `id` and `name`.
        links: URLs of links and of what is loaded.
        loaded: URLs of what is loaded.
        paragraphs: texts of paragraphs, without code.
    """

    def __init__(self, text: str):
        super().__init__()
        self.anchors, self.links, self.loaded, self.paragraphs = set(), [], [], []
        self._in_paragraph, self._in_code = False, 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        for key in ("src", "href"):
            if values.get(key) and (tag, key) in LINKED and values.get("rel") not in NOT_LOADED:
                self.links.append(values[key])
                if (tag, key) in LOADED:
                    self.loaded.append(values[key])
        self._in_code += tag == "code"
        if tag == "p":
            self._in_paragraph = True
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_code -= tag == "code"
        if tag == "p":
            self._in_paragraph = False

    def handle_data(self, data: str) -> None:
        if self._in_paragraph:
            self.paragraphs[-1] += re.sub(r"\S", "x", data) if self._in_code else data


def check_site(folder: Path) -> list[str]:
    """Return the problems of all pages in a folder, one line each."""
    pages = {path: Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}
    problems = [] if pages else [f"no HTML page in {folder}."]
    for path, page in pages.items():
        name = path.relative_to(folder)
        problems += [f"{name}: broken link {link}" for link in page.links if _broken(link, path, folder, pages)]
        problems += [f"{name}: loads {url} from elsewhere" for url in page.loaded if urlsplit(url).netloc]
        for text in page.paragraphs:
            if found := re.search(r"^ *(- |\d+\. |\||```|\$\$).*", text, re.M):
                problems.append(f"{name}: Markdown is shown as text: {found[0].strip()}")
    return problems


def _broken(link: str, path: Path, folder: Path, pages: dict[Path, Page]) -> bool:
    """Return True if an internal link of the page at `path` leads nowhere."""
    url, anchor = urldefrag(link)
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        return False
    base = folder if parts.path.startswith("/") else path.parent
    file = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
    file = file / "index.html" if file.is_dir() else file
    if not file.is_file():
        return True
    return bool(anchor) and file in pages and unquote(anchor) not in pages[file].anchors
