"""The report in a real browser, where there is one: sorting, filtering, keyboard, narrow and wide, nothing from outside.

Needs a Chromium (Debian: `apt-get install chromium`) and the Python package playwright; skipped without them.
`EOSIN_SHOTS=DIR pytest --slow tests/test_report_browser.py` keeps pictures.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from eosin.cli import main
from report_cases import demo, keep, made

pytestmark = pytest.mark.slow
SIZES = {"wide": (1280, 900), "phone": (360, 740)}


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    demo(folder / "results")
    bad = made(
        "phikon", "idc-knn", "g2l-knn@1", {"accuracy": [0.5]}, notes=["</script><img src=x onerror=window.bad=1>"]
    )
    keep(folder / "results", bad)
    done = CliRunner().invoke(main, ["report", "--results", str(folder / "results"), "--out", str(folder / "r.html")])
    assert done.exit_code == 0, done.output
    return folder / "r.html"


@pytest.fixture
def shown(browser, file):
    """shown(size, scheme): the page, opened; at the end it must have said nothing and asked for nothing."""
    opened = []

    def show(size: str = "wide", scheme: str = "light", **more):
        context = browser.new_context(
            viewport=dict(zip(("width", "height"), SIZES[size], strict=True)), color_scheme=scheme, **more
        )
        page, said = context.new_page(), []
        page.on("console", lambda m: said.append(m.text))
        page.on("pageerror", lambda e: said.append(str(e)))
        page.on("request", lambda r: said.append(r.url) if r.url != file.as_uri() else None)
        page.goto(file.as_uri())
        opened.append((context, said))
        return page

    yield show
    for context, said in opened:
        context.close()
        assert said == []


def shot(page, name: str) -> None:
    if os.environ.get("EOSIN_SHOTS"):
        page.screenshot(path=Path(os.environ["EOSIN_SHOTS"]) / f"{name}.png")


def names(page) -> list[str]:
    settle(page)
    return page.eval_on_selector_all("#board tbody th", "all => all.map(e => e.textContent)")


def settle(page) -> None:
    """The table is drawn with the next frame."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def values(page, column: int) -> list[float | None]:
    texts = page.eval_on_selector_all(f"#board tbody tr td:nth-child({column})", "all => all.map(e => e.textContent)")
    return [None if t == "–" else float(t.split(" ±")[0]) for t in texts]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_and_nothing_is_wider_than_the_screen(shown, size, scheme):
    page = shown(size, scheme)
    assert len(names(page)) > 8
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(255, 255, 255)") == (scheme == "light")
    drawn = page.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
    assert drawn != colour and page.locator("figure svg").count() >= 8
    shot(page, f"{size}-{scheme}")


def test_a_column_sorts_both_ways_by_mouse_and_by_keyboard(shown):
    page = shown()
    page.select_option("#f-source", "measured")
    page.fill("#f-benchmark", "knn")
    settle(page)
    head = page.locator("#board thead th", has_text="idc-knn").first
    at = page.evaluate("e => [...e.parentNode.children].indexOf(e) + 1", head.element_handle())
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    down = values(page, at)
    known = [v for v in down if v is not None]
    assert known == sorted(known, reverse=True) and down[: len(known)] == known and len(known) == 8
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    up = [v for v in values(page, at) if v is not None]
    assert up == sorted(up)
    assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    assert page.locator("#board thead th[aria-sort]").count() == 1


def test_filters_narrow_rows_and_columns(shown):
    page = shown()
    page.select_option("#f-source", "measured")
    everything = len(names(page))
    page.fill("#f-model", "virchow")
    assert names(page) == ["virchow2"]
    page.fill("#f-model", "")
    assert len(names(page)) == everything
    page.select_option("#f-suite", "plism")
    settle(page)
    heads = page.eval_on_selector_all("#board thead th button", "all => all.map(e => e.textContent)")
    assert any("plism" in h for h in heads) and not any("idc" in h for h in heads)
    assert "columns" in page.locator("#state").text_content()
    page.fill("#f-model", "no such model")
    assert names(page) == []


def test_a_benchmark_opens_with_folds_and_the_command(shown):
    page = shown("phone")
    entry = page.locator("#columns details", has_text="tp53-linear (grouped folds)")
    entry.locator("summary").focus()
    page.keyboard.press("Enter")
    rows = entry.locator("tbody tr:not(.more)")
    assert rows.count() == 8 and entry.locator("svg.strip circle").count() == 80
    entry.locator("button.plain").first.click()
    assert " --benchmark tp53-linear --option folds=grouped" in entry.locator("tr.more:not([hidden])").inner_text()
    assert entry.locator("tr.more code").first.inner_text().startswith("bench run --model ")
    entry.locator("select").select_option("balanced_accuracy")
    assert "balanced_accuracy" in entry.locator("thead").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    shot(page, "phone-benchmark")


def test_hostile_notes_are_words(shown):
    page = shown()
    page.evaluate("document.querySelectorAll('#columns details').forEach(d => { d.open = true; })")
    page.wait_for_timeout(200)
    page.evaluate("document.querySelectorAll('#columns button.plain').forEach(b => b.click())")
    assert page.locator("p.note", has_text="onerror=window.bad=1").count() == 1
    assert page.evaluate("window.bad") is None and page.locator("img").count() == 0


def test_what_has_the_focus_can_be_seen(shown):
    page = shown()
    for _ in range(9):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle + s.outlineWidth; })()"
        )
        assert style == "solid3px"


def test_it_prints(shown):
    page = shown()
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('#filters')).display") == "none"
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflow") == "visible"
