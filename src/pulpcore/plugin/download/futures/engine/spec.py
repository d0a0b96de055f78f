"""Specs: the pickles of downloads, by which worker processes run them.

A spec is the pickle of a download with the agents of its monitors. Pickling silently drops event
handlers, so :func:`check` refuses a download with handlers that the worker would have to call.
"""

from __future__ import annotations

import contextlib
import copyreg
import io
import itertools
import pickle
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .. import redact
from ..event import Event
from ..rate import RateLimiter
from ..settings import Limits
from ..writer import BufferWriter
from .attempt import record_of

if TYPE_CHECKING:
    from .subject import Download

BLOCK = 64
"""How many specs or reports are pickled together.

What is made for a pickle exists until its end. With thousands in one, Python would look for garbage
again and again, among all objects of the program, which took two thirds of the time.
"""

Spec = tuple["Download", list[Any]]
"""A download, and the agents that are attached to it where it runs."""

_AT_HOME = frozenset({Event.SUCCEEDED, Event.FAILED})
"""The events whose handlers are called at home: each run sends exactly one of them, at its end."""

SHARED: list[type[Any]] = [RateLimiter, Limits]
"""The classes whose objects downloads share by identity. A worker has one twin of each object."""


_REDUCERS: dict[type[Any], Callable[[Any], tuple[Any, ...]]] = {}


class Traveller(ABC):
    """The owner of event handlers that need not run where the download runs.

    A batch that runs the download in another process asks it for an agent, which works there, and
    tells it what the agent has found.
    """

    def agent(self) -> Any:
        """Return what is pickled and attached to the download in the worker process.

        It has the methods ``attach(download)`` and ``facts()``. None if the report is enough.
        """
        return None

    def carries(self, handler: Any) -> bool:
        """Return whether a handler need not run where the download runs.

        Args:
            handler: A method of this object that is registered with the download.
        """
        return True

    @abstractmethod
    def returned(self, download: Download, facts: Any) -> None:
        """Take the findings of a run in another process.

        Args:
            download: The download, which has the state after the run.
            facts: What the agent's ``facts()`` returned; None without an agent.
        """


def travellers(download: Download) -> list[Traveller]:
    """Return the owners of a download's handlers that know how to travel.

    Args:
        download: The download.
    """
    if download.router.is_empty:
        return []
    owners = (getattr(handler, "__self__", None) for _, handler in download.router.registered())
    return list({id(owner): owner for owner in owners if isinstance(owner, Traveller)}.values())


def check(download: Download) -> Spec:
    """Return the spec of a download, not yet pickled.

    Args:
        download: The download.

    Raises:
        ValueError: A handler, a trace or the writer can't travel. The message names it.
    """
    for name, handler in download.router.registered():
        owner = getattr(handler, "__self__", None)
        travels = isinstance(owner, Traveller) and owner.carries(handler)
        if name not in _AT_HOME and not travels:
            shown = getattr(handler, "__qualname__", type(handler).__name__)
            raise ValueError(
                f"{download}: the handler {shown} of {name} can't run in another process: only "
                "handlers of SUCCEEDED and FAILED can be used with this executor"
            )
    if record_of(download).tracing is not None:
        raise ValueError(
            f"{download}: what runs in another process can't be traced: don't instrument the "
            "download or its batch, or use threads"
        )
    if isinstance(download.writer, BufferWriter):
        raise ValueError(  # noqa: TRY004 - as for all that can't travel
            f"{download}: a {type(download.writer).__name__} can't be filled by another process: "
            "use a FileWriter"
        )
    owners = travellers(download)
    return download, [agent for owner in owners if (agent := owner.agent()) is not None]


def share(kind: type[Any]) -> None:
    """Add a class whose objects downloads share by identity.

    Args:
        kind: The class.
    """
    SHARED.append(kind)


def reduce_by(kind: type[Any], reducer: Callable[[Any], tuple[Any, ...]]) -> None:
    """Have specs pickle the objects of a class in another way than pickle's own.

    Args:
        kind: The class, without its subclasses.
        reducer: Returns what ``__reduce__`` would.
    """
    _REDUCERS[kind] = reducer


class Packer:
    """Pickles the specs of one batch."""

    def __init__(self, limits: Limits | None = None) -> None:
        """Create a packer that knows no shared objects.

        Args:
            limits: The limits of the batch.
        """
        self._limits = limits
        self._numbers: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._next = itertools.count()
        self._table = copyreg.dispatch_table | _REDUCERS
        for kind in SHARED:
            self._table[kind] = self._reduce

    def pack(self, specs: Sequence[Spec]) -> bytes:
        """Pickle specs.

        Args:
            specs: The specs.

        Raises:
            ValueError: One can't be pickled. The message names the download if it is the only one.
        """
        try:
            return b"".join(
                self._pickled((self._limits, specs[first : first + BLOCK]))
                for first in range(0, len(specs), BLOCK)
            )
        except Exception as error:  # noqa: BLE001 - any __getstate__ may raise anything
            reason = unportable(specs[0][0], error, self._attribute(specs[0][0]))
        # Raised outside the except clause: a traceback of pickle would show what it was pickling.
        raise ValueError(reason)

    def _pickled(self, value: Any) -> bytes:
        stream = io.BytesIO()
        pickler = pickle.Pickler(stream, pickle.HIGHEST_PROTOCOL)
        pickler.dispatch_table = self._table
        pickler.dump(value)
        return stream.getvalue()

    def _attribute(self, download: Download) -> str | None:
        """Return the name of the first attribute of a download that can't be pickled."""
        name = None
        with contextlib.suppress(Exception):
            for name, value in download.__getstate__()[0].items():  # noqa: B007 - after the loop
                self._pickled(value)
            name = None
        return name

    def _reduce(self, thing: Any) -> tuple[Any, ...]:
        """Pickle a shared object with its number, by which a worker finds its twin."""
        reference, number = self._numbers.get(id(thing), (None, 0))
        if reference is None or reference() is not thing:
            number = next(self._next)
            self._numbers[id(thing)] = weakref.ref(thing), number
        make, arguments, state = (*thing.__reduce_ex__(4), None)[:3]
        return _twin, (number, make, arguments, state)


def unpack(data: bytes, twins: dict[int, Any]) -> Iterator[list[Spec]]:
    """Unpickle specs in a worker process, one block after the other.

    Args:
        data: What :meth:`Packer.pack` returned.
        twins: The shared objects of the batch in this process, by number. New ones are added.

    Yields:
        The specs of each block.

    Raises:
        Exception: A class can't be imported here, or its state can't be restored.
    """
    pickles = blocks(data)
    while True:
        token = _twins.set(twins)
        try:
            limits, specs = next(pickles, (None, None))
        finally:
            _twins.reset(token)
        if specs is None:
            return
        for download, _ in specs:
            record_of(download).limits = limits
        yield specs


def blocks(data: bytes) -> Iterator[Any]:
    """Unpickle one block after the other.

    Args:
        data: Pickles that follow each other. The batch or one of its workers has written them.
    """
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        yield pickle.load(stream)  # noqa: S301 - see above


_twins: ContextVar[dict[int, Any]] = ContextVar("twins")


def _twin(number: int, make: Callable[..., Any], arguments: tuple[Any, ...], state: Any) -> Any:
    """Return this process's twin of a shared object. Called by pickle."""
    twins = _twins.get()
    if number not in twins:
        made = make(*arguments)
        vars(made).update(state or {})
        # Two threads of a Dask worker may unpickle at once. Both must get the same object.
        twins.setdefault(number, made)
    return twins[number]


def unportable(download: Download, error: BaseException, attribute: str | None) -> str:
    """Return the reason why a download can't be sent to another process.

    Args:
        download: The download.
        error: What pickle raised.
        attribute: The attribute that can't be pickled; None if it isn't known.
    """
    what = "" if attribute is None else f"its attribute {attribute}: "
    why = redact.text(f"{type(error).__name__}: {error}")
    return f"{download} can't be sent to another process: {what}{why}"
