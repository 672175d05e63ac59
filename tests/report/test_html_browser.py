"""The HTML report in a browser: nothing fails or is loaded, figures are drawn, colours follow the mode."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from cdred.report.html.page import write_html
from report_runs import write_run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: `make browser`")
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
found = next(filter(None, map(shutil.which, BROWSERS)), None)
if found is None:
    pytest.skip("no browser is installed: `make browser`", allow_module_level=True)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # Containers run tests as root, where Chromium has no sandbox.
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Address of the page of three runs."""
    folder = tmp_path_factory.mktemp("html")
    runs = [write_run(folder / "cdred"), write_run(folder / "bc", algo="bc", success=(0.5, 0.5, 0.0))]
    runs.append(write_run(folder / "walk", task="suite/walk", success=None, returns=(90.0, 80.0, 70.0)))
    return write_html(folder / "page.html", runs).as_uri()


@pytest.fixture
def opened(browser, address):
    """Function that opens the page; afterwards, no request, message or error may have been seen."""
    contexts, seen = [], []

    def open_page(width=1300, scheme="light"):
        # Without smooth scrolling, which takes a while.
        settings = {"color_scheme": scheme, "reduced_motion": "reduce"}
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **settings))
        page = contexts[-1].new_page()
        page.on("request", lambda request: seen.append(request.url))
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in seen if not url.startswith("data:")] == [address] * len(contexts)


def test_cells_have_the_scores_of_the_runs(opened):
    page = opened()
    rows = page.locator("table.matrix tbody tr").evaluate_all(
        "rows => rows.map(r => [...r.cells].map(c => c.innerText))"
    )
    assert rows[0][0] == "suite/lift\nsuccess\nexpert 100 %, random 5 %"
    assert rows[0][1:3] == ["75 %\n50 · 75 · 100", "33 %\n50 · 50 · 0"]
    assert rows[1][1:3] == ["0.70\n0.80 · 0.70 · 0.60", "not run"]


@pytest.mark.parametrize("width", [1300, 400])
def test_figures_have_a_size_and_nothing_is_wider_than_the_page(opened, width):
    page = opened(width)
    page.locator("article > details").evaluate_all("all => all.forEach(d => d.open = true)")
    boxes = page.locator("figure svg").evaluate_all("all => all.map(f => f.getBoundingClientRect().toJSON())")
    assert len(boxes) > 20
    assert all(box["width"] > 200 and box["height"] > 60 for box in boxes)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    lines = page.locator("svg .line").evaluate_all("all => all.map(p => p.getTotalLength())")
    assert min(lines) > 10


def test_labels_of_figures_are_within_them(opened):
    page = opened()
    page.locator("article > details").evaluate_all("all => all.forEach(d => d.open = true)")
    outside = page.evaluate(
        """() => [...document.querySelectorAll("figure svg")].flatMap((svg) => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll("text")].filter((text) => {
                const own = text.getBoundingClientRect();
                return own.left < box.left - 1 || own.right > box.right + 1 || own.bottom > box.bottom + 1;
            }).map((text) => text.textContent);
        })"""
    )
    assert outside == []


def test_details_open_on_a_click(opened):
    page = opened()
    options = page.locator("#run-1-configuration pre")
    assert not options.is_visible()
    page.locator("#run-1 > details > summary").click()
    page.locator("#run-1-configuration summary").click()
    assert "reward_warmup_updates: 20" in options.inner_text()


def test_tooltip_shows_the_values_at_the_nearest_report(opened):
    page = opened()
    figure = page.get_by_role("img", name="Success during training").first
    tooltip = page.locator(".tooltip")
    assert not tooltip.is_visible()
    box = figure.bounding_box()
    # Near the middle of the axis; the evaluations are at 0, 100 and 200 steps.
    figure.hover(position={"x": 0.45 * box["width"], "y": box["height"] / 2})
    texts = tooltip.locator("div").all_inner_texts()
    assert texts[0] == "100 steps per seed"
    # The seeds' mean at step 100: 25, 50 and 25 %.
    assert [text.replace("\n", "") for text in texts[1:]] == ["cdred33 %", "bc33 %"]
    page.mouse.move(2, 2)
    assert not tooltip.is_visible()


def test_table_of_runs_is_sorted_by_a_column(opened):
    page = opened()
    page.get_by_text("All 3 runs").click()
    button = page.get_by_role("button", name="score", exact=True)
    column = "rows => rows.map(r => r.cells[2].innerText)"
    rows = page.locator("table.sortable tbody tr")
    button.click()
    assert rows.evaluate_all(column) == ["33 %", "0.70", "75 %"]
    button.click()
    assert rows.evaluate_all(column) == ["75 %", "0.70", "33 %"]
    assert page.locator("th[aria-sort=descending]").inner_text() == "score"


def test_dark_mode_has_a_dark_page_that_is_not_blank(opened):
    lightness = {}
    for scheme in ("light", "dark"):
        page = opened(scheme=scheme)
        image = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"), float)
        lightness[scheme] = np.median(image)
        assert image.std() > 10
        assert len(np.unique(image)) > 50
    assert lightness["light"] > 200
    assert lightness["dark"] < 50


def test_links_of_the_contents_lead_to_their_sections(opened):
    page = opened()
    for link in page.locator("nav a").all():
        link.click()
        target = page.locator(str(link.get_attribute("href")))
        assert target.is_visible()
        top = target.bounding_box()["y"]
        assert -5 < top < 800
