"""``harness board``: what it says when it cannot, how it ends, and what it serves."""

from __future__ import annotations

import json
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from boards import import_models, served
from running import Harness
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext

from harness.board.source import Source


def test_a_folder_that_is_not_there_costs_one_line(harness: Harness) -> None:
    ran = harness("board")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1 and "there is no folder 'results'" in ran.err


def test_a_file_is_no_folder(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    ran = harness("board", "--logdir", "file")
    assert ran.code == 2 and ran.err.count("\n") == 1 and "'file' is a file" in ran.err


def test_a_port_in_use_is_said_with_one_that_is_free(harness: Harness, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = harness("board", "--logdir", str(tmp_path), "--port", str(port))
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert f"port {port} on 127.0.0.1 is in use" in line and "--port" in line.split(";")[1]


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])
def test_an_address_of_elsewhere_is_one_line(harness: Harness, tmp_path: Path, host: str) -> None:
    ran = harness("board", "--logdir", str(tmp_path), "--port", "0", "--host", host)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert f"cannot listen on {host} port 0" in line


def test_a_missing_tensorboard_is_one_line_with_the_pip_command(
    harness: Harness, tmp_path: Path
) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "tensorboard.py").write_text("raise ImportError('no tensorboard')")
    ran = harness("board", "--logdir", str(tmp_path), path=[tmp_path / "blocked"])
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert "pip install 'hw-harness[board]'" in line


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_end(tmp_path: Path, ending: signal.Signals) -> None:
    logdir = tmp_path / "results"
    import_models(logdir, 2, tmp_path)
    with served(logdir) as board:
        address = f"{board.url}data/plugin/compression/board"
        with urllib.request.urlopen(address, timeout=300) as answer:
            told = json.load(answer)
        # a page whose name was made to point here, and a request that would change something
        for code, asked in (
            (403, urllib.request.Request(address, headers={"Host": "evil.example"})),
            (405, urllib.request.Request(address, method="POST")),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(asked, timeout=300)
            with refused.value as told_no:
                assert told_no.code == code
        board.process.send_signal(ending)
        code = board.process.wait(timeout=600)
    assert code == (0 if ending == signal.SIGINT else -signal.SIGTERM)
    assert len(told["board"]["entries"]) in (0, 4)  # the first look at the files may be under way


def test_the_fast_loader_tells_what_the_slow_one_does(tmp_path: Path) -> None:
    logdir = tmp_path / "results"
    import_models(logdir, 2, tmp_path)
    multiplexer = EventMultiplexer(tensor_size_guidance={"histograms": 1, "text": 1})
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    slow = Source(MultiplexerDataProvider(multiplexer, str(logdir)))
    expected = json.loads(slow.json(RequestContext(), "")[1])["board"]
    with served(logdir) as board:
        for _ in range(50):
            with urllib.request.urlopen(f"{board.url}data/plugin/compression/board") as answer:
                found = json.load(answer)["board"]
            if len(found["entries"]) == 4:
                break
    assert len(expected["entries"]) == 4 and found == expected
