"""The COMPRESSION tab in a real browser: runs of ours, an imported file, and a hostile one.

One TensorBoard and one browser serve the whole module. Every page is watched: an error in the
console, or a request to anywhere but this machine, fails the test that caused it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import msgspec
import pytest
from boards import BROWSER_ARGS, find_browser, import_models, served, tag_events
from running import environment

from harness.analysis.roofline import RoofLine, Roofline, RoofPoint
from harness.compression.model import (
    METRICS,
    Board,
    CapacityCurve,
    CurvePoint,
    Entry,
    LatencyBound,
)

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
BROWSER = find_browser()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")

MODELS = 60  # imported, each at two precisions
SCRIPT = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>"
HOSTILE = (SCRIPT, "__proto__", "\u202eevil\u05d0", "=cmd|' /C calc'!A0", "n" * 600, "模型 🦜")

ENTRIES = 2 * MODELS + 2 + len(HOSTILE) + 1 + 4


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Two real runs of digits, ``MODELS`` imported models, and a stranger's events."""
    folder = tmp_path_factory.mktemp("board")
    for precision in ("fp32", "int8"):
        short = ("--precision", precision, "--duration", "0.5", "--quiet")
        command = [sys.executable, "-m", "harness", "run", *short]
        subprocess.run(command, cwd=folder, env=environment(cache), check=True, timeout=600)
    results = folder / "results"
    import_models(results, MODELS, folder)
    scalars = {f"{name}/accuracy/int8": 0.25 + i / 100 for i, name in enumerate(HOSTILE)}
    scalars |= {f"{name}/latency/int8": 1.5 + i for i, name in enumerate(HOSTILE)}
    scalars |= {"broken/accuracy/int8": float("nan"), "broken/latency/int8": float("inf")}
    info = {"info": {"library": SCRIPT, "__proto__": "x"}, "random_weights": True}
    texts = {
        f"{SCRIPT}/metadata/info": json.dumps(info),
        "broken/metadata/info": json.dumps({"info": {"backend": "tensorrt"}}),
    }
    tag_events(results / "stranger", scalars, texts)
    for batch in ("1", "8"):
        noisy(results / f"noisy-{batch}", batch, spread=3.0 if batch == "1" else 0.5)
    return results


def noisy(folder: Path, batch: str, spread: float) -> None:
    """A model at two precisions, with latencies of 4 and 2 ms, plus or minus ``spread``."""
    scalars = {}
    for precision, latency in (("fp32", 4.0), ("int8", 2.0)):
        scalars |= {
            f"noisy/accuracy/{precision}": 0.5, f"noisy/memory/{precision}": 100 + latency / 10,
            f"noisy/latency/{precision}": latency,
            f"noisy/latency_ci_low/{precision}": latency - spread,
            f"noisy/latency_ci_high/{precision}": latency + spread,
        }  # fmt: skip
    said = json.dumps({"model": "noisy", "info": {"batch_size": batch}})
    tag_events(folder, scalars, {"noisy/metadata/info": said})


@pytest.fixture(scope="module")
def board(logdir: Path) -> Iterator[str]:
    with served(logdir) as found:
        yield found.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=BROWSER, args=list(BROWSER_ARGS))
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def problems() -> list[str]:
    """What went wrong in any page."""
    return []


@pytest.fixture(autouse=True)
def _watched(problems: list[str]) -> Iterator[None]:
    yield
    found, problems[:] = list(problems), []
    assert not found


@pytest.fixture(scope="module")
def visit(browser: Any, problems: list[str]) -> Callable[..., Any]:
    """A new page at an address, watched."""

    def call(url: str, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1440, "height": 1000}, **options)
        context.set_default_timeout(40_000)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.extend(_complaint(said)))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: _local(request.url) or problems.append(request.url))
        page.goto(url)
        return page

    return call


def _complaint(said: Any) -> list[str]:
    icon = said.location["url"].endswith(
        "favicon.ico"
    )  # TensorBoard gives it to its own page alone
    return [said.text] if said.type == "error" and not icon else []


def _local(url: str) -> bool:
    parsed = urlparse(url)
    return parsed.hostname == "127.0.0.1" or parsed.scheme in ("data", "blob")


@pytest.fixture(scope="module")
def opened(visit: Callable[..., Any], board: str) -> Any:
    """The tab's own page, once every run has been read and every chart drawn."""
    page = visit(f"{board}data/plugin_entry.html?name=compression")
    page.wait_for_function(
        f"() => document.querySelector('.count')?.textContent.includes('of {ENTRIES} entries')"
    )
    page.wait_for_selector("article.card")
    return page


@pytest.fixture
def page(opened: Any) -> Any:
    """The same page for many tests, each of which finds it as if it were new."""
    yield opened
    opened.evaluate(
        """() => {
          const click = (selector) => document.querySelectorAll(selector).forEach((n) => n.click());
          const search = document.querySelector('input[type=search]');
          search.value = '';
          search.dispatchEvent(new Event('input'));
          document.querySelector('.dropdown').open = true;
          const runs = document.querySelector('.drop input[type=search]');
          runs.value = '';
          click('.drop .row button:first-of-type');
          document.querySelector('.dropdown').open = false;
          click('.chip[aria-pressed=false]');
          click('.opener[aria-expanded=true]');
          document.querySelectorAll('.toolbar > button').forEach((n) => n.hidden || n.click());
          click('th[data-column=precision] button');
          click('th[data-column=model] button');
          document.activeElement.blur();
        }"""
    )


def rows(page: Any) -> list[list[str]]:
    """The text of every row in the document, cell by cell, the first (controls) left out."""
    return page.evaluate(
        "[...document.querySelectorAll('table.board > tbody > tr:not(.details)')]"
        ".map(row => [...row.cells].slice(1).map(cell =>"
        " cell.querySelector('.name')?.textContent ?? cell.innerText.split('\\n')[0]))"
    )


def column(page: Any, title: str) -> list[str]:
    heads = page.locator("table.board thead th").all_inner_texts()[1:]
    index = next(i for i, head in enumerate(heads) if head.split(" [")[0].strip(" ▲▼") == title)
    return [row[index] for row in rows(page)]


def search(page: Any, text: str) -> None:
    page.get_by_label("Filter by text").fill(text)


def download(page: Any, label: str) -> bytes:
    with page.expect_download() as started:
        page.get_by_label(label, exact=True).click()
    return Path(started.value.path()).read_bytes()


def download_csv(page: Any, label: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(download(page, label).decode(), newline="")))


def settled(page: Any) -> None:
    """After the charts have been drawn, which comes a moment after the table."""
    page.evaluate("new Promise(done => setTimeout(() => requestAnimationFrame(done), 30))")


# -- in TensorBoard -------------------------------------------------------------------------------


def test_the_tab_opens_in_tensorboard_and_takes_its_theme(
    visit: Callable[..., Any], board: str
) -> None:
    page = visit(f"{board}?darkMode=true#compression")
    frame = page.frame_locator("iframe[src*='name=compression']")
    frame.locator("table.board tbody tr").first.wait_for()
    assert page.get_by_text("COMPRESSION").first.is_visible()
    assert frame.locator("body").get_attribute("data-theme") == "dark"


def test_the_theme_is_the_systems_and_can_be_switched(
    visit: Callable[..., Any], board: str
) -> None:
    page = visit(f"{board}data/plugin_entry.html?name=compression", color_scheme="dark")
    page.wait_for_selector(".chart svg, .chart canvas")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_label("Switch between light and dark").click()
    assert page.locator("body").get_attribute("data-theme") == "light"
    assert page.evaluate(ground) != dark


def test_the_pictures_of_the_docs(visit: Callable[..., Any], board: str, tmp_path: Path) -> None:
    """docs/board.png and docs/board-dark.png; with HARNESS_PICTURES=docs they are made anew."""
    folder = Path(os.environ.get("HARNESS_PICTURES", str(tmp_path)))
    light = visit(f"{board}#compression")
    light.set_viewport_size({"width": 1360, "height": 1300})
    frame = light.frame_locator("iframe[src*='name=compression']")
    frame.get_by_label("Filter by text").fill("model- 9")
    frame.get_by_text("Accuracy against energy").wait_for()
    dark = visit(f"{board}data/plugin_entry.html?name=compression", color_scheme="dark")
    dark.set_viewport_size({"width": 1360, "height": 860})
    dark.get_by_label("Filter by text").fill("digits")
    dark.get_by_label("Select digits int8").check()
    dark.get_by_label("Select digits fp32").check()
    dark.get_by_text("Latency distribution").scroll_into_view_if_needed()
    dark.locator("article.card").last.scroll_into_view_if_needed()
    for name, page in (("board.png", light), ("board-dark.png", dark)):
        page.wait_for_timeout(1000)  # charts are drawn with a movement
        page.screenshot(path=folder / name)
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


# -- the table ------------------------------------------------------------------------------------


def test_the_table_shows_what_was_measured(page: Any, logdir: Path) -> None:
    search(page, "digits")
    results = {
        found["spec"]["precision"]: found
        for path in logdir.glob("*/result.json")
        if (found := json.loads(path.read_text()))
    }
    assert column(page, "Precision") == ["fp32", "int8"]
    page.get_by_label("Details of digits int8").click()
    assert results["int8"]["id"] in page.locator(".runs-table").inner_text()
    assert column(page, "Status") == [results[p]["status"] for p in ("fp32", "int8")]
    for precision, text in zip(("fp32", "int8"), column(page, "Accuracy"), strict=True):
        assert float(text) == pytest.approx(results[precision]["accuracy"]["top1"], abs=1e-4)
    exported = download_csv(page, "Download the table as CSV")
    for row in exported:
        latency = results[row["precision"]]["timing"]["latency_ms"]
        assert float(row["latency_ms"]) == pytest.approx(latency["median"], rel=1e-6)
        assert float(row["latency_ms_low"]) == pytest.approx(latency["ci95"]["median"][0], rel=1e-6)
    assert page.locator("td .with-interval small").first.inner_text().count("–") == 1
    assert exported[1]["aurora"] and not exported[0]["aurora"]


def test_a_click_sorts_and_another_turns_it_round(page: Any) -> None:
    search(page, "model- int8")
    head = page.locator("th[data-column=latency_ms]")
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "Model")[:3] == ["model-0", "model-1", "model-2"]
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, "Model")[:2] == [f"model-{MODELS - 1}", f"model-{MODELS - 2}"]
    assert page.evaluate("document.activeElement.innerText").startswith("Latency")


def test_what_has_no_value_comes_last_either_way(page: Any) -> None:
    search(page, "model-1")
    for _ in range(2):
        page.locator("th[data-column=aurora] button").click()
        scores = column(page, "AURORA")
        assert scores.index("–") > max(i for i, text in enumerate(scores) if text != "–")


def test_only_a_page_of_rows_is_in_the_document(page: Any) -> None:
    assert len(rows(page)) == 15
    assert page.locator("article.card").count() == 12
    first = column(page, "Model")
    page.get_by_label("Next page").click()
    assert len(rows(page)) == 15 and column(page, "Model") != first
    page.get_by_label("Last page").click()
    last = ENTRIES % 15 or 15
    assert len(rows(page)) == last
    assert page.locator(".pager").inner_text().split("\n")[0].startswith("«")
    assert f"{ENTRIES - last + 1} to {ENTRIES} of {ENTRIES}" in page.locator(".pager").inner_text()
    assert page.evaluate("document.querySelectorAll('*').length") < 4_000


def test_filters_narrow_the_rows(page: Any) -> None:
    search(page, "model-7")
    assert set(column(page, "Model")) == {"model-7"}
    assert page.locator(".count").inner_text().endswith("entries, 1 model")
    chip = page.locator(".chip", has_text="int8")
    chip.click()
    assert column(page, "Precision") == ["fp32"]
    assert chip.get_attribute("aria-pressed") == "false"
    chip.click()
    search(page, "nothing has this name")
    assert rows(page) == [] and page.get_by_text("No entry passes the filters.").first.is_visible()


def test_one_backend_can_be_chosen(page: Any) -> None:
    choice = page.get_by_label("Backend", exact=True)
    assert choice.locator("option").all_text_contents() == [
        "All backends", "onnxruntime", "tensorrt",
    ]  # fmt: skip
    choice.select_option("onnxruntime")
    assert set(column(page, "Model")) == {"digits"}
    choice.select_option("All backends")
    assert len(rows(page)) == 15


def test_runs_can_be_left_out(page: Any) -> None:
    page.get_by_text("Runs (").click()
    page.get_by_label("Filter the list of runs").fill("model-")
    page.get_by_role("button", name="None").click()
    assert not [name for name in column(page, "Model") if name.startswith("model-")]
    page.get_by_label("Filter the list of runs").fill("model-3")
    page.get_by_label("model-3", exact=True).check()
    page.keyboard.press("Escape")
    assert column(page, "Model").count("model-3") == 2
    assert not page.locator(".drop").is_visible()


def test_details_tell_all_that_is_known(page: Any) -> None:
    search(page, "model-3 int8")
    opener = page.get_by_label("Details of model-3 int8", exact=True)
    opener.focus()
    page.keyboard.press("Space")
    assert opener.get_attribute("aria-expanded") == "true"
    facts = page.locator("tr.details").inner_text()
    for part in ("Against fp32", "speedup", "AURORA", "weight", "torchvision", "derived"):
        assert part in facts, part
    page.keyboard.press("Space")
    assert page.locator("tr.details").count() == 0


def test_an_absent_value_says_why_on_hover_and_on_focus(page: Any) -> None:
    search(page, "broken")
    cell, tip = page.locator("td[data-column=accuracy] .missing").first, page.locator(".tip")
    cell.hover()
    assert "holds nan" in tip.inner_text()
    page.mouse.move(0, 0)
    assert not tip.is_visible()
    cell.focus()
    assert "holds nan" in tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    assert "holds nan" in (cell.get_attribute("aria-label") or "")


# -- the view ------------------------------------------------------------------------------------


def test_a_view_can_be_shared_by_its_address(
    page: Any, visit: Callable[..., Any], board: str
) -> None:
    search(page, "model-1 int8")
    page.locator("th[data-column=latency_ms] button").click()
    page.locator("th[data-column=latency_ms] button").click()
    page.get_by_label("Select model-13 int8").check()
    shared = visit(page.url)
    shared.locator("table.board tbody tr").first.wait_for()
    assert rows(shared) == rows(page) and column(shared, "Model")[0] == "model-19"
    assert shared.get_by_label("Select model-13 int8").is_checked()
    assert shared.get_by_label("Filter by text").input_value() == "model-1 int8"
    inside = visit(f"{board}#compression&text=model-7")
    frame = inside.frame_locator("iframe[src*='name=compression']")
    frame.locator("table.board tbody tr").first.wait_for()
    assert frame.locator(".count").inner_text().startswith("2 of")
    senseless = visit(f"{board}data/plugin_entry.html?name=compression#&selected={{&page=x")
    senseless.locator("table.board tbody tr").first.wait_for()
    assert len(rows(senseless)) == 15


# what makes the page wider than its window, where anything does
WIDER = """[...document.querySelectorAll('main *')].filter(node =>
  document.documentElement.scrollWidth > innerWidth && !node.closest('.scroll, .chart')
  && node.getBoundingClientRect().right > innerWidth
).map(node => `${node.tagName}.${node.className}`)"""


@pytest.mark.parametrize("width", [800, 390])
def test_latency_accuracy_and_gain_are_in_sight(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    search(page, "model-3 int8")
    settled(page)
    page.evaluate("document.querySelector('table.board').scrollIntoView()")
    overflow = page.evaluate(WIDER)
    boxes = {}
    for name in ("model", "latency_ms", "accuracy", "gain"):
        cell = page.locator(f"table.board td[data-column={name}]").first
        boxes[name] = cell.bounding_box()
    page.set_viewport_size({"width": 1440, "height": 1000})
    for name, box in boxes.items():
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= width + 1, (name, box)
    assert overflow == []


def test_a_chart_is_a_table_too(page: Any) -> None:
    search(page, "model-3")
    settled(page)
    page.get_by_label("Show AURORA as a table").click()
    shown = page.locator("figure .data table").first
    assert "model-3" in shown.inner_text() and shown.locator("caption").inner_text() == "AURORA"


# -- charts ---------------------------------------------------------------------------------------

CHARTS = {
    "accuracy against latency": "latency_ms",
    "accuracy against model size": "model_size_mb",
    "accuracy against energy": "energy_j",
}


@pytest.mark.parametrize(("label", "metric"), CHARTS.items())
def test_a_pareto_chart_draws_names_and_hands_out_its_data(
    page: Any, label: str, metric: str
) -> None:
    search(page, "model-1")  # model-1, and model-10 to model-19
    settled(page)
    chart = page.get_by_label(f"Chart: {label}")
    assert "model-1" in chart.locator("svg text").all_text_contents()
    table = download_csv(page, f"Download {label} as CSV")
    assert len(table) == 22
    points = [(float(row[metric]), float(row["accuracy"]), row["on_frontier"]) for row in table]
    for cost, accuracy, on_frontier in points:
        beaten = any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy)
                     for c, a, _ in points)  # fmt: skip
        assert (on_frontier == "no") == beaten


def test_pictures_are_pictures(page: Any) -> None:
    search(page, "model-1")
    settled(page)
    png = download(page, "Download accuracy against latency as PNG")
    assert png.startswith(b"\x89PNG") and len(png) > 10_000
    for label in (*CHARTS, "latency distribution"):
        if label == "latency distribution":
            search(page, "digits")
            settled(page)
        svg = download(page, f"Download {label} as SVG").decode()
        assert svg.startswith("<svg") and "<script" not in svg and "NaN" not in svg


def test_a_point_tells_of_itself_on_hover(page: Any) -> None:
    search(page, "digits int8")
    settled(page)
    chart = page.get_by_label("Chart: accuracy against model size")
    box = chart.bounding_box()
    place = page.evaluate(
        """() => {
          const node = document.querySelector('[aria-label="Chart: accuracy against model size"]');
          const chart = echarts.getInstanceByDom(node);
          const [series] = chart.getOption().series;
          return chart.convertToPixel({ seriesIndex: 0 }, series.data[0].value);
        }"""
    )
    page.mouse.move(box["x"] + place[0], box["y"] + place[1])
    tip = chart.locator(".chart-tip")
    tip.wait_for()
    assert tip.inner_text().startswith("digits int8") and "model size" in tip.inner_text()


def test_the_latencies_of_the_selected_are_laid_over_each_other(page: Any) -> None:
    search(page, "digits")
    page.get_by_label("Select digits int8").check()
    settled(page)
    chart = page.get_by_label("Chart: latency distribution")
    texts = chart.locator("svg text").all_text_contents()
    assert "digits int8" in texts and "digits fp32" not in texts
    page.get_by_label("Select digits fp32").check()
    settled(page)
    assert {"digits fp32", "digits int8"} <= set(chart.locator("svg text").all_text_contents())
    counted = download_csv(page, "Download latency distribution as CSV")
    for precision in ("fp32", "int8"):
        found = [row for row in counted if row["precision"] == precision]
        assert sum(float(row["count"]) for row in found) > 100  # all of a run's, not the few drawn
    page.get_by_role("button", name="Whole tail").click()
    settled(page)
    assert not [t for t in chart.locator("svg text").all_text_contents() if "twentieth" in t]
    page.get_by_role("button", name="Whole tail").click()
    settled(page)
    assert [t for t in chart.locator("svg text").all_text_contents() if "twentieth" in t]
    page.get_by_role("button", name="Clear selection (2)").click()
    assert not page.get_by_label("Select digits fp32").is_checked()


def curved() -> tuple[Entry, ...]:
    """FP32 and INT8 of one model, each with a capacity and two operators under a roof."""
    roofs = (
        RoofLine(name="product", bound="compute", precision="fp32", per_s=1e10, start=(2.0, 1e10),
                 end=(40.0, 1e10)),
        RoofLine(name="copy", bound="memory", precision="fp32", per_s=5e9, start=(0.2, 1e9),
                 end=(2.0, 1e10)),
    )  # fmt: skip

    def made(precision: str, times: float) -> Entry:
        curve = CapacityCurve(
            run=precision, per_s=400 * times, low=380 * times, high=420 * times, ended="known",
            bounds=(LatencyBound("p99=10ms", 10.0, "p99_ms"),), limit="p99=10ms",
            measured=(CurvePoint(rate_per_s=390 * times, p50_ms=2.0, p99_ms=9.0, utilization=0.7,
                                 joules=0.5, verdict="pass"),),
            predicted=tuple(CurvePoint(rate_per_s=of * times, p50_ms=1.0, p99_ms=of / 50,
                                       utilization=of / 500) for of in (200.0, 400.0)),
        )  # fmt: skip
        points = tuple(
            RoofPoint(name=name, type="MatMul", precision="fp32", intensity=10.0 if name else 3.0,
                      per_s=1e9 * times, share=0.1, bound="compute", ms=1.0, of_model=0.5,
                      whole=not name)
            for name in (SCRIPT, "")
        )  # fmt: skip
        return Entry(
            model="served", precision=precision, run=precision, capacity=curve,
            reference=None if precision == "fp32" else "fp32",
            reference_run=None if precision == "fp32" else "fp32",
            roofline=Roofline(lines=roofs, points=points, left_out=("2 not counted",)),
        )  # fmt: skip

    return made("fp32", 1.0), made("int8", 2.0)


def test_a_capacity_and_a_roofline_are_drawn_and_told(
    visit: Callable[..., Any], board: str, tmp_path: Path
) -> None:
    """Of a board that no TensorBoard has to read."""
    page = visit("about:blank")
    payload = {"token": "t", "metrics": METRICS, "board": Board(entries=curved())}
    content = msgspec.json.encode(payload)
    page.route(
        "**/board", lambda route: route.fulfill(body=content, content_type="application/json")
    )
    page.route("**/board?*", lambda route: route.fulfill(body=b'{"token": "t"}'))
    page.goto(f"{board}data/plugin_entry.html?name=compression")
    capacity = page.get_by_label("Chart: capacity", exact=True)
    capacity.locator("svg").wait_for()
    texts = capacity.locator("svg text").all_text_contents()
    assert {"served fp32", "served int8", "400.0 /s", "800.0 /s", "p99=10ms"} <= set(texts)
    said = page.locator(f"#{capacity.get_attribute('aria-describedby')}").inner_text()
    assert "served fp32: 400.0 requests a second hold p99=10ms (95 %: 380.0 to 420.0)" in said
    kinds = [row["kind"] for row in download_csv(page, "Download capacity as CSV")]
    assert kinds == ["answer", "measured", "predicted", "predicted"] * 2
    roofline = page.get_by_label("Chart: roofline", exact=True)
    drawn = roofline.locator("svg text").all_text_contents()
    assert "10.00 GOP/s (product)" in drawn and "the whole model" in drawn
    page.get_by_label("Show roofline as a table").click()
    table = page.locator("figure .data table").first.inner_text()
    assert SCRIPT in table and "compute" in table
    assert "2 not counted" in page.locator("figure", has=roofline).locator(".says").inner_text()
    assert page.evaluate("window.pwned") is None
    page.screenshot(path=tmp_path / "curves.png", full_page=True)


# -- cards ----------------------------------------------------------------------------------------


def test_a_card_says_in_words_what_became_better_and_what_worse(page: Any) -> None:
    search(page, "model-4 int8")
    settled(page)
    card = page.locator("article.card").first
    lines = {
        row.locator("th").inner_text(): row.locator("td").last.text_content()
        for row in card.locator("tbody tr").all()
    }
    assert lines["Latency"] == "≈ 2.00× faster inconclusive"  # imported: one figure of each
    assert lines["Model size"] == "▲ 4.00× smaller improved"
    assert lines["Accuracy"] == "≈ 0.0100 lost inconclusive"
    assert "AURORA" in card.inner_text() and "accuracy retention" in card.inner_text()


def test_what_was_logged_once_is_uncertain_and_conditions_tell_cards_apart(page: Any) -> None:
    search(page, "noisy int8")
    settled(page)
    latencies, memories = {}, set()
    for card in page.locator("article.card").all():
        changes = {
            row.locator("th").inner_text(): row.locator("td").last.text_content()
            for row in card.locator("tbody tr").all()
        }
        latencies[card.locator("h3").inner_text()] = changes["Latency"]
        memories.add(changes["Memory"])
    assert latencies == dict.fromkeys(
        ("noisy batch 1", "noisy batch 8"), "≈ 2.00× faster inconclusive"
    )
    assert memories == {"≈ 200.0 kB less inconclusive"}
    assert page.locator(".board .conditions").all_text_contents() == ["batch 1", "batch 8"]


# -- keyboard -------------------------------------------------------------------------------------


def test_everything_is_reached_by_tab_and_focus_is_seen(page: Any) -> None:
    search(page, "digits")
    page.get_by_label("Filter by text").focus()
    reached = []
    for _ in range(45):
        page.keyboard.press("Tab")
        label = "document.activeElement.getAttribute('aria-label')"
        reached.append(page.evaluate(f"{label} || document.activeElement.innerText"))
        if "Download latency distribution as CSV" in reached:
            break
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(outline) != "none", reached
    for part in ("fp32", "Runs", "Reload now", "Switch between", "Model", "AURORA",
                 "Select digits int8", "Details of digits int8", "Download the table",
                 "Download accuracy against latency as PNG"):  # fmt: skip
        assert any(text.startswith(part) for text in reached), (part, reached)


# -- untrusted names ------------------------------------------------------------------------------


def test_names_are_text_whatever_they_say(page: Any) -> None:
    search(page, "stranger")
    settled(page)
    assert set(HOSTILE) <= set(column(page, "Model"))
    page.get_by_label(f"Details of {SCRIPT} int8").click()
    assert SCRIPT in page.locator("tr.details").inner_text()
    page.get_by_label("Chart: accuracy against latency", exact=True).hover()
    assert page.evaluate("window.pwned === undefined && ({}).x === undefined")
    assert page.locator("img").count() == 0
    assert page.get_by_text("random weights", exact=True).count() >= 1
    svg = download(page, "Download accuracy against latency as SVG").decode()
    assert "<img" not in svg and "<script" not in svg
    table = download(page, "Download the table as CSV").decode()
    assert "'=cmd" in table and "\n=cmd" not in table
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


# -- while a run goes -----------------------------------------------------------------------------


def test_a_run_appears_while_it_goes_and_the_page_stays_as_it_was(
    page: Any, logdir: Path, cache: Path
) -> None:
    search(page, "digits")
    page.get_by_label("Select digits int8").check()
    page.locator("th[data-column=status] button").click()
    page.evaluate("scrollTo(0, 40)")
    # TensorBoard looks at its files every 5 s, and the page asks as often
    command = ["run", "--precision", "int8", "--duration", "12", "--quiet"]
    going = subprocess.Popen(
        [sys.executable, "-m", "harness", *command], cwd=logdir.parent, env=environment(cache)
    )
    try:
        page.locator("td .status.running").wait_for()
        running = page.locator("tr", has=page.locator(".status.running"))
        assert running.locator("td").nth(2).inner_text() == "int8"
        page.wait_for_function(
            "() => [...document.querySelectorAll('table.board tbody tr')].some(row =>"
            " row.innerText.includes('running') && /\\d\\.\\d/.test(row.cells[3].innerText))"
        )
        assert going.wait(timeout=600) == 0
        page.locator("td .status.running").wait_for(state="detached")
    finally:
        going.kill()
        going.wait()
    assert len(rows(page)) == 2  # it has joined the other run of its cell
    assert page.locator("tr.selected").count() == 1
    assert page.locator("th[data-column=status]").get_attribute("aria-sort") == "ascending"
    assert page.evaluate("scrollY") == 40
