"""The registry of figures: one record says of a metric all that anybody asks.

Its name and unit, which way is better and which change matters; where its figure lies in a result,
and in each launch; how tables, TensorBoard and the board call it. Whoever reads, judges, indexes,
shows or exports figures reads them by these records: another metric is another record here, beside
the field of the result that holds it.

``minimum_effect`` is a ratio: below it a change is real perhaps, but of no consequence. The values
are defaults of policy, chosen from how far identical runs lie apart (tails and energy farther than
medians, memory hardly at all); a comparison may be given its own.

``rule`` says what decides:

    launches         a test between launches (`harness.stats.two_samples`)
    deterministic    the same, but where every launch agrees the minimum effect alone
    exact            one figure that measuring does not change: the minimum effect alone
    paired           the answers to each sample of one dataset (`harness.stats.mcnemar`)
    shown            nothing: it stands beside the others and is not judged
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.errors import UsageError

Better = Literal["lower", "higher"]
Rule = Literal["launches", "deterministic", "exact", "paired", "shown"]
_MB = 1e6  # decimal, as in file listings


class Quantity(msgspec.Struct, frozen=True, kw_only=True):
    """What documents state of a metric."""

    name: str
    unit: str
    better: Better
    minimum_effect: float = 0.0
    rule: Rule = "launches"


class Metric(Quantity, frozen=True, kw_only=True):
    """A `Quantity`, where its figures lie, and what it is called.

    Places are dotted paths (`harness.records.lookup`). Without ``of_run`` the run's figure is the
    median of its launches'; of several places the first that has one counts. An ``interval`` is 95
    %: a pair, or a `Spread`. ``because``: where the reason lies if the place itself is not there.
    """

    of_run: tuple[str, ...] = ()
    of_launch: str = ""  # a field of `harness.records.result.Launch`
    interval: str = ""
    because: str = ""
    per_batch: bool = False  # an inference takes more of it the more samples it holds
    device_only: bool = False  # a run on a CPU has none
    asked_only: bool = False  # most runs have none, and lack nothing
    by_default: bool = False  # compared unless something else is asked for
    expected: bool = False  # of two runs that both lack it, the reason is worth reading
    label: str = ""  # in tables; else the name with spaces
    short: str = ""  # where eight columns share a line; else the name
    headline: str = ""  # its tag in TensorBoard
    column: str = ""  # of the board (`harness.compression.model.METRICS`)
    column_divisor: float = 1.0  # from our unit into the column's

    @property
    def quantity(self) -> Quantity:
        """Without the places, which are nobody's business outside."""
        fields = Quantity.__struct_fields__
        return Quantity(**{name: getattr(self, name) for name in fields})

    @property
    def title(self) -> str:
        return self.label or self.name.replace("_", " ")


FIGURES: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="latency_median", unit="ms", better="lower", minimum_effect=0.02,
            of_run=("timing.latency_ms.median",), of_launch="median_ms",
            interval="timing.latency_ms.ci95.median", per_batch=True, by_default=True,
            expected=True, short="median", headline="latency/median_ms", column="latency_ms",
        ),
        Metric(
            name="latency_mean", unit="ms", better="lower", minimum_effect=0.02,
            of_run=("timing.latency_ms.mean",), of_launch="mean_ms",
            interval="timing.latency_ms.ci95.mean", per_batch=True, headline="latency/mean_ms",
        ),
        Metric(
            name="latency_std", unit="ms", better="lower", rule="shown",
            of_run=("timing.latency_ms.std",), per_batch=True, headline="latency/std_ms",
            column="latency_std_ms",
        ),
        Metric(
            name="latency_min", unit="ms", better="lower", rule="shown",
            of_run=("timing.latency_ms.min",), per_batch=True, headline="latency/min_ms",
        ),
        Metric(
            name="latency_max", unit="ms", better="lower", rule="shown",
            of_run=("timing.latency_ms.max",), per_batch=True, headline="latency/max_ms",
        ),
        Metric(
            name="latency_p90", unit="ms", better="lower", minimum_effect=0.03,
            of_run=("timing.latency_ms.p90",), of_launch="p90_ms",
            interval="timing.latency_ms.ci95.p90", per_batch=True, headline="latency/p90_ms",
        ),
        Metric(
            name="latency_p95", unit="ms", better="lower", minimum_effect=0.03,
            of_run=("timing.latency_ms.p95",), of_launch="p95_ms",
            interval="timing.latency_ms.ci95.p95", per_batch=True, headline="latency/p95_ms",
        ),
        Metric(
            name="latency_p99", unit="ms", better="lower", minimum_effect=0.05,
            of_run=("timing.latency_ms.p99",), of_launch="p99_ms",
            interval="timing.latency_ms.ci95.p99", per_batch=True, by_default=True, short="p99",
            headline="latency/p99_ms",
        ),
        Metric(
            name="latency_p99_9", unit="ms", better="lower", minimum_effect=0.10,
            of_run=("timing.latency_ms.p99_9",), interval="timing.latency_ms.ci95.p99_9",
            per_batch=True, headline="latency/p99_9_ms",
        ),
        Metric(
            name="device_median", unit="ms", better="lower", minimum_effect=0.02,
            of_run=("timing.device_ms.median",), of_launch="device_median_ms",
            interval="timing.device_ms.ci95.median", per_batch=True, device_only=True,
            by_default=True, headline="latency/device_median_ms",
        ),
        Metric(
            name="throughput", unit="1/s", better="higher", minimum_effect=0.02,
            of_run=("throughput.inferences_per_s",), of_launch="inferences_per_s",
            interval="throughput.ci95", by_default=True, expected=True, short="/s",
            headline="throughput/per_s", column="throughput_per_s",
        ),
        Metric(
            name="capacity", unit="1/s", better="higher", minimum_effect=0.05,
            of_run=("capacity.per_s",), interval="capacity.ci95", by_default=True,
            asked_only=True,
            headline="server/capacity_per_s",
        ),
        Metric(
            name="waiting_p99", unit="ms", better="lower", rule="shown",
            of_run=("serving.waiting_ms.p99",), headline="server/waiting_p99_ms",
        ),
        Metric(
            name="lateness_median", unit="ms", better="lower", rule="shown",
            of_run=("serving.lateness_ms.median",),
        ),
        Metric(
            name="utilization", unit="", better="lower", rule="shown",
            of_run=("serving.utilization",), headline="server/utilization",
        ),
        Metric(
            name="queue_mean", unit="", better="lower", rule="shown",
            of_run=("serving.queue_mean",), headline="server/queue",
        ),
        Metric(
            name="backlog", unit="", better="lower", rule="shown",
            of_run=("serving.backlog",),
        ),
        Metric(
            name="offered_rate", unit="1/s", better="higher", rule="shown",
            of_run=("serving.offered_per_s",), headline="server/offered_per_s",
        ),
        Metric(
            name="cpu_per_inference", unit="ms", better="lower", minimum_effect=0.03,
            of_run=("timing.cpu_ms",), of_launch="cpu_ms", per_batch=True, by_default=True,
            label="cpu / inference", short="cpu",
        ),
        Metric(
            name="energy_per_inference", unit="J", better="lower", minimum_effect=0.03,
            of_run=("energy.joules_per_inference.value",), of_launch="joules_per_inference",
            interval="energy.joules_per_inference", by_default=True, expected=True,
            # the longest, and a table has 80 columns
            label="energy / inference", short="energy",
            headline="energy/joules_per_inference", column="energy_j",
        ),
        Metric(
            name="energy_net_per_inference", unit="J", better="lower", rule="shown",
            of_run=("energy.sources.*primary.net_j_per_inference.value",),
            because="energy.joules_per_inference", label="energy / inference, net of idle",
        ),
        Metric(
            name="power_average", unit="W", better="lower", minimum_effect=0.03,
            of_run=("energy.sources.*primary.average_power_w",), of_launch="average_power_w",
            because="energy.joules_per_inference",
        ),
        Metric(
            name="memory_peak", unit="bytes", better="lower", minimum_effect=0.01,
            rule="deterministic", of_run=("memory.window_peak_bytes",),
            of_launch="memory_peak_bytes", by_default=True, expected=True, short="memory",
            headline="memory/peak_bytes", column="memory_mb", column_divisor=_MB,
        ),
        Metric(
            # the allocator's peak; without one, what the process held at the window's end
            name="device_memory_peak", unit="bytes", better="lower", minimum_effect=0.01,
            rule="deterministic",
            of_run=("memory.device.allocator_peak_bytes", "memory.device.process_bytes"),
            of_launch="device_memory_peak_bytes", device_only=True, by_default=True,
            column="gpu_memory_mb", column_divisor=_MB,
        ),
        Metric(
            name="file_size", unit="bytes", better="lower", minimum_effect=0.01, rule="exact",
            of_run=("precision.file_size_bytes",), by_default=True, expected=True, short="size",
            headline="model/size_bytes", column="model_size_mb", column_divisor=_MB,
        ),
        Metric(
            name="size_ratio", unit="", better="higher", rule="shown",
            of_run=("precision.size_ratio",), headline="model/size_ratio",
        ),
        Metric(name="first_inference", unit="ms", better="lower", minimum_effect=0.10,
               of_launch="first_inference_ms", per_batch=True),
        Metric(name="load", unit="s", better="lower", minimum_effect=0.10, of_launch="load_s"),
        Metric(name="compile", unit="s", better="lower", minimum_effect=0.10,
               of_launch="compile_s"),
        Metric(
            name="top1", unit="", better="higher", minimum_effect=0.005, rule="paired",
            of_run=("accuracy.top1",), by_default=True, label="accuracy top-1", short="top-1",
            headline="accuracy/top1", column="accuracy",
        ),
        Metric(
            name="f1", unit="", better="higher", rule="shown", of_run=("accuracy.macro_f1",),
            label="accuracy macro F1", short="F1", headline="accuracy/macro_f1", column="f1_score",
        ),
        Metric(
            name="cosine", unit="", better="higher", rule="shown",
            of_run=("precision.fidelity.cosine",), headline="fidelity/cosine",
        ),
        Metric(
            name="sqnr", unit="dB", better="higher", rule="shown",
            of_run=("precision.fidelity.sqnr_db",), headline="fidelity/sqnr_db",
        ),
        Metric(
            name="top1_agreement", unit="", better="higher", rule="shown",
            of_run=("precision.fidelity.top1_agreement",), headline="fidelity/top1_agreement",
        ),
    )
}  # fmt: skip
# what can be judged
METRICS = {name: one for name, one in FIGURES.items() if one.rule != "shown"}
# what is compared unless something else is asked for: little that follows from the rest
COMPARED = tuple(name for name, one in METRICS.items() if one.by_default)


def metric(name: str) -> Metric:
    """The metric called ``name``. Raises `UsageError` that lists the names."""
    try:
        return METRICS[name]
    except KeyError:
        raise UsageError(f"unknown metric {name!r}", f"one of {', '.join(METRICS)}") from None
