"""The attributes of ``HttpDownload`` that the modules below it use, as a protocol for mypy."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Protocol

import requests

if TYPE_CHECKING:
    from urllib3.util import Retry

    from ..context import Context
    from ..rate import RateLimiter
    from ..settings import SSL, Limits, Timeout, User
    from ..validation import Validation
    from ..writer import Writer


Auth = Callable[[requests.PreparedRequest], requests.PreparedRequest]
"""The type of ``auth``: it changes a request and returns it, like ``requests.auth.AuthBase``."""


class Options(Protocol):
    """The attributes of an ``HttpDownload``, which documents them."""

    BLOCK: int
    auth: Auth | None
    context: Context
    expansion_max: float | None
    headers: MutableMapping[str, str]
    insecure_redirects: bool
    known_etag: str | None
    known_last_modified: str | None
    method: str
    limits: Limits | None
    mirrors: Sequence[str]
    parts: int
    proxy_url: str | None
    public_only: bool
    rate_limiter: RateLimiter | None
    retry: Retry | None
    retry_after_max: float
    ssl: SSL
    timeout: Timeout
    url: str
    user: User
    validations: list[Validation]

    @property
    def writer(self) -> Writer | None:
        """Where the content goes. Read-only here, as the downloads are generic in it."""

    @property
    def expected_size(self) -> int | None:
        """The size of the content (bytes); None if unknown."""
