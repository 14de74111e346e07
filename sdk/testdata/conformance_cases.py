"""The cases of the conformance corpus: the keys, bodies and receivers that occur in it, and a recipe for each request.

A recipe says how `conformance.py` makes a request. A case that is tagged `http` can be sent over HTTP. A case that is
tagged only `sdk` can't, because HTTP does not carry its bytes, or because its limit is exact to the second.
"""

import base64

NOW = 1764000000
ID = "cb_01kav9ft00zkek0kfes3qvf608"
BODY = b'{"task":{"task_id":"t1","type":"imageannotation","is_test":false},"response":{"x":26.198676151772684},"task_id":"t1"}'

# A receiver's own keys replace the main ones. No other published example has the remaining ones: a receiver that is set up
# with such an example would rightly accept what these cases expect to be refused.
KEYS = {
    "signing": {
        "main": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "next": "whsec_JMcoZdyxUw7P0rQVNTJncgcfLr2IK/vG",
        "test": "whsec_8HQ9kGYcTkAkyuRxcbVJbv7g12qUvQWQaxB6CiGd1uw=",
        "other": "whsec_ewYnrch7j26CXui5Mm8gwYKIvRnef/KnHie31N/RsGZw6ogAz/tfaDF+3KY5BtN5tMTTRka60eSFydmpz8A6xg==",
    },
    "auth": {
        "main": "live_auth_" + "0123456789abcdef" * 2,
        "next": "live_auth_75c2edd99ec03cd15510e2bd33a7173e",
        "test": "test_auth_bea97c190e9c5d8d52768463fd309352",
        "other": "live_auth_5394fe9924891b902e02cb3ed6dc8d9e",
    },
    "hmac": {
        "main": "live_hmac_" + "0123456789abcdef" * 4,
        "next": "live_hmac_389cac4c06669be68bfe1806844aa1b3aca91af857d81ba8ff4b8fc0e48b78b3",
        "test": "test_hmac_dfb78bd7a930b8626796009669f691416ce2f7ff5cbd5c27374f170fef4c32c6",
        "other": "live_hmac_ae0603a8c72f5e6c6f9fd8bb7e80e44b2684e0ac68156b5cd548958da2bdfc05",
    },
}

BODIES = {
    "callback": BODY,
    "callback with a trailing space": BODY + b" ",
    "live task, test key": BODY.replace(b"false", b"true"),
    "empty": b"",
    "not UTF-8": b"\xff\xfe\x00",
    "one NUL": b"\0",
    "BOM": b"\xef\xbb\xbf{}",
    "CRLF": b"{\r\n}",
    "large": b"[" + b"1," * 30000 + b"1]",
    "scripts": "ü 📦 данные".encode(),
    "array": b"[]",
    "no task": b'{"task_id":"t1"}',
    "no task id": b'{"task":{"task_id":"t1"}}',
    "task id is a number": b'{"task_id":1,"task":{}}',
    "task is a list": b'{"task_id":"t1","task":[]}',
    "two objects": b'{"task_id":"t1","task":{}}{}',
    "cut off": b'{"task_id":"t1","task":{',
    "escapes": rb'{"task_id":"t\u0031\ud83d\udce6","task":{"type":"x"},"response":null}',
    "repeated member": b'{"task_id":"old","task_id":"t1","task":{}}',
    "numbers": b'{"task_id":"t1","task":{},"response":{"x":1e400,"y":123456789012345678901234567890,"z":-0.0}}',
    "deep": b'{"task_id":"t1","task":{},"response":' + b"[" * 100 + b"]" * 100 + b"}",
}

# What a receiver holds: its credentials, and whether it accepts only live callbacks.
VERIFIERS = {
    "signed": ([("signed", "live", "main")], False),
    "signed_rotating": ([("signed", "live", "main"), ("signed", "live", "next")], False),
    "keyed": ([("keyed", "live", "main", "main")], False),
    "keyed_rotating": ([("keyed", "live", "main", "main"), ("keyed", "live", "main", "next")], False),
    "hmac": ([("hmac", "live", "main")], False),
    "hmac_rotating": ([("hmac", "live", "main"), ("hmac", "live", "next")], False),
    "static": ([("static", "live", "main")], False),
    "both_modes": ([("keyed", "live", "main", "main"), ("keyed", "test", "test", "test")], False),
    "live_only": ([("keyed", "live", "main", "main"), ("keyed", "test", "test", "test")], True),
}


def recipe(**over):
    base = {
        "id": ID,
        "timestamp": {"offset": 0},
        "body": "callback",
        "signatures": [[{"secret": "main"}]],
        "auth": {"key": "main"},
    }
    return {**base, **over}


def sig(*names):
    return [[{"secret": name} for name in names]]


def cases():
    """All cases as (name, verifier, recipe, tags)."""
    found = []

    def add(name, verifiers, made, only_sdk=False):
        verifiers = {name: made for name in (verifiers if isinstance(verifiers, list) else [verifiers])}
        # A receiver that also holds the key follows the rules of a signed request, and so does the hmac form those of
        # the plain key.
        if "signed" in verifiers:
            verifiers.setdefault("keyed", {**made, "auth": {"key": "main"}})
        if "static" in verifiers:
            verifiers.setdefault("hmac", {**made, "auth": {"hmac": ["main"]}})
        for verifier, made in verifiers.items():
            found.append((f"{name}/{verifier}", verifier, made, ["sdk"] if only_sdk else ["sdk", "http"]))

    for group in [combinations, rotations, signature_forms, hmac_forms, key_forms, times, ids, wrong_content, bodies]:
        group(add)
    return found


def combinations(add):
    """The three credentials in every combination, right and wrong, and each form where another one is expected."""
    for secret in [None, "main", "next", "test", "other"]:
        for auth in [None, "key main", "key next", "key test", "key other", "hmac main", "hmac next", "hmac test", "hmac other"]:
            form, _, which = (auth or "").partition(" ")
            value = None if auth is None else {"key": which} if form == "key" else {"hmac": [which]}
            name = f"{f'signed {secret}' if secret else 'unsigned'}, auth {auth or 'absent'}"
            add(name, list(VERIFIERS), recipe(signatures=sig(secret) if secret else [], auth=value))


def rotations(add):
    """Several signatures, in any position and in several headers."""
    add("two signatures, the old one first", ["signed", "signed_rotating"], recipe(signatures=sig("main", "next")))
    add("two signatures, the new one first", ["signed", "signed_rotating"], recipe(signatures=sig("next", "main")))
    add("two headers of signatures", "signed", recipe(signatures=[[{"secret": "other"}], [{"secret": "main"}]]))
    add("sixteen signatures, the right one last", "signed", recipe(signatures=sig(*["other"] * 15, "main")))
    add("seventeen signatures", "signed", recipe(signatures=sig(*["other"] * 16, "main")))
    add("two hmacs, the right one first", ["hmac", "hmac_rotating"], recipe(auth={"hmac": ["main", "next"]}))
    add("two hmacs, the right one second", ["hmac", "hmac_rotating"], recipe(auth={"hmac": ["other", "main"]}))
    add("three hmacs", "hmac", recipe(auth={"hmac": ["main", "next", "other"]}))


def signature_forms(add):
    """Encodings and forms of signatures."""
    for how in ["unpadded", "url_safe", "hex", "non_canonical", "lower_case"]:
        add(f"signature {how}", ["signed", "keyed"], recipe(signatures=[[{"secret": "main", "as": how}]]))
    # Lenient decoders of base64 stop at the padding, or skip what they do not know.
    for tail in ["=A", "=-", "A", "-"]:
        add(f"signature with {tail} behind it", ["signed", "keyed"], recipe(signatures=[[{"secret": "main", "tail": tail}]]))
    for version in ["v1a", "v2", "V1", "v01", ""]:
        add(f"signature of version {version or 'none'}", "signed", recipe(signatures=[[{"secret": "main", "version": version}]]))
    add("a signature of another version beside the right one", "signed", recipe(signatures=[[{"raw": "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="}, {"secret": "main"}]]))
    for raw in ["", ",", "v1,", "v1", "v1,,", "garbage", "v1, v1,"]:
        add(f"signature {raw!r}", "signed", recipe(signatures=[[{"raw": raw}]]), only_sdk=raw == "")
    add("spaces around the signature", "signed", recipe(signatures=[[{"raw": ""}, {"secret": "main"}, {"raw": ""}]]), only_sdk=True)
    add("two spaces between signatures", "signed", recipe(signatures=[[{"secret": "other"}, {"raw": ""}, {"secret": "main"}]]))
    add("a tab between signatures", "signed", recipe(signatures=[[{"raw": "v1,AAAA\tv1,BBBB"}]]))
    add("4,097 bytes of signatures", "signed", recipe(signatures=[[{"raw": "v1," + "A" * 4094}]]))
    add("4,096 bytes of signatures, none of them right", "signed", recipe(signatures=[[{"raw": "v1," + "A" * 4093}]]))


def hmac_forms(add):
    """The hmac form of the header."""
    add("hmac in upper case", "hmac", recipe(auth={"hmac": ["main"], "as": "upper_case"}))
    add("hmac with a space", "hmac", recipe(auth={"hmac": ["main"], "join": ", "}))
    add("hmac with a trailing comma", "hmac", recipe(auth={"hmac": ["main"], "tail": ","}))
    add("hmac with an extra part at the end", "hmac", recipe(auth={"hmac": ["main"], "tail": ",v2=00"}))
    for t in ["1764000001", "0", "01764000000", "+1764000000", "-1", "", "1e9", "9999999999999"]:
        add(f"hmac with t={t!r}", "hmac", recipe(auth={"hmac": ["main"], "t": t}))
    for raw in ["", "t=", "v1=" + "0" * 64, "t=1764000000", "t=1764000000,v1=", "t=1764000000,v1=" + "0" * 63, "t=1764000000,v1=" + "0" * 65, "T=1764000000,v1=" + "0" * 64]:
        add(f"hmac form {raw[:24]!r} of {len(raw)}", "hmac", recipe(auth={"raw": raw}), only_sdk=raw == "")
    add("257 bytes of auth", ["hmac", "keyed", "signed"], recipe(auth={"raw": "t=" + "1" * 255}))


def key_forms(add):
    """The key form of the header."""
    for raw in ["live_auth_" + "0123456789abcdef" * 2 + "0", "live_auth_0123456789abcdef0123456789abcde", "LIVE_AUTH_" + "0123456789abcdef" * 2, "live_auth_" + "0123456789ABCDEF" * 2, "Bearer live_auth_" + "0123456789abcdef" * 2, "x"]:
        add(f"key {raw[:14]!r} of {len(raw)}", ["keyed", "static"], recipe(auth={"raw": raw}))


def times(add):
    """Timestamps."""
    for offset in [-301, -300, -299, 299, 300, 301]:
        add(f"{offset} seconds", ["signed", "hmac"], recipe(timestamp={"offset": offset}, auth={"hmac": ["main"]}), only_sdk=True)
    for offset in [-3600, -600, -60, 60, 600, 3600]:
        add(f"{offset} seconds", ["signed", "hmac", "static"], recipe(timestamp={"offset": offset}, auth={"hmac": ["main"]} if offset % 7 else {"key": "main"}))
    for text in ["0", "-1", "+1764000000", "01764000000", "1764000000.0", "1.764e9", "0x6924a500", "999999999999", "1000000000000", "9223372036854775807", "18446744073709551616", "١٧٦٤٠٠٠٠٠٠"]:
        add(f"timestamp {text!r}", ["signed", "static"], recipe(timestamp={"text": text}), only_sdk=not text.isascii())
    add("timestamp with a trailing space", "signed", recipe(timestamp={"text": "1764000000 "}), only_sdk=True)
    add("no timestamp", list(VERIFIERS)[:5], recipe(timestamp={"text": None}))
    add("two timestamps", ["signed", "static"], recipe(more=[["webhook-timestamp", "1764000000"]]))


def ids(add):
    """Ids and repeated headers."""
    for id in ["cb_1", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", "A-_9" * 16, "x", "-"]:
        add(f"id {id[:12]!r} of {len(id)}", ["signed", "hmac"], recipe(id=id, auth={"hmac": ["main"]}))
    for id in ["", "a.b", "a b", "a/b", "ü", "x" * 65, "cb_1,cb_2"]:
        add(f"id {id[:12]!r} of {len(id)}", ["signed", "static"], recipe(id=id), only_sdk=not id.isascii() or id == "")
    add("no id", list(VERIFIERS)[:5], recipe(id=None))
    add("two ids", ["signed", "static"], recipe(more=[["webhook-id", ID]]))
    add("two auth headers", ["signed", "keyed", "hmac", "static"], recipe(more=[["scale-callback-auth", KEYS["auth"]["main"]]]))
    add("an unrelated header whose name ends in webhook-id", "both_modes", recipe(more=[["X-Webhook-Id", "other"]]))


def wrong_content(add):
    """What was signed differs from what was sent."""
    add("signed over another id", ["signed", "hmac"], recipe(over={"id": "cb_other"}, auth={"hmac": ["main"]}))
    add("signed over another time", ["signed"], recipe(over={"timestamp": "1763999999"}))
    add("signed over another body", ["signed", "hmac"], recipe(over={"body": "callback with a trailing space"}, auth={"hmac": ["main"]}))
    add("a dot moved from id to time", "signed", recipe(id="cb_1", over={"id": "cb", "timestamp": "_1"}))


def bodies(add):
    """Bodies are bytes."""
    for name in BODIES:
        if name != "callback":
            add(f"body {name}", ["signed", "hmac"], recipe(body=name, auth={"hmac": ["main"]}))
