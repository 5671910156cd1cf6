"""Whatever lies in a file, the loader answers with a Result or a ResultError."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import maybe
from harness.errors import ResultError
from harness.maybe import Unavailable
from harness.records.result import Result
from harness.records.store import read_result
from harness.testing.results import fake_result

GOLDEN = json.loads(msgspec.json.encode(fake_result()))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
    | st.text(max_size=20) | st.just({"unavailable": "x"}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results") / "result.json"


def load(file: Path, data: bytes) -> Result | ResultError:
    file.write_bytes(data)
    try:
        return read_result(file)
    except ResultError as error:
        assert str(file) in str(error) and "\n" not in str(error)
        return error


@given(data=st.binary(max_size=200))
def test_arbitrary_bytes(file: Path, data: bytes) -> None:
    assert isinstance(load(file, data), ResultError)


@given(value=ANY_JSON)
def test_arbitrary_json(file: Path, value: Any) -> None:
    assert isinstance(load(file, json.dumps(value).encode()), ResultError)


def places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every node below ``node``."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    found: list[tuple[Any, ...]] = []
    for key, child in items:
        found.append((*at, key))
        if isinstance(child, dict | list):
            found += places(child, (*at, key))
    return found


@given(place=st.sampled_from(places(GOLDEN)), value=ANY_JSON, drop=st.booleans())
@settings(max_examples=400)
def test_a_good_result_with_one_part_replaced_or_dropped(
    file: Path, place: tuple[Any, ...], value: Any, drop: bool
) -> None:
    raw = json.loads(json.dumps(GOLDEN))
    parent = raw
    for key in place[:-1]:
        parent = parent[key]
    if drop:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    loaded = load(file, json.dumps(raw).encode())
    if isinstance(loaded, Result):  # what loads can be written again
        assert maybe.decode(msgspec.json.encode(loaded), Result) == loaded


@given(cut=st.integers(0, 3_000))
def test_a_good_result_cut_short(file: Path, cut: int) -> None:
    whole = json.dumps(GOLDEN).encode()
    assert len(whole) > 3_000
    assert isinstance(load(file, whole[:cut]), ResultError)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a record's type, each Maybe absent now and then."""
    origin, args = get_origin(kind), get_args(kind)
    simple = {
        str: st.text(max_size=8),
        int: st.integers(-(2**53), 2**53),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        type(None): st.none(),
    }
    if kind in simple:
        return simple[kind]
    if hasattr(kind, "inner"):
        absent = st.builds(Unavailable, simple[str], simple[str])
        return absent | values(kind.inner)
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (Union, UnionType):
        return st.one_of(*(values(arg) for arg in args))
    if origin is dict:
        keys = st.text(max_size=4).filter(lambda key: key != "unavailable")
        return st.dictionaries(keys, values(args[1]), max_size=2)
    if origin is tuple and args[-1] is Ellipsis:
        return st.lists(values(args[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*(values(arg) for arg in args))
    return records(kind)


def records(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    fields = {name: values(hints[name]) for name in kind.__struct_fields__ if name != "schema"}
    return st.builds(kind, **fields)


@given(result=records(Result))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_result_survives_the_round_trip(result: Result) -> None:
    assert maybe.decode(msgspec.json.encode(result), Result) == result
