// Receives callbacks: verifies each one, handles it once, and does not let an older one overwrite a newer one.
import { isUtf8 } from "node:buffer";
import { createHash, timingSafeEqual } from "node:crypto";
import express from "express";
import { Webhook } from "standardwebhooks";

const MAX_BODY = 12 * 1024 * 1024;

const webhooks = keysFrom(
  "SCALE_CALLBACK_SIGNING_SECRET",
  /^whsec_(?:[A-Za-z0-9+/]{4}){8,21}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/,
).map((secret) => new Webhook(secret));
const authKeys =
  "SCALE_CALLBACK_AUTH_KEY" in process.env
    ? keysFrom("SCALE_CALLBACK_AUTH_KEY", /^(?:live|test)_auth_[0-9a-f]{32}$/)
    : [];

// The callbacks that were handled. In production, keep them in tables of your database: claim webhook-id under a unique
// key, do the work and commit, all in one transaction. Here there is no `await` between reading and writing these sets.
const handled = new Set(); // webhook-id
const newest = new Map(); // task_id -> time of its newest event

/** Returns the keys that a variable holds: the one in use, and those of a rotation. */
function keysFrom(name, form) {
  const keys = process.env[name]?.match(/\S+/g) ?? [];
  if (keys.length < 1 || keys.length > 4 || !keys.every((key) => form.test(key))) {
    console.error(`${name} must hold one to four keys as the platform shows them, with white space between them.`);
    process.exit(2);
  }
  return keys;
}

class Refused extends Error {
  status = 401;
}

/** Returns the webhook-id of a request that the platform signed, and throws for any other request. */
function verify(req, body) {
  const only = (name) => {
    const values = req.headersDistinct[name] ?? [];
    if (values.length > 1) throw new Refused(`${name} is repeated`);
    return values[0] ?? "";
  };
  const id = only("webhook-id");
  const timestamp = only("webhook-timestamp");
  const signature = (req.headersDistinct["webhook-signature"] ?? []).join(" "); // there may be several headers
  const auth = only("scale-callback-auth");
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(id)) throw new Refused("webhook-id is missing or malformed");
  if (!/^[1-9][0-9]{0,11}$/.test(timestamp)) throw new Refused("webhook-timestamp is missing or malformed");
  if (authKeys.length > 0 && !authKeys.some((key) => equal(key, auth))) {
    throw new Refused("scale-callback-auth is not the key");
  }
  // The library verifies text. It would replace bytes that are not text, and so verify other bytes than those that arrived.
  if (!isUtf8(body)) throw new Refused("the body is not UTF-8");

  const headers = { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature };
  let reason;
  for (const webhook of webhooks) {
    try {
      webhook.verify(body, headers, { jsonParse: false });
      return id;
    } catch (error) {
      reason = error.message;
    }
  }
  throw new Refused(reason);
}

/** Compares digests, because they have the same length whatever was sent. */
function equal(a, b) {
  const digest = (text) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

/** Returns the ten characters that hold the event's time, which sort as text. Undefined for an id of another form. */
function eventTime(id) {
  return /^cb_[0-9a-hjkmnp-tv-z]{26}$/.test(id) ? id.slice(3, 13) : undefined;
}

/** Prints without control characters, because text from the body must not be able to forge lines of the log. */
function say(...words) {
  console.log(words.join(" ").replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "?"));
}

/** Put your work here. If it throws, the answer is 500, and the platform tries again. */
function handle(id, { task_id, task }) {
  say("handled", id, task_id, typeof task.status === "string" ? task.status : "-");
}

function parse(body) {
  try {
    const callback = JSON.parse(body.toString());
    const task = callback?.task;
    const isObject = typeof task === "object" && task !== null && !Array.isArray(task);
    return isObject && typeof callback.task_id === "string" ? callback : undefined;
  } catch {
    return undefined;
  }
}

function receive(req, res) {
  const body = req.body ?? Buffer.alloc(0);
  const id = verify(req, body);
  const callback = parse(body);
  if (!callback) return res.status(400).end();
  if (handled.has(id)) {
    say("repeat", id);
    return res.status(200).end();
  }
  const time = eventTime(id);
  if (time < newest.get(callback.task_id)) {
    say("older", id, callback.task_id);
  } else {
    try {
      handle(id, callback);
    } catch (error) {
      throw new Error("not handled", { cause: error });
    }
    if (time) newest.set(callback.task_id, time);
  }
  handled.add(id);
  res.status(204).end();
}

const app = express().disable("x-powered-by").enable("strict routing").enable("case sensitive routing");
app
  .route("/callbacks")
  .post(express.raw({ type: () => true, inflate: false, limit: MAX_BODY }), receive)
  .all((req, res) => res.set("allow", "POST").status(405).end());
app.use((req, res) => res.status(404).end());
app.use((error, req, res, next) => {
  const status = error.status ?? 500; // 413 for a body that is too long
  console.error(status < 500 ? `refused: ${error.message}` : error); // the sender is told nothing
  res.status(status).end();
});

const server = app.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", (error) => {
  if (error) throw error;
  console.log(`listening on http://127.0.0.1:${server.address().port}/callbacks`);
});
process.once("SIGTERM", () => {
  server.close();
  setTimeout(() => server.closeAllConnections(), 1000).unref();
});
