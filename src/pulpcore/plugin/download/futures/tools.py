"""Tools for users of downloads."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .event import Event
from .storage.digest import Digest
from .validation import DigestValidation

if TYPE_CHECKING:
    from .download import Download


class DownloadMonitor:
    """Collects the facts of a file while it is downloaded: its size and digests.

    It is right also when the download was retried, resumed or called again.

    Attributes:
        algorithms (tuple[str, ...]): The names of the digests.
        size (int): The size so far (bytes).
    """

    def __init__(
        self, download: Download | None = None, algorithms: Sequence[str] | None = None
    ) -> None:
        """Make a monitor.

        Args:
            download: A download to attach to.
            algorithms: The names of the digests to collect. By default those that ``Artifact`` has
                where pulpcore is loaded, else all of ``DigestValidation.ALGORITHMS``.

        Raises:
            ValueError: An algorithm is unknown.
        """
        self.algorithms = tuple(_default_algorithms() if algorithms is None else algorithms)
        unknown = set(self.algorithms) - set(DigestValidation.ALGORITHMS)
        if unknown:
            raise ValueError(f"unknown digest algorithms: {', '.join(sorted(unknown))}")
        self.size = 0
        self._digests: dict[str, Digest] = {}
        self._download: Download | None = None
        self._reset()
        if download is not None:
            self.attach(download)

    def attach(self, download: Download) -> None:
        """Follow a download.

        Args:
            download: The download. A monitor follows one at a time.
        """
        self._reset()
        handlers = {Event.FETCHED: self._fetched, Event.RESTARTED: self._restarted}
        for name, handler in handlers.items():
            if self._download is not None:
                with contextlib.suppress(ValueError):
                    self._download.router.unregister(name, handler)
            download.register(name, handler)
        self._download = download

    def update(self, buffer: bytes) -> None:
        """Take the next bytes of the file.

        Args:
            buffer: The bytes.
        """
        self.size += len(buffer)
        for digest in self._digests.values():
            digest.update(buffer)

    def facts(self) -> dict[str, Any]:
        """Return the size and the digests (hex), by name, as ``Artifact`` takes them."""
        digests = {name: digest.settle().hexdigest() for name, digest in self._digests.items()}
        return {"size": self.size, **digests}

    def _reset(self) -> None:
        self.size = 0
        self._digests = {name: Digest(name) for name in self.algorithms}

    def _fetched(self, event: Any) -> None:
        self.update(event.buffer)

    def _restarted(self, event: Any) -> None:
        self._reset()


def _default_algorithms() -> Sequence[str]:
    # Looked up and never imported: whoever has loaded it has set Django up.
    models = sys.modules.get("pulpcore.app.models")
    artifact = getattr(models, "Artifact", None)
    fields: Sequence[str] = getattr(artifact, "DIGEST_FIELDS", None) or DigestValidation.ALGORITHMS
    return [name for name in DigestValidation.ALGORITHMS if name in fields]
