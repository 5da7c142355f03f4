package driver;

import com.eclipsesource.json.Json;
import com.eclipsesource.json.JsonArray;
import com.eclipsesource.json.JsonObject;

import tech.kwik.core.KwikVersion;
import tech.kwik.flupke.Http3Client;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeoutException;

/** Carries out requests from standard input, JSON lines, and answers on standard output. */
public final class Driver {
    private static final String FEATURES =
            "tcp udp headers reset ends max-payload contexts capsules no-datagrams migration closed"
                    + " settings fetch-tcp fetch-udp";

    private final PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    private final ExecutorService threads =
            Executors.newCachedThreadPool(
                    work -> {
                        Thread thread = new Thread(work);
                        thread.setDaemon(true);
                        return thread;
                    });
    private final Verbs verbs = new Verbs(threads);

    private Driver() {}

    /** Runs until standard input ends. */
    public static void main(String[] arguments) throws IOException {
        Driver driver = new Driver();
        System.setOut(System.err); // kwik warns on standard output, which is not its own here
        driver.run();
        System.exit(0); // kwik's threads need not be waited for
    }

    private void run() throws IOException {
        JsonArray features = new JsonArray();
        List.of(FEATURES.split(" ")).forEach(features::add);
        print(
                new JsonObject()
                        .add("peer", "flupke")
                        .add("version", version())
                        .add("features", features));
        BufferedReader in =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = in.readLine()) != null; ) {
            if (!line.isBlank()) {
                JsonObject request = Json.parse(line).asObject();
                verbs.start(new Arguments(request))
                        .whenComplete((ok, error) -> answer(request, ok, error));
            }
        }
        verbs.closeAndWait();
    }

    private static String version() {
        return versionOf(Http3Client.class, "flupke") + ", " + versionOf(KwikVersion.class, "kwik");
    }

    /** Reads a package's version in its jar's name; flupke's own constant only says "dev". */
    private static String versionOf(Class<?> part, String name) {
        String jar = part.getProtectionDomain().getCodeSource().getLocation().getPath();
        String file = jar.substring(jar.lastIndexOf('/') + 1);
        return file.replace(name + "-", name + " ").replace(".jar", "");
    }

    private void answer(JsonObject request, JsonObject ok, Throwable error) {
        JsonObject answer = new JsonObject().add("id", request.get("id"));
        print(error == null ? answer.add("ok", ok) : answer.add("error", explain(error)));
    }

    private static String explain(Throwable error) {
        Throwable cause = error instanceof CompletionException ? error.getCause() : error;
        if (cause instanceof TimeoutException) {
            return "timeout: " + (cause.getMessage() == null ? "not done" : cause.getMessage());
        }
        return cause.toString();
    }

    private synchronized void print(JsonObject line) {
        out.print(line + "\n");
        out.flush();
    }
}
