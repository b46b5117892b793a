//! Who a caller is: a name, from its certificate or from the line of its token.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};
use tokio_rustls::rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The name of a caller: 1 to 255 visible ASCII characters, none of them `*`, `#` or `,`, which mean something else in the files.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    name: Arc<str>,
    fingerprint: [u8; 16],
}

impl Identity {
    /// A name.
    ///
    /// # Errors
    /// It is not allowed; says what is.
    pub fn parse(name: &str) -> Result<Self, String> {
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"*#,".contains(&byte);
        if name.is_empty() || name.len() > MAX_BYTES || !name.bytes().all(is_allowed) {
            return Err(format!(
                "{:?} is no name of an identity: allowed are 1 to {MAX_BYTES} visible ASCII characters without * # and ,",
                oncelog_proto::fault::excerpt(name)
            ));
        }
        let hash = Sha256::digest(name.as_bytes());
        let fingerprint = hash[..16].try_into().expect("a hash has 32 bytes");
        Ok(Self { name: name.into(), fingerprint })
    }

    /// The first of a certificate's alternative names that is an allowed name: its URIs, then its DNS names. The subject's common
    /// name is not looked at, as nobody does any more.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let mut names = certificate.valid_uri_names().chain(certificate.valid_dns_names());
        names.find_map(|name| Self::parse(name).ok())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first 16 bytes of the SHA-256 of the name: what is kept where names would take too much.
    pub fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.name(), f)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const MAX_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "common");
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").into()
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().expect("ASCII"))
    }

    fn uri(name: &str) -> SanType {
        SanType::URI(name.try_into().expect("ASCII"))
    }

    #[test]
    fn names_end_at_their_limits() {
        for good in ["a", "orders-svc", "spiffe://cluster.local/ns/shop/sa/orders", &"x".repeat(255)] {
            assert_eq!(Identity::parse(good).map(|identity| identity.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "a*", "#a", "a,b", "ä", "a\n", &"x".repeat(256)] {
            let error = Identity::parse(bad).expect_err(bad);
            assert!(error.len() < 300, "{error}");
        }
    }

    #[test]
    fn a_certificate_is_called_by_its_uri_before_its_dns_name_and_never_by_its_common_name() {
        let name = |names| Identity::of_certificate(&certificate(names)).map(|identity| identity.to_string());
        assert_eq!(name(vec![dns("orders.shop"), uri("spiffe://shop/orders")]).as_deref(), Some("spiffe://shop/orders"));
        assert_eq!(name(vec![dns("*.shop"), dns("orders.shop")]).as_deref(), Some("orders.shop"));
        assert_eq!(name(vec![]), None);
        assert_eq!(Identity::of_certificate(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn different_names_have_different_fingerprints() {
        let of = |name| Identity::parse(name).expect("allowed").fingerprint();
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
    }
}
