"""Processes that tests start: forked children, and programs that import the library."""

import contextlib
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[2] / "src"
SECONDS = 30  # far more than anything here takes: it only ends a test that hangs


def forked(work: Callable[[], object]) -> int:
    """Fork, and run work in the child.

    Returns:
        0, 1 if the work raised something, or -14 (SIGALRM) if the child hung.
    """
    with warnings.catch_warnings():
        # Python 3.12 and later warn of forking with threads, which is tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - it mustn't get into the parent's code
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextlib.contextmanager
def program(
    code: str, *arguments: object, wrapper: tuple[str, ...] = (), **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Run Python code that can import the library in a new process, which is killed at the end.

    Args:
        code: The code to run.
        arguments: The arguments in its ``sys.argv``.
        wrapper: A command that runs the interpreter.
        options: Further options for ``Popen``.
    """
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [*wrapper, sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        **options,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Have only the rights of an ordinary user within the ``with``, even if root runs the tests.

    Args:
        folder: A folder that this user must be able to enter but not to change.
    """
    if os.geteuid() != 0:
        yield
        return
    with contextlib.ExitStack() as stack:
        # Other users can't enter the folders that pytest creates above this one.
        for above in (folder, *folder.parents):
            mode = above.stat().st_mode & 0o7777
            stack.callback(above.chmod, mode)
            above.chmod(mode | 0o005)
        os.seteuid(65534)
        stack.callback(os.seteuid, 0)
        yield
