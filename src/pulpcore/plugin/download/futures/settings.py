"""Settings that downloads have in common.

A constructor checks no values, because attributes may be set one by one afterwards. A run calls
``validate()`` before it sends anything. A download also accepts short forms: a number or a pair for
a ``Timeout``, and a pair for a ``User``.
"""

from __future__ import annotations

import copy
import math
import operator
import os
import re
import sys
import threading
import uuid
from collections.abc import MutableMapping, MutableSequence, MutableSet
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from ssl import SSLContext as TlsContext
from typing import Any, ClassVar, Self, TypeGuard

LONGEST = threading.TIMEOUT_MAX
"""The longest time-out that threads can wait for (seconds)."""

PEM = "-----BEGIN"
"""A value that contains this is PEM text and not the path of a PEM file."""

# A tuple, because ``int | float`` would create a union object at each use.
NUMBERS = (int, float)
"""The types of numbers. Comparing the exact type is faster than :func:`is_number`."""

# A key, or a part of one, without the BEGIN and END lines. Most long paths contain a character that
# base64 lacks, such as a dot. Hiding the others does no harm.
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{32,}")
_LONGEST_SHOWN = 255
"""Longer values aren't shown: they may be a key without its BEGIN line."""


class Settings:
    """The base class of all settings. Their repr shows no secret.

    They compare by value, except for :class:`Limits`.
    """

    @classmethod
    def of(cls, value: object) -> Self:
        """Convert the argument of a download to this setting.

        Args:
            value: A setting, a short form of it, or None for the defaults.

        Returns:
            The same setting, or a new one.

        Raises:
            TypeError:
                The value is none of these. The message has the name of the argument, and not the
                value.
        """
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        made = cls._short(value)
        if made is None:
            forms = f"{cls._FORMS}, or None, not {type(value).__name__}"
            raise TypeError(f"{cls.__name__.lower()}: must be {forms}")
        return made

    _FORMS: ClassVar[str] = ""

    @classmethod
    def _short(cls, value: object) -> Self | None:
        """Create a setting from a short form. Return None if the value isn't one."""

    def validate(self) -> None:
        """Check the values.

        Raises:
            ValueError: A value is invalid. The message names the attribute.
        """

    def portable(self) -> Self:
        """Return settings that mean the same in a process with another working directory."""
        return self


@dataclass(repr=False)
class SSL(Settings):
    """The TLS settings: which servers to trust, and the client certificate.

    Each certificate and the key is the path of a PEM file, or PEM text. PEM text is never written
    to the disk.

    Attributes:
        ca_certificate (str | None):
            The CA certificates to trust instead of the default ones. It has precedence over
            REQUESTS_CA_BUNDLE. ``SSL.SYSTEM`` for the certificates that the operating system
            trusts.
        client_certificate (str | None):
            The client certificate. The PEM may also contain the key.
        client_key (str | None):
            The key of the client certificate.
        validation (bool):
            False disables certificate verification, only for the downloads that have this setting.
        client_key_password (str | None):
            The password of an encrypted key. OpenSSL never prompts for one at the terminal.
        context (ssl.SSLContext | None):
            A TLS context of your own, used as it is for the URL's own origin. The other attributes
            then count for other hosts and for an https proxy.
    """

    _FORMS = "an SSL"

    SYSTEM: ClassVar[str] = "<system>"
    """A value of ``ca_certificate``: trust the operating system's certificates, not certifi's.

    OpenSSL loads them from its default paths, or from SSL_CERT_FILE and SSL_CERT_DIR.
    """

    ca_certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    validation: bool = True
    client_key_password: str | None = None
    context: TlsContext | None = None

    def validate(self) -> None:
        """Check the values.

        Raises:
            ValueError:
                A file can't be read, there is a key without a certificate, or the password isn't a
                str. The message names the attribute.
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

    def portable(self) -> Self:
        """Return settings with absolute paths."""
        paths = {
            name: os.path.abspath(value)
            for name in ("ca_certificate", "client_certificate", "client_key")
            if (value := getattr(self, name)) and value != self.SYSTEM and PEM not in str(value)
        }
        return replace(self, **paths) if paths else self

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={_shown(value)}"
            for name, value in vars(self).items()
            # The repr doesn't even show whether there is a password.
            if name not in ("client_key_password", "context")
        )
        return f"SSL({shown})"


@dataclass(repr=False)
class User(Settings):
    """The credentials for basic authentication (RFC 7617).

    Attributes:
        name (str | None):
            The user's name.
        password (str | None):
            The password. None sends an empty password.
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
            ValueError:
                The name contains a colon, which basic authentication uses as the separator (RFC
                7617 section 2), or a value isn't a str.
        """
        if self.name is self.password is None:
            return
        for attribute, value in (("name", self.name), ("password", self.password)):
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{attribute}: must be a str or None")
        if ":" in (self.name or ""):
            raise ValueError("name: a user's name can't contain a colon")

    def __repr__(self) -> str:
        # A name without a password is often an access token.
        return f"User(name={self.name!r})" if self.password else "User(...)"


@dataclass
class Timeout(Settings):
    """The time-outs, in seconds. None disables one.

    ``connect`` and ``read`` mean the same as in ``requests``: a server that sends one byte within
    each read time-out can keep a download running. ``total`` and ``least_speed`` limit that. They
    are off by default.

    Attributes:
        connect (float | None):
            The time to connect, for all addresses of the host together, without the name look-up.
        read (float | None):
            The time until the next bytes arrive, not the time of the whole download.
        total (float | None):
            The time of a whole run, with all its attempts and back-offs.
        least_speed (float | None):
            The minimum speed in bytes a second, averaged over ``window``. A slower attempt is
            cancelled, and retried like one whose connection broke.
        window (float):
            The period over which the speed is averaged (seconds).
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
            ValueError: A value isn't a number above 0. The message names the attribute.
        """
        if _timeouts(self) == _USUAL:
            return
        for attribute, value in vars(self).items():
            if value is None and attribute != "window":
                continue
            check_number(attribute, value, most=LONGEST)


# Unlike vars() it makes no dict, which the object would keep.
_timeouts = operator.attrgetter(*(each.name for each in fields(Timeout)))
# Most downloads have these, which need no check.
_USUAL = _timeouts(Timeout())


@dataclass(eq=False)
class Limits(Settings):
    """Limits that many downloads share. None means no limit.

    The downloads that have the same object share its limits: those of a batch with ``limits=``, and
    those whose attribute ``limits`` it is. A download with two objects keeps the limits of both.
    Copying the object returns the object itself, so a clone shares the limits of its original. In
    another process, each limit holds for that process.

    Attributes:
        bandwidth (float | None):
            How many bytes a second the downloads receive, all together.
        per_host (int | None):
            How many connections to one scheme, host and port are open at a time. Idle connections
            count, and are closed to make room. A download that waits for a connection occupies no
            thread of a batch.
        in_flight (int | None):
            How many bytes the downloads of a batch may have fetched, or be about to fetch, before
            their plans are handed back. A plan is handed back when you ask for the next one. A
            download whose size isn't known counts with what it has fetched. One download of each
            batch may always begin, however large it is, and a download that has begun never waits.
            Downloads that you call yourself don't count.
    """

    _FORMS = "a Limits"

    bandwidth: float | None = None
    per_host: int | None = None
    in_flight: int | None = None
    shared: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
    """The state of the limits. The engine keeps it here, so that it lives as long as the object."""

    def validate(self) -> None:
        """Check the values.

        Raises:
            ValueError:
                A value isn't a number above 0, or ``per_host`` or ``in_flight`` isn't an int. The
                message names the attribute.
        """
        if self.bandwidth is not None:
            check_number("bandwidth", self.bandwidth, most=sys.float_info.max)
        for name, value in (("per_host", self.per_host), ("in_flight", self.in_flight)):
            if value is not None:
                check_number(name, value)
                if not isinstance(value, int):
                    raise ValueError(f"{name}: must be a whole number, or None: {value!r}")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process gets the same limits with each chunk of a batch, and must share them
        # among these.
        identity = self.shared.setdefault("identity", uuid.uuid4().hex)
        values = {name: value for name, value in vars(self).items() if name != "shared"}
        return _unpickled, (type(self), identity, values)


# The limits that came from other processes lately, by their identity.
_foreign: dict[str, Limits] = {}
_FOREIGN_MOST = 64


def _unpickled(kind: type[Limits], identity: str, values: dict[str, Any]) -> Limits:
    found = _foreign.setdefault(identity, kind.__new__(kind))
    vars(found).setdefault("shared", {"identity": identity})
    vars(found).update(values)
    for old in list(_foreign)[:-_FOREIGN_MOST]:
        _foreign.pop(old, None)
    return found


# The types of most values that never need a copy. Checking for abstract classes takes longer.
_IMMUTABLE = frozenset({bool, bytes, float, int, str, tuple, type(None)})


def copied(value: Any) -> Any:
    """Copy a mutable value, so that two objects don't share it.

    Args:
        value: Any value.

    Returns:
        A copy of settings and collections; any other value itself.
    """
    if type(value) in _IMMUTABLE:
        return value
    if isinstance(value, MutableMapping) and hasattr(value, "copy"):
        # CaseInsensitiveDict of requests has no __copy__, so copy.copy() would share its items.
        return value.copy()
    is_mutable = isinstance(value, Settings | MutableMapping | MutableSequence | MutableSet)
    return copy.copy(value) if is_mutable else value


def check_number(name: str, value: object, most: float = math.inf) -> None:
    """Check a setting that is a number. The caller handles None.

    Args:
        name:
            The name of the setting.
        value:
            Its value.
        most:
            The largest value allowed.

    Raises:
        ValueError: The value isn't a number above 0, or is too large.
    """
    is_valid = type(value) in NUMBERS or is_number(value)
    if not is_valid or not 0 < value <= most:  # type: ignore[operator]
        raise ValueError(f"{name}: must be a number above 0, or None: {value!r}")


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is an int or a float, and not a bool.

    Args:
        value: Any value.
    """
    # bool is a subclass of int, so True would be accepted as one second.
    return type(value) in NUMBERS or (isinstance(value, NUMBERS) and not isinstance(value, bool))


def _check_readable(attribute: str, value: str) -> None:
    if PEM in str(value):
        return
    try:
        with Path(value).open("rb"):
            return
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
    # Raised outside the except clause: its context would hold the text, which may be a key.
    raise ValueError(f"{attribute}: can't read {_shown(value)}: {reason}")


def _shown(value: object) -> str:
    """Return a path for a message. Hide a text that may be a certificate or a key."""
    if isinstance(value, str) and PEM in value:
        return "<PEM text>"
    if isinstance(value, str) and (
        "\n" in value or len(value) > _LONGEST_SHOWN or _BASE64.fullmatch(value.strip())
    ):
        return "<text>"
    if not isinstance(value, str | os.PathLike | bool | None):
        # Such as a key that was given as bytes.
        return f"<{type(value).__name__}>"
    return repr(value)
