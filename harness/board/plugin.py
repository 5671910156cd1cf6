"""TensorBoard's COMPRESSION tab: the board as JSON, and the files of its page.

TensorBoard loads this module by the entry point ``compression`` of the group
``tensorboard_plugins``. Whatever is wrong with Harness must cost this tab alone, so `Loader` is
importable with TensorBoard and nothing else, and a failure to load is a line in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tensorboard import context, plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from tensorboard.util import tb_logging
from werkzeug import wrappers

if TYPE_CHECKING:
    from harness.board.source import Source

NAME, TAB = "compression", "COMPRESSION"
_LOG = tb_logging.get_logger()
_App = Callable[..., Any]


class Loader(base_plugin.TBLoader):
    """Makes the plug-in, or says in TensorBoard's log why there is none."""

    def load(  # pyright: ignore[reportIncompatibleMethodOverride]  (its base declares no type)
        self, context: base_plugin.TBContext
    ) -> CompressionPlugin | None:
        try:
            from harness.board.assets import assets
            from harness.board.source import Source

            if context.data_provider is None:
                raise RuntimeError("TensorBoard offers no data provider")
            return CompressionPlugin(Source(context.data_provider, context.logdir), assets())
        except Exception as error:
            _LOG.warning("the COMPRESSION tab is not available: %s", error)
            return None


class CompressionPlugin(base_plugin.TBPlugin):
    """Serves ``/board`` and the static files beside it."""

    plugin_name = NAME

    def __init__(self, source: Source, files: Mapping[str, tuple[str, bytes]]) -> None:
        """``files``: name -> content type and content, `harness.board.assets.assets`."""
        self._source = source
        self._files = files
        self._active = False

    def get_plugin_apps(self) -> dict[str, _App]:
        static = {f"/{name}": _static(*file) for name, file in self._files.items()}
        return {"/board": wrappers.Request.application(self._serve_board), **static}

    def is_active(self) -> bool:
        """Whether there is anything to show. Asked often; once yes, it stays so."""
        self._active = self._active or self._source.has_data(context.RequestContext(), "")
        return self._active

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name=TAB)

    def _serve_board(self, request: wrappers.Request) -> wrappers.Response:
        """All of it, or the token alone where ``?token=`` says that the page has it already.

        No ETag: werkzeug strips the content type of a 304, about which TensorBoard complains.
        """
        token, content = self._source.json(
            plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)
        )
        if request.args.get("token") == token:
            content = f'{{"token": "{token}"}}'.encode()
        return _respond(request, content, "application/json")


def _static(kind: str, content: bytes) -> _App:
    @wrappers.Request.application
    def serve(request: wrappers.Request) -> wrappers.Response:
        return _respond(request, content, kind)

    return serve


def _respond(request: wrappers.Request, content: bytes, kind: str) -> wrappers.Response:
    if request.method not in ("GET", "HEAD"):  # nothing here is changed by asking
        return wrappers.Response("", status=405, headers={"Allow": "GET, HEAD"})
    response: wrappers.Response = http_util.Respond(request, content, kind)
    return response
