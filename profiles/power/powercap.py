"""CPU energy counters of Intel and AMD processors, as the kernel's powercap tree shows them (RAPL).

What the tree looks like, and why names are parsed and numbers are not trusted:

    intel-rapl:0         package-0            a socket; N is no socket number, and is hexadecimal
    intel-rapl:0:0         core               parts of the package, never added to it
    intel-rapl:0:2         dram               beside the package, not part of it
    intel-rapl:1         psys                 the platform, at the top level but no socket
    intel-rapl:2         package-1-die-0      dies: mirrors of one counter (AMD) or meters of their
    intel-rapl:3         package-1-die-1      own (Intel), told apart by what they read
    intel-rapl-mmio:0    package-0            the same socket once more, through another register

Layout and units: Documentation/power/powercap/powercap.rst and drivers/powercap of Linux.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from harness.host.procfs import KernelFile, fields, is_virtual, read_text
from harness.maybe import Unavailable, coded
from harness.protocols import Available, Channel, ProfilerContext

FOLDER = "sys/class/powercap"
UPDATE_PERIOD_S = 0.001  # RAPL's time unit is 976 us
# No package or memory of one socket draws this much; beyond it a delta is a reset, not a wrap.
MAX_POWER_W = {"psys": 20_000.0}
MAX_SOCKET_POWER_W = 2_000.0
MIRROR_TOLERANCE_J = 1.0
SMALLEST_RANGE_J = 65_532.0  # 2^32 steps of 15.3 uJ, the finest unit that a processor has
_CONTROLS = ("intel-rapl", "intel-rapl-mmio")  # in order of preference
_ZONE = re.compile(r"(intel-rapl(?:-mmio)?)((?::[0-9a-f]+)+)")
_PACKAGE = re.compile(r"package-(\d+)(?:-die-(\d+))?")
_SCOPES = {"core": "core", "uncore": "uncore", "dram": "dram", "psys": "psys"}
_SETTLE_S = 0.1  # a delta over a shorter time may still hold this much of a late update

GRANT = (
    "sudo chmod a+r /sys/class/powercap/*/energy_uj, or for good the udev rule "
    'SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/chmod a+r /sys%p/energy_uj"'
)
WALL = "use a wall meter: --power-source external:FILE.csv"
UNMASK = (
    "run the container with --security-opt systempaths=unconfined (docker) or "
    "--security-opt unmask=/sys/devices/virtual/powercap (podman)"
)


class Zone(msgspec.Struct, frozen=True):
    """One folder of the tree: ``ids`` are its numbers from the top, ``name`` what its file says."""

    path: Path
    control: str
    ids: tuple[int, ...]
    name: str


def find_zones(root: str) -> tuple[list[Zone], int]:
    """The zones below ``root`` by control type and number, and how many are listed but hidden."""
    folders = {path.name: path for path in _folders(Path(root) / FOLDER)}
    zones = []
    for label, path in folders.items():
        match = _ZONE.fullmatch(label)
        name = read_text(str(path), "name")
        if match and name:
            ids = tuple(int(part, 16) for part in match[2].split(":")[1:])
            zones.append(Zone(path, match[1], ids, name))
    zones.sort(key=lambda zone: (_CONTROLS.index(zone.control), zone.ids))
    return zones, len(folders) - len(zones)


def _folders(folder: Path) -> Iterator[Path]:
    """Zone folders, which sysfs shows flat in the class and nested in one another as well."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if _ZONE.fullmatch(entry.name):
            yield entry
        if _ZONE.fullmatch(entry.name) or entry.name in _CONTROLS:
            yield from _folders(entry)


def group_zones(zones: Sequence[Zone], amd: bool) -> dict[str, list[Zone]]:
    """Meter name -> the zones that measure it, from one control type only.

    Names are ``package-0``, ``package-0-dram``, ``psys``. AMD's ``core`` is the counter of a single
    core and is left out.
    """
    parents = {(zone.control, zone.ids): zone.name for zone in zones}
    found: dict[str, dict[str, list[Zone]]] = {}
    for zone in zones:
        top = _PACKAGE.fullmatch(parents.get((zone.control, zone.ids[:1]), ""))
        if len(zone.ids) == 1:
            meter = f"package-{top[1]}" if top else zone.name
        elif len(zone.ids) == 2 and top:
            meter = f"package-{top[1]}-{zone.name}"
        else:
            continue
        if _scope(meter) and not (amd and _scope(meter) == "core"):
            found.setdefault(meter, {}).setdefault(zone.control, []).append(zone)
    # Zones come sorted by preference, so the first control type is the preferred one.
    return {
        meter: _first_readable(list(by_control.values())) for meter, by_control in found.items()
    }


def _first_readable(candidates: list[list[Zone]]) -> list[Zone]:
    readable = (
        zones
        for zones in candidates
        if all(read_text(str(zone.path), "energy_uj") is not None for zone in zones)
    )
    return next(readable, candidates[0])


def _scope(meter: str) -> str | None:
    if _PACKAGE.fullmatch(meter):
        return "cpu-package"
    return _SCOPES.get(meter.rpartition("-")[2])


class Counter:
    """One zone's counter, unwrapped: joules since it was opened.

    The register has 32 bits; ``max_energy_range_uj`` is its largest value, so it wraps to zero one
    hardware unit later. Where that file is missing or says 0 (containers and virtual machines that
    pass on ``energy_uj`` alone) ``range_j`` is None: a wrap cannot be undone, and ends the counter.
    """

    def __init__(self, zone: Zone, max_power_w: float) -> None:
        """Raises `OSError` or `ValueError` where the zone cannot be read."""
        range_uj = _range_uj(zone.path)
        self.unit_j = max(range_uj / (2**32 - 1), 1.0) / 1e6  # the file counts whole microjoules
        self.range_j = range_uj / 1e6 if range_uj else None
        self.joules = 0.0
        self._modulus_uj = range_uj + round(range_uj / (2**32 - 1))
        self._max_power_w = max_power_w
        self._file = KernelFile(zone.path / "energy_uj", 64)
        try:
            self.raw_uj = int(self._file.read())
        except (OSError, ValueError):
            self._file.close()
            raise
        self._read_at_s = time.perf_counter()

    def update(self) -> Unavailable | None:
        """Add what came since the last call; the reason, where nobody can know what came.

        Raises `OSError` or `ValueError` for a failed reading, after which the next one may succeed.
        """
        raw_uj = int(self._file.read())
        now_s = time.perf_counter()
        elapsed_s, self._read_at_s = now_s - self._read_at_s, now_s
        delta_uj = raw_uj - self.raw_uj
        self.raw_uj = raw_uj
        if self.range_j is None and delta_uj < 0:
            detail = "the counter went backwards, and without max_energy_range_uj no wrap is known"
            return coded("counter_reset", detail, "measure again; pass that file on, too")
        delta_j = (delta_uj % self._modulus_uj if self._modulus_uj else delta_uj) / 1e6
        self.joules += delta_j
        possible_j = self._max_power_w * (elapsed_s + _SETTLE_S)
        if delta_j > possible_j:
            detail = f"{delta_j:.0f} J in {elapsed_s:.3g} s is impossible: the counter restarted"
            return coded("counter_reset", detail, "measure again without suspending the machine")
        if possible_j > (self.range_j or SMALLEST_RANGE_J):
            detail = f"{elapsed_s:.0f} s passed without a reading, which can hide a second wrap"
            return coded("counter_reset", detail, "leave the sampler the CPU time it needs")
        return None

    def close(self) -> None:
        """Release the descriptor. Idempotent."""
        self._file.close()


class Meter:
    """One physical quantity: a counter, mirrors of a counter, or the sum over real dies."""

    def __init__(self, name: str, zones: Sequence[Zone], facts: dict[str, float]) -> None:
        scope = _scope(name) or name
        tag = f"energy/{name}_j"
        self.channel = Channel(
            name=tag, unit="J", kind="counter", tag=tag, scope=scope, source="powercap", meter=name
        )
        self.mirrored = False
        self._counters: list[Counter] = []
        self._apart = 0  # readings in a row in which mirrors disagreed
        try:
            limit_w = MAX_POWER_W.get(name, MAX_SOCKET_POWER_W)
            for zone in zones:
                self._counters.append(Counter(zone, limit_w))
            self.mirrored = self._look_alike()
        except (OSError, ValueError) as error:
            self._fail(_reason(error, name))
            return
        self.channel = msgspec.structs.replace(
            self.channel,
            period_s=UPDATE_PERIOD_S,
            facts={
                **_known_range(self._counters[0]),
                "resolution_j": max(counter.unit_j for counter in self._counters),
                "max_power_w": limit_w,
                "zones": float(len(zones)),
                "mirrored": float(self.mirrored),
                **facts,
            },
        )

    def _look_alike(self) -> bool:
        """Whether several dies show one counter. Tried again: a pause between reads adds joules."""
        if len(self._counters) < 2:
            return False
        alike = any(self._spread_j() <= MIRROR_TOLERANCE_J for _ in range(5))
        for counter in self._counters:
            counter.joules = 0.0
        return alike

    def _spread_j(self) -> float:
        for counter in self._counters:
            counter.update()
        raw_j = [counter.raw_uj / 1e6 for counter in self._counters]
        return max(raw_j) - min(raw_j)

    def read(self) -> float | None:
        """Joules since opening; None for a failed reading, and for ever after a fault."""
        if self.channel.unavailable is not None:
            return None
        try:
            faults = [counter.update() for counter in self._counters]
        except (OSError, ValueError):
            return None
        fault = next((fault for fault in faults if fault is not None), None)
        if fault is not None:
            self._fail(fault)
            return None
        joules = [counter.joules for counter in self._counters]
        if not self.mirrored:
            return sum(joules)
        # One reading apart may be a pause between two reads of one counter; it does not last.
        self._apart = self._apart + 1 if max(joules) - min(joules) > MIRROR_TOLERANCE_J else 0
        if self._apart >= 3:
            detail = "dies that showed one counter at the start moved apart"
            self._fail(coded("error", detail, "please report this processor"))
            return None
        return joules[0]

    def _fail(self, reason: Unavailable) -> None:
        self.channel = msgspec.structs.replace(self.channel, unavailable=reason)
        self.close()

    def close(self) -> None:
        """Release the descriptors. Idempotent."""
        for counter in self._counters:
            counter.close()


class PowercapSource:
    """RAPL through powercap: one channel per physical meter, in joules since `open`.

    A meter that breaks later returns None from then on, and its channel then carries the reason.
    """

    name = "powercap"

    def __init__(self, context: ProfilerContext) -> None:
        self._root = context.root
        self._meters: list[Meter] = []

    def open(self) -> Available | Unavailable:
        """`Unavailable` with one of five reasons: not_present, permission_denied, virtualized,
        not_supported, error."""
        self.close()
        zones, hidden = find_zones(self._root)
        if not zones:
            return self._absent(hidden)
        cpu = fields(read_text(self._root, "proc/cpuinfo"))
        facts = {"filtered": 1.0} if "sgx" in cpu.get("flags", "").split() else {}
        groups = group_zones(zones, amd=cpu.get("vendor_id") == "AuthenticAMD")
        self._meters = [Meter(name, groups[name], facts) for name in sorted(groups)]
        main = [m.channel for m in self._meters if m.channel.scope in ("cpu-package", "psys")]
        if not main:
            names = ", ".join(sorted({zone.name for zone in zones}))
            detail = f"powercap lists no package, only {names}"
            return coded("not_supported", detail, f"use a newer kernel, or {WALL}")
        failed = [channel.unavailable for channel in main if channel.unavailable is not None]
        if len(failed) == len(main):
            self.close()
            return failed[0]
        readable = [m.channel.name for m in self._meters if m.channel.unavailable is None]
        return Available({"meters": ", ".join(readable)})

    def _absent(self, hidden: int) -> Unavailable:
        if hidden:
            detail = "powercap zones are listed, but their folders are hidden from this container"
            return coded("permission_denied", detail, UNMASK)
        if is_virtual(self._root):
            detail = "this is a virtual machine, and its host passes no RAPL counters on"
            return coded("virtualized", detail, f"measure on bare metal, or {WALL}")
        return coded(
            "not_present",
            f"/{FOLDER} has no RAPL zone",
            "sudo modprobe intel_rapl_msr (Intel and AMD); a new processor may need a newer kernel",
        )

    @property
    def channels(self) -> Sequence[Channel]:
        return [meter.channel for meter in self._meters]

    def read(self) -> Sequence[float | None]:
        return [meter.read() for meter in self._meters]

    def close(self) -> None:
        for meter in self._meters:
            meter.close()


def _range_uj(zone: Path) -> int:
    """0 where nobody says it."""
    try:
        return max(int((zone / "max_energy_range_uj").read_text()), 0)
    except (OSError, ValueError):
        return 0


def _known_range(counter: Counter) -> dict[str, float]:
    return {} if counter.range_j is None else {"wrap_range_j": counter.range_j}


def _reason(error: OSError | ValueError, name: str) -> Unavailable:
    if isinstance(error, PermissionError):
        return coded("permission_denied", f"{name}: energy_uj is readable by root alone", GRANT)
    if isinstance(error, FileNotFoundError):
        return coded("not_supported", f"{name}: the zone has no energy counter", WALL)
    return coded("error", f"{name}: {error}", "see the kernel log")
