"""The reliability campaign: real processes killed and signalled, mutated files, others' models.

    python tests/campaign/campaign.py kills --count 100 --seed 1
    python tests/campaign/campaign.py signals --count 100 --seed 1
    python tests/campaign/campaign.py files --count 5000 --seed 1 --keep harmful
    python tests/campaign/campaign.py onnx --seconds 600
    python tests/campaign/campaign.py fleet --count 40 --seed 1

Prints a line of figures for each kind of try, and every fault with what repeats it. Exit code 1
where there was one. Each part is bounded, in tries and in time, and draws the same tries for the
same seed. docs/reliability.md says what was reached.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# Each has run(count, seed, seconds, ...), which yields one Summary for each kind of try.
MODULES = {"kills": "kills", "signals": "signals", "files": "files", "onnx": "onnx_wheel",
           "factories": "factories", "fleet": "fleet"}  # fmt: skip


def main(args: list[str] | None = None) -> int:
    given = vars(_parser().parse_args(args))
    part = importlib.import_module(MODULES[given.pop("part")])
    faults = 0
    for summary in part.run(**given):
        print(summary, flush=True)
        faults += len(summary.faults)
    return 1 if faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    kills = parts.add_parser("kills", help="kill -9 of driver, worker, sampler and sweep")
    kills.add_argument("--count", type=int, default=100, help="tries of each kind")
    signals = parts.add_parser("signals", help="SIGINT, SIGTERM, SIGHUP and pairs of them")
    signals.add_argument("--count", type=int, default=100, help="tries in all")
    files = parts.add_parser("files", help="mutated files through the commands that read them")
    files.add_argument("--count", type=int, default=5000, help="files in all")
    files.add_argument("--first", type=int, default=0, help="the number of the first file")
    files.add_argument("--jobs", type=int, default=2, help="so many at a time")
    files.add_argument("--keep", type=Path, metavar="FOLDER", help="for files that did harm")
    onnx = parts.add_parser("onnx", help="the test models of onnx's wheel, in every precision")
    onnx.add_argument("--count", type=int, help="so many models, drawn; without it, all")
    onnx.add_argument("--kind", action="append", metavar="KIND", help="of the wheel; else all")
    factories = parts.add_parser("factories", help="odd torch modules and the zoo, in every way")
    factories.add_argument("--count", type=int, help="so many of them, drawn; without it, all")
    factories.add_argument("--only", action="append", metavar="MODEL", help="this; else all")
    factories.add_argument("--verbose", action="store_true", help="what became of each")
    factories.add_argument("--way", action="append", help="as 'pytorch int8'; else all")
    fleet = parts.add_parser("fleet", help="kills in a fleet of three nodes on Ray (extra fleet)")
    fleet.add_argument("--count", type=int, default=40, help="kills and pauses in all")
    for one in (kills, signals, files, onnx, factories, fleet):
        one.add_argument("--seed", type=int, default=1)
        one.add_argument("--seconds", type=float, default=3600, help="no new try after so long")
    return parser


if __name__ == "__main__":
    sys.exit(main())
