"""Traces of downloads by OpenTelemetry. It needs the extra ``[telemetry]``.

Nothing else of the package imports this module. Downloads that aren't instrumented pay nothing.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .batch import Batch
from .download import Download
from .engine.attempt import record_of
from .engine.tracing import RequestTrace, RunTrace, Tracing
from .error import DownloadError
from .http.route import user_agent

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer, TracerProvider
    from opentelemetry.util.types import AttributeValue

__all__ = ["instrument"]

_SCHEMA = "https://opentelemetry.io/schemas/1.23.0"
"""The first version in which the conventions for HTTP are stable."""

_PORTS = {"http": 80, "https": 443, "ftp": 21, "ftps": 990}


def instrument(
    batch_or_download: Batch[Any] | Download[Any], tracer_provider: TracerProvider | None = None
) -> None:
    """Trace a download, or all downloads of a batch, by OpenTelemetry's conventions for HTTP.

    Each run of a download is an INTERNAL span, ``download``. Below it each request is a CLIENT
    span: also a retry, a redirect, a pipelined request and a part. The request carries the context
    of its span (``traceparent``, W3C Trace Context). The parent of a run is the span that is
    current in the ``contextvars`` context where the download is called, or taken from the iterable
    of a batch, or its stream is opened.

    A CLIENT span has the attributes ``http.request.method``, ``server.address``, ``server.port``,
    ``url.full`` (redacted), ``http.response.status_code``, ``error.type`` and
    ``http.request.resend_count``. It ends when the body is read. ``error.type`` is the status, or
    the class of the exception that caused the failure. An attempt by FTP is a CLIENT
    span, one of a local file an INTERNAL span, both with the scheme as the name and without
    attributes of HTTP.

    Call it before the download or the batch starts. A clone isn't instrumented. With an executor of
    worker processes an instrumented download fails with ValueError.

    Args:
        batch_or_download: The batch or the download.
        tracer_provider: Makes the spans; None for the global provider.

    Raises:
        TypeError: It is neither.
    """
    name, _, version = user_agent().partition("/")
    tracer = trace.get_tracer(name, version, tracer_provider, schema_url=_SCHEMA)
    _attach(_Tracing(tracer), batch_or_download)


def _attach(tracing: Tracing, thing: object) -> None:
    if isinstance(thing, Batch):
        thing.tracing = tracing
    elif isinstance(thing, Download):
        record_of(thing).tracing = tracing
    else:
        raise TypeError(f"instrument: takes a Batch or a Download, not a {type(thing).__name__}")


class _Tracing(Tracing):
    """Makes the spans of runs."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def begin(self, download: Download[Any]) -> _Run:
        span = self._tracer.start_span("download", attributes={"url.full": str(download)})
        # Never detached: the run has a copy of the context, which ends with it.
        context.attach(trace.set_span_in_context(span))
        return _Run(self._tracer, span)


class _Run(RunTrace):
    """The INTERNAL span of a run."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer, self._span = tracer, span

    def make(
        self, method: str, url: str, headers: MutableMapping[str, str], resends: int
    ) -> _Request:
        host, port = _server(url)
        attributes: dict[str, AttributeValue] = {"url.full": url}
        if method:
            attributes["http.request.method"] = method
            if resends:
                attributes["http.request.resend_count"] = resends
        if host:
            attributes["server.address"] = host
            if port:
                attributes["server.port"] = port
        # Another thread may send the request of a train, so the parent isn't the current span.
        parent = trace.set_span_in_context(self._span)
        span = self._tracer.start_span(
            method or url.partition(":")[0],
            parent,
            SpanKind.CLIENT if host else SpanKind.INTERNAL,
            attributes,
        )
        _PROPAGATOR.inject(headers, trace.set_span_in_context(span))
        return _Request(span)

    def end(self, error: BaseException | None) -> None:
        if error is not None:
            _fail(self._span, error)
        self._span.end()


class _Request(RequestTrace):
    """The span of a request."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._is_refused = False

    def replied(self, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if status >= 400:
            self._is_refused = True
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(StatusCode.ERROR)

    def end(self, error: BaseException | None = None) -> None:
        if error is not None and not self._is_refused:
            _fail(self._span, error)
        self._span.end()


_PROPAGATOR = TraceContextTextMapPropagator()


def _fail(span: Span, error: BaseException) -> None:
    """Set what a span says of an error. Only the texts of our own errors are redacted."""
    root = error
    # Not for ever: a plugin may have raised exceptions that are causes of each other.
    for _ in range(10):
        root = root.__cause__ or root
    span.set_attribute("error.type", type(root).__qualname__)
    span.set_status(StatusCode.ERROR, str(error) if isinstance(error, DownloadError) else None)


def _server(url: str) -> tuple[str | None, int | None]:
    """Return the host and the port of a URL; None for what it doesn't have."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None, None
