"""Signals at chosen places: a SIGINT at each place where CPython checks for signals."""

import gc
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class Armed:
    """A ``with`` in which a SIGINT arrives at one place. The KeyboardInterrupt ends it.

    Attributes:
        left (int): The number of places that are left until the signal.
    """

    def __init__(self, place: int, file: str) -> None:
        self.left = place
        self._files = (file, __file__)
        # Keep a reference here: CPython 3.11 uses the object after its release when it raises.
        self._function = self._profile

    def __enter__(self) -> None:
        if self.left > 0:
            # An interrupt in what the garbage collector calls gets lost, such as in the callbacks
            # that hypothesis adds.
            gc.disable()
            sys.setprofile(self._function)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        sys.setprofile(None)
        gc.enable()
        return kind is KeyboardInterrupt

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        if (
            self.left > 0
            and event in ("call", "c_return")
            and frame.f_code.co_filename not in self._files
        ):
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)


def at_each_place(scenario: Callable[[Armed], object], step: int = 1) -> int:
    """Run a scenario repeatedly, each time with a SIGINT at another place.

    The places are the beginning of each function of Python's and the return of each function of
    C's that the main thread calls, except from the scenario's own file. CPython checks for
    signals there.

    Args:
        scenario: A function whose ``with`` of its argument is interrupted.
        step: Take every so many places only, for a scenario that takes long.

    Returns:
        The number of places.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    place = 1 - step
    try:
        while True:
            place += step
            armed = Armed(place, scenario.__code__.co_filename)
            scenario(armed)
            if armed.left > 0:
                return place - armed.left
    finally:
        signal.signal(signal.SIGINT, before)
