"""Kernel files in the user's words."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from harness.host.procfs import KernelFile, cpu_list, fields, why
from harness.maybe import Unavailable, code_of, coded

MISSING = coded("not_present", "there is no such sensor", "plug it in")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOENT, "not_present"),
        (errno.ENOTDIR, "not_present"),
        (errno.ESRCH, "not_present"),
        (errno.EACCES, "permission_denied"),
        (errno.EPERM, "permission_denied"),
        (errno.EIO, "error"),
        (errno.EOPNOTSUPP, "error"),
    ],
)
def test_each_failure_has_a_code_and_a_remedy(number: int, code: str) -> None:
    reason = why(OSError(number, "so it says"), "/sys/file", MISSING)
    assert isinstance(reason, Unavailable)
    assert code_of(reason) == code and reason.remedy


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0-2,8\n", (0, 1, 2, 8)), ("5", (5,)), ("", ()), (None, ()), ("none", ())],
)
def test_lists_of_cpus(text: str | None, cpus: tuple[int, ...]) -> None:
    assert cpu_list(text) == cpus


def test_the_first_of_equal_keys_counts() -> None:
    assert fields("model name : a\nmodel name : b\n\nodd line\n") == {
        "model name": "a", "": "", "odd line": "",
    }  # fmt: skip


def test_a_kept_file_gives_what_it_says_now(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1\n")
    file = KernelFile(path)
    assert file.read() == b"1\n"
    path.write_text("2\n")
    assert file.read() == b"2\n"
    file.close()
    file.close()
    with pytest.raises(OSError):
        file.read()
