"""Validations: whether what was downloaded is what was expected.

They see the bytes on their way to the writer, and not the file: it is published only after they
pass.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from typing import Any

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
    """The base of validations. One belongs to one download.

    A subclass implements :meth:`apply`, and :meth:`update` if it needs the content. One that
    overrides ``update`` must override :meth:`reset` as well, or its download can't be tried again
    once bytes were fetched.

    Attributes:
        enforced (bool): A validation that fails raises; if not enforced, it is only logged as a
            warning.
    """

    # For a subclass whose __init__ doesn't call this one.
    enforced = True

    def __init__(self, enforced: bool = True) -> None:
        """Make a validation.

        Args:
            enforced: False to log a warning instead of raising an error.
        """
        self.enforced = enforced

    def update(self, buffer: bytes) -> None:
        """Take the next bytes of the content.

        Args:
            buffer: The bytes.
        """

    def apply(self) -> None:
        """Decide, after all of the content has been seen.

        Raises:
            ValidationError: The validation failed.
        """

    def reset(self) -> None:
        """Start again, as if no content had been seen."""

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
        """Deal with a failure as ``enforced`` says.

        Args:
            error: What is wrong.

        Raises:
            ValidationError: The error, if enforced.
        """
        if self.enforced:
            raise error
        log.warning("A validation that is not enforced failed: %s", error)


class SizeValidation(Validation):
    """Validates the size of the content.

    Too much is known at the buffer that goes beyond: the download stops there.

    Attributes:
        expected (int): The size that is expected (bytes).
        actual (int): The size so far (bytes).
    """

    def __init__(self, expected: int, enforced: bool = True) -> None:
        """Make a validation.

        Args:
            expected: The size that is expected (bytes).
            enforced: False to log a warning instead of raising an error.

        Raises:
            ValueError: The size is no whole number of bytes from 0.
        """
        super().__init__(enforced)
        is_number = isinstance(expected, int | float) and not isinstance(expected, bool)
        if not is_number or not expected >= 0 or expected % 1:
            raise ValueError(f"a size must be a whole number of bytes from 0: {expected!r}")
        self.expected = int(expected)
        self.actual = 0

    def update(self, buffer: bytes) -> None:
        """Take the next bytes of the content.

        Args:
            buffer: The bytes.

        Raises:
            SizeMismatch: There are too many, and the validation is enforced.
        """
        self.actual += len(buffer)
        if self.enforced and self.actual > self.expected:
            raise SizeMismatch(
                self.expected,
                self.actual,
                reason=f"the size should be {self.expected} bytes, but there are more",
            )

    def apply(self) -> None:
        """Compare the sizes.

        Raises:
            SizeMismatch: They differ, and the validation is enforced.
        """
        if self.actual != self.expected:
            reason = f"the size should be {self.expected} bytes, but is {self.actual}"
            self.fail(SizeMismatch(self.expected, self.actual, reason=reason))

    def reset(self) -> None:
        """Start again at no bytes."""
        self.actual = 0

    def __getstate__(self) -> dict[str, Any]:
        # A copy, and what is pickled, has seen nothing.
        return {**vars(self), "actual": 0}

    def __repr__(self) -> str:
        return f"SizeValidation({self.expected}, enforced={self.enforced})"


class DigestValidation(Validation):
    """Validates a digest of the content.

    Attributes:
        expected (str): The digest that is expected (hex).
    """

    ALGORITHMS = ("sha512", "sha384", "sha256", "sha224", "sha1", "md5")
    """The names of the algorithms, from the strongest."""

    def __init__(self, algorithm: str, digest: str, enforced: bool = True) -> None:
        """Make a validation.

        Args:
            algorithm: One of ``ALGORITHMS``.
            digest: The digest that is expected (hex, in upper or lower case).
            enforced: False to log a warning instead of raising an error.

        Raises:
            ValueError: The algorithm is unknown, or the digest can't be one of it.
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
        """The digest so far, one of hashlib's objects."""
        return self._digest.current()

    @property
    def actual(self) -> str:
        """The digest of the content so far (hex)."""
        return self.algorithm.hexdigest()

    def update(self, buffer: bytes) -> None:
        """Take the next bytes of the content.

        Args:
            buffer: The bytes.
        """
        self._digest.update(buffer)

    def apply(self) -> None:
        """Compare the digests.

        Raises:
            DigestMismatch: They differ, and the validation is enforced.
        """
        if self.actual != self.expected:
            reason = f"the {self._name} digest should be {self.expected}, but is {self.actual}"
            self.fail(DigestMismatch(self.expected, self.actual, reason=reason))

    def reset(self) -> None:
        """Start again at the digest of no bytes."""
        self._digest = Digest(self._name)

    def __getstate__(self) -> dict[str, Any]:
        # A copy, and what is pickled, has seen nothing.
        return {**vars(self), "_digest": Digest(self._name)}

    def __repr__(self) -> str:
        return f"DigestValidation({self._name!r}, {self.expected!r}, enforced={self.enforced})"


def can_reset(validation: Validation) -> bool:
    """Whether a validation can be started again.

    It can't if its class overrides ``update`` below the class that defines its ``reset``: what
    ``update`` keeps would not be reset.

    Args:
        validation: The validation.
    """
    return _resets(type(validation).__mro__)


# Once a class, and not for each download; no class is kept alive by it for ever.
@functools.lru_cache(maxsize=128)
def _resets(mro: tuple[type, ...]) -> bool:
    for cls in mro:
        if "reset" in vars(cls):
            return True
        if "update" in vars(cls):
            return False
    return False
