package driver;

import tech.kwik.flupke.HttpStream;
import tech.kwik.flupke.core.CapsuleProtocolStream;
import tech.kwik.flupke.core.GenericCapsule;
import tech.kwik.flupke.impl.CapsuleProtocolStreamImpl;

import java.io.IOException;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeoutException;

/** A tunnel: the stream that flupke opened for it. */
abstract class Tunnel {
    final HttpStream stream;
    final Lane lane;
    final CapsuleProtocolStream capsules;

    Tunnel(HttpStream stream, Executor threads) {
        this.stream = stream;
        lane = new Lane(threads);
        capsules = new CapsuleProtocolStreamImpl(stream);
    }

    /** Reads the stream to its end. */
    abstract void read();

    /** Waits until the relay's direction is over. */
    abstract Ending waitEnd(Deadline deadline) throws InterruptedException, TimeoutException;

    /** Lets go of what waits for bytes of this tunnel. */
    abstract void abandon();

    void sendCapsule(long type, byte[] value) throws IOException {
        capsules.send(new GenericCapsule(type, value));
    }

    void end() throws IOException {
        stream.getOutputStream().close();
    }

    void reset(long code) {
        stream.resetStream(code);
        stream.abortReading(code);
        abandon();
    }
}
