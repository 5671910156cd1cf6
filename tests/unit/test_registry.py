"""What backends say of themselves, and those from before they could."""

from __future__ import annotations

from typing import Any

import pytest

from harness import registry
from harness.protocols import Option, SessionOptions, Wanted
from harness.spec import parse, unparse


class Older:
    """As plug-ins were written before there was `Wanted`."""

    name, availability, prepare = "older", None, None

    def artifact_format(self, precision: str, options: SessionOptions) -> str:
        return f"{precision} on {options.device}"


class Junk:
    """Declares what is no data of that kind."""

    options, default_device = 3, ["cuda"]


@pytest.mark.parametrize("name", registry.BACKENDS)
def test_every_option_of_ours_has_a_default_among_its_values_and_a_word_of_help(name: str) -> None:
    options = registry.declared(name).options
    assert options and len({option.name for option in options}) == len(options)
    for option in options:
        assert option.help
        assert not option.values or option.default in option.values


def test_a_plug_in_with_a_format_alone_still_works() -> None:
    found: Any = registry.find_backend(f"{__name__}:Older")
    assert found.wants("int8", SessionOptions("cuda:1")) == Wanted("int8 on cuda:1")
    assert registry.declared(f"{__name__}:Older") == registry.Declared()


def test_what_is_declared_amiss_or_by_nobody_is_nothing() -> None:
    assert registry.declared(f"{__name__}:Junk") == registry.Declared()
    assert registry.declared("nobody") == registry.Declared()


def test_a_plug_in_s_default_device_and_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    class Card(Older):
        options = (Option("depth", ("1", "2"), "1"),)
        default_device = "cuda"
        distributions = ("card-runtime", "torch")

    monkeypatch.setattr(registry, "_load", lambda *_: Card)
    assert parse({"backend": "card"}).device == "cuda:0"
    assert parse({"backend": "card", "device": "cpu"}).device == "cpu"
    for device in ("cpu", "cuda:0", "cuda:1"):  # whatever the default is where it is read again
        spec = parse({"backend": "card", "device": device})
        assert parse(unparse(spec)) == spec and "device" in unparse(spec)
    assert registry.distributions("card") == ("card-runtime", "torch")
