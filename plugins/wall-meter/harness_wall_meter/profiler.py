"""Reads watts, and joules where the plug counts them, from a JSON document behind an address.

A plug takes tens of milliseconds to answer and may take seconds, while the sampler reads every
channel ten times a second. So a thread asks, and `read` hands out what has come: each answer once.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from harness.maybe import Unavailable
from harness.protocols import Available, Channel, ProfilerContext

URL = "HARNESS_WALL_METER"
POWER = "HARNESS_WALL_METER_POWER"
ENERGY = "HARNESS_WALL_METER_ENERGY"
UNIT = "HARNESS_WALL_METER_ENERGY_UNIT"
_JOULES = {"j": 1.0, "wh": 3600.0, "kwh": 3.6e6}
_TIMEOUT_S = 2.0
_PAUSE_S = 0.2  # between two questions: a plug is a small computer
_LIMIT_BYTES = 1 << 20
_FAILURES = (OSError, URLError, ValueError, http.client.HTTPException)


class Reading(NamedTuple):
    power_w: float | None
    energy_j: float | None  # as the plug counts


class WallMeter:
    """One plug."""

    name = "wall-meter"

    def __init__(self, context: ProfilerContext) -> None:
        self._url = os.environ.get(URL, "")
        self._power = os.environ.get(POWER, "power")
        self._energy = os.environ.get(ENERGY, "")
        self._unit = os.environ.get(UNIT, "j").lower()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._news: Reading | None = None
        self._first_j: float | None = None
        self._last_j = 0.0
        self._broken = False
        self._channels: tuple[Channel, ...] = ()

    def open(self) -> Available | Unavailable:
        if not self._url:
            return Unavailable("no wall meter is named", f"set {URL} to the plug's address")
        parts = urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return Unavailable(f"{URL} is no address of the web", "give http://PLUG/PATH")
        if self._unit not in _JOULES:
            return Unavailable(f"{UNIT} is {self._unit!r}", "give j, wh or kwh")
        try:
            first = self._ask()
        except _FAILURES as error:
            return Unavailable(
                f"the plug at {parts.hostname} does not answer: {error}", f"check {URL}"
            )
        if first.power_w is None:
            return Unavailable(
                f"the answer of {parts.hostname} has no number at {self._power!r}",
                f"set {POWER} to where the watts stand, such as meters.0.power",
            )
        self._first_j = first.energy_j
        self._channels = self._named(parts.hostname)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return Available({"host": parts.hostname, "power_w": f"{first.power_w:g}"})

    def _named(self, host: str) -> tuple[Channel, ...]:
        source = f"HTTP, {host}"
        power = Channel(
            "wall_power_w", "W", "gauge", "wall/power_w", "wall", source, _PAUSE_S, meter="wall"
        )
        if self._first_j is None:
            return (power,)
        energy = Channel(
            "wall_energy_j", "J", "counter", "wall/energy_j", "wall", source, _PAUSE_S, meter="wall"
        )
        return (power, energy)

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def read(self) -> Sequence[float | None]:
        """The newest answer, once; None until there is another."""
        news, self._news = self._news, None
        values = [None if news is None else news.power_w]
        if len(self._channels) > 1:
            values.append(None if news is None else self._counted(news.energy_j))
        return values[: len(self._channels)]

    def _counted(self, energy_j: float | None) -> float | None:
        """Joules since it was opened. A counter that went back is of no use from then on."""
        if energy_j is None or self._first_j is None or self._broken:
            return None
        since = energy_j - self._first_j
        if since < self._last_j:
            self._broken = True
            return None
        self._last_j = since
        return since

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_TIMEOUT_S + 1)
            self._thread = None

    def _follow(self) -> None:
        while not self._stop.wait(_PAUSE_S):
            try:
                self._news = self._ask()
            except _FAILURES:
                continue  # a missing reading; the next may come

    def _ask(self) -> Reading:
        """What the plug says now. Raises one of `_FAILURES`."""
        request = Request(self._url, headers={"Accept": "application/json"})
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # http or https: `open` has looked
            document = json.loads(answer.read(_LIMIT_BYTES))
        energy = _number(document, self._energy) if self._energy else None
        joules = None if energy is None else energy * _JOULES[self._unit]
        return Reading(_number(document, self._power), joules)


def _number(document: Any, path: str) -> float | None:
    """The number that ``path`` (``meters.0.power``) leads to; None where it leads to none."""
    for step in path.split("."):
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isdecimal() and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    if isinstance(document, bool) or not isinstance(document, int | float | str):
        return None
    try:
        value = float(document)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
