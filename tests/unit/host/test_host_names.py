"""Tame names, and the name that was meant."""

from __future__ import annotations

import pytest

from harness.host.names import nearest, tame


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("resnet18.v2", {}, "resnet18.v2"),
        ("a b/../c:1", {}, "a_b_.._c_1"),
        ("--tiny net--", {"filler": "-"}, "tiny-net"),
        ("w8-a8+x", {"also": "+-"}, "w8-a8+x"),
        ("w8-a8+x", {}, "w8_a8_x"),
        ("模型", {}, ""),
        (".hidden.", {}, "hidden"),
        ("abcdefghij_klm", {}, "abcdefghij"),  # cut, and then without what it would end in
    ],
)
def test_tame_names(text: str, options: dict[str, str], expected: str) -> None:
    assert tame(text, 11, **options) == expected


def test_the_name_that_was_meant() -> None:
    assert nearest("laten", ("latency", "load")) == "latency"
    assert nearest("xyz", ("latency", "load")) is None
    assert nearest("la", ("latency",), 0.4) == "latency" and nearest("la", ("latency",)) is None
    assert nearest("a", ()) is None
