"""The HTTP side of a run: what it knows of the file, and the answers to the engine."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import requests

from ..engine.attempt import Attempt
from ..engine.protocol import Protocol
from ..error import DownloadError
from ..net.url import parse
from ..validation import DigestValidation
from . import condition, resume, splice
from .check import check
from .options import Options
from .pipeline import pipelined
from .redirect import SCHEMES

# Statuses that mean that the host, or a server behind it, is down.
_DOWN = frozenset({429, 502, 503, 504})
_NOT_MODIFIED = 304


class HttpProtocol(Protocol):
    """The HTTP side of a run. It remembers the version of the file across attempts.

    Attributes:
        is_unchanged (bool): The target has the content already. The last reply said so (304), or
            no request was needed (``skip_existing``).
        source (str | None): The URL that was requested last, before redirects.
        beginning (Beginning | None): The first bytes, which another source may continue; None if
            there is no other source.
    """

    check = staticmethod(check)
    pipelined = staticmethod(pipelined)
    has_requests = True
    source: str | None = None
    beginning: splice.Beginning | None = None
    _version: resume.Version | None = None
    _validators = condition.NOTHING
    # Creates the validators on demand.
    _make_validators: Callable[[], condition.Validators] | None = None
    # Creates the version on demand: few downloads are resumed.
    _make_version: Callable[[], resume.Version | None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Leave out the version: a partial file has a note of it.
        return super().__getstate__() | {
            "is_unchanged": self.is_unchanged,
            "source": self.source,
            "_validators": self.validators,
        }

    @property
    def validators(self) -> condition.Validators:
        """The validators of the version that the server sends."""
        make = self._make_validators
        if make is not None:
            self.validators = make()
        return self._validators

    @validators.setter
    def validators(self, validators: condition.Validators) -> None:
        self._validators, self._make_validators = validators, None

    @property
    def version(self) -> resume.Version | None:
        """The version of the fetched bytes; None if its rest can't be requested."""
        if self._make_version is not None:
            self.version = self._make_version()
        return self._version

    @version.setter
    def version(self, version: resume.Version | None) -> None:
        self._version, self._make_version = version, None

    def make_by(
        self,
        validators: Callable[[], condition.Validators],
        version: Callable[[], resume.Version | None],
    ) -> None:
        """Replace validators and version by functions that create them on demand.

        Args:
            validators: Creates the validators.
            version: Creates the version.
        """
        self._make_validators, self._make_version = validators, version

    def host(self, download: Options) -> Hashable:
        """Return the origin of the URL that the attempt requests.

        Args:
            download: The download.
        """
        return parse(Attempt.of(download).source, SCHEMES).origin  # type: ignore[arg-type]

    def sources(self, download: Options) -> Sequence[str]:
        """Return the URL and its mirrors. For https, http mirrors count only with a digest.

        Args:
            download: The download.
        """
        urls = [download.url, *download.mirrors]
        if parse(download.url, SCHEMES).scheme == "http" or any(
            isinstance(each, DigestValidation) and each.enforced for each in download.validations
        ):
            return urls
        return [url for url in urls if parse(url, SCHEMES).scheme == "https"]

    def site(self, source: str) -> Hashable:
        """Return the origin of a source.

        Args:
            source: The URL.
        """
        return parse(source, SCHEMES).origin

    def is_conditional(self, download: Options) -> bool:
        """Return whether the request is conditional, because a version is known already.

        Args:
            download: The download.
        """
        return bool(
            download.known_etag
            or download.known_last_modified
            or any(name in download.headers for name in condition.HEADERS)
        )

    def is_up(self, error: DownloadError) -> bool | None:
        """Return whether the server is up. It is if it replies, except with some statuses.

        None if the error doesn't tell, because it is about the server that issues tokens.

        Args:
            error: The failure.
        """
        if error.auth_failed:
            return None
        if error.retry_after is not None:
            # A server that sends Retry-After is up.
            return True
        if not self.status:
            return super().is_up(error)
        return self.status not in _DOWN or not error.transient

    def has_content(self, download: Options) -> bool:
        """Return whether there is content: not for HEAD, nor if the file is unchanged.

        Args:
            download: The download.
        """
        return download.method != "HEAD" and not self.is_unchanged

    def can_resume(self, download: Options) -> bool:
        """Return whether the rest of the content may be requested.

        Args:
            download: The download.
        """
        return self.rest(download) is not None

    def rest(self, download: Options) -> resume.Version | splice.Beginning | None:
        """Return what requests the rest of the content; None if only the whole can be requested.

        Args:
            download: The download.
        """
        if own_range(download) is not None:
            return None
        source, version, beginning = _source(download), self.version, self.beginning
        is_of_another = beginning is not None and beginning.is_of_another(download, source)
        if version is not None and not is_of_another:
            return version if version.asked == resume.place_of(source)[0] else None
        attempt = Attempt.of(download)  # type: ignore[arg-type]
        if (
            beginning is not None
            and (is_of_another or attempt.is_mixed)
            and _can_join(download, beginning, attempt.position)
        ):
            return beginning
        return None

    def helpers(self, download: Options) -> Sequence[str]:
        """Return the sources that may send parts of the file beside the attempt's source.

        Args:
            download: The download.
        """
        attempt = Attempt.of(download)  # type: ignore[arg-type]
        beginning, tour = self.beginning, attempt.tour
        if (
            beginning is None
            or tour is None
            or not _can_join(download, beginning, attempt.position)
        ):
            return ()
        return tour.others

    def refuse(self, rest: resume.Version | splice.Beginning) -> None:
        """Forget the version whose rest a server didn't send.

        A Beginning stays: another source's refusal says nothing about the first bytes.

        Args:
            rest: What :meth:`rest` returned.
        """
        if self._version is rest:
            self.version = None

    def recall(self, download: Options, note: str) -> bool:
        """Return whether a note is of a version of this file whose rest may be requested.

        Args:
            download: The download.
            note: The note.
        """
        if (
            not self.has_content(download)
            or own_range(download)
            or "Accept-Encoding" in download.headers
        ):
            return False
        self.version = None
        asked = _source(download)
        for source in dict.fromkeys([asked, *self.sources(download)]):
            version = resume.Version.from_note(note, source)
            beginning = splice.Beginning.noted(download, source, note, version)
            if beginning is not None:
                break
        else:
            return False
        if (version is None or source != asked) and not _can_join(download, beginning, 0):
            return False
        if version is None:
            Attempt.of(download).mix()  # type: ignore[arg-type]
        else:
            self.version = version
            self.validators = condition.Validators.named(version.validator)
        self.beginning = beginning
        return True

    def note_reply(self, reply: requests.Response | None) -> None:
        """Store the status of a reply.

        Args:
            reply: The reply; None if there is none.
        """
        self.status = 0 if reply is None else reply.status_code
        self.is_unchanged = (
            reply is not None and self.status == _NOT_MODIFIED and condition.is_unchanged(reply)
        )


def own_range(download: Options) -> str | None:
    """Return the Range header that the caller has set; None without one.

    Args:
        download: The download.
    """
    value: str | bytes | None = download.headers.get("Range")
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _source(download: Options) -> str:
    """Return the URL that the attempt requests."""
    return Attempt.of(download).source  # type: ignore[arg-type]


def _can_join(download: Options, beginning: splice.Beginning, position: int) -> bool:
    """Return whether another source may continue the first bytes."""
    return (
        beginning.can_be_joined(download, position) and Attempt.of(download).can_mix()  # type: ignore[arg-type]
    )
