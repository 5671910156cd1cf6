"""The files of the board's page, as they lie in ``static/``: plain modules, no build step."""

from __future__ import annotations

from importlib.resources import files

_KINDS = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
PAGE = (
    "index.js", "main.js", "state.js", "address.js", "table.js", "charts.js", "curves.js",
    "drawing.js", "figure.js", "cards.js", "verdict.js", "links.js", "format.js", "dom.js",
    "download.js", "toolbar.js", "style.css", "vendor/echarts.min.js",
)  # fmt: skip


def read(name: str) -> bytes:
    """The content of one of `PAGE`."""
    return files("harness.board").joinpath("static", *name.split("/")).read_bytes()


def assets() -> dict[str, tuple[str, bytes]]:
    """name -> content type and content."""
    return {name: (_KINDS[name[name.rindex(".") :]], read(name)) for name in PAGE}
