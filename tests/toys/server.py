"""A web server on this machine that misbehaves in a known way, which the first part of the path names.

``http://.../cut/grid.grd`` serves ``files["grid.grd"]`` in the way called ``cut``.
"""

import hashlib
import http.server
import re
import threading
import time

PAGE = b"\n<!DOCTYPE html><html>Please log in</html>"


class ToyServer:
    """Serve `files`; `requests` holds (path, Range or None) of every request, `sent` the bytes of every body."""

    def __init__(self):
        self.files, self.requests, self.sent, self.pieces = {}, [], [], [0.5, 0.1, 0.9, 0.3]
        self.retry_after, self.leads_to, self.unsized_bytes = "0", "", 1
        toy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                toy.answer(self)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):  # a client that hangs up is expected
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def count(self, path):
        return sum(requested == path for requested, _ in self.requests)

    def answer(self, handler):
        path, wanted = handler.path, handler.headers.get("Range")
        self.requests.append((path, wanted))
        self.if_range = handler.headers.get("If-Range")
        kind, _, name = path.strip("/").rpartition("/")
        kind, count, body = kind.split("/")[0], self.count(path), self.files.get(name)
        if body is None or kind == "missing":
            return self.send(handler, 404, b"<html>404</html>")
        if kind == "form":
            return self.send(handler, 302, b"", {"Location": "/html/" + name})
        if kind == "moved":
            return self.send(handler, 302, b"", {"Location": "/good/" + name})
        if kind == "nowhere":
            return self.send(handler, 302, b"", {"Location": self.leads_to})
        if kind == "endless":
            return self.send_endless(handler, body)
        if kind == "unsized" or (kind == "unsizedonce" and count == 1):
            return self.send_without_size(handler, body[: self.unsized_bytes])
        if kind == "changing":
            # Another version each time, and never whole.
            body = body[:4] + hashlib.md5(str(count).encode()).digest() * (len(body) // 16)
            return self.send(handler, 200, body, {"ETag": f'"{count}"'}, keep=len(body) // 2)
        if kind in ("html", "text"):
            return self.send(handler, 200, PAGE if kind == "html" else b"error: quota exceeded")
        if kind == "down" or (kind == "weak" and count < 3):
            return self.send(handler, 500 if kind == "down" else 503, b"busy")
        if kind == "busy" and count < 2:
            return self.send(handler, 429, b"slow down", {"Retry-After": self.retry_after})
        if kind == "short":
            body = body[:-100]
        if kind == "long":
            body += b"\0" * 40
        if kind == "wrong":
            body = body[:4] + b"x" * (len(body) - 4)
        marks = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}
        if kind == "unmarked":
            marks = {}
        if kind == "weakmark":
            marks = {"ETag": "W/" + marks["ETag"]}
        if kind == "dated":
            marks = {"Last-Modified": "Sun, 22 Nov 2026 00:00:00 GMT"}
        first, end, status = 0, len(body), 200
        refuses = kind in ("norange", "cutnorange") or (kind == "rangelate" and count < 3)
        if wanted and not refuses:
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
            condition = handler.headers.get("If-Range")
            known = condition in (None, *marks.values())
            if known or kind in ("deaf", "deafcut"):  # the deaf one ignores If-Range
                first, end = int(match[1]), min(int(match[2]) + 1, len(body)) if match[2] else len(body)
                status = 206
                if kind == "refuses" or first >= len(body):
                    return self.send(handler, 416, b"", {"Content-Range": f"bytes */{len(body)}"})
                marks["Content-Range"] = f"bytes {first}-{end - 1}/{len(body)}"
        part = body[first:end]
        if kind == "elsewhere" and status == 206:  # other bytes than requested
            marks["Content-Range"] = f"bytes {first + 7}-{end - 1}/{len(body)}"
        keep = len(part)
        if (
            kind == "cut"
            or kind == "cutnorange"
            or (kind in ("cutonce", "deafcut", "refuses", "unmarked") and count == 1)
        ):
            keep = int(len(part) * self.pieces[(count - 1) % len(self.pieces)])
        if kind == "dead" and count == 1:
            keep = 0
        if kind == "silent":
            keep = len(part) // 2
        return self.send(handler, status, part, marks, keep=keep, slow=kind == "slow", silent=kind == "silent")

    def send_without_size(self, handler, body):
        """As a server of HTTP 1.0: the body ends where the connection does."""
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True
        self.sent.append(len(body))

    def send_endless(self, handler, body):
        """Chunks without end."""
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        chunk = body[:4096]
        try:
            while True:
                handler.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        except OSError:  # the other side has had enough
            handler.close_connection = True

    def send(self, handler, status, body, headers=None, *, keep=None, slow=False, silent=False):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            handler.send_header(key, value)
        handler.end_headers()
        shown = body[: len(body) if keep is None else keep]
        if handler.path.startswith("/drip/"):  # two bytes first
            handler.wfile.write(shown[:2])
            handler.wfile.flush()
            time.sleep(0.05)
            shown = shown[2:]
        self.sent.append(len(shown))
        try:
            if slow:
                for start in range(0, len(shown), len(shown) // 8 + 1):
                    handler.wfile.write(shown[start : start + len(shown) // 8 + 1])
                    handler.wfile.flush()
                    time.sleep(0.03)
            else:
                handler.wfile.write(shown)
                handler.wfile.flush()
            if silent:
                time.sleep(1.0)
        except OSError:  # the other side has hung up
            pass
        if len(shown) < len(body):
            handler.close_connection = True
