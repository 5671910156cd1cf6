"""The console script: starts a run's worker first, and only then the command line."""

from __future__ import annotations

import signal
import sys
from types import FrameType

INTERRUPTED = 130


def console() -> None:
    """``harness ...``; exits the process."""
    if by_default := signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)  # what follows imports, and shows no traceback of that
    _end_with_sweep()
    from harness.engine.driver import spawn

    if sys.argv[1:2] == ["run"] and not {"-h", "--help"} & set(sys.argv):
        spawn.start_early()
    try:
        from harness.cli.main import main

        for stream in (sys.stdout, sys.stderr):  # a file name need not fit the locale's encoding
            if stream is not None:  # closed by the shell
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        if by_default:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = main()
        if by_default:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the code is settled
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        # A defect of ours, shown whole. Python's own code for it is 1, which is a gate's verdict.
        sys.excepthook(type(error), error, error.__traceback__)
        code = 3
    finally:
        spawn.discard()
    sys.exit(code)


def _leave(signum: int, frame: FrameType | None) -> None:
    """Nothing has been done yet; a worker that waits for orders ends with its socket."""
    import os

    os.write(2, b"harness: interrupted\n")
    os._exit(INTERRUPTED)


def _end_with_sweep() -> None:
    """A run that a sweep started is told to stop, as by ``kill``, when the sweep is gone."""
    import os

    if parent := os.environ.pop("HARNESS_PARENT", ""):
        from harness.host.lifetime import end_with_parent

        end_with_parent(signal.SIGTERM, int(parent))
