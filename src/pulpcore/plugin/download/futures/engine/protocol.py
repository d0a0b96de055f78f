"""What a protocol implements beside ``_send``."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..error import DownloadError
    from ..settings import Settings
    from .pipeline import Health, Request


class Protocol:
    """What the engine asks a protocol during a run. Override what differs from the defaults.

    The engine calls the class without arguments at the beginning of each run. The object may keep
    what it learns in the run, but not the download itself: reference counting couldn't free it.

    Attributes:
        status (int):
            The status of the last reply, for error messages; 0 without one.
        has_alternative (bool):
            The content could also be read in another way, for example without decoding it. After a
            mismatch the engine then makes one extra attempt, once a run.
        is_unchanged (bool):
            The target has the content already, so that none comes.
        is_alternative (bool):
            The engine sets it for that attempt: read the content the other way.
        has_requests (bool):
            ``_send`` tells the trace of the run each request. Otherwise the engine tells it each
            attempt.
    """

    status = 0
    is_unchanged = False
    has_alternative = False
    is_alternative = False
    has_requests = False

    def __getstate__(self) -> dict[str, Any]:
        """Return what a report brings home: what the public properties of a download show."""
        return {"status": self.status} if self.status else {}

    def outcome(self, download: Any) -> dict[str, Any]:
        """Return the public attributes that a run sets on the download, for its report.

        Args:
            download: The download.
        """
        return {}

    def check(self, download: Any) -> None:
        """Check the settings, before anything is sent.

        Args:
            download: The download.

        Raises:
            ValueError: A setting can't work; the message names the attribute.
        """

    def host(self, download: Any) -> Hashable:
        """Return what is down if attempts fail, such as the host.

        It has a circuit breaker, and fewer attempts are made there at once after an error that is
        ``refused``. None for neither.

        Args:
            download: The download.
        """
        return None

    def sources(self, download: Any) -> Sequence[str]:
        """Return the URL of the download and those of its mirrors; nothing for the URL alone.

        Args:
            download: The download.
        """
        return ()

    def site(self, source: str) -> Hashable:
        """Return the key of what the transfers rank, such as the origin of a URL.

        Args:
            source: The URL.
        """
        return source

    def is_conditional(self, download: Any) -> bool:
        """Return whether the URL itself is asked first, because only it knows what has changed.

        Args:
            download: The download.
        """
        return False

    def is_up(self, error: DownloadError) -> bool | None:
        """Return whether the host is up, as far as a failure tells; None if it doesn't tell.

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
        """Return whether the next attempt may ask its source for the rest only.

        ``_send`` must then begin at ``download.position``, or call
        :meth:`~pulpcore.plugin.download.futures.engine.attempt.Attempt.start_over` first.

        Args:
            download: The download.
        """
        return False

    def recall(self, download: Any, note: str) -> bool:
        """Return whether an earlier run left what the next attempt can continue.

        Args:
            download:
                The download.
            note:
                What that run noted, by
                :meth:`~pulpcore.plugin.download.futures.engine.attempt.Attempt.note`.
        """
        return False

    def pipelined(self, download: Any, health: Health) -> Request | None:
        """Return the request for the content if it may be sent before others are answered.

        If a reply comes that counts, ``_send`` finds it in the attempt.

        Args:
            download: The download.
            health: What is known of the host.
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
        ValueError: One can't work; the message names the attribute.
    """
    for name, setting in settings.items():
        try:
            setting.validate()
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from error
