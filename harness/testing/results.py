"""A made-up Result with every part filled in, for tests of whatever reads results."""

from __future__ import annotations

from typing import Any

import msgspec

from harness.maybe import Unavailable
from harness.protocols import Quantization, TensorSpec
from harness.records.result import (
    Accuracy,
    ChannelSummary,
    Check,
    Energy,
    EnergySource,
    Fidelity,
    LatencyStats,
    Launch,
    Machine,
    Memory,
    ModelInfo,
    PrecisionInfo,
    Profiles,
    Result,
    Sampler,
    Software,
    Spread,
    Throughput,
    Timing,
)
from harness.spec import RunSpec

_SHA = "0123456789abcdef" * 4


def fake_result(**changes: Any) -> Result:
    """A degraded INT8 run of ``digits``, every figure invented; ``changes`` replace its fields."""
    result = Result(
        id="20261121T050301Z-digits-onnxruntime-int8-1a2b3c",
        status="degraded",
        started_at="2026-11-21T05:03:01Z",
        duration_s=2.75,
        spec=RunSpec(precision="int8", launches=2, sample_rate_hz=10.0),
        model=_model(),
        precision=_precision(),
        accuracy=Accuracy(
            dataset="digits test split",
            dataset_sha256=_SHA,
            samples=8,
            top1=0.875,
            macro_f1=0.86,
            correct="11110111",
        ),
        machine=Machine(
            fingerprint="5d41402abc4b",
            factors={"cpu": "Imaginary CPU 9000", "cpus_allowed": "2", "device": "cpu"},
            context={"kernel": "6.1.0", "governor": "performance"},
        ),
        software=Software(
            versions={"harness": "0.1.0", "onnxruntime": "1.31.1", "python": "3.11.7"},
            runtime={"provider": "CPUExecutionProvider", "intra_op_threads": "2"},
            environment={"OMP_NUM_THREADS": "2"},
            commit="27521fe",
        ),
        timing=_timing(),
        throughput=Throughput(
            inferences_per_s=8000.0,
            ci95=(7985.0, 8015.25),
            batch_size=1,
            concurrency=1,
            method="iterations x batch size over the window",
        ),
        energy=_energy(),
        memory=_memory(),
        profiles=_profiles(),
        validity=(
            Check(name="steady", verdict="pass", reason="no trend left after 0.5 s"),
            Check(name="finite outputs", verdict="pass", reason="all finite"),
            Check(
                name="cpu steal",
                verdict="warn",
                reason="3.1 % of CPU time was stolen by other guests; use a dedicated machine",
                threshold="at most 1 %",
            ),
            Check(
                name="clocks drifted",
                verdict="unknown",
                reason="no cpufreq here: a virtual machine hides its clocks",
            ),
        ),
        artifacts={"samples.npz": "start and end of every timed iteration"},
        tags={"branch": "main"},
    )
    return msgspec.structs.replace(result, **changes)


def fake_failure() -> Result:
    """A run whose worker was killed before anything was measured."""
    from harness.records.result import NOT_REACHED, ErrorInfo

    gone = dict.fromkeys(
        ("precision", "accuracy", "timing", "throughput", "energy", "memory", "profiles"),
        NOT_REACHED,
    )
    return fake_result(
        **gone,
        status="failed",
        validity=(),
        error=ErrorInfo(
            kind="signal",
            message="the worker was killed by SIGKILL while loading",
            remedy="out of memory is the usual cause: try a smaller batch",
            phase="load",
            stderr_tail="",
        ),
    )


def _model() -> ModelInfo:
    return ModelInfo(
        name="digits",
        source="zoo",
        sha256=_SHA,
        parameters=78_042,
        random_weights=False,
        inputs=(TensorSpec(name="image", dtype="float32", shape=(1, 1, 8, 8)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=(1, 10)),),
        input_data="test split",
        file_size_bytes=314_572,
    )


def _precision() -> PrecisionInfo:
    return PrecisionInfo(
        requested="int8",
        quantization=Quantization(
            route="onnxruntime static QDQ",
            method="minmax",
            scheme="symmetric activations, per-channel weights",
            calibration_source="model split",
            calibration_sha256=_SHA,
            calibration_samples=256,
        ),
        operators={"QLinearConv": {"int8": 9}, "QGemm": {"int8": 1}, "Softmax": {"fp32": 1}},
        fidelity=Fidelity(
            reference="fp32 on onnxruntime",
            samples=8,
            cosine=0.99987,
            sqnr_db=35.25,
            max_abs_error=0.3125,
            top1_agreement=1.0,
        ),
        file_size_bytes=98_304,
        fp32_file_size_bytes=314_572,
        size_ratio=3.2,
    )


def _timing() -> Timing:
    few = Unavailable("4000 iterations are too few for a 95 % interval", "run for longer")
    launch = Launch(
        iterations=2000,
        warmup_iterations=420,
        warmup_end="steady",
        stop_reason="interval",
        window_s=0.25,
        median_ms=0.1234,
        first_inference_ms=2.5,
        load_s=0.08,
    )
    return Timing(
        scenario="latency",
        boundary="compute",
        clock="CLOCK_MONOTONIC",
        mode="closed_loop",
        warmup_end="steady",
        stop_reason="interval",
        iterations=4000,
        window_s=0.5,
        latency_ms=LatencyStats(
            mean=0.1248,
            std=0.0123,
            min=0.1171,
            max=1.875,
            median=0.1236,
            p90=0.1301,
            p95=0.1342,
            p99=0.1711,
            p99_9=few,
            iqr=0.0042,
            mad=0.0021,
            ci95={
                "median": (0.1234, 0.1239),
                "p90": (0.1298, 0.1304),
                "p95": (0.1337, 0.1349),
                "p99": (0.1662, 0.1795),
                "p99_9": few,
                "mean": (0.1244, 0.1253),
            },
        ),
        device_ms=Unavailable("a CPU has no device clock"),
        autocorrelation=0.125,
        effective_samples=3111.0,
        outliers=17,
        outlier_rule="beyond median + 5 MAD-sd",
        drift=-0.004,
        launches=(launch, msgspec.structs.replace(launch, median_ms=0.1238)),
        between_launch_cv=0.0023,
        method={"median": "order statistics", "mean": "block bootstrap"},
    )


def _energy() -> Energy:
    per_inference = Spread(value=0.0001875, comparative=0.000002, absolute=0.00001)
    unread = Unavailable("this meter gives no power")
    return Energy(
        primary="rapl-package",
        joules_per_inference=per_inference,
        window_s=0.5,
        inferences=4000,
        shared=False,
        sources={
            "rapl-package": EnergySource(
                source="rapl-package",
                scope="cpu-package",
                method="counter",
                energy_j=Spread(value=0.75, comparative=0.008, absolute=0.04),
                counter_j=0.75,
                integral_j=unread,
                average_power_w=1.5,
                idle_before_w=0.5,
                idle_after_w=0.5,
                gross_j_per_inference=per_inference,
                net_j_per_inference=Spread(value=0.000125, comparative=0.000003, absolute=0.00001),
                energy_delay_product_js=2.34e-8,
                update_period_s=0.001,
                updates=498,
                status="ok",
            )
        },
    )


def _memory() -> Memory:
    return Memory(
        kind="host_rss_hwm",
        baseline_bytes=48_234_496,
        loaded_bytes=61_865_984,
        warmup_peak_bytes=66_060_288,
        window_peak_bytes=67_108_864,
        window_uss_bytes=52_428_800,
        window_pss_bytes=Unavailable("/proc/<pid>/smaps_rollup is not readable"),
        device=Unavailable("the device is the host"),
    )


def _profiles() -> Profiles:
    return Profiles(
        sampler=Sampler(
            requested_rate_hz=10.0, achieved_rate_hz=9.97, gap_max_s=0.125, cpu_share=0.004
        ),
        channels={
            "worker_cpu": ChannelSummary(
                unit="%",
                kind="gauge",
                scope="process",
                source="/proc",
                samples=5,
                mean=99.5,
                min=98.0,
                max=100.0,
                first=99.0,
                last=100.0,
            ),
            "frequency": Unavailable("no cpufreq here", "measure on bare metal"),
        },
    )
