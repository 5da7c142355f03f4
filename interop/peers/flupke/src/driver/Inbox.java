package driver;

import java.util.ArrayDeque;
import java.util.concurrent.TimeoutException;

/**
 * What came on a stream and was not asked for yet. It is bounded: once it is full the stream is not
 * read, so QUIC's own flow control holds the relay back.
 */
final class Inbox {
    private static final int LIMIT = 1 << 20;

    private final ArrayDeque<byte[]> pieces = new ArrayDeque<>();
    private int held;
    private Ending ending;

    /** Keeps a piece; waits while the inbox is full. */
    synchronized void put(byte[] piece) throws InterruptedException {
        while (held >= LIMIT) {
            wait();
        }
        pieces.addLast(piece);
        held += piece.length;
        notifyAll();
    }

    /** Nothing more will come. Only the first ending counts. */
    synchronized void finish(Ending how) {
        if (ending == null) {
            ending = how;
        }
        notifyAll();
    }

    /** Gives back what was taken too early. */
    synchronized void putBack(byte[] piece) {
        if (piece.length > 0) {
            pieces.addFirst(piece);
            held += piece.length;
            notifyAll();
        }
    }

    /**
     * Takes at most {@code size} bytes; null once everything was taken and nothing more will come.
     */
    synchronized byte[] take(int size, Deadline deadline)
            throws InterruptedException, TimeoutException {
        while (pieces.isEmpty()) {
            if (ending != null) {
                return null;
            }
            waitUntil(deadline);
        }
        byte[] piece = pieces.removeFirst();
        if (piece.length > size) {
            byte[] rest = java.util.Arrays.copyOfRange(piece, size, piece.length);
            pieces.addFirst(rest);
            piece = java.util.Arrays.copyOf(piece, size);
        }
        held -= piece.length;
        notifyAll();
        return piece;
    }

    /** Waits for the end, and throws away what comes before it. */
    synchronized Ending drain(Deadline deadline) throws InterruptedException, TimeoutException {
        while (true) {
            pieces.clear();
            held = 0;
            notifyAll();
            if (ending != null) {
                return ending;
            }
            waitUntil(deadline);
        }
    }

    /** How it ended, or null while it has not, or while there is something to take. */
    synchronized Ending endingOnceEmpty() {
        return pieces.isEmpty() ? ending : null;
    }

    private void waitUntil(Deadline deadline) throws InterruptedException, TimeoutException {
        long left = deadline.left();
        if (left == 0) {
            throw new TimeoutException("nothing more came on the stream");
        }
        wait(left);
    }
}
