"""The console script: starts a run's worker first, and only then the command line."""

from __future__ import annotations

import sys

from harness.engine import spawn


def console() -> None:
    """``harness ...``; exits the process."""
    if sys.argv[1:2] == ["run"] and not {"-h", "--help"} & set(sys.argv):
        spawn.start_early()
    try:
        from harness.cli.main import main

        for stream in (sys.stdout, sys.stderr):  # a file name need not fit the locale's encoding
            if stream is not None:  # closed by the shell
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        code = main()
    except Exception as error:
        # A defect of ours, shown whole. Python's own code for it is 1, which is a gate's verdict.
        sys.excepthook(type(error), error, error.__traceback__)
        code = 3
    finally:
        spawn.discard()
    sys.exit(code)
