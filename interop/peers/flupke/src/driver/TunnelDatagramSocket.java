package driver;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.net.DatagramPacket;
import java.net.DatagramSocket;
import java.net.InetAddress;
import java.net.SocketAddress;
import java.net.SocketException;
import java.util.List;

/** A tunnel to a UDP target as a socket, for a second kwik to send its packets by. */
final class TunnelDatagramSocket extends DatagramSocket {
    private final DatagramTunnel tunnel;
    private final InetAddress address;
    private final int port;

    /**
     * @param address what kwik takes the target's address for
     */
    TunnelDatagramSocket(DatagramTunnel tunnel, InetAddress address, int port)
            throws SocketException {
        super((SocketAddress) null);
        this.tunnel = tunnel;
        this.address = address;
        this.port = port;
    }

    @Override
    public void send(DatagramPacket packet) throws IOException {
        byte[] payload = new byte[packet.getLength()];
        System.arraycopy(packet.getData(), packet.getOffset(), payload, 0, payload.length);
        tunnel.send(List.of(payload), 0);
    }

    @Override
    public void receive(DatagramPacket packet) throws IOException {
        try {
            packet.setData(tunnel.take());
            packet.setAddress(address);
            packet.setPort(port);
        } catch (InterruptedException closing) { // so kwik ends its receiver
            throw new InterruptedIOException();
        }
    }
}
