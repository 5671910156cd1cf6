"""What ``harness build`` made, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from harness.protocols import Node
from harness.views.terminal import render_table
from harness.views.text import count, number, plain, size

if TYPE_CHECKING:
    from harness.models.making import Building

_MOST = 60  # nodes in the table; what is refused is always shown


def render_build(made: Building) -> RenderableType:
    """The nodes, what the backend says of the artifact, and one line at the end."""
    parts: list[RenderableType] = []
    if made.nodes:
        parts += [_nodes(made.nodes), Text("")]
    facts = list(_facts(made))
    if facts:
        parts += [render_table(("built", ""), facts), Text("")]
    line = Text(plain(_last(made)), style="bold", no_wrap=True, overflow="ignore")
    return Group(*parts, line)


def _nodes(nodes: Sequence[Node]) -> RenderableType:
    refused = [node for node in nodes if not node.taken]
    shown = list(nodes) if len(nodes) <= _MOST else (refused or list(nodes[:_MOST]))
    rows = [(node.name, node.type, _verdict(node), node.reason) for node in shown]
    left = len(nodes) - len(shown)
    if left:
        rows.append(("", "", "", f"and {count(left, 'node')} more that it takes; --json has all"))
    return render_table(("node", "operator", "taken", ""), rows)


def _verdict(node: Node) -> str:
    return {True: "yes", False: "no", None: "not reached"}[node.taken]


def _facts(made: Building) -> Iterator[tuple[str, str]]:
    if made.error is not None:
        return
    yield from ((name.replace("_", " "), text) for name, text in made.facts.items())
    if made.proof is not None:
        yield "layers compared", f"{made.proof.layers}, {len(made.proof.left)} left in fp32"
        yield from ((f"  {layer}", why) for layer, why in made.proof.left.items())
    if made.sha256:
        yield "sha256", made.sha256


def _last(made: Building) -> str:
    what = f"{made.model}, {made.precision}, for {made.backend}"
    taken = sum(node.taken is True for node in made.nodes)
    parts = [f"takes {taken} of {count(len(made.nodes), 'node')}"] if made.nodes else []
    if made.error is not None:
        return ", ".join([f"{what}: not built", *parts])
    if made.size_bytes is not None:
        whole = f" (fp32 {size(made.fp32_bytes)})" if made.fp32_bytes else ""
        parts.append(f"{size(made.size_bytes)}{whole if made.precision != 'fp32' else ''}")
    parts.append(f"in {number(made.seconds, 3)} s")
    if made.file is not None:
        parts.append(f"wrote {made.file} ({size(made.file_bytes or 0)})")
    return f"{what}: " + ", ".join(parts)
