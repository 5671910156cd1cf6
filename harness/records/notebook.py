"""How a record shows itself in a notebook: by whoever knows how, which stands above the records.

`harness.views.notebook` puts its functions here when it is imported; `harness.run`, `harness.read`
and `harness.compare` import it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RENDERERS: dict[type, Callable[[Any], str]] = {}


def html(record: Any) -> str | None:
    """Markup of ``record``; None where nobody knows how, and the notebook shows its text."""
    render = RENDERERS.get(type(record))
    return None if render is None else render(record)
