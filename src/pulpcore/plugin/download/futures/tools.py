"""Tools for users of downloads: a monitor that collects the size and digests of a file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .engine.spec import Traveller
from .event import Event
from .storage.digest import Digest
from .validation import DigestValidation

if TYPE_CHECKING:
    from .download import Download


_TRIES = 100
_MOMENT = 0.001


class DownloadMonitor(Traveller):
    """Computes the size and the digests of a file during its download.

    The result is also correct if the download was retried, resumed or called again.

    Attributes:
        algorithms (tuple[str, ...]): The names of the digests.
    """

    # The facts of a run in another process.
    _adopted: dict[str, Any] | None = None

    def __init__(
        self, download: Download | None = None, algorithms: Sequence[str] | None = None
    ) -> None:
        """Choose the digests, and attach to a download if one is given.

        Args:
            download: The download to attach to.
            algorithms: The names of the digests. By default the digest fields of pulpcore's
                ``Artifact``, if pulpcore is loaded, and otherwise all of
                ``DigestValidation.ALGORITHMS``.

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
        """Register with a download, and start again at no bytes.

        Args:
            download: The download. The monitor detaches from the one before.
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
        return self._collected.size if self._adopted is None else self._adopted["size"]

    def update(self, buffer: bytes) -> None:
        """Add the next bytes of the file.

        Args:
            buffer: The bytes.
        """
        self._adopted = None
        collected = self._collected
        for digest in collected.digests.values():
            digest.update(buffer)
        # Updated last: facts() knows by it that all digests contain the buffer.
        collected.size += len(buffer)

    def facts(self) -> dict[str, Any]:
        """Return the size and the digests of the bytes so far.

        Any thread may call this during the download.

        Returns:
            ``size`` (bytes), and each digest (hex) by its name, as the arguments of ``Artifact``.

        Raises:
            RuntimeError: The monitor was attached in the middle of a run, and missed bytes.
        """
        if self._adopted is not None:
            return dict(self._adopted)
        for _ in range(_TRIES):
            collected = self._collected
            size = collected.size
            digests = {
                name: digest.current().hexdigest() for name, digest in collected.digests.items()
            }
            if all(digest.size == size for digest in collected.digests.values()):
                break
            # Another thread has called update() meanwhile.
            time.sleep(_MOMENT)
        if not collected.is_whole:
            raise RuntimeError(
                "the monitor missed bytes, because it was attached while the download ran"
            )
        return {"size": size, **digests}

    def carries(self, handler: Any) -> bool:
        """Return whether a handler is one that :meth:`attach` registers, and no subclass's.

        Args:
            handler:
                A method of this monitor that is registered with the download.
        """
        return handler in (self._fetched, self._restarted)

    def agent(self) -> DownloadMonitor:
        """Return the monitor: a copy of it is attached where another process runs the download."""
        return self

    def returned(self, download: Download, facts: dict[str, Any]) -> None:
        """Take the facts of a run in another process.

        Args:
            download:
                The download.
            facts:
                The facts.
        """
        self._adopted = facts

    def __getstate__(self) -> dict[str, Any]:
        # A copied or unpickled monitor is attached to no download and has no bytes.
        state = {**vars(self), "_download": None}
        del state["_collected"]
        state.pop("_adopted", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    def _reset(self) -> None:
        self._collected = _Collected(self.algorithms)
        self._adopted = None

    def _fetched(self, event: Any) -> None:
        if event.offset > self._collected.size:
            self._collected.is_whole = False
        self.update(event.buffer)

    def _restarted(self, event: Any) -> None:
        self._reset()


class _Collected:
    """The size and digests since the last restart of the content.

    Attributes:
        size (int): The number of bytes.
        digests (dict[str, Digest]): The digests by name.
        is_whole (bool): No bytes were missed.
    """

    def __init__(self, algorithms: Sequence[str]) -> None:
        self.size = 0
        self.is_whole = True
        self.digests = {name: Digest(name) for name in algorithms}


def _default_algorithms() -> Sequence[str]:
    # Not imported: importing models needs django.setup(), which only the application may call.
    models = sys.modules.get("pulpcore.app.models")
    artifact = getattr(models, "Artifact", None)
    fields: Sequence[str] = getattr(artifact, "DIGEST_FIELDS", None) or DigestValidation.ALGORITHMS
    return [name for name in DigestValidation.ALGORITHMS if name in fields]
