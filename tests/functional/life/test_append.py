"""Tests of downloads to a file that was opened for appending, as by a shell's ``>>``."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from servers.raw import Recv, Send, reply

OLD = b"what was there before\n"
CONTENT = b"content " * 1000


@pytest.mark.parametrize("comes", [True, False])
def test_appended_by_a_shell(raw_server: Any, tmp_path: Path, comes: bool) -> None:
    """A download that appends to a file keeps its old content through retries and failures.

    The position of such a file is 0 until something is written, because the system writes at the
    end.
    """
    whole = reply(body=CONTENT)
    broken = [Recv(), Send(whole[:-1000])]
    server = raw_server([broken, [Recv(), Send(whole)]] if comes else lambda _: broken)
    path = tmp_path / "log"
    path.write_bytes(OLD)
    with path.open("ab") as stdout:
        stdout.seek(0)
        done = subprocess.run(
            [
                *(sys.executable, "-c", "import pulp_futures; pulp_futures.main()"),
                *("get", server.url("/a"), "-o", "-"),
                *(() if comes else ("--total-timeout", "1")),
            ],
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
    assert done.returncode == (0 if comes else 1), done.stderr
    assert path.read_bytes() == OLD + (CONTENT if comes else b"")
