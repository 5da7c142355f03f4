package driver;

import tech.kwik.core.ConnectionTerminatedEvent;
import tech.kwik.core.QuicClientConnection;
import tech.kwik.core.impl.QuicClientConnectionImpl;
import tech.kwik.core.log.FileLogger;
import tech.kwik.flupke.HttpStream;

import java.io.IOException;
import java.net.URI;
import java.net.URISyntaxException;
import java.net.URLEncoder;
import java.net.http.HttpHeaders;
import java.net.http.HttpRequest;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** One connection to the relay. */
final class Relay {
    private static final long H3_NO_ERROR = 0x100;
    private static final long H3_DATAGRAM = 0x33;

    private final ExecutorService threads;
    private final URI url;
    private final String template;
    private final boolean hasDatagrams;
    private final QuicClientConnectionImpl quic;
    private final Http3 http3;
    private final Datagrams datagrams = new Datagrams();
    private final CompletableFuture<Long> closed = new CompletableFuture<>();

    /** What was asked for a tunnel: the answer, and the tunnel, null when it was refused. */
    record Opened(int status, HttpHeaders fields, Tunnel tunnel) {}

    /** Prepares the connection that the verb {@code connect} asks for. */
    Relay(Arguments request, Deadline deadline, ExecutorService threads)
            throws IOException, GeneralSecurityException {
        this.threads = threads;
        url = URI.create(request.text("url"));
        template = request.text("template");
        hasDatagrams = request.isSet("datagrams", true);
        QuicClientConnection.Builder builder =
                QuicClientConnection.newBuilder()
                        .uri(url)
                        .applicationProtocol("h3")
                        .connectTimeout(Duration.ofMillis(Math.max(1, deadline.left())))
                        .maxOpenPeerInitiatedUnidirectionalStreams(3)
                        .maxOpenPeerInitiatedBidirectionalStreams(0);
        Trust.set(builder, url.getHost(), request.text("ca"));
        if (hasDatagrams) {
            builder.enableDatagramExtension();
        }
        if (!request.text("qlog").isEmpty()) {
            builder.logger(packetLog(request.text("qlog")));
        }
        quic = (QuicClientConnectionImpl) builder.build();
        quic.setConnectionListener(this::disconnected);
        http3 = new Http3(quic, threads);
        if (hasDatagrams) {
            quic.setDatagramHandler(datagrams::receive);
            http3.addSettingsParameter(H3_DATAGRAM, 1);
        }
    }

    /** Shakes hands and waits for the relay's SETTINGS. */
    Map<Long, Long> connect(Deadline deadline)
            throws IOException, InterruptedException, TimeoutException {
        http3.connect();
        return http3.settings(deadline);
    }

    Opened openTcp(String host, int port, List<String> fields) throws Exception {
        Http3.Answer answer = http3.openTcp(request(authority(host, port), fields));
        return opened(
                answer, answer.stream() == null ? null : new ByteTunnel(paced(answer), threads));
    }

    Opened openUdp(String host, int port, List<String> fields, Deadline deadline) throws Exception {
        List<String> all = new ArrayList<>(fields);
        all.addAll(List.of("capsule-protocol", "?1"));
        Http3.Answer answer = http3.openUdp(request(target(host, port), all), deadline);
        if (answer.stream() == null) {
            return opened(answer, null);
        }
        // Frames only where both sides announced them (RFC 9297 §2.1.1), else capsules.
        boolean frames =
                hasDatagrams
                        && quic.canSendDatagram()
                        && http3.setting(H3_DATAGRAM).orElse(0L) == 1;
        DatagramTunnel tunnel = new DatagramTunnel(paced(answer), frames ? quic : null, threads);
        datagrams.add(tunnel);
        return opened(answer, tunnel);
    }

    /** Goes on from a new local port. */
    void migrate() {
        quic.changeAddress();
    }

    /** Waits for the end of the connection; returns its code, or null where there is none. */
    Long waitClosed(Deadline deadline) throws Exception {
        return closed.get(deadline.left(), TimeUnit.MILLISECONDS);
    }

    void close() {
        quic.close(H3_NO_ERROR, null);
    }

    /** Closes, and gives the packet that says so the time to leave. */
    void closeAndWait() {
        close();
        quic.closeAndWait(Duration.ofMillis(100));
    }

    private HttpStream paced(Http3.Answer answer) {
        return new PacedStream(answer.stream(), () -> quic.getStats().dataBytesSent());
    }

    private Opened opened(Http3.Answer answer, Tunnel tunnel) {
        if (tunnel != null) {
            threads.execute(tunnel::read);
        }
        return new Opened(answer.status(), answer.fields(), tunnel);
    }

    private void disconnected(ConnectionTerminatedEvent event) {
        Long code = event.applicationErrorCode();
        closed.complete(code != null ? code : event.transportErrorCode());
    }

    private URI target(String host, int port) throws URISyntaxException {
        String escaped = URLEncoder.encode(host, StandardCharsets.UTF_8).replace("+", "%20");
        String path =
                template.replace("{target_host}", escaped)
                        .replace("{target_port}", Integer.toString(port));
        // flupke sends what URI.getPath gives, which has its escapes undone: the colons of an IPv6
        // address would go out bare (RFC 9298 §3 asks for %3A). So they are escaped twice.
        String origin = authority(Fetcher.host(url), Fetcher.port(url)).toString();
        return URI.create(origin + path.replace("%", "%25"));
    }

    private static URI authority(String host, int port) throws URISyntaxException {
        return new URI("https", null, host, port, null, null, null);
    }

    private static HttpRequest request(URI uri, List<String> fields) {
        HttpRequest.Builder builder = HttpRequest.newBuilder(uri);
        if (!fields.isEmpty()) {
            builder.headers(fields.toArray(String[]::new));
        }
        return builder.build();
    }

    private static FileLogger packetLog(String folder) throws IOException {
        FileLogger log = new FileLogger(Path.of(folder, "kwik.log").toFile());
        log.logInfo(true);
        log.logWarning(true);
        log.logRecovery(true);
        log.logPackets(true);
        return log;
    }
}
