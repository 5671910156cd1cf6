"""Every exception that Harness raises on purpose.

    HarnessError                    what the user sees: one line on stderr, and an exit code
    ├── UsageError            (2)   a flag, a spec or a sweep file that makes no sense
    ├── ModelError            (2)   a model or file that cannot be read, or is not what it claims
    │   └── QuantizationError (2)   no such precision of this model on this route
    ├── DataError             (2)   a dataset or calibration file that does not fit the model
    ├── ResultError           (2)   a result that cannot be read, or a results folder not writable
    │   └── Regressed         (1)   a candidate is worse than the baseline that it would replace
    ├── BackendUnavailable    (3)   the runtime or device asked for is not here
    ├── MeasurementFailed     (3)   the worker crashed, hung, or produced nothing usable
    └── NothingComparable     (4)   nothing could be compared

Foreign exceptions are mapped to these at one boundary per adapter, with the cause kept. Anything
else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

_MOST_CHARACTERS = 20_000


class HarnessError(Exception):
    """An expected failure. ``message`` says what is wrong, ``remedy`` what to do about it."""

    exit_code = 2

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.message}; {self.remedy}" if self.remedy else self.message
        return " ".join(text.split())


class UsageError(HarnessError):
    """A flag, spec or sweep file that makes no sense."""


class ModelError(HarnessError):
    """A model that cannot be read, or is not what it claims to be."""


class QuantizationError(ModelError):
    """A model that this route cannot bring to the precision asked for; names the operator."""


class DataError(HarnessError):
    """A dataset or calibration file that does not fit the model."""


class ResultError(HarnessError):
    """A result that cannot be read, or a results folder that cannot be written."""


class Regressed(ResultError):
    """A candidate is worse than the baseline that it would replace."""

    exit_code = 1


class BackendUnavailable(HarnessError):
    """The runtime or the device asked for is not here."""

    exit_code = 3


class MeasurementFailed(HarnessError):
    """The worker crashed, hung or produced nothing usable."""

    exit_code = 3


class NothingComparable(HarnessError):
    """No pair of results could be compared."""

    exit_code = 4


def one_line(text: object, most: int = _MOST_CHARACTERS) -> str:
    """``text`` on one line, whole: a runtime often says last what helps.

    Of one longer than ``most`` characters both ends, with ``[...]`` between them.
    """
    line = " ".join(str(text).split())
    if len(line) <= most:
        return line
    return f"{line[: most // 2]} [...] {line[-(most // 2) :]}"
