package driver;

import tech.kwik.core.frame.DatagramFrame;
import tech.kwik.core.generic.InvalidIntegerEncodingException;
import tech.kwik.core.generic.VariableLengthInteger;
import tech.kwik.core.impl.QuicClientConnectionImpl;
import tech.kwik.flupke.HttpStream;
import tech.kwik.flupke.core.Capsule;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * A tunnel to a UDP target (RFC 9298). flupke opens it and has the capsules; kwik has the DATAGRAM
 * frames. What neither has, the prefix of HTTP Datagrams (RFC 9297 §2.1), is here.
 */
final class DatagramTunnel extends Tunnel {
    private static final int HELD = 1 << 14;

    private final QuicClientConnectionImpl frames;
    private final BlockingQueue<byte[]> payloads = new LinkedBlockingQueue<>(HELD);
    private final CompletableFuture<Ending> ended = new CompletableFuture<>();

    /**
     * @param frames the connection that carries DATAGRAM frames; null: use DATAGRAM capsules
     */
    DatagramTunnel(HttpStream stream, QuicClientConnectionImpl frames, Executor threads) {
        super(stream, threads);
        this.frames = frames;
    }

    @Override
    void read() {
        capsules.registerCapsuleParser(DatagramCapsule.TYPE, DatagramCapsule::parse);
        try {
            while (true) {
                Capsule capsule = capsules.receive();
                if (capsule instanceof DatagramCapsule datagram) {
                    deliver(ByteBuffer.wrap(datagram.value()));
                }
            }
        } catch (EOFException end) {
            ended.complete(new Ending(true));
        } catch (IOException | RuntimeException reset) {
            System.err.println("stream " + stream.getStreamId() + ": " + reset);
            ended.complete(new Ending(false));
        }
    }

    /** Takes a context id and what follows it; only UDP payloads, context 0, are kept. */
    void deliver(ByteBuffer datagram) {
        try {
            if (VariableLengthInteger.parseLong(datagram) == 0) {
                byte[] payload = new byte[datagram.remaining()];
                datagram.get(payload);
                payloads.offer(payload); // a full queue drops, as UDP does
            }
        } catch (InvalidIntegerEncodingException malformed) {
            System.err.println("stream " + stream.getStreamId() + ": a datagram without a context");
        }
    }

    /** Sends payloads; returns how many kwik took. */
    int send(List<byte[]> all, long context) throws IOException {
        int sent = 0;
        for (byte[] payload : all) {
            ByteBuffer datagram = ByteBuffer.allocate(16 + payload.length);
            if (frames != null) {
                VariableLengthInteger.encode(stream.getStreamId() / 4, datagram);
            }
            VariableLengthInteger.encode(context, datagram);
            datagram.put(payload).flip();
            byte[] bytes = new byte[datagram.remaining()];
            datagram.get(bytes);
            sent += sendOne(bytes) ? 1 : 0;
        }
        return sent;
    }

    private boolean sendOne(byte[] datagram) throws IOException {
        if (frames == null) {
            sendCapsule(DatagramCapsule.TYPE, datagram);
            return true;
        }
        try {
            frames.sendDatagram(datagram);
            return true;
        } catch (IllegalArgumentException tooLarge) {
            return false;
        }
    }

    /** Receives {@code count} payloads, or what came until the deadline. */
    List<byte[]> receive(int count, Deadline deadline) throws InterruptedException {
        List<byte[]> received = new ArrayList<>();
        byte[] payload;
        while (received.size() < count
                && (payload = payloads.poll(deadline.left(), TimeUnit.MILLISECONDS)) != null) {
            received.add(payload);
        }
        return received;
    }

    /** Receives the next payload. */
    byte[] take() throws InterruptedException {
        return payloads.take();
    }

    /** The largest payload that fits a DATAGRAM frame. */
    int maxPayload() throws IOException {
        if (frames == null) {
            throw new IOException("this connection has no DATAGRAM frames");
        }
        // maxDatagramDataSize forgets the 16 bytes of the AEAD's tag: kwik takes a datagram of that
        // size, finds no packet for it and keeps it for ever. Its own overhead of packets has them.
        int packet = frames.getMaxPacketSize() - frames.getMaxShortHeaderPacketOverhead();
        int largest =
                Math.min(
                        frames.maxDatagramDataSize(),
                        packet - DatagramFrame.getMaxMinimalFrameSize());
        return largest - VariableLengthInteger.bytesNeeded(stream.getStreamId() / 4) - 1;
    }

    @Override
    Ending waitEnd(Deadline deadline) throws InterruptedException, TimeoutException {
        try {
            return ended.get(deadline.left(), TimeUnit.MILLISECONDS);
        } catch (ExecutionException impossible) {
            throw new AssertionError(impossible);
        }
    }

    @Override
    void abandon() {
        ended.complete(new Ending(false));
    }
}
