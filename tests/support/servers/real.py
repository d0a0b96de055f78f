"""Servers that people run, each started as a process of its own on loopback: see tests/servers."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

HOST = "127.0.0.1"
SECONDS = 30  # far more than any of them takes to start

# Where a system has the programs that only root's PATH finds.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

APACHE = """\
ServerRoot "{folder}"
DefaultRuntimeDir "{folder}"
PidFile "{folder}/apache.pid"
ErrorLog "{folder}/error.log"
ServerName {host}
Listen {host}:{port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule reqtimeout_module {modules}/mod_reqtimeout.so
{user}
DocumentRoot "{root}"
{more}
"""

LIGHTTPD = """\
server.document-root = "{root}"
server.bind = "{host}"
server.port = {port}
server.errorlog = "{folder}/error.log"
mimetype.assign = ( "" => "application/octet-stream" )
"""

CADDY = """\
{{
    admin off
    auto_https off
}}
http://{host}:{port} {{
    root * "{root}"
    file_server
}}
"""

HAPROXY = """\
defaults
    mode http
    timeout connect 30s
    timeout client 30s
    timeout server 30s
frontend front
    bind {host}:{port}
    default_backend back
backend back
    server origin {host}:{origin}
"""

SQUID = """\
http_port {host}:{port} {more}
http_access allow all
cache_mem 64 MB
maximum_object_size_in_memory 8 MB
access_log none
cache_log {folder}/error.log
coredump_dir {folder}
pid_filename none
netdb_filename none
shutdown_lifetime 0 seconds
visible_hostname localhost
cache_effective_user proxy
"""
# What makes a reverse proxy of squid.
ACCELERATOR = """accel defaultsite={host}
cache_peer {host} parent {origin} 0 no-query no-digest originserver"""

NODE = """\
const fs = require('fs'), http = require('http'), path = require('path');
const [root, host, port] = process.argv.slice(2);
http.createServer((request, response) => {
    const file = path.join(root, path.basename(request.url));
    fs.stat(file, (error, stat) => {
        if (error) { response.writeHead(404); response.end(); return; }
        response.writeHead(200, {'Content-Length': stat.size});
        fs.createReadStream(file).pipe(response);
    });
}).listen(Number(port), host);
"""


class RealServer:
    """A server's process. Its port stays reserved until it is closed.

    Attributes:
        port (int): Its port.
    """

    def __init__(self, held: socket.socket, command: Sequence[str], folder: Path) -> None:
        """Start it, and wait until it accepts connections.

        Args:
            held: A socket that is bound to the port, and doesn't listen.
            command: The program and its arguments.
            folder: The folder for its own files.

        Raises:
            RuntimeError: It doesn't start; what it said is in the text.
        """
        self.port: int = held.getsockname()[1]
        self._folder = folder
        # It ends with this process, even if that is killed. A session of its own: Ctrl-C doesn't
        # reach it, and what it has forked can be killed with it.
        with (folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=os.environ | {"HOME": str(folder), "PATH": PATH},
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def url(self, path: str = "") -> str:
        """Return the URL of a path, which begins with a slash."""
        return f"http://{HOST}:{self.port}{path}"

    def close(self) -> None:
        """End it, and all processes that it has started."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _wait(self) -> None:
        end = time.monotonic() + SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(ConnectionError), socket.create_connection((HOST, self.port)):
                return
            time.sleep(0.02)
        logs = [self._folder / "output", self._folder / "error.log"]
        text = "\n".join(log.read_text(errors="replace") for log in logs if log.exists())
        raise RuntimeError(f"{self._process.args} doesn't start:\n{text}")


def find(program: str) -> str | None:
    """Return the path of a program; None if it isn't installed."""
    return shutil.which(program, path=PATH)


@contextlib.contextmanager
def started(kind: str, root: Path, folder: Path, origin: int = 0) -> Iterator[RealServer]:
    """Start a server.

    Args:
        kind: The name of one of the functions below.
        root: The folder to serve.
        folder: An empty folder for its own files. Other users must be able to enter it, for some
            servers don't run as root.
        origin: The port of the server that a proxy asks.

    Raises:
        RuntimeError: It doesn't start.
    """
    # Bound, but not listening: nobody else gets the port, but the server may take it, because both
    # reuse the address.
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((HOST, 0))
        names = {
            "host": HOST,
            "port": held.getsockname()[1],
            "root": root,
            "folder": folder,
            "origin": origin,
        }
        server = RealServer(held, COMMANDS[kind](names), folder)
        try:
            yield server
        finally:
            server.close()


def _written(names: dict[str, object], text: str, name: str = "config") -> str:
    path = Path(str(names["folder"])) / name
    path.write_text(text)
    return str(path)


def _apache(names: dict[str, object], more: str = "") -> list[str]:
    user = "" if os.geteuid() else "User www-data\nGroup www-data"
    values = {**names, "user": user, "more": more, "modules": "/usr/lib/apache2/modules"}
    return ["apache2", "-D", "FOREGROUND", "-f", _written(names, APACHE.format(**values))]


def _lighttpd(names: dict[str, object]) -> list[str]:
    return ["lighttpd", "-D", "-f", _written(names, LIGHTTPD.format(**names))]


def _caddy(names: dict[str, object]) -> list[str]:
    config = _written(names, CADDY.format(**names))
    return ["caddy", "run", "--adapter", "caddyfile", "--config", config]


def _varnish(names: dict[str, object]) -> list[str]:
    front, back = (f"{HOST}:{names[port]}" for port in ("port", "origin"))
    name = f"{names['folder']}/varnish"
    return ["varnishd", "-F", "-j", "none", "-n", name, "-a", front, "-b", back, "-s", "malloc,64m"]


def _haproxy(names: dict[str, object]) -> list[str]:
    return ["haproxy", "-db", "-f", _written(names, HAPROXY.format(**names))]


def _squid(names: dict[str, object], more: str = "") -> list[str]:
    config = SQUID.format(**names, more=more.format(**names))
    # It doesn't run as root.
    Path(str(names["folder"])).chmod(0o777)
    return ["squid", "-N", "-f", _written(names, config)]


def _python(names: dict[str, object], version: str) -> list[str]:
    return [
        *(sys.executable, "-m", "http.server", "--bind", HOST, "--protocol", version),
        *("--directory", str(names["root"]), str(names["port"])),
    ]


def _node(names: dict[str, object]) -> list[str]:
    script = _written(names, NODE, "server.cjs")
    return ["node", script, str(names["root"]), HOST, str(names["port"])]


COMMANDS = {
    "apache": _apache,
    "apache, 10 requests": lambda names: _apache(names, "MaxKeepAliveRequests 10"),
    "lighttpd": _lighttpd,
    "caddy": _caddy,
    "varnish": _varnish,
    "haproxy": _haproxy,
    "squid": lambda names: _squid(names, ACCELERATOR),
    "squid as a forward proxy": _squid,
    "http.server": lambda names: _python(names, "HTTP/1.1"),
    "http.server by HTTP/1.0": lambda names: _python(names, "HTTP/1.0"),
    "node": _node,
}
"""The function that writes the configuration of a kind of server, and returns its command."""
