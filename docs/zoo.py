"""A demo server for the recipes: the pages call it https://example.org.

Run it, and use http://127.0.0.1:8000 instead of https://example.org in the recipes. To use another
port, pass its number as the argument. The server has the files of a zoo. The first request for a
path below /busy or /broken fails, so that recipes can show errors. Later requests for the path
succeed. Five seconds after the last request for it, the path fails again.
"""

import base64
import gzip
import hashlib
import io
import json
import re
import sys
import tarfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ISOS = {name: f"{name}\n".encode() * 100_000 for name in ("bear", "lion", "tiger", "wolf")}
MANIFEST = "".join(
    f"isos/{name}.iso,{hashlib.sha256(ISOS[name]).hexdigest()},{len(ISOS[name])}\n"
    for name in ("bear", "lion", "tiger")
)


def archive(files: dict[str, bytes]) -> bytes:
    """Return a tar archive of files, by name."""
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return result.getvalue()


PACKAGE = "<package><name>{}</name><arch>{}</arch></package>"
PRIMARY = (
    '<metadata xmlns="http://linux.duke.edu/metadata/common">'
    f"{PACKAGE.format('lion', 'noarch')}{PACKAGE.format('owl', 'x86_64')}</metadata>"
)
# What the recipes read as streams.
STREAMS = {
    "/data/zoo.tar.gz": archive({"zoo/lion.txt": b"Roar!", "zoo/owl.txt": b"Tu-whit, tu-whoo!"}),
    "/data/animals.jsonl.gz": gzip.compress(
        b'{"name": "lion", "legs": 4}\n{"name": "owl", "legs": 2}\n'
    ),
    "/data/primary.xml.gz": gzip.compress(PRIMARY.encode()),
}

# Content and headers by path.
FILES = {
    **{path: (content, {}) for path, content in STREAMS.items()},
    "/": (b"<title>The zoo</title>", {"Content-Type": "text/html"}),
    **{f"/isos/{name}.iso": (content, {}) for name, content in ISOS.items()},
    **{f"/private/{number}": (b"secret", {}) for number in range(20)},
    "/v2/animals/blobs/tiger": (b"a layer", {}),
    "/PULP_MANIFEST": (MANIFEST.encode(), {}),
    "/hostile/PULP_MANIFEST": (f"../.bashrc,{'0' * 64},0\nlion.iso\n".encode(), {}),
    "/mirror/eagle.iso": (b"eagle", {}),
    "/busy/tiger.iso": (ISOS["tiger"], {}),
    "/broken/tiger.iso": (ISOS["tiger"], {"ETag": '"1"'}),
    "/broken/lion.iso": (ISOS["lion"], {}),
    "/birds/eagle.txt": (b"Kyah!", {"Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}),
    "/birds/falcon.txt": (b"Kek-kek-kek!", {"ETag": 'W/"1"'}),
    "/birds/owl.txt": (b"Tu-whit, tu-whoo!", {"ETag": '"2"'}),
}
USER = "Basic " + base64.b64encode(b"me:my password").decode()
TOKEN = "abc"  # noqa: S105 - a demo token, no secret


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    asked: dict[str, float] = {}  # noqa: RUF012 - time of the last request for each path, shared

    def do_GET(self) -> None:
        """Answer a request according to the first part of its path."""
        now = time.monotonic()
        works = now - self.asked.get(self.path, -5.0) < 5
        self.asked[self.path] = now
        authorization = self.headers["Authorization"]
        match re.split("[/?]", self.path)[1]:
            case "busy" if not works:
                self.reply(503, {"Retry-After": "0"})
            case "private" if authorization != f"Bearer {TOKEN}":
                self.reply(401)
            case "v2" if authorization != f"Bearer {TOKEN}":
                realm = f"http://{self.headers['Host']}/token"
                scope = "repository:animals:pull"
                challenge = f'Bearer realm="{realm}",service="zoo",scope="{scope}"'
                self.reply(401, {"WWW-Authenticate": challenge})
            case "token" if authorization != USER:
                self.reply(401)
            case "token":
                self.reply(200, body=json.dumps({"token": TOKEN}).encode())
            case "echo":
                lines = [f"{name}: {value}" for name, value in self.headers.items()]
                text = "\n".join(sorted(line for line in lines if not line.startswith("Host")))
                self.reply(200, {"Content-Type": "text/plain"}, text.encode())
            case folder if self.path in FILES:
                self.reply_file(*FILES[self.path], breaks=folder == "broken" and not works)
            case _:
                self.reply(404)

    def reply_file(self, content: bytes, headers: dict[str, str], *, breaks: bool) -> None:
        """Send the complete file (200), the requested range (206), or "not modified" (304)."""
        etag, asked = headers.get("ETag"), self.headers
        known = asked["If-None-Match"] if etag else asked["If-Modified-Since"]
        part = re.fullmatch(r"bytes=(\d+)-", asked.get("Range", ""))
        if known and known in headers.values():
            self.reply(304, headers)
        elif part and etag == asked["If-Range"]:
            start, size = int(part[1]), len(content)
            where = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
            self.reply(206, headers | where, content[start:])
        else:
            self.reply(200, headers, content, sent=200_000 if breaks else None)

    def reply(
        self,
        status: int,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        sent: int | None = None,
    ) -> None:
        """Send a response; if `sent` is given, close the connection after that many body bytes."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:sent])
        self.close_connection = self.close_connection or sent is not None


if __name__ == "__main__":
    port = int(sys.argv[1]) if sys.argv[1:] else 8000
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        print(f"http://127.0.0.1:{server.server_port}", flush=True)  # noqa: T201 - the user needs the URL
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.exit(0)
