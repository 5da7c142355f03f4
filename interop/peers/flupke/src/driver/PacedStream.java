package driver;

import tech.kwik.core.generic.VariableLengthInteger;
import tech.kwik.flupke.HttpStream;

import java.io.IOException;
import java.io.InputStream;
import java.io.InterruptedIOException;
import java.io.OutputStream;
import java.util.concurrent.locks.LockSupport;
import java.util.function.LongSupplier;

/**
 * flupke's stream, given no more than kwik has sent.
 *
 * <p>kwik can forget that a stream has more to send. StreamOutputStreamImpl counts its requests to
 * the sender's thread after it has made them; when that thread is done with one before it was
 * counted, it sees -1 of them, takes that for one under way and makes no other. Only the next write
 * repairs it, and none comes when the writer waits for room in kwik's buffer. So it must never wait
 * there: it writes a piece, sees kwik send it, and where that takes too long it writes one more
 * byte, which sets kwik going. A few bytes are kept for that to the last.
 */
final class PacedStream implements HttpStream {
    private static final int ONE_PACKET = 1000;
    private static final int PIECE = 1 << 14;
    private static final int KEPT = 8;
    private static final int FIRST_PATIENCE = 20;
    private static final int LAST_PATIENCE = 1000;
    private static final long POLL_NANOS = 50_000;

    private final HttpStream stream;
    private final LongSupplier sent;

    /**
     * @param sent how many bytes of streams kwik has sent on this connection
     */
    PacedStream(HttpStream stream, LongSupplier sent) {
        this.stream = stream;
        this.sent = sent;
    }

    @Override
    public OutputStream getOutputStream() {
        OutputStream out = stream.getOutputStream();
        return new OutputStream() {
            @Override
            public void write(int one) throws IOException {
                out.write(one);
            }

            @Override
            public void write(byte[] data, int at, int size) throws IOException {
                if (size <= ONE_PACKET) {
                    out.write(data, at, size);
                } else {
                    writePaced(out, data, at, at + size);
                }
            }

            @Override
            public void flush() throws IOException {
                out.flush();
            }

            @Override
            public void close() throws IOException {
                out.close();
            }
        };
    }

    private void writePaced(OutputStream out, byte[] data, int from, int end) throws IOException {
        long target = sent.getAsLong();
        int patience = FIRST_PATIENCE;
        boolean isStuck = false;
        for (int at = from; at < end; ) {
            int spare = end - at - KEPT;
            int piece = isStuck || spare <= 0 ? 1 : Math.min(PIECE, spare);
            out.write(data, at, piece);
            at += piece;
            target += 1 + VariableLengthInteger.bytesNeeded(piece) + piece; // a DATA frame
            isStuck = !isSent(target, patience);
            patience = isStuck ? Math.min(2 * patience, LAST_PATIENCE) : FIRST_PATIENCE;
        }
    }

    private boolean isSent(long target, int patience) throws IOException {
        Deadline deadline = Deadline.in(patience / 1000.0);
        while (sent.getAsLong() < target) {
            if (deadline.left() == 0) {
                return false;
            }
            LockSupport.parkNanos(POLL_NANOS);
            if (Thread.interrupted()) {
                throw new InterruptedIOException();
            }
        }
        return true;
    }

    @Override
    public InputStream getInputStream() {
        return stream.getInputStream();
    }

    @Override
    public long getStreamId() {
        return stream.getStreamId();
    }

    @Override
    public boolean isBidirectional() {
        return stream.isBidirectional();
    }

    @Override
    public void abortReading(long code) {
        stream.abortReading(code);
    }

    @Override
    public void resetStream(long code) {
        stream.resetStream(code);
    }
}
