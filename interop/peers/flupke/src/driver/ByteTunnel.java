package driver;

import tech.kwik.flupke.HttpStream;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.Arrays;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeoutException;

/** A tunnel to a TCP target (RFC 9114 §4.4): flupke puts the bytes into DATA frames. */
final class ByteTunnel extends Tunnel {
    private static final int PIECE = 1 << 16;

    private final Inbox inbox = new Inbox();

    ByteTunnel(HttpStream stream, Executor threads) {
        super(stream, threads);
    }

    @Override
    void read() {
        byte[] buffer = new byte[PIECE];
        try {
            InputStream in = stream.getInputStream();
            for (int size; (size = in.read(buffer)) >= 0; ) {
                inbox.put(Arrays.copyOf(buffer, size));
            }
            inbox.finish(new Ending(true));
        } catch (IOException | InterruptedException reset) {
            System.err.println("stream " + stream.getStreamId() + ": " + reset);
            inbox.finish(new Ending(false));
        }
    }

    void send(byte[] data) throws IOException {
        OutputStream out = stream.getOutputStream();
        for (int at = 0; at < data.length; at += PIECE) {
            out.write(data, at, Math.min(PIECE, data.length - at));
        }
    }

    void sendPattern(int size) throws IOException {
        OutputStream out = stream.getOutputStream();
        for (int at = 0; at < size; at += PIECE) {
            byte[] piece = new byte[Math.min(PIECE, size - at)];
            Content.fillPattern(piece, at);
            out.write(piece, 0, piece.length);
        }
    }

    /** Receives exactly {@code size} bytes, fewer only when the stream ended. */
    byte[] receive(int size, Deadline deadline) throws InterruptedException, TimeoutException {
        byte[] data = new byte[size];
        int got = 0;
        try {
            byte[] piece;
            while (got < size && (piece = inbox.take(size - got, deadline)) != null) {
                System.arraycopy(piece, 0, data, got, piece.length);
                got += piece.length;
            }
        } catch (TimeoutException late) {
            inbox.putBack(Arrays.copyOf(data, got));
            throw late;
        }
        return Arrays.copyOf(data, got);
    }

    /** Takes the next bytes, {@code size} at most; null at the end. */
    byte[] take(int size, Deadline deadline) throws InterruptedException, TimeoutException {
        return inbox.take(size, deadline);
    }

    /** How the stream ended, or null while bytes may be left. */
    Ending ending() {
        return inbox.endingOnceEmpty();
    }

    @Override
    Ending waitEnd(Deadline deadline) throws InterruptedException, TimeoutException {
        return inbox.drain(deadline);
    }

    @Override
    void abandon() {
        inbox.finish(new Ending(false));
    }
}
