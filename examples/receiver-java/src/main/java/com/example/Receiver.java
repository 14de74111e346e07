package com.example;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.standardwebhooks.Webhook;
import com.standardwebhooks.exceptions.WebhookVerificationException;
import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.security.MessageDigest;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.function.Predicate;

import static java.nio.charset.StandardCharsets.UTF_8;

/** Receives callbacks: verifies each one, handles it once, and does not let an older one overwrite a newer one. */
public final class Receiver {
    private static final int MAX_BODY = 12 * 1024 * 1024;
    private static final String SECRET_FORM =
            "whsec_([A-Za-z0-9+/]{4}){8,21}([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?";
    private static final ObjectMapper JSON =
            new ObjectMapper().enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

    private final List<Webhook> webhooks;
    private final List<String> authKeys;

    // The callbacks that were handled. In production, keep them in tables of your database: claim webhook-id under a
    // unique key, do the work and commit, all in one transaction. Here `synchronized` takes the place of that transaction.
    private final Set<String> handled = new HashSet<>(); // webhook-id
    private final Map<String, String> newest = new HashMap<>(); // task_id -> time of its newest event

    private Receiver(List<Webhook> webhooks, List<String> authKeys) {
        this.webhooks = webhooks;
        this.authKeys = authKeys;
    }

    /** Returns the status to answer with. */
    private int receive(HttpExchange exchange) {
        if (!exchange.getRequestURI().getPath().equals("/callbacks")) {
            return 404;
        }
        if (!exchange.getRequestMethod().equals("POST")) {
            exchange.getResponseHeaders().set("Allow", "POST");
            return 405;
        }
        byte[] body;
        try {
            body = exchange.getRequestBody().readNBytes(MAX_BODY + 1);
        } catch (IOException cutOff) {
            return 400;
        }
        if (body.length > MAX_BODY) {
            return 413;
        }
        String text;
        try {
            text = verify(exchange.getRequestHeaders(), body);
        } catch (WebhookVerificationException refused) {
            System.err.println("refused: " + refused.getMessage()); // the sender is told nothing
            return 401;
        }
        JsonNode callback;
        try {
            callback = JSON.readTree(text);
        } catch (JsonProcessingException notJson) {
            return 400;
        }
        if (!callback.path("task_id").isTextual() || !callback.path("task").isObject()) {
            return 400;
        }
        return once(exchange.getRequestHeaders().getFirst("webhook-id"), callback);
    }

    /** Returns the body of a request that the platform signed. */
    private String verify(Headers headers, byte[] body) throws WebhookVerificationException {
        for (String name : List.of("webhook-id", "webhook-timestamp", "scale-callback-auth")) {
            if (headers.getOrDefault(name, List.of()).size() > 1) {
                throw new WebhookVerificationException(name + " is repeated");
            }
        }
        if (!first(headers, "webhook-id").matches("[A-Za-z0-9_-]{1,64}")) {
            throw new WebhookVerificationException("webhook-id is missing or malformed");
        }
        if (!first(headers, "webhook-timestamp").matches("[1-9][0-9]{0,11}")) {
            throw new WebhookVerificationException("webhook-timestamp is missing or malformed");
        }
        byte[] auth = first(headers, "scale-callback-auth").getBytes(UTF_8);
        Predicate<String> isKey = key -> MessageDigest.isEqual(key.getBytes(UTF_8), auth);
        if (!authKeys.isEmpty() && authKeys.stream().noneMatch(isKey)) {
            throw new WebhookVerificationException("scale-callback-auth is not the key");
        }
        String text;
        try {
            // A strict decoder: `new String` would replace bytes, so that other bytes than those that arrived are verified.
            text = UTF_8.newDecoder().decode(ByteBuffer.wrap(body)).toString();
        } catch (CharacterCodingException e) {
            throw new WebhookVerificationException("the body is not UTF-8");
        }
        // There may be several signature headers, but the library reads only the first one.
        String signatures = String.join(" ", headers.getOrDefault("webhook-signature", List.of()));
        var signed = Map.of(
                "webhook-id", List.of(first(headers, "webhook-id")),
                "webhook-timestamp", List.of(first(headers, "webhook-timestamp")),
                "webhook-signature", List.of(signatures));
        var refusal = new WebhookVerificationException("no secret");
        for (Webhook webhook : webhooks) {
            try {
                webhook.verify(text, signed);
                return text;
            } catch (WebhookVerificationException e) {
                refusal = e;
            }
        }
        throw refusal;
    }

    private static String first(Headers headers, String name) {
        return headers.getOrDefault(name, List.of("")).get(0);
    }

    /** Handles a callback, unless it or a newer one of the same task was handled before. */
    private synchronized int once(String id, JsonNode callback) {
        if (handled.contains(id)) {
            say("repeat", id);
            return 200;
        }
        String task = callback.path("task_id").textValue();
        // The event time: ten characters that sort as text. An id of another form has none.
        String time = id.matches("cb_[0-9a-hjkmnp-tv-z]{26}") ? id.substring(3, 13) : "";
        if (!time.isEmpty() && time.compareTo(newest.getOrDefault(task, "")) < 0) {
            say("older", id, task);
        } else {
            handle(id, task, callback);
            newest.merge(task, time, (old, now) -> now.isEmpty() ? old : now);
        }
        handled.add(id);
        return 204;
    }

    /** Put your work here. If it throws, the answer is 500, and the platform tries again. */
    private void handle(String id, String task, JsonNode callback) {
        JsonNode status = callback.path("task").path("status");
        say("handled", id, task, status.isTextual() ? status.textValue() : "-");
    }

    /** Prints without control characters, because text from the body must not be able to forge lines of the log. */
    private static void say(String... words) {
        System.out.println(String.join(" ", words).replaceAll("[\\p{C}\\p{Zl}\\p{Zp}]", "?"));
    }

    private void answer(HttpExchange exchange) throws IOException {
        try (exchange) {
            int status;
            try {
                status = receive(exchange);
            } catch (RuntimeException e) {
                e.printStackTrace();
                status = 500;
            }
            exchange.sendResponseHeaders(status, -1);
        }
    }

    /** Returns the keys that a variable holds: the one in use, and those of a rotation. */
    private static List<String> keysFrom(String name, String form) {
        List<String> keys = List.of(System.getenv().getOrDefault(name, "").strip().split("\\s+"));
        if (keys.size() > 4 || !keys.stream().allMatch(key -> key.matches(form))) {
            System.err.println(
                    name + " must hold one to four keys as the platform shows them, with white space between them.");
            System.exit(2);
        }
        return keys;
    }

    public static void main(String[] args) throws IOException {
        List<String> secrets = keysFrom("SCALE_CALLBACK_SIGNING_SECRET", SECRET_FORM);
        List<String> authKeys = System.getenv().containsKey("SCALE_CALLBACK_AUTH_KEY")
                ? keysFrom("SCALE_CALLBACK_AUTH_KEY", "(live|test)_auth_[0-9a-f]{32}")
                : List.of();
        Receiver receiver = new Receiver(secrets.stream().map(Webhook::new).toList(), authKeys);
        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "8080"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.createContext("/callbacks", receiver::answer);
        server.setExecutor(Executors.newFixedThreadPool(8));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            server.stop(1);
            Runtime.getRuntime().halt(0); // otherwise the exit status of a signal is 143
        }));
        server.start();
        System.out.println("listening on http://127.0.0.1:" + server.getAddress().getPort() + "/callbacks");
    }
}
