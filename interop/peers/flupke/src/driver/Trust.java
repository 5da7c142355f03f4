package driver;

import tech.kwik.core.QuicClientConnection;

import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.util.List;

import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;

/** The one authority that a connection trusts, from a PEM file. */
final class Trust {
    private static final Integer IP_ADDRESS = 7; // of GeneralName, RFC 5280 §4.2.1.6

    private Trust() {}

    /** Makes kwik trust the authority, and demand a certificate for the host. */
    static void set(QuicClientConnection.Builder builder, String host, String file)
            throws IOException, GeneralSecurityException {
        if (!isAddress(host)) {
            builder.customTrustStore(store(file));
            return;
        }
        // kwik's TLS compares the host with DNS names only, so no address ever matches. The one way
        // around is to switch its checks off, and to put back one that knows addresses.
        builder.noServerCertificateCheck();
        builder.customTrustManager(new AddressTrust(manager(file), host));
    }

    /** TLS sockets that trust the authority. */
    static SSLSocketFactory sockets(String file) throws IOException, GeneralSecurityException {
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, new X509TrustManager[] {manager(file)}, null);
        return context.getSocketFactory();
    }

    private static X509TrustManager manager(String file)
            throws IOException, GeneralSecurityException {
        TrustManagerFactory managers = TrustManagerFactory.getInstance("PKIX");
        managers.init(store(file));
        return (X509TrustManager) managers.getTrustManagers()[0];
    }

    private static KeyStore store(String file) throws IOException, GeneralSecurityException {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        CertificateFactory parser = CertificateFactory.getInstance("X.509");
        try (InputStream pem = Files.newInputStream(Path.of(file))) {
            int number = 0;
            for (Certificate authority : parser.generateCertificates(pem)) {
                store.setCertificateEntry("ca" + number++, authority);
            }
        }
        return store;
    }

    private static boolean isAddress(String host) {
        return host.contains(":") || host.matches("[0-9.]+");
    }

    /** Checks the chain as the JDK does, and the certificate's addresses. */
    private record AddressTrust(X509TrustManager chains, String host) implements X509TrustManager {
        @Override
        public void checkServerTrusted(X509Certificate[] chain, String kind)
                throws CertificateException {
            chains.checkServerTrusted(chain, kind);
            if (chain[0].getSubjectAlternativeNames() != null) {
                for (List<?> name : chain[0].getSubjectAlternativeNames()) {
                    if (name.get(0).equals(IP_ADDRESS) && isSame((String) name.get(1), host)) {
                        return;
                    }
                }
            }
            throw new CertificateException("the certificate is not for " + host);
        }

        @Override
        public void checkClientTrusted(X509Certificate[] chain, String kind)
                throws CertificateException {
            throw new CertificateException("this is no server");
        }

        @Override
        public X509Certificate[] getAcceptedIssuers() {
            return chains.getAcceptedIssuers();
        }

        private static boolean isSame(String one, String other) throws CertificateException {
            try {
                return InetAddress.getByName(one).equals(InetAddress.getByName(other));
            } catch (UnknownHostException error) {
                throw new CertificateException(error);
            }
        }
    }
}
