#!/usr/bin/env python3
"""Test vectors of the signed headers, computed only with Python's standard library, independently of the SDK.

  vectors.py > vectors.json          writes the vectors
  vectors.py --check vectors.json    fails if the file differs
"""

import base64
import hashlib
import hmac
import json
import sys

SECRETS = {
    "published_1": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "published_2": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "longest": "whsec_" + base64.b64encode(bytes(range(64))).decode(),
}
HMAC_KEYS = ["live_hmac_" + "0123456789abcdef" * 4, "test_hmac_" + "fedcba9876543210" * 4]
AUTH_KEYS = ["live_auth_" + "0123456789abcdef" * 2, "test_auth_" + "fedcba9876543210" * 2]
IDS = ["cb_01kav9ft00zkek0kfes3qvf608", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", "msg_p5jXN8AQM9LWM0D4loKWxJek", "x", "A-_9" * 16]
TIMES = [1649367553, 1614265330, 1764000000, 1, 999999999999]
BODIES = [
    b'{"email":"test@example.com","username":"test_user"}',
    b'{"test": 2432232314}',
    b'{"task":{"task_id":"t1","type":"imageannotation","x":26.198676151772684},"response":{"a":1e400},"task_id":"t1"}',
    b"",
    b"\x00\xff\xfe not text",
    "ü 📦".encode(),
]


def signature(secret: str, id: str, time: int, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{id}.{time}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def auth(key: str, id: str, time: int, body: bytes) -> str:
    message = b"scale-callback-auth;v1\n" + f"{time}\n{id}\n".encode() + body
    return hmac.new(key.encode(), message, hashlib.sha256).hexdigest()


def vectors() -> list:
    found = []
    for number, (id, time, body) in enumerate((i, t, b) for i in IDS for t in TIMES for b in BODIES):
        name = list(SECRETS)[number % len(SECRETS)]
        key = HMAC_KEYS[number % 2]
        found.append({
            "secret": SECRETS[name],
            "hmac_key": key,
            "auth_key": AUTH_KEYS[number % 2],
            "id": id,
            "timestamp": time,
            "body_base64": base64.b64encode(body).decode(),
            "signature": signature(SECRETS[name], id, time, body),
            "auth": f"t={time},v1={auth(key, id, time, body)}",
        })
    return found


def main() -> int:
    text = json.dumps(vectors(), indent=1) + "\n"
    if len(sys.argv) == 3 and sys.argv[1] == "--check":
        with open(sys.argv[2], encoding="utf-8") as file:
            if file.read() != text:
                print(f"{sys.argv[2]} is not what this script computes", file=sys.stderr)
                return 1
        print(f"{len(vectors())} vectors are as computed")
        return 0
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
