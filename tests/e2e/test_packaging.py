"""The wheel: it holds the tree and nothing else, and works where the tree is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from running import assert_no_orphans

import harness

ROOT = Path(__file__).parents[2]
# folder in the tree -> folder in the wheel
PACKAGES = {"harness": "harness", "backends": "harness/backends", "profiles": "harness/profiles"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel is made of, copied: setuptools would pick up an older build's leftovers."""
    copy = tmp_path_factory.mktemp("tree")
    for folder in (*PACKAGES, "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for path in (*ROOT.glob("*.toml"), *ROOT.glob("*.md"), *ROOT.glob("LICENSE*")):
        shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(
        command, cwd=tree, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (tree / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel in it, and this one's dependencies after it.

    A .pth file adds their folder, but reads no .pth file there, so that an editable install of the
    tree stays out of sight.
    """
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    offline = ("--no-deps", "--no-index", "--disable-pip-version-check")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", *offline, wheel],
        check=True,
        timeout=600,
    )
    (site,) = folder.glob("lib/python*/site-packages")
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in dependencies))
    return folder


def call(environment: Path, cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A program of ``environment``, in a folder from which no tree can be seen."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [environment / "bin" / command[0], *command[1:]],
        cwd=cwd,
        env={**variables, "HARNESS_CACHE": str(environment.parent / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(
    tree: Path, wheel: Path
) -> None:
    expected = {
        f"{target}/{path.relative_to(tree / folder).as_posix()}"
        for folder, target in PACKAGES.items()
        for path in (tree / folder).rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = f"hw_harness-{harness.__version__}.dist-info"
    assert {name for name in names if not name.startswith(f"{metadata}/")} == expected
    # the comparison is no better than the list that it starts from
    assert {
        "harness/py.typed",
        "harness/zoo/assets/digits.onnx",
        "harness/records/result.schema.json",
        "harness/backends/onnxruntime/backend.py",
        "harness/profiles/power/sources.py",
    } <= expected
    assert f"{metadata}/entry_points.txt" in names


def test_the_installed_modules_come_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    script = """
import importlib, importlib.util, json, pkgutil
import harness
found = {name: importlib.util.find_spec(name) is not None for name in ("backends", "profiles")}
names = [m.name for m in pkgutil.walk_packages(harness.__path__, "harness.")]
places = {n: importlib.import_module(n).__file__ for n in ("harness.backends", "harness.profiles")}
print(json.dumps({"top": found, "names": names, "places": places}))
"""
    done = call(environment, tmp_path, "python", "-c", script)

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["top"] == {"backends": False, "profiles": False}
    assert {"harness.backends.onnxruntime.backend", "harness.profiles.power.sources"} <= set(
        told["names"]
    )
    for name, place in told["places"].items():
        assert Path(place).is_relative_to(environment), name


def test_the_installed_command_tells_its_version(environment: Path, tmp_path: Path) -> None:
    done = call(environment, tmp_path, "harness", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"harness {harness.__version__}\n"


def test_the_installed_command_measures(environment: Path, tmp_path: Path) -> None:
    done = call(environment, tmp_path, "harness", "run", "--iterations", "50", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["timing"]["iterations"] == 50
    assert result["software"]["versions"]["hw-harness"] == harness.__version__
    assert result["accuracy"]["top1"] > 0.9  # the model and its test data came along
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]
    assert_no_orphans(tmp_path)
