"""The way to a head: addresses, tokens, and what is said where there is none."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from harness.cli.main import main
from harness.errors import BackendUnavailable, UsageError
from harness.fleet import cluster


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("text", ["", "host", ":1", "host:", "127.0.0.1:0", "127.0.0.1:65536"])
def test_an_address_is_a_host_and_a_port(text: str) -> None:
    with pytest.raises(UsageError, match="give HOST:PORT"):
        cluster.parse_address(text)


def test_a_head_that_is_not_there_is_named() -> None:
    port = cluster.free_port(cluster.LOOPBACK)
    assert not cluster.answers(cluster.LOOPBACK, port)
    with pytest.raises(BackendUnavailable, match=rf"no head answers at 127\.0\.0\.1:{port}"):
        cluster.reach(cluster.LOOPBACK, port)
    with socket.create_server((cluster.LOOPBACK, port)):
        assert cluster.answers(cluster.LOOPBACK, port)


def test_a_head_makes_a_token_for_its_user_alone(home: Path) -> None:
    with pytest.raises(UsageError, match=r"auth_token' cannot be read.*copy ~/\.ray/auth_token"):
        cluster.ensure_token(make=False)
    cluster.ensure_token(make=True)
    path = home / ".ray" / "auth_token"
    token = path.read_text()
    assert len(token) == 64 and path.stat().st_mode & 0o777 == 0o600
    cluster.ensure_token(make=True)
    cluster.ensure_token(make=False)
    assert path.read_text() == token
    path.write_text(" \n")
    with pytest.raises(UsageError, match="is empty"):
        cluster.ensure_token(make=False)


def test_a_token_of_the_environment_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t")
    cluster.ensure_token(make=False)


def test_sockets_get_a_path_that_is_short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    own = f"harness-ray-{os.getuid()}"
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    assert cluster.session_folder() == f"/tmp/{own}"
    assert cluster.session_folder("/tmp/harness-123-abcdefgh") == "/tmp/harness-123-abcdefgh"
    monkeypatch.setattr("tempfile.tempdir", "/very/long/folder/for/temporary/files")
    assert cluster.session_folder("/very/long/folder/for/temporary/files/x") == (
        "/very/long/folder/for/temporary/files/x"
    )
    monkeypatch.setattr("tempfile.tempdir", "/a/much/longer/folder/for/temporary/files/still")
    assert cluster.session_folder("/a/much/longer/folder/for/temporary/files/x") == f"/tmp/{own}"


@pytest.mark.parametrize(
    ("host", "is_so"),
    [("127.0.0.1", True), ("127.0.0.2", True), ("localhost", True), ("10.0.0.5", False)],
)
def test_loopback_is_known(host: str, is_so: bool) -> None:
    assert cluster.is_loopback(host) is is_so


@pytest.mark.parametrize(
    "args", [["head"], ["join", "127.0.0.1:1"], ["status"], ["run", "nightly.toml", "--local", "1"]]
)
def test_without_ray_one_line_says_how_to_get_it(
    args: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nightly.toml").write_text("[[include]]\nbatch_size = 1")
    assert main(["fleet", *args]) == 2
    assert capsys.readouterr().err == (
        "harness: a fleet runs on Ray, which is not installed; pip install 'hw-harness[fleet]'\n"
    )
    assert not (tmp_path / "results").exists()


def test_a_night_that_is_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fleet", "report"]) == 2
    assert "'results' holds no night of a fleet" in capsys.readouterr().err
    assert main(["fleet", "cancel", "nightly-x"]) == 2
    assert "'nightly-x' is no night of a fleet" in capsys.readouterr().err
