"""Downloading by HTTP."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING

import requests
from requests.structures import CaseInsensitiveDict

from ..download import Download
from ..engine import backoff
from ..error import DownloadError, DownloadFailed, transient
from ..net.url import parse
from ..settings import SSL, Settings, Timeout, User, check_number
from . import coding, condition, failure, resume
from .exchange import Exchange
from .quiet import quiet
from .redirect import SCHEMES
from .wire.reply import drain, header, length, reader, was_taken

if TYPE_CHECKING:
    from urllib3.util import Retry

    from ..writer import StrPath, Writer

METHODS = ("GET", "HEAD")

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTENT = frozenset({200, 203})
_FILE = _CONTENT | {206}
# What is replied when the host, or what is behind it, is down.
_DOWN = frozenset({429, 502, 503, 504})


class HttpDownload(Download):
    """Downloads a file by HTTP, from ``http://`` and ``https://`` URLs.

    The bytes that are written are those that the server published: a published ``.gz`` isn't
    unpacked. See :mod:`~pulpcore.plugin.download.futures.http.coding` for servers that encode
    unasked.

    Attributes:
        method (str): GET or HEAD. HEAD brings a reply and no content.
        timeout (Timeout): How long to wait.
        user (User): The user, for basic authentication. It goes to the URL's own scheme, host and
            port only, and so do the client certificate and what the headers Authorization, Cookie
            and Proxy-Authorization say. An Authorization header wins over it; it wins over userinfo
            in the URL, and that over a netrc file. Only without all of these a netrc file counts,
            for the URL's host and, where it names them, for other hosts that it is redirected to.
        ssl (SSL): TLS settings.
        proxy_url (str | None): The URL of a proxy for http and https, in which there may be
            credentials. None for what the environment says.
        headers (MutableMapping[str, str]): Headers to send beside or instead of our own.
        insecure_redirects (bool): Follow redirects from https to http also where no digest
            validates the content.
        public_only (bool): Connect to public addresses only, also where redirected to: not to those
            of this machine, of private networks, or of the link (see
            :func:`~pulpcore.plugin.download.futures.address.is_public`). What counts is the address
            of the connection, which is ended before anything is sent. Through a proxy that can't be
            known: where one is to be used, the download fails.
        expansion_max (float | None): How many times as large as what was sent the content may
            become, where the server encoded it unasked; None for any size. It doesn't count up to
            64 MiB, nor up to the size that a validation expects.
        known_etag (str | None): The ETag of the version that stands at the target, as :attr:`etag`
            had it after the run that brought it. The server is asked for any other version only
            (``If-None-Match``). None or '' if you know of none. Where the file of a
            :class:`~pulpcore.plugin.download.futures.FileWriter` is missing it comes in any case.
        known_last_modified (str | None): The same with :attr:`last_modified`
            (``If-Modified-Since``). Give both if you have both: the ETag wins, and the date is for
            servers without one. A date has whole seconds: a second change within one isn't seen.
        reply (requests.Response | None): The server's reply.
    """

    retry: Retry | None = backoff.DEFAULT
    expansion_max: float | None = 200
    timeout: Timeout
    _last_reply: requests.Response | None = None
    _is_unchanged = False
    # The validator of the version whose first bytes are here.
    _version: resume.Version | None = None
    # What the server says of the version that comes.
    _validators = condition.Validators()

    def __init__(
        self,
        url: str,
        writer: Writer | StrPath | None,
        method: str = "GET",
        timeout: Timeout | float | tuple[float | None, float | None] | None = None,
        user: User | tuple[str, str] | None = None,
        ssl: SSL | None = None,
        proxy_url: str | None = None,
        headers: Mapping[str, str] | None = None,
        insecure_redirects: bool = False,
        public_only: bool = False,
        known_etag: str | None = None,
        known_last_modified: str | None = None,
    ) -> None:
        """Make a download.

        Args:
            url: An http or https URL.
            writer: Where the content goes: a writer, or the path of a file. None for nowhere.
            method: GET or HEAD, in any case.
            timeout: How long to wait; None for the defaults of :class:`Timeout`. A number of
                seconds counts for ``connect`` and ``read``; a pair gives one for each.
            user: The user, for basic authentication; also a pair of a name and a password.
            ssl: TLS settings; None for the defaults of :class:`SSL`.
            proxy_url: The URL of a proxy; None for what the environment says.
            headers: Headers to send beside or instead of our own.
            insecure_redirects: Follow redirects from https to http also where no digest validates
                the content.
            public_only: Connect to public addresses only.
            known_etag: The ETag of the version that stands at the target.
            known_last_modified: The Last-Modified of the version that stands at the target.

        Raises:
            ValueError: The method is another one.
            TypeError: An argument has a wrong type; the message names it.
        """
        super().__init__(url, writer)
        self.method = _method(method)
        self.timeout = Timeout.of(timeout)
        self.user = User.of(user)
        self.ssl = SSL.of(ssl)
        self.proxy_url = _proxy(proxy_url)
        self.headers: MutableMapping[str, str] = _headers(headers)
        self.insecure_redirects = insecure_redirects
        self.public_only = public_only
        self.known_etag = known_etag
        self.known_last_modified = known_last_modified

    @property
    def status(self) -> int:
        """The status of the last reply; 0 before there is one."""
        return self._status()

    @property
    def unchanged(self) -> bool:
        """Whether the server has the known version still (304), a success that brings nothing.

        The file at the target isn't touched; any other writer is empty. There are no Fetched
        events, and so no facts in a monitor. Validations are not applied: they saw nothing.

        It is the answer to :attr:`known_etag` and :attr:`known_last_modified`. Where there is
        ``If-None-Match`` or ``If-Modified-Since`` among your own :attr:`headers`, that is sent
        instead, whatever stands at the target. A 304 that nobody asked for is a failure.
        """
        return self._is_unchanged

    @property
    def etag(self) -> str | None:
        """The ETag of the version that the last run brought or found unchanged, to remember it.

        None if the server tells none, and unless the run succeeded. After a HEAD it is that of the
        version that would have come.
        """
        return self._validators.etag if self._run.is_done else None

    @property
    def last_modified(self) -> str | None:
        """The Last-Modified of that version, as the server wrote it; None as for :attr:`etag`."""
        return self._validators.last_modified if self._run.is_done else None

    @property
    def session(self) -> requests.Session:
        """The session for this destination and these settings, from the context's cache.

        Raises:
            ValueError: The URL or a setting isn't usable.
        """
        return Exchange(self, {}, self._connect_timeout).route(self.url).session

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self}>"

    # What the life of a download asks.

    def _settings_to_check(self) -> Iterable[tuple[str, Settings | None]]:
        return (("timeout", self.timeout), ("user", self.user), ("ssl", self.ssl))

    def _forget_reply(self) -> None:
        super()._forget_reply()
        self._note_reply(None)
        self._version = None

    def _check_settings(self) -> None:
        if type(self.method) is not str or self.method not in METHODS:
            self.method = _method(self.method)
        # A handler may have set them to anything that requests would take, or to None.
        self.timeout = self.timeout or Timeout()
        self.user = self.user or User()
        self.ssl = self.ssl or SSL()
        if not isinstance(self.headers, CaseInsensitiveDict):
            self.headers = CaseInsensitiveDict(self.headers or {})
        try:
            parse(self.url, SCHEMES)
        except ValueError as error:
            raise ValueError(f"url: {error}") from error
        if self.headers:
            self._check_headers()
        if self.expansion_max is not None:
            check_number("expansion_max", self.expansion_max)
        if self.known_etag is not None:
            _check_text(f"known_etag: the header {condition.ETAG!r}", self.known_etag)
        if self.known_last_modified is not None:
            _check_text(
                f"known_last_modified: the header {condition.LAST_MODIFIED!r}",
                self.known_last_modified,
            )

    def _check_headers(self) -> None:
        for number, (name, value) in enumerate(self.headers.items(), start=1):
            _check_header(number, name, value)
        if any(type(name) is not str for name in self.headers):
            # They are looked for by name, and what isn't found is no secret.
            self.headers = CaseInsensitiveDict(
                {_text(name): value for name, value in self.headers.items()}
            )

    def _has_content(self) -> bool:
        return self.method != "HEAD" and not self._is_unchanged

    def _can_resume(self) -> bool:
        return self._known_version() is not None

    def _recognizes(self, note: str) -> bool:
        if not self._has_content() or self._own_range() or "Accept-Encoding" in self.headers:
            return False
        self._version = resume.Version.from_note(note, self.url)
        if self._version is None:
            return False
        self._validators = condition.Validators.named(self._version.validator)
        return True

    def _host(self) -> Hashable:
        return parse(self.url, SCHEMES).origin

    def _is_up(self, error: DownloadError) -> bool | None:
        status = self._status()
        if error.retry_after is not None:
            # Who says when to come again lives.
            return True
        if not status:
            return super()._is_up(error)
        return status not in _DOWN or not error.transient

    def _status(self) -> int:
        return 0 if self._last_reply is None else self._last_reply.status_code

    def _send(self) -> None:
        self._note_reply(None)
        with quiet():
            reply, urls = self._exchange()
            if self._is_outdated(reply):
                # Nothing of it is used, and nobody has to know: the file comes from its beginning.
                drain(reply)
                self._version = None
                self._start_over()
                reply, urls = self._exchange()
            try:
                self._expect(self._total(reply))
                self._announce(reply)
                self._accept(reply)
                self._note_life()
                for buffer in self._content(reply, urls):
                    self._write(buffer)
                self._check_whole()
            finally:
                # Gives the connection back, or closes it where the content wasn't read to its end.
                reply.close()

    def _exchange(self) -> tuple[requests.Response, list[str]]:
        """Return a reply, and the URLs that led to it."""
        headers = self._range() if self._position else self._condition()
        exchange = Exchange(self, headers, self._before_request)
        try:
            return exchange.run(), exchange.urls
        finally:
            self._note_reply(exchange.reply)

    def _note_reply(self, reply: requests.Response | None) -> None:
        self._last_reply = reply
        self._is_unchanged = reply is not None and condition.is_unchanged(reply)

    def _before_request(self) -> float | None:
        self._keep_to_rate()
        return self._connect_timeout()

    def _is_outdated(self, reply: requests.Response) -> bool:
        """Whether the rest was asked for, and a reply shows that there is another version now."""
        version = self._known_version()
        if not self._position or version is None:
            return False
        if reply.status_code == requests.codes.range_not_satisfiable:
            return True
        return reply.status_code == requests.codes.partial_content and not version.is_continued(
            reply, self._position
        )

    # From a reply to its content.

    def _accept(self, reply: requests.Response) -> None:
        """Let only a reply through that brings the file, from where we stand."""
        status = reply.status_code
        if self.unchanged:
            if self._position:
                # What is here was of another version. The caller's own headers ask each time.
                self._start_over()
            self._validators = condition.Validators.asked(reply).updated(reply)
            return
        if status in _CONTENT:
            if self._position:
                # Not the rest: another version, or a server that knows no ranges.
                self._start_over()
            self._validators = condition.Validators().updated(reply)
            self._version = self._version_of(reply)
            self._remember()
            return
        if status == requests.codes.partial_content:
            self._accept_part(reply)
            return
        drain(reply)
        retry_after = backoff.retry_after(header(reply, "Retry-After") or "")
        sent = {401: "Authorization" in reply.request.headers, 407: "@" in (self.proxy_url or "")}
        error = failure.from_status(status, retry_after, sent.get(status, False))
        forced = self.retry.status_forcelist if self.retry is not None else ()
        error.transient = status in forced
        raise error

    def _remember(self) -> None:
        """Have the writer keep what comes for a later run, if the version can be told."""
        if self.writer is None or not self.writer.resume:
            return
        note = None
        if self._version is not None and "Accept-Encoding" not in self.headers:
            note = self._version.note()
        try:
            self.writer.remember(note)
        except OSError as error:
            raise self._unwritable(error) from error

    def _version_of(self, reply: requests.Response) -> resume.Version | None:
        validator = resume.strong_validator(reply)
        return resume.Version(self.url, validator, self._run.total) if validator else None

    def _accept_part(self, reply: requests.Response) -> None:
        own = self._own_range()
        if own is not None:
            part = resume.content_range(reply)
            if part is not None and not resume.is_as_asked(own, part):
                raise DownloadFailed(
                    f"the part that came, bytes {part.first} to {part.last}, isn't the one that "
                    "the header Range asks for"
                )
            self._version = None
        elif not self._position:
            raise DownloadFailed("the server sent a part of the file, which was not asked for")
        known = self._validators if self._position else condition.Validators()
        self._validators = known.updated(reply)

    def _start_over(self) -> None:
        if not self._can_restart():
            raise DownloadFailed(
                "the file changed while it was downloaded, and can't be started again"
            )
        self._restart()

    def _total(self, reply: requests.Response) -> int | None:
        """The size of the content, as far as the head of the reply says it."""
        if reply.status_code == requests.codes.partial_content:
            part = resume.content_range(reply)
            if part is None:
                return None
            return part.total if self._own_range() is None else part.last - part.first + 1
        if not self._has_content() or header(reply, "Content-Encoding") is not None:
            return None
        return length(reply) if reply.status_code in _FILE else None

    def _content(self, reply: requests.Response, urls: list[str]) -> Iterator[bytes]:
        codings = []
        if not self._has_content():
            drain(reply)
            return
        if header(reply, "Content-Encoding") is not None and "Accept-Encoding" not in self.headers:
            try:
                codings = coding.to_undo(reply, (urls[0], urls[-1]), self.validations)
            except coding.CodingError as error:
                raise DownloadFailed(str(error)) from error
        if codings:
            # Positions in what is decoded say nothing about what is sent.
            self._version = None
            self._expect(None)
            self._remember()
            try:
                limit = coding.Limit(self.expansion_max, self.expected_size)
                yield from coding.decode(self._read(reply), codings, limit)
            except coding.CodingError as error:
                raise DownloadFailed(str(error)) from error
            return
        yield from self._read(reply)

    def _read(self, reply: requests.Response) -> Iterator[bytes]:
        # What is there and not all of a block: nothing is lost that came before a reset.
        read = reader(reply)
        size = 0
        while True:
            try:
                buffer = read(self.BLOCK)
            except failure.ANTICIPATED as error:
                raise failure.from_exception(error, self.url, reply.url or "") from error
            if not buffer:
                break
            size += len(buffer)
            yield buffer
        if not was_taken(reply, size):
            raise DownloadFailed(
                "somebody else has read of the reply or closed it, such as a handler: leave its "
                "body alone while the download runs"
            )

    def _check_whole(self) -> None:
        """See that it went up to the end that the head had said, however the body was framed."""
        whole = self._run.total
        if whole is not None and self._has_content() and self._position != whole:
            raise transient("what came is shorter or longer than the server said")

    def _known_version(self) -> resume.Version | None:
        """The version whose first bytes are here, if the rest may be asked for."""
        version = self._version
        if version is None or version.url != self.url or self._own_range() is not None:
            return None
        return version

    def _range(self) -> dict[str, str]:
        version = self._known_version()
        return {} if version is None else version.headers(self._position)

    def _condition(self) -> dict[str, str]:
        """What asks for any version but the known one; nothing where that isn't at the target."""
        headers = condition.Validators(self.known_etag, self.known_last_modified).headers()
        if not headers or any(name in self.headers for name in condition.HEADERS):
            return {}
        return {} if self.writer is not None and self.writer.is_missing() else headers

    def _own_range(self) -> str | None:
        value: str | bytes | None = self.headers.get("Range")
        return value.decode("latin-1") if isinstance(value, bytes) else value


def _method(value: object) -> str:
    method = str(value).upper()
    if method not in METHODS:
        raise ValueError(f"method: must be GET or HEAD, not {value!r}")
    return method


def _proxy(url: object) -> str | None:
    if url is None or isinstance(url, str):
        return url
    raise TypeError(f"proxy_url: must be a str or None, not {type(url).__name__}")


def _headers(headers: object) -> CaseInsensitiveDict[str]:
    if headers is None or isinstance(headers, Mapping):
        return CaseInsensitiveDict(headers or {})
    raise TypeError(f"headers: must be a mapping or None, not {type(headers).__name__}")


def _text(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _check_header(number: int, name: object, value: object) -> None:
    shown = name if isinstance(name, bytes) else str(name).encode()
    if _NAME.fullmatch(shown) is None:
        # Without it: a value may have been taken for a part of it.
        raise ValueError(f"headers: the name of number {number} is no name of a header")
    for text in (name, value):
        _check_text(f"headers: the header {name!r}", text)


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str | bytes):
        raise ValueError(f"{what} must have a str as its value")  # noqa: TRY004 - as validating does
    characters = text if isinstance(text, str) else text.decode("latin-1")
    if any(c in characters for c in "\r\n\0") or characters != characters.strip():
        raise ValueError(f"{what} has characters that can't be sent")
    if any(ord(c) > 255 for c in characters):
        raise ValueError(f"{what} has characters beyond Latin-1")
