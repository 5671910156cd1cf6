"""Device time by events: a pair around each inference, made beforehand and read afterwards.

arm(n)      n pairs of events, each recorded once, since most runtimes create them only then
enqueue     record(start) | the work | record(end)      on the session's own stream
times_ms    when the device has caught up: end - start of every pair that was used
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

E = TypeVar("E")


class EventTimer(Generic[E]):
    """``make`` creates an event, ``record`` puts one into the stream, ``elapsed_ms`` reads two.

    ``release`` gives one back where the runtime does not do so itself.
    """

    def __init__(
        self,
        make: Callable[[], E],
        record: Callable[[E], object],
        elapsed_ms: Callable[[E, E], float],
        release: Callable[[E], object] | None = None,
    ) -> None:
        self._make = make
        self._record = record
        self._elapsed_ms = elapsed_ms
        self._release = release
        self._pairs: list[tuple[E, E]] = []
        self._left: Iterator[tuple[E, E]] = iter(())

    def arm(self, count: int) -> None:
        """Make ``count`` pairs, each recorded once; those of before are let go."""
        if self._release is not None:
            for pair in self._pairs:
                for event in pair:
                    self._release(event)
        self._pairs = [(self._make(), self._make()) for _ in range(count)]
        for start, end in self._pairs:
            self._record(start)
            self._record(end)
        self._left = iter(self._pairs)

    def timed(self, run: Callable[[], Any]) -> Callable[[], None]:
        """``run`` between two events while there are some left, alone after that."""
        left, record = self._left, self._record

        def enqueue() -> None:
            pair = next(left, None)
            if pair is None:
                run()
                return
            record(pair[0])
            run()
            record(pair[1])

        return enqueue

    def times_ms(self) -> NDArray[np.float64]:
        """One a pair that was used, in order. The device must have done with them."""
        import numpy as np

        used = len(self._pairs) - operator.length_hint(self._left)
        return np.array([self._elapsed_ms(*pair) for pair in self._pairs[:used]], dtype=np.float64)
