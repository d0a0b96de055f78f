"""Progress in bytes, of one download or of many."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .event import Event, Fetched
from .waiting.atomic import Cell

if TYPE_CHECKING:
    from .download import Download


class ProgressMonitor:
    """Turns what happens to downloads into two figures, from any number of threads.

    Both are in bytes. ``completed`` never runs past ``total``, and steps back where a download
    starts again or fails; what is resumed, in a run or by a later one, counts once.

    ``total`` is the sum of the sizes that are known by the servers' Content-Length, or before that
    by a :class:`.SizeValidation`, such as the factory makes of ``artifact.size``. It grows with the
    downloads that are watched. While a download brings content whose size nobody knows, it is None.
    Whoever knows the sum beforehand gives it; then it only changes by files that come with another
    size than expected. A download that fails counts no more.
    """

    def __init__(
        self, show: Callable[[int, int | None], object] | None = None, total: int | None = None
    ) -> None:
        """Make a monitor that watches nothing.

        Args:
            show: Called with ``completed`` and ``total`` when they have changed: in the thread of a
                download, by one thread at a time, never with older figures after newer ones, and in
                the end with the last ones.
            total: The size of all files (bytes), if it is known beforehand.
        """
        self._show = show
        self._sums = Cell(_Sums(0, total or 0, 0, 0))
        self._is_given = total is not None
        self._is_changed = False
        # What belongs to the call of refresh() that is showing the figures, if there is one.
        self._showing: dict[None, object] = {}

    @property
    def figures(self) -> tuple[int, int | None]:
        """``completed`` and ``total``, which belong together."""
        completed, total, known, unknown = self._sums.value
        if not self._is_given and (unknown or not known):
            return completed, None
        # What isn't in the total may be fetched all the same.
        return completed, max(total, completed)

    @property
    def completed(self) -> int:
        """How much there is so far (bytes)."""
        return self.figures[0]

    @property
    def total(self) -> int | None:
        """How much there will be (bytes); None while that isn't known."""
        return self.figures[1]

    def watch(self, download: Download) -> None:
        """Count a download.

        Args:
            download: The download, before it runs.
        """
        meter = _Meter(self._change, self._is_given)
        download.register(Event.REPLIED, meter.replied)
        download.register(Event.FETCHED, meter.fetched)
        download.register(Event.RESTARTED, meter.restarted)
        download.register(Event.SUCCEEDED, meter.succeeded)
        download.register(Event.FAILED, meter.failed)
        meter.expect(download)

    def add(self, completed: int) -> None:
        """Count bytes that no download brings.

        Args:
            completed: How many (bytes).
        """
        self._change(completed, 0, 0, 0)

    def refresh(self) -> None:
        """Have the figures shown once more."""
        if self._show is None:
            return
        self._is_changed = True
        mine, showing = object(), self._showing
        while self._is_changed:
            # The turn is given back by steps that are no calls, between which no signal comes.
            try:
                if showing.setdefault(None, mine) is not mine:
                    # Another thread shows them, and will look again.
                    return
                self._is_changed = False
                self._show(*self.figures)
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
        completed (int): Bytes that have come.
        total (int): The sizes that are known (bytes).
        known (int): How many sizes are in the total.
        unknown (int): How many downloads bring content of an unknown size.
    """

    completed: int
    total: int
    known: int
    unknown: int


class _Meter:
    """What one download adds to the figures. Its handlers run one after the other."""

    def __init__(self, change: Callable[[int, int, int, int], None], is_given: bool) -> None:
        self._change = change
        # Whether the size, once it is known, is in the total from the beginning.
        self._is_included = is_given
        self._completed = 0
        self._size: int | None = None

    def expect(self, download: Download) -> None:
        size = download.expected_size
        if size is not None:
            self._set(self._completed, max(size, self._completed))

    def replied(self, event: Event) -> None:
        self.expect(event.download)

    def fetched(self, event: Fetched) -> None:
        completed = event.offset + len(event.buffer)
        size = event.download.expected_size if self._size is None else self._size
        self._set(completed, None if size is None else max(size, completed))

    def restarted(self, event: Event) -> None:
        # It may be another version, of which the reply that is there now tells.
        size = event.download.expected_size
        self._set(0, self._size if size is None else size)

    def succeeded(self, _: Event) -> None:
        self._set(self._completed, self._completed)

    def failed(self, _: Event) -> None:
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
