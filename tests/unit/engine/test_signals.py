"""Signals that come to a driver: before anything is measured, and from then on."""

from __future__ import annotations

import os
import signal

import pytest

from harness.engine.driver.signals import Interrupt, interruptible

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", ALL)
def test_before_anything_is_measured_it_just_ends(number: int) -> None:
    interrupt = Interrupt()
    with interruptible(interrupt), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert interrupt.requested


def test_from_then_on_no_signal_raises_however_many_come() -> None:
    interrupt = Interrupt()
    with interruptible(interrupt):
        interrupt.measuring = True
        for number in ALL * 3:
            os.kill(os.getpid(), number)
        assert interrupt.requested


def test_afterwards_all_is_as_before_and_nohup_stays() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible(Interrupt()):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
