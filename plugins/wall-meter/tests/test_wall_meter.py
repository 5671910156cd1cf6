"""The profiler against a plug that is a real HTTP server on this machine."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from harness_wall_meter.profiler import ENERGY, POWER, UNIT, URL, WallMeter

from harness.maybe import Unavailable
from harness.protocols import Available, ProfilerContext
from harness.testing.contract_profiler import Make, ProfilerContract


class Plug:
    """What it answers, and that it was asked so often."""

    def __init__(self) -> None:
        self.body: bytes = b""
        self.status = 200
        self.asked = threading.Semaphore(0)
        plug = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = plug.body
                self.send_response(plug.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                plug.asked.release()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/status"

    def says(self, power: Any, energy: Any = None, status: int = 200) -> None:
        """From the next answer but one on: one may be under way."""
        self.status = status
        self.body = json.dumps({"meters": [{"power": power}], "total": {"e": energy}}).encode()
        while self.asked.acquire(blocking=False):
            pass

    def answered(self) -> None:
        for _ in range(2):
            assert self.asked.acquire(timeout=20)


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plug]:
    made = Plug()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv(URL, made.url)
    monkeypatch.setenv(POWER, "meters.0.power")
    monkeypatch.setenv(ENERGY, "total.e")
    monkeypatch.setenv(UNIT, "wh")
    made.says(40.5, 2)
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def meter(plug: Plug) -> Iterator[WallMeter]:
    made = WallMeter(ProfilerContext(os.getpid()))
    yield made
    made.close()


def until(meter: WallMeter, wanted: Callable[[Sequence[float | None]], bool]) -> Any:
    """The first reading that is as ``wanted``; the plug answers every fifth of a second."""
    pause = threading.Event()
    for _ in range(2000):
        values = meter.read()
        if wanted(values):
            return values
        pause.wait(0.01)
    raise AssertionError("no such reading came")


class TestContract(ProfilerContract):
    rooted = False

    @pytest.fixture
    def make(self, plug: Plug) -> Make:
        return WallMeter


class TestContractWithoutAPlug(ProfilerContract):
    @pytest.fixture
    def make(self, monkeypatch: pytest.MonkeyPatch) -> Make:
        monkeypatch.delenv(URL, raising=False)
        return WallMeter


def test_power_and_energy_are_those_of_the_plug(plug: Plug, meter: WallMeter) -> None:
    assert meter.open() == Available({"host": "127.0.0.1", "power_w": "40.5"})
    assert [(one.name, one.unit, one.kind) for one in meter.channels] == [
        ("wall_power_w", "W", "gauge"), ("wall_energy_j", "J", "counter"),
    ]  # fmt: skip
    assert until(meter, lambda values: values[0] == 40.5) == [40.5, 0.0]
    plug.says(60, 2.5)
    assert until(meter, lambda values: values[0] == 60) == [60.0, 0.5 * 3600]


def test_an_answer_is_told_once(plug: Plug, meter: WallMeter) -> None:
    meter.open()
    until(meter, lambda values: values[0] is not None)
    meter.close()  # no other comes
    meter.read()
    assert meter.read() == [None, None]


@pytest.mark.parametrize("power", [None, "no number", True, -1, float("nan"), {}])
def test_what_is_no_number_is_missing(plug: Plug, meter: WallMeter, power: Any) -> None:
    meter.open()
    plug.says(power, 3)
    plug.answered()
    values = until(meter, lambda values: values[1] == 3600)
    assert values[0] is None


def test_a_plug_that_fails_meanwhile_gives_nothing_and_comes_back(
    plug: Plug, meter: WallMeter
) -> None:
    meter.open()
    plug.says(50, 3, status=500)
    plug.answered()
    meter.read()
    assert meter.read() == [None, None]
    plug.says(51, 3)
    assert until(meter, lambda values: values[0] == 51) == [51.0, 3600.0]


def test_a_counter_that_goes_back_ends(plug: Plug, meter: WallMeter) -> None:
    meter.open()
    plug.says(50, 4)
    until(meter, lambda values: values[1] == 7200)
    plug.says(51, 0)
    assert until(meter, lambda values: values[0] == 51)[1] is None
    plug.says(52, 9)
    assert until(meter, lambda values: values[0] == 52)[1] is None


def test_a_plug_without_a_counter_has_one_channel(
    plug: Plug, meter: WallMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENERGY)
    other = WallMeter(ProfilerContext(os.getpid()))
    assert isinstance(other.open(), Available)
    assert [one.name for one in other.channels] == ["wall_power_w"]
    assert until(other, lambda values: values[0] is not None) == [40.5]
    other.close()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        (URL, "", "no wall meter is named"),
        (URL, "file:///etc/passwd", "is no address of the web"),
        (URL, "http://127.0.0.1:9/", "the plug at 127.0.0.1 does not answer"),
        (POWER, "watts", "has no number at 'watts'"),
        (UNIT, "cal", "is 'cal'"),
    ],
)
def test_why_there_is_none(
    plug: Plug, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(variable, value)
    found = WallMeter(ProfilerContext(os.getpid())).open()
    assert isinstance(found, Unavailable)
    assert told in found.reason
    assert found.remedy
