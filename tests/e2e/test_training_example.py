"""The example, as a script and as a notebook: training, compression and hardware in one folder."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.records.store import iter_results

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = "digits-trained"
# looked for, not imported: every process that collects tests would import them
NEEDS = ("nbclient", "nbformat", "ipykernel", "sklearn", "torch", "tensorboard")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, NEEDS)), reason=f"needs {', '.join(NEEDS)}"
    ),
]


def read(folder: Path) -> EventAccumulator:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def values(events: EventAccumulator, tag: str) -> list[float]:
    return [event.value for event in events.Scalars(f"{MODEL}/{tag}")]


def check_folder(logdir: Path, epochs: int) -> None:
    from harness.training import CheckpointManager

    (trained,) = logdir.glob("training-*")
    events = read(trained)
    for tag in ("training/loss", "validation/loss", "training/accuracy", "validation/accuracy"):
        assert len(values(events, tag)) == epochs, tag
    assert values(events, "validation/loss")[-1] < values(events, "validation/loss")[0]
    assert len(values(events, "training/step/loss")) == epochs * 19  # batches of 64 in 1,257
    assert len(values(events, "training/gradients/total_norm")) == -(-epochs * 19 // 10)
    assert values(events, "training/system/memory/rss_bytes")[0] > 1e7
    assert f"{MODEL}/validation/calibration/reliability" in events.Tags()["images"]
    assert events.Tags()["graph"]
    results = {result.spec.precision: result for result in iter_results(logdir)}
    assert set(results) == {"fp32", "int8"}
    for precision, result in results.items():
        assert result.status in ("complete", "degraded")
        run = read(logdir / result.id)
        assert f"{MODEL}/accuracy/{precision}" in run.Tags()["scalars"]
        assert "memory/rss_bytes" in run.Tags()["scalars"]
    # what was measured is what was trained
    best = CheckpointManager(logdir / f"checkpoints-{MODEL}").load("best")
    assert best is not None
    assert best.metrics["val_loss"] == pytest.approx(min(values(events, "validation/loss")))
    assert results["fp32"].accuracy.top1 == pytest.approx(
        values(events, "validation/accuracy")[(best.step - 19) // 19], abs=0.002
    )


def test_the_script(tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "train_digits.py", "--logdir", tmp_path / "log",
               "--epochs", "2", "--duration", "0.3"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith(("  epoch", "measuring"))]
    assert [line.partition(":")[0] for line in told[:2]] == ["  epoch 1", "  epoch 2"]
    assert told[2:] == ["measuring it in fp32 on this machine, 0.3 s after the warm-up"]
    lines = done.stdout.splitlines()
    assert [line.partition(",")[0] for line in lines[:2]] == ["fp32", "int8"]
    assert lines[-1] == f"harness board --results {tmp_path / 'log'}"
    check_folder(tmp_path / "log", 2)


def test_the_notebook(tmp_path: Path) -> None:
    import nbclient
    import nbformat

    notebook: Any = nbformat.read(EXAMPLES / "train_digits.ipynb", as_version=4)
    (at,) = (i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", ()))
    short = f"LOGDIR = Path({str(tmp_path / 'log')!r})\nEPOCHS = 2\nDURATION_S = 0.3"
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(short))
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": EXAMPLES}}
    )
    client.execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "harness board --results" in printed
    assert "Latency" in printed
    check_folder(tmp_path / "log", 2)


def test_the_notebook_is_kept_without_outputs() -> None:
    import nbformat

    notebook: Any = nbformat.read(EXAMPLES / "train_digits.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
