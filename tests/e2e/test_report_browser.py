"""A report in a real browser: drawn, readable on a phone and without scripts, silent, offline."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from boards import BROWSER_ARGS, find_browser
from running import environment

from harness.records.result import Result
from harness.records.store import read_result

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
BROWSER = find_browser()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")

EVIL = "<img src=x onerror=window.pwned=1><script>window.pwned=1"  # a slash would end the name


def harness(folder: Path, cache: Path, *args: str) -> None:
    command = [sys.executable, "-m", "harness", *args]
    subprocess.run(command, cwd=folder, env=environment(cache), check=True, timeout=600)


def renamed(results: Path) -> None:
    """A copy of the newest run, whose model and machine have a hostile name."""
    result: Result = read_result("latest", results)
    machine = msgspec.structs.replace(result.machine, factors={"cpu": EVIL})
    spec = msgspec.structs.replace(result.spec, model=EVIL)
    copy = msgspec.structs.replace(result, id=f"{result.id}-evil", spec=spec, machine=machine)
    folder = results / copy.id
    folder.mkdir()
    (folder / "result.json").write_bytes(msgspec.json.encode(copy))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("report")
    for precision in ("fp32", "int8"):
        harness(folder, cache, "run", "--precision", precision, "--duration", "0.3", "--quiet")
    renamed(folder / "results")
    harness(folder, cache, "report", "results", "-o", "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=BROWSER, args=list(BROWSER_ARGS))
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Any, report: Path) -> Iterator[Callable[..., Any]]:
    """The report in a new page; anything in the console or on the network fails the test."""
    problems: list[str] = []

    def call(width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda asked: problems.append(asked.url) if _outside(asked.url) else 0)
        page.goto(report.as_uri())
        return page

    yield call
    assert problems == []


def _outside(url: str) -> bool:
    return not url.startswith(("file://", "data:", "blob:"))


def overflow(page: Any) -> int:
    width: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return width


def test_the_charts_are_drawn_and_can_be_saved(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit()
    labels = page.locator("#charts .chart").evaluate_all("all => all.map(n => n.ariaLabel)")
    assert labels[:2] == [
        "Chart: accuracy against latency", "Chart: accuracy against model size",
    ]  # fmt: skip
    assert "Chart: latency of digits" in labels
    assert page.locator("#charts .chart svg path").count() > 20
    assert overflow(page) <= 0
    assert {"Chart: latency ratios", "Chart: AURORA"} & {*labels}
    for kind, start in (("PNG", b"\x89PNG"), ("SVG", b"<svg"), ("CSV", b"model,precision")):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Download accuracy against latency as {kind}").click()
        path = tmp_path / kind
        waiting.value.save_as(path)
        assert path.read_bytes().startswith(start)


def test_hostile_names_are_text(visit: Callable[..., Any]) -> None:
    page = visit()
    assert page.evaluate("window.pwned") is None and page.locator("img").count() == 0
    assert page.locator("#figures th", has_text="onerror=window.pwned").count() == 1


def test_a_heading_sorts_and_what_has_no_value_comes_last(visit: Callable[..., Any]) -> None:
    page = visit()
    table = page.locator("#figures table")
    head = table.get_by_role("columnheader", name="latency")
    found = []
    for way in ("ascending", "descending"):
        head.get_by_role("button").press("Enter")
        assert head.get_attribute("aria-sort") == way
        cells = table.locator("td[data-label=latency]")
        found.append(
            [float(key) for key in cells.evaluate_all("all => all.map(n => n.dataset.value)")]
        )
    assert found[0] == sorted(found[1]) and found[1] == found[0][::-1]
    for _ in range(2):
        table.get_by_role("button", name="Sort Models and precisions by AURORA").click()
        scores = table.locator("td[data-label=AURORA]").all_inner_texts()
        assert scores[0] and not scores[-1]


def test_a_phone_needs_no_scrolling_sideways(visit: Callable[..., Any]) -> None:
    page = visit(390)
    assert overflow(page) <= 0
    cells = page.locator("#figures td[data-label=latency]").first
    box = cells.bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert page.locator("#charts .chart").first.bounding_box()["width"] <= 390


def test_without_scripts_the_tables_are_there(visit: Callable[..., Any]) -> None:
    page = visit(java_script_enabled=False)
    assert not page.locator("#charts").is_visible()
    for name in ("glance", "figures", "certain", "caveats", "validity", "method", "runs"):
        assert page.locator(f"#{name} h2").is_visible(), name
    assert page.locator("#figures tbody tr").count() == 3


def test_dark_and_light_differ_and_print_is_light(visit: Callable[..., Any]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    dark, light = visit(color_scheme="dark"), visit(color_scheme="light")
    assert dark.evaluate(ground) == "rgb(24, 27, 32)"
    assert light.evaluate(ground) == "rgb(245, 246, 248)"
    dark.emulate_media(media="print")
    assert dark.evaluate(ground) == "rgb(255, 255, 255)"
    assert dark.pdf().startswith(b"%PDF")


def test_paper_shows_every_run_and_whole_charts(visit: Callable[..., Any]) -> None:
    page = visit()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("details:not([open])").count() == 0
    page.set_viewport_size({"width": 700, "height": 900})
    chart, picture = page.locator(".chart").first, page.locator(".chart svg").first
    assert picture.bounding_box()["width"] <= chart.bounding_box()["width"] + 1


def test_every_control_has_a_name_and_the_keyboard_reaches_it(visit: Callable[..., Any]) -> None:
    page = visit()
    names = page.locator("button").evaluate_all("all => all.map(n => n.ariaLabel)")
    assert names and all(names) and len(set(names)) == len(names)
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is None  # three runs: were open
