"""The policy for several sources of one file: their order, and the history of each.

The policy does no I/O. Its caller passes the clock and the random numbers, so that tests can
simulate it. Each source of a file is asked at most once in a round. When all have failed, the run
waits for its back-off, and only the sources whose failure was transient are asked in the next
round.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .. import redact
from ..error import DownloadError, DownloadFailed, MismatchError, NotAuthorized, NotFound
from ..waiting.atomic import Cell

ENOUGH = 3
"""A site is ranked after so many transfers."""

FAILURES = 4
"""The number of failures in a row after which a site rests."""

REST = 300.0
"""How long a site rests after so many failures (seconds)."""

SLOW_FAILURE = 1.0
"""A failure that took this long (seconds) may be a time-out, so the site rests for a while."""

PAUSE = 30.0
"""How long a site rests after a slow failure (seconds)."""

EXPLORE = 1 / 4
"""An unranked site is asked first for this share of the files, so that it is soon ranked."""

RETEST = 1 / 1000
"""A random site is asked first for this share of the files: it may have become faster."""

_MEMORY = 0.9
"""The weight of the older transfers beside the newest one."""


class _Past(NamedTuple):
    """The history of a site.

    Attributes:
        transfers (int): The number of transfers.
        success (float): The share that succeeded, of the latest ones.
        size (float): The bytes of the latest transfers.
        seconds (float): The time of these transfers, and of requests for missing files.
        row (int): The number of failures in a row.
        rests (float): Until when the site is asked last.
    """

    transfers: int = 0
    success: float = 1.0
    size: float = 0.0
    seconds: float = 0.0
    row: int = 0
    rests: float = 0.0

    def after(self, is_success: bool) -> _Past:
        """Return the history with one more transfer."""
        success = self.success * _MEMORY + (1 - _MEMORY) * is_success
        return self._replace(transfers=self.transfers + 1, success=success)


class Site:
    """The history of one origin, or of one base of :class:`Mirrors`. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a site without a history.

        Args:
            clock: Returns the time (seconds).
        """
        self._clock = clock
        self._past = Cell(_Past())

    @property
    def is_resting(self) -> bool:
        """Whether the site is asked last, because it failed lately."""
        return self._past.value.rests > self._clock()

    @property
    def score(self) -> float | None:
        """The speed (bytes a second) times the share of successes; None if too little is known."""
        past = self._past.value
        if past.transfers < ENOUGH:
            return None
        return past.success * past.size / past.seconds if past.seconds else 0.0

    @property
    def is_known(self) -> bool:
        """Whether the site has a history."""
        return self._past.value.transfers > 0

    def succeeded(self, size: int, seconds: float) -> None:
        """Count a transfer that succeeded.

        Args:
            size: The bytes that came.
            seconds: The time that it took.
        """

        def change(past: _Past) -> _Past:
            past = past.after(True)._replace(row=0, rests=0.0)
            if not size:
                return past
            return past._replace(
                size=past.size * _MEMORY + size,
                seconds=past.seconds * _MEMORY + max(seconds, 1e-6),
            )

        self._past.change(change)

    def helped(self) -> None:
        """Note that the site sent good parts of a file. This resets the count of failures."""
        self._past.change(lambda past: past._replace(row=0))

    def missed(self, seconds: float) -> None:
        """Count a request for a missing file. It cost time, but isn't a failure of the site.

        Args:
            seconds: The time that it took.
        """
        self._past.change(
            lambda past: past._replace(
                transfers=past.transfers + 1,
                size=past.size * _MEMORY,
                seconds=past.seconds * _MEMORY + seconds,
            )
        )

    def failed(self, seconds: float) -> None:
        """Count a transfer that failed.

        Args:
            seconds: The time that it took.
        """
        now = self._clock()

        def change(past: _Past) -> _Past:
            past = past.after(False)._replace(row=past.row + 1)
            rest = REST if past.row >= FAILURES else PAUSE if seconds >= SLOW_FAILURE else 0.0
            return past._replace(rests=max(past.rests, now + rest) if rest else past.rests)

        self._past.change(change)


class Source(str):
    """A URL of :class:`Mirrors`, with the history of its base.

    Attributes:
        site (Site): The history of the base.
    """

    site: Site

    # A subclass of str can't have non-empty __slots__, so instances have a __dict__.
    __slots__ = ("__dict__",)

    def __new__(cls, url: str, site: Site) -> Source:
        """Create a source.

        Args:
            url: The URL.
            site: The history of the base.
        """
        made = super().__new__(cls, url)
        made.site = site
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickles as a plain str: the state of the site stays in this process.
        return str, (str(self),)


def ranked(
    sites: dict[str, Site], chance: Callable[[], float] = random.random, keep_first: bool = False
) -> list[str]:
    """Return the sources of a file in the order in which to ask them.

    Args:
        sites: Each source with what is known of it, in the order given.
        chance: Returns a random number from 0 up to 1. It spreads the load over sites that are
            about equally good, and sometimes tries another one.
        keep_first: The first one stays the first, unless it rests.
    """
    urls = list(sites)
    if not any(site.is_known for site in sites.values()):
        return urls
    awake = [url for url in urls if not sites[url].is_resting]
    resting = [url for url in urls if url not in awake]
    known: list[tuple[float, str]] = []
    unknown: list[str] = []
    for url in awake:
        score = sites[url].score
        if score is None:
            unknown.append(url)
        else:
            known.append((-score * (0.9 + 0.2 * chance()), url))
    order = [url for _, url in sorted(known)] + unknown
    if not known or (keep_first and urls[0] in awake):
        order = awake if not known else [urls[0], *(url for url in order if url != urls[0])]
    elif unknown and chance() < EXPLORE:
        order.insert(0, order.pop(order.index(unknown[0])))
    elif chance() < RETEST:
        order.insert(0, order.pop(int(chance() * len(order))))
    return order + resting


class Failure(NamedTuple):
    """Why a source failed. Unlike the error, it refers to no other objects."""

    kind: type[DownloadError]
    reason: str
    transient: bool
    retry_after: float | None
    ready: float
    values: tuple[Any, ...]

    @classmethod
    def of(cls, error: DownloadError, now: float) -> Failure:
        """Return the failure that an error describes.

        Args:
            error: The error.
            now: The time at which the source failed.
        """
        values = (error.expected, error.actual) if isinstance(error, MismatchError) else ()
        ready = now + (error.retry_after or 0)
        return cls(type(error), error.reason, error.transient, error.retry_after, ready, values)


class Tour:
    """The sources that one run asks, their order, and why they failed.

    Attributes:
        home (str): The URL of the download.
        source (str): The source to ask now.
    """

    def __init__(
        self,
        sources: Sequence[str],
        find: Callable[[str], Site],
        chance: Callable[[], float] = random.random,
        keep_first: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with the best source.

        Args:
            sources: The URL of the download, then its mirrors.
            find: Returns what is known of the origin of a source.
            chance: Returns a random number from 0 up to 1.
            keep_first: The URL of the download is asked first.
            clock: Returns the time (seconds).
        """
        self._clock = clock
        self._sites: dict[str, Site] = {}
        for url in sources:
            if isinstance(url, Source):
                self._sites[str(url)] = url.site
            elif url not in self._sites:
                self._sites[url] = find(url)
        self.home = sources[0]
        self._left = ranked(self._sites, chance, keep_first)
        self._failures: dict[str, Failure] = {}
        # For each source that was asked, the other sources that sent parts of the file.
        self._helpers: dict[str, set[str]] = {}
        self._blamed: set[str] = set()
        self.source = self._left.pop(0)

    @property
    def has_next(self) -> bool:
        """Whether another source can be asked before a back-off."""
        return bool(self._left)

    @property
    def others(self) -> list[str]:
        """The sources that may send parts: they were not asked yet, and didn't fail lately."""
        return [url for url in self._left if not self._sites[url].is_resting]

    def advance(self) -> None:
        """Ask the next source from now on."""
        self.source = self._left.pop(0)

    def helped(self, source: str) -> None:
        """Note that another source sent parts of the file.

        Args:
            source: That source.
        """
        self._helpers.setdefault(self.source, set()).add(source)

    def succeeded(self, size: int, seconds: float, is_alone: bool) -> None:
        """Note that the source has sent the file, and rate the sources that sent parts.

        Args:
            size: The number of bytes.
            seconds: The time that it took.
            is_alone: The digest was wrong before, when several sources sent the file. If this one
                was among them, the others count as failed: one of them sent wrong bytes.
        """
        self._sites[self.source].succeeded(size, seconds)
        for helper in self._helpers.get(self.source, ()):
            if is_alone:
                self._sites[helper].failed(seconds)
            elif helper not in self._blamed:
                self._sites[helper].helped()

    def failed(self, error: DownloadError, seconds: float) -> None:
        """Note why the source failed.

        Args:
            error: The error.
            seconds: The time that it took.
        """
        self._failures[self.source] = Failure.of(error, self._clock())
        self.blame(self.source, error, seconds)

    def blame(self, source: str, error: DownloadError, seconds: float) -> None:
        """Count the failure of a source in its history, for other files.

        Args:
            source: The source.
            error: The error. An error of this machine doesn't count.
            seconds: The time that it took.
        """
        if error.local:
            return
        self._blamed.add(source)
        # Other sources may lack the file, too, or this one may not have synced it yet.
        site = self._sites[source]
        (site.missed if isinstance(error, NotFound) else site.failed)(seconds)

    def transient(self, longest: float) -> DownloadError | None:
        """Return the transient failure whose source may be asked again first.

        Args:
            longest: The longest Retry-After to wait for (seconds).

        Returns:
            An error to compute the back-off from; None if no source is worth another attempt.
        """
        found = self._worth_again(longest)
        if not found:
            return None
        soonest = self._failures[found[0]]
        error = DownloadFailed(soonest.reason)
        error.transient = True
        if soonest.retry_after is not None:
            error.retry_after = max(soonest.ready - self._clock(), 0)
        return error

    def again(self, longest: float, begin: float) -> None:
        """Begin another round, with the sources whose failure was transient.

        A source whose Retry-After is later than that is left for another round.

        Args:
            longest: The longest Retry-After to wait for (seconds).
            begin: When the round begins.
        """
        found = self._worth_again(longest)
        ready = [url for url in found if self._failures[url].ready <= begin]
        self._left = ready or found[:1]
        self.advance()

    def summary(self) -> DownloadError | None:
        """Return an error that names every source with its reason; None if only one was asked."""
        failures = self._failures
        if len(failures) < 2:
            return None
        parts = "; ".join(f"{redact.url(url)}: {each.reason}" for url, each in failures.items())
        reason = f"all {len(failures)} sources that were asked failed: {parts}"
        each = list(failures.values())
        for kind in (NotFound, NotAuthorized):
            if all(issubclass(failure.kind, kind) for failure in each):
                return kind(reason)
        if all(failure.values for failure in each):
            kinds: set[Any] = {failure.kind for failure in each}
            mismatch: Any = kinds.pop() if len(kinds) == 1 else MismatchError
            found: DownloadError = mismatch(*each[0].values, reason=reason)
            return found
        error = DownloadFailed(reason)
        error.transient = any(failure.transient for failure in each)
        return error

    def _worth_again(self, longest: float) -> list[str]:
        """Return the sources with transient failures, sorted by when they may be asked again."""
        found = [
            (failure.ready, url)
            for url, failure in self._failures.items()
            if failure.transient and (failure.retry_after or 0) <= longest
        ]
        return [url for _, url in sorted(found, key=lambda pair: pair[0])]
