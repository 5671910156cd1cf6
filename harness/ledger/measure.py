"""The ledger, step by step; each leaves its runs in the ledger's folder.

variants made ── FP32 and INT8 profiled ── a layer at a time in INT8, answers counted
                      └── screening ──┘
   ── duel of INT8 with one layer each in FP32 ── choice ── mixed.onnx
   ── duel INT8 / FP32 / mixed, answers on samples that nothing was chosen by
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness import models, registry
from harness.compare.paired import Paired
from harness.engine import driver
from harness.engine.driver.duel import DuelOutcome, duel, rules_of
from harness.engine.driver.placement import place
from harness.errors import MeasurementFailed, UsageError
from harness.host.cache_root import default_root
from harness.host.files import write_atomically
from harness.ledger import choose
from harness.ledger.sides import recommendation, sides_of
from harness.ledger.workshop import MadeLayer, Setup, Workshop
from harness.maybe import Maybe, Unavailable
from harness.models.cache import Cache
from harness.models.prepare import has_samples
from harness.models.reduced import job_of
from harness.protocols import SessionOptions
from harness.quantize.onnx_make import saturates_here
from harness.records.ledger import Answers, Layer, Ledger, Side
from harness.records.result import Result
from harness.records.store import RunFolder
from harness.spec import RunSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = "ledger.json"
MIXED = "mixed.onnx"
_CHOOSING, _VERIFYING = "choosing.npz", "verifying.npz"
_PROFILE_S = 0.5
_UNTIMED = Unavailable("the profiler did not tell its operators apart")
_SAME_ISA = (
    "no switch of this runtime holds its kernels to other instructions: how many answers would "
    "change without VNNI is not known here"
)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """``drop`` and ``speed`` are shares; None where nothing was asked for."""

    drop: float | None = None
    speed: float | None = None
    most_layers: int = choose.MOST_LAYERS


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    ledger: Ledger
    folder: Path
    paired: Paired | None  # of the final duel
    results: tuple[Result, ...]


def ledger(
    spec: RunSpec, asked: Asked, tell: Callable[[str], None], launches: int | None
) -> Outcome:
    """Write the ledger of ``spec``, an INT8 run on ONNX. Raises a `HarnessError`."""
    placement = place(spec)
    options = SessionOptions(
        spec.device, spec.boundary, placement.threads, spec.inter_threads, spec.options
    )
    wanted = registry.backend(spec.backend).wants("int8", options)
    _refuse(spec, wanted.format)
    if not has_samples(spec):
        raise UsageError(
            f"{spec.model} has no samples whose answers could be counted",
            "give --dataset FILE.npz with labels, or --inputs FILE.npz for agreement with FP32",
        )
    tell("making the int8 model")
    prepared = models.prepare(spec, wanted)
    assert prepared.reference is not None
    assert prepared.evaluation_path is not None
    job = job_of(spec, wanted, Cache(default_root(), building=False))
    folder = RunFolder.create(spec.out, ("ledger", spec.model.replace("\\", "/").split("/")[-1]))
    try:
        counts = _split(Path(prepared.evaluation_path), folder.path, prepared, spec.seed)
        setup = Setup(
            backend=spec.backend,
            options=options,
            fp32=prepared.reference,
            job=job,
            folder=str(folder.path),
            samples=str(folder.path / _CHOOSING),
            batch_size=spec.batch_size,
            scores=spec.scores,
        )
        return _Ledger(spec, asked, tell, folder, launches, counts).write(setup)
    except BaseException:
        if not (folder.path / NAME).exists():
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _refuse(spec: RunSpec, format: str) -> None:
    if spec.precision != "int8":
        raise UsageError(
            f"--precision {spec.precision} in a ledger, which weighs INT8 against FP32",
            "use --precision int8",
        )
    if spec.reference is not None:
        raise UsageError(
            f"--reference {spec.reference} in a ledger, which makes the INT8 model itself",
            "give the FP32 model as --model, and leave --reference out",
        )
    if format != "onnx" or spec.device != "cpu":
        raise UsageError(
            f"the ledger takes Q/DQ graphs apart, and {spec.backend} on {spec.device} runs others",
            "leave out --backend and --device",
        )
    if spec.quantization != "static":
        raise UsageError(
            "--quantization dynamic in a ledger, which leaves static layers out", "leave it out"
        )


def _split(samples: Path, folder: Path, prepared: Any, seed: int) -> tuple[int, int]:
    """Write one random half of the samples to choose on, and the other to verify on."""
    import numpy as np

    from harness.models.data import LABELS, arrays, save

    found = arrays(str(samples))
    names = [one.name for one in prepared.reference.inputs]
    counted = found[LABELS] if LABELS in found else found[names[0]]
    order = np.random.default_rng(seed).permutation(len(counted))
    half = len(order) // 2
    for name, chosen in ((_CHOOSING, order[:half]), (_VERIFYING, order[half:])):
        kept = {key: array for key, array in found.items() if key in (*names, LABELS)}
        rows = np.sort(chosen)
        save(folder / name, {key: _taken(a, rows, len(order)) for key, a in kept.items()})
    return half, len(order) - half


def _taken(array: NDArray[Any], chosen: NDArray[Any], count: int) -> NDArray[Any]:
    return array[chosen] if len(array) == count else array


class _Ledger:
    def __init__(
        self,
        spec: RunSpec,
        asked: Asked,
        tell: Callable[[str], None],
        folder: RunFolder,
        launches: int | None,
        counts: tuple[int, int],
    ) -> None:
        self._spec, self._asked, self._tell = spec, asked, tell
        self._folder, self._launches, self._counts = folder, launches, counts

    def write(self, setup: Setup) -> Outcome:
        with _workshop(setup) as shop:
            made = shop.start()
            measured = min(self._asked.most_layers, len(made))
            choose.check_samples(sum(self._counts), measured, self._asked.drop)
            layers = self._screened(made)
            names = choose.screened(layers, self._asked.most_layers)
            fp32, int8, labelled = shop.answers()
            answers = self._answers(shop, fp32, names)
            suspects = _suspects(layers, names, answers)
            ratios = self._ratios(shop, suspects)
            layers = [_judged(layer, answers, ratios) for layer in layers]
            whole = choose.costs(fp32, {"int8": int8})["int8"]
            keep = choose.chosen(layers, whole, self._asked.drop)
            found = Ledger(
                id=self._folder.id,
                model=self._spec.model,
                answers_of="labels" if labelled else "agreement with FP32, there are no labels",
                choosing=self._counts[0],
                verifying=self._counts[1],
                layers=tuple(layers),
                measured=len(names),
                alpha=choose.ALPHA,
                keep=keep,
                mixed=MIXED if keep else "",
                notes=tuple(self._notes(made, len(names))),
            )
            if keep:
                shop.without(keep, self._folder.path / MIXED)
        return self._verified(found, labelled)

    # -- screening ----------------------------------------------------------------------------

    def _screened(self, made: Sequence[MadeLayer]) -> list[Layer]:
        self._tell("profiling fp32 and int8")
        exact = _times(self._profile("fp32.onnx", "fp32"))
        reduced = _times(self._profile("int8.onnx", "int8"))
        return [
            Layer(
                name=one.name,
                operators=one.operators,
                sqnr_db=one.sqnr_db,
                apart_db=one.apart_db,
                fp32_ms=_sum(exact, one.nodes),
                int8_ms=_sum(reduced, one.nodes),
                overflow=one.overflow,
            )
            for one in made
        ]

    def _profile(self, file: str, precision: str) -> Result:
        spec = self._of(file, precision, operators=True, duration_s=_PROFILE_S)
        outcome = driver.run(spec)
        if outcome.result.status == "failed":
            error = outcome.result.error
            raise MeasurementFailed(
                f"the {precision} model failed: {error.message if error else 'see its result'}",
                f"harness show {outcome.folder}",
            )
        return outcome.result

    def _of(self, file: str, precision: str, **others: Any) -> RunSpec:
        """The run of a variant of ours, told apart from the model by its file."""
        fp32 = None if precision == "fp32" else self._spec.model
        return msgspec.structs.replace(
            self._spec,
            model=str(self._folder.path / file),
            reference=fp32,
            precision=precision,
            dataset=None,
            inputs=None,
            calibration=None,
            calibration_method="minmax",
            out=str(self._folder.path),
            sample_rate_hz=0.0,
            launches=1,
            **others,
        )

    # -- choosing -----------------------------------------------------------------------------

    def _answers(self, shop: Workshop, fp32: str, names: Sequence[str]) -> dict[str, Answers]:
        found = {}
        for index, name in enumerate(names, 1):
            self._tell(f"answers of layer {index} of {len(names)}: {name}")
            found[name] = shop.alone(name)
        return choose.costs(fp32, found)

    def _ratios(
        self, shop: Workshop, suspects: Sequence[str]
    ) -> dict[str, tuple[Maybe[float], Maybe[tuple[float, float]], bool]]:
        """INT8 with each of ``suspects`` in FP32, over INT8: ratio, interval, certainly faster."""
        if not suspects:
            return {}
        self._tell(f"duel of int8 with each of {len(suspects)} layers in fp32")
        specs = [self._duelling("int8.onnx", "int8")]
        for index, name in enumerate(suspects):
            file = f"without-{index}.onnx"
            shop.without([name], self._folder.path / file)
            specs.append(self._duelling(file, "int8"))
        outcome = self._duel(specs, ["int8", *(f"{name} in fp32" for name in suspects)])
        verdicts = outcome.paired.verdicts
        return {
            name: (one.ratio, one.interval, one.verdict == "improved")
            for name, one in zip(suspects, verdicts, strict=True)
        }

    def _duelling(self, file: str, precision: str) -> RunSpec:
        return self._of(file, precision)

    def _duel(self, specs: Sequence[RunSpec], names: Sequence[str]) -> DuelOutcome:
        outcome = duel(specs, names, rules_of(specs[0], self._launches))
        if outcome.paired.problem or outcome.exit_code:
            raise MeasurementFailed(
                f"the duel ended: {outcome.paired.problem or outcome.paired.ended}",
                f"harness show {outcome.folder}",
            )
        return outcome

    def _notes(self, made: Sequence[MadeLayer], measured: int) -> Iterator[str]:
        choosing = self._counts[0]
        least = choose.least_lost(choose.ALPHA, measured)
        yield (
            f"with {choosing} samples to choose on, a layer that loses {least} answers"
            f" ({least / choosing:.2%}) and gains none stands out; one that loses 0.5% does with"
            f" {choose.samples_for(0.005, measured)} samples in all"
        )
        wide = sum(bool(one.overflow) for one in made)
        if wide:
            here = "this processor has none" if saturates_here() else "this processor has it"
            yield f"{wide} layers can leave 16 bits on a processor without VNNI; {here}"
            yield _SAME_ISA

    # -- verifying ----------------------------------------------------------------------------

    def _verified(self, found: Ledger, labelled: bool) -> Outcome:
        """The duel of all sides, on samples that nothing was chosen by."""
        self._tell("duel of int8, fp32 and mixed" if found.keep else "duel of int8 and fp32")
        data = {"dataset" if labelled else "inputs": str(self._folder.path / _VERIFYING)}
        specs = [
            msgspec.structs.replace(self._duelling("int8.onnx", "int8"), **data),
            msgspec.structs.replace(
                self._duelling("fp32.onnx", "fp32"), model=self._spec.model, **data
            ),
        ]
        names = ["int8", "fp32"]
        if found.keep:
            specs.append(msgspec.structs.replace(self._duelling(MIXED, "int8"), **data))
            names.append("mixed")
        outcome = self._duel(specs, names)
        results = tuple(run.result for run in outcome.runs)
        sides = tuple(sides_of(names, results, outcome.paired, labelled))
        found = msgspec.structs.replace(found, sides=sides, wishes=self._wishes(sides))
        found = msgspec.structs.replace(found, recommendation=recommendation(found))
        data_ = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
        write_atomically(self._folder.path / NAME, data_)
        _clear(self._folder.path)
        return Outcome(
            ledger=found, folder=self._folder.path, paired=outcome.paired, results=results
        )

    def _wishes(self, sides: Sequence[Side]) -> tuple[Any, ...]:
        last = next((one for one in sides if one.name == "mixed"), sides[0])
        wishes = []
        if self._asked.drop is not None:
            wishes.append(choose.wish_of_drop(self._asked.drop, last.answers))
        if self._asked.speed is not None:
            wishes.append(choose.wish_of_speed(self._asked.speed, last.ratio, last.interval))
        return tuple(wishes)


@contextmanager
def _workshop(setup: Setup) -> Iterator[Workshop]:
    shop = Workshop(setup)
    try:
        yield shop
    finally:
        shop.close()


def _clear(folder: Path) -> None:
    """Away with the variants that only measuring needed; the mixed model stays, and INT8."""
    for path in folder.glob("without-*.onnx*"):
        path.unlink()


def _times(result: Result) -> Mapping[str, float]:
    """Node of the model -> ms of the operator that does its work, shared out where several have
    parts of it; operators without a node count for none."""
    if isinstance(result.operators, Unavailable):
        return {}
    times: dict[str, float] = {}
    for row in result.operators.rows:
        for node in () if isinstance(row.fused, Unavailable) else row.fused:
            times[node] = max(times.get(node, 0.0), row.ms)
    return times


def _sum(times: Mapping[str, float], nodes: Sequence[str]) -> Maybe[float]:
    """Of the slowest operator among those of ``nodes``: the one that holds the layer's work."""
    found = [times[node] for node in nodes if node in times]
    return max(found) if found else _UNTIMED


def _suspects(
    layers: Sequence[Layer], names: Sequence[str], answers: Mapping[str, Answers]
) -> list[str]:
    """The layers whose time is worth a duel: fragile ones, and those that seem slower in INT8."""
    slower = {
        layer.name
        for layer in layers
        if isinstance(layer.int8_ms, float)
        and isinstance(layer.fp32_ms, float)
        and layer.int8_ms > layer.fp32_ms
    }
    lossy = {name for name, one in answers.items() if one.p < choose.ALPHA}
    return [name for name in names if name in slower | lossy]


def _judged(
    layer: Layer,
    answers: Mapping[str, Answers],
    ratios: Mapping[str, tuple[Maybe[float], Maybe[tuple[float, float]], bool]],
) -> Layer:
    ratio, interval, faster = ratios.get(layer.name, (layer.ratio, layer.interval, False))
    with_ratio = msgspec.structs.replace(layer, ratio=ratio, interval=interval)
    return choose.judged(with_ratio, answers.get(layer.name), faster)
