"""How a night stands, for whoever shows it."""

from __future__ import annotations

from typing import NamedTuple


class Doing(NamedTuple):
    """What a node does; ``cell`` is empty while it is idle."""

    node: str
    machine_class: str
    cell: str
    text: str
    seconds: float


class Snapshot(NamedTuple):
    """``outcomes``: how many tasks have ended how."""

    nodes: tuple[Doing, ...]
    outcomes: dict[str, int]
    pending: int
    total: int

    @property
    def line(self) -> str:
        """``[3/12] 1 no-runner; a: digits/... measuring 4 s``."""
        ended = self.total - self.pending
        bad = [f"{n} {name}" for name, n in sorted(self.outcomes.items()) if name != "result"]
        busy = [f"{one.node}: {one.cell} {one.text} {one.seconds:.0f} s"
                for one in self.nodes if one.cell]  # fmt: skip
        return "  ".join([f"[{ended}/{self.total}]", *[", ".join(bad)] * bool(bad), *busy])
