"""What a run of a download by HTTP knows, and what the engine asks of it."""

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

# What is replied when the host, or what is behind it, is down.
_DOWN = frozenset({429, 502, 503, 504})
_NOT_MODIFIED = 304


class HttpProtocol(Protocol):
    """What a run knows of the file on the server.

    Attributes:
        is_unchanged (bool): The last reply says that the known version is still there, or nothing
            was asked for (``skip_existing``).
        source (str | None): The URL that was asked for the last reply, before redirects.
        beginning (Beginning | None): What another source needs to know to bring the rest; None if
            there is no other source.
    """

    check = staticmethod(check)
    pipelined = staticmethod(pipelined)
    has_requests = True
    source: str | None = None
    beginning: splice.Beginning | None = None
    _version: resume.Version | None = None
    _validators = condition.NOTHING
    # Makes the validators. Only what asks for them needs them.
    _make_validators: Callable[[], condition.Validators] | None = None
    # Makes the version. Only what resumes a download asks for it, which few do.
    _make_version: Callable[[], resume.Version | None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Without the version: a partial file is resumed by its note.
        return super().__getstate__() | {
            "is_unchanged": self.is_unchanged,
            "source": self.source,
            "_validators": self.validators,
        }

    @property
    def validators(self) -> condition.Validators:
        """What the server says of the version that comes."""
        make = self._make_validators
        if make is not None:
            self.validators = make()
        return self._validators

    @validators.setter
    def validators(self, validators: condition.Validators) -> None:
        self._validators, self._make_validators = validators, None

    @property
    def version(self) -> resume.Version | None:
        """The version whose first bytes are here; None if the rest of it can't be asked for."""
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
        """Take other validators and another version, which are made when they are asked for.

        Args:
            validators: Makes the validators.
            version: Makes the version.
        """
        self._make_validators, self._make_version = validators, version

    def host(self, download: Options) -> Hashable:
        """Return the origin of the URL that the attempt asks.

        Args:
            download: The download.
        """
        return parse(Attempt.of(download).source, SCHEMES).origin  # type: ignore[arg-type]

    def sources(self, download: Options) -> Sequence[str]:
        """Return the URL and its mirrors; of https, those by http only if a digest is validated.

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
        """Return whether the request is conditional: a known version is not to be sent again.

        Args:
            download: The download.
        """
        return bool(
            download.known_etag
            or download.known_last_modified
            or any(name in download.headers for name in condition.HEADERS)
        )

    def is_up(self, error: DownloadError) -> bool | None:
        """Return whether the server is up: it is if it answers, but for some statuses.

        None if the error doesn't tell, such as that of a server that gives out tokens.

        Args:
            error: The failure.
        """
        if error.auth_failed:
            return None
        if error.retry_after is not None:
            # A server that says when to come again is up.
            return True
        if not self.status:
            return super().is_up(error)
        return self.status not in _DOWN or not error.transient

    def has_content(self, download: Options) -> bool:
        """Return whether there will be content: not of HEAD, nor if nothing has changed.

        Args:
            download: The download.
        """
        return download.method != "HEAD" and not self.is_unchanged

    def can_resume(self, download: Options) -> bool:
        """Return whether the rest of what is here may be asked for.

        Args:
            download: The download.
        """
        return self.rest(download) is not None

    def rest(self, download: Options) -> resume.Version | splice.Beginning | None:
        """Return what tells how to ask for the rest of what is here; None if that can't be.

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
        """Return the sources that may bring parts of the file beside the one that is asked.

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
        """Forget the version whose rest a server didn't bring.

        That another source doesn't bring it says nothing about the version.

        Args:
            rest: What :meth:`rest` returned.
        """
        if self._version is rest:
            self.version = None

    def recall(self, download: Options, note: str) -> bool:
        """Return whether a note is that of a version of this file, and the rest may be asked for.

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
        """Keep what a reply's status says; None if there is no reply any more.

        Args:
            reply: The reply.
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
    """The URL that the attempt asks."""
    return Attempt.of(download).source  # type: ignore[arg-type]


def _can_join(download: Options, beginning: splice.Beginning, position: int) -> bool:
    """Whether another source may bring the rest of what one has begun."""
    return (
        beginning.can_be_joined(download, position) and Attempt.of(download).can_mix()  # type: ignore[arg-type]
    )
