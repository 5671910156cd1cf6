"""How long the COMPRESSION tab takes to show 1,000 models, in a real browser, and to filter them.

    python benchmarks/board_render.py [--models 1000] [--rounds 5]

Models at fp32 and int8 are imported into an empty folder, `harness board` serves it, and Chromium
opens the tab's page afresh in every round. The browser's own marks are read, milliseconds from the
start of the navigation: `table` when the first page of rows is in the document, `all` when every
chart and card is drawn too. `filter` and `sort` are from a keystroke or click to the next frame
after everything has been drawn anew.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "e2e"))
from boards import (  # type: ignore[import-not-found]
    BROWSER_ARGS,
    find_browser,
    import_models,
    served,
)
from interleaved import counted

MARKS = """() => Object.fromEntries(performance.getEntriesByType("mark")
  .filter((mark) => mark.name.startsWith("board: "))
  .map((mark) => [mark.name.slice(7), mark.startTime]))"""
REDRAWN = """(act) => new Promise((done) => {
  const from = performance.now();
  const marks = performance.getEntriesByName("board: all").length;
  eval(act);
  (function look() {
    if (performance.getEntriesByName("board: all").length === marks) setTimeout(look, 1);
    else requestAnimationFrame(() => done(performance.now() - from));
  })();
})"""
FILTER = """
  const search = document.querySelector("input[type=search]");
  search.value = "model-9";
  search.dispatchEvent(new Event("input"));"""
SORT = 'document.querySelector("th[data-column=latency_ms] button").click()'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    path = find_browser()
    if path is None:
        sys.exit("no Chromium or Chrome on this machine")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        logdir = Path(folder) / "results"
        print(f"importing {options.models} models", file=sys.stderr)
        import_models(logdir, options.models, Path(folder))
        browser = started.chromium.launch(executable_path=path, args=list(BROWSER_ARGS))
        with served(logdir) as board:
            address = f"{board.url}data/plugin_entry.html?name=compression"
            _wait_for(browser, address, 2 * options.models)
            rounds = [_round(browser, address) for _ in counted(options.rounds, "rendering")]
        browser.close()
    print(f"{options.models} models, {2 * options.models} entries, {options.rounds} rounds")
    for name in rounds[0]:
        values = sorted(found[name] for found in rounds)
        print(f"{name:>7}  median {statistics.median(values):6.0f} ms"
              f"  from {values[0]:.0f} to {values[-1]:.0f}")  # fmt: skip


def _wait_for(browser: Any, address: str, entries: int) -> None:
    """Until TensorBoard has read every file."""
    page = browser.new_page()
    page.goto(address)
    text = f"of {entries} entries"
    page.wait_for_function(
        f"() => document.querySelector('.count')?.textContent.includes('{text}')", timeout=120_000
    )
    page.close()


def _round(browser: Any, address: str) -> dict[str, float]:
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.goto(address)
    page.wait_for_selector("article.card")
    found: dict[str, float] = page.evaluate(MARKS)
    found["filter"] = page.evaluate(REDRAWN, FILTER)
    page.fill("input[type=search]", "")
    page.wait_for_timeout(1500)
    found["sort"] = page.evaluate(REDRAWN, SORT)
    page.close()
    return found


if __name__ == "__main__":
    main()
