package driver;

import tech.kwik.core.QuicConnection;
import tech.kwik.flupke.HttpError;
import tech.kwik.flupke.HttpStream;
import tech.kwik.flupke.impl.HeadersFrame;
import tech.kwik.flupke.impl.Http3ClientConnectionImpl;
import tech.kwik.flupke.impl.Http3Frame;
import tech.kwik.flupke.impl.SettingsFrame;

import java.io.IOException;
import java.io.InputStream;
import java.net.http.HttpHeaders;
import java.net.http.HttpRequest;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.Collectors;

/**
 * flupke's connection, watched: what its sendConnect and sendExtendedConnect read of the answer and
 * keep to themselves, the fields, is looked at in the protected method that reads frames.
 */
final class Http3 extends Http3ClientConnectionImpl {
    private final ThreadLocal<HeadersFrame> head = new ThreadLocal<>();

    /** The answer to a request for a tunnel; the stream is null when it was refused. */
    record Answer(int status, HttpHeaders fields, HttpStream stream) {}

    Http3(QuicConnection quic, ExecutorService threads) {
        super(quic, threads);
    }

    @Override
    protected Http3Frame readFrame(InputStream input) throws IOException, HttpError {
        Http3Frame frame = super.readFrame(input);
        if (frame instanceof HeadersFrame fields) {
            head.set(fields);
        }
        return frame;
    }

    Answer openTcp(HttpRequest request) throws IOException {
        head.remove();
        try {
            return succeed(sendConnect(request));
        } catch (HttpError refusal) {
            return refuse(refusal);
        }
    }

    Answer openUdp(HttpRequest request, Deadline deadline)
            throws IOException, InterruptedException {
        head.remove();
        try {
            Duration left = Duration.ofMillis(deadline.left());
            return succeed(sendExtendedConnect(request, "connect-udp", "https", left));
        } catch (HttpError refusal) {
            return refuse(refusal);
        }
    }

    /** Waits for SETTINGS, and returns those that are not as they would be without. */
    Map<Long, Long> settings(Deadline deadline) throws InterruptedException, TimeoutException {
        if (!settingsFrameReceived.await(deadline.left(), TimeUnit.MILLISECONDS)) {
            throw new TimeoutException("no SETTINGS came");
        }
        // flupke adds what it knows with value 0, so an announced 0 cannot be told from none.
        return peerSettingsParameters.entrySet().stream()
                .filter(one -> one.getValue() != 0 || !isAdded(one.getKey()))
                .collect(Collectors.toMap(Map.Entry::getKey, Map.Entry::getValue));
    }

    Optional<Long> setting(long number) {
        return Optional.ofNullable(peerSettingsParameters.get(number));
    }

    private static boolean isAdded(long number) {
        return number == SettingsFrame.QPACK_MAX_TABLE_CAPACITY
                || number == SettingsFrame.QPACK_BLOCKED_STREAMS
                || number == SettingsFrame.SETTINGS_ENABLE_CONNECT_PROTOCOL;
    }

    private Answer succeed(HttpStream stream) {
        int status =
                Integer.parseInt(head.get().getPseudoHeader(HeadersFrame.PSEUDO_HEADER_STATUS));
        return new Answer(status, head.get().headers(), stream);
    }

    private Answer refuse(HttpError refusal) throws IOException {
        if (head.get() == null) {
            throw new IOException(refusal);
        }
        return new Answer(refusal.getStatusCode(), head.get().headers(), null);
    }
}
