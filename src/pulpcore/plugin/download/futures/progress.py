"""The progress of one or many downloads, in bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from .engine.attempt import record_of
from .engine.spec import Traveller
from .event import Event, Fetched
from .waiting.atomic import Cell

if TYPE_CHECKING:
    from .download import Download
    from .engine.attempt import Record
    from .engine.run import Wait


class ProgressMonitor:
    """Counts the completed and the total bytes of downloads. Thread-safe.

    ``completed`` is never larger than ``total``. It decreases when a download restarts or fails.
    Resumed bytes count once.

    ``total`` is the sum of the sizes of the downloads that are watched. The monitor takes a size
    from a :class:`.SizeValidation` (the factory adds one for ``artifact.size``) or from the reply
    (Content-Length). ``total`` is None while a download of unknown size runs. If you pass ``total``
    to the constructor, it changes only by the difference between the expected and the actual size
    of a file. A failed download no longer counts.
    """

    def __init__(
        self, show: Callable[[int, int | None], object] | None = None, total: int | None = None
    ) -> None:
        """Start at 0 bytes. Add downloads with :meth:`watch`.

        Args:
            show: Called with ``completed`` and ``total`` after they have changed, and when a
                download begins to wait, in the thread of a download (with worker processes in a
                thread of the batch). Only one thread calls it at a time, with never older figures
                than before. The last call has the final figures.
            total: The size of all files (bytes), if it is known in advance.
        """
        self._show = show
        self._sums = Cell(_Sums(0, total or 0, 0, 0))
        self._is_given = total is not None
        self._is_changed = False
        # The downloads that run, by their meters.
        self._running: dict[_Meter, Record] = {}
        # Works as a lock: the call of refresh() that shows the figures has put its object here.
        self._showing: dict[None, object] = {}

    @property
    def figures(self) -> tuple[int, int | None]:
        """``completed`` and ``total`` of the same moment."""
        completed, total, known, unknown = self._sums.value
        if not self._is_given and (unknown or not known):
            return completed, None
        # More may be fetched than the caller's total says, or by add().
        return completed, max(total, completed)

    @property
    def completed(self) -> int:
        """The number of bytes fetched so far."""
        return self.figures[0]

    @property
    def total(self) -> int | None:
        """The size of all files (bytes); None while it is unknown."""
        return self.figures[1]

    @property
    def waiting(self) -> str:
        """What the downloads wait for.

        An example is ``waiting 12 s: the server asked for it (status 503)``. It is empty while one
        of them gets on, or none runs. If they wait for different things, it is the wait that ends
        first. Reasons are Retry-After, a back-off, a limit, and a server that admits no more
        connections. ``waiting: the limit of bytes in flight`` ends when you take plans back.
        ``checking the file that is there`` is said for ``skip_existing``. What worker processes
        wait for is known some seconds later.
        """
        wait = self.wait
        return "" if wait is None else str(wait)

    @property
    def wait(self) -> Wait | None:
        """What ``waiting`` says, as an object; None for nothing."""
        waits = []
        for record in self._running.copy().values():
            if (wait := record.wait) is None:
                return None
            waits.append(wait)
        return min(waits, key=lambda wait: wait.left, default=None)

    def watch(self, download: Download) -> None:
        """Include a download in the figures.

        Args:
            download: The download. It must not have been started.
        """
        meter = _Meter(self._change, self._is_given, self._running)
        record_of(download).watchers += (partial(self._show_wait, meter),)
        download.register(Event.PREPARED, meter.prepared)
        download.register(Event.REPLIED, meter.replied)
        download.register(Event.FETCHED, meter.fetched)
        download.register(Event.RESTARTED, meter.restarted)
        download.register(Event.SUCCEEDED, meter.succeeded)
        download.register(Event.FAILED, meter.failed)
        meter.expect(download)

    def _show_wait(self, meter: _Meter, record: Record) -> None:
        # A batch may hold the download back before it is prepared.
        self._running[meter] = record
        self.refresh()

    def add(self, completed: int) -> None:
        """Count bytes that no download fetches, such as those of files that exist already.

        Args:
            completed: The number of bytes.
        """
        self._change(completed, 0, 0, 0)

    def refresh(self) -> None:
        """Call ``show`` with the current figures."""
        if self._show is None:
            return
        self._is_changed = True
        while self._is_changed and self._try_show(self._show):
            pass

    def _try_show(self, show: Callable[[int, int | None], object]) -> bool:
        """Call ``show``. Return False if another call does: it sees that the figures changed."""
        mine, showing = object(), self._showing
        # A signal handler may raise KeyboardInterrupt at any call. The ``finally`` block makes no
        # calls, so it always removes the entry.
        try:
            if showing.setdefault(None, mine) is not mine:
                return False
            self._is_changed = False
            show(*self.figures)
            return True
        finally:
            try:
                if showing[None] is mine:
                    del showing[None]
            except KeyError:
                pass

    def _change(self, completed: int, total: int, known: int, unknown: int) -> None:
        self._sums.change(
            lambda sums: _Sums(
                sums.completed + completed,
                sums.total + total,
                sums.known + known,
                sums.unknown + unknown,
            )
        )
        self.refresh()


class _Sums(NamedTuple):
    """The sums of all downloads.

    Attributes:
        completed (int): The number of bytes fetched.
        total (int): The sum of the known sizes (bytes).
        known (int): The number of downloads whose size is in the total.
        unknown (int): The number of downloads that have fetched bytes and whose size is unknown.
    """

    completed: int
    total: int
    known: int
    unknown: int


class _Meter(Traveller):
    """The share of one download in the figures. The download calls its handlers one at a time."""

    def __init__(
        self,
        change: Callable[[int, int, int, int], None],
        is_given: bool,
        running: dict[_Meter, Record],
    ) -> None:
        self._change = change
        self._running = running
        # Whether the caller's total already includes the size, which must not be added then.
        self._is_included = is_given
        self._completed = 0
        self._size: int | None = None

    def expect(self, download: Download) -> None:
        size = download.expected_size
        if size is not None:
            self._set(self._completed, max(size, self._completed))

    def prepared(self, event: Event) -> None:
        self._running[self] = record_of(event.download)

    def returned(self, download: Download, facts: None) -> None:
        self._set(download.position, max(download.expected_size or 0, download.position))

    def replied(self, event: Event) -> None:
        self.expect(event.download)

    def fetched(self, event: Fetched) -> None:
        completed = event.offset + len(event.buffer)
        size = event.download.expected_size if self._size is None else self._size
        self._set(completed, None if size is None else max(size, completed))

    def restarted(self, event: Event) -> None:
        # The content may be another version. The current reply has its size.
        size = event.download.expected_size
        self._set(0, self._size if size is None else size)

    def succeeded(self, _: Event) -> None:
        self._running.pop(self, None)
        self._set(self._completed, self._completed)

    def failed(self, _: Event) -> None:
        self._running.pop(self, None)
        self._set(0, None)

    def _set(self, completed: int, size: int | None) -> None:
        total = (size or 0) - (self._size or 0)
        if size is not None and self._is_included:
            self._is_included = False
            total = 0
        known = (size is not None) - (self._size is not None)
        unknown = (size is None and completed > 0) - (self._size is None and self._completed > 0)
        change = completed - self._completed, total, known, unknown
        if any(change):
            self._change(*change)
        self._completed, self._size = completed, size
