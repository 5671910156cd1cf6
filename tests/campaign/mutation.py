"""Small changes of the code, one at a time: which of them does no unit test see?

    python tests/campaign/mutation.py [--mutants 200] [--seed 1] [--seconds 1800] [MODULE...]

mutmut makes the mutants, and runs those tests alone that reach the function of each. All of them
would take a night on two cores: ``--mutants`` are drawn at random from MODULE (paths such as
``harness/stats/*``; default: `MODULES`). The whole goes on in a copy of the repository. Ends with
1 where a mutant survived; each is shown as a diff, to be killed by a test or explained.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = (
    "harness/stats/*", "harness/compare/*", "harness/analysis/energy/*",
    "harness/records/samples.py", "harness/records/refs.py",
)  # fmt: skip
# room -> where the tests of its code lie
TESTS = {"stats": ("stats", "analysis", "compare"), "compare": ("compare", "views")}
COPIED = ("harness", "backends", "profiles", "tests", "typings", "docs", "benchmarks", "examples",
          "README.md", "CHANGELOG.md", "pyproject.toml", "constraints.txt")  # fmt: skip
SETTINGS = """
[tool.mutmut]
source_paths = ["harness"]
only_mutate = {modules}
also_copy = ["backends", "profiles", "typings", "docs", "benchmarks", "examples", "README.md",
             "CHANGELOG.md", "constraints.txt"]
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {tests}
use_git_change_detection = false
use_setproctitle = false
"""
# what mutmut's exit codes of a mutant mean
ENDS = {0: "survived", 1: "killed", 3: "killed", 24: "timeout", 33: "not reached", 36: "timeout",
        37: "killed", -24: "timeout", 152: "timeout", 255: "timeout"}  # fmt: skip
# mutmut notes every call of every test, of which a simulation has millions
NO_SIMULATIONS = """

def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [one for one in items if "trials" not in getattr(one, "fixturenames", ())]
"""
GENERATE = """
import mutmut.__main__ as m
m.set_mutant_under_test("mutant_generation")
m.makedirs("mutants", exist_ok=True)
m.copy_src_dir()
m.copy_also_copy_files()
m.setup_source_paths()
m.create_mutants(2)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", default=MODULES)
    parser.add_argument("--mutants", type=int, default=200, help="at most so many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the draw (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1800, help="at most (%(default)s)")
    parser.add_argument("--tests", action="append", metavar="PATH", help="default: of the rooms")
    parser.add_argument("--jobs", type=int, default=2, help="at once (%(default)s)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harness-mutation-") as folder:
        return _run(Path(folder), asked)


def _run(folder: Path, asked: argparse.Namespace) -> int:
    _copy(folder, asked.modules, asked.tests)
    made = subprocess.run([sys.executable, "-c", GENERATE], cwd=folder, capture_output=True)
    if made.returncode:
        sys.exit(made.stderr.decode(errors="replace"))
    everyone = sorted(_results(folder))
    count = min(asked.mutants, len(everyone))
    drawn = random.Random(asked.seed).sample(everyone, count)
    print(f"{len(everyone)} mutants, {count} drawn by seed {asked.seed}", flush=True)
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(asked.jobs), *drawn]
    _bounded(command, folder, asked.seconds)
    found = _results(folder)
    ends = {name: _end(found[name]) for name in drawn}
    survivors = [name for name in drawn if ends[name] in ("survived", "not reached")]
    for name in sorted(survivors):
        print(f"\n{ends[name]}: {name}")
        subprocess.run([sys.executable, "-m", "mutmut", "show", name], cwd=folder, check=False)
    counts = Counter(ends.values())
    tried = count - counts["not tried"]
    seen = counts["killed"] + counts["timeout"]
    told = ", ".join(f"{number} {end}" for end, number in counts.most_common())
    print(f"\nmutation: {seen} of {tried} seen ({seen / max(tried, 1):.0%}); {told}")
    return int(bool(survivors) or not tried)


def _copy(folder: Path, modules: list[str], tests: list[str] | None) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder)
    rooms = [Path(module).parts[1] for module in modules]
    named = dict.fromkeys(test for room in rooms for test in TESTS.get(room, (room,)))
    tests = tests or [f"tests/unit/{room}" for room in named]
    with (folder / "tests" / "conftest.py").open("a", encoding="utf-8") as file:
        file.write(NO_SIMULATIONS)
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(SETTINGS.format(modules=json.dumps(list(modules)), tests=json.dumps(tests)))


def _results(folder: Path) -> dict[str, int | None]:
    """The exit code of each mutant's tests; None where none ran."""
    found: dict[str, int | None] = {}
    for path in (folder / "mutants").rglob("*.meta"):
        found |= json.loads(path.read_text("utf-8"))["exit_code_by_key"]
    return found


def _end(code: int | None) -> str:
    return "not tried" if code is None else ENDS.get(code, f"exit code {code}")


def _bounded(command: list[str], folder: Path, seconds: float) -> None:
    """Run it, and end it with all that it started when its time is over."""
    log = folder / "mutmut.log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            command, cwd=folder, stdout=file, stderr=file, start_new_session=True
        ) as process,
    ):
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"its {seconds:.0f} s are over")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode > 0:
        sys.exit(log.read_text("utf-8", errors="replace")[-4000:])


if __name__ == "__main__":
    sys.exit(main())
