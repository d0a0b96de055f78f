"""Commands that run when the process of the tests ends, even if it is killed."""

import subprocess
from typing import Any

SECONDS = 60


class Ending:
    """A shell command that runs on request, or when this process ends.

    The shell waits for the end of a pipe that only this process holds. The system closes it
    however this process ends, even by kill -9.
    """

    def __init__(self, command: str, *arguments: object, **options: Any) -> None:
        """Start the waiting shell.

        Args:
            command: For ``sh``; ``$1`` and so on are the arguments.
            arguments: Its arguments.
            options: Further options for ``Popen``.
        """
        # A session of its own, so that Ctrl-C doesn't reach it.
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", f"cat\n{command}", "sh", *map(str, arguments)],
            stdin=subprocess.PIPE,
            start_new_session=True,
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options},
        )

    def run(self) -> None:
        """Run the command now unless it has run already, and wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: It doesn't end.
        """
        self._process.stdin.close()
        self._process.wait(SECONDS)
