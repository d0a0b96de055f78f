"""A private nginx, with a configuration of the test's own."""

import contextlib
import grp
import http.client
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import NamedTuple, Self

from servers.ending import Ending

HOST = "127.0.0.1"
SECONDS = 30  # far more than anything takes

CONFIG = """\
daemon off;
master_process on;
worker_processes 1;
{user}
pid "{folder}/nginx.pid";
error_log "{folder}/error.log" error;
events {{ worker_connections 1024; }}
http {{
    log_format requests escape=json '["$pid",$connection,$connection_requests,$status,'
        '"$request_uri","$http_range","$http_if_range",$body_bytes_sent]';
    access_log "{folder}/access.log" requests;
    types {{ }}
    default_type application/octet-stream;
    client_body_temp_path "{folder}/body";
    proxy_temp_path "{folder}/proxy";
    fastcgi_temp_path "{folder}/fastcgi";
    uwsgi_temp_path "{folder}/uwsgi";
    scgi_temp_path "{folder}/scgi";
    {http}
    server {{
        listen {host}:{port};
        root "{root}";
        location = {generation_path} {{ access_log off; return 200 "{generation}"; }}
        {server}
    }}
}}
"""
GENERATION = "/.generation"
# The file is there while it runs.
END = 'read -r process <"$1" && kill -s TERM "$process"'


class Logged(NamedTuple):
    """A request that nginx has finished.

    Attributes:
        worker: The process id of the worker that served it.
        connection: The number of its connection.
        number: Which of the requests of its connection it was, from 1.
        status: The status that was replied.
        target: The target of the request.
        range: Its Range header, or ''.
        if_range: Its If-Range header, or ''.
        sent: The number of bytes of the body that were sent.
    """

    worker: str
    connection: int
    number: int
    status: int
    target: str
    range: str
    if_range: str
    sent: int


class Nginx:
    """An nginx on loopback, whose port stays reserved while it is down.

    Listens from the moment it is made, and ends with the process that made it, if it isn't closed
    before. Where the tests are run by root, so are its workers, for other users can't read a test's
    folder.

    Attributes:
        root: The folder that it serves.
        port: Its port.
    """

    def __init__(self, root: Path, folder: Path, server: str = "", http: str = ""):
        """Start nginx.

        Args:
            root: The folder to serve.
            folder: The folder for its own files.
            server: Directives for its server.
            http: Directives for outside of its server.

        Raises:
            FileNotFoundError: nginx isn't installed.
            RuntimeError: It doesn't start; its log is in the text.
        """
        program = find_nginx()
        if program is None:
            raise FileNotFoundError("nginx isn't installed: install the package nginx-light")
        self.root = root
        self._program = program
        self._folder = folder
        self._http = http
        self._generation = 0
        self._process: subprocess.Popen[bytes] | None = None
        # Bound, but not listening: the system gives the port to nobody else, but nginx may take it
        # (both reuse the address), now and after each restart.
        self._held = socket.socket()
        self._end = Ending(END, folder / "nginx.pid")
        try:
            self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._held.bind((HOST, 0))
            self.port: int = self._held.getsockname()[1]
            self.start(server)
        except BaseException:
            self.close()
            raise

    def url(self, path: str = "/", userinfo: str = "") -> str:
        """The URL of a path.

        Args:
            path: With its leading slash, encoded as it shall be sent.
            userinfo: 'name:password', encoded.
        """
        return f"http://{userinfo}{'@' if userinfo else ''}{HOST}:{self.port}{path}"

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._process is not None

    @property
    def version(self) -> str:
        """The name and version of nginx."""
        said = subprocess.run([self._program, "-v"], capture_output=True, text=True, check=True)
        return re.search(r"nginx/\S+", said.stderr)[0]

    def start(self, server: str = "") -> None:
        """Start nginx, which must not be running.

        Args:
            server: Directives for its server.

        Raises:
            RuntimeError: It doesn't start; its log is in the text.
        """
        config = self._configure(server)
        # A session of its own: Ctrl-C doesn't reach it, and its workers can be killed with it.
        self._process = subprocess.Popen(
            [self._program, "-e", self._folder / "error.log", "-p", self._folder, "-c", config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait()

    def reload(self, server: str = "") -> None:
        """Let a new worker serve while the old one finishes its requests.

        Returns when the old one takes no more requests: for a while there are both.

        Args:
            server: Directives for its server.

        Raises:
            RuntimeError: It doesn't; its log is in the text.
        """
        assert self._process is not None
        with contextlib.closing(self._connect()) as kept:
            kept.request("GET", GENERATION)
            kept.getresponse().read()
            self._configure(server)
            self._process.send_signal(signal.SIGHUP)
            self._wait()
            # A worker that ends stops listening and then closes its idle connections.
            if kept.sock is not None:
                kept.sock.recv(1)

    def stop(self) -> None:
        """Stop nginx at once, even within a transfer, and wait for its end."""
        process, self._process = self._process, None
        if process is None:
            return
        # Not SIGKILL at first: it waits for its workers, which nobody else may do. More than once:
        # while it starts it may miss a signal.
        for _ in range(SECONDS):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
                return
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        """Stop nginx and release its port."""
        try:
            self.stop()
        finally:
            self._end.run()
            self._held.close()

    def logged(self, count: int) -> list[Logged]:
        """Wait until so many requests are finished, and return all that are.

        Raises:
            TimeoutError: There are fewer in time.
        """
        _until(lambda: len(self._log()) >= count)
        return self._log()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _configure(self, server: str) -> Path:
        self._generation += 1
        config = self._folder / "nginx.conf"
        config.write_text(
            CONFIG.format(
                user=_user(),
                folder=self._folder,
                http=self._http,
                host=HOST,
                port=self.port,
                root=self.root,
                generation_path=GENERATION,
                generation=self._generation,
                server=server,
            )
        )
        return config

    def _wait(self) -> None:
        """Wait until nginx serves with the current configuration."""
        process, wanted = self._process, str(self._generation).encode()
        try:
            _until(lambda: process.poll() is not None or self._ask() == wanted)
        except TimeoutError:
            pass
        else:
            if process.poll() is None:
                return
        raise RuntimeError(f"nginx doesn't serve:\n{(self._folder / 'error.log').read_text()}")

    def _ask(self) -> bytes | None:
        """Return the configuration with which nginx serves; None if it doesn't answer."""
        with contextlib.closing(self._connect()) as connection:
            try:
                connection.request("GET", GENERATION)
                return connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                return None

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(HOST, self.port, timeout=SECONDS)

    def _log(self) -> list[Logged]:
        try:
            lines = (self._folder / "access.log").read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return [Logged(*json.loads(line)) for line in lines if line.endswith("\n")]


def find_nginx() -> str | None:
    """Return the path of nginx, or None."""
    # Debian installs it in a folder that only root's PATH has.
    return shutil.which("nginx", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))


def _user() -> str:
    if os.geteuid() != 0:
        return ""
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(0).gr_name};"


def _until(condition) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"nginx did not come so far within {SECONDS} s")
        time.sleep(0.02)
