package driver;

import com.eclipsesource.json.Json;
import com.eclipsesource.json.JsonArray;
import com.eclipsesource.json.JsonObject;

import java.net.URI;
import java.net.http.HttpHeaders;
import java.security.MessageDigest;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/** The verbs of the peers' protocol. */
final class Verbs {
    private static final int PIECE = 1 << 16;

    private final ExecutorService threads;
    private final Map<Long, Tunnel> tunnels = new ConcurrentHashMap<>();
    private final AtomicLong lastTunnel = new AtomicLong();
    private volatile Relay relay;

    Verbs(ExecutorService threads) {
        this.threads = threads;
    }

    /** Starts what a request asks for; does not wait for it. */
    CompletableFuture<JsonObject> start(Arguments request) {
        Callable<JsonObject> work = () -> carryOut(request);
        try {
            return switch (request.text("verb")) {
                // What is written to a tunnel keeps the order of the requests; all else overlaps.
                case "send", "end", "send_datagrams", "send_capsule" ->
                        tunnel(request).lane.run(work);
                // Here flupke waits, and lets nobody say how long.
                case "connect", "open", "fetch" ->
                        new Lane(threads)
                                .run(work)
                                .orTimeout(
                                        (long) (request.timeout() * 1000), TimeUnit.MILLISECONDS);
                default -> new Lane(threads).run(work);
            };
        } catch (RuntimeException error) {
            return CompletableFuture.failedFuture(error);
        }
    }

    void closeAndWait() {
        if (relay != null) {
            relay.closeAndWait();
        }
    }

    private JsonObject carryOut(Arguments request) throws Exception {
        String verb = request.text("verb");
        Deadline deadline = Deadline.in(request.timeout());
        return switch (verb) {
            case "connect" -> connect(request, deadline);
            case "open" -> open(request, deadline);
            case "send" -> send(bytes(request), request);
            case "receive" -> receive(bytes(request), request.number("size"), deadline);
            case "receive_all" -> receiveAll(bytes(request), deadline);
            case "reset" -> done(() -> tunnel(request).reset(request.large("code")));
            case "end" -> done(() -> tunnel(request).end());
            case "wait_end" -> tunnel(request).waitEnd(deadline).toJson();
            case "send_datagrams" -> sendDatagrams(datagrams(request), request);
            case "receive_datagrams" -> receiveDatagrams(datagrams(request), request, deadline);
            case "max_payload" -> new JsonObject().add("size", datagrams(request).maxPayload());
            case "send_capsule" -> sendCapsule(tunnel(request), request);
            case "migrate" -> done(() -> relay().migrate());
            case "wait_closed" -> waitClosed(deadline);
            case "fetch" -> fetch(request, deadline);
            case "close" -> done(() -> relay().close());
            default -> throw new UnsupportedOperationException("flupke has no way to " + verb);
        };
    }

    private JsonObject connect(Arguments request, Deadline deadline) throws Exception {
        closeAndWait();
        Relay next = new Relay(request, deadline, threads);
        JsonObject settings = new JsonObject();
        next.connect(deadline).forEach((number, value) -> settings.add(number.toString(), value));
        relay = next;
        return new JsonObject().add("settings", settings);
    }

    private JsonObject open(Arguments request, Deadline deadline) throws Exception {
        String host = request.text("host");
        List<String> fields = request.fields("headers");
        Relay.Opened opened =
                openTunnel(request.text("kind"), host, request.number("port"), fields, deadline);
        JsonObject ok = new JsonObject().add("status", opened.status());
        ok.add("headers", pairs(opened.fields()));
        if (opened.tunnel() != null) {
            long number = lastTunnel.incrementAndGet();
            tunnels.put(number, opened.tunnel());
            ok.add("tunnel", number);
        }
        return ok;
    }

    private static JsonArray pairs(HttpHeaders fields) {
        JsonArray pairs = new JsonArray();
        for (Map.Entry<String, List<String>> field : fields.map().entrySet()) {
            for (String value : field.getValue()) {
                pairs.add(new JsonArray().add(field.getKey()).add(value));
            }
        }
        return pairs;
    }

    private Relay.Opened openTunnel(
            String kind, String host, int port, List<String> fields, Deadline deadline)
            throws Exception {
        return switch (kind) {
            case "tcp" -> relay().openTcp(host, port, fields);
            case "udp" -> relay().openUdp(host, port, fields, deadline);
            default -> throw new IllegalArgumentException("no kind of tunnel: " + kind);
        };
    }

    private static JsonObject send(ByteTunnel tunnel, Arguments request) throws Exception {
        if (request.has("data")) {
            tunnel.send(request.bytes("data"));
        } else {
            tunnel.sendPattern(request.number("pattern"));
        }
        if (request.isSet("end", false)) {
            tunnel.end();
        }
        return new JsonObject();
    }

    private static JsonObject receive(ByteTunnel tunnel, int size, Deadline deadline)
            throws Exception {
        byte[] data = tunnel.receive(size, deadline);
        boolean isEnd = data.length < size || tunnel.ending() != null;
        return new JsonObject().add("data", Arguments.encode(data)).add("end", isEnd);
    }

    private static JsonObject receiveAll(ByteTunnel tunnel, Deadline deadline) throws Exception {
        MessageDigest digest = Content.sha256();
        long size = 0;
        for (byte[] piece; (piece = tunnel.take(PIECE, deadline)) != null; size += piece.length) {
            digest.update(piece);
        }
        JsonObject ok = new JsonObject().add("size", size).add("sha256", Content.hex(digest));
        return ok.merge(tunnel.ending().toJson());
    }

    private static JsonObject sendDatagrams(DatagramTunnel tunnel, Arguments request)
            throws Exception {
        int sent = tunnel.send(request.byteStrings("payloads"), request.large("context"));
        return new JsonObject().add("sent", sent);
    }

    private static JsonObject receiveDatagrams(
            DatagramTunnel tunnel, Arguments request, Deadline deadline) throws Exception {
        JsonArray payloads = new JsonArray();
        for (byte[] payload : tunnel.receive(request.number("count"), deadline)) {
            payloads.add(Arguments.encode(payload));
        }
        return new JsonObject().add("payloads", payloads);
    }

    private static JsonObject sendCapsule(Tunnel tunnel, Arguments request) throws Exception {
        tunnel.sendCapsule(request.large("type"), request.bytes("value"));
        return new JsonObject();
    }

    private JsonObject waitClosed(Deadline deadline) throws Exception {
        Long code = relay().waitClosed(deadline);
        return new JsonObject().add("code", code == null ? Json.NULL : Json.value(code));
    }

    private JsonObject fetch(Arguments request, Deadline deadline) throws Exception {
        URI url = URI.create(request.text("url"));
        String ca = request.text("ca");
        List<String> fields = request.fields("headers");
        String via = request.text("via");
        Relay.Opened opened =
                openTunnel(via, Fetcher.host(url), Fetcher.port(url), fields, deadline);
        Fetcher.Page page;
        if (opened.tunnel() instanceof ByteTunnel bytes) {
            page = Fetcher.overTls(bytes, url, ca, deadline);
        } else if (opened.tunnel() instanceof DatagramTunnel datagrams) {
            page = Fetcher.overHttp3(datagrams, url, ca, deadline, threads);
        } else {
            throw new IllegalStateException("the tunnel was refused: " + opened.status());
        }
        MessageDigest digest = Content.sha256();
        digest.update(page.content());
        return new JsonObject()
                .add("status", page.status())
                .add("size", page.content().length)
                .add("sha256", Content.hex(digest))
                .add("protocol", page.protocol());
    }

    private Relay relay() {
        if (relay == null) {
            throw new IllegalStateException("not connected");
        }
        return relay;
    }

    private Tunnel tunnel(Arguments request) {
        Tunnel tunnel = tunnels.get(request.large("tunnel"));
        if (tunnel == null) {
            throw new IllegalArgumentException("no tunnel " + request.large("tunnel"));
        }
        return tunnel;
    }

    private ByteTunnel bytes(Arguments request) {
        if (tunnel(request) instanceof ByteTunnel bytes) {
            return bytes;
        }
        throw new IllegalArgumentException("a tunnel of datagrams");
    }

    private DatagramTunnel datagrams(Arguments request) {
        if (tunnel(request) instanceof DatagramTunnel datagrams) {
            return datagrams;
        }
        throw new IllegalArgumentException("a tunnel of bytes");
    }

    private interface Action {
        void run() throws Exception;
    }

    private static JsonObject done(Action action) throws Exception {
        action.run();
        return new JsonObject();
    }
}
