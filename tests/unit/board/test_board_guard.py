"""The board answers by the names of the machine that serves it, and by no other."""

from __future__ import annotations

import socket

import pytest

from harness.board.guard import is_own_name, only_by_own_name

HERE = socket.gethostname().lower()


@pytest.mark.parametrize(
    ("asked", "host", "own"),
    [
        ("127.0.0.1:6006", "127.0.0.1", True),
        ("localhost:6006", "127.0.0.1", True),
        ("LOCALHOST.", "127.0.0.1", True),
        ("[::1]:6006", "127.0.0.1", True),
        ("127.0.0.2", "localhost", True),
        ("evil.example:6006", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("evil.example@127.0.0.1.evil.example", "127.0.0.1", False),
        ("192.168.1.5", "127.0.0.1", False),
        (HERE, "127.0.0.1", HERE == "localhost"),
        ("", "127.0.0.1", False),
        ("[::1", "127.0.0.1", False),
        ("192.168.1.5:80", "192.168.1.5", True),
        ("192.168.1.6", "192.168.1.5", False),
        ("rig:6006", "Rig", True),
        ("192.168.1.5", "0.0.0.0", True),
        ("[fe80::1]", "::", True),
        (HERE, "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
    ],
)
def test_whose_name_it_is(asked: str, host: str, own: bool) -> None:
    assert is_own_name(asked, host) is own


def test_another_name_never_reaches_the_application() -> None:
    reached: list[str] = []
    answers: list[str] = []
    guarded = only_by_own_name(lambda environ, start: reached.append("app") or [], "127.0.0.1")
    for name in ("localhost:6006", "evil.example"):
        guarded({"HTTP_HOST": name}, lambda status, headers: answers.append(status))
    guarded({}, lambda status, headers: answers.append(status))
    assert reached == ["app"]
    assert answers == ["403 Forbidden", "403 Forbidden"]
