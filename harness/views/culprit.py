"""What `harness bisect` says: since when, what changed, and the commands that go on from there."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from harness.compare.culprit import Known, Suspects
from harness.spec import again, code_named_by
from harness.views.terminal import render_table
from harness.views.text import plain, quantity


def render_suspects(found: Suspects) -> RenderableType:
    """Everything about one regression."""
    change = f"{100 * math.expm1(math.log(found.ratio)):+.1f} %"
    head = Text(f"{plain(found.cell)}  {found.metric.name} {change}", style="bold")
    sides = render_table(
        ("", "level", "run", "commit"),
        [
            (word, quantity(known.level, found.metric.unit), known.run, (known.commit or "")[:10])
            for word, known in (("good", found.good), ("bad", found.bad))
        ],
    )
    return Group(head, Text(""), sides, Text(""), _differences(found), Text(""))


def _differences(found: Suspects) -> RenderableType:
    rows = [(name, *pair) for name, pair in found.differences.items()]
    if not rows:
        return Text("nothing recorded differs between the two: look at the machine itself")
    return render_table(("changed", "good", "bad"), rows)


def commands(found: Suspects, results: str = "results") -> list[str]:
    """What to type next, line by line. ``results``: the folder that holds the runs."""
    command = shlex.join(["harness", "run", *again(found.bad.spec, 5)])
    texts = ["measure it again, on both builds:", command]
    good, bad = (_hash(known) for known in (found.good, found.bad))
    if good and bad and good != bad:
        test = ["harness", "bisect", found.cell, "--metric", found.metric.name]
        refs = [_ref(known, results) for known in (found.good, found.bad)]
        test += ["--good", refs[0], "--bad", refs[1], "--run"]
        test += [word for name in code_named_by(found.bad.spec) for word in ("--trust", name)]
        test += [] if results == "results" else ["--results", results]
        texts += ["find the commit:", f"git bisect start {bad} {good}"]
        texts += [f"git bisect run {shlex.join(test)}"]
    return [("" if text.endswith(":") else "  ") + plain(text) for text in texts]


def _ref(known: Known, results: str) -> str:
    """The whole night where it has a folder: one of its runs knows its level less well."""
    whole = Path(known.name).is_dir() or Path(results, known.name).is_dir()
    return known.name if whole else known.run


def _hash(known: Known) -> str:
    return (known.commit or "").partition("-")[0]
