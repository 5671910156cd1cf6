"""Have a training tell a chat, or any other webhook, when something goes wrong.

    python examples/alert_webhook.py https://hooks.example.org/... [--logdir results]

`notify` is all there is to it: a callback that `TrainingLogger` calls with each alert. It posts
JSON with a field ``text``, which Slack, Mattermost and Discord's Slack endpoint take, from a
thread, so that no training waits for a network. The training here has a loss that breaks at step 3.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import urllib.request
from collections.abc import Callable

from harness.training import Alert, TrainingLogger

TIMEOUT_S = 10


def notify(url: str) -> Callable[[Alert], None]:
    """A callback for ``on_alert``. What goes wrong while posting is a line on stderr."""

    def post(text: str) -> None:
        request = urllib.request.Request(
            url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
        )
        try:
            urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
        except OSError as error:
            print(f"not delivered: {error}", file=sys.stderr)

    def told(alert: Alert) -> None:
        text = f"step {alert.step}: {alert.message}"
        threading.Thread(target=post, args=(text,)).start()

    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("url")
    parser.add_argument("--logdir", default="results")
    asked = parser.parse_args()
    with TrainingLogger("example", asked.logdir, on_alert=notify(asked.url)) as logger:
        for step in range(5):
            loss = 1.0 / (step + 1) if step < 3 else float("nan")
            logger.log_metrics({"loss": loss}, step=step)


if __name__ == "__main__":
    main()
