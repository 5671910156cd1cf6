"""A report as one HTML file: nothing is fetched, and without JavaScript only the charts are gone.

Every text from a result is escaped where it enters the markup (`harness.views.markup`). The page's
own policy allows its two scripts, by their hashes, and no network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from importlib.resources import files

import msgspec

from harness.board import assets
from harness.compression.model import METRICS
from harness.report import evidence
from harness.report import sections as parts
from harness.report.bundle import bundle
from harness.report.gather import Report
from harness.report.operators import operators
from harness.version import __version__
from harness.views.markup import Html, h, json_block, raw, script

_SECTIONS = (
    ("glance", "At a glance", parts.glance),
    ("charts", "Charts", parts.charts),
    ("figures", "Models and precisions", parts.figures),
    ("caveats", "Caveats", evidence.caveats),
    ("certain", "Is the difference certain?", evidence.certain),
    ("aurora", "AURORA scores", parts.aurora),
    ("operators", "Where the time goes", operators),
    ("validity", "Validity checks", evidence.validity),
    ("method", "Machine and method", evidence.method),
    ("missing", "What is missing, and why", evidence.missing),
    ("runs", "Every run", evidence.runs),
)
# of an entry, which the charts need
_FACTS = ("backend", "accuracy_on", "dataset", "source")


def render(report: Report) -> bytes:
    """The whole file, UTF-8."""
    scripts = (assets.read("vendor/echarts.min.js").decode(), bundle("report.js", _module))
    found = [(name, title, draw(report)) for name, title, draw in _SECTIONS]
    shown = [(name, title, content) for name, title, content in found if content is not None]
    page = h(
        "html",
        _head(report, scripts),
        h(
            "body",
            h(
                "main",
                _header(report, [(name, title) for name, title, _ in shown]),
                *(_section(*one) for one in shown),
                h("footer", f"Made by harness {__version__}, {report.made_at}."),
            ),
            json_block("board", _data(report)),
            *(script(source) for source in scripts),
        ),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n".encode(errors="replace")


def _head(report: Report, scripts: Sequence[str]) -> Html:
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",  # the charts' own downloads
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", http_equiv="Content-Security-Policy", content=policy),
        h("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name_="color-scheme", content="light dark"),
        h("title", report.title),
        h("style", raw(_own("report.css"))),
    )


def _hash(source: str) -> str:
    """Of the script as it stands in the page."""
    inside = script(source).removeprefix("<script>").removesuffix("</script>")
    digest = hashlib.sha256(inside.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _header(report: Report, sections: Iterable[tuple[str, str]]) -> Html:
    links = (
        h("a", title, href=f"#{name}", class_="scripted" if name == "charts" else "")
        for name, title in sections
    )
    return h(
        "header", h("h1", report.title), h("p", parts.subtitle(report), class_="dim"),
        h("nav", *links, aria_label="Sections"),
    )  # fmt: skip


def _section(name: str, title: str, content: Html) -> Html:
    hidden = name == "charts"  # until a script has drawn something
    return h("section", h("h2", title), content, id=name, hidden=hidden)


def _data(report: Report) -> bytes:
    entries = [
        msgspec.structs.replace(
            entry, extra={}, missing={}, runs=(), advice="",
            info={key: entry.info[key] for key in _FACTS if key in entry.info},
        )
        for entry in report.board.entries
    ]  # fmt: skip
    return msgspec.json.encode({"board": {"entries": entries}, "metrics": METRICS})


def _module(name: str) -> str:
    """The report's own script, or one of the page that the board is drawn with."""
    return _own(name) if name == "report.js" else assets.read(name).decode()


def _own(name: str) -> str:
    return files("harness.report").joinpath("assets", name).read_text("utf-8")
