package driver;

import com.eclipsesource.json.Json;
import com.eclipsesource.json.JsonObject;

/** How the relay's direction of a tunnel ended: by FIN, or by a reset or the connection's end. */
record Ending(boolean clean) {
    JsonObject toJson() {
        // kwik tells of a reset but keeps its code to itself: StreamInputStreamImpl.terminate drops
        // it.
        return new JsonObject().add("end", clean ? "fin" : "reset").add("code", Json.NULL);
    }
}
