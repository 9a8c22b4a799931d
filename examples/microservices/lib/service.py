"""A small JSON service on Python's standard library: routes, errors, health, and an end when it is asked to."""

import http.server
import json
import signal
import sys
import threading
import urllib.parse
import urllib.request

PORT = 8000


class Invalid(Exception):
    code = 400


class NotFound(Exception):
    code = 404


def serve(routes):
    """Serves GET requests: routes maps a path to a function of the query; "/x/*" passes the last part as well."""
    if "--healthy" in sys.argv:
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthy", timeout=2)
        return

    def answer(path, query):
        if path == "/healthy":
            return {"healthy": True}
        if path in routes:
            return routes[path](query)
        parent, _, last = path.rpartition("/")
        if last and parent + "/*" in routes:
            return routes[parent + "/*"](query, urllib.parse.unquote(last))
        raise NotFound("no such page")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            url = urllib.parse.urlsplit(self.path)
            try:
                code, body = 200, answer(url.path, dict(urllib.parse.parse_qsl(url.query)))
            except (Invalid, NotFound) as e:
                code, body = e.code, {"error": str(e)}
            except Exception as e:
                self.log_error("%s: %r", self.path, e)
                code, body = 502, {"error": "the harbour is busy"}
            data = json.dumps(body).encode() + b"\n"
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format, *args):
            if self.path != "/healthy":
                super().log_message(format, *args)

    server = http.server.ThreadingHTTPServer(("", PORT), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
