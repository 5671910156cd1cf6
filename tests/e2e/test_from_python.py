"""README's script, as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

from running import environment

README = Path(__file__).parents[2] / "README.md"


def test_the_readmes_script_measures_and_compares(tmp_path: Path, cache: Path) -> None:
    (block,) = re.findall(r"## From Python\n\n((?:    .*\n|\n)+)", README.read_text("utf-8"))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(block)],
        cwd=tmp_path,
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    first, *rows = done.stdout.splitlines()
    assert re.fullmatch(r"(complete|degraded) 0\.\d+ ms", first)
    assert {"latency_median", "file_size"} <= {row.partition(" ")[0] for row in rows}
    folders = list((tmp_path / "results").glob("2*-digits-onnxruntime-*"))
    assert len(folders) == 2
    for folder in folders:
        assert {"result.json", "samples.npz"} <= {path.name for path in folder.iterdir()}
        assert list(folder.glob("events.out.tfevents.*"))
