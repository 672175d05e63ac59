"""Build the documentation site from the pages of `docs` and the files that they link to, and check its links.

The pages are written for reading in the repository, so they are copied to a folder in which zensical finds them, with

- links out of `docs` (to `results`, `examples`, `CONTRIBUTING.md`, ...) replaced by links to copies in the site,
- LaTeX formulas replaced by MathML, which browsers render without a script,
- list items that are only a name of the API replaced by its docstring (mkdocstrings).

Usage: python docs/site/build_site.py [--serve]
"""

import html
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from latex2mathml.converter import convert

from check_site import check_site

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# As in mkdocs.yml.
PAGES, SITE = ROOT / "build" / "site-pages", ROOT / "build" / "site"

FENCE = re.compile(r"^(```+)(\w*)[^\n]*\n(.*?)^\1$", re.M | re.S)
INLINE_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.S)
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
INLINE_MATH = re.compile(r"(?<![\w$\\])\$(?!\s)([^$]+?)(?<!\s)\$(?![\w$])")
API_ITEM = re.compile(r"^- `(cdred[\w.]*)`$", re.M)
TABLE_ROW = re.compile(r"^\|.*\|$", re.M)
SHORT_CODE = re.compile(r"(?<!`)`[^` ]{1,40}`(?!`)")
COMMENT = re.compile(r"^<!-- .*? -->\n", re.M | re.S)
API_BLOCK = "::: {path}\n    options:\n      heading: {name}\n      toc_label: {label}\n"


def main() -> int:
    """Build the site, or serve it, and return the exit code."""
    copy_pages()
    if "--serve" in sys.argv[1:]:
        return subprocess.run([zensical(), "serve"], cwd=ROOT).returncode
    # Strict mode does not count the errors that mkdocstrings logs.
    command = [zensical(), "build", "--strict", "--clean"]
    build = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    problems = check_site(SITE) if build.returncode == 0 else []
    logged = [line for line in build.stdout.splitlines() if re.match(r"\W*(error|warning)\b", line, re.I)]
    print(build.stdout, *problems, sep="\n")
    return int(bool(build.returncode or problems or logged))


def zensical() -> str:
    """Return the path of zensical beside this interpreter."""
    return str(Path(sys.executable).parent / "zensical")


def copy_pages() -> None:
    """Write all pages of `docs` and what they link to, directly or not, to `PAGES`."""
    shutil.rmtree(PAGES, ignore_errors=True)
    waiting, seen = sorted(DOCS.rglob("*.md")), set()
    while waiting:
        source = waiting.pop()
        if source in seen:
            continue
        seen.add(source)
        target = PAGES / site_path(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            text, linked = convert_page(source.read_text(), source)
            target.write_text(text)
            waiting += linked
        else:
            shutil.copy(source, target)
    shutil.copy(Path(__file__).parent / "extra.css", PAGES)


def site_path(source: Path) -> Path:
    """Return the path of a file of the repository in the site: `docs` is its root."""
    return source.relative_to(DOCS if source.is_relative_to(DOCS) else ROOT)


def convert_page(text: str, source: Path) -> tuple[str, list[Path]]:
    """Convert one page of the repository for the site.

    Args:
        text: its Markdown.
        source: its absolute path.

    Returns:
        Markdown for zensical, and the files that the page links to.

    Raises:
        ValueError: a link leads to what is not a file of the repository, or to README.md, which the site replaces.
    """
    linked = []

    def relink(match: re.Match) -> str:
        path, hash_, anchor = match[1].partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[1]
        file = (source.parent / path).resolve()
        if not file.is_file() or not file.is_relative_to(ROOT) or file == ROOT / "README.md":
            raise ValueError(f"{source}: the site cannot have the target of the link {match[1]}.")
        linked.append(file)
        return os.path.relpath(site_path(file), site_path(source).parent) + hash_ + anchor

    text = TABLE_ROW.sub(lambda row: SHORT_CODE.sub(r"\g<0>{.nowrap}", row[0]), text)
    text = FENCE.sub(lambda match: block_math(match[3]) if match[2] == "math" else match[0], text)
    text = outside_code(text, lambda part: LINK.sub(relink, COMMENT.sub("", part)))
    text = outside_code(text, lambda part: INLINE_MATH.sub(lambda match: inline_math(match[1]), part))
    return API_ITEM.sub(lambda match: api_block(match[1]), text), linked


def outside_code(text: str, function: Callable[[str], str]) -> str:
    """Apply a function to the parts of a page that are not code."""
    code = re.compile(f"{FENCE.pattern}|{INLINE_CODE.pattern.replace(chr(92) + '1', chr(92) + '4')}", re.M | re.S)
    parts, end = [], 0
    for match in code.finditer(text):
        parts += [function(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*parts, function(text[end:])])


def inline_math(latex: str) -> str:
    """Return the MathML of a formula within a line."""
    # Without the span, a formula at the start of a line would be a block.
    return f"<span>{_escape(convert(html.unescape(latex)))}</span>"


def block_math(latex: str) -> str:
    """Return the MathML of a displayed formula, with the number of its `\\tag` and an anchor."""
    tag = re.search(r"\\tag\{(\w+)\}", latex)
    formula = _escape(convert(latex.replace(tag[0], "") if tag else latex, display="block"))
    anchor, number = (f' id="eq-{tag[1]}"', f"<span>({tag[1]})</span>") if tag else ("", "")
    return f'<div class="equation"{anchor}>{formula}{number}</div>'


def _escape(mathml: str) -> str:
    """Replace the characters in the text of MathML that Markdown would interpret."""

    def escape(match: re.Match) -> str:
        return re.sub(r"[*_\[\]`|\\]", lambda character: f"&#{ord(character[0])};", match[0])

    return re.sub(r"(?<=>)[^<]+(?=<)", escape, "".join(mathml.splitlines()))


def api_block(name: str) -> str:
    """Return the directive that inserts the docstring of a public name."""
    module, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute)
    # The package has a module `cdred.train` beside the function.
    path = f"{value.__module__}.{attribute}" if module == "cdred" else name
    return API_BLOCK.format(path=path, name=name, label=attribute)


if __name__ == "__main__":
    sys.exit(main())
