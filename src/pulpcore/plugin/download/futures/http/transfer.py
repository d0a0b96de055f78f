"""One attempt of a download by HTTP: from the request to the content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import requests

from ..engine import backoff
from ..engine.attempt import Attempt
from ..error import DownloadFailed, transient
from ..validation import DigestValidation
from . import coding, condition, failure, parts, resume, splice
from .exchange import Exchange
from .options import Options
from .part import Origin
from .protocol import HttpProtocol, own_range
from .wire.adapter import Reply
from .wire.error import MissingCloseNotify
from .wire.reply import READ_BY_OTHERS, drain, header, of

_CONTENT = frozenset({200, 203})
_FILE = _CONTENT | {206}
_CHANGED = "the file changed while it was downloaded, and can't be started again"


class Transfer:
    """Sends the request of a download, and passes its content on."""

    def __init__(self, download: Options, attempt: Attempt, write: Callable[[bytes], None]) -> None:
        """Create a transfer.

        Args:
            download: The download.
            attempt: The attempt.
            write: Takes each buffer of the content.
        """
        self._download, self._attempt, self._write = download, attempt, write
        self._protocol: HttpProtocol = attempt.protocol  # type: ignore[assignment]
        self._total: int | None = None
        # What requested the rest of the file; None if the whole file was requested.
        self._asked: resume.Version | splice.Beginning | None = None
        self._source = attempt.source
        self._urls = [self._source]
        # The reply. A handler may change its headers.
        self._found: Reply
        self._has_content = True
        # Reads ahead over several connections, if the download allows them.
        self._parts: parts.Reader | None = None

    def run(self) -> None:
        """Fetch the file, or the rest of it.

        Raises:
            DownloadFailed: The file could not be fetched.
        """
        attempt, content = self._attempt, self._attempt.content
        protocol = self._protocol
        protocol.status, protocol.is_unchanged, protocol.source = 0, False, self._source
        asked = self._asked = protocol.rest(self._download) if content.position else None
        reply = self._exchange({} if asked is None else asked.headers(content.position))
        if asked is not None and self._is_refused(reply, asked):
            # Don't send Restarted yet: first request the whole file.
            drain(reply)
            protocol.refuse(asked)
            self._asked = None
            reply = self._exchange({})
        try:
            self._found = of(reply)
            self._total = self._total_of(reply)
            attempt.expect(self._total)
            attempt.announce(reply)
            self._accept(reply)
            attempt.note_life()
            for buffer in self._content(reply):
                # Look this up each time: it becomes None when the content turns out to need
                # decoding.
                total = self._total
                if total is not None and content.position + len(buffer) > total:
                    self._refuse_rest()
                self._write(buffer)
            if self._total not in (None, content.position) and self._has_content:
                raise transient("the content is shorter or longer than the server said")
            if self._parts is not None:
                protocol.source = self._parts.source
        finally:
            if self._parts is not None:
                self._parts.close()
            # This returns the connection to the pool, or closes it if the body wasn't read to its
            # end.
            reply.close()

    def _exchange(self, headers: dict[str, str]) -> requests.Response:
        download, attempt = self._download, self._attempt
        if not headers and (download.known_etag or download.known_last_modified):
            headers = condition.asked_for(download, self._source)
        answer: requests.Response | None = attempt.answer
        if answer is not None and not headers:
            # The reply to a pipelined request. It is a plain 200 with the whole file.
            attempt.answer = None
            self._protocol.note_reply(answer)
            return answer
        exchange = Exchange(
            download,
            headers,
            attempt.wait_for_turn,
            attempt.connect_timeout,
            self._source,
            attempt.limits,
            attempt.trace,
        )
        try:
            return exchange.run()
        finally:
            self._urls = exchange.urls
            self._protocol.note_reply(exchange.reply)
            self._has_content = self._protocol.has_content(download)

    def _expect(self, total: int | None) -> None:
        self._total = total
        self._attempt.expect(total)

    def _is_refused(
        self, reply: requests.Response, asked: resume.Version | splice.Beginning
    ) -> bool:
        """Return whether the reply to our Range is useless, so that we request the whole file.

        Transient errors, and statuses that demand credentials, are left to the engine.
        """
        status = reply.status_code
        if status == requests.codes.partial_content:
            return not asked.is_continued(reply, self._urls[-1], self._attempt.position)
        if status in _CONTENT:
            return not resume.is_whole(reply)
        policy = self._download.retry
        return status not in (401, 407) and (
            status not in backoff.TRANSIENT
            and (policy is None or status not in policy.status_forcelist)
        )

    def _accept(self, reply: requests.Response) -> None:
        """Raise unless the reply has the file from the current position."""
        protocol, status = self._protocol, reply.status_code
        if protocol.is_unchanged:
            # Drop any fetched bytes: they belong to another version. There are some only if the
            # caller's own headers make a resumed request conditional.
            self._attempt.start_over(_CHANGED)
            protocol.validators = condition.Validators.asked(reply).updated(reply)
        elif status in _CONTENT:
            if "content-range" in self._found.fields and not resume.is_whole(reply):
                raise DownloadFailed(
                    f"the server replied {status}, as for the whole file, and said that it brings "
                    "a part of it only (Content-Range)"
                )
            # The server sends the whole file: the version is another one, or the server doesn't
            # support ranges.
            self._attempt.start_over(_CHANGED)
            protocol.make_by(
                partial(condition.NOTHING.updated, reply),
                partial(resume.Version.of, reply, self._source, self._urls[-1], self._total),
            )
            if self._download.mirrors:
                protocol.beginning = splice.Beginning.of(
                    self._download, self._source, self._total, header(reply, "content-encoding")
                )
            self._remember()
        elif status == requests.codes.partial_content:
            self._accept_part(reply)
        else:
            drain(reply)
            raise failure.from_reply(reply, self._download)

    def _remember(self) -> None:
        """Have the writer keep the content for a later run, if its version is known."""
        writer = self._download.writer
        if writer is None or not writer.resume:
            return
        known = self._known()
        is_plain = "Accept-Encoding" not in self._download.headers
        self._attempt.note(known.note() if known is not None and is_plain else None)

    def _accept_part(self, reply: requests.Response) -> None:
        protocol, own = self._protocol, own_range(self._download)
        if own is not None:
            part = resume.content_range(reply)
            if part is None or not (
                resume.is_as_asked(own, part) and resume.is_one_part(reply, part)
            ):
                raise DownloadFailed(
                    "the part that came isn't the one that the header Range asks for, or doesn't "
                    "say so by its Content-Range"
                )
            protocol.version = protocol.beginning = None
        elif self._asked is None:
            raise DownloadFailed("the server sent a part of the file, which was not asked for")
        elif isinstance(self._asked, splice.Beginning):
            self._join()
            if self._found.length is None:
                protocol.beginning = None
                self._remember()
            return
        elif self._found.length is None:
            # The end of the body will show whether it has the length of its range. If it breaks off
            # earlier, the download can't be resumed.
            protocol.version = protocol.beginning = None
            self._remember()
        known = protocol.validators if self._attempt.position else condition.NOTHING
        protocol.validators = known.updated(reply)

    def _join(self) -> None:
        """Note that another source continues the content.

        Then no validator identifies the content any more, neither in this run nor in a later one.
        """
        if self._protocol.version is not None or not self._attempt.is_mixed:
            self._attempt.mix()
            self._protocol.version, self._protocol.validators = None, condition.NOTHING
            self._remember()

    def _total_of(self, reply: requests.Response) -> int | None:
        """Return the size of the content by the head of the reply; None if unknown."""
        if reply.status_code == requests.codes.partial_content:
            part = resume.content_range(reply)
            if part is None:
                return None
            return part.total if own_range(self._download) is None else part.last - part.first + 1
        if not self._has_content or "content-encoding" in self._found.fields:
            return None
        return self._found.length if reply.status_code in _FILE else None

    def _content(self, reply: requests.Response) -> Iterator[bytes]:
        if not self._has_content:
            drain(reply)
            return iter(())
        self._protocol.has_alternative = False
        if "content-encoding" in self._found.fields and (codings := self._codings(reply)):
            return self._decoded(reply, codings)
        return self._read_ahead(reply) if self._download.parts > 1 else self._read(reply)

    def _decoded(self, reply: requests.Response, codings: list[str]) -> Iterator[bytes]:
        # Positions in the decoded content don't tell positions in the encoded body.
        self._protocol.version = None
        self._expect(None)
        self._remember()
        try:
            limit = coding.Limit(self._download.expansion_max, self._download.expected_size)
            yield from coding.decode(self._read(reply), codings, limit)
        except coding.CodingError as error:
            raise DownloadFailed(str(error)) from error

    def _codings(self, reply: requests.Response) -> list[str]:
        """Return the codings to decode. Tell the engine if the encoded bytes may be the file."""
        download, protocol = self._download, self._protocol
        if (
            # The first bytes were written without decoding, and so are the next ones.
            self._attempt.content.position
            or protocol.is_alternative
            or "Accept-Encoding" in download.headers
        ):
            return []
        urls = self._urls[0], self._urls[-1]
        try:
            codings = coding.to_undo(reply, urls, download.validations)
        except coding.CodingError as error:
            raise DownloadFailed(str(error)) from error
        if codings:
            protocol.has_alternative = coding.may_be_as_sent(reply, download.validations)
        return codings

    def _read_ahead(self, reply: requests.Response) -> Iterator[bytes]:
        """Read over several connections, if the server and the file allow that."""
        attempt, where = self._attempt, None
        if own_range(self._download) is None:
            where = parts.origin(reply, self._urls, attempt.source, self._known())
        if where is None:
            return self._read(reply)
        beginning, helpers = self._protocol.beginning, self._protocol.helpers(self._download)
        origins = [where]
        if beginning is not None:
            origins += [Origin(url, (url,), beginning, where.total) for url in helpers]
        reader = self._parts = parts.Reader(self._download, attempt, reply, origins, self._join)
        return reader.buffers()

    def _known(self) -> resume.Version | splice.Beginning | None:
        """Return what identifies the content for a later reply; None if nothing does."""
        is_mixed = self._attempt.is_mixed
        return self._protocol.beginning if is_mixed else self._protocol.version

    def _read(self, reply: requests.Response) -> Iterator[bytes]:
        # Reads return what has arrived, so a reset loses nothing that came before it.
        found, block = self._found, self._download.BLOCK
        size = 0
        while True:
            try:
                buffer = found.take(block)
            except MissingCloseNotify as error:
                # Without a length, an attacker may have truncated the content.
                if not self._is_digest_right():
                    raise failure.from_exception(error, self._urls[0], reply.url or "") from error
                buffer = b""
            except failure.ANTICIPATED as error:
                raise failure.from_exception(error, self._urls[0], reply.url or "") from error
            if not buffer:
                break
            size += len(buffer)
            yield buffer
            if size == self._total and found.was_taken(size):
                return
        if not found.was_taken(size):
            raise DownloadFailed(READ_BY_OTHERS)

    def _is_digest_right(self) -> bool:
        """Return whether the content has all enforced digests, and there is one."""
        digests = [
            each
            for each in self._download.validations
            if isinstance(each, DigestValidation) and each.enforced
        ]
        return bool(digests) and all(each.actual == each.expected for each in digests)

    def _refuse_rest(self) -> None:
        """Raise because the body is longer than the head of the reply said."""
        # The body isn't the range that the head names, so the bytes before may be wrong, too.
        self._protocol.version = self._protocol.beginning = None
        self._remember()
        raise transient("the server sent more than it had said")
