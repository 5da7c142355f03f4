package driver;

import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Executor;

/** Runs what is written to one tunnel in the order in which it was asked for. */
final class Lane {
    private final Executor threads;
    private CompletableFuture<?> last = CompletableFuture.completedFuture(null);

    Lane(Executor threads) {
        this.threads = threads;
    }

    synchronized <T> CompletableFuture<T> run(Callable<T> work) {
        CompletableFuture<T> next =
                last.handleAsync(
                        (ignored, failure) -> {
                            try {
                                return work.call();
                            } catch (Exception error) {
                                throw new CompletionException(error);
                            }
                        },
                        threads);
        last = next;
        return next;
    }
}
