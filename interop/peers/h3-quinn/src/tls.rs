//! TLS with the ring provider, and one authority to trust.

use std::path::Path;
use std::sync::Arc;

use quinn::rustls::crypto::ring::default_provider;
use quinn::rustls::pki_types::CertificateDer;
use quinn::rustls::pki_types::pem::PemObject;
use quinn::rustls::{ClientConfig, RootCertStore};

use crate::protocol::Outcome;

/// A client's configuration.
pub fn client_config(ca: &Path, protocol: &[u8]) -> Outcome<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}
