"""How a run is written: the result first, then the samples, and the journals go last.

    result.json ── samples.npz, series.npz ── result.json, which now names them ── journals go

So at every moment a kill leaves a result, or the journals that make one. On a full disk the result
takes the place of what can be missed: events, then the journals, whose content is in memory still.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness.engine.driver.journal import RunJournal
from harness.engine.driver.series_file import save_series
from harness.engine.outcome.assemble import assemble, with_files
from harness.errors import ResultError
from harness.records.samples import JOURNAL_NAME, SAMPLES_NAME, Stretch, pack
from harness.records.sealed import digests
from harness.records.store import JOURNAL_SUFFIX, RunFolder, series_name, why_not

if TYPE_CHECKING:
    from harness.engine.outcome.evidence import Evidence
    from harness.records.result import Result

_FULL = (errno.ENOSPC, errno.EDQUOT)
_EVENTS = "events.out.tfevents.*"
_SAMPLES = "start and end of every iteration, by launch and stream"


class Saving:
    """Writes one run. ``trouble`` is told what could not be written, and why."""

    def __init__(
        self,
        folder: RunFolder,
        evidence: Evidence,
        journal: RunJournal,
        trouble: Callable[[str], None],
    ) -> None:
        self.exit_code = 0  # of a result that no disk took
        self._folder = folder
        self._evidence = evidence
        self._journal = journal
        self._trouble = trouble
        self._replaced: list[str] | None = []  # None: the disk's result names what lies beside it

    def save(self) -> Result:
        """The result, and on the disk all that could be written.

        Raises `MemoryError` where there is too little to make it: the journals are as they were.
        """
        evidence = self._evidence
        evidence.files = self._files()
        result = self._write_result(assemble(evidence))
        return result if self.exit_code else self.complete(result)

    def complete(self, result: Result) -> Result:
        """Put the samples and series beside ``result``, which is written, and name them in it."""
        evidence = self._evidence
        packed = self._pack()
        named = {**self._files(), **packed, **self._save_series()}
        self._replaced = self._in_other_files(named)
        evidence.files = {n: what for n, what in named.items() if n not in self._replaced}
        final = with_files(result, evidence)
        with contextlib.suppress(ResultError, OSError, MemoryError):  # `seal` makes room for it
            self._folder.write_result(final)
            self._remove_replaced()
        return final

    def _remove_replaced(self) -> None:
        """The journals, whose content is in the result and the files beside it."""
        for name in self._replaced or ():
            _unlink(self._folder.path / name)
        self._journal.remove()
        self._replaced = None

    def seal(self, result: Result) -> Result:
        """``result`` with the hashes of the files it names, once nobody writes to them any more."""
        behind = self._replaced is not None
        if self.exit_code or not (result.artifacts or behind):
            return result
        try:
            hashes = digests(self._folder.path, result.artifacts)
        except (ResultError, OSError) as error:
            self._trouble(str(error))
            return result
        sealed = msgspec.structs.replace(result, sha256=hashes)
        if behind:
            self._remove_replaced()
        try:
            self._folder.write_result(sealed)
        except (ResultError, OSError, MemoryError) as error:
            lacks = "the names and hashes" if behind else "the hashes"
            why = why_not(error, self._folder.path)
            self._trouble(f"the result lacks {lacks} of the files beside it: {why}")
            return result
        return sealed

    def _write_result(self, result: Result) -> Result:
        """Write it, if need be in the place of something else; what was written."""
        ways = [self._remove_events, self._remove_data, self._journal.remove]
        while True:
            try:
                self._folder.write_result(result)
                return result
            except ResultError as error:
                cause = error.__cause__
                if not (ways and isinstance(cause, OSError) and cause.errno in _FULL):
                    self._trouble(str(error))
                    self.exit_code = error.exit_code
                    return result
                ways.pop(0)()
                self._evidence.files = self._files()
                result = with_files(result, self._evidence)

    def _pack(self) -> dict[str, str]:
        iterations = stretches(self._evidence)
        if not iterations or not self._tried(lambda: pack(self._folder.path, iterations)):
            return {}
        self._evidence.unsaved = 0
        return {SAMPLES_NAME: _SAMPLES}

    def _save_series(self) -> dict[str, str]:
        held: dict[str, str] = {}
        for index, sampled in enumerate(self._evidence.samplers):
            path = self._folder.path / series_name(index)
            if sampled is None or not sampled.channels:
                continue
            if self._tried(partial(save_series, sampled, path)):
                held[path.name] = f"every reading of every sensor, launch {index}"
        return held

    def _tried(self, write: Callable[[], object]) -> bool:
        """Whether it could be written; what was there before stays where not."""
        try:
            write()
        except (ResultError, OSError, MemoryError) as error:
            self._trouble(why_not(error, self._folder.path))
            return False
        return True

    def _files(self) -> dict[str, str]:
        """What lies there beside the result, journals included."""
        files = {path.name: "TensorBoard events" for path in self._folder.path.glob(_EVENTS)}
        if (self._folder.path / JOURNAL_NAME).exists():
            files[JOURNAL_NAME] = _SAMPLES
        for index in range(len(self._evidence.samplers)):
            name = series_name(index, JOURNAL_SUFFIX)
            if (self._folder.path / name).exists():
                files[name] = f"what the sampler said, launch {index}"
        return files

    def _remove_events(self) -> None:
        for path in self._folder.path.glob(_EVENTS):
            _unlink(path)

    def _remove_data(self) -> None:
        """Samples and series, which are in memory; so for now no file holds any iteration."""
        for path in (JOURNAL_NAME, *self._series_journals()):
            _unlink(self._folder.path / path)
        self._evidence.unsaved = sum(len(one.start_ns) for one in stretches(self._evidence))

    def _series_journals(self) -> list[str]:
        return [series_name(i, JOURNAL_SUFFIX) for i in range(len(self._evidence.samplers))]

    def _in_other_files(self, names: Collection[str]) -> list[str]:
        """The journals whose content is in other files of these ``names``."""
        pairs = [(JOURNAL_NAME, SAMPLES_NAME)]
        pairs += [(name, series_name(i)) for i, name in enumerate(self._series_journals())]
        return [journal for journal, file in pairs if file in names]


def stretches(evidence: Evidence) -> list[Stretch]:
    """Every iteration of every launch."""
    return [
        Stretch(index, stream, *part)
        for index, record in enumerate(evidence.launches)
        for stream, recorder in enumerate(record.recorders)
        for part in recorder.stretches()
    ]


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
