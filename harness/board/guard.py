"""Who may read the board: pages that were asked for by an address of this machine.

A page from elsewhere cannot read another site, but its name may begin to point to 127.0.0.1 (DNS
rebinding), and then this is its own site. The browser still says by which name it asks.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_FORBIDDEN = b"This name is none of the board's: ask by the address that it printed.\n"


def only_by_own_name(app: Wsgi, host: str) -> Wsgi:
    """``app``, which refuses (403) requests for a host that is not served by ``host``."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if is_own_name(environ.get("HTTP_HOST", ""), host):
            return app(environ, start_response)
        length = str(len(_FORBIDDEN))
        headers = [("Content-Type", "text/plain"), ("Content-Length", length)]
        start_response("403 Forbidden", headers)
        return [_FORBIDDEN]

    return guarded


def is_own_name(asked: str, host: str) -> bool:
    """Whether ``asked``, a name or an address, perhaps with a port, means a server on ``host``.

    Loopback always is. Where ``host`` stands for all addresses, any address is, and this machine's
    name: an address cannot be made to point elsewhere.
    """
    try:
        name = (urlsplit(f"//{asked}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name in ("localhost", host.lower()):
        return True
    address, bound = _address(name), _address(host)
    everywhere = bound is not None and bound.is_unspecified
    if address is None:
        return everywhere and name == socket.gethostname().lower()
    return address.is_loopback or everywhere


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
