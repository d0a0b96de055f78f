"""A private PostgreSQL server for tests, from the binaries that Debian installs."""

import os
import pwd
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

from servers.ending import Ending

BINARIES = Path("/usr/lib/postgresql")
USERS = ("postgres", "nobody")
NAME = "pulp"

# Data may be lost with the machine, and only this user's own folder gives access to the server.
SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{folder}'
fsync = off
synchronous_commit = off
full_page_writes = off
"""

END = """
"$2/pg_ctl" stop --pgdata="$1/data" --wait --timeout=50 --mode=immediate
rm -rf "$1"
"""


class PostgreSQL:
    """A cluster in a temporary folder, that listens on a socket in it and nowhere else.

    Where the tests are run by root, it is run by another user: it refuses to be run by root. It
    ends with the process that made it, if it isn't closed before.

    Attributes:
        folder: Where its socket is: the ``host`` to connect to.
        name: Its superuser and an empty database, both of this name; no password.
    """

    def __init__(self) -> None:
        """Start PostgreSQL.

        Raises:
            FileNotFoundError: PostgreSQL isn't installed.
            RuntimeError: It does not start; its log is in the text.
        """
        self.name = NAME
        self._binaries = _binaries()
        user = _user()
        # In the system's own folder for that: a socket's path may have no more than 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._data = self.folder / "data"
        self._options: dict[str, Any] = {"env": {"LC_ALL": "C", "PATH": os.defpath}}
        if user is not None:
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._end = Ending(END, self.folder, self._binaries, cwd="/", **self._options)
        try:
            self._run(
                "initdb", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync",
                f"--username={NAME}", f"--pgdata={self._data}",
            )  # fmt: skip
            with (self._data / "postgresql.conf").open("a") as file:
                file.write(SETTINGS.format(folder=self.folder))
            self._run(
                "pg_ctl", f"--pgdata={self._data}", "start", "--wait", "--timeout=60",
                f"--log={self.folder / 'log'}",
            )  # fmt: skip
            self._run("createdb", f"--host={self.folder}", f"--username={NAME}", NAME)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop PostgreSQL and remove its folder."""
        self._end.run()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _run(self, program: str, *arguments: str) -> None:
        # Not a pipe: the server would inherit it, and its reader would wait for the server's end.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [self._binaries / program, *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                **self._options,
            )
            if done.returncode:
                output.seek(0)
                text = output.read() + self._log()
                raise RuntimeError(f"{program} failed with status {done.returncode}:\n{text}")

    def _log(self) -> str:
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""


def _binaries() -> Path:
    """Return the folder with the programs of the newest version."""
    found = sorted(
        BINARIES.glob("*/bin/initdb"), key=lambda path: [int(n) for n in path.parts[-3].split(".")]
    )
    if not found:
        raise FileNotFoundError(f"no PostgreSQL in {BINARIES}: install the package postgresql")
    return found[-1].parent


def _user() -> pwd.struct_passwd | None:
    """Return the user that runs PostgreSQL; None for the user of the tests."""
    if os.geteuid() != 0:
        return None
    there = {user.pw_name: user for user in pwd.getpwall()}
    return next(there[name] for name in USERS if name in there)
