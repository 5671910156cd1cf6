"""``python -m harness``, which puts the current folder first: a file there shadows no module."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]

from harness.cli.entry import console

if __name__ == "__main__":
    console()
