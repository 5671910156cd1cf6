"""Versions of a distribution side by side, by the real pip, from wheels in a folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from harness.engine.driver.homes import environment, home
from harness.errors import UsageError
from harness.sweep.packages import (
    folder_of,
    parse_range,
    refuse_stranger,
    versions_between,
)


def wheel(folder: Path, version: str) -> None:
    info = f"planted-{version}.dist-info"
    with zipfile.ZipFile(folder / f"planted-{version}-py3-none-any.whl", "w") as file:
        file.writestr("planted.py", f"VERSION = {version!r}\n")
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: planted\nVersion: {version}\n"
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("this environment has no pip")
    folder = tmp_path / "wheels"
    folder.mkdir()
    for version in ("1.9", "1.10", "1.11"):
        wheel(folder, version)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return folder


def test_versions_are_listed_in_their_own_order_and_installed_once(wheels: Path) -> None:
    assert versions_between("planted", "1.9", "1.11") == ["1.9", "1.10", "1.11"]
    assert versions_between("planted", "1.11", "1.10") == ["1.11", "1.10"]
    folder = folder_of("planted", "1.10")
    for file in wheels.iterdir():
        file.unlink()
    assert folder_of("planted", "1.10") == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    command = [sys.executable, "-P", "-c", "import planted; print(planted.VERSION)"]
    told = subprocess.run(command, capture_output=True, text=True, env=environment([str(folder)]))
    assert told.stdout == "1.10\n"


def test_what_pip_cannot_install_is_refused_and_leaves_nothing(wheels: Path) -> None:
    with pytest.raises(UsageError, match=r"planted 2\.0 cannot be installed here"):
        versions_between("planted", "1.9", "2.0")
    with pytest.raises(UsageError, match="pip install"):
        folder_of("planted", "3.0")
    assert list((wheels.parent / "cache" / "packages").iterdir()) == []


def test_an_index_that_cannot_be_reached_is_called_that(
    wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(UsageError, match="the package index cannot be reached") as refused:
        versions_between("planted", "1.9", "1.11")
    assert "PIP_INDEX_URL" in refused.value.remedy


def test_what_is_no_part_of_the_backend_is_refused() -> None:
    refuse_stranger("onnxruntime", "onnxruntime")
    refuse_stranger("NumPy", "onnxruntime")  # which it requires
    refuse_stranger("anything", "harness.testing.fake_backend:FakeBackend")  # which says nothing
    with pytest.raises(UsageError, match="made of onnxruntime, onnxruntime-gpu"):
        refuse_stranger("rich", "onnxruntime")


@pytest.mark.parametrize("text", ["1.0", "..", "1.0..", "1.0..1.0", "-r..2", "1 ..2", "1.0..--x"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no range of versions"):
        parse_range("planted", text)
    with pytest.raises(UsageError, match="--package is"):
        parse_range("--index-url", "1..2")


def test_an_environment_without_harness_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name an interpreter"):
        home(str(tmp_path / "python"), "onnxruntime")
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(UsageError, match="has no Harness of this kind"):
        home(str(bare), "onnxruntime")


def test_this_environment_is_one(tmp_path: Path) -> None:
    found = home(sys.executable, "onnxruntime", [str(tmp_path)])
    assert found.versions["python"].startswith(f"{sys.version_info.major}.")
