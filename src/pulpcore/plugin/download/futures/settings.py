"""Settings that downloads have in common.

A setting checks nothing when it is made or changed, since it may be filled in bit by bit;
``validate()`` does, and a run calls it before anything is sent. A download takes shorter forms as
well: a number or a pair in place of a ``Timeout``, a pair in place of a ``User``.
"""

from __future__ import annotations

import copy
import math
import re
import threading
from collections.abc import MutableMapping, MutableSequence, MutableSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeGuard

LONGEST = threading.TIMEOUT_MAX
"""The most seconds that can be waited for."""

PEM = "-----BEGIN"
"""How PEM text is told from the path of a PEM file."""

# A tuple: a union would be made anew at each use.
_NUMBER = (int, float)
# A key, or a part of one, without the lines around it. A long path has mostly a dot, or some other
# character that base64 lacks; one without isn't shown either, which does no harm.
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{32,}")
_LONGEST_SHOWN = 255
"""No path is as long, but a key without its first line is."""


class Settings:
    """The base of all settings: values that are compared by content and that show no secret."""

    @classmethod
    def of(cls, value: object) -> Self:
        """Make a setting of what a download was given for it.

        Args:
            value: A setting, which is taken as it is, a shorter form of it, or None for the
                defaults.

        Raises:
            TypeError: It is none of these; the message names the argument, and not its value.
        """
        if isinstance(value, cls):
            return value
        made = cls() if value is None else cls._short(value)
        if made is None:
            forms = f"{cls._FORMS}, or None, not {type(value).__name__}"
            raise TypeError(f"{cls.__name__.lower()}: must be {forms}")
        return made

    _FORMS: ClassVar[str] = ""

    @classmethod
    def _short(cls, value: object) -> Self | None:
        """Make a setting of a shorter form; None if the value isn't one."""

    def validate(self) -> None:
        """Check the values.

        Raises:
            ValueError: A value can't work; the message names the attribute.
        """


@dataclass(repr=False)
class SSL(Settings):
    """How to trust a server, and how to be trusted by it.

    Each certificate and the key is given as the path of a PEM file, or as PEM text (which is never
    written to disk).

    Attributes:
        ca_certificate (str | None): Certificates of the authorities to trust, instead of the
            default ones, and also where REQUESTS_CA_BUNDLE is set. ``SSL.SYSTEM`` for those that
            the operating system trusts.
        client_certificate (str | None): A certificate to show to the server; it may hold the key,
            too.
        client_key (str | None): The key of the client certificate.
        validation (bool): False turns verification off, for the downloads that have this setting
            and no other.
        client_key_password (str | None): The password of an encrypted key. Nobody is asked for one
            at a terminal.
    """

    _FORMS = "an SSL"

    SYSTEM: ClassVar[str] = "<system>"
    """Given as ``ca_certificate``, trust whom the operating system trusts, not certifi's bundle.

    That is where OpenSSL looks by default, or where SSL_CERT_FILE and SSL_CERT_DIR say.
    """

    ca_certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    validation: bool = True
    client_key_password: str | None = None

    def validate(self) -> None:
        """Check the values.

        Raises:
            ValueError: A file can't be read, there is a key without a certificate, or the password
                is no text; the message names the attribute.
        """
        if self.ca_certificate and self.ca_certificate != self.SYSTEM:
            _check_readable("ca_certificate", self.ca_certificate)
        if self.client_certificate:
            _check_readable("client_certificate", self.client_certificate)
        if self.client_key:
            _check_readable("client_key", self.client_key)
        if self.client_key and not self.client_certificate:
            raise ValueError("client_key: a key needs a client_certificate")
        password = self.client_key_password
        if password is not None and not isinstance(password, str):
            raise ValueError("client_key_password: must be a str or None")

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={_shown(value)}"
            for name, value in vars(self).items()
            # Not even whether there is one.
            if name != "client_key_password"
        )
        return f"SSL({shown})"


@dataclass(repr=False)
class User(Settings):
    """A user, for basic authentication (RFC 7617).

    Attributes:
        name (str | None): The user's name.
        password (str | None): The password; without one an empty password is sent.
    """

    name: str | None = None
    password: str | None = None

    _FORMS = "a User, a pair of a name and a password"

    @classmethod
    def _short(cls, value: object) -> Self | None:
        pair = value if isinstance(value, tuple | list) else ()
        if len(pair) == 2 and all(part is None or isinstance(part, str) for part in pair):
            return cls(*pair)
        return None

    def validate(self) -> None:
        """Check the values.

        Raises:
            ValueError: The name has a colon, which basic authentication can't express (RFC 7617
                section 2), or a value is no text.
        """
        for attribute, value in (("name", self.name), ("password", self.password)):
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{attribute}: must be a str or None")
        if ":" in (self.name or ""):
            raise ValueError("name: a user's name can't contain a colon")

    def __repr__(self) -> str:
        # A name without a password is often a token.
        return f"User(name={self.name!r})" if self.password else "User(...)"


@dataclass
class Timeout(Settings):
    """How long to wait, in seconds. None waits for ever.

    ``connect`` and ``read`` mean what they do in ``requests``: a server that sends a byte before
    every read time-out is waited for. The others are limits for that; they are off by default.

    Attributes:
        connect (float | None): For a connection, with each address of the host.
        read (float | None): For the next bytes. It isn't a limit for the whole download.
        total (float | None): For a whole run, with all its attempts and waits.
        least_speed (float | None): The least bytes a second, over each ``window``. An attempt that
            is slower is given up, and tried again like one whose connection broke.
        window (float): Over which time the speed is measured.
    """

    connect: float | None = 10
    read: float | None = 30
    total: float | None = None
    least_speed: float | None = None
    window: float = 30

    _FORMS = "a Timeout, a number of seconds, a pair (connect, read) of them"

    @classmethod
    def _short(cls, value: object) -> Self | None:
        pair = value if isinstance(value, tuple | list) else (value, value)
        if len(pair) == 2 and all(part is None or is_number(part) for part in pair):
            return cls(*pair)
        return None

    def validate(self) -> None:
        """Check the values.

        Raises:
            ValueError: A value is no number above 0; the message names the attribute.
        """
        for attribute, value in vars(self).items():
            if value is None and attribute != "window":
                continue
            check_number(attribute, value, most=LONGEST)


def copied(value: Any) -> Any:
    """Copy a value that can be changed in place, so that two objects don't share it.

    Args:
        value: Any value.

    Returns:
        A copy of settings and collections; any other value itself.
    """
    if isinstance(value, MutableMapping) and hasattr(value, "copy"):
        # The dict of requests has no __copy__: copy.copy() would share its items.
        return value.copy()
    is_mutable = isinstance(value, Settings | MutableMapping | MutableSequence | MutableSet)
    return copy.copy(value) if is_mutable else value


def check_number(name: str, value: object, most: float = math.inf) -> None:
    """Check a setting that is a number; None, for no limit, is the caller's to let through.

    Args:
        name: The name of the setting.
        value: Its value.
        most: The most that it may be.

    Raises:
        ValueError: It is no number above 0, or it is too large.
    """
    if not is_number(value) or not 0 < value <= most:
        raise ValueError(f"{name}: must be a number above 0, or None: {value!r}")


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is an int or a float.

    Args:
        value: Any value.
    """
    # A bool is an int, and True would be one second.
    return type(value) in _NUMBER or (isinstance(value, _NUMBER) and not isinstance(value, bool))


def _check_readable(attribute: str, value: str) -> None:
    if PEM in str(value):
        return
    try:
        with Path(value).open("rb"):
            return
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
    # Not within an except clause: the error there has the text, which may be a key.
    raise ValueError(f"{attribute}: can't read {_shown(value)}: {reason}")


def _shown(value: object) -> str:
    """A path; not what may be a certificate or a key, be it PEM or what is left of it."""
    if isinstance(value, str) and PEM in value:
        return "<PEM text>"
    if isinstance(value, str) and (
        "\n" in value or len(value) > _LONGEST_SHOWN or _BASE64.fullmatch(value.strip())
    ):
        return "<text>"
    return repr(value)
