"""The pytest plug-in: the fixture ``hwbench``, its options, and what pytest-benchmark asks of it.

    def test_int8(hwbench):
        result = hwbench(model="digits", precision="int8")
        assert result.timing.latency_ms.median < 1.0

Every pytest run of an environment that holds Harness loads this module, so it imports pytest and
the table of its options. What measures comes in with the first test that asks for it
(`harness.pytest_plugin.fixture`); without pytest-benchmark such a test fails with the line that
installs it, and no other test is touched.

A project may have a package of its own called ``harness``. This module is loaded before pytest
knows where that lies, so it takes itself out of ``sys.modules`` again: whoever imports ``harness``
next gets what is first on the path.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.pytest_plugin.options import EARLIER, OPTIONS, option_name

if TYPE_CHECKING:
    from harness.pytest_plugin.fixture import HwBench

_HIDDEN = "a package of this project is called harness, too, and hides that of hw-harness"


def pytest_addoption(parser: pytest.Parser) -> None:
    _step_aside()
    group = parser.getgroup("hwbench", "Harness: what a model costs on this hardware")
    for field, text in OPTIONS.items():
        name = option_name(field)
        names = [name, EARLIER[name]] if name in EARLIER else [name]
        metavar = "SECONDS" if field == "duration_s" else name.upper()
        flags = (f"--hwbench-{one}" for one in names)
        group.addoption(*flags, dest=f"hwbench_{field}", metavar=metavar, help=text)
        for one in names:
            parser.addini(f"hwbench_{one}", text, default=None)


def _step_aside() -> None:
    """Unless somebody else has imported more of us by now, and means us."""
    ours = {name for name in sys.modules if name.partition(".")[0] == "harness"}
    if ours == {"harness", "harness.version", __name__, f"{__name__}.options"}:
        for name in ours:
            del sys.modules[name]


def _is_hidden() -> bool:
    import harness

    return harness.__file__ != str(Path(__file__).parents[1] / "__init__.py")


@pytest.hookimpl(tryfirst=True)  # before pytest-benchmark loads what it compares against
def pytest_configure(config: pytest.Config) -> None:
    fixtures = _WithTable() if _has_benchmark(config) else _Alone()
    config.pluginmanager.register(fixtures, "hwbench")


def _has_benchmark(config: pytest.Config) -> bool:
    return config.getoption("benchmark_disable", None) is not None


class _WithTable:
    """``benchmark`` stands in the signature: pytest-benchmark looks there for what to select."""

    @pytest.fixture
    def hwbench(self, request: pytest.FixtureRequest, benchmark: Any) -> HwBench:
        """Measure a model: ``hwbench(model=..., backend=..., precision=..., ...)``."""
        if _is_hidden():
            pytest.fail(f"hwbench cannot be used: {_HIDDEN}", pytrace=False)
        from harness.pytest_plugin.fixture import HwBench

        return HwBench(request, benchmark)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if "hwbench" in getattr(item, "fixturenames", ()) and not _is_hidden():
                from harness.pytest_plugin.fixture import give_clock

                give_clock(item)

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_benchmark_compare_machine_info(
        self, config: pytest.Config, machine_info: dict[str, Any], compared_benchmark: Any
    ) -> None:
        """Refuses a file of ours from other hardware; files of others are left to the warning."""
        saved = compared_benchmark.get("machine_info")
        if isinstance(saved, dict) and "harness" in saved:
            if _is_hidden():
                raise pytest.UsageError(f"hwbench's file cannot be judged: {_HIDDEN}")
            from harness.pytest_plugin.hardware import refuse_other_hardware

            refuse_other_hardware(config, compared_benchmark)
            # judged, by what is stable: the warning compares clocks, and cries wolf
            compared_benchmark["machine_info"] = machine_info

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_machine_info(
        self, config: pytest.Config, machine_info: dict[str, Any]
    ) -> None:
        if not _was_used():
            return
        from harness.pytest_plugin.hardware import measured_machines

        if block := measured_machines(config):
            machine_info["harness"] = block

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not _was_used():
            return
        from harness.pytest_plugin.hardware import SUMMARY

        lines = terminalreporter.config.stash.get(SUMMARY, [])
        if lines:
            terminalreporter.section("hwbench")
        for line in lines:
            terminalreporter.write_line(line)


def _was_used() -> bool:
    """Some test has measured: only then there is something to add."""
    return "harness.pytest_plugin.hardware" in sys.modules


class _Alone:
    """Without pytest-benchmark."""

    @pytest.fixture
    def hwbench(self) -> None:
        """Needs pytest-benchmark, which is not here."""
        off = "hwbench needs pytest-benchmark, which is not here or is switched off"
        pytest.fail(f"{off}; pip install 'hw-harness[pytest]'", pytrace=False)
