package driver;

import tech.kwik.core.generic.InvalidIntegerEncodingException;
import tech.kwik.core.generic.VariableLengthInteger;
import tech.kwik.flupke.core.Capsule;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;

/**
 * A DATAGRAM capsule (RFC 9297 §3.5) that came.
 *
 * <p>flupke's own GenericCapsule would do, but it takes a length whose second byte is 0xff for the
 * end of the stream, and reads a value that spans two DATA frames only in part. A parser of one's
 * own, which flupke lets one register, reads in arrays and has neither fault.
 */
record DatagramCapsule(byte[] value) implements Capsule {
    static final long TYPE = 0;
    private static final int LARGEST = 1 << 16;

    static DatagramCapsule parse(InputStream in) {
        try {
            readInteger(in);
            long size = readInteger(in);
            if (size > LARGEST) {
                throw new IOException("a DATAGRAM capsule of " + size + " bytes");
            }
            return new DatagramCapsule(readExactly(in, (int) size));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    @Override
    public long getType() {
        return TYPE;
    }

    @Override
    public int write(OutputStream out) {
        throw new UnsupportedOperationException("what came is not sent again");
    }

    private static long readInteger(InputStream in) throws IOException {
        byte[] first = readExactly(in, 1);
        int size = 1 << (first[0] >> 6 & 3);
        ByteBuffer whole =
                ByteBuffer.allocate(size).put(first).put(readExactly(in, size - 1)).flip();
        try {
            return VariableLengthInteger.parseLong(whole);
        } catch (InvalidIntegerEncodingException error) {
            throw new IOException(error);
        }
    }

    private static byte[] readExactly(InputStream in, int size) throws IOException {
        byte[] bytes = in.readNBytes(size);
        if (bytes.length < size) {
            throw new EOFException("the stream ended inside of a capsule");
        }
        return bytes;
    }
}
