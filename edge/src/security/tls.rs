//! TLS: a server's certificate and key and whom it trusts, and the same of a caller; all of it from files, and the newest of it
//! for every new connection. A connection that stands keeps what it began with.

use std::{path::PathBuf, sync::Arc};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};

use super::reload::{Current, Reload};

/// What a server's connections begin with.
#[derive(Clone, Debug)]
pub struct ServerTls(Current<ServerConfig>);

/// Callers that show certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callers {
    /// Who vouches for them.
    pub ca: PathBuf,
    /// One without a certificate gets a connection too.
    pub may_be_unknown: bool,
}

/// What a caller's connections begin with.
#[derive(Clone, Debug)]
pub struct ClientTls(Current<ClientConfig>);

impl ServerTls {
    /// Reads the files, and again whenever they change.
    ///
    /// # Errors
    /// One of them cannot be read or used, or certificate and key do not belong together.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(reload: &Reload, cert: PathBuf, key: PathBuf, callers: Option<Callers>) -> Result<Self, String> {
        let may_be_unknown = callers.as_ref().is_some_and(|callers| callers.may_be_unknown);
        let files: Vec<_> = [cert, key].into_iter().chain(callers.map(|callers| callers.ca)).collect();
        let parse = move |contents: &[Vec<u8>]| {
            let [cert, key, ca @ ..] = contents else { unreachable!("there are two files at least") };
            server_config(cert, key, ca.first().map(Vec::as_slice), may_be_unknown)
        };
        reload.watch("the server's certificates", files, parse).map(Self)
    }

    /// The newest.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.borrow())
    }
}

impl ClientTls {
    /// Trusts those for whom `ca` vouches, or, without it, whom this machine trusts. Shows `shown`, a certificate and its key, if
    /// there is one.
    ///
    /// # Errors
    /// A file cannot be read or used, or this machine trusts nobody.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(reload: &Reload, ca: Option<PathBuf>, shown: Option<(PathBuf, PathBuf)>) -> Result<Self, String> {
        let has_ca = ca.is_some();
        let files: Vec<_> = ca.into_iter().chain(shown.into_iter().flat_map(|(cert, key)| [cert, key])).collect();
        let parse = move |contents: &[Vec<u8>]| {
            let (ca, shown) = contents.split_at(usize::from(has_ca));
            client_config(ca.first().map(Vec::as_slice), shown)
        };
        reload.watch("the certificates for calls", files, parse).map(Self)
    }

    /// The newest.
    pub fn current(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0.borrow())
    }
}

fn server_config(cert: &[u8], key: &[u8], ca: Option<&[u8]>, may_be_unknown: bool) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(text)?;
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider());
            let verifier = if may_be_unknown { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(text)?)
        }
    };
    let mut config = builder.with_single_cert(certificates(cert)?, private_key(key)?).map_err(text)?;
    if ca.is_some() {
        // A session that goes on would bring the certificate of an earlier handshake along, which may have expired since, and
        // nobody would ask.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    config.alpn_protocols = vec![HTTP_2.to_vec()];
    Ok(config)
}

/// For a caller that trusts those for whom `ca` vouches, else whom this machine trusts, and shows a certificate and its key, if any.
pub(crate) fn client_config(ca: Option<&[u8]>, shown: &[Vec<u8>]) -> Result<ClientConfig, String> {
    let roots = ca.map_or_else(machines_roots, roots)?;
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(text)?;
    let builder = builder.with_root_certificates(roots);
    let mut config = match shown {
        [cert, key] => builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(text)?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP_2.to_vec()];
    Ok(config)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    certificates(pem)?.into_iter().try_for_each(|certificate| roots.add(certificate)).map_err(text)?;
    Ok(roots)
}

fn machines_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this machine has no certificates of whom it trusts; name a file of them".to_owned());
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| format!("the certificates cannot be read: {error}"))?;
    if certificates.is_empty() {
        return Err("there is no certificate in PEM where one has to be".to_owned());
    }
    Ok(certificates)
}

/// The reason why one cannot be read is left out: it could repeat what stands in the file.
fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "there is no private key in PEM where one has to be".to_owned())
}

/// By name and not by what the process has installed: nobody has to install anything.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// As it is agreed on in a handshake.
pub(crate) const HTTP_2: &[u8] = b"h2";

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tokio_rustls::rustls::{
        ClientConnection, ConnectionCommon, HandshakeKind, ServerConnection, SideData,
        version::{TLS12, TLS13},
    };

    use super::*;

    fn pair() -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }

    #[test]
    fn a_certificate_and_a_key_that_do_not_belong_together_are_refused() {
        let ((cert, key), (other, _)) = (pair(), pair());
        assert!(server_config(&cert, &key, None, false).is_ok());
        assert!(server_config(&cert, &key, Some(&other), true).is_ok());
        assert!(server_config(&other, &key, None, false).is_err());
        assert!(client_config(Some(&cert), &[other, key.clone()]).is_err());
        assert!(client_config(Some(&cert), &[cert.clone(), key]).is_ok());
        assert!(client_config(Some(&cert), &[]).is_ok());
    }

    /// Carries what one has to say to the other.
    fn carry<A: SideData, B: SideData>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) {
        let mut said = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut said).expect("memory");
        }
        let mut rest = &said[..];
        while !rest.is_empty() {
            to.read_tls(&mut rest).expect("memory");
            to.process_new_packets().expect("they trust each other");
        }
    }

    fn shake_hands(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> HandshakeKind {
        let name = "localhost".try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::clone(client), name).expect("usable");
        let mut server = ServerConnection::new(Arc::clone(server)).expect("usable");
        // The last of it are tickets, after the handshake.
        while client.wants_write() || server.wants_write() {
            carry(&mut client, &mut server);
            carry(&mut server, &mut client);
        }
        server.handshake_kind().expect("it is done")
    }

    #[test]
    fn a_caller_that_shows_a_certificate_shows_it_on_every_connection() {
        let (cert, key) = pair();
        for version in [&TLS12, &TLS13] {
            let client = || {
                let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]);
                let builder = builder.expect("known").with_root_certificates(roots(&cert).expect("usable"));
                let shown = (certificates(&cert).expect("usable"), private_key(&key).expect("usable"));
                let mut config = builder.with_client_auth_cert(shown.0, shown.1).expect("a pair");
                config.alpn_protocols = vec![HTTP_2.to_vec()];
                Arc::new(config)
            };
            let twice = |ca: Option<&[u8]>| {
                let (client, server) = (client(), Arc::new(server_config(&cert, &key, ca, false).expect("usable")));
                [shake_hands(&client, &server), shake_hands(&client, &server)]
            };
            assert_eq!(twice(Some(&cert)), [HandshakeKind::Full; 2], "{version:?}");
            assert_eq!(twice(None), [HandshakeKind::Full, HandshakeKind::Resumed], "nobody is asked: {version:?}");
        }
    }

    #[test]
    fn a_file_that_is_empty_or_another_one_is_refused_without_its_content() {
        let (cert, key) = pair();
        for (cert, key) in [(&key, &key), (&cert, &cert), (&Vec::new(), &key), (&cert, &b"s3cret".to_vec())] {
            let error = server_config(cert, key, None, false).expect_err("not usable");
            assert!(error.contains("PEM") && !error.contains("s3cret"), "{error}");
        }
        assert!(server_config(&cert, &key, Some(b""), false).is_err());
    }
}
