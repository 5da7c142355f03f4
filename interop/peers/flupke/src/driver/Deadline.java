package driver;

/** A point in time that a waiting verb must not pass. */
record Deadline(long nanos) {
    static Deadline in(double seconds) {
        return new Deadline(System.nanoTime() + (long) (seconds * 1e9));
    }

    /** The milliseconds that are left, rounded up; 0 once it has passed. */
    long left() {
        return Math.max(0, (nanos - System.nanoTime() + 999_999) / 1_000_000);
    }
}
