"""`offhook serve`: what it says when it cannot start."""

import logging
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from offhook.cli import serve

app = typer.Typer()
serve.register(app)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """`serve` sets the process's logging; the tests after this one have the same process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def config(folder: Path, *, http: str = "", sip: str) -> Path:
    path = folder / "offhook.toml"
    path.write_text(
        f"""[server]
http = "{http}"
https = ""
data_dir = "{folder}/data"
[sip]
listen = ["{sip}"]
[engine]
kind = "scripted"
"""
    )
    return path


@pytest.mark.parametrize("which", ["http", "sip"])
def test_a_port_that_is_taken_is_said_with_the_remedy(tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        address = f"127.0.0.1:{port}"
        path = (
            config(tmp_path, http=address, sip="udp:127.0.0.1:0")
            if which == "http"
            else config(tmp_path, sip=f"tcp:{address}")
        )
        result = CliRunner().invoke(app, ["--config", str(path), "--log-level", "ERROR"])
    assert result.exit_code == 1
    assert str(port) in result.stderr
    assert "Another program has this port" in result.stderr
    assert "sip.listen" in result.stderr


def test_a_folder_that_cannot_be_made_is_not_taken_for_a_port(tmp_path: Path) -> None:
    path = config(tmp_path, sip="udp:127.0.0.1:0")
    (tmp_path / "data").write_text("no folder")
    result = CliRunner().invoke(app, ["--config", str(path), "--log-level", "ERROR"])
    assert result.exit_code == 1
    assert "data_dir" in result.stderr
    assert "port" not in result.stderr


def test_a_log_file_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    path = config(tmp_path, sip="udp:127.0.0.1:0")
    result = CliRunner().invoke(app, ["--config", str(path), "--log-file", str(tmp_path / "none" / "log")])
    assert result.exit_code == 2
    assert "--log-file" in result.stderr
    assert "No such file or directory" in result.stderr
    assert "Traceback" not in result.output


def test_an_address_for_sound_that_is_not_ours_is_found_at_the_start_and_not_by_the_first_call(
    tmp_path: Path,
) -> None:
    path = config(tmp_path, sip="udp:127.0.0.1:0")
    path.write_text(path.read_text() + '[media]\nbind = "192.0.2.1"\n')
    result = CliRunner().invoke(app, ["--config", str(path), "--log-level", "ERROR"])
    assert result.exit_code == 1
    assert "media.bind = '192.0.2.1'" in result.stderr
    assert "This machine does not have that address" in result.stderr


def test_threads_give_way_to_the_loop_whether_or_not_there_is_a_database(tmp_path: Path) -> None:
    """Pages are written in threads: Python's own 5 ms between two packets would be heard."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            path = config(tmp_path, sip=f"tcp:127.0.0.1:{taken.getsockname()[1]}")
            path.write_text(path.read_text().replace("[server]", '[server]\ndatabase = "none"'))
            assert CliRunner().invoke(app, ["--config", str(path), "--log-level", "ERROR"]).exit_code == 1
        assert sys.getswitchinterval() <= 0.001
    finally:
        sys.setswitchinterval(before)
