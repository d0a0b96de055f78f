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
SECONDS = 30  # far more than anything here takes: it only ends what hangs


def forked(work: Callable[[], object]) -> int:
    """Fork, and do work in the child.

    Returns:
        0, 1 if the work raised something, or -14 (SIGALRM) if the child hung.
    """
    with warnings.catch_warnings():
        # Python 3.12 and later warn of the very thing that is tested here.
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
    """Python code in a process of its own, which can import the library; killed at the end.

    Args:
        code: What is run.
        arguments: What is in its ``sys.argv``.
        wrapper: A command that is to run the interpreter.
        options: More for ``Popen``.
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
    """The rights of an ordinary user within the ``with``, also where the tests are run by root.

    Args:
        folder: What that user must be able to get into, but not to change.
    """
    if os.geteuid() != 0:
        yield
        return
    with contextlib.ExitStack() as stack:
        # pytest's own folders above can't be entered by others.
        for above in (folder, *folder.parents):
            mode = above.stat().st_mode & 0o7777
            stack.callback(above.chmod, mode)
            above.chmod(mode | 0o005)
        os.seteuid(65534)
        stack.callback(os.seteuid, 0)
        yield
