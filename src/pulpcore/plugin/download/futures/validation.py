"""Validations: they check the size or a digest of the content.

A download passes each buffer to its validations after it has been written. It publishes the file
only if all validations succeed.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from collections.abc import Callable
from typing import Any, cast

from .error import DigestMismatch, MismatchError, SizeMismatch, ValidationError
from .storage.digest import Digest, digits

__all__ = [
    "DigestMismatch",
    "DigestValidation",
    "MismatchError",
    "SizeMismatch",
    "SizeValidation",
    "Validation",
    "ValidationError",
]

log = logging.getLogger(__name__)

_HEX = re.compile("[0-9a-f]*")


class Validation:
    """The base class of validations. Each download needs validations of its own.

    A subclass implements :meth:`apply`, and :meth:`update` if it needs the content. A subclass that
    overrides ``update`` must also override :meth:`reset`. Otherwise the download can't be retried
    from byte 0 after it has fetched bytes.

    Attributes:
        enforced (bool): If True, a failed validation raises. If False, it logs a warning.
    """

    # The default for a subclass whose __init__ doesn't call the one below.
    enforced = True

    def __init__(self, enforced: bool = True) -> None:
        """Set ``enforced``.

        Args:
            enforced: False to log a warning instead of raising an error.
        """
        self.enforced = enforced

    def update(self, buffer: bytes) -> None:
        """Process the next bytes of the content.

        Args:
            buffer: The bytes.
        """

    def apply(self) -> None:
        """Validate. The download calls this after the last byte.

        Raises:
            ValidationError: The validation failed.
        """

    def reset(self) -> None:
        """Forget all bytes. The download calls this when it starts again at byte 0."""

    def __call__(self) -> None:
        """Apply the validation.

        Raises:
            ValidationError: The validation failed, and is enforced.
        """
        try:
            self.apply()
        except ValidationError as error:
            self.fail(error)

    def fail(self, error: ValidationError) -> None:
        """Raise an error, or log it if the validation isn't enforced.

        Args:
            error: The error.

        Raises:
            ValidationError: The error, if the validation is enforced.
        """
        if self.enforced:
            raise error
        log.warning("A validation that is not enforced failed: %s", error)


class SizeValidation(Validation):
    """Validates the size of the content.

    Content that is too large fails the download at the first buffer beyond the expected size.

    Attributes:
        expected (int):
            The expected size (bytes).
        actual (int):
            The size so far (bytes).
    """

    def __init__(self, expected: int, enforced: bool = True) -> None:
        """Set the expected size.

        Args:
            expected: The expected size (bytes).
            enforced: False to log a warning instead of raising an error.

        Raises:
            ValueError: The size isn't a whole number, or is negative.
        """
        super().__init__(enforced)
        is_number = type(expected) is int or (
            isinstance(expected, int | float) and not isinstance(expected, bool)
        )
        if not is_number or not expected >= 0 or expected % 1:
            raise ValueError(f"a size must be a whole number of bytes from 0: {expected!r}")
        self.expected = int(expected)
        self.actual = 0

    def update(self, buffer: bytes) -> None:
        """Process the next bytes of the content.

        Args:
            buffer: The bytes.

        Raises:
            SizeMismatch: The content is too large, and the validation is enforced.
        """
        self.actual += len(buffer)
        if self.enforced and self.actual > self.expected:
            raise SizeMismatch(
                self.expected,
                self.actual,
                reason=f"the size should be {self.expected} bytes, but there are more",
            )

    def apply(self) -> None:
        """Compare the actual size with the expected one.

        Raises:
            SizeMismatch: The sizes differ, and the validation is enforced.
        """
        if self.actual != self.expected:
            reason = f"the size should be {self.expected} bytes, but is {self.actual}"
            self.fail(SizeMismatch(self.expected, self.actual, reason=reason))

    def reset(self) -> None:
        """Set the size back to 0."""
        self.actual = 0

    def __getstate__(self) -> dict[str, Any]:
        # A copied or unpickled validation starts with no bytes.
        return {**vars(self), "actual": 0}

    def __repr__(self) -> str:
        return f"SizeValidation({self.expected}, enforced={self.enforced})"


class _Blank:
    """Makes the digest of no bytes when a copied or unpickled validation first uses it."""

    def __get__(self, validation: DigestValidation, kind: type[Any]) -> Digest:
        state = vars(validation)
        # setdefault() is atomic: if two threads create a digest, both get the first.
        made: Digest = state.setdefault("_digest", Digest(state["_name"]))
        return made


class DigestValidation(Validation):
    """Validates a digest of the content.

    Attributes:
        expected (str): The expected digest (hex, lower case).
    """

    ALGORITHMS = ("sha512", "sha384", "sha256", "sha224", "sha1", "md5")
    """The names of the algorithms, the strongest first."""

    # The object's own attribute comes first.
    _digest: Digest = cast(Any, _Blank())
    # The digest of content that another process has seen.
    _adopted: str | None = None

    def __init__(self, algorithm: str, digest: str, enforced: bool = True) -> None:
        """Set the algorithm and the expected digest.

        Args:
            algorithm: One of ``ALGORITHMS``.
            digest: The expected digest (hex, in upper or lower case).
            enforced: False to log a warning instead of raising an error.

        Raises:
            ValueError: The algorithm is unknown, or the digest doesn't have the right number of
                hex digits.
        """
        super().__init__(enforced)
        self._name = str(algorithm).lower()
        if self._name not in self.ALGORITHMS:
            known = ", ".join(self.ALGORITHMS)
            raise ValueError(f"unknown digest algorithm {algorithm!r}: use one of {known}")
        self._digest = Digest(self._name)
        self.expected = str(digest).strip().lower()
        length = digits(self._name)
        if len(self.expected) != length or _HEX.fullmatch(self.expected) is None:
            raise ValueError(f"a {self._name} digest is {length} hex digits: {digest!r}")

    @property
    def algorithm(self) -> hashlib._Hash:
        """The hash object (hashlib) of the content so far."""
        return self._digest.current()

    @property
    def actual(self) -> str:
        """The digest of the content so far (hex)."""
        return self._adopted or self._digest.current().hexdigest()

    def update(self, buffer: bytes) -> None:
        """Process the next bytes of the content.

        Args:
            buffer: The bytes.
        """
        self._digest.update(buffer)

    def apply(self) -> None:
        """Compare the actual digest with the expected one.

        Raises:
            DigestMismatch: The digests differ, and the validation is enforced.
        """
        if self.actual != self.expected:
            reason = f"the {self._name} digest should be {self.expected}, but is {self.actual}"
            self.fail(DigestMismatch(self.expected, self.actual, reason=reason))

    def adopt(self, actual: str) -> None:
        """Take the digest of the content that another process has downloaded.

        Args:
            actual: The digest (hex).
        """
        self._adopted = actual

    def reset(self) -> None:
        """Set the digest back to that of no bytes."""
        self._adopted = None
        if self._digest.size:
            self._digest = Digest(self._name)

    def __getstate__(self) -> dict[str, Any]:
        # A copied or unpickled validation starts with no bytes.
        state = {**vars(self), "_adopted": None}
        state.pop("_digest", None)
        return state

    def __repr__(self) -> str:
        return f"DigestValidation({self._name!r}, {self.expected!r}, enforced={self.enforced})"


def _can_reset(kind: type[Any]) -> bool:
    for cls in kind.__mro__:
        if "reset" in vars(cls):
            return True
        if "update" in vars(cls):
            return False
    return False


# Cached, because it runs for each download. The cache is limited, since it keeps classes alive.
_cached: Any = functools.lru_cache(maxsize=128)(_can_reset)
can_reset: Callable[[type[Validation]], bool] = _cached
"""Whether :meth:`Validation.reset` resets all state of the validations of a class.

It doesn't if a subclass of the class that defines ``reset`` overrides ``update``: ``reset`` doesn't
know the state that the new ``update`` keeps.
"""
