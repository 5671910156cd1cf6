"""One model's run folder: what was logged of it so far, and the event file it goes to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from harness.compression.model import Aurora, Entry
from harness.compression.ratios import with_ratios
from harness.errors import ResultError
from harness.host.names import run_name
from harness.tensorboard import metadata, tags
from harness.tensorboard.events import EventFile


class ModelRun:
    """Entries add up by precision. Ratios are against ``reference``, a precision.

    ``file_name()`` names the next event file; one is opened when there is something to write, and
    another after `close`.
    """

    def __init__(self, logdir: Path, model: str, file_name: Callable[[], str]) -> None:
        self.model = model
        self.folder = logdir / run_name(model)
        self.info: dict[str, str] = {}
        self.reference = "fp32"
        self.scores: dict[str, Aurora] = {}  # those asked for with other weights
        self._entries: dict[str, Entry] = {}
        self._file_name = file_name
        self._file: EventFile | None = None
        self._said = ""

    def add(self, entry: Entry) -> None:
        """Join ``entry`` with what is known of its precision; the newer figure counts."""
        old = self._entries.get(entry.precision)
        if old is not None:
            figures = old.figures | entry.figures
            missing = {k: v for k, v in (old.missing | entry.missing).items() if k not in figures}
            if "power_mw" in figures or "energy_j" in figures:
                missing.pop("energy_j", None)
            entry = msgspec.structs.replace(
                entry, figures=figures, missing=missing, info=old.info | entry.info
            )
        self._entries[entry.precision] = entry

    def entries(self) -> list[Entry]:
        """With ratios and scores."""
        known = [
            msgspec.structs.replace(entry, info=self.info | entry.info)
            for entry in self._entries.values()
        ]
        compared = with_ratios(known, self.reference)
        return [
            msgspec.structs.replace(entry, aurora=self.scores.get(entry.precision, entry.aurora))
            for entry in compared
        ]

    def compressed(self) -> Entry | None:
        """The entry that ``compression/...`` speaks of: int8, or else the first with ratios."""
        found = [entry for entry in self.entries() if entry.ratios]
        return next((e for e in found if e.precision == "int8"), found[0] if found else None)

    def write_figures(self, precisions: Sequence[str], step: int) -> None:
        """Every figure of ``precisions``, and the ratios."""
        for entry in self.entries():
            if entry.precision in precisions:
                tags.write_figures(self.file.at(step), entry)
        if (compressed := self.compressed()) is not None:
            tags.write_ratios(self.file.at(step), compressed)

    def write_metadata(self, step: int) -> None:
        """The text event, where it says something new."""
        said = metadata.encode(self.model, self.entries(), self.info)
        if not self._said:
            tags.write_layout(self.file.at(step), self.model)
        if said != self._said:
            tags.write_metadata(self.file.at(step), self.model, said)
            self._said = said

    @property
    def file(self) -> EventFile:
        """Raises `OSError` or `ImportError`."""
        if self._file is None:
            if self.folder.is_symlink():
                raise NotADirectoryError(f"{str(self.folder)!r} is a link, and may lead elsewhere")
            self.folder.mkdir(exist_ok=True)
            self._file = EventFile(self.folder / self._file_name())
        return self._file

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Raises `OSError`; closed all the same."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


@contextlib.contextmanager
def mapped(folder: Path) -> Iterator[None]:
    """What goes wrong while writing into ``folder``, as a `ResultError`."""
    try:
        yield
    except (OSError, ImportError) as error:
        raise ResultError(
            f"{str(folder)!r} cannot be written: {getattr(error, 'strerror', None) or error}",
            "free some space, or name another folder",
        ) from error
