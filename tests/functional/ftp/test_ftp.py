"""Tests of FtpDownload against a correct server and against scripted misbehaviour."""

import contextlib
import errno
import hashlib
import os
import socket
import threading
import time
from urllib.parse import quote, unquote

import pytest
from servers.ftp import Cut
from servers.listener import HOST
from servers.raw import Loop, RawServer, Read, Reset, Send, Signal, Stall

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DigestValidation,
    DownloadFailed,
    DownloadMonitor,
    Event,
    FileWriter,
    FtpDownload,
    NotAuthorized,
    NotFound,
    SizeValidation,
    Timeout,
    User,
)
from pulpcore.plugin.download.futures.validation import DigestMismatch, SizeMismatch

CONTENT = os.urandom(1_000_000)
SECONDS = 20
SECRET = "pass@/:%word"


@pytest.fixture
def folder(tmp_path):
    """Create the served folder with some files."""
    folder = tmp_path / "served"
    (folder / "sub").mkdir(parents=True)
    (folder / "file").write_bytes(CONTENT)
    (folder / "empty").write_bytes(b"")
    (folder / "sub" / "a b%?#ü").write_bytes(b"odd")
    return folder


@pytest.fixture
def target(tmp_path):
    """Return the path of the target, which has an old file."""
    path = tmp_path / "out" / "target"
    path.parent.mkdir()
    path.write_bytes(b"old")
    return path


@pytest.fixture
def untouched(target):
    """Return a function that asserts that a failure kept the old file and left no other."""

    def check():
        assert target.read_bytes() == b"old"
        assert list(target.parent.iterdir()) == [target]

    return check


def make(*args, **kwargs):
    """Make a download without retries."""
    download = FtpDownload(*args, **kwargs)
    download.retry = None
    return download


def names_of(download):
    """Collect the event names of a download. Consecutive Fetched events count as one."""
    names = []
    for name in ("PREPARED", "SENT", "REPLIED", "FETCHED", "ERROR", "SUCCEEDED", "FAILED"):
        download.register(
            name, lambda event: names[-1:] == [event.name] or names.append(event.name)
        )
    return names


@pytest.mark.parametrize(
    ("name", "content"), [("/file", CONTENT), ("/empty", b"")], ids=["file", "empty"]
)
def test_anonymous(ftp_server, folder, target, name, content, no_leaks):
    """FtpDownload logs in anonymously, copies a file byte by byte and publishes usual events."""
    server = ftp_server(folder)
    download = make(server.url(name), FileWriter(target))
    download.validations += [
        SizeValidation(len(content)),
        DigestValidation("sha256", hashlib.sha256(content).hexdigest()),
    ]
    monitor = DownloadMonitor(download)
    names = names_of(download)
    for _ in range(2):
        names.clear()
        assert download() is None
        assert target.read_bytes() == content
        assert monitor.facts()["md5"] == hashlib.md5(content).hexdigest()
        fetched = ["FETCHED"] if content else []
        assert names == ["PREPARED", "SENT", "REPLIED", *fetched, "SUCCEEDED"]
        assert download.reply.startswith("226")
    assert download.expected_size == len(content)
    assert ("USER", "anonymous") in server.commands
    assert ("TYPE", "I") in server.commands
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("userinfo", "user"),
    [
        ("me:{password}", None),
        ("", User("me", SECRET)),
        ("other:wrong", User("me", SECRET)),
        ("me:{password}", User()),
    ],
    ids=["userinfo", "user", "user wins", "no user"],
)
def test_user(ftp_server, folder, userinfo, user):
    """FTP credentials come from the percent-decoded URL or from the setting, which wins."""
    server = ftp_server(folder, users={"me": SECRET})
    address = server.url("/empty", userinfo.format(password=quote(SECRET, safe="")))
    download = make(address, BufferWriter(), user)
    download()
    assert [command for command in server.commands if command[0] in ("USER", "PASS")] == [
        ("USER", "me"),
        ("PASS", SECRET),
    ]
    assert SECRET not in f"{download} {download!r} {download.user!r}"


@pytest.mark.parametrize("user", [User("me"), User("me", ""), None])
def test_empty_password(ftp_server, folder, user):
    """An FTP user name without a password sends an empty password."""
    server = ftp_server(folder, users={"me": ""})
    userinfo = "" if user else "me"
    make(server.url("/empty", userinfo), BufferWriter(), user)()
    assert ("PASS", "") in server.commands


@pytest.mark.parametrize(
    "path",
    ["/sub/a%20b%25%3F%23%C3%BC", "/%2Fsub/a b%25%3F%23%C3%BC", "/sub/../sub/a%20b%25%3f%23ü"],
)
def test_path(ftp_server, folder, path):
    """The path of an FTP URL is percent-decoded, and one that begins with %2F is absolute."""
    server = ftp_server(folder)
    download = make(server.url(path), BufferWriter())
    download()
    assert download.writer.content() == "odd"


def test_name_that_is_no_utf8(ftp_server, folder):
    """FTP sends a file name as the bytes that the URL encodes, whether they are UTF-8 or not."""
    path = os.fsencode(folder) + b"/caf\xe9 \xbd\xd3"
    with open(path, "wb") as file:
        file.write(b"odd")
    script = [*BINARY, Read(until=b"SIZE caf\xe9 \xbd\xd3\r\n")]
    with RawServer([script]) as server:
        with pytest.raises(DownloadFailed, match="closed the connection"):
            make(f"ftp://{server.host}/caf%E9%20%bd%D3", BufferWriter())()
        server.until(lambda: server.logs[0].end == "script")


@pytest.mark.parametrize("code", [";type=i", ";type=A", ";TYPE=d"])
def test_type_code(ftp_server, folder, code):
    """The type code of RFC 1738 is removed from the FTP path, and each transfer is binary."""
    server = ftp_server(folder)
    download = make(server.url("/file" + code), BufferWriter())
    download()
    assert download.writer.getvalue() == CONTENT
    assert server.told("RETR", "TYPE") == [("TYPE", "I"), ("RETR", "file")]


@pytest.mark.parametrize("name", ["a%3Btype=i", "a;type=x", "a;type=i/b", "a;type=i;v=1"])
def test_no_type_code(ftp_server, folder, name):
    """A suffix that only resembles an FTP type code stays part of the file name."""
    server = ftp_server(folder)
    with pytest.raises(NotFound):
        make(server.url(f"/{name}"), BufferWriter())()
    assert server.told("RETR") == [("RETR", unquote(name))]


def test_question_mark_that_nobody_encoded(ftp_server, folder):
    """An unencoded `?` in an FTP URL belongs to the file name, because FTP has no query."""
    (folder / "a").write_bytes(b"wrong")
    (folder / "a?b").write_bytes(b"right")
    download = make(ftp_server(folder).url("/a?b"), BufferWriter())
    download()
    assert download.writer.content() == "right"


@pytest.mark.parametrize("path", ["/missing", "/sub", "/sub/missing/more", "/"])
def test_not_found(ftp_server, folder, target, untouched, path):
    """The FTP reply 550 raises NotFound."""
    download = make(ftp_server(folder).url(path), FileWriter(target))
    names = names_of(download)
    with pytest.raises(DownloadFailed) as caught:
        download()
    assert type(caught.value) is (DownloadFailed if path == "/" else NotFound)
    assert names == ["PREPARED", "ERROR", "FAILED"]
    assert download.writer.path in str(target)
    untouched()


@pytest.mark.parametrize("user", [None, User("me", "wrong-" + SECRET), User("other", SECRET)])
def test_not_authorized(ftp_server, folder, target, untouched, user):
    """The FTP reply 530 raises NotAuthorized, and no error text contains the password."""
    server = ftp_server(folder, users={"me": SECRET})
    download = make(server.url("/file"), FileWriter(target), user)
    with pytest.raises(NotAuthorized, match="refuses this user") as caught:
        download()
    assert SECRET not in _texts(caught.value)
    untouched()


def _texts(error):
    """Return all texts of an error and of its causes."""
    found = []
    while error is not None:
        found += [str(error), repr(error), repr(error.args)]
        error = error.__cause__ or error.__context__
    return "\n".join(found)


@pytest.mark.parametrize("size", [0, 1, 500_000, len(CONTENT) - 1])
@pytest.mark.parametrize("claim", [False, True], ids=["426", "226"])
def test_truncated(ftp_server, folder, target, untouched, size, claim, no_leaks):
    """A truncated FTP transfer is an error, even if the server reports success."""
    server = ftp_server(folder, cuts={0: Cut(size, claim)})
    download = make(server.url("/file"), FileWriter(target))
    with pytest.raises(DownloadFailed) as caught:
        download()
    if claim:
        assert f"{size} bytes" in str(caught.value)
        assert str(len(CONTENT)) in str(caught.value)
    untouched()
    download()
    assert target.read_bytes() == CONTENT


def test_tried_again(ftp_server, folder, target, no_leaks):
    """An interrupted FTP transfer is retried, here from the beginning."""
    cuts = {0: Cut(500_000), 1: Cut(600_000, claim=True)}
    server = ftp_server(folder, cuts=cuts, unknown={"MDTM"})
    download = FtpDownload(server.url("/file"), FileWriter(target))
    download.retry = download.retry.new(backoff_factor=0)
    download.validations.append(DigestValidation("md5", hashlib.md5(CONTENT).hexdigest()))
    monitor = DownloadMonitor(download)
    names = names_of(download)
    download.register(Event.RESTARTED, lambda event: names.append(event.name))
    download()
    assert target.read_bytes() == CONTENT
    assert monitor.size == len(CONTENT)
    assert monitor.facts()["sha384"] == hashlib.sha384(CONTENT).hexdigest()
    attempt = ["SENT", "REPLIED", "FETCHED"]
    again = [*attempt, "ERROR", "RESTARTED"]
    assert names == ["PREPARED", *again, *again, *attempt, "SUCCEEDED"]
    assert server.transfers == 3


@pytest.mark.parametrize("path", ["/missing", "/file"])
def test_not_tried_again(ftp_server, folder, path):
    """A missing file and a wrong password are not retried over FTP."""
    server = ftp_server(folder, users={"me": "right"})
    user = User("me", "wrong" if path == "/file" else "right")
    with pytest.raises(DownloadFailed):
        FtpDownload(server.url(path), BufferWriter(), user)()
    assert server.connections == 1


@pytest.mark.parametrize(
    ("validation", "kind"),
    [
        (SizeValidation(5), SizeMismatch),
        (SizeValidation(len(CONTENT) + 1), SizeMismatch),
        (DigestValidation("md5", "0" * 32), DigestMismatch),
    ],
    ids=["too much", "too little", "digest"],
)
def test_mismatch(ftp_server, folder, target, untouched, validation, kind, no_leaks):
    """A validation mismatch is reported as such, also if it is found during an FTP transfer."""
    download = make(ftp_server(folder).url("/file"), FileWriter(target))
    download.validations.append(validation)
    with pytest.raises(kind):
        download()
    untouched()


def test_writer_fails(ftp_server, folder, target, untouched):
    """A full disk during an FTP download is reported as an error of the writer."""

    class Full(FileWriter):
        def append(self, buffer):
            raise OSError(28, "No space left on device")

    download = make(ftp_server(folder).url("/file"), Full(target))
    with pytest.raises(DownloadFailed, match="No space left"):
        download()
    untouched()


HOSTILE = ["\r\nDELE file", "\n", "\r", "\0", "%0d%0aDELE%20file", "%0A", "%0D", "%00"]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", ["/fi{}le", "/{}", "{}", "user", "password"])
def test_line_ends(ftp_server, folder, target, untouched, text, place):
    """An FTP URL with an encoded line break is refused before anything is sent."""
    server = ftp_server(folder)
    if place in ("user", "password"):
        address = server.url("/file", f"{text}:p" if place == "user" else f"u:{text}")
    else:
        address = server.url(place.format(text))
    download = make(address, FileWriter(target))
    with pytest.raises(DownloadFailed, match="url"):
        download()
    assert server.connections == 0
    untouched()


@pytest.mark.parametrize("text", ["a\r\nDELE file", "a\n", "\r"])
@pytest.mark.parametrize("field", ["name", "password"])
def test_line_ends_in_user(ftp_server, folder, target, untouched, text, field):
    """If the FTP user contains a line break, the error names that setting."""
    server = ftp_server(folder)
    user = User(**{"name": "me", field: text})
    download = make(server.url("/file"), FileWriter(target), user)
    with pytest.raises(DownloadFailed, match="user"):
        download()
    assert "DELE" not in [name for name, _ in server.commands]
    untouched()


@pytest.mark.parametrize(
    "bad",
    [
        "ftp://",
        "ftp:///file",
        "ftp://host:0/a",
        "ftp://host:99999/a",
        "ftp://host:x/a",
        "ftp://[::1/a",
        "http://host/a",
        "file",
        "",
    ],
)
def test_url_refused(target, untouched, bad):
    """An invalid FTP URL is an error that describes the expected form."""
    with pytest.raises(DownloadFailed, match="ftp://host/path"):
        make(bad, FileWriter(target))()
    untouched()


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"timeout": Timeout(0)}, "timeout.connect"), ({"user": User(5)}, "user.name")],
)
def test_setting_refused(target, untouched, settings, name):
    """An invalid setting of an FTP download is named before anything is sent."""
    with pytest.raises(DownloadFailed, match=name):
        make("ftp://127.0.0.1:9/a", FileWriter(target), **settings)()
    untouched()


class TestNoServer:
    def test_refused(self, target, untouched):
        """An FTP download from a port without a server fails with a refused connection."""
        with socket.socket() as taken:
            taken.bind((HOST, 0))
            port = taken.getsockname()[1]
            with pytest.raises(DownloadFailed, match="refused"):
                make(f"ftp://{HOST}:{port}/a", FileWriter(target))()
        untouched()

    @pytest.mark.parametrize("host", ["x" * 70, "a..b", "no-such-host.invalid"])
    def test_no_such_host(self, target, untouched, host, monkeypatch):
        """An FTP host that can't be resolved, or isn't a valid name, is an error."""
        real = socket.getaddrinfo

        def offline(name, *args, **kwargs):
            if str(name).endswith(".invalid"):
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return real(name, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", offline)
        with pytest.raises(DownloadFailed, match="host"):
            make(f"ftp://{host}/a", FileWriter(target))()
        untouched()


def command(name, answer):
    """Make the steps that read a command and answer it."""
    return [Read(until=b"\r\n"), Send(answer)]


WELCOME = Send(b"220 welcome\r\n")
LOGIN = [WELCOME, *command("USER", b"331 and?\r\n"), *command("PASS", b"230 hello\r\n")]
BINARY = [*LOGIN, *command("TYPE", b"200 yes\r\n")]


def passive(data, size=b"500 what?\r\n", begin=b"150 here it is\r\n"):
    """Make the steps from the login up to the transfer by a data server."""
    pasv = b"227 there (127,0,0,1,%d,%d)\r\n" % divmod(data.port, 256)
    return [*BINARY, *command("SIZE", size), *command("PASV", pasv), *command("RETR", begin)]


class TestScripts:
    """Scripted FTP servers that misbehave."""

    @pytest.mark.parametrize(
        "reply",
        [
            b"227 a (127,0,0,1,999,1)\r\n",
            b"227 a (127,0,0,1,0,0)\r\n",
            b"227 a (127,0,0,1,%b,1)\r\n" % (b"9" * 5000),
        ],
    )
    def test_port_that_is_none(self, raw_server, target, untouched, reply):
        """A reply to PASV or EPSV without a valid port is reported as unexpected."""
        server = raw_server([[*BINARY, *command("SIZE", b"213 1\r\n"), *command("PASV", reply)]])
        with pytest.raises(DownloadFailed, match="can't be read"):
            make(f"ftp://{server.host}/a", FileWriter(target))()
        untouched()

    def test_number_that_is_none(self, raw_server, running, target):
        """A size of 5,000 digits in the FTP reply to RETR is ignored."""
        data = running(RawServer, [[Send(b"content")]])
        begin = b"150 here (" + b"1" * 5000 + b" bytes)\r\n"
        script = [*passive(data, begin=begin), Send(b"226 done\r\n"), Read(until=b"\n")]
        make(f"ftp://{raw_server([script]).host}/a", FileWriter(target))()
        assert target.read_bytes() == b"content"

    @pytest.mark.parametrize(
        ("script", "kind", "match"),
        [
            ([Send(b"421 too many users\r\n")], DownloadFailed, "421 too many"),
            ([Send(b"nonsense\r\n")], DownloadFailed, "nonsense"),
            ([Reset()], DownloadFailed, "connection"),
            ([], DownloadFailed, "closed the connection"),
            ([WELCOME, Read(until=b"\n"), Send(b"530 no\r\n")], NotAuthorized, "refuses this user"),
            ([WELCOME, Read(until=b"\n"), Send(b"500 no\r\n")], DownloadFailed, "500 no"),
            ([WELCOME, Read(until=b"\n")], DownloadFailed, "closed the connection"),
            ([*LOGIN, *command("TYPE", b"504 no\r\n")], DownloadFailed, "504 no"),
            ([*BINARY, *command("SIZE", b"450 busy\r\n")], DownloadFailed, "450 busy"),
            (
                [*BINARY, *command("SIZE", b"213 many\r\n"), *command("PASV", b"425 no\r\n")],
                DownloadFailed,
                "425 no",
            ),
            (
                [*BINARY, *command("SIZE", b"213 1\r\n"), *command("PASV", b"227 x\r\n")],
                DownloadFailed,
                "227 x",
            ),
            ([Loop([Send(b"2" * 9000)])], DownloadFailed, "65536 bytes"),
            (
                [Loop([Send(b"220-" + b"2" * 900 + b"\r\n")])],
                DownloadFailed,
                "it has more than 65536",
            ),
            ([Send(b"550 not from your address\r\n")], NotAuthorized, "550 not from"),
            ([WELCOME, *command("USER", b"550 no\r\n")], NotAuthorized, "this user.* 550 no"),
            ([*LOGIN[:3], *command("PASS", b"550 no\r\n")], NotAuthorized, "550 no"),
            ([*LOGIN[:3], *command("PASS", b"500 OOPS\r\n")], DownloadFailed, "500 OOPS"),
            ([*LOGIN[:3], *command("PASS", b"530 max users\r\n")], DownloadFailed, "no more conn"),
            ([*LOGIN, *command("TYPE", b"550 no\r\n")], DownloadFailed, "replied 550 no"),
            (
                [*BINARY, *command("SIZE", b"500 no\r\n"), *command("PASV", b"550 no\r\n")],
                DownloadFailed,
                "replied 550 no",
            ),
            ([Send(b"500 \x1b[2J\xe9\r\n")], DownloadFailed, r"replied 500 \\x1b\[2J\\xe9"),
            (
                [WELCOME, Read(until=b"\n"), Send(b"\xff\xfe 530\r\n")],
                DownloadFailed,
                "replied|URL|reply",
            ),
        ],
    )
    def test_replies(self, raw_server, target, untouched, script, kind, match, no_leaks):
        """Any invalid FTP reply raises a clear error and leaves the old target."""
        server = raw_server([script])
        download = make(f"ftp://{server.host}/a", FileWriter(target))
        with pytest.raises(DownloadFailed, match=match) as caught:
            download()
        assert type(caught.value) is kind
        assert len(str(caught.value)) < 600
        assert "\n" not in str(caught.value)
        untouched()

    @pytest.mark.parametrize("where", ["welcome", "login", "begin", "end"])
    @pytest.mark.parametrize("text", [b"Transfert termin\xe9", b"\xbd\xd3\xca\xdc", b"\xff\xfe\r"])
    def test_encodings(self, raw_server, running, target, where, text):
        """FTP replies may have any text encoding and any kind of line end."""
        said = dict.fromkeys(("welcome", "login", "begin", "end"), b"yes") | {where: text}
        data = running(RawServer, [[Send(b"content")]])
        script = [
            Send(b"220-%b\r\n%b\r\n220 go\r\n" % (said["welcome"], said["welcome"])),
            *command("USER", b"331 and?\r\n"),
            *command("PASS", b"230 %b\r\n" % said["login"]),
            *passive(data, begin=b"150 %b\r\n" % said["begin"])[len(LOGIN) :],
            Send(b"226 %b\r\n" % said["end"]),
            Read(until=b"\n"),
        ]
        make(f"ftp://{raw_server([script]).host}/a", FileWriter(target))()
        assert target.read_bytes() == b"content"

    def test_long_reply(self, raw_server, running, target):
        """FTP replies of many lines are read, and the size limit applies to each by itself."""
        data = running(RawServer, [[Send(b"content")]])
        welcome, hello = (
            b"%d-hello\r\n" % code * 4000 + b"%d hello\r\n" % code for code in (220, 230)
        )
        script = [Send(welcome), *passive(data)[1:], Send(b"226 done\r\n"), Read(until=b"\n")]
        script[4] = Send(hello)
        make(f"ftp://{raw_server([script]).host}/a", FileWriter(target))()
        assert target.read_bytes() == b"content"

    def test_two_replies(self, raw_server, running, target):
        """FTP servers may answer RETR with two replies: 2xx for the connection, then 1xx."""
        data = running(RawServer, [[Send(b"content")]])
        begin = b"225 connected\r\n150 here\r\n"
        script = [*passive(data, begin=begin), Send(b"226 done\r\n"), Read(until=b"\n")]
        make(f"ftp://{raw_server([script]).host}/a", FileWriter(target))()
        assert target.read_bytes() == b"content"

    def test_question_in_place_of_the_file(self, raw_server, running, target, untouched):
        """An FTP reply to RETR that neither starts nor refuses the transfer is an error."""
        data = running(RawServer, [[Send(b"content")]])
        server = raw_server([passive(data, begin=b"350 and?\r\n")])
        with pytest.raises(DownloadFailed, match="replied 350 and"):
            make(f"ftp://{server.host}/a", FileWriter(target))()
        untouched()

    def test_password_in_reply(self, raw_server, target):
        """If an FTP server repeats the password, our messages redact it."""
        echo = b"500 PASS " + SECRET.encode() + b" at ftp://me:" + SECRET.encode() + b"@host/\r\n"
        server = raw_server([[*LOGIN[:3], Read(until=b"\n"), Send(echo)]])
        for userinfo, user in (
            ("", User("me", SECRET)),
            (f"me:{quote(SECRET, safe='')}@", None),
        ):
            download = make(f"ftp://{userinfo}{server.host}/a", FileWriter(target), user)
            with pytest.raises(DownloadFailed, match="500 PASS") as caught:
                download()
            assert SECRET not in _texts(caught.value)
            assert quote(SECRET, safe="") not in _texts(caught.value)

    @pytest.mark.parametrize("where", ["welcome", "login", "transfer"])
    def test_times_out(self, raw_server, running, target, untouched, where, no_leaks):
        """An FTP server that stops answering causes a time-out error."""
        data = running(RawServer, [[Send(b"some"), Stall()]])
        script = {
            "welcome": [Stall()],
            "login": [WELCOME, Stall()],
            "transfer": [*passive(data), Stall()],
        }[where]
        server = raw_server([script])
        download = make(f"ftp://{server.host}/a", FileWriter(target), timeout=Timeout(0.2, 0.2))
        with pytest.raises(DownloadFailed, match="time-out"):
            download()
        untouched()

    @pytest.mark.parametrize("where", ["welcome", "login", "transfer", "last reply", "farewell"])
    def test_cancelled(self, raw_server, running, target, where, no_leaks):
        """A shutdown interrupts each wait of an FTP download long before any time-out."""
        stalled = threading.Event()
        stall = [Signal(stalled), Stall()]
        data = running(RawServer, [[Send(b"some"), *(stall if where == "transfer" else [])]])
        sent = passive(data)
        script = {
            "welcome": stall,
            "login": [WELCOME, *stall],
            "transfer": [*sent, Stall()],
            "last reply": [*sent, *stall],
            "farewell": [*sent, Send(b"226 done\r\n"), Read(until=b"QUIT\r\n"), *stall],
        }[where]
        server = raw_server([script])
        download = make(f"ftp://{server.host}/a", FileWriter(target), timeout=Timeout(60, 60))
        batch = Batch([download])
        ended = threading.Event()
        took = []

        def stop():
            # Without a farewell from the server there is nothing to wait for.
            while not stalled.wait(0.01) and not ended.is_set():
                pass
            began = time.monotonic()
            batch.shutdown()
            took.append(time.monotonic() - began)

        stopper = threading.Thread(target=stop)
        stopper.start()
        (plan,) = batch()
        ended.set()
        stopper.join()
        assert took[0] < 50
        if where == "farewell":
            assert target.read_bytes() in (b"old", b"some")
        else:
            with pytest.raises(DownloadFailed, match="shut down"):
                plan.result()
            assert target.read_bytes() == b"old"
        assert list(target.parent.iterdir()) == [target]

    @pytest.mark.parametrize(
        ("size", "begin", "ok"),
        [
            (b"500 what?\r\n", b"150 here it is\r\n", True),
            (b"213 7\r\n", b"150 here it is\r\n", True),
            (b"213 7\r\n", b"125 go on\r\n", True),
            (b"500 what?\r\n", b"150 Opening BINARY mode data connection (7 bytes)\r\n", True),
            (b"213 8\r\n", b"150 here it is\r\n", False),
            (b"213 6\r\n", b"150 here it is\r\n", False),
            (b"500 what?\r\n", b"150 Opening BINARY mode data connection (8 bytes)\r\n", False),
            (b"213 junk\r\n", b"150 here it is\r\n", True),
        ],
    )
    def test_size(self, raw_server, running, target, untouched, size, begin, ok):
        """The transfer must match the size that the FTP server gives in SIZE or in RETR."""
        data = running(RawServer, [[Send(b"content")]])
        server = raw_server(
            [[*passive(data, size, begin), Send(b"226 done\r\n"), Read(until=b"\n")]]
        )
        download = make(f"ftp://{server.host}/a", FileWriter(target))
        if ok:
            download()
            assert target.read_bytes() == b"content"
        else:
            with pytest.raises(DownloadFailed, match="bytes"):
                download()
            untouched()

    @pytest.mark.parametrize("end", [b"426 aborted\r\n", b"451 disk error\r\n", b"550 gone\r\n"])
    def test_last_word(self, raw_server, running, target, untouched, end):
        """Only a positive final FTP reply makes a transfer complete, whatever was received."""
        data = running(RawServer, [[Send(b"content")]])
        server = raw_server([[*passive(data, b"213 7\r\n"), Send(end), Read(until=b"\n")]])
        with pytest.raises(DownloadFailed):
            make(f"ftp://{server.host}/a", FileWriter(target))()
        untouched()

    def test_data_connection_reset(self, raw_server, running, target, untouched):
        """A reset of the FTP data connection is an error."""
        data = running(RawServer, [[Send(b"cont"), Reset()]])
        server = raw_server([[*passive(data), Send(b"226 done\r\n"), Read(until=b"\n")]])
        with pytest.raises(DownloadFailed):
            make(f"ftp://{server.host}/a", FileWriter(target))()
        untouched()


def test_cut_at_each_byte(raw_server, running, target, no_leaks):
    """An FTP conversation cut at any byte leaves either the complete file or none of it."""
    data = running(RawServer, [[Send(b"content")]])
    script = [*passive(data, b"213 7\r\n"), Send(b"226 done\r\n")]
    replies = [step.data for step in script if isinstance(step, Send)]
    total = sum(map(len, replies))

    def cut_after(size):
        steps = []
        for step in script:
            if isinstance(step, Send):
                steps.append(Send(step.data[:size]))
                size -= len(step.data)
                if size <= 0:
                    return steps
            else:
                steps.append(step)
        return steps

    server = raw_server(cut_after)
    whole = 0
    for _ in range(total + 1):
        target.write_bytes(b"old")
        try:
            make(f"ftp://{server.host}/a", FileWriter(target))()
        except DownloadFailed:
            assert target.read_bytes() == b"old"
        else:
            whole += 1
            assert target.read_bytes() == b"content"
        assert list(target.parent.iterdir()) == [target]
    # The digit of the final reply may be the last byte to arrive.
    assert 1 <= whole <= len(replies[-1])


def test_ipv6(ftp_server, folder):
    """FTP over IPv6 uses EPSV for passive mode (RFC 2428)."""
    try:
        server = ftp_server(folder, host="::1")
    except OSError:
        pytest.skip("there is no IPv6 on this machine")
    download = make(server.url("/file"), BufferWriter())
    download()
    assert download.writer.getvalue() == CONTENT
    assert server.told("EPSV", "PASV") == [("EPSV", "")]


def test_address_of_the_data_connection(raw_server, running):
    """The FTP data connection always goes to the server's own host.

    An address in the reply to PASV that names another host is ignored.
    """
    data = running(RawServer, [[Send(b"content")]])
    server = raw_server(
        [
            [
                *BINARY,
                *command("SIZE", b"500 what?\r\n"),
                *command("PASV", b"227 there (10,1,2,3,%d,%d)\r\n" % divmod(data.port, 256)),
                *command("RETR", b"150 here\r\n226 done\r\n"),
            ]
        ]
    )
    download = make(f"ftp://{server.host}/a", BufferWriter())
    download()
    assert download.writer.content() == "content"


def test_cancelled_in_a_handler(ftp_server, folder, target, untouched, no_leaks):
    """A shutdown from a handler during the transfer stops the FTP download there."""
    download = make(ftp_server(folder).url("/file"), FileWriter(target))
    download.register(Event.FETCHED, lambda _: batch.shutdown())
    with Batch([download]) as batch:
        (plan,) = batch()
    with pytest.raises(DownloadFailed, match="shut down"):
        plan.result()
    assert 0 < download.position < len(CONTENT)
    untouched()


def test_no_writer(ftp_server, folder):
    """An FTP download without a writer still publishes its events and validates the content."""
    download = make(ftp_server(folder).url("/file"), None)
    monitor = DownloadMonitor(download)
    download()
    assert monitor.facts()["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_many_in_a_batch(ftp_server, folder, tmp_path, no_leaks):
    """A batch downloads many files over FTP from several threads."""
    server = ftp_server(folder)
    downloads = [make(server.url("/file"), FileWriter(tmp_path / "new" / f"{n}")) for n in range(6)]
    with Batch(downloads, concurrent=3) as batch:
        assert len([plan.result() for plan in batch()]) == 6
    assert {path.read_bytes() for path in (tmp_path / "new").iterdir()} == {CONTENT}


class TestCrowd:
    """A server that allows fewer connections than there are threads."""

    @pytest.mark.parametrize(
        "full",
        [
            "421 There are too many connected users, please try later.",
            "530 Sorry, the maximum number of clients (2) for this user are already connected.",
            "530 Login incorrect.",
            "",
        ],
    )
    def test_no_file_is_lost(self, ftp_server, folder, tmp_path, full):
        """Four threads get all files from an FTP server that refuses extra connections.

        The downloads send it only few extra logins.
        """
        server = ftp_server(folder, users={"me": ""}, most=2, full=full)
        downloads = [
            FtpDownload(server.url("/file", "me"), FileWriter(tmp_path / "new" / f"{number}"))
            for number in range(24)
        ]
        errors = []
        for download in downloads:
            download.retry = None
            download.register("ERROR", lambda event: errors.append(event.error))
        with Batch(downloads, concurrent=4) as batch:
            for plan in batch():
                plan.result()
        assert {path.read_bytes() for path in (tmp_path / "new").iterdir()} == {CONTENT}
        assert errors == []
        assert server.connections < 100

    @pytest.mark.parametrize("lag", [-SECONDS, SECONDS])
    def test_login_that_has_worked(self, raw_server, running, monkeypatch, lag):
        """If a login that worked before in the batch is refused, the FTP server is full.

        That is a failure, unless the server may not have noticed that the last connection ended.
        """
        monkeypatch.setattr("pulpcore.plugin.download.futures.engine.host.LAG", lag)
        data = running(RawServer, [[Send(b"content")]])
        whole = [*passive(data), Send(b"226 done\r\n")]
        refused = [*LOGIN[:3], *command("PASS", b"530 Login incorrect.\r\n")]
        server = raw_server([whole, refused, whole])
        downloads = [FtpDownload(f"ftp://{server.host}/{n}", BufferWriter()) for n in "ab"]
        errors = []
        downloads[1].register("ERROR", lambda event: errors.append(event.error))
        with Batch(downloads, concurrent=1) as batch:
            for plan in batch():
                plan.result()
        expected = [True] if lag < 0 else []
        assert ["no more connections" in error.reason for error in errors] == expected

    def test_server_that_is_full_is_not_down(self, raw_server, running):
        """A full FTP server never opens the circuit breaker."""
        data = running(RawServer, [[Send(b"content")]])
        full = [Send(b"421 too many users\r\n")]
        server = raw_server([*[full] * 12, [*passive(data), Send(b"226 done\r\n")]])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pulpcore.plugin.download.futures.engine.breaker.SILENCE", 0.0)
            downloads = [make(f"ftp://{server.host}/{n}", BufferWriter()) for n in range(13)]
            with Batch(downloads, concurrent=1) as batch:
                errors = [plan.error for plan in batch()]
        assert [error is None for error in errors] == [False] * 12 + [True]

    def test_wrong_password(self, ftp_server, folder):
        """Wrong FTP credentials are reported even while right ones fill the server."""
        server = ftp_server(folder, users={"me": SECRET, "you": ""})
        good = [make(server.url("/file", "you"), BufferWriter()) for _ in range(6)]
        bad = [make(server.url("/file"), BufferWriter(), User("me", "wrong")) for _ in range(6)]
        downloads = [download for pair in zip(good, bad, strict=True) for download in pair]
        with Batch(downloads, concurrent=4) as batch:
            errors = {plan.download: plan.error for plan in batch()}
        assert [errors[download] for download in good] == [None] * 6
        assert {type(errors[download]) for download in bad} == {NotAuthorized}

    def test_shutdown(self, ftp_server, folder):
        """A shutdown stops downloads that wait for a free FTP connection at once."""
        server = ftp_server(folder, most=1)
        entered, left = threading.Event(), threading.Event()
        first = make(server.url("/file"), BufferWriter())
        first.register("REPLIED", lambda _: (entered.set(), left.wait(SECONDS)))
        second = make(server.url("/file"), BufferWriter())

        def downloads():
            yield first
            entered.wait(SECONDS)
            yield second

        with Batch(downloads(), concurrent=2) as batch:
            plans = batch()
            stopper = threading.Thread(
                target=lambda: (wait_for(lambda: server.connections == 2), batch.shutdown())
            )
            stopper.start()
            plan = next(plans)
            # The first download is still waiting.
            left.set()
            stopper.join()
        assert plan.download is second
        assert "shut down" in str(plan.error)


def wait_for(condition):
    """Wait until the condition holds."""
    end = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def test_dead_address(ftp_server, folder, monkeypatch):
    """An unreachable address of an FTP host delays nobody, and the next connection avoids it."""
    server = ftp_server(folder)
    with socket.create_server((HOST, 0), backlog=0) as dead, contextlib.ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(dead.getsockname())
        real = socket.getaddrinfo

        def resolve(name, port, *rest):
            if name != "files.example.test":
                return real(name, port, *rest)
            addresses = (dead.getsockname(), (HOST, server.port))
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        timeouts = Timeout(SECONDS, SECONDS), Timeout(0.2, SECONDS)
        downloads = [
            make("ftp://files.example.test/file", BufferWriter(), timeout=timeout)
            for timeout in timeouts
        ]
        with Batch(downloads, concurrent=1) as batch:
            for plan in batch():
                plan.result()


def test_address_that_never_answers(monkeypatch):
    """A connect time-out of FTP has another message than a server that stays silent."""
    with socket.create_server((HOST, 0), backlog=0) as dead, contextlib.ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(dead.getsockname())
        url = f"ftp://{HOST}:{dead.getsockname()[1]}/file"
        with pytest.raises(DownloadFailed, match="no connection was made within") as raised:
            make(url, BufferWriter(), timeout=Timeout(0.1, SECONDS))()
        assert raised.value.transient


def test_descriptors_used_up(ftp_server, folder, monkeypatch):
    """If the process has no free descriptors, the FTP error says so and doesn't blame the host."""
    server = ftp_server(folder)

    def refuse(*unused, **also_unused):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    download = make(server.url("/file"), BufferWriter())
    monkeypatch.setattr("pulpcore.plugin.download.futures.ftp.control.dial", refuse)
    with pytest.raises(DownloadFailed, match="no file descriptors left") as raised:
        download()
    assert raised.value.local
