"""Property tests: random at a desk, the same examples every time where a red run blocks others."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="simulated error rates at full length")
    parser.addoption("--update-goldens", action="store_true", help="write tests/data/goldens anew")


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """How often a simulation tries of the number that it wants: a tenth, or with --long all."""
    whole = request.config.getoption("--long")
    return lambda wanted: wanted if whole else wanted // 10
