#!/usr/bin/env python3
"""The conformance corpus: requests, and the verdict that a receiver must give on each. This script makes the requests and
decides with its own verifier, which uses only Python's standard library.

  conformance.py > conformance.json          writes the corpus
  conformance.py --check conformance.json    fails if the file differs

A case has a verifier (what the receiver holds), a recipe (how its request is made), the request as it is made at `now`,
and the verdict: null if it must be accepted, otherwise the reason. A case that is tagged `http` can be sent. For that,
the request is made again from its recipe at the time of sending: its timestamps count from that time, and a new id
replaces the usual one, so that no receiver takes it for a repeat.
"""

import base64
import hashlib
import hmac
import json
import re
import sys

sys.dont_write_bytecode = True  # no __pycache__ beside the corpus

from conformance_cases import BODIES, ID, KEYS, NOW, VERIFIERS, cases  # noqa: E402

TOLERANCE = 300


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
        # 32 bytes leave two bits of the last base64 digit unused. Set one of them.
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        last = alphabet.index(standard[42])
        return standard[:42] + alphabet[last | 1] + "="
    if how == "lower_case":
        return standard.lower()
    return standard


def made(recipe, now):
    """Makes a request from a recipe at a time: a list of (name, value), and the body."""
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
                text = encoded(mac, part.get("as", "standard")) + part.get("tail", "")
                parts.append(part.get("version", "v1") + "," + text)
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


def verdict(verifier, headers, body, now):
    """The reason why a request must be refused, or None."""
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
    size, count, given, has_header = 0, 0, [], False
    for value in values("webhook-signature"):
        has_header = True
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
        if not has_header:
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
    for index, (kind, mode, *names) in enumerate(credentials):
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
        elif index == 0:
            refusal = reason
    return refusal


def parse(body):
    """The reason why a verified body is not a callback, or None."""
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
    """Writes one line for each case, so that a diff shows only the cases that changed."""
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
