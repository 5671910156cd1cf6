"""Products are built once, survive damage and rivals, and leave nothing behind when they fail."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import msgspec
import pytest

from harness.errors import ModelError, UsageError
from harness.models.cache import ABANDONED_S, Cache, NeedsBuilder, default_root


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
    return list((root / "tmp").iterdir()) if (root / "tmp").exists() else []


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
        together.wait(timeout=30)
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


def test_abandoned_builds_are_swept_and_running_ones_kept(tmp_path: Path) -> None:
    old, young = tmp_path / "tmp" / "old", tmp_path / "tmp" / "young"
    old.mkdir(parents=True)
    young.mkdir()
    past = time.time() - ABANDONED_S - 60
    os.utime(old, (past, past))
    Cache(tmp_path, building=True).product("kind", 1, Record, Builder())
    assert leftovers(tmp_path) == [young]


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
