"""Log folders of made-up results with their events beside them, as runs of ours leave them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from made_runs import made
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext

from harness.board.source import Source
from harness.compression.model import Board
from harness.records.result import Result
from harness.tensorboard.live import TensorBoardSink

SPREAD = (0.985, 1.01, 1.0, 0.995, 1.005)


def put(results: Path, found: Iterable[Result]) -> None:
    """A run folder each: the result, and the events of a run that has ended."""
    for result in found:
        folder = results / result.id
        folder.mkdir(parents=True)
        sink = TensorBoardSink(folder, result.spec)
        sink.close(result)
        (folder / "result.json").write_bytes(msgspec.json.encode(result))


def swept(
    model: str, medians_ms: dict[str, float], sweep: str = "nightly", **spec: Any
) -> list[Result]:
    """Five results a precision, of one launch each, as a sweep leaves them."""
    correct = "1110110111" * 54
    return [
        made(
            [median_ms * factor], model=model, precision=precision, launches=1,
            started_at=f"2026-11-21T02:0{launch}:{at:02d}Z", correct=correct,
            tags={"sweep": sweep, "launch": str(launch + 1)}, **spec,
        )
        for at, (precision, median_ms) in enumerate(medians_ms.items())
        for launch, factor in enumerate(SPREAD)
    ]  # fmt: skip


def provider(logdir: Path) -> MultiplexerDataProvider:
    multiplexer = EventMultiplexer(tensor_size_guidance={"histograms": 1, "text": 1})
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    return MultiplexerDataProvider(multiplexer, str(logdir))


def tab(logdir: Path) -> Board:
    """What the COMPRESSION tab is served."""
    _, content = Source(provider(logdir), logdir).json(RequestContext(), "")
    return msgspec.convert(json.loads(content)["board"], Board)


def ids(results: Sequence[Result]) -> list[str]:
    return [result.id for result in results]
