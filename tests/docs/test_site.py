"""The documentation site: conversion of pages, checks of built pages, and the lists in `mkdocs.yml` and `docs/api`."""

import re
from pathlib import Path

import pytest
import yaml

import cdred
from doc_pages import all_blocks

pytest.importorskip("latex2mathml", reason="the extra `docs`")

from build_site import DOCS, PAGES, ROOT, SITE, convert_page
from check_site import check_site

HTML = '<h1 id="a b">A</h1><a href="{link}">link</a>'


def converted(text, name="page.md"):
    return convert_page(text, DOCS / name)[0]


def test_links_out_of_docs_lead_to_copies():
    text, linked = convert_page(
        "[a](../../results/README.md#b) `[c](d)` [e](cdred.md) [f](#g)\n", DOCS / "methods/x.md"
    )
    assert text == "[a](../results/README.md#b) `[c](d)` [e](cdred.md) [f](#g)\n"
    assert linked == [ROOT / "results/README.md", DOCS / "methods/cdred.md"]


@pytest.mark.parametrize("target", ["missing.md", "../README.md", "../../outside.md"])
def test_link_to_what_the_site_lacks_is_refused(target):
    with pytest.raises(ValueError, match=re.escape(target)):
        converted(f"[a]({target})")


def test_formulas_become_mathml_outside_of_code():
    text = converted("$z^2$ costs `$HOME`, $5 and $6\n\n```sh\necho $A $B\n```\n\n```math\nR = [b]_c \\tag{7}\n```\n")
    assert text.count("<math") == 2
    assert "<msup><mi>z</mi><mn>2</mn></msup>" in text
    assert "`$HOME`, $5 and $6" in text
    assert "```sh\necho $A $B\n```" in text
    block = text[text.index('<div class="equation" id="eq-7">') :]
    assert "<span>(7)</span></div>" in block
    # Markdown would read them as a link, or as emphasis.
    assert not re.search(r"[\[\]_]", re.sub(r"<[^>]*>", "", block))


def test_api_items_become_directives():
    assert converted("- `cdred.train`\n").startswith("::: cdred.api.train\n    options:\n      heading: cdred.train\n")
    assert converted("- `cdred.train` trains.\n") == "- `cdred.train` trains.\n"


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("other/", None),
        ("other/#x", None),
        ("#a%20b", None),
        ("https://example.org", None),
        ("other/#y", "broken link other/#y"),
        ("#x", "broken link #x"),
        ("missing/", "broken link missing/"),
    ],
)
def test_links_of_built_pages_are_checked(tmp_path, link, problem):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/index.html").write_text('<p id="x">a</p>')
    (tmp_path / "index.html").write_text(HTML.format(link=link))
    assert check_site(tmp_path) == ([] if problem is None else [f"index.html: {problem}"])


def test_markdown_shown_as_text_and_foreign_scripts_are_found(tmp_path):
    (tmp_path / "index.html").write_text(
        '<p>List:\n- one</p><p><code>x\n- y</code></p><script src="https://example.org/a.js"></script>'
    )
    assert check_site(tmp_path) == [
        "index.html: loads https://example.org/a.js from elsewhere",
        "index.html: Markdown is shown as text: - one",
    ]
    assert check_site(tmp_path / "none") == [f"no HTML page in {tmp_path / 'none'}."]


class _Loader(yaml.SafeLoader):
    """Loader that reads the Python objects of `mkdocs.yml` as None."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def leaves(tree):
    if isinstance(tree, str):
        return [tree]
    return [leaf for part in (tree.values() if isinstance(tree, dict) else tree) for leaf in leaves(part)]


def test_navigation_lists_every_page_once():
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)
    assert (ROOT / config["docs_dir"], ROOT / config["site_dir"]) == (PAGES, SITE)
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    listed = leaves(config["nav"])
    assert len(listed) == len(set(listed))
    results = {"results/README.md", "results/methods.md"}
    assert set(listed) - pages == results | {"CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"}
    assert pages - set(listed) == set()


def test_api_pages_list_every_public_name():
    text = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    items = re.findall(r"^- `(.*)`$", text, re.M)
    assert len(items) == len(set(items))
    assert {f"cdred.{name}" for name in cdred.__all__} <= set(items)
    assert [name for name in items if re.search(r"\._", name)] == []


def test_formulas_of_pages_are_in_blocks_that_github_renders():
    pages = [page for page in DOCS.rglob("*.md") if any(block.language == "math" for block in all_blocks(page))]
    assert len(pages) >= 9
    assert [page.name for page in pages if "$$" in Path(page).read_text()] == []
