#!/usr/bin/env python3
"""The conformance corpus: requests, and what a receiver must say of each, decided by a verifier of its own that is
written here with Python's standard library alone.

  conformance.py > conformance.json          writes it
  conformance.py --check conformance.json    fails if the file differs

A case has a verifier (what the receiver holds), a recipe (how its request is made), the request itself as it is made
at `now`, and the verdict: null where it must be accepted, else the reason. A case that is tagged `http` can be sent:
its recipe is made anew at the time of sending, its times are told from then, and the usual id is replaced by a new one,
so that no receiver takes it for a repeat. One that is tagged `sdk` alone can't (bytes that HTTP does not carry, or a
limit to the second).
"""

import base64
import hashlib
import hmac
import json
import re
import sys

NOW = 1764000000
TOLERANCE = 300
ID = "cb_01kav9ft00zkek0kfes3qvf608"
BODY = b'{"task":{"task_id":"t1","type":"imageannotation","is_test":false},"response":{"x":26.198676151772684},"task_id":"t1"}'

KEYS = {
    "signing": {
        "main": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "next": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "test": "whsec_" + base64.b64encode(bytes(range(32))).decode(),
        "other": "whsec_" + base64.b64encode(bytes(range(64))).decode(),
    },
    "auth": {
        "main": "live_auth_" + "0123456789abcdef" * 2,
        "next": "live_auth_" + "00112233445566778899aabbccddeeff",
        "test": "test_auth_" + "fedcba9876543210" * 2,
        "other": "live_auth_" + "f" * 32,
    },
    "hmac": {
        "main": "live_hmac_" + "0123456789abcdef" * 4,
        "next": "live_hmac_" + "00112233445566778899aabbccddeeff" * 2,
        "test": "test_hmac_" + "fedcba9876543210" * 4,
        "other": "live_hmac_" + "f" * 64,
    },
}

BODIES = {
    "callback": BODY,
    "callback with a space behind": BODY + b" ",
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
    "broken off": b'{"task_id":"t1","task":{',
    "escapes": rb'{"task_id":"t\u0031\ud83d\udce6","task":{"type":"x"},"response":null}',
    "repeated member": b'{"task_id":"old","task_id":"t1","task":{}}',
    "numbers": b'{"task_id":"t1","task":{},"response":{"x":1e400,"y":123456789012345678901234567890,"z":-0.0}}',
    "deep": b'{"task_id":"t1","task":{},"response":' + b"[" * 100 + b"]" * 100 + b"}",
}

# What a receiver holds: credentials, and whether it wants live callbacks alone.
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


def secret_bytes(name):
    return base64.b64decode(KEYS["signing"][name].removeprefix("whsec_"))


def signature(name, id, timestamp, body):
    content = f"{id}.{timestamp}.".encode() + body
    return hmac.new(secret_bytes(name), content, hashlib.sha256).digest()


def auth_mac(name, id, timestamp, body):
    message = b"scale-callback-auth;v1\n" + f"{timestamp}\n{id}\n".encode() + body
    return hmac.new(KEYS["hmac"][name].encode(), message, hashlib.sha256).hexdigest()


def encoded(mac, how):
    standard = base64.b64encode(mac).decode()
    if how == "unpadded":
        return standard.rstrip("=")
    if how == "url_safe":
        return base64.urlsafe_b64encode(mac).decode()
    if how == "hex":
        return mac.hex()
    if how == "non_canonical":
        # 32 bytes leave two bits of the last digit unused; set one of them.
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        last = alphabet.index(standard[42])
        return standard[:42] + alphabet[last | 1] + "="
    if how == "lower_case":
        return standard.lower()
    return standard


# A recipe, made into a request at a time: a list of (name, value) and the body.
def made(recipe, now):
    body = BODIES[recipe["body"]]
    id, timestamp = recipe["id"], recipe["timestamp"]
    time = timestamp["text"] if "text" in timestamp else str(now + timestamp["offset"])
    headers = []
    if id is not None:
        headers.append(["webhook-id", id])
    if time is not None:
        headers.append(["webhook-timestamp", time])
    over = recipe.get("over", {})
    signed = (over.get("id", id or ""), over.get("timestamp", time or ""), BODIES[over["body"]] if "body" in over else body)
    for line in recipe["signatures"]:
        parts = []
        for part in line:
            if "raw" in part:
                parts.append(part["raw"])
            else:
                mac = signature(part["secret"], *signed)
                parts.append(part.get("version", "v1") + "," + encoded(mac, part.get("as", "standard")))
        headers.append(["webhook-signature", " ".join(parts)])
    auth = recipe["auth"]
    if auth is not None:
        if "raw" in auth:
            value = auth["raw"]
        elif "key" in auth:
            value = KEYS["auth"][auth["key"]]
        else:
            macs = [auth_mac(name, *signed) for name in auth["hmac"]]
            macs = [mac.upper() if auth.get("as") == "upper_case" else mac for mac in macs]
            t = auth.get("t", signed[1])
            value = auth.get("join", ",").join([f"t={t}"] + [f"v1={mac}" for mac in macs]) + auth.get("tail", "")
        headers.append(["scale-callback-auth", value])
    headers += recipe.get("more", [])
    return headers, body


# The verifier: the reason of a refusal, or None.
def verdict(verifier, headers, body, now):
    credentials, live_only = VERIFIERS[verifier]
    values = lambda name: [value for known, value in headers if known.lower() == name]
    ids, times, auths = values("webhook-id"), values("webhook-timestamp"), values("scale-callback-auth")
    if len(ids) > 1:
        return "id_duplicate"
    if not ids:
        return "id_missing"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", ids[0], re.ASCII):
        return "id_invalid"
    if len(times) > 1:
        return "timestamp_duplicate"
    if not times:
        return "timestamp_missing"
    if len(auths) > 1:
        return "auth_duplicate"
    if auths and len(auths[0].encode()) > 256:
        return "header_too_long"
    size, count, given, seen = 0, 0, [], False
    for value in values("webhook-signature"):
        seen = True
        size += len(value.encode())
        if size > 4096:
            return "header_too_long"
        for entry in value.split(" "):
            if not entry:
                continue
            count += 1
            if count > 16:
                return "too_many_signatures"
            if entry.startswith("v1,"):
                given.append(entry[3:])
    if not re.fullmatch(r"[1-9][0-9]{0,11}", times[0], re.ASCII):
        return "timestamp_invalid"
    time = int(times[0])
    if now - time > TOLERANCE:
        return "timestamp_too_old"
    if time - now > TOLERANCE:
        return "timestamp_too_new"

    def signed(name):
        if not seen:
            return "signature_missing"
        right = base64.b64encode(signature(name, ids[0], times[0], body)).decode()
        return None if right in given else "signature_mismatch"

    def keyed(name):
        if not auths:
            return "auth_missing"
        return None if auths[0] == KEYS["auth"][name] else "auth_mismatch"

    def authenticated(name):
        if not auths:
            return "auth_missing"
        form = re.fullmatch(r"t=([1-9][0-9]{0,11}),v1=([0-9a-f]{64})(?:,v1=([0-9a-f]{64}))?", auths[0], re.ASCII)
        if not form:
            return "auth_malformed"
        if form[1] != times[0]:
            return "auth_timestamp_differs"
        right = auth_mac(name, ids[0], times[0], body)
        return None if right in (form[2], form[3]) else "auth_mismatch"

    refusal = "signature_mismatch"
    for place, (kind, mode, *names) in enumerate(credentials):
        if kind == "signed":
            reason = signed(names[0])
        elif kind == "keyed":
            reason = signed(names[0]) or keyed(names[1])
        elif kind == "hmac":
            reason = authenticated(names[0])
        else:
            reason = keyed(names[0])
        if reason is None and live_only and mode == "test":
            refusal = "test_refused"
        elif reason is None:
            return None
        elif place == 0:
            refusal = reason
    return refusal


# A verified body that is no callback: the reason, or None.
def parse(body):
    try:
        text = body.decode("utf-8")
        whole = json.loads(text)
    except (UnicodeDecodeError, ValueError):
        return "not_json"
    if not isinstance(whole, dict):
        return "not_json"
    if not isinstance(whole.get("task_id"), str) or not isinstance(whole.get("task"), dict):
        return "not_a_callback"
    return None


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
    """(name, verifiers, recipe, tags)"""
    found = []

    def add(name, verifiers, made, only_sdk=False):
        verifiers = {name: made for name in (verifiers if isinstance(verifiers, list) else [verifiers])}
        # Whoever holds the key as well is held to the same rules, and so is the hmac form to those of any form.
        if "signed" in verifiers:
            verifiers.setdefault("keyed", {**made, "auth": {"key": "main"}})
        if "static" in verifiers:
            verifiers.setdefault("hmac", {**made, "auth": {"hmac": ["main"]}})
        for verifier, made in verifiers.items():
            found.append((f"{name}/{verifier}", verifier, made, ["sdk"] if only_sdk else ["sdk", "http"]))

    everyone = list(VERIFIERS)
    # The three credentials in every combination, right and wrong, and each form where another is expected.
    for secret in [None, "main", "next", "test", "other"]:
        for auth in [None, "key main", "key next", "key test", "key other", "hmac main", "hmac next", "hmac test", "hmac other"]:
            form, _, which = (auth or "").partition(" ")
            value = None if auth is None else {"key": which} if form == "key" else {"hmac": [which]}
            name = f"signed {secret or 'by none'}, auth {auth or 'absent'}"
            add(name, everyone, recipe(signatures=sig(secret) if secret else [], auth=value))
    # Rotation: several signatures, in any place and over several headers.
    add("two signatures, the old one first", ["signed", "signed_rotating"], recipe(signatures=sig("main", "next")))
    add("two signatures, the new one first", ["signed", "signed_rotating"], recipe(signatures=sig("next", "main")))
    add("two headers of signatures", "signed", recipe(signatures=[[{"secret": "other"}], [{"secret": "main"}]]))
    add("sixteen signatures, the right one last", "signed", recipe(signatures=sig(*["other"] * 15, "main")))
    add("seventeen signatures", "signed", recipe(signatures=sig(*["other"] * 16, "main")))
    add("two hmacs, ours first", ["hmac", "hmac_rotating"], recipe(auth={"hmac": ["main", "next"]}))
    add("two hmacs, ours second", ["hmac", "hmac_rotating"], recipe(auth={"hmac": ["other", "main"]}))
    add("three hmacs", "hmac", recipe(auth={"hmac": ["main", "next", "other"]}))
    # Signatures: encodings and forms.
    for how in ["unpadded", "url_safe", "hex", "non_canonical", "lower_case"]:
        add(f"signature {how}", ["signed", "keyed"], recipe(signatures=[[{"secret": "main", "as": how}]]))
    for version in ["v1a", "v2", "V1", "v01", ""]:
        add(f"signature of version {version or 'none'}", "signed", recipe(signatures=[[{"secret": "main", "version": version}]]))
    add("another version beside ours", "signed", recipe(signatures=[[{"raw": "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="}, {"secret": "main"}]]))
    for raw in ["", ",", "v1,", "v1", "v1,,", "garbage", "v1, v1,"]:
        add(f"signature {raw!r}", "signed", recipe(signatures=[[{"raw": raw}]]), only_sdk=raw == "")
    add("spaces around the signature", "signed", recipe(signatures=[[{"raw": ""}, {"secret": "main"}, {"raw": ""}]]), only_sdk=True)
    add("two spaces between signatures", "signed", recipe(signatures=[[{"secret": "other"}, {"raw": ""}, {"secret": "main"}]]))
    add("a tab between signatures", "signed", recipe(signatures=[[{"raw": "v1,AAAA\tv1,BBBB"}]]))
    add("4,097 bytes of signatures", "signed", recipe(signatures=[[{"raw": "v1," + "A" * 4094}]]))
    add("4,096 bytes of signatures and none of ours", "signed", recipe(signatures=[[{"raw": "v1," + "A" * 4093}]]))
    # The hmac form.
    add("hmac in upper case", "hmac", recipe(auth={"hmac": ["main"], "as": "upper_case"}))
    add("hmac with a space", "hmac", recipe(auth={"hmac": ["main"], "join": ", "}))
    add("hmac with a comma behind", "hmac", recipe(auth={"hmac": ["main"], "tail": ","}))
    add("hmac with another part behind", "hmac", recipe(auth={"hmac": ["main"], "tail": ",v2=00"}))
    for t in ["1764000001", "0", "01764000000", "+1764000000", "-1", "", "1e9", "9999999999999"]:
        add(f"hmac of another time {t!r}", "hmac", recipe(auth={"hmac": ["main"], "t": t}))
    for raw in ["", "t=", "v1=" + "0" * 64, "t=1764000000", "t=1764000000,v1=", "t=1764000000,v1=" + "0" * 63, "t=1764000000,v1=" + "0" * 65, "T=1764000000,v1=" + "0" * 64]:
        add(f"hmac form {raw[:24]!r} of {len(raw)}", "hmac", recipe(auth={"raw": raw}), only_sdk=raw == "")
    add("257 bytes of auth", ["hmac", "keyed", "signed"], recipe(auth={"raw": "t=" + "1" * 255}))
    # The key form.
    for raw in ["live_auth_" + "0123456789abcdef" * 2 + "0", "live_auth_0123456789abcdef0123456789abcde", "LIVE_AUTH_" + "0123456789abcdef" * 2, "live_auth_" + "0123456789ABCDEF" * 2, "Bearer live_auth_" + "0123456789abcdef" * 2, "x"]:
        add(f"key {raw[:14]!r} of {len(raw)}", ["keyed", "static"], recipe(auth={"raw": raw}))
    # Times.
    for offset in [-301, -300, -299, 299, 300, 301]:
        add(f"{offset} seconds", ["signed", "hmac"], recipe(timestamp={"offset": offset}, auth={"hmac": ["main"]}), only_sdk=True)
    for offset in [-3600, -600, -60, 60, 600, 3600]:
        add(f"{offset} seconds", ["signed", "hmac", "static"], recipe(timestamp={"offset": offset}, auth={"hmac": ["main"]} if offset % 7 else {"key": "main"}))
    for text in ["0", "-1", "+1764000000", "01764000000", "1764000000.0", "1.764e9", "0x6924a500", "999999999999", "1000000000000", "9223372036854775807", "18446744073709551616", "١٧٦٤٠٠٠٠٠٠"]:
        add(f"time {text!r}", ["signed", "static"], recipe(timestamp={"text": text}), only_sdk=not text.isascii())
    add("time with a space", "signed", recipe(timestamp={"text": "1764000000 "}), only_sdk=True)
    add("no time", everyone[:5], recipe(timestamp={"text": None}))
    add("two times", ["signed", "static"], recipe(more=[["webhook-timestamp", "1764000000"]]))
    # Ids.
    for id in ["cb_1", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", "A-_9" * 16, "x", "-"]:
        add(f"id {id[:12]!r} of {len(id)}", ["signed", "hmac"], recipe(id=id, auth={"hmac": ["main"]}))
    for id in ["", "a.b", "a b", "a/b", "ü", "x" * 65, "cb_1,cb_2"]:
        add(f"id {id[:12]!r} of {len(id)}", ["signed", "static"], recipe(id=id), only_sdk=not id.isascii() or id == "")
    add("no id", everyone[:5], recipe(id=None))
    add("two ids", ["signed", "static"], recipe(more=[["webhook-id", ID]]))
    add("two auth headers", ["signed", "keyed", "hmac", "static"], recipe(more=[["scale-callback-auth", KEYS["auth"]["main"]]]))
    add("names in other cases", "both_modes", recipe(more=[["X-Webhook-Id", "other"]]))
    # What was signed is another thing than what was sent.
    add("signed over another id", ["signed", "hmac"], recipe(over={"id": "cb_other"}, auth={"hmac": ["main"]}))
    add("signed over another time", ["signed"], recipe(over={"timestamp": "1763999999"}))
    add("signed over another body", ["signed", "hmac"], recipe(over={"body": "callback with a space behind"}, auth={"hmac": ["main"]}))
    add("a dot moved from id to time", "signed", recipe(id="cb_1", over={"id": "cb", "timestamp": "_1"}))
    # Bodies are bytes.
    for name in BODIES:
        if name != "callback":
            add(f"body {name}", ["signed", "hmac"], recipe(body=name, auth={"hmac": ["main"]}))
    return found


def corpus():
    found, seen = [], set()
    for name, verifier, recipe, tags in cases():
        headers, body = made(recipe, NOW)
        unique = (verifier, json.dumps(headers), body)
        if unique in seen:
            continue
        seen.add(unique)
        found.append({
            "name": name,
            "tags": tags,
            "verifier": verifier,
            "recipe": recipe,
            "headers": headers,
            "refusal": verdict(verifier, headers, body, NOW) or parse(body),
        })
    verifiers = {
        name: {
            "live_only": live_only,
            "credentials": [dict(zip(["kind", "mode", "key", "second_key"], credential)) for credential in credentials],
        }
        for name, (credentials, live_only) in VERIFIERS.items()
    }
    bodies = {name: base64.b64encode(body).decode() for name, body in BODIES.items()}
    return {"now": NOW, "id": ID, "keys": KEYS, "bodies": bodies, "verifiers": verifiers, "cases": found}


def text_of(whole):
    """A line a case, so that a change shows as the lines that it changes."""
    lines = lambda items: ",\n".join(json.dumps(item, ensure_ascii=False) for item in items)
    head = {name: value for name, value in whole.items() if name != "cases"}
    return json.dumps(head, ensure_ascii=False, indent=1)[:-2] + ',\n "cases": [\n' + lines(whole["cases"]) + "\n]}\n"


def main():
    whole = corpus()
    text = text_of(whole)
    refusals = [case["refusal"] for case in whole["cases"] if case["refusal"]]
    counts = f"{len(whole['cases'])} cases, {len(refusals)} refusals of {len(set(refusals))} reasons"
    if len(sys.argv) == 3 and sys.argv[1] == "--check":
        with open(sys.argv[2], encoding="utf-8") as file:
            if file.read() != text:
                print(f"{sys.argv[2]} is not what this script computes", file=sys.stderr)
                return 1
        print(f"{counts}: as computed")
        return 0
    sys.stdout.write(text)
    print(counts, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
