"""Runs downloads for both commands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from pulpcore.plugin.download.futures import Batch, Download, DownloadError, Limits
from pulpcore.plugin.download.futures.batch import BACKLOG, Plan

from . import shown


def transfer(
    downloads: Iterable[Download],
    concurrent: int,
    done: Callable[[Download, str | None], None],
    limits: Limits | None = None,
    processes: int = 1,
    backlog: int | None = None,
) -> None:
    """Run downloads, and report each one when it has ended.

    An exception, such as that of a signal, cancels all of them and leaves no partial file.

    Args:
        downloads: The downloads.
        concurrent: The number of parallel downloads.
        done: Called in this thread with each download, and with the reason of its failure or None.
        limits: The limits that the downloads share.
        processes: The number of processes that run the downloads. With 1 it is this one.
        backlog: The most downloads that have begun and were not reported, but for as many as run at
            a time; None for the library's choice.
    """
    with contextlib.ExitStack() as stack:
        executor: Executor | None = None
        if backlog is not None:
            backlog = max(backlog, concurrent * processes)
        elif processes == 1:
            backlog = max(BACKLOG, concurrent)
        if processes > 1:
            from pulpcore.plugin.download.futures.pool.executors import (  # noqa: PLC0415 - slow to load
                Renewed,
            )

            executor = stack.enter_context(Renewed(processes))
        batch = Batch(downloads, concurrent, backlog, executor=executor, limits=limits)
        for plan in stack.enter_context(batch)():
            done(plan.download, _failure(plan))


def _failure(plan: Plan) -> str | None:
    try:
        plan.result()
    except DownloadError as error:
        return shown.hint(str(error))
    except Exception as error:  # noqa: BLE001 - a bug in one download must not lose the others
        # The text of the exception may contain a secret.
        return f"internal error ({type(error).__name__}), please report it"
    return None
