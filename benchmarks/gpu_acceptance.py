"""Does Harness hold on this GPU? One script, each line with a verdict of its own.

    python benchmarks/gpu_acceptance.py -o FOLDER [--device cuda:0] [--seconds 240] [--only NAME...]

Needs the GPU's runtimes in this environment; no network, no root. Nothing on the device is set.
A line is ``ok``, ``WRONG`` (a figure beyond its limit), ``FAILED`` (it broke, or outlasted its
time), ``undecided`` (noise hides which), or ``absent`` (what it needs is not here: the reason
stands beside it). After each line
FOLDER/acceptance.json and FOLDER/acceptance.md are written anew; no line is begun after
``--seconds``, and the same command goes on with those that are missing. Recorded NVML traces lie in
FOLDER/traces.

The exit code is 1 where a line is WRONG or FAILED, 3 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BRIEF = ("--warmup", "0.2", "--max-warmup", "2", "--idle", "0", "--no-tensorboard")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
AT_ONCE = 6  # of the runs that only have to work
LINE_S = 150.0
MEMORY = """
import json, sys, torch
from harness.models import prepare
from harness.protocols import SessionOptions
from harness.spec import RunSpec
from harness import registry
import numpy as np
options = SessionOptions(device=sys.argv[1], options={})
adapter = registry.backend("pytorch")
spec = RunSpec(model=sys.argv[2], backend="pytorch", device=sys.argv[1], batch_size=8)
prepared = prepare(spec, adapter.wants("fp32", options))
with np.load(prepared.inputs_path) as arrays:
    session = adapter.prepare(prepared.artifact, dict(arrays), options)
module, inputs = session._loaded.module, session._feed.bound
with torch.inference_mode():
    for _ in range(5):
        kept = module(*inputs)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(20):
        kept = module(*inputs)
    torch.cuda.synchronize()
print(json.dumps(torch.cuda.max_memory_allocated()))
"""


@dataclass(frozen=True)
class Line:
    name: str
    verdict: str
    text: str
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Bench:
    """Where and on what everything runs."""

    folder: Path
    device: str
    model: str

    def harness(self, *flags: str, limit_s: float = LINE_S) -> tuple[int, str, str]:
        """Exit code, stdout and the last line of stderr."""
        return _run([sys.executable, "-m", "harness", *flags], limit_s)

    def result(self, *flags: str, model: str = "") -> dict[str, Any]:
        """A run's result. Raises `Absent` where it was refused, `RuntimeError` where it failed."""
        where = ["--device", self.device, "--results", str(self.folder / "runs"), "--json"]
        named = ["--model", model or self.model]
        code, out, last = self.harness("run", *where, *named, *flags)
        if not out.strip():
            raise (Absent if code in (2, 3) else RuntimeError)(f"exit code {code}: {last}")
        found: dict[str, Any] = json.loads(out)
        if found.get("error"):
            error = found["error"]
            text = error.get("message", error) if isinstance(error, dict) else error
            raise RuntimeError(f"exit code {code}: {text}")
        return found


class Absent(Exception):
    """What a line needs is not here."""


def _run(command: Sequence[str], limit_s: float = LINE_S) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    last = " ".join(done.stderr.strip().splitlines()[-2:])
    return done.returncode, done.stdout, last


# -- the lines ------------------------------------------------------------------------------------


def doctor(bench: Bench) -> Line:
    code, out, last = bench.harness("doctor", "--json")
    if code != 0:
        return Line("doctor", "FAILED", last)
    found = json.loads(out)
    gpus = found["gpus"]
    if not isinstance(gpus, list) or not gpus:
        return Line("doctor", "WRONG", f"it shows no GPU: {gpus}", {"doctor": found})
    channels = gpus[0]["channels"]
    read = [c["name"] for c in channels if not c["unavailable"]]
    absent = {c["name"]: c["unavailable"]["unavailable"] for c in channels if c["unavailable"]}
    text = f"{gpus[0]['device']['name']}: {len(read)} channels read; absent: {absent or 'none'}"
    return Line("doctor", "ok", text, {"doctor": found})


def contract(backend: str) -> Callable[[Bench], Line]:
    def line(bench: Bench) -> Line:
        name = f"contract {backend}"
        tests = HERE.parent / "tests" / "contract" / "test_backend_contract.py"
        command = [sys.executable, "-m", "pytest", "-q", "-rfEs", "-p", "no:cacheprovider"]
        _, out, _ = _run([*command, str(tests), "-k", f"{backend}-cuda"])
        (bench.folder / f"contract-{backend}.txt").write_text(out)
        closing = out.strip().splitlines()[-1] if out.strip() else "pytest printed nothing"
        broken = "failed" in closing or "error" in closing
        skipped = [row for row in out.splitlines() if row.startswith("SKIPPED")]
        if "passed" not in closing and not broken:
            return Line(name, "absent", skipped[0] if skipped else closing)
        failed = [row[:200] for row in out.splitlines() if row.startswith(("FAILED", "ERROR"))]
        return Line(
            name, "FAILED" if broken else "ok", closing, {"failed": failed, "skipped": skipped}
        )

    return line


def cells(backend: str) -> Callable[[Bench], Line]:
    """Every precision, two batch sizes, both boundaries: does each run, and say what ran?"""

    def line(bench: Bench) -> Line:
        wanted = [
            (precision, batch, boundary)
            for precision in PRECISIONS
            for batch in ("1", "32")
            for boundary in ("compute", "transfer")
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            rows = list(pool.map(lambda cell: _cell(bench, backend, *cell), wanted))
        broken = [row for row in rows if row["verdict"] not in ("ok", "absent")]
        ran = sum(row["verdict"] == "ok" for row in rows)
        refused = sorted({row["text"] for row in rows if row["verdict"] == "absent"})
        text = f"{ran} of {len(rows)} cells ran; refused: {'; '.join(refused) or 'none'}"
        if broken:
            text += f"; {len(broken)} broken, first: {broken[0]}"
        verdict = "FAILED" if broken else "ok" if ran else "absent"
        return Line(f"cells {backend}", verdict, text, {"cells": rows})

    return line


def _cell(bench: Bench, backend: str, precision: str, batch: str, boundary: str) -> dict[str, Any]:
    row: dict[str, Any] = {"precision": precision, "batch": batch, "boundary": boundary}
    flags = ["--backend", backend, "--precision", precision, "--batch-size", batch]
    try:
        found = bench.result(
            *flags, "--boundary", boundary, "--iterations", "400", *BRIEF, model="digits"
        )
    except Absent as error:
        return {**row, "verdict": "absent", "text": f"{precision}: {error}"}
    except Exception as error:
        return {**row, "verdict": "FAILED", "text": f"{type(error).__name__}: {error}"[:600]}
    latency, device = found["timing"]["latency_ms"], found["timing"]["device_ms"]
    row |= {"latency_ms": latency["median"], "operators": found["precision"]["operators"]}
    row["validity"] = {
        c["name"]: c["reason"] for c in found["validity"] if c["verdict"] in ("warn", "fail")
    }
    wrong = []
    if "unavailable" in device:
        wrong.append(f"no device time: {device['unavailable']}")
    else:
        row["device_ms"] = device["median"]
        # timed before the window, beside other cells: beyond both intervals is wrong
        least, most = _ends(device)[0], _ends(latency)[1]
        if not 0 < least <= most * 1.01:
            wrong.append(f"device at least {least:.4f} ms, host at most {most:.4f} ms")
    if "unavailable" in found["memory"]["device"]:
        wrong.append(f"no device memory: {found['memory']['device']['unavailable']}")
    fidelity = found["precision"]["fidelity"]
    if precision != "fp32":
        row["fidelity"] = fidelity.get("cosine", fidelity)
        if not isinstance(row["fidelity"], float) or row["fidelity"] < 0.99:
            wrong.append(f"fidelity {row['fidelity']}")
    return {**row, "verdict": "WRONG" if wrong else "ok", "text": "; ".join(wrong)}


def _ends(figure: dict[str, Any]) -> tuple[float, float]:
    """Of the median's interval; the median itself where it has none."""
    ends = figure["ci95"]["median"]
    return (ends[0], ends[1]) if isinstance(ends, list) else (figure["median"], figure["median"])


def beside(name: str, *flags: str, rounds: int = 100) -> Callable[[Bench], Line]:
    """Lines of gpu.py."""

    def line(bench: Bench) -> Line:
        command = [sys.executable, str(HERE / "gpu.py"), "--device", bench.device, "--json"]
        command += ["--model", bench.model, "--rounds", str(rounds)]
        code, out, last = _run([*command, *flags])
        if code != 0:
            return Line(name, "FAILED", f"exit code {code}: {last}")
        found = json.loads(out.strip().splitlines()[-1])
        verdicts = {one["verdict"] for one in found}
        absent = verdicts == {"n/a"}
        good = absent or verdicts <= {"ok", "", "n/a"}
        verdict = "absent" if absent else "ok" if good else "undecided"
        if not verdicts <= {"ok", "", "n/a", "undecided"}:
            verdict = "WRONG"
        text = "; ".join(f"{one['what']}: {one['text']}" for one in found)
        return Line(name, verdict, text, {"lines": found})

    return line


def by_hand(backend: str, batch: str) -> Callable[[Bench], Line]:
    flags = ("--only", "by-hand", "--backends", backend, "--batches", batch)
    return beside(f"by hand {backend} {batch}", *flags)


def option(name: str, model: str, *flags: str) -> Callable[[Bench], Line]:
    """One run with an option that only a GPU has."""

    def line(bench: Bench) -> Line:
        shared = ["--backend", "pytorch", "--duration", "2", *BRIEF]
        found = bench.result(*shared, *flags, model=model)
        host, device = found["timing"]["latency_ms"]["median"], found["timing"]["device_ms"]
        told = device.get("median") or device["unavailable"]
        figures = {
            "operators": found["precision"]["operators"],
            "fidelity": found["precision"]["fidelity"],
            "throughput": found["throughput"],
        }
        text = f"{host:.4f} ms on the host, device {told}, status {found['status']}"
        return Line(name, "ok", text, figures)

    return line


def joules(bench: Bench) -> Line:
    """Net of idle, beside gross; the counter beside its own power integrated."""
    found = bench.result("--backend", "pytorch", "--batch-size", "32", "--duration", "10")
    energy, checks = found["energy"], {c["name"]: c for c in found["validity"]}
    if "unavailable" in energy:
        return Line("energy", "FAILED", energy["unavailable"])
    source = energy["sources"][energy["primary"]]
    gross, net = source["gross_j_per_inference"], source["net_j_per_inference"]
    wrong = []
    if "unavailable" in net or not 0 < net["value"] < gross["value"]:
        wrong.append(f"net {net} against gross {gross}")
    counter, integral = source["counter_j"], source["integral_j"]
    if not isinstance(counter, float) or not isinstance(integral, float):
        wrong.append(f"counter {counter}, integral {integral}")
    elif abs(counter / integral - 1) > 0.05:
        wrong.append(f"counter / integrated power = {counter / integral:.4f}")
    throttled = checks.get("GPU throttled", {})
    if throttled.get("verdict") not in ("pass", "warn"):
        wrong.append(f"GPU throttled: {throttled}")
    text = (
        f"{energy['primary']}: {gross.get('value')} J gross, {net.get('value')} J net each; "
        f"counter {counter} J, integral {integral} J; idle {source['idle_before_w']} W, "
        f"average {source['average_power_w']} W; throttled: {throttled.get('reason')}"
    )
    figures = {"energy": energy, "profiles": found["profiles"], "validity": found["validity"]}
    text = "; ".join([*wrong, text])
    return Line("energy", "WRONG" if wrong else "ok", text, figures)


def memory(bench: Bench) -> Line:
    """The allocator's peak in a run against that of a loop by hand."""
    found = bench.result("--backend", "pytorch", "--batch-size", "8", "--iterations", "200", *BRIEF)
    ours = found["memory"]["device"].get("allocator_peak_bytes")
    code, out, last = _run([sys.executable, "-c", MEMORY, bench.device, bench.model])
    if code != 0:
        return Line("memory", "FAILED", f"by hand: {last}")
    theirs = json.loads(out.strip().splitlines()[-1])
    good = isinstance(ours, int) and abs(ours / theirs - 1) < 0.01
    text = f"allocator peak {ours} bytes, by hand {theirs}; all: {found['memory']['device']}"
    return Line("memory", "ok" if good else "WRONG", text)


def duel(bench: Bench) -> Line:
    flags = ["--model", bench.model, "--backend", "pytorch", "--device", bench.device]
    flags += ["--across", "precision=fp32,fp16", "--launches", "2"]
    flags += ["--results", str(bench.folder / "runs"), "--json"]
    code, out, last = bench.harness("duel", *flags)
    if not out.strip():
        return Line("duel fp16 / fp32", "FAILED", f"exit code {code}: {last}")
    return Line(
        "duel fp16 / fp32",
        "ok" if code in (0, 1) else "FAILED",
        last,
        {"comparison": json.loads(out)},
    )


def _on_device(device: str) -> set[int]:
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(int(device.partition(":")[2] or 0))
    return {process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}


def _workers(driver: int) -> Iterator[int]:
    import psutil

    for child in psutil.Process(driver).children(recursive=True):
        if any("worker" in part for part in child.cmdline()):
            yield child.pid


def killed(bench: Bench) -> Line:
    """kill -9 of a worker with its context open, in the middle of the window."""
    folder = bench.folder / "killed"
    flags = ["--model", bench.model, "--backend", "pytorch", "--device", bench.device, *BRIEF]
    command = [sys.executable, "-m", "harness", "run", *flags, "--duration", "60"]
    child = subprocess.Popen(
        [*command, "--results", str(folder)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not any(folder.glob("*/samples.journal")) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(3)
    victims = list(_workers(child.pid))
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    _, said = child.communicate(timeout=60)
    results = list(folder.glob("*/result.json"))
    status = json.loads(results[0].read_text())["status"] if results else "no result"
    left = [pid for pid in victims if Path(f"/proc/{pid}").exists()]
    good = victims and child.returncode == 3 and results and not left
    text = f"{len(victims)} killed, exit code {child.returncode}, status {status}, left: {left}"
    return Line("killed worker", "ok" if good else "WRONG", f"{text}; {said.strip()[-300:]}")


def shared(bench: Bench) -> Line:
    """A second process computes on the device: does the check say so?"""
    load = _load(bench, 40)
    try:
        time.sleep(8)
        found = bench.result("--backend", "pytorch", "--duration", "3", *BRIEF)
    finally:
        _end(load)
    check = next((c for c in found["validity"] if c["name"] == "GPU shared"), None)
    good = check is not None and check["verdict"] == "warn"
    return Line("two processes", "ok" if good else "WRONG", str(check))


def traces(bench: Bench) -> Line:
    """What NVML answers idle, under load, and where a load begins and ends."""
    folder = bench.folder / "traces"
    folder.mkdir(exist_ok=True)
    said = [_recorded(bench, folder / "idle.json", 5, "idle")]
    load = _load(bench, 60)
    try:
        time.sleep(10)
        said.append(_recorded(bench, folder / "load.json", 6, f"{bench.model}, batch 32, pytorch"))
    finally:
        recorder = _recorder(bench, folder / "edge.json", 6, "the end of a load, then idle")
        time.sleep(3)
        _end(load)
    said.append(recorder.communicate(timeout=60)[0].strip())
    good = all((folder / f"{name}.json").exists() for name in ("idle", "load", "edge"))
    return Line("traces", "ok" if good else "FAILED", "; ".join(said))


def _recorder(bench: Bench, path: Path, seconds: float, note: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "record_nvml.py"), "-o", str(path), "--note", note]
    command += ["--device", bench.device, "--seconds", str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _recorded(bench: Bench, path: Path, seconds: float, note: str) -> str:
    return _recorder(bench, path, seconds, note).communicate(timeout=60)[0].strip()


def _load(bench: Bench, seconds: int) -> subprocess.Popen[bytes]:
    flags = ["--model", bench.model, "--backend", "pytorch", "--device", bench.device, *BRIEF]
    flags += ["--batch-size", "32", "--results", str(bench.folder / "load"), "--quiet"]
    command = [sys.executable, "-m", "harness", "run", *flags, "--duration", str(seconds)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def _end(load: subprocess.Popen[bytes]) -> None:
    load.send_signal(signal.SIGINT)
    load.wait(timeout=30)


LINES: dict[str, Callable[[Bench], Line]] = {
    "doctor": doctor,
    "contract pytorch": contract("pytorch"),
    "contract onnxruntime": contract("onnxruntime"),
    "cells pytorch": cells("pytorch"),
    "cells onnxruntime": cells("onnxruntime"),
    "energy": joules,
    "by hand pytorch 1": by_hand("pytorch", "1"),
    "by hand onnxruntime 1": by_hand("onnxruntime", "1"),
    "traces": traces,
    "duel fp16 / fp32": duel,
    "graphs": beside("graphs", "--only", "graphs", "--batches", "1"),
    "killed worker": killed,
    "two processes": shared,
    "memory": memory,
    "contract tensorrt": contract("tensorrt"),
    "cells tensorrt": cells("tensorrt"),
    "contract tensorrt-rtx": contract("tensorrt-rtx"),
    "cells tensorrt-rtx": cells("tensorrt-rtx"),
    "by hand pytorch 32": by_hand("pytorch", "32"),
    "by hand onnxruntime 32": by_hand("onnxruntime", "32"),
    "trtexec": beside("trtexec", "--only", "trtexec"),
    "compile": option("compile", "resnet50", "--option", "compile=inductor"),
    "int8 linear": option(
        "int8 linear", "bert_base", "--precision", "int8", "--option", "compile=inductor"
    ),
    "throughput": option("throughput", "resnet50", "--scenario", "throughput"),
    "server": option("server", "resnet50", "--scenario", "server", "--rate", "100"),
    "profilers": beside("profilers", "--only", "profilers"),
}  # fmt: skip


# -- the report -----------------------------------------------------------------------------------


def written(folder: Path, title: str, lines: Sequence[Line]) -> None:
    """Both files, whole at each moment."""
    rows = [f"| {line.name} | {line.verdict} | {_cell_text(line.text)} |" for line in lines]
    text = "\n".join([f"# {title}", "", "| Line | Verdict | |", "|:--|:--|:--|", *rows, ""])
    data = json.dumps({"title": title, "lines": [asdict(line) for line in lines]}, indent=1)
    for name, content in (("acceptance.md", text), ("acceptance.json", data)):
        fresh = folder / f".{name}"
        fresh.write_text(content)
        fresh.replace(folder / name)


def _cell_text(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:600]


def earlier(folder: Path) -> list[Line]:
    path = folder / "acceptance.json"
    if not path.exists():
        return []
    return [Line(**line) for line in json.loads(path.read_text())["lines"]]


def attempt(name: str, bench: Bench) -> Line:
    """The line, whatever it meets."""
    began = time.monotonic()
    try:
        line = LINES[name](bench)
    except Absent as error:
        line = Line(name, "absent", str(error))
    except Exception as error:
        line = Line(name, "FAILED", f"{type(error).__name__}: {error}"[:1500])
    return Line(name, line.verdict, line.text, line.figures, round(time.monotonic() - began, 1))


def device_name(device: str) -> str:
    """Raises `SystemExit` with 3 where there is none."""
    from harness.host.gpus import cuda_device
    from harness.maybe import Unavailable, explain

    found = cuda_device(device)
    if isinstance(found, Unavailable):
        print(f"gpu_acceptance.py: nothing to accept: {explain(found)}", file=sys.stderr)
        raise SystemExit(3)
    return found.name


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("gpu-acceptance"))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--only", nargs="+", choices=list(LINES), metavar="LINE")
    given = parser.parse_args()
    title = f"GPU acceptance, {device_name(given.device)}"
    given.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(given.out.resolve(), given.device, given.model)
    lines = [line for line in earlier(given.out) if line.name not in (given.only or ())]
    done, began = {line.name for line in lines}, time.monotonic()
    wanted = [name for name in given.only or LINES if name not in done]
    for number, name in enumerate(wanted):
        if time.monotonic() - began > given.seconds:
            print(f"{len(wanted) - number} lines are left: the same command goes on")
            break
        lines.append(attempt(name, bench))
        written(given.out, title, lines)
        print(
            f"{lines[-1].verdict:8}{name:24}{lines[-1].seconds:6.1f} s  {lines[-1].text[:400]}",
            flush=True,
        )
    return int(any(line.verdict in ("WRONG", "FAILED") for line in lines))


if __name__ == "__main__":
    sys.exit(main())
