"""A receiver as people write it in a few lines around the library `standardwebhooks`: it checks nothing that the library does
not check. Tests hold it to the corpus: it may be too lenient, but it must not accept a forgery."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook

webhook = Webhook(os.environ["SCALE_CALLBACK_SIGNING_SECRET"])


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        try:
            webhook.verify(body, dict(self.headers))
            status = 204
        except Exception:
            status = 400
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(f"listening on http://127.0.0.1:{server.server_port}/callbacks", flush=True)
server.serve_forever()
