"""A backend whose vendor library is not there."""

import libtally_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401


class BrokenBackend:
    name = "tally-broken"
