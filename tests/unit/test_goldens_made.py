"""Whole outputs of the commands that measure, over made records: only who measures is replaced.

A command parses its flags, asks for a measurement, and prints what comes back. Here made records
come back, so that each line that it prints is known; ``make goldens`` writes the files anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from made_runs import made
from test_board_import import FILE
from test_goldens import FP32, INT8, pretty, tamed
from test_operators import BEYOND, CACHED, COMPUTE, profiled
from test_recover import finished, journalled
from test_stored_results import results  # noqa: F401  (a fixture)

from harness.analysis.capacity import Held
from harness.analysis.operators import of_launch, over_launches
from harness.cli.main import main
from harness.compare.duel import of_duel
from harness.compare.package_search import search
from harness.compare.paired import Design, Rounds, paired
from harness.engine.driver.capacity import CapacityFound, CapacityOutcome, Measured, Predicted
from harness.engine.driver.conductor import Outcome
from harness.engine.driver.duel import DuelOutcome
from harness.host.gpus import CudaDevice
from harness.inspect.findings import Finding, Report
from harness.inspect.meters import MeterStatus
from harness.inspect.probe import BackendStatus, GpuStatus, ProfilerStatus
from harness.ledger.measure import Outcome as LedgerOutcome
from harness.maybe import Unavailable
from harness.models.making import Building
from harness.protocols import Available, Channel, Node, Option
from harness.records.ledger import Answers, Layer, Ledger, Side, Wish
from harness.records.result import Capacity
from harness.spec import RunSpec
from harness.stats.paired import PairedRatio
from harness.sweep.folder import Attempt
from harness.sweep.runner import Step, remaining
from harness.testing.results import fake_failure, fake_result

Golden = Callable[[str, str], None]
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
WANTING = Unavailable("no meter", "measure on bare metal")


class Said:
    """Calls commands in an empty folder, each of which must leave it so."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, line: str, code: int = 0) -> str:
        """What is printed, and below it what goes to stderr."""
        self._capsys.readouterr()
        assert main(line.split()) == code, self._capsys.readouterr()
        out, err = self._capsys.readouterr()
        if "--json" in line:
            out = pretty(out)
        return tamed(out + (f"--- stderr\n{err}" if err else ""), self.folder)


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Said:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return Said(tmp_path, capsys)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    """``answers(name, value)``: whoever calls that function gets the value."""
    return lambda name, value: monkeypatch.setattr(name, lambda *_, **__: value)


# -- run and profile -------------------------------------------------------------------------------

ENDS: dict[str, tuple[Outcome, int]] = {
    "degraded": (Outcome(fake_result(), Path("results/a"), 0), 0),
    "failed": (Outcome(fake_failure(), Path("results/b"), 3), 3),
    "wanting": (
        Outcome(
            fake_result(energy=WANTING),
            Path("results/c"),
            3,
            missing=("--require energy: no meter; measure on bare metal",),
            problems=("the samples could not be saved: No space left on device",),
        ),
        3,
    ),
}


@pytest.mark.parametrize("flags", ["", " --quiet", " --verbose"])
@pytest.mark.parametrize("end", ENDS)
def test_a_run(
    end: str, flags: str, said: Said, answers: Callable[[str, Any], None], golden: Golden
) -> None:
    outcome, code = ENDS[end]
    folder = said.folder / outcome.folder
    answers("harness.engine.driver.run", msgspec.structs.replace(outcome, folder=folder))
    how = flags.strip(" -") or "shown"
    golden(f"run.{end}.{how}.txt", said(f"run --model digits --precision int8{flags}", code))


def test_a_run_as_json(said: Said, answers: Callable[[str, Any], None], golden: Golden) -> None:
    outcome, code = ENDS["degraded"]
    answers("harness.engine.driver.run", outcome)
    golden("run.json", said("run --model digits --json", code))


def test_a_profile(said: Said, answers: Callable[[str, Any], None], golden: Golden) -> None:
    roofs = (COMPUTE, CACHED, BEYOND)
    launches = [of_launch(profiled(slow), 8.0, roofs) for slow in (0.0, 0.1, 0.2, 0.3, 0.4)]
    found = fake_result(operators=over_launches(launches, 8.2))
    answers("harness.engine.driver.run", Outcome(found, said.folder / "results/a", 0))
    golden("profile.txt", said("profile --model digits"))
    operators = json.loads(said("profile --model digits --json"))["operators"]
    golden("profile.json", json.dumps(operators, indent=1, ensure_ascii=False) + "\n")
    bare = fake_result(operators=Unavailable("it has no profiler", "use another"))
    answers("harness.engine.driver.run", Outcome(bare, said.folder / "results/a", 0))
    golden("profile.none.txt", said("profile --model digits", 3))


# -- duel, bisect and its packages -----------------------------------------------------------------


def rounds(count: int, *latency_ns: float) -> Rounds:
    sides = tuple((value,) * count for value in latency_ns)
    cold = tuple((1.2 * value,) * count for value in latency_ns)
    return Rounds(latency=sides, cold=cold, cpu=sides, resting=(0.0,) * len(latency_ns))


@pytest.mark.parametrize("end", ["known", "failed"])
def test_a_duel(end: str, said: Said, answers: Callable[[str, Any], None], golden: Golden) -> None:
    spreads = (0.999, 1.0005, 1.0, 0.9995, 1.001) if end == "known" else (1.0, 1.001)
    launches = tuple(rounds(12, 1e6, 0.61e6 * spread) for spread in spreads)
    runs = [made(1.0, correct="1101"), made(0.61, correct="1100", precision="int8")]
    runs = [msgspec.structs.replace(run, id=f"the-{run.spec.precision}") for run in runs]
    found = paired(
        ("fp32", "int8"),
        ("the-fp32", "the-int8"),
        Design(block_ms=20.0, left_out=2, seed=0, goal=0.01, cpus=(0, 1)),
        launches,
        "interval" if end == "known" else "failed",
        "" if end == "known" else "int8: the worker was killed by SIGKILL",
    )
    code = 0 if end == "known" else 3
    outcome = DuelOutcome(
        folder=Path("results/duel"),
        paired=found,
        comparison=of_duel(found, runs),
        runs=tuple(Outcome(run, said.folder / run.id, 0) for run in runs),
        launches=launches,
        exit_code=code,
        problems=("the events could not be written: No space left on device",),
    )
    answers("harness.engine.driver.duel.duel", outcome)
    golden(f"duel.{end}.txt", said("duel --across precision=fp32,int8", code))
    golden(f"duel.{end}.json", said("duel --across precision=fp32,int8 --json", code))


def put(folder: Path, runs: Sequence[Any]) -> None:
    for run in runs:
        (folder / run.id).mkdir(parents=True)
        (folder / run.id / "result.json").write_bytes(msgspec.json.encode(run))


def test_a_bisection(said: Said, golden: Golden) -> None:
    good, bad = made(1.0), made(1.3, factors={"cpu": "Another CPU"})
    commits = {"g": (good, "a" * 40), "b": (bad, "b" * 40)}
    put(
        said.folder / "results",
        [
            msgspec.structs.replace(
                run, id=name, software=msgspec.structs.replace(run.software, commit=commit)
            )
            for name, (run, commit) in commits.items()
        ],
    )
    line = "bisect digits/onnxruntime/cpu/fp32/b1/latency --good results/g --bad results/b"
    golden("bisect.txt", said(line))
    golden("bisect.json", said(f"{line} --json"))


def test_a_bisection_of_versions(
    said: Said, answers: Callable[[str, Any], None], golden: Golden
) -> None:
    levels = {"1.0": 0.0, "1.1": 0.0, "1.2": 0.2, "1.3": 0.2}

    def planted(versions: Sequence[str]) -> list[PairedRatio]:
        first = levels[versions[0]]
        return [PairedRatio(levels[one] - first, 0.001, 4.0, 0.0, ()) for one in versions[1:]]

    found = search("lib", list(levels), planted)
    answers("harness.sweep.packages.refuse_stranger", None)
    answers("harness.sweep.packages.versions_between", list(levels))
    answers("harness.compare.package_search.search", found)
    golden("bisect-package.txt", said("bisect --package lib 1.0..1.3"))
    golden("bisect-package.json", said("bisect --package lib 1.0..1.3 --json"))


# -- capacity, ledger and build --------------------------------------------------------------------


def capacity_found() -> CapacityFound:
    def probe(rate: float, late: float, verdict: Any) -> Measured:
        held = Held(bound="p99=10ms", late=late, quantile_ms=9.0, effective=2000, verdict=verdict)
        return Measured(
            run=f"run-at-{rate:g}", rate_per_s=rate, p50_ms=2.0, p99_ms=9.0 + 100 * late,
            utilization=rate / 500, joules_per_request=WANTING, lateness_ms=0.05,
            stationary=True, held=(held,),
        )  # fmt: skip

    return CapacityFound(
        id="a-capacity", ended="known", spec=RunSpec(scenario="server", rate=1.0),
        capacity=Capacity(
            per_s=412.0, ci95=(400.0, 424.0), bounds=("p99=10ms",), limited_by="p99=10ms",
            predicted_per_s=430.0, probes=2,
        ),
        limit="the queue", scale=0.96, saturation_per_s=500.0,
        probes=(probe(430.0, 0.02, "fail"), probe(410.0, 0.004, "pass")),
        predicted=(Predicted(rate_per_s=206.0, p50_ms=2.1, p99_ms=6.0, utilization=0.41),),
        monotone=(),
    )  # fmt: skip


def test_a_capacity(said: Said, answers: Callable[[str, Any], None], golden: Golden) -> None:
    known = capacity_found()
    alone = msgspec.structs.replace(known.capacity, ci95=Unavailable("nothing was probed"))
    unprobed = msgspec.structs.replace(known, capacity=alone, probes=(), ended="failed")
    for name, found, code in (("known", known, 0), ("unprobed", unprobed, 3)):
        outcome = CapacityOutcome(
            folder=Path("results/capacity"), found=found, base=fake_result(), exit_code=code,
            problems=("a probe was cut short",) if code else (),
        )  # fmt: skip
        answers("harness.engine.driver.capacity.capacity", outcome)
        golden(f"capacity.{name}.txt", said("capacity --latency-bound p99=10ms", code))
        golden(f"capacity.{name}.json", said("capacity --latency-bound p99=10ms --json", code))


def ledger_found() -> Ledger:
    def layer(name: str, **facts: Any) -> Layer:
        return Layer(**{
            "name": name, "operators": (name,), "sqnr_db": 40.0, "fp32_ms": 0.4, "int8_ms": 0.2,
            **facts,
        })  # fmt: skip

    lost = Answers(samples=300, lost=9, gained=1, p=0.01)
    return Ledger(
        id="a-ledger", model="net", answers_of="labels of samples.npz", choosing=300,
        verifying=300, measured=2, alpha=0.05, keep=("head",), mixed="mixed.onnx",
        layers=(
            layer("conv", answers=Answers(samples=300, lost=1, gained=1, p=1.0), ratio=1.1,
                  interval=(1.09, 1.11)),
            layer("head", sqnr_db=8.0, answers=lost, ratio=0.97, interval=(0.96, 0.98),
                  fragile=True, slow=True, overflow="it can reach 50,800, beyond 16 bits"),
            layer("tail", sqnr_db=None, fp32_ms=WANTING),
        ),
        sides=(
            Side(name="fp32", run="r1", top1=0.9, answers=Unavailable("it is the reference"),
                 ratio=1.9, interval=(1.88, 1.92)),
            Side(name="int8", run="r2", top1=0.87, answers=lost, ratio=1.0, interval=(1.0, 1.0)),
            Side(name="mixed", run="r3", top1=0.9, ratio=0.97, interval=(0.96, 0.98),
                 answers=Answers(samples=300, lost=0, gained=0, p=1.0)),
        ),
        wishes=(
            Wish(name="accuracy drop", wanted=0.005, found=0.0, interval=(0.0, 0.004),
                 outcome="reached"),
            Wish(name="speed", wanted=1.2, found=1.03, interval=(1.02, 1.04), outcome="missed",
                 note="of int8's"),
        ),
        notes=("one layer could not be left alone",), recommendation="leave head in fp32",
    )  # fmt: skip


def test_a_ledger(said: Said, answers: Callable[[str, Any], None], golden: Golden) -> None:
    outcome = SimpleNamespace(ledger=ledger_found(), folder=Path("results/ledger"))
    assert set(vars(outcome)) <= set(LedgerOutcome.__struct_fields__)
    answers("harness.ledger.measure.ledger", outcome)
    golden("ledger.txt", said("ledger --model digits --speed 1.2", 1))
    golden("ledger.json", said("ledger --model digits --speed 1.2 --json", 1))


def test_what_was_built(said: Said, answers: Callable[[str, Any], None], golden: Golden) -> None:
    made_of = Building(
        model="net.onnx", backend="tensorrt-rtx", precision="int8", format="engine",
        nodes=(Node("conv", "Conv", True), Node("1", "Odd", False, "no such operator"),
               Node("2", "Relu", None)),
        size_bytes=1_000_000, fp32_bytes=3_900_000, sha256="ab" * 32, seconds=2.5,
        facts={"layers": "2", "builder_version": "1.7"}, file="net.engine", file_bytes=1_000_000,
    )  # fmt: skip
    answers("harness.models.making.build", made_of)
    golden("build.txt", said("build --model net.onnx --precision int8"))
    golden("build.json", said("build --model net.onnx --precision int8 --json"))


# -- sweep -----------------------------------------------------------------------------------------

SWEEP = """
name = "night"
launches = 2
[defaults]
model = "digits"
[matrix]
precision = ["fp32", "int8"]
"""


def swept(plan: Any, folder: Any, _: Any, tell: Any, __: Any) -> Iterator[Attempt]:
    """Of two cells the second fails in its first launch."""
    steps = remaining(plan, set())
    for index, ((one,), launch) in enumerate(steps):
        fails = one.cell.name.endswith("/int8/b1/latency")
        if fails and launch == 2:
            continue
        step = Step(index + 1, len(steps), one.cell, launch, 2, 12.5 if index else None)
        tell(step)
        attempt = Attempt(
            cell=one.cell.name, launch=launch, status="failed" if fails else "complete",
            started_at="2026-11-27T18:00:00+00:00", seconds=4.25, run=f"run-{index}",
            reason="the worker was killed by SIGSEGV" if fails else "",
        )  # fmt: skip
        tell(msgspec.structs.replace(step, attempt=attempt, median_ms=None if fails else 0.123456))
        yield attempt


def test_a_sweep(said: Said, monkeypatch: pytest.MonkeyPatch, golden: Golden) -> None:
    (said.folder / "night.toml").write_text(SWEEP)
    (said.folder / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(said.folder / "tmp"))  # where its locks lie
    monkeypatch.setattr("harness.sweep.runner.run", swept)
    golden("sweep.plan.txt", said("sweep night.toml --dry-run"))
    golden("sweep.plan.json", said("sweep night.toml --dry-run --json"))
    golden("sweep.txt", said("sweep night.toml --label a", 3))
    golden("sweep.json", said("sweep night.toml --label a --json", 3))


# -- what is read, brought in, recovered -----------------------------------------------------------


def test_an_import(said: Said, golden: Golden) -> None:
    (said.folder / "bench.json").write_text(json.dumps(FILE))
    golden("import.txt", said("import bench.json"))
    golden("import.json", said("import bench.json --logdir other --json"))


def test_what_a_killed_run_owed(said: Said, golden: Golden) -> None:
    told = said("recover", 2)  # no results folder
    for index, flag in enumerate(("", " --json")):
        folder = journalled(said.folder / "results", finished(2), cut=bool(index))
        told += said(f"recover{flag}").replace(folder.name, "RUN")
    golden("recover.txt", told + said("recover"))
    (said.folder / "empty").mkdir()
    golden("recover.refused.txt", said("recover empty gone", 2))


def test_a_run_whose_files_are_not_its_own(
    said: Said,
    results: Path,  # noqa: F811
    golden: Golden,
) -> None:
    golden("verify.txt", said(f"verify {FP32}"))
    (path,) = results.glob(f"{INT8}-*/result.json")
    found = json.loads(path.read_bytes())
    found["timing"]["latency_ms"]["median"] *= 2
    path.write_text(json.dumps(found))
    golden("verify.differs.txt", said(f"verify {INT8}", 1))
    golden("verify.differs.json", said(f"verify {INT8} --json", 1))


def test_the_runs_of_a_folder(
    said: Said,
    results: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    golden: Golden,
) -> None:
    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return NOW

    monkeypatch.setattr("harness.cli.list.datetime", Then)
    golden("list-runs.txt", said("list runs"))
    golden("baseline-list.txt", said("baseline list"))


# -- the machine -----------------------------------------------------------------------------------


def channel(name: str, tag: str, why: Unavailable | None = None, **facts: Any) -> Channel:
    kind = {"unit": "J", "kind": "counter", "scope": "package", **facts}
    return Channel(name=name, tag=tag, unavailable=why, **kind)


def machine_report() -> Report:
    denied = Unavailable("permission_denied: energy_uj is not readable", "sudo chmod a+r it")
    joules = channel("cpu_j", "energy/cpu_j", period_s=0.001)
    resident = channel("rss", "memory/rss", unit="bytes", kind="gauge", scope="process")
    device = CudaDevice(
        index=0, name="NVIDIA H200", uuid="GPU-1", whole_uuid="GPU-1", mig=False,
        compute_capability="9.0", pci_bus_id="0000:65:00.0", memory_bytes=139 * 2**30,
        multiprocessors=132, compute_mode="default", integrated=False, driver_cuda="13.0",
    )  # fmt: skip
    return Report(
        machine=fake_result().machine,
        findings=(
            Finding("virtualisation", "warn", "a guest of kvm", "measure on bare metal"),
            Finding("CPUs", "pass", "2 usable of 2 physical cores"),
            Finding("timer", "unknown", "no clock source is told"),
        ),
        meters=(
            MeterStatus("powercap", "package", "auto", Available(), (joules,)),
            MeterStatus("hwmon", "board", "auto", denied, ()),
        ),
        profilers=(
            ProfilerStatus("memory", Available(), (resident,)),
            ProfilerStatus("utilization", Available(), (channel("busy", "cpu/busy", denied),)),
            ProfilerStatus("strange", Unavailable("it raised", "uninstall it"), ()),
        ),
        backends=(
            BackendStatus(
                "onnxruntime",
                {"cpu": Available({"version": "1.2"}), "cuda:0": Unavailable("no GPU", "buy one")},
                (Option("arena", ("on", "off"), "on", "keeps memory"),),
            ),
        ),
        gpus=[GpuStatus(device, (channel("gpu0_j", "energy/gpu0_j", scope="gpu-board"),))],
    )


@pytest.mark.parametrize("gpu", [True, False], ids=["gpu", "none"])
def test_what_the_machine_can(
    gpu: bool, said: Said, answers: Callable[[str, Any], None], golden: Golden
) -> None:
    report = machine_report()
    if not gpu:
        none = Unavailable("no NVIDIA driver", "install it")
        meters = report.meters[1:]
        report = msgspec.structs.replace(report, gpus=none, meters=meters)
    answers("harness.cli.doctor.examine", report)
    name = "doctor" if gpu else "doctor.none"
    golden(f"{name}.txt", said("doctor"))
    golden(f"{name}.json", said("doctor --json"))


@pytest.mark.parametrize("kind", ["", "models", "backends", "profilers"])
def test_what_there_is(
    kind: str, said: Said, answers: Callable[[str, Any], None], golden: Golden
) -> None:
    report = machine_report()
    answers("harness.inspect.probe.backends", list(report.backends))
    answers("harness.inspect.probe.profilers", list(report.profilers))
    name = f"list-{kind or 'all'}"
    golden(f"{name}.txt", said(f"list {kind}"))
    golden(f"{name}.json", said(f"list {kind} --json"))
