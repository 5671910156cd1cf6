"""The report: what its HTML and Markdown hold, whatever the results hold."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.cli.main import main
from harness.maybe import Unavailable
from harness.records.operators import Operator, Operators, Remainder
from harness.records.result import Result
from harness.report import html as report_html
from harness.report import markdown as report_markdown
from harness.report.bundle import bundle
from harness.report.gather import Report, caveats, gather
from harness.spec import RunSpec
from harness.testing.results import fake_failure, fake_result
from harness.views.markup import h, join, json_block, raw, script

EVIL = "<img src=x onerror=alert(1)></script><script>alert(1)</script>\u202e\"'&--><!--"


def launched(median_ms: float, precision: str, name: str, **changes: Any) -> Result:
    result = fake_result()
    launches = tuple(
        msgspec.structs.replace(result.timing.launches[0], median_ms=median_ms * (1 + i / 1000))
        for i in range(5)
    )
    stats = msgspec.structs.replace(result.timing.latency_ms, median=median_ms)
    timing = msgspec.structs.replace(result.timing, launches=launches, latency_ms=stats)
    spec = RunSpec(precision=precision, launches=5)  # type: ignore[arg-type]
    return fake_result(id=name, started_at=name, spec=spec, timing=timing, **changes)


def report_of(*results: Result, **options: Any) -> Report:
    return gather([(result, Path("nowhere") / "result.json") for result in results], **options)


def two() -> Report:
    return report_of(launched(0.2, "fp32", "2026-01-01"), launched(0.1, "int8", "2026-01-02"))


class Page(HTMLParser):
    """Elements and attributes as a browser's parser would find them, and the text between."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(data.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def shown(data: bytes) -> Page:
    """The page without its scripts and styles."""
    return Page(re.sub(rb"<(script|style)\b.*?</\1>", b"", data, flags=re.DOTALL))


def test_markup_escapes_text_and_keeps_markup() -> None:
    assert (
        h("p", "<b>", h("i", "&"), None, title='"') == '<p title="&quot;">&lt;b&gt;<i>&amp;</i></p>'
    )
    assert h("td", data_label="x", hidden=True, open=False) == '<td data-label="x" hidden></td>'
    assert join("a<", raw("<hr>")) == "a&lt;<hr>"
    assert h("meta", name_="a") == '<meta name="a">'


def test_scripts_and_json_cannot_end_their_element() -> None:
    data = msgspec.json.encode({"x": EVIL + "\u2028"})
    block = json_block("board", data)
    inside = block.partition(">")[2].removesuffix("</script>")
    assert not set(inside) & set("<>&\u2028") and json.loads(inside)["x"] == EVIL + "\u2028"
    assert script('a = "</script>"') == '<script>a = "<\\/script>"</script>'


def test_modules_become_one_script() -> None:
    sources = {
        "a.js": 'import { b as c, d } from "./b.js";\nexport const x = c + d;\n',
        "b.js": 'import {\n  d,\n} from "./c.js";\nexport function b() {}\nexport { };\n',
        "c.js": "export const d = 1;\nexport class E {}\n",
    }
    with pytest.raises(ValueError, match=r"b\.js has a form"):
        bundle("a.js", sources.__getitem__)
    sources["b.js"] = sources["b.js"].replace("export { };\n", "")
    made = bundle("a.js", sources.__getitem__)
    assert (
        made.index("const module_c") < made.index("const module_b") < made.index("const module_a")
    )
    assert "const { b: c, d } = module_b;" in made and "return { d, E };" in made
    assert "import" not in made and "export" not in made
    cycle = {"a.js": 'import { x } from "./a.js";'}
    with pytest.raises(ValueError, match="imports itself"):
        bundle("a.js", cycle.__getitem__)


def test_the_page_holds_every_figure_without_a_script() -> None:
    page = shown(report_html.render(two()))
    for text in (
        "What digits cost on this hardware", "2 runs, 2026-01-01 to 2026-01-02, on Imaginary CPU",
        "2.00× faster", "improved", "200.0 µs", "100.0 µs", "87.50%, nothing lost", "187.5 µJ",
        "3.1 % of CPU time was stolen", "CLOCK_MONOTONIC", "steady", "GPU memory",
        "the device is the host", "accuracy retention", "Imaginary CPU 9000", "order statistics",
        "better by 50.0 %", "QLinearConv 9",
    ):  # fmt: skip
        assert text in page.text, text
    ids = {attributes.get("id") for _, attributes in page.found}
    assert {"glance", "figures", "certain", "aurora", "caveats", "validity", "method", "missing",
            "runs"} <= ids  # fmt: skip
    links = {a["href"] for tag, a in page.found if tag == "a"}
    assert {str(link)[1:] for link in links} <= ids


def profiled(ms: float, precision: str, name: str) -> Result:
    """One operator in five launches, and what is left."""
    values = tuple(ms * (1 + i / 1000) for i in range(5))
    absent = Unavailable("not counted here")
    row = Operator(
        name="c", type=EVIL, precision=precision, calls=1.0, ms=ms, ci95_ms=(ms, ms), share=0.75,
        fused=("conv1",), operations=absent, bytes=absent, launches_ms=values,
    )  # fmt: skip
    found = Operators(
        profiler="by hand", inferences=9, launches=5, profiled_ms=4 * ms / 3, plain_ms=ms,
        slowdown=4 / 3, window_ms=ms, rows=(row,), model=absent,
        remainder=Remainder(ms=ms / 3, ci95_ms=absent, share=0.25),
    )  # fmt: skip
    return launched(ms, precision, name, operators=found)


def test_where_the_time_goes_is_a_table_with_its_remainder_and_what_changed() -> None:
    report = report_of(profiled(3.0, "fp32", "2026-01-01"), profiled(1.0, "int8", "2026-01-02"))
    page = shown(report_html.render(report))
    assert "operators" in {attributes.get("id") for _, attributes in page.found}
    text = page.text
    for told in ("75.0%", "25.0%", "remainder", "1 of 1 changed", "conv1"):
        assert told in text
    assert "alert" not in {name for name, _ in page.found}
    lines = report_markdown.render(report).decode().splitlines()
    (line,) = (line for line in lines if "conv1" in line)
    assert "0.333" in line
    assert line.endswith("improved |")
    none = shown(report_html.render(two()))
    assert "operators" not in {attributes.get("id") for _, attributes in none.found}


def test_the_page_fetches_nothing() -> None:
    data = report_html.render(two())
    for tag, attributes in shown(data).found:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert "src" not in attributes and not any(name.startswith("on") for name in attributes)
    (policy,) = re.findall(rb'http-equiv="Content-Security-Policy" content="([^"]*)"', data)
    assert policy.startswith(b"default-src &#x27;none&#x27;; script-src &#x27;sha256-")
    assert b"url(" not in data.partition(b"<style>")[2].partition(b"</style>")[0]


def test_the_board_in_the_page_is_json() -> None:
    data = report_html.render(two()).decode()
    block = re.search(r'<script type="application/json" id="board">(.*?)</script>', data, re.DOTALL)
    assert block
    board = json.loads(block[1])
    assert [entry["precision"] for entry in board["board"]["entries"]] == ["fp32", "int8"]
    assert board["metrics"]["latency_ms"]["unit"] == "ms"


def hostile() -> Report:
    base = fake_result()
    machine = msgspec.structs.replace(base.machine, factors={"cpu": EVIL, EVIL: EVIL})
    checks = tuple(msgspec.structs.replace(c, name=EVIL, reason=EVIL) for c in base.validity)
    results = [
        launched(
            1.0, precision, name, machine=machine, validity=checks, tags={EVIL: EVIL},
            model=msgspec.structs.replace(base.model, name=EVIL),
            energy=Unavailable(EVIL, EVIL),
        )
        for precision, name in (("fp32", EVIL), ("int8", f"{EVIL}2"))
    ]  # fmt: skip
    results = [
        msgspec.structs.replace(r, spec=msgspec.structs.replace(r.spec, model=EVIL, backend=EVIL))
        for r in results
    ]
    return report_of(*results, title=EVIL, problems=[EVIL])


def test_nothing_in_a_result_becomes_markup() -> None:
    data = report_html.render(hostile())
    page = shown(data)
    assert not {tag for tag, _ in page.found} & {"img", "script"}
    assert "onerror=alert(1)" in page.text and "\u202e" not in page.text.replace(EVIL, "")
    assert data.count(b"<script") == 3 and b"<script>alert" not in data


def test_markdown_is_short_plain_and_mentions_nobody() -> None:
    text = report_markdown.render(two()).decode()
    assert "| digits | int8 | onnxruntime | 87.50% | 100.0 µs (123.4 to 123.9 µs) |" in text
    assert "| digits int8 / fp32, onnxruntime | latency median | 0.5000 |" in text
    assert "improved" in text
    assert "digits, int8, onnxruntime: **114.9** of accuracy retention 1.00, speedup 2.00" in text
    mention = report_markdown.escape("@octocat #12 <b> www.example.org http://x `a` |")
    assert not re.search(r"@o|[^\\]#|[^\\]<|www\.e|://x|[^\\]`|[^\\]\|", f" {mention}")
    evil = report_markdown.render(hostile()).decode()
    assert not re.search(r"(?<!\\)<(?!/?(details|summary)>)", evil)


def test_markdown_fits_into_a_comment() -> None:
    many = [launched(1 + i, p, f"{i:04d}{p}") for i in range(150) for p in ("fp32", "int8")]
    many = [
        msgspec.structs.replace(r, spec=msgspec.structs.replace(r.spec, model=f"m{i // 2}" * 30))
        for i, r in enumerate(many)
    ]
    text = report_markdown.render(report_of(*many)).decode()
    assert len(text) <= report_markdown.LIMIT and re.search(r"\| and \d+ more \|", text)


def test_a_failed_run_is_reported_with_its_cause() -> None:
    failed = report_of(fake_failure())
    assert caveats(failed) == [
        (
            "digits, int8, onnxruntime: failed (20261121T050301Z-digits-onnxruntime-int8-1a2b3c)",
            "the worker was killed by SIGKILL while loading",
        )
    ]
    page = shown(report_html.render(failed))
    assert "killed by SIGKILL" in page.text and "failed" in page.text
    assert b"failed" in report_markdown.render(failed)


def test_machines_are_not_compared() -> None:
    other = msgspec.structs.replace(
        fake_result().machine, fingerprint="else", factors={"cpu": "Other"}
    )
    report = report_of(launched(1, "fp32", "1"), launched(1, "int8", "2", machine=other))
    assert report.judged == ()
    assert ("Several machines", "runs of different machines are not compared") in caveats(report)
    assert "its machine is else" in shown(report_html.render(report)).text


def test_few_launches_are_a_caveat() -> None:
    names = [what for what, _ in caveats(report_of(fake_result()))]
    assert "Runs with fewer than five launches" in names
    assert "Runs with fewer than five launches" not in [what for what, _ in caveats(two())]


def put(results: Path) -> None:
    for index, (median, precision) in enumerate(((0.2, "fp32"), (0.1, "int8")), 1):
        folder = results / f"2026010{index}T000000Z-digits-{index}"
        folder.mkdir(parents=True)
        result = launched(median, precision, folder.name)
        (folder / "result.json").write_bytes(msgspec.json.encode(result))


def test_the_command(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "results")
    assert main(["report", "results", "-o", "a.html", "--title", "Tuesday <1>"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("wrote a.html (") and err.count("\n") == 1
    assert b"<title>Tuesday &lt;1&gt;</title>" in Path("a.html").read_bytes()
    assert main(["report", "latest~1", "latest", "-o", "a.md"]) == 0
    assert Path("a.md").read_text().startswith("## What digits cost on this hardware\n")
    assert main(["report", "latest", "-o", "-", "--format", "html"]) == 0
    assert capsys.readouterr().out.startswith("<!DOCTYPE html>")
    assert main(["report", "latest", "-o", "-"]) == 0
    assert capsys.readouterr().out.startswith("## ")


def test_what_cannot_be_read_is_said_in_the_report_too(tmp_path: Path, capsys) -> None:
    put(tmp_path / "results")
    broken = tmp_path / "results" / "20260103T000000Z-digits-3"
    broken.mkdir()
    (broken / "result.json").write_bytes(b"{")
    assert main(["report", str(tmp_path / "results"), "-o", str(tmp_path / "a.html")]) == 0
    err = capsys.readouterr().err
    said, wrote = err.splitlines()
    assert "cut short" in said and wrote.startswith("wrote ")
    assert "cut short" in shown((tmp_path / "a.html").read_bytes()).text


@pytest.mark.parametrize(
    ("args", "says"),
    [(["nonesuch", "-o", "x"], "nonesuch"), (["latest", "-o", "no/x"], "cannot be written"),
     (["latest", "-o", "x", "--format", "pdf"], "--format is 'pdf'; choose one of html, markdown"),
     (["-o", "x"], "Missing argument"), (["latest"], "Missing option")],
)  # fmt: skip
def test_bad_usage_is_one_line(tmp_path: Path, capsys, monkeypatch, args, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "results")
    assert main(["report", *args]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and says in err and not Path("x").exists()


def test_runs_under_different_conditions_are_told_apart() -> None:
    def at(batch: int, precision: str, day: str) -> Result:
        result = launched(0.2, precision, day)
        return msgspec.structs.replace(
            result, id=f"{result.id}-{batch}",
            spec=msgspec.structs.replace(result.spec, batch_size=batch),
        )  # fmt: skip

    report = report_of(
        *(at(b, p, f"2026-01-0{b}") for b in (1, 8) for p in ("fp32", "int8"))
    )  # fmt: skip
    texts = shown(report_html.render(report)).text, report_markdown.render(report).decode()
    for text in texts:
        assert "onnxruntime, batch 1" in text and "onnxruntime, batch 8" in text
    assert "batch" not in report_markdown.render(two()).decode()
