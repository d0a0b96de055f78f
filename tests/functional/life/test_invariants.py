"""Property-based tests of the invariants of a download, with random faults on all sides.

INVARIANTS_EXAMPLES in the environment sets the number of examples of each test, which are then
random. Without it they are few and the same on every run.
"""

import errno
import itertools
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from servers.connection import Connection
from servers.listener import Listener
from servers.message import Request, chunked, head
from urllib3.util import Retry

from pulpcore.plugin.download.futures import (
    Batch,
    DigestValidation,
    Download,
    DownloadError,
    DownloadFailed,
    Event,
    FileWriter,
    HttpDownload,
    SizeValidation,
    Timeout,
    Validation,
    ValidationError,
)
from pulpcore.plugin.download.futures.context import Context

EXAMPLES = int(os.environ.get("INVARIANTS_EXAMPLES", "0"))

OLD = b"the old file"
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


def examples(number: int) -> settings:
    """Use so many examples, the same on every run, or random ones as the environment says."""
    return settings(
        max_examples=EXAMPLES or number,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# What is published.


def content(version: int, size: int) -> bytes:
    """Make a version of the file. No two versions share a byte at any position."""
    return bytes((position * 7 + version * 85) % 256 for position in range(size))


@dataclass(frozen=True)
class Place:
    """A byte of a response, counted from its start, from the start of its body, or from its end."""

    anchor: str
    offset: int

    def find(self, start: int, size: int) -> int:
        """Return the position in a response of that size whose body begins at `start`."""
        base = {"head": 0, "body": start, "end": size}[self.anchor]
        return max(0, min(size, base + self.offset))


@dataclass(frozen=True)
class Answer:
    """The server's answer to one request.

    Attributes:
        version: The current version of the file.
        size: Its size.
        framing: How the body is delimited.
        etag: 'strong', 'weak', 'none', or 'lie': a strong one that isn't changed with the file.
        ranges: Whether ranges are supported.
        cut: The byte before which the connection ends; None for none.
        reset: Whether it ends by a reset.
        status: Another status instead of the file.
        retry_after: The Retry-After of that status.
        length: The error of the Content-Length.
        extra: Bytes that follow the response.
    """

    version: int = 0
    size: int = 300
    framing: str = "length"
    etag: str = "strong"
    ranges: bool = True
    cut: Place | None = None
    reset: bool = False
    status: int | None = None
    retry_after: str | None = None
    length: int = 0
    extra: bytes = b""

    @property
    def body(self) -> bytes:
        """The content of the version."""
        return content(self.version, self.size)

    @property
    def validator(self) -> str | None:
        """The ETag."""
        number = f'"{self.version}-{self.size}"'
        return {"strong": number, "weak": "W/" + number, "none": None, "lie": '"x"'}[self.etag]

    @property
    def is_clean(self) -> bool:
        """Whether the answer contains the file."""
        return self.cut is None and self.status is None and not self.length


class Server(Listener):
    """Gives its answers in order, then repeats the last one without faults.

    Args:
        first: The version published before the first answer.

    Attributes:
        answers: The answers that remain.
        acceptable: The contents that a client may accept as the file.
        lied: Whether one validator was used for two versions.
    """

    def __init__(self, first: Answer) -> None:
        self.answers: list[Answer] = []
        self.acceptable: set[bytes] = set()
        self.lied = False
        self._last = first
        super().__init__()

    def serve(self, connection: Connection) -> None:
        """Answer the connection's requests."""
        while True:
            request = connection.read_request()
            answer = self.answers.pop(0) if self.answers else Answer(**self._clean())
            self._last = answer
            start, body = self._reply(request, answer)
            raw = start + body
            if answer.cut is not None:
                connection.send(raw[: answer.cut.find(len(start), len(raw))])
                (connection.reset if answer.reset else connection.cut)()
                return
            connection.send(raw)
            if answer.length or (answer.framing == "close" and answer.status is None):
                return

    def _clean(self) -> dict[str, Any]:
        last = self._last
        return {name: getattr(last, name) for name in ("version", "size", "etag", "ranges")}

    def _reply(self, request: Request, answer: Answer) -> tuple[bytes, bytes]:
        """Make head and body, and record what a client may accept of them."""
        if answer.status is not None:
            fields = [("Content-Length", "2")]
            if answer.retry_after is not None:
                fields.append(("Retry-After", answer.retry_after))
            return head(answer.status, fields), b"no"
        whole, validator = answer.body, answer.validator
        first, status = self._first(request, answer), 200
        fields = [("ETag", validator)] if validator else []
        self.lied |= answer.etag == "lie"
        if first:
            if first >= len(whole):
                fields += [("Content-Range", f"bytes */{len(whole)}"), ("Content-Length", "0")]
                return head(416, fields), b""
            status = 206
            fields.append(("Content-Range", f"bytes {first}-{len(whole) - 1}/{len(whole)}"))
        body, taken = whole[first:], whole
        match answer.framing:
            case "length":
                length = max(0, len(body) + answer.length)
                fields.append(("Content-Length", str(length)))
                if not first:
                    taken = whole[:length]
                raw = body + answer.extra
            case "chunked":
                fields.append(("Transfer-Encoding", "chunked"))
                raw = chunked(body, [3, 100]) + answer.extra
            case _:
                raw = body
        start = head(status, fields)
        self.acceptable.add(taken)
        if answer.framing == "close" and answer.cut is not None and not answer.reset and not first:
            # Only the end of the connection ends the body, so the client can't detect a cut.
            self.acceptable.add(body[: answer.cut.find(len(start), len(start + raw)) - len(start)])
        return start, raw

    @staticmethod
    def _first(request: Request, answer: Answer) -> int:
        condition = request.header("If-Range")
        asked = (request.header("Range") or "").removeprefix("bytes=").removesuffix("-")
        if not answer.ranges or not asked or condition not in (None, answer.validator):
            return 0
        assert answer.etag in ("strong", "lie"), "a rest was asked for without a strong validator"
        return int(asked)


# What stands between the server and the file.


class Nth:
    """Raises at its n-th call."""

    def __init__(self, number: int, make: Callable[[], Exception]):
        self._calls = itertools.count(1)
        self._number = number
        self._make = make
        self.has_raised = False

    def __call__(self) -> None:
        """Count, and raise if it is the n-th call."""
        if next(self._calls) == self._number:
            self.has_raised = True
            raise self._make()


def never() -> None:
    """Raise nothing."""


class Witness(Validation):
    """Records the content it gets, and may raise."""

    def __init__(self, fault: Callable[[], None]):
        super().__init__()
        self.seen = bytearray()
        self._fault = fault

    def update(self, buffer: bytes) -> None:
        """Record the buffer."""
        self.seen += buffer
        self._fault()

    def reset(self) -> None:
        """Clear the record."""
        self.seen.clear()

    def apply(self) -> None:
        """Accept the content."""
        self._fault()


class Recorder(FileWriter):
    """Writes a file, records its content, and may raise before or after an action."""

    def __init__(self, path: Path, fault: Callable[[], None], after: bool):
        super().__init__(path)
        self.seen = bytearray()
        self._fault = fault
        self._after = after

    def _act(self, action: Callable[[], Any]) -> Any:
        if not self._after:
            self._fault()
        result = action()
        if self._after:
            self._fault()
        return result

    def open(self) -> None:
        """Begin."""
        self._act(super().open)
        self.seen.clear()

    def truncate(self) -> None:
        """Begin again."""
        self._act(super().truncate)
        self.seen.clear()

    def append(self, buffer: bytes) -> int:
        """Write and record."""
        written: int = self._act(lambda: super(Recorder, self).append(buffer))
        self.seen += buffer
        return written

    def close(self) -> None:
        """Publish the file."""
        self._act(super().close)

    def discard(self) -> None:
        """Remove the file, and only then raise: what can't be removed would have to stay."""
        super().discard()
        if self._after:
            self._fault()


@dataclass
class Journal:
    """The events of a run, and their violations of the invariants.

    Attributes:
        names: The events' names.
        seen: The content that handlers of Fetched saw since Restarted.
        wrong: The violations. (An assertion in a handler would only be logged.)
        error: The error of Failed.
    """

    names: list[str] = field(default_factory=list)
    seen: bytearray = field(default_factory=bytearray)
    wrong: list[str] = field(default_factory=list)
    error: BaseException | None = None

    def attach(self, download: Download, writer: Recorder, witness: Witness) -> None:
        """Record the events of a download."""

        def fetched(event: Any) -> None:
            if event.offset != len(self.seen):
                self.wrong.append(f"a buffer at {event.offset} follows {len(self.seen)} bytes")
            self.seen.extend(event.buffer)
            if not self.seen == writer.seen == witness.seen:
                sizes = len(self.seen), len(writer.seen), len(witness.seen)
                self.wrong.append(f"handlers, writer and validation saw different bytes: {sizes}")

        def failed(event: Any) -> None:
            self.error = event.error

        for name in (*EVENTS, Event.SUCCEEDED, Event.FAILED):
            download.register(name, lambda event: self.names.append(event.NAME))
        download.register(Event.RESTARTED, lambda event: self.seen.clear())
        download.register(Event.FETCHED, fetched)
        download.register(Event.FAILED, failed)


EVENTS = (
    Event.PREPARED,
    Event.SENT,
    Event.REPLIED,
    Event.FETCHED,
    Event.RESTARTED,
    Event.ERROR,
)


@dataclass(frozen=True)
class Plan:
    """The faults and settings of an example.

    Attributes:
        runs: The answers to each run of the download.
        old: Whether there is an old file.
        block: The number of bytes read at a time.
        retry: The number of retries; None for no policy.
        repairs: The number of repairs by a handler.
        size: Whether a SizeValidation expects the last version.
        digest: Whether a DigestValidation expects the last version.
        raising: The events whose first handler raises.
        validation: The call at which the validation raises, and the exception.
        writer: The call at which the writer raises, and the exception.
        after: Whether the writer raises after its action.
        cancel: The number of the buffer at which a handler shuts the batch down.
    """

    runs: Sequence[Sequence[Answer]]
    old: bool = True
    block: int = 64
    retry: int | None = 4
    repairs: int = 0
    size: bool = False
    digest: bool = False
    raising: frozenset[str] = frozenset()
    validation: tuple[int, Callable[[], Exception]] | None = None
    writer: tuple[int, Callable[[], Exception]] | None = None
    after: bool = False
    cancel: int | None = None

    @property
    def answers(self) -> list[Answer]:
        """All answers, at least one."""
        return [answer for run in self.runs for answer in run] or [Answer()]

    @property
    def must_succeed(self) -> bool:
        """Whether only few network faults occur and the file is as expected."""
        checked = self.size or self.digest
        # A body that was cut after its last byte costs two attempts, because nothing is left to
        # resume.
        return (
            (self.validation, self.writer, self.cancel) == (None, None, None)
            and self.retry is not None
            and all(2 * len(run) <= self.retry for run in self.runs)
            and all(answer.status in (None, *TRANSIENT) for answer in self.answers)
            and all(answer.retry_after in (None, "0") for answer in self.answers)
            and not any(answer.length or answer.etag == "lie" for answer in self.answers)
            and not (checked and any(answer.framing == "close" for answer in self.answers))
            and not (checked and len({answer.body for answer in self.answers}) > 1)
        )


def raising(event: object) -> None:
    """Raise like a careless handler."""
    raise LookupError("a handler's mistake")


def no_space() -> OSError:
    """Raise like a full disk."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def mistake() -> RuntimeError:
    """Raise like a bug."""
    return RuntimeError("a mistake")


def refusal() -> ValidationError:
    """Raise like a validation that fails."""
    return ValidationError("not what I like")


def check(plan: Plan) -> None:
    """Run the download, and check the invariants after each run."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(Server(plan.answers[0]))
        path = Path(folder, "file")
        if plan.old:
            path.write_bytes(OLD)
        writer = Recorder(path, Nth(*plan.writer) if plan.writer else never, plan.after)
        witness = Witness(Nth(*plan.validation) if plan.validation else never)
        download = HttpDownload(server.url("/file"), writer, timeout=Timeout(60, 60))
        download.context = Context()
        stack.callback(download.context.close)
        download.BLOCK = plan.block  # type: ignore[misc]
        download.retries = plan.repairs
        download.retry_after_max = 0
        download.retry = None
        if plan.retry is not None:
            download.retry = Retry(plan.retry, backoff_factor=0, status_forcelist=TRANSIENT)
        for name in plan.raising:
            download.register(name, raising)
        if plan.repairs:
            download.register(Event.ERROR, lambda event: setattr(event, "repaired", True))
        body = plan.answers[-1].body
        if plan.size:
            download.validations.append(SizeValidation(len(body)))
        if plan.digest:
            download.validations.append(DigestValidation("sha256", sha256(body).hexdigest()))
        download.validations.append(witness)
        journal = Journal()
        journal.attach(download, writer, witness)
        for answers in plan.runs:
            server.answers = list(answers)
            server.acceptable.clear()
            journal.names.clear()
            before = path.read_bytes() if path.exists() else None
            _run(plan, download, server, journal, path, before)


def _run(
    plan: Plan,
    download: HttpDownload,
    server: Server,
    journal: Journal,
    path: Path,
    before: bytes | None,
) -> None:
    error, is_cancelled = _call(download, plan.cancel)
    writer, witness = download.writer, download.validations[-1]
    assert isinstance(writer, Recorder)
    assert isinstance(witness, Witness)
    # 1: exactly one of Succeeded and Failed, as the last event.
    ends = [name for name in journal.names if name in (Event.SUCCEEDED, Event.FAILED)]
    assert ends == [Event.SUCCEEDED if error is None else Event.FAILED]
    assert journal.names[0] == Event.PREPARED
    assert journal.names[-1] == ends[0]
    assert error is None or journal.error is error
    # 2: the complete old file or the complete new one, and nothing else.
    after = path.read_bytes() if path.exists() else None
    assert [entry.name for entry in path.parent.iterdir()] == [path.name] * (after is not None)
    if error is not None and after != before:
        # The file had been published when the writer raised.
        assert plan.writer is not None
        assert plan.after
        assert after == bytes(writer.seen)
    # 3: the same bytes in the same order, each once.
    assert not journal.wrong
    assert witness.seen.startswith(journal.seen)
    assert len(witness.seen) <= len(journal.seen) + max(plan.block, 1)
    if error is None:
        # 4: the content that the server published.
        assert after is not None
        assert after == journal.seen == witness.seen == writer.seen
        assert server.lied or after in server.acceptable
        assert not plan.size or len(after) == plan.answers[-1].size
        assert not plan.digest or after == plan.answers[-1].body
    event(f"{'succeeded' if error is None else type(error).__name__}")
    _judge(plan, error, is_cancelled)


def _judge(plan: Plan, error: BaseException | None, is_cancelled: bool) -> None:
    """Check the outcome where it is known beforehand."""
    if plan.must_succeed:
        assert error is None
    if is_cancelled:
        assert isinstance(error, DownloadFailed)
        assert "shut down" in error.reason
    bugs = [made for planned in (plan.writer, plan.validation) if planned for made in planned[1:]]
    if error is not None and not isinstance(error, DownloadError):
        assert type(error) in {type(make()) for make in bugs}  # type: ignore[operator]


def _call(download: HttpDownload, cancel: int | None) -> tuple[BaseException | None, bool]:
    """Return what a run raised, and whether it was cancelled."""
    if cancel is None:
        try:
            download()
        except Exception as error:  # noqa: BLE001 - looked at by the caller
            return error, False
        return None, False
    fired = False

    def shut_down(event: Any) -> None:
        nonlocal fired
        if not fired and event.offset >= cancel:
            fired = True
            batch.shutdown()

    download.register(Event.FETCHED, shut_down)
    try:
        with Batch([download], concurrent=1) as batch:
            (plan,) = batch()
            return plan.error, fired
    finally:
        download.router.unregister(Event.FETCHED, shut_down)


# What is drawn.

places = st.one_of(
    st.builds(Place, st.just("head"), st.integers(0, 60)),
    st.builds(Place, st.just("body"), st.integers(-5, 130)),
    st.builds(Place, st.just("end"), st.integers(-12, 0)),
)
framings = st.sampled_from(["length", "chunked", "close"])
etags = st.sampled_from(["strong", "strong", "strong", "weak", "none"])
sizes = st.sampled_from([300, 300, 1, 0, 65, 900])


@st.composite
def published(draw: st.DrawFn, **faults: st.SearchStrategy[Any]) -> Answer:
    """Draw an answer with faults of some kind."""
    drawn = {name: draw(strategy) for name, strategy in faults.items()}
    return Answer(
        framing=drawn.pop("framing", None) or draw(framings),
        etag=drawn.pop("etag", None) or draw(etags),
        ranges=draw(st.sampled_from([True, True, False])),
        **drawn,
    )


versions = {"version": st.sampled_from([0, 0, 0, 1, 2]), "size": sizes}
broken = published(cut=places, reset=st.booleans(), **versions)
refused = published(status=st.sampled_from(TRANSIENT), retry_after=st.sampled_from([None, "0"]))
answers = st.one_of(
    broken,
    broken,
    refused,
    published(**versions),
    published(
        status=st.sampled_from([*TRANSIENT, 204, 206, 304, 400, 401, 404, 416, 501, 999]),
        retry_after=st.sampled_from([None, "0", "9999", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"]),
    ),
    published(
        framing=st.just("length"), length=st.sampled_from([-300, -3, -1, 1, 400]), **versions
    ),
    published(
        framing=st.sampled_from(["length", "chunked"]),
        extra=st.sampled_from([b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"]),
    ),
    published(etag=st.just("lie"), cut=places, reset=st.booleans(), **versions),
)
runs = st.lists(st.lists(answers, max_size=4), min_size=1, max_size=3)
few = st.lists(
    st.lists(st.one_of(published(**versions), broken, refused), max_size=2), min_size=1, max_size=2
)
calls = st.integers(1, 4) | st.integers(1, 25)
policies = st.sampled_from([None, 0, 1, 4, 8, 8])
blocks = st.sampled_from([7, 64, 64, 100, 4096])


class TestExamples:
    """Fixed examples that random tests have found, or might."""

    @pytest.mark.parametrize("resumes", [True, False])
    def test_repaired_when_published(self, resumes: bool, tmp_path: Path) -> None:
        """If publishing the file fails and is repaired, the whole file is downloaded again."""
        with Server(Answer(ranges=resumes)) as server:
            calls = itertools.count()

            class Full(FileWriter):
                def close(self) -> None:
                    """Have no space the first time."""
                    if not next(calls):
                        raise no_space()
                    super().close()

            download = HttpDownload(server.url(), Full(tmp_path / "file"))
            download.retry = None
            download.register(Event.ERROR, lambda event: setattr(event, "repaired", True))
            download()
            assert (tmp_path / "file").read_bytes() == Answer().body

    @pytest.mark.parametrize("number", [1, 2])
    def test_what_cannot_be_reset(self, number: int, tmp_path: Path) -> None:
        """If a validation without reset() refuses a buffer, the download fails permanently."""

        class Once(Validation):
            def __init__(self) -> None:
                super().__init__()
                self.calls = 0

            def update(self, buffer: bytes) -> None:
                """Refuse the n-th buffer."""
                self.calls += 1
                if self.calls == number:
                    raise refusal()

        with Server(Answer()) as server:
            download = HttpDownload(server.url(), FileWriter(tmp_path / "file"))
            download.BLOCK = 64  # type: ignore[misc]
            download.validations.append(Once())
            download.register(Event.ERROR, lambda event: setattr(event, "repaired", True))
            with pytest.raises(ValidationError, match="not what I like"):
                download()
            with pytest.raises(DownloadFailed, match="can't be started again"):
                download()
            assert not list(tmp_path.iterdir())


class TestInvariants:
    @examples(80)
    @given(
        st.builds(
            Plan,
            runs=st.lists(st.lists(st.one_of(broken, refused), max_size=3), min_size=1, max_size=2),
            old=st.booleans(),
            block=blocks,
            retry=st.just(6),
            size=st.booleans(),
            digest=st.booleans(),
            raising=st.frozensets(st.sampled_from(EVENTS)),
        )
    )
    def test_network(self, plan: Plan) -> None:
        """With transient network faults the invariants hold and the download succeeds."""
        check(plan)

    @examples(120)
    @example(Plan([[Answer(cut=Place("body", 100)), Answer(length=-3)]]))
    @given(
        st.builds(
            Plan,
            runs=runs,
            old=st.booleans(),
            block=blocks,
            retry=policies,
            repairs=st.integers(0, 2),
            size=st.booleans(),
            digest=st.booleans(),
            raising=st.frozensets(st.sampled_from(EVENTS)),
        )
    )
    def test_server(self, plan: Plan) -> None:
        """With arbitrary answers of the server the invariants of a download hold."""
        check(plan)

    @examples(200)
    @example(Plan([[]], repairs=1, validation=(1, refusal)))
    @given(
        st.builds(
            Plan,
            runs=few,
            old=st.booleans(),
            block=blocks,
            retry=policies,
            repairs=st.sampled_from([1, 0, 2]),
            size=st.booleans(),
            digest=st.booleans(),
            raising=st.frozensets(st.sampled_from(EVENTS)),
            validation=st.none() | st.tuples(calls, st.sampled_from([refusal, mistake, no_space])),
            writer=st.none() | st.tuples(calls, st.sampled_from([no_space, mistake])),
            after=st.booleans(),
        )
    )
    def test_this_side(self, plan: Plan) -> None:
        """With failing writers, validations and repairing handlers the invariants hold."""
        check(plan)

    @examples(60)
    @given(
        st.builds(
            Plan,
            runs=runs,
            old=st.booleans(),
            block=blocks,
            retry=policies,
            repairs=st.integers(0, 1),
            digest=st.booleans(),
            cancel=st.integers(0, 400),
        )
    )
    def test_cancellation(self, plan: Plan) -> None:
        """If a handler shuts the batch down at any buffer, the invariants hold."""
        check(plan)
