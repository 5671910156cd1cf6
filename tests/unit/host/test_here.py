"""Code that the user names: found in the current folder, which shadows nothing afterwards."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from harness.host import here


def test_the_current_folder_comes_first_for_the_module_and_last_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("named_by_the_user", "beside_it"):
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    (tmp_path / "named_by_the_user.py").write_text("import beside_it\nfound = beside_it.found\n")
    (tmp_path / "beside_it.py").write_text("found = 42\n")
    (tmp_path / "wave.py").write_text("raise SystemExit(7)\n")
    for _ in range(2):
        assert here.import_module("named_by_the_user").found == 42
        assert sys.path[-1] == str(tmp_path) and sys.path.count(str(tmp_path)) == 1
        late = importlib.util.find_spec("wave")
        assert late is not None and late.origin != str(tmp_path / "wave.py")


def test_a_path_that_the_user_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", before := [str(tmp_path), *sys.path])
    with pytest.raises(ModuleNotFoundError):
        here.import_module("no_such_module_at_all")
    assert sys.path == before
