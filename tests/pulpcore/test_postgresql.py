"""Tests of the private PostgreSQL server that the Pulp tests use."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import program
from servers.postgresql import PostgreSQL

SECONDS = 60
CODE = """
import signal, sys
sys.path.insert(0, sys.argv[1])
from servers.postgresql import PostgreSQL
print(PostgreSQL().folder, flush=True)
signal.pause()
"""


def server_of(folder: Path) -> int:
    """Return the process id of the server in a folder."""
    return int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])


def is_alive(process: int) -> bool:
    """Return whether the process exists and isn't a zombie."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it doesn't end"
        time.sleep(0.01)


def test_closed() -> None:
    """Closing the private PostgreSQL ends its process and removes its folder."""
    with PostgreSQL() as server:
        process = server_of(server.folder)
        assert is_alive(process)
    assert not server.folder.exists()
    # PostgreSQL removes its pid file shortly before it ends.
    until(lambda: not is_alive(process))


def test_killed() -> None:
    """The private PostgreSQL ends and removes its folder also if the test process is killed."""
    with program(CODE, Path(__file__).parents[1] / "support") as starter:
        assert starter.stdout is not None
        folder = Path(starter.stdout.readline().strip())
        process = server_of(folder)
        assert is_alive(process)
        starter.send_signal(signal.SIGKILL)
        starter.wait(SECONDS)
    until(lambda: not folder.exists())
    until(lambda: not is_alive(process))


def test_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the private PostgreSQL can't start, the error has its log and nothing is left behind."""
    monkeypatch.setattr("servers.postgresql.SETTINGS", "bogus = '{folder}'")
    with pytest.raises(RuntimeError, match='configuration parameter "bogus"') as caught:
        PostgreSQL()
    assert "pg_ctl failed" in str(caught.value)
