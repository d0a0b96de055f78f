"""What is done at the end of the process that runs the tests, also when it is killed."""

import subprocess
from typing import Any

SECONDS = 60


class Ending:
    """A command of the shell that is run when it is told to, or when this process ends.

    It waits for the end of a pipe that nobody else has: the system closes that, however this
    process ends, kill -9 included.
    """

    def __init__(self, command: str, *arguments: object, **options: Any) -> None:
        """Have a shell wait.

        Args:
            command: For ``sh``; ``$1`` and so on are the arguments.
            arguments: Its arguments.
            options: More for ``Popen``.
        """
        # A session of its own: Ctrl-C is not for it.
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", f"cat\n{command}", "sh", *map(str, arguments)],
            stdin=subprocess.PIPE,
            start_new_session=True,
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options},
        )

    def run(self) -> None:
        """Run the command now, if it wasn't run yet, and wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: It doesn't end.
        """
        self._process.stdin.close()
        self._process.wait(SECONDS)
