"""Traces downloads with OpenTelemetry. It needs the extra ``[telemetry]``.

No other module of the package imports this one. It costs nothing for downloads that aren't
instrumented.
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
"""The first version of the semantic conventions in which those for HTTP are stable."""

_PORTS = {"http": 80, "https": 443, "ftp": 21, "ftps": 990}


def instrument(
    batch_or_download: Batch[Any] | Download[Any], tracer_provider: TracerProvider | None = None
) -> None:
    """Trace a download, or all downloads of a batch, by OpenTelemetry's conventions for HTTP.

    Each run of a download is an INTERNAL span with the name ``download``. Each request of the run
    is a CLIENT span below it, and so is each retry, redirect, pipelined request and part. The
    request carries the context of its span (``traceparent``, W3C Trace Context). The parent of a
    run is the current span at the time when the download is called, its stream is opened, or the
    batch takes it from its iterable.

    A CLIENT span has the attributes ``http.request.method``, ``server.address``, ``server.port``,
    ``url.full`` (redacted), ``http.response.status_code``, ``error.type`` and
    ``http.request.resend_count``. ``error.type`` is the status, or the class of the exception that
    caused the failure. The span ends when the body has been read.

    An attempt by FTP is a CLIENT span, and one of a local file an INTERNAL span. Both have the
    scheme as their name, and no attributes of HTTP.

    Call it before the download or the batch starts. A clone of a download isn't instrumented. With
    an executor of worker processes, an instrumented download fails with ValueError.

    Args:
        batch_or_download: The batch or the download.
        tracer_provider: Makes the spans; None for the global provider.

    Raises:
        TypeError: ``batch_or_download`` is neither a batch nor a download.
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
        # It needs no detach: the run has a contextvars context of its own.
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
        # The parent is given, because another thread may send the request (pipelining, parts), and
        # has another current span.
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
    """Set the status and the error.type of a span.

    The message is shown only for a DownloadError: those are redacted, others may hold secrets.
    """
    root = error
    # Bounded: a plugin may raise exceptions that are causes of each other.
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
