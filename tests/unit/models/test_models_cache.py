"""Products are built once, survive damage and rivals, and leave nothing behind when they fail."""

from __future__ import annotations

import ast
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import msgspec
import pytest

from harness.errors import ModelError, QuantizationError, UsageError
from harness.host.cache_root import default_root
from harness.models import fp32
from harness.models.cache import ABANDONED_S, UNFINISHED, Cache, NeedsBuilder
from harness.models.fp32 import code_sha256


class Record(msgspec.Struct, frozen=True):
    answer: int


class Builder:
    """Writes one file and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> Record:
        self.calls += 1
        (folder / "file").write_text("content")
        return Record(42)


def leftovers(root: Path) -> list[Path]:
    return list((root / UNFINISHED).iterdir()) if (root / UNFINISHED).exists() else []


def aged(path: Path) -> Path:
    """``path``, a folder that nothing has touched for more than a day."""
    path.mkdir(parents=True)
    (path / "file").write_text("content")
    past = time.time() - ABANDONED_S - 60
    os.utime(path, (past, past))
    return path


def test_a_product_is_built_once(tmp_path: Path) -> None:
    cache, build = Cache(tmp_path, building=True), Builder()
    made = [cache.product("kind", {"key": 1}, Record, build) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0].record == Record(42)
    assert (made[0].folder / "file").read_text() == "content"
    assert build.calls == 1
    cache.product("kind", {"key": 2}, Record, build)
    assert build.calls == 2
    assert leftovers(tmp_path) == []


def test_only_a_builder_builds_what_is_heavy(tmp_path: Path) -> None:
    cache, build = Cache(tmp_path, building=False), Builder()
    with pytest.raises(NeedsBuilder):
        cache.product("kind", 1, Record, build)
    with pytest.raises(NeedsBuilder):
        cache.by_content("kind", Record, build, "")
    cache.product("kind", 1, Record, build, light=True)
    assert build.calls == 1


@pytest.mark.parametrize("damage", ["cut", "same size", "gone", "record", "no record"])
def test_a_damaged_product_is_built_anew(tmp_path: Path, damage: str) -> None:
    cache, build = Cache(tmp_path, building=True), Builder()
    folder = cache.product("kind", 1, Record, build).folder
    match damage:
        case "cut":
            (folder / "file").write_text("cont")
        case "same size":
            (folder / "file").write_text("CONTENT")
            os.utime(folder / "file", ns=(1, 1))
        case "gone":
            (folder / "file").unlink()
        case "record":
            (folder / "product.json").write_text('{"record": {"ans')
        case _:
            (folder / "product.json").unlink()
    again = cache.product("kind", 1, Record, build)
    assert (again.folder / "file").read_text() == "content"
    assert build.calls == 2
    assert leftovers(tmp_path) == []


def test_a_copied_cache_is_still_good(tmp_path: Path) -> None:
    cache, build = Cache(tmp_path, building=True), Builder()
    folder = cache.product("kind", 1, Record, build).folder
    os.utime(folder / "file", ns=(1, 1))
    cache.product("kind", 1, Record, build)
    assert build.calls == 1


def test_rivals_both_succeed(tmp_path: Path) -> None:
    cache, together = Cache(tmp_path, building=True), Barrier(4)

    def build(folder: Path) -> Record:
        together.wait(timeout=600)
        (folder / "file").write_text("content")
        return Record(42)

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: cache.product("kind", 1, Record, build), range(4)))
    assert {product.folder for product in made} == {made[0].folder}
    assert leftovers(tmp_path) == []


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> Record:
        (folder / "file").write_text("half")
        raise ModelError("no")

    with pytest.raises(ModelError):
        Cache(tmp_path, building=True).product("kind", 1, Record, build)
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "kind").exists()


@pytest.mark.parametrize(
    "cause", [OSError(28, "No space left on device"), RuntimeError("No space left on device: x")]
)
def test_a_full_cache_is_not_called_the_models_fault(tmp_path: Path, cause: Exception) -> None:
    """As a quantizer's library tells it: by whatever error it meets, which becomes one of ours."""

    def build(folder: Path) -> Record:
        try:
            raise cause
        except Exception as error:
            raise QuantizationError("m.onnx cannot be quantized", "run fp32") from error

    with pytest.raises(UsageError, match=r"cache .* cannot be written: No space left on device"):
        Cache(tmp_path, building=True).product("kind", 1, Record, build)
    assert leftovers(tmp_path) == []


def test_abandoned_builds_are_swept_and_running_ones_kept(tmp_path: Path) -> None:
    aged(tmp_path / UNFINISHED / "12345-0_z9abcd")
    young = tmp_path / UNFINISHED / "12346-0_z9abcd"
    young.mkdir()
    Cache(tmp_path, building=True).product("kind", 1, Record, Builder())
    assert leftovers(tmp_path) == [young]


@pytest.mark.parametrize(
    "place", ["thesis", "tmp/thesis", f"{UNFINISHED}/thesis", f"{UNFINISHED}/12345-my-thesis"]
)
def test_what_others_keep_in_the_folder_of_the_cache_stays(tmp_path: Path, place: str) -> None:
    thesis = aged(tmp_path / place)
    cache = Cache(tmp_path, building=True)
    cache.product("kind", 1, Record, Builder())
    cache.sweep(12345)
    assert (thesis / "file").exists()


def test_nothing_behind_a_link_is_swept(tmp_path: Path) -> None:
    theirs = aged(tmp_path / "theirs" / "12345-abcdefgh")
    cache = Cache(tmp_path / "cache", building=True)
    aged(tmp_path / "cache" / UNFINISHED / "1-abcdefgh")
    (tmp_path / "cache" / UNFINISHED / "12345-abcdefgh").symlink_to(theirs)
    cache.product("kind", 1, Record, Builder())
    cache.sweep(12345)
    assert (theirs / "file").exists()


def test_a_place_to_build_in_that_is_a_link_is_refused(tmp_path: Path) -> None:
    theirs = aged(tmp_path / "theirs" / "12345-abcdefgh")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / UNFINISHED).symlink_to(tmp_path / "theirs")
    cache = Cache(tmp_path / "cache", building=True)
    with pytest.raises(UsageError, match=r"is a link; remove it"):
        cache.product("kind", 1, Record, Builder())
    cache.sweep(12345)
    assert (theirs / "file").exists()


def test_by_content_builds_always_and_stores_once(tmp_path: Path) -> None:
    cache, build = Cache(tmp_path, building=True), Builder()
    made = {cache.by_content("kind", Record, build, "salt").folder for _ in range(2)}
    assert build.calls == 2
    assert len(made) == 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file", building=True)
    with pytest.raises(UsageError, match=r"the cache .*file cannot be written: Not a directory; "):
        cache.product("kind", 1, Record, Builder())


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert default_root() == Path("/a")
    monkeypatch.delenv("HARNESS_CACHE")
    assert default_root() == Path("/b/harness")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert default_root() == Path("/c/.cache/harness")
    monkeypatch.delenv("HOME")
    with monkeypatch.context() as alone:
        alone.setattr("pwd.getpwuid", _no_such_user)  # as for a user of a container
        with pytest.raises(UsageError, match=r"no home folder .*; point HARNESS_CACHE at"):
            default_root()
        alone.setenv("HARNESS_CACHE", "/a")
        assert default_root() == Path("/a")


def _no_such_user(uid: int) -> None:
    raise KeyError(uid)


def test_code_that_no_file_holds_is_a_bug_and_no_hash() -> None:
    with pytest.raises(FileNotFoundError, match="moved/away"):
        code_sha256("zoo/*.py", "moved/away.py")


def test_every_pattern_of_watched_code_finds_files() -> None:
    patterns = [
        constant.value
        for path in (fp32.PACKAGE / "models").glob("*.py")
        for constant in ast.walk(ast.parse(path.read_text()))
        if isinstance(constant, ast.Constant)
        and isinstance(constant.value, str)
        and re.fullmatch(r"[a-z0-9_]+/[a-z0-9_*]+\.py", constant.value)
    ]
    assert len(patterns) > 5
    assert [one for one in patterns if not list(fp32.PACKAGE.glob(one))] == []
