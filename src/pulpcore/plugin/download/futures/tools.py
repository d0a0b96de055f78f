"""Tools for users of downloads."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .event import Event
from .storage.digest import Digest
from .validation import DigestValidation

if TYPE_CHECKING:
    from .download import Download


_TRIES = 100
_MOMENT = 0.001


class DownloadMonitor:
    """Collects the facts of a file while it is downloaded: its size and digests.

    It is right also when the download was retried, resumed or called again.

    Attributes:
        algorithms (tuple[str, ...]): The names of the digests.
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

    @property
    def size(self) -> int:
        """The size so far (bytes)."""
        return self._collected.size

    def update(self, buffer: bytes) -> None:
        """Take the next bytes of the file.

        Args:
            buffer: The bytes.
        """
        collected = self._collected
        for digest in collected.digests.values():
            digest.update(buffer)
        # At last, by which a thread that looks knows that all digests have it.
        collected.size += len(buffer)

    def facts(self) -> dict[str, Any]:
        """Return the size and the digests (hex), by name, as ``Artifact`` takes them.

        Any thread may ask while the download runs: it gets those of what has come so far.

        Raises:
            RuntimeError: It was attached in the middle of a run, and hasn't seen all bytes.
        """
        for _ in range(_TRIES):
            collected = self._collected
            size = collected.size
            digests = {
                name: digest.current().hexdigest() for name, digest in collected.digests.items()
            }
            if all(digest.size == size for digest in collected.digests.values()):
                break
            # Bytes came meanwhile.
            time.sleep(_MOMENT)
        if not collected.is_whole:
            raise RuntimeError(
                "the monitor has not seen all bytes, for it was attached while the download ran"
            )
        return {"size": size, **digests}

    def __getstate__(self) -> dict[str, Any]:
        # A copy, and what is pickled, follows no download and has seen nothing.
        return {
            **vars(self),
            "_download": None,
            "_collected": _Collected(self.algorithms),
        }

    def _reset(self) -> None:
        self._collected = _Collected(self.algorithms)

    def _fetched(self, event: Any) -> None:
        if event.offset > self._collected.size:
            self._collected.is_whole = False
        self.update(event.buffer)

    def _restarted(self, event: Any) -> None:
        self._reset()


class _Collected:
    """What was seen of one attempt's content.

    Attributes:
        size (int): How much (bytes).
        digests (dict[str, Digest]): The digests by name.
        is_whole (bool): It was seen from the beginning.
    """

    def __init__(self, algorithms: Sequence[str]) -> None:
        self.size = 0
        self.is_whole = True
        self.digests = {name: Digest(name) for name in algorithms}


def _default_algorithms() -> Sequence[str]:
    # Looked up and never imported: whoever has loaded it has set Django up.
    models = sys.modules.get("pulpcore.app.models")
    artifact = getattr(models, "Artifact", None)
    fields: Sequence[str] = getattr(artifact, "DIGEST_FIELDS", None) or DigestValidation.ALGORITHMS
    return [name for name in DigestValidation.ALGORITHMS if name in fields]
