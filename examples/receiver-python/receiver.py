"""Receives callbacks: verifies each one, handles it once, and does not let an older one overwrite a newer one."""

import hmac
import json
import os
import re
import signal
import sys
import threading

from flask import Flask, request
from standardwebhooks import Webhook, WebhookVerificationError
from waitress import create_server

MAX_BODY = 12 * 1024 * 1024

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = MAX_BODY  # 413 for a longer body


class Refused(Exception):
    """Why a request is refused. This is logged; the sender is told nothing."""


def keys_from(name: str, form: str) -> list[str]:
    """Returns the keys that a variable holds: the one in use, and those of a rotation."""
    keys = os.environ.get(name, "").split()
    if not 1 <= len(keys) <= 4 or not all(re.fullmatch(form, key) for key in keys):
        message = f"{name} must hold one to four keys as the platform shows them, with white space between them."
        print(message, file=sys.stderr)
        sys.exit(2)
    return keys


# The form is checked here, because the library skips characters that are not base64.
SECRET = r"whsec_([A-Za-z0-9+/]{4}){8,21}([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
WEBHOOKS = [Webhook(secret) for secret in keys_from("SCALE_CALLBACK_SIGNING_SECRET", SECRET)]
AUTH_KEYS = []
if "SCALE_CALLBACK_AUTH_KEY" in os.environ:
    AUTH_KEYS = keys_from("SCALE_CALLBACK_AUTH_KEY", r"(live|test)_auth_[0-9a-f]{32}")

# The callbacks that were handled. In production, keep them in tables of your database: claim webhook-id under a unique
# key, do the work and commit, all in one transaction. Here the lock takes the place of that transaction.
lock = threading.Lock()
handled: set[str] = set()  # webhook-id
newest: dict[str, str] = {}  # task_id -> time of its newest event


def verify(body: bytes) -> str:
    """Returns the webhook-id of a request that the platform signed."""
    # Waitress joins repeated headers with ", ", which none of these values may contain.
    webhook_id = request.headers.get("webhook-id", "")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", webhook_id):
        raise Refused("webhook-id is missing, repeated or malformed")
    if not re.fullmatch(r"[1-9][0-9]{0,11}", request.headers.get("webhook-timestamp", "")):
        raise Refused("webhook-timestamp is missing, repeated or malformed")
    auth = request.headers.get("scale-callback-auth", "")
    if ", " in auth:
        raise Refused("scale-callback-auth is repeated")
    if AUTH_KEYS and not any(hmac.compare_digest(key.encode(), auth.encode()) for key in AUTH_KEYS):
        raise Refused("scale-callback-auth is not the key")

    # There may be several signature headers.
    signature = request.headers.get("webhook-signature", "").replace(", ", " ")
    signed = {**request.headers, "webhook-signature": signature}
    for webhook in WEBHOOKS:
        try:
            webhook.verify(body, signed, json_parse=False)
            return webhook_id
        except (WebhookVerificationError, ValueError) as error:  # ValueError: malformed base64, or a body that is not UTF-8
            reason = str(error)
    raise Refused(reason)


def event_time(webhook_id: str) -> str:
    """Returns the ten characters that hold the event's time, which sort as text. Empty for an id of another form."""
    return webhook_id[3:13] if re.fullmatch(r"cb_[0-9a-hjkmnp-tv-z]{26}", webhook_id) else ""


def say(*words: str):
    # The text is escaped, because text from the body must not be able to forge lines of the log.
    print(*(word.encode("unicode_escape").decode() for word in words), flush=True)


def handle(webhook_id: str, callback: dict):
    """Put your work here. If it raises, the answer is 500, and the platform tries again."""
    status = callback["task"].get("status")
    say("handled", webhook_id, callback["task_id"], status if isinstance(status, str) else "-")


@app.post("/callbacks", provide_automatic_options=False)
def receive():
    body = request.get_data(cache=False)
    webhook_id = verify(body)
    try:
        callback = json.loads(body.decode())
    except (ValueError, RecursionError):
        return "not JSON\n", 400
    match callback:
        case {"task_id": str(task_id), "task": dict()}:
            pass
        case _:
            return "not a callback\n", 400

    time = event_time(webhook_id)
    with lock:
        if webhook_id in handled:
            say("repeat", webhook_id)
            return "", 200
        if time and time < newest.get(task_id, ""):
            say("older", webhook_id, task_id)
        else:
            handle(webhook_id, callback)
            if time:
                newest[task_id] = time
        handled.add(webhook_id)
    return "", 204


@app.errorhandler(Refused)
def refused(reason: Refused):
    app.logger.warning("refused: %s", reason)
    return "", 401


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Waitress limits bodies roughly, because its count includes the framing of chunks. Flask's limit is exact.
    server = create_server(
        app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")), max_request_body_size=2 * MAX_BODY
    )
    print(f"listening on http://127.0.0.1:{server.effective_port}/callbacks", flush=True)
    server.run()
