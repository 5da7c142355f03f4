package driver;

import java.io.IOException;
import java.io.InputStream;
import java.io.InterruptedIOException;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.util.Arrays;
import java.util.concurrent.TimeoutException;

/** A tunnel to a TCP target as a socket, for the JDK's TLS to lie upon. */
final class TunnelSocket extends Socket {
    private final ByteTunnel tunnel;
    private final Deadline deadline;

    TunnelSocket(ByteTunnel tunnel, Deadline deadline) {
        this.tunnel = tunnel;
        this.deadline = deadline;
    }

    @Override
    public InputStream getInputStream() {
        return new InputStream() {
            @Override
            public int read() throws IOException {
                byte[] one = new byte[1];
                return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
            }

            @Override
            public int read(byte[] into, int at, int size) throws IOException {
                byte[] piece = size == 0 ? new byte[0] : take(size);
                if (piece == null) {
                    return -1;
                }
                System.arraycopy(piece, 0, into, at, piece.length);
                return piece.length;
            }
        };
    }

    private byte[] take(int size) throws IOException {
        try {
            byte[] piece = tunnel.take(size, deadline);
            if (piece == null && !tunnel.ending().clean()) {
                throw new IOException("the tunnel was reset");
            }
            return piece;
        } catch (TimeoutException late) {
            throw new SocketTimeoutException(late.getMessage());
        } catch (InterruptedException interrupted) {
            throw new InterruptedIOException();
        }
    }

    @Override
    public OutputStream getOutputStream() {
        return new OutputStream() {
            @Override
            public void write(int one) throws IOException {
                tunnel.send(new byte[] {(byte) one});
            }

            @Override
            public void write(byte[] data, int at, int size) throws IOException {
                tunnel.send(Arrays.copyOfRange(data, at, at + size));
            }
        };
    }

    @Override
    public boolean isConnected() {
        return true;
    }

    @Override
    public InetAddress getInetAddress() {
        return InetAddress.getLoopbackAddress();
    }

    @Override
    public void setTcpNoDelay(boolean on) {}

    @Override
    public void setSoTimeout(int millis) {}

    @Override
    public void shutdownOutput() throws IOException {
        tunnel.end();
    }

    @Override
    public synchronized void close() throws IOException {
        tunnel.end();
        super.close();
    }
}
