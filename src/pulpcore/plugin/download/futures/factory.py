"""Builds downloads from a URL and the settings of a Pulp importer or remote."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, overload
from urllib.parse import unquote

from requests.structures import CaseInsensitiveDict

from . import redact
from .download import Download
from .error import ValidationError
from .file import FileDownload
from .ftp import FtpDownload
from .ftp.location import without_type_code
from .http import HttpDownload
from .http.check import auth_of
from .http.options import Auth
from .mirrors import Mirrors
from .rate import RateLimiter
from .settings import SSL, Timeout, User
from .storage.staging import is_reserved
from .validation import DigestValidation, SizeValidation, Validation
from .writer import FileWriter, StrPath

CONCURRENT = 4
"""The default of :attr:`Factory.concurrent`."""

_LONGEST_NAME = 255
# The scheme and the path of a URL (RFC 3986 appendix B). The pattern matches any text.
_PARTS = re.compile(r"(?:([^:/?#]+):)?(?://[^/?#]*)?([^?#]*)")
_IGNORED = dict.fromkeys(map(ord, "\t\r\n"))
_IGNORED_AT_FIRST = "".join(map(chr, range(33)))


class _OnFactory(Protocol):
    """The type of ``build`` on an instance."""

    def __call__(
        self, url: str, path: StrPath | None = None, artifact: Any = None
    ) -> Download[FileWriter]:
        """Build a download."""


class _OnClass(Protocol):
    """The type of ``build`` on the class."""

    def __call__(
        self, url: str, importer: Any = None, path: StrPath | None = None, artifact: Any = None
    ) -> Download[FileWriter]:
        """Build a download."""


class _Build:
    """A descriptor: ``build`` is a method, and on the class it takes the importer as an argument.

    Plugins of 2017 call ``Factory.build(url, importer)``.
    """

    def __init__(self, function: Callable[..., Download[FileWriter]]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, factory: None, cls: type[Factory]) -> _OnClass: ...

    @overload
    def __get__(self, factory: Factory, cls: type[Factory]) -> _OnFactory: ...

    def __get__(self, factory: Factory | None, cls: type[Factory]) -> _OnFactory | _OnClass:
        if factory is not None:
            return functools.partial(self._function, factory)

        @functools.wraps(self._function)
        def build(
            url: str, importer: Any = None, path: StrPath | None = None, artifact: Any = None
        ) -> Download[FileWriter]:
            return cls(importer).build(url, path, artifact)

        return build


class Factory:
    """Builds downloads with the settings of an importer or remote.

    The importer is any object with some of these attributes. A missing attribute means the default:

    * The attributes of importers of 2017: ``ssl_ca_certificate``, ``ssl_client_certificate``,
      ``ssl_client_key`` (files with a ``name``), ``ssl_validation``, ``proxy_url``, ``username``
      and ``password`` (or ``basic_auth_user`` and ``basic_auth_password``), ``validate``.
    * The attributes of remotes: ``ca_cert``, ``client_cert``, ``client_key`` (PEM text),
      ``tls_validation``, ``proxy_url``, ``proxy_username``, ``proxy_password``, ``username``,
      ``password``, ``headers`` (a list of dicts), ``connect_timeout``, ``sock_connect_timeout``,
      ``sock_read_timeout``, ``total_timeout``, ``max_retries``, ``rate_limit`` (requests a second,
      shared by the downloads of one factory). A time-out of 0 disables it.

    An invalid value of the importer or the artifact raises no error in :meth:`build`, where it
    would end the whole sync. The download fails when it runs.

    Use ``allowed_paths`` and ``public_only`` for untrusted URLs. Both are off by default, and
    neither implies the other.

    Attributes:
        importer (Any):
            The importer or remote.
        allowed_paths (Sequence[str | os.PathLike[str]] | None):
            The folders in which the files of ``file:///`` URLs must be (see :class:`FileDownload`).
            An empty list forbids such URLs.
        public_only (bool):
            Connect to public addresses only (see :class:`HttpDownload`). ``ftp`` and ``ftps`` URLs
            are refused then.
        mirrors (Mirrors | None):
            The mirrors of relative URLs.
        auth (Callable[[requests.PreparedRequest], requests.PreparedRequest] | None):
            Adds credentials to each request by http and https (see :class:`HttpDownload`). It has
            precedence over ``username`` and ``password`` of the importer.
    """

    def __init__(
        self,
        importer: Any = None,
        allowed_paths: Sequence[str | os.PathLike[str]] | None = None,
        public_only: bool = False,
        mirrors: Mirrors | Iterable[str] | None = None,
        auth: Auth | None = None,
    ) -> None:
        """Store the settings, and create the rate limiter that the downloads share.

        Args:
            importer: The importer or remote; None for the defaults.
            allowed_paths: The folders in which the files of ``file:///`` URLs must be.
            public_only: Connect to public addresses only.
            mirrors: Mirrors of a tree, or their base URLs. A relative URL becomes a download from
                the first one, with the others as its mirrors.
            auth: A callable that adds credentials to each request by http and https.

        Raises:
            ValueError: A base URL of the mirrors can't be used.
            TypeError: ``auth`` can't be called.
        """
        self.importer = importer
        self.allowed_paths = allowed_paths
        self.public_only = public_only
        self.auth = auth_of(auth)
        is_ready = mirrors is None or isinstance(mirrors, Mirrors)
        self.mirrors: Mirrors | None = mirrors if is_ready else Mirrors(mirrors)  # type: ignore[arg-type, assignment]
        limit = _get(importer, "rate_limit")
        self._rate_limiter = _or_as_given(RateLimiter, limit) if limit else None

    @property
    def concurrent(self) -> int:
        """The remote's ``download_concurrency``, or 4, for ``Batch(concurrent=)``."""
        number: int = _get(self.importer, "download_concurrency") or CONCURRENT
        return number

    @_Build
    def build(
        self, url: str, path: StrPath | None = None, artifact: Any = None
    ) -> Download[FileWriter]:
        """Build a download.

        ``Factory.build(url, importer, path, artifact)`` does the same in one call.

        Args:
            url:
                The URL; its scheme decides on the kind of download.
            path:
                The path of the file to write, absolute or relative to the working directory.
                Folders are made, and an existing file is replaced. None for the last part of the
                URL's path, in the working directory.
            artifact:
                Any object with some of ``size`` and the digests' names as attributes; the content
                is validated by its size and its strongest digest, unless ``importer.validate`` is
                false.

        Returns:
            The download, ready to be called.

        Raises:
            ValueError:
                The scheme isn't supported, ``path`` is missing and the URL has no usable file name,
                or ``public_only`` is set and the scheme doesn't support it. A URL that is invalid
                in another way fails when the download runs.
        """
        scheme = _split(str(url))[0]
        mirrors: Sequence[str] = ()
        if not scheme and self.mirrors is not None:
            mirrors = self.mirrors.urls(url)
            # Not that of the best base: credentials go to the first one only.
            url = self.mirrors.url(url)
            scheme = _split(url)[0]
        builder = self._BUILDERS.get(scheme)
        if builder is None:
            known = ", ".join(self._BUILDERS)
            shown = redact.scheme(str(url)) or ""
            raise ValueError(f"no download serves the scheme {shown!r}: use one of {known}")
        writer = FileWriter(_path(str(url)) if path is None else path)
        download: Download[FileWriter] = builder(self, url, writer)
        if mirrors:
            download.mirrors = tuple(mirrors)
        if artifact is not None and _get(self.importer, "validate", True):
            download.validations.extend(_validations(artifact))
        return download

    @classmethod
    def serves(cls, url: str) -> bool:
        """Return whether the scheme of a URL is supported.

        Args:
            url: The URL.
        """
        return _split(url)[0] in cls._BUILDERS

    def _http(self, url: str, writer: FileWriter) -> Download[FileWriter]:
        importer = self.importer
        download = HttpDownload(
            url,
            writer,
            timeout=self._timeout(),
            user=self._user(),
            ssl=self._ssl(),
            public_only=self.public_only,
            auth=self.auth,
        )
        # Set after the constructor, which raises for a wrong type. The run raises for it instead.
        download.proxy_url = _proxy(importer)
        headers = _headers(importer)
        download.headers = CaseInsensitiveDict(headers) if isinstance(headers, dict) else headers
        return self._configure(download)

    def _ftp(self, url: str, writer: FileWriter) -> Download[FileWriter]:
        if self.public_only:
            raise ValueError(
                f"public_only: {redact.scheme(url)}:// URLs can't be limited to public addresses"
            )
        download = FtpDownload(
            url, writer, user=self._user(), timeout=self._timeout(), ssl=self._ssl()
        )
        return self._configure(download)

    def _file(self, url: str, writer: FileWriter) -> Download[FileWriter]:
        download = FileDownload(url, writer, self.allowed_paths)
        # Only ``total`` and ``least_speed`` have an effect on files.
        download.timeout = self._timeout()
        return download

    _BUILDERS: ClassVar = {"http": _http, "https": _http, "ftp": _ftp, "ftps": _ftp, "file": _file}

    def _user(self) -> User | None:
        name = _get(self.importer, "username", _get(self.importer, "basic_auth_user"))
        password = _get(self.importer, "password", _get(self.importer, "basic_auth_password"))
        return User(name, password) if name or password else None

    def _ssl(self) -> SSL:
        importer = self.importer
        return SSL(
            _pem(importer, "ssl_ca_certificate", "ca_cert"),
            _pem(importer, "ssl_client_certificate", "client_cert"),
            _pem(importer, "ssl_client_key", "client_key"),
            bool(_get(importer, "ssl_validation", _get(importer, "tls_validation", True))),
        )

    def _timeout(self) -> Timeout:
        def least(default: float | None, *names: str) -> Any:
            given = [each for name in names if (each := _get(self.importer, name)) is not None]
            limits = [seconds for seconds in given if seconds != 0]
            # A value that isn't a number sorts first, so that the run raises for it.
            limits.sort(key=lambda each: each if isinstance(each, int | float) else -math.inf)
            return limits[0] if limits else None if given else default

        timeout = Timeout()
        timeout.connect = least(timeout.connect, "connect_timeout", "sock_connect_timeout")
        timeout.read = least(timeout.read, "sock_read_timeout")
        timeout.total = least(timeout.total, "total_timeout")
        return timeout

    def _configure(
        self, download: HttpDownload[FileWriter] | FtpDownload[FileWriter]
    ) -> Download[FileWriter]:
        """Set the rate limiter and the retry policy, which HTTP and FTP share."""
        download.rate_limiter = self._rate_limiter
        retries = _get(self.importer, "max_retries")
        if retries is not None and download.retry is not None:
            is_number = isinstance(retries, int) and retries >= 0
            download.retry = download.retry.new(total=retries) if is_number else retries
        return download


class _Impossible(Validation):
    """Fails always: the size or digest in the metadata is invalid, so no content matches it."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    def update(self, buffer: bytes) -> None:
        """Fail the download at its first bytes.

        Raises:
            ValidationError: Always.
        """
        self.apply()

    def reset(self) -> None:
        """Do nothing: there is no state."""

    def apply(self) -> None:
        """Fail the download.

        Raises:
            ValidationError: Always.
        """
        raise ValidationError(f"what is expected of the content can't be right: {self._reason}")


def _or_as_given(make: Callable[[Any], Any], value: Any) -> Any:
    """Convert a value. Return an invalid one unchanged: the run raises for it by name."""
    try:
        return make(value)
    except ValueError:
        return value


def _get(importer: Any, name: str, default: Any = None) -> Any:
    """Return an attribute, or the default if it is missing, None or an empty str."""
    value = getattr(importer, name, None)
    return default if value is None or value == "" else value


def _pem(importer: Any, file: str, text: str) -> str | None:
    """Return the path of a file (a Django FileField, which is false when empty), or PEM text."""
    value = getattr(importer, file, None)
    path = getattr(value, "name", value)
    if path:
        return str(path)
    pem: str | None = _get(importer, text)
    return pem


def _proxy(importer: Any) -> str | None:
    url: str | None = _get(importer, "proxy_url")
    name = _get(importer, "proxy_username")
    if not isinstance(url, str) or name is None:
        return url
    scheme, separator, rest = url.rpartition("://")
    userinfo = f"{_quote(name)}:{_quote(_get(importer, 'proxy_password', ''))}"
    return f"{scheme or 'http'}{separator or '://'}{userinfo}@{rest.rpartition('@')[2]}"


def _quote(text: Any) -> str:
    return "".join(f"%{byte:02X}" for byte in str(text).encode())


def _headers(importer: Any) -> Any:
    headers = _get(importer, "headers", [])
    if not isinstance(headers, list | tuple) or not all(isinstance(h, dict) for h in headers):
        return headers
    return {name: value for header in headers for name, value in header.items()}


def _validations(artifact: Any) -> list[Validation]:
    validations = []
    size = getattr(artifact, "size", None)
    if size is not None and size != "":
        validations.append(_validation(_size, size))
    for algorithm in DigestValidation.ALGORITHMS:
        digest = getattr(artifact, algorithm, None)
        if digest:
            validations.append(_validation(DigestValidation, algorithm, digest))
            break
    return validations


def _validation(make: Callable[..., Validation], *expected: Any) -> Validation:
    try:
        return make(*expected)
    except (ValueError, TypeError, OverflowError) as error:
        return _Impossible(str(error))


def _size(expected: Any) -> SizeValidation:
    # int() alone would accept True as 1, and 1.5 as 1.
    is_whole = not isinstance(expected, bool) and int(expected) == float(expected)
    return SizeValidation(int(expected) if is_whole else expected)


def _split(url: str) -> tuple[str, str]:
    """Return the scheme of a URL and the last segment of its path. Accepts an invalid URL."""
    # The same result as urllib.parse, which raises an error if the host is invalid.
    found = _PARTS.match(url.lstrip(_IGNORED_AT_FIRST).translate(_IGNORED))
    scheme, path = found.groups("")  # type: ignore[union-attr]
    scheme, last = scheme.lower(), path.rpartition("/")[2]
    return scheme, without_type_code(last) if scheme in ("ftp", "ftps") else last


def file_name(url: str) -> str:
    """Return the name of a file that a URL gives: the last part of its path, decoded.

    Args:
        url: The URL.

    Raises:
        ValueError: There is none, or it can't be used.
    """
    problem = None
    try:
        name = unquote(_split(url)[1], errors="strict")
        if name in ("", ".", ".."):
            problem = "there is none"
        elif any(c in name for c in "/\\"):
            problem = "it would have a separator"
        elif any(c < " " or c == "\x7f" for c in name):
            problem = "it would have a control character"
        elif is_reserved(name):
            problem = "it is reserved for staging files"
        elif len(os.fsencode(name)) > _LONGEST_NAME:
            problem = f"it is longer than {_LONGEST_NAME} bytes"
    except UnicodeError:
        problem = "it is no UTF-8, or can't be encoded here"
    if problem is not None:
        # Raised outside the except clause: its context would hold the text, which may be secret.
        raise _nameless(url, problem)
    return name


def _nameless(url: str, problem: str) -> ValueError:
    return ValueError(
        f"no name of a file can be taken from the URL: {problem}; give a path ({redact.url(url)})"
    )


def _path(url: str) -> str:
    folder, name = Path.cwd(), file_name(url)
    if not _stays(folder, folder / name):
        problem = "there is a link of that name which leads out of the working directory"
        raise _nameless(url, problem)
    return str(folder / name)


def _stays(folder: Path, path: Path) -> bool:
    """Whether a path lies in a folder after its links have been resolved."""
    real = os.path.realpath(folder)
    return not path.is_symlink() or os.path.commonpath((real, os.path.realpath(path))) == real
