"""Ray's processes on this machine: a head, nodes that join it, and the way to it.

They are started as `ray.cluster_utils` does it, by `ray._private.node.Node`, and not by ``ray
start``: that listens on every interface even where it is told 127.0.0.1, and adds an autoscaler and
a server for remote clients that nobody here needs. The kernel ends them with their starter.

Everybody who speaks to the cluster shows a token (Ray's own authentication): that of
``RAY_AUTH_TOKEN`` or ``RAY_AUTH_TOKEN_PATH``, else ``~/.ray/auth_token``, which a head makes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.errors import BackendUnavailable, UsageError, one_line
from harness.host.extras import extra_for

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 6379
_OBJECT_STORE_BYTES = 256 << 20
_REACH_S = 5.0
_LONGEST_FOLDER = 41  # characters
# Before Ray is imported. A measured process inherits what Ray sets for its workers: that they are
# nice, and the first to be killed when memory runs out.
_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_worker_oom_score_adjustment": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_gcs_server_request_timeout_seconds": "10",
    "RAY_DEDUP_LOGS": "0",
}


def require() -> None:
    """Raises `UsageError` where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        extra = extra_for("ray") or "fleet"
        raise UsageError(
            "a fleet runs on Ray, which is not installed", f"pip install 'hw-harness[{extra}]'"
        )


def ray_for(host: str) -> Any:
    """The module ``ray``, set up to speak to a head at ``host``. Raises `UsageError`."""
    require()
    os.environ.update({k: v for k, v in _SETTINGS.items() if k not in os.environ})
    if is_loopback(host):  # by its name for other systems: to say 127.0.0.1 and to mean it
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def ensure_token(*, make: bool) -> None:
    """Have a token to show; a new one in ``~/.ray/auth_token`` where there is none and ``make``.

    Raises `UsageError`.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not path.exists() and make:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
    try:
        if path.read_text().strip():
            return
        why = "is empty"
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    raise UsageError(
        f"the fleet's token {str(path)!r} {why}",
        "copy ~/.ray/auth_token from the head, or set RAY_AUTH_TOKEN",
    )


def private_token() -> None:
    """A token for this process and its children alone, for a cluster that ends with it."""
    os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT``. Raises `UsageError`."""
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65_536):
        raise UsageError(f"the head's address is {text!r:.80}", "give HOST:PORT")
    try:
        return socket.gethostbyname(host.strip("[]")), int(port)
    except OSError as error:
        raise UsageError(f"the head's host {host!r} is not known: {error}", "check it") from error


def reach(host: str, port: int) -> None:
    """Raises `BackendUnavailable` where nobody listens there."""
    try:
        socket.create_connection((host, port), timeout=_REACH_S).close()
    except OSError as error:
        raise BackendUnavailable(
            f"no head answers at {host}:{port}: {error.strerror or error}",
            f"start one there: harness fleet head --port {port}",
        ) from error


def answers(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(BackendUnavailable):
        reach(host, port)
        return True
    return False


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def start(
    host: str,
    port: int,
    *,
    head: bool,
    own: str | None = None,
    labels: Mapping[str, str],
    resources: Mapping[str, float],
    variables: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> Any:
    """Ray's processes of one node of the cluster at ``host``; a head measures nothing itself.

    ``own``: this node's address. ``folder``: a head's, for logs and sockets.

    Raises `BackendUnavailable` where they do not start.
    """
    ray_for(host)
    parameter, node = import_module("ray._private.parameter"), import_module("ray._private.node")
    where: dict[str, Any] = {"gcs_server_port": port} if head else {"gcs_address": f"{host}:{port}"}
    params = parameter.RayParams(
        node_ip_address=own or host,
        node_manager_port=0,
        object_manager_port=0,
        min_worker_port=0,
        max_worker_port=0,
        num_cpus=0,
        num_gpus=0,
        resources=dict(resources),
        labels=dict(labels),
        include_dashboard=False,
        include_log_monitor=False,
        no_monitor=True,
        dashboard_agent_listen_port=0,
        object_store_memory=_OBJECT_STORE_BYTES,
        temp_dir=(folder or session_folder()) if head else None,
        env_vars=dict(variables or {}),
        **where,
    )
    with mapped(host, port):
        return node.Node(params, head=head, shutdown_at_exit=True, spawn_reaper=True)


def session_folder(own: str = "") -> str:
    """For Ray's logs and sockets: ``own``, if the path of a socket there is short enough.

    It has 107 characters at most, of which Ray takes 65.
    """
    base = tempfile.gettempdir()
    if own and len(own) <= _LONGEST_FOLDER:
        return own
    name = f"harness-ray-{os.getuid()}"
    return f"{base if len(base) + len(name) < _LONGEST_FOLDER else '/tmp'}/{name}"


def connect(host: str, port: int) -> Any:
    """The module ``ray``, connected to the cluster. Raises `BackendUnavailable`."""
    reach(host, port)
    ray = ray_for(host)
    with mapped(host, port):
        ray.init(
            address=f"{host}:{port}",
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            configure_logging=False,
            namespace="harness",
        )
    # what Ray has to say of nodes that die is said by the driver, in its own words
    worker: Any = import_module("ray._private.worker")
    worker.print_to_stdstream = _unsaid
    return ray


def _unsaid(*_: Any, **__: Any) -> None:
    pass


@contextlib.contextmanager
def mapped(host: str, port: int) -> Iterator[None]:
    """Maps what Ray raises while it starts or connects to one line.

    Its C++ part says the cause on stderr alone, so that is held back and read.
    """
    with _held_back() as said:
        try:
            yield
            return
        except Exception as error:
            raised = error
    text = one_line(raised, 300)
    remedy = f"is {host}:{port} a head of the same version? see docs/fleet.md"
    if "InvalidAuthToken" in said[0] + text or "token" in text.lower():
        text = "it does not take our token"
        remedy = "copy ~/.ray/auth_token from the head, or set RAY_AUTH_TOKEN"
    raise BackendUnavailable(f"Ray at {host}:{port}: {text}", remedy) from raised


@contextlib.contextmanager
def _held_back() -> Iterator[list[str]]:
    """What is written to the descriptor of stderr until the end, which nobody sees."""
    said = [""]
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said[0] = file.read().decode(errors="replace")
