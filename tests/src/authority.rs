//! Who vouches for certificates: made for a test, with its files in the test's directory.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};

/// An authority, with a directory for what it issues.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

/// A certificate and its key, each in a file.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, in PEM.
    pub cert: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A new one, whose files are in `directory`.
    ///
    /// # Panics
    /// If nothing can be written there.
    pub fn new(directory: PathBuf) -> Self {
        std::fs::create_dir_all(&directory).expect("writable");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("a certificate");
        std::fs::write(directory.join("ca.pem"), issuer.pem()).expect("writable");
        Self { issuer, directory }
    }

    /// Its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// For a server at `localhost` and 127.0.0.1.
    ///
    /// # Panics
    /// If nothing can be written.
    pub fn server(&self, file: &str) -> Pair {
        self.issue(file, vec![dns("localhost"), SanType::IpAddress([127, 0, 0, 1].into())])
    }

    /// For a caller of this name.
    ///
    /// # Panics
    /// As [`Self::server`].
    pub fn caller(&self, name: &str) -> Pair {
        self.issue(name, vec![SanType::URI(format!("test:{name}").try_into().expect("ASCII"))])
    }

    fn issue(&self, file: &str, names: Vec<SanType>) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "somebody");
        params.subject_alt_names = names;
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pair = Pair::at(&self.directory, file);
        std::fs::write(&pair.cert, certificate.pem()).expect("writable");
        std::fs::write(&pair.key, key.serialize_pem()).expect("writable");
        pair
    }
}

impl Pair {
    fn at(directory: &Path, name: &str) -> Self {
        Self { cert: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}.key")) }
    }

    /// Puts another pair in the place of this one.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn replace_by(&self, other: &Self) {
        std::fs::copy(&other.cert, &self.cert).expect("writable");
        std::fs::copy(&other.key, &self.key).expect("writable");
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("ASCII"))
}
