"""Reports: the state that a worker process returns of a download, without the content."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import redact
from ..error import DownloadError, DownloadFailed
from ..validation import DigestValidation
from .attempt import record_of
from .content import Content
from .run import Ended
from .spec import travellers

if TYPE_CHECKING:
    from .protocol import Protocol
    from .subject import Download

log = logging.getLogger(__name__)

# Never changed. Pickle writes one object once in a block.
_NONE: dict[str, Any] = {}
_PLAIN = frozenset({bool, float, int, str, type(None)})


class Report(NamedTuple):
    """The state of a download after its run.

    Attributes:
        executed (bool): The download was started.
        error (BaseException | None): What it raised.
        cause (BaseException | None): The error's ``__cause__``, which pickle leaves out.
        position (int): The bytes fetched.
        total (int | None): The size of the content, if the server said it.
        protocol (Protocol | None): What the protocol has learned, such as the status.
        attributes (dict[str, Any]): The public attributes that the run has set.
        actuals (Sequence[Any]): ``actual`` of each validation; None for one that has none.
        facts (Sequence[Any]): What each agent has found.
    """

    executed: bool
    error: BaseException | None = None
    cause: BaseException | None = None
    position: int = 0
    total: int | None = None
    protocol: Protocol | None = None
    attributes: dict[str, Any] = _NONE
    actuals: Sequence[Any] = ()
    facts: Sequence[Any] = ()

    @classmethod
    def of(
        cls, download: Download, executed: bool, error: BaseException | None, agents: list[Any]
    ) -> Report:
        """Report a download, in the process that has run it.

        Args:
            download: The download.
            executed: It was started.
            error: What it raised.
            agents: The agents that were attached to it.
        """
        record = record_of(download)
        return cls(
            executed,
            None if error is None else portable(error),
            None if error is None else _cause(error),
            record.content.position,
            None if record.run is None else record.run.total,
            record.protocol,
            (record.protocol and record.protocol.outcome(download)) or _NONE,
            tuple([getattr(validation, "actual", None) for validation in download.validations]),
            tuple([agent.facts() for agent in agents]),
        )

    @property
    def is_plain(self) -> bool:
        """Whether it can certainly be unpickled: it has no object of a plugin's or a user's class.

        The protocol's object counts as plain.
        """
        if self.error is not None or self.attributes or self.facts:
            return False
        return not [actual for actual in self.actuals if type(actual) not in _PLAIN]

    def apply(self, download: Download) -> BaseException | None:
        """Give the download in the parent process the state that it had after the run.

        Args:
            download: The download, from which the spec was made.

        Returns:
            The error that the download raised; None if it succeeded.
        """
        record = record_of(download)
        record.content = Content()
        record.content.position = self.position
        # If bytes were fetched, the next run restarts, and its handlers learn of it.
        record.content.is_begun = self.position > 0
        record.protocol = self.protocol
        record.wait = None
        record.run = Ended(self.total, self.executed and self.error is None)
        for name, value in self.attributes.items():
            setattr(download, name, value)
        for validation, actual in zip(download.validations, self.actuals, strict=False):
            if isinstance(validation, DigestValidation):
                validation.adopt(actual)
            elif "actual" in vars(validation):
                validation.actual = actual  # type: ignore[attr-defined]
        facts = iter(self.facts)
        for owner in travellers(download):
            try:
                owner.returned(download, next(facts) if owner.agent() is not None else None)
            except Exception:
                log.exception("A monitor could not take a report of %s", download)
        error = self.error
        if error is not None:
            error.__cause__ = self.cause
        if isinstance(error, DownloadError):
            error.download = download
        return error


def portable(error: BaseException) -> BaseException:
    """Return an error that pickles: the same, or a DownloadFailed with its type and text.

    Args:
        error: The error.
    """
    if _is_portable(error):
        return error
    text = redact.text(f"{type(error).__name__}: {error}")
    return DownloadFailed(f"the worker process raised what can't be sent back: {text}")


def _cause(error: BaseException) -> BaseException | None:
    cause = error.__cause__
    return cause if cause is not None and _is_portable(cause) else None


def _is_portable(error: BaseException) -> bool:
    # An exception whose __init__ has other arguments pickles well and fails to unpickle.
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - written in this line
    except Exception:  # noqa: BLE001 - anything may be raised
        return False
    return True
