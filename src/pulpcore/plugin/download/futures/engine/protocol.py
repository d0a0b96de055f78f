"""The interface that a protocol implements besides ``_send``."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..error import DownloadError
    from ..settings import Settings
    from .pipeline import Health, Request


class Protocol:
    """The protocol's side of one run. A subclass overrides what differs from the defaults.

    The engine creates an object at the beginning of each run, without arguments. The object may
    store what it learns, but not the download: the reference cycle would keep both in memory.

    Attributes:
        status (int):
            The status of the last reply, for error messages; 0 without one.
        has_alternative (bool):
            The content could also be read in another way, for example without decoding it. After a
            mismatch the engine then makes one extra attempt, once a run.
        is_unchanged (bool):
            The target already has the content, so none is fetched.
        is_alternative (bool):
            The engine sets it for that extra attempt, which reads the content in the other way.
        has_requests (bool):
            ``_send`` reports each request to the trace of the run. Otherwise the engine reports
            each attempt.
    """

    status = 0
    is_unchanged = False
    has_alternative = False
    is_alternative = False
    has_requests = False

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a worker's report: the values of the download's properties."""
        return {"status": self.status} if self.status else {}

    def outcome(self, download: Any) -> dict[str, Any]:
        """Return the public attributes that a run has set on the download, for a worker's report.

        Args:
            download: The download.
        """
        return {}

    def check(self, download: Any) -> None:
        """Check the settings, before anything is sent.

        Args:
            download: The download.

        Raises:
            ValueError: A setting is invalid; the message names the attribute.
        """

    def host(self, download: Any) -> Hashable:
        """Return a key of the host.

        Each host has a circuit breaker. After an error that is ``refused``, it gets fewer attempts
        at once. None means neither.

        Args:
            download: The download.
        """
        return None

    def sources(self, download: Any) -> Sequence[str]:
        """Return the download's URL and its mirrors; an empty sequence if it has no mirrors.

        Args:
            download: The download.
        """
        return ()

    def site(self, source: str) -> Hashable:
        """Return the key of the site whose transfers are ranked, such as the origin of a URL.

        Args:
            source: The URL.
        """
        return source

    def is_conditional(self, download: Any) -> bool:
        """Return whether to ask the URL before any mirror, because the request is conditional.

        Args:
            download: The download.
        """
        return False

    def is_up(self, error: DownloadError) -> bool | None:
        """Return whether a failure shows that the host is up; None if it doesn't tell.

        Args:
            error: The failure.
        """
        return False if error.transient else None

    def has_content(self, download: Any) -> bool:
        """Return whether there will be content. If not, the target isn't touched.

        Args:
            download: The download.
        """
        return True

    def can_resume(self, download: Any) -> bool:
        """Return whether the next attempt may request only the rest of the content.

        ``_send`` must then begin at ``download.position``, or call
        :meth:`~pulpcore.plugin.download.futures.engine.attempt.Attempt.start_over` first.

        Args:
            download: The download.
        """
        return False

    def recall(self, download: Any, note: str) -> bool:
        """Return whether the next attempt can continue the partial file of an earlier run.

        Args:
            download:
                The download.
            note:
                The text that the earlier run has passed to
                :meth:`~pulpcore.plugin.download.futures.engine.attempt.Attempt.note`.
        """
        return False

    def pipelined(self, download: Any, health: Health) -> Request | None:
        """Return the request for the content if it may be pipelined; else None.

        ``_send`` finds an accepted reply in the attempt (``answer``).

        Args:
            download: The download.
            health: How the host handles pipelining.
        """
        return None


# Cached by class, so that runs don't repeat the search. It skips instances and any `_protocol` that
# isn't a Protocol, because a plugin may use that name for something else.
@functools.lru_cache(maxsize=128)
def protocol_of(kind: type[Any]) -> type[Protocol]:
    """Return the protocol of a class of downloads.

    Args:
        kind: The class.
    """
    # A list and not a generator: an interrupt while a generator is closed would get lost.
    candidates = [vars(cls).get("_protocol") for cls in kind.__mro__]
    # The list isn't empty: Download, the base class, has a protocol.
    protocols: list[type[Protocol]] = [
        found for found in candidates if isinstance(found, type) and issubclass(found, Protocol)
    ]
    return protocols[0]


def validate(**settings: Settings) -> None:
    """Validate settings, for :meth:`Protocol.check`.

    Args:
        settings: The settings, by the name of the attribute that has them.

    Raises:
        ValueError: A setting is invalid; the message names the attribute.
    """
    for name, setting in settings.items():
        try:
            setting.validate()
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from error
