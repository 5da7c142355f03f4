package driver;

import com.eclipsesource.json.JsonObject;
import com.eclipsesource.json.JsonValue;

import java.util.ArrayList;
import java.util.Base64;
import java.util.List;

/** What a request says, value by value. */
record Arguments(JsonObject json) {
    private static final double SECONDS = 15;

    String text(String name) {
        return json.getString(name, "");
    }

    int number(String name) {
        return json.getInt(name, 0);
    }

    long large(String name) {
        return json.getLong(name, 0);
    }

    boolean isSet(String name, boolean otherwise) {
        return json.getBoolean(name, otherwise);
    }

    boolean has(String name) {
        return json.get(name) != null;
    }

    double timeout() {
        return json.getDouble("timeout", SECONDS);
    }

    byte[] bytes(String name) {
        return decode(json.get(name));
    }

    List<byte[]> byteStrings(String name) {
        List<byte[]> all = new ArrayList<>();
        json.get(name).asArray().forEach(text -> all.add(decode(text)));
        return all;
    }

    /** Pairs as java.net.http takes fields: name, value, name, value. */
    List<String> fields(String name) {
        List<String> fields = new ArrayList<>();
        if (has(name)) {
            for (JsonValue pair : json.get(name).asArray()) {
                pair.asArray().forEach(part -> fields.add(part.asString()));
            }
        }
        return fields;
    }

    static String encode(byte[] data) {
        return Base64.getEncoder().encodeToString(data);
    }

    private static byte[] decode(JsonValue text) {
        return text == null ? new byte[0] : Base64.getDecoder().decode(text.asString());
    }
}
