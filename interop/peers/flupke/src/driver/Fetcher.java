package driver;

import tech.kwik.core.QuicClientConnection;
import tech.kwik.core.impl.QuicClientConnectionImpl;
import tech.kwik.flupke.Http3ClientConnection;
import tech.kwik.flupke.impl.Http3ClientConnectionImpl;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.concurrent.ExecutorService;

import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;

/** Web pages through a tunnel: HTTPS on the JDK's TLS, or HTTP/3 on a second kwik and flupke. */
final class Fetcher {
    private static final int LARGEST_HEAD = 1 << 14;

    /** A page. */
    record Page(int status, byte[] content, String protocol) {}

    private Fetcher() {}

    /** Fetches with HTTP/1.1 over TLS in a tunnel to a TCP target. */
    static Page overTls(ByteTunnel tunnel, URI url, String ca, Deadline deadline) throws Exception {
        TunnelSocket under = new TunnelSocket(tunnel, deadline);
        try (SSLSocket socket =
                (SSLSocket) Trust.sockets(ca).createSocket(under, host(url), port(url), true)) {
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            parameters.setApplicationProtocols(new String[] {"http/1.1"});
            socket.setSSLParameters(parameters);
            socket.getOutputStream().write(head(url).getBytes(StandardCharsets.US_ASCII));
            String[] lines = readHead(socket.getInputStream()).split("\r\n");
            int status = Integer.parseInt(lines[0].split(" ")[1]);
            byte[] content = readContent(socket.getInputStream(), lines);
            return new Page(status, content, socket.getApplicationProtocol());
        }
    }

    /** Fetches with HTTP/3 in a tunnel to a UDP target. */
    static Page overHttp3(
            DatagramTunnel tunnel, URI url, String ca, Deadline deadline, ExecutorService threads)
            throws Exception {
        QuicClientConnectionImpl.ExtendedBuilder extended =
                QuicClientConnectionImpl.newExtendedBuilder();
        // kwik's packets of 1252 bytes do not fit into DATAGRAM frames of a kwik outside.
        extended.useStrictSmallestAllowedMaximumDatagramSize();
        QuicClientConnection.Builder builder = extended;
        Trust.set(builder, url.getHost(), ca);
        QuicClientConnection quic =
                builder.uri(url)
                        .proxy("127.0.0.1") // any address: the relay, not kwik, finds the name's
                        .applicationProtocol("h3")
                        .connectTimeout(Duration.ofMillis(Math.max(1, deadline.left())))
                        .maxOpenPeerInitiatedUnidirectionalStreams(3)
                        .maxOpenPeerInitiatedBidirectionalStreams(0)
                        .socketFactory(near -> new TunnelDatagramSocket(tunnel, near, port(url)))
                        .build();
        try {
            Http3ClientConnection http3 = new Http3ClientConnectionImpl(quic, threads);
            http3.connect();
            HttpRequest request = HttpRequest.newBuilder(url).build();
            HttpResponse<byte[]> page =
                    http3.send(request, HttpResponse.BodyHandlers.ofByteArray());
            return new Page(page.statusCode(), page.body(), "h3");
        } finally {
            quic.closeAndWait(Duration.ofMillis(100));
            tunnel.end();
        }
    }

    private static String head(URI url) {
        return "GET "
                + url.getRawPath()
                + " HTTP/1.1\r\nHost: "
                + url.getRawAuthority()
                + "\r\nConnection: close\r\n\r\n";
    }

    private static String readHead(InputStream in) throws IOException {
        StringBuilder head = new StringBuilder();
        while (head.indexOf("\r\n\r\n") < 0) {
            int next = in.read();
            if (next < 0 || head.length() == LARGEST_HEAD) {
                throw new EOFException("no end of the response's head");
            }
            head.append((char) next);
        }
        return head.toString();
    }

    private static byte[] readContent(InputStream in, String[] lines) throws IOException {
        for (String line : lines) {
            String[] field = line.split(":", 2);
            if (field[0].equalsIgnoreCase("content-length")) {
                int size = Integer.parseInt(field[1].trim());
                byte[] content = in.readNBytes(size);
                if (content.length < size) {
                    throw new EOFException("content of " + content.length + " bytes, not " + size);
                }
                return content;
            }
        }
        throw new IOException("a response without Content-Length");
    }

    static String host(URI url) {
        return url.getHost().replaceAll("[\\[\\]]", "");
    }

    static int port(URI url) {
        return url.getPort() < 0 ? 443 : url.getPort();
    }
}
