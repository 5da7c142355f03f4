package driver;

import tech.kwik.core.generic.InvalidIntegerEncodingException;
import tech.kwik.core.generic.VariableLengthInteger;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Brings DATAGRAM frames to the tunnels that their quarter stream ids name (RFC 9297 §2.1). */
final class Datagrams {
    private static final int EARLY = 256;

    private final Map<Long, DatagramTunnel> tunnels = new HashMap<>();
    private final Map<Long, List<ByteBuffer>> early = new HashMap<>();

    synchronized void receive(byte[] frame) {
        ByteBuffer datagram = ByteBuffer.wrap(frame);
        try {
            long quarter = VariableLengthInteger.parseLong(datagram);
            DatagramTunnel tunnel = tunnels.get(quarter);
            if (tunnel != null) {
                tunnel.deliver(datagram);
                return;
            }
            // The frame can overtake the answer, and flupke hands out a stream only with the
            // answer.
            List<ByteBuffer> kept = early.computeIfAbsent(quarter, any -> new ArrayList<>());
            if (kept.size() < EARLY) {
                kept.add(datagram);
            }
        } catch (InvalidIntegerEncodingException malformed) {
            System.err.println("a DATAGRAM frame without a stream");
        }
    }

    synchronized void add(DatagramTunnel tunnel) {
        long quarter = tunnel.stream.getStreamId() / 4;
        tunnels.put(quarter, tunnel);
        List<ByteBuffer> kept = early.remove(quarter);
        if (kept != null) {
            kept.forEach(tunnel::deliver);
        }
    }
}
