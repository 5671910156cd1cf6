"""``python -m harness``."""

from harness.cli.main import console

if __name__ == "__main__":
    console()
