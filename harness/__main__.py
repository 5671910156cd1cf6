"""``python -m harness``."""

from harness.cli.entry import console

if __name__ == "__main__":
    console()
