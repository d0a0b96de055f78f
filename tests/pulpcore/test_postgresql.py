"""The PostgreSQL that the tests here stand on."""

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
    """The process id of the server in a folder."""
    return int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])


def is_alive(process: int) -> bool:
    """Whether there is such a process, and not only what is left of it until it is reaped."""
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
    """A server that was closed has ended, and its folder is gone."""
    with PostgreSQL() as server:
        process = server_of(server.folder)
        assert is_alive(process)
    assert not server.folder.exists()
    # It takes its file away a moment before it ends.
    until(lambda: not is_alive(process))


def test_killed() -> None:
    """A server ends with whoever started it, and leaves nothing, also when that is killed."""
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
    """Where it doesn't start its own words say why, and nothing of it is left."""
    monkeypatch.setattr("servers.postgresql.SETTINGS", "bogus = '{folder}'")
    with pytest.raises(RuntimeError, match='configuration parameter "bogus"') as caught:
        PostgreSQL()
    assert "pg_ctl failed" in str(caught.value)
