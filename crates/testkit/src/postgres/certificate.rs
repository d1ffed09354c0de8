//! The certificates of a cluster: an authority of its own and a server certificate signed by it.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// All in PEM.
pub(super) struct Certificates {
    /// What a client must trust.
    pub(super) root: String,
    /// What the server shows; it names `localhost` and `127.0.0.1`.
    pub(super) server: String,
    /// The server's private key.
    pub(super) server_key: String,
}

impl Certificates {
    pub(super) fn generate() -> Result<Self, rcgen::Error> {
        let mut root = CertificateParams::new(Vec::new())?;
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        root.distinguished_name.push(DnType::CommonName, "frontrow test authority");
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;

        let key = KeyPair::generate()?;
        let mut server = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        server.use_authority_key_identifier_extension = true;
        server.distinguished_name.push(DnType::CommonName, "frontrow test server");
        let server = server.signed_by(&key, &root)?;

        Ok(Self { root: root.pem(), server: server.pem(), server_key: key.serialize_pem() })
    }
}
