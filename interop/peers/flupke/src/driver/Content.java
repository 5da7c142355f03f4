package driver;

import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/** Test content and its digest. */
final class Content {
    private Content() {}

    /**
     * Fills {@code piece} with the pattern that every driver sends, from position {@code start}.
     */
    static void fillPattern(byte[] piece, int start) {
        for (int at = 0; at < piece.length; at++) {
            int i = start + at;
            piece[at] = (byte) (i ^ i >> 8 ^ i >> 16);
        }
    }

    static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException impossible) {
            throw new AssertionError(impossible);
        }
    }

    static String hex(MessageDigest digest) {
        return HexFormat.of().formatHex(digest.digest());
    }
}
