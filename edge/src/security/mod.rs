//! Who gets in, and what they may do: certificates, tokens, permissions, all of them from files and replaced without a restart.
//!
//! Two questions, each with its owner. Who calls? A certificate says so for a connection ([`tls`]), a token for a call
//! ([`tokens`]); either is a name ([`identity`]). May they? [`permissions`] says so. [`access`] asks both, at the edge of a
//! service, before anything of a call is looked at. Without certificates of callers and without tokens nobody is asked, and
//! everybody may do everything.
//!
//! | file | owns |
//! |---|---|
//! | [`identity`] | what a caller is called |
//! | [`tokens`] | which tokens are valid, and whose they are |
//! | [`permissions`] | who may do what with which topics |
//! | [`access`] | the two questions, asked of every call |
//! | [`tls`] | certificates and keys, ours and those of others |
//! | [`dial`] | the way to another service: where it is, whom it trusts, what it shows |
//! | [`reload`] | files that are read again when they change |
//!
//! No secret is ever an argument, and none is in a message: files are named, and lines of them.

pub mod access;
pub mod dial;
pub mod identity;
pub mod permissions;
pub mod reload;
pub mod tls;
pub mod tokens;

use std::{net::SocketAddr, path::PathBuf};

use access::Access;
use permissions::Permissions;
use reload::Reload;
use tls::ServerTls;
use tokens::Tokens;

/// The files that a server's security is said in. None of them: connections are plaintext and nobody is asked who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate with its chain, in PEM.
    pub cert: Option<PathBuf>,
    /// Its key, in PEM.
    pub key: Option<PathBuf>,
    /// Who may vouch for callers, certificates in PEM.
    pub client_ca: Option<PathBuf>,
    /// The valid tokens.
    pub tokens: Option<PathBuf>,
    /// Who may do what.
    pub permissions: Option<PathBuf>,
}

/// How a service calls the files' settings, for messages.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Of [`Files::cert`].
    pub cert: &'static str,
    /// Of [`Files::key`].
    pub key: &'static str,
    /// Of [`Files::client_ca`].
    pub client_ca: &'static str,
    /// Of [`Files::tokens`].
    pub tokens: &'static str,
    /// Of [`Files::permissions`].
    pub permissions: &'static str,
}

/// A server's security, in effect.
#[derive(Clone, Debug)]
pub struct Security {
    /// What connections are encrypted with; none: nothing.
    pub tls: Option<ServerTls>,
    /// Who may do what.
    pub access: Access,
}

impl Files {
    /// What is wrong with the choice of files, in a sentence each.
    pub fn conflicts(&self, names: &Names) -> Vec<String> {
        let mut problems = Vec::new();
        let mut problem = |is_wrong: bool, text: String| {
            if is_wrong {
                problems.push(text);
            }
        };
        let Names { cert, key, client_ca, tokens, permissions } = names;
        problem(self.cert.is_some() && self.key.is_none(), format!("{cert} is given without {key}: {UNPAIRED}"));
        problem(self.key.is_some() && self.cert.is_none(), format!("{key} is given without {cert}: {UNPAIRED}"));
        problem(
            self.client_ca.is_some() && self.cert.is_none(),
            format!("{client_ca} is given without {cert}: callers show certificates on TLS connections alone"),
        );
        problem(
            self.permissions.is_some() && !self.ask(),
            format!(
                "{permissions} is given without {client_ca} and {tokens}: nobody would be known, and nobody could do anything"
            ),
        );
        problems
    }

    /// Is anybody asked who calls?
    pub fn ask(&self) -> bool {
        self.client_ca.is_some() || self.tokens.is_some()
    }

    /// Reads them, and again whenever they change.
    ///
    /// # Errors
    /// One of them cannot be read or used; names it.
    ///
    /// # Panics
    /// They conflict ([`Self::conflicts`]), or outside a tokio runtime.
    pub fn open(self) -> anyhow::Result<Security> {
        let reload = Reload::default();
        let Self { cert, key, client_ca, tokens, permissions } = self;
        let by_certificate = client_ca.is_some();
        let tls = match (cert, key) {
            (Some(cert), Some(key)) => {
                // Whoever shows no certificate may still show a token.
                let callers = client_ca.map(|ca| tls::Callers { ca, may_be_unknown: tokens.is_some() });
                Some(ServerTls::open(&reload, cert, key, callers).map_err(anyhow::Error::msg)?)
            }
            (None, None) => None,
            _ => panic!("conflicts are looked for before"),
        };
        let tokens = match tokens {
            Some(path) => Some(watch_text(&reload, "tokens", path, Tokens::parse)?),
            None => None,
        };
        let permissions = match permissions {
            Some(path) => Some(watch_text(&reload, "permissions", path, Permissions::parse)?),
            None => None,
        };
        Ok(Security { tls, access: Access::new(by_certificate, tokens, permissions, reload) })
    }
}

impl Security {
    /// Says in the log what is open to whom, loudly if that is the network. `admin` is where probes are served.
    pub fn tell(&self, service: &str, listen: SocketAddr, admin: Option<SocketAddr>) {
        if let Some(admin) = admin.filter(|admin| !admin.ip().is_loopback()) {
            tracing::info!(%admin, "the admin port is open to the network, in plaintext and to everybody, as always: keep it inside");
        }
        let is_local = listen.ip().is_loopback();
        let (tls, known) = (self.tls.is_some(), self.access.is_on());
        match (is_local, tls, known) {
            (_, true, true) => tracing::info!(%listen, "{service} is open to callers that are known, over TLS"),
            (false, false, _) => tracing::warn!(
                %listen,
                "{service} LISTENS TO THE NETWORK IN PLAINTEXT: whoever can reach it can read along{}; set up TLS, or listen on 127.0.0.1",
                if known { ", tokens too" } else { ", write, and delete" }
            ),
            (false, true, false) => tracing::warn!(
                %listen,
                "{service} listens to the network and asks nobody who they are: whoever can reach it can write and delete; set up tokens \
                 or certificates of callers"
            ),
            (true, ..) => tracing::debug!(%listen, tls, known, "{service} is open to this machine alone"),
        }
    }
}

fn watch_text<T: Send + Sync + 'static>(
    reload: &Reload,
    what: &'static str,
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
) -> anyhow::Result<reload::Current<T>> {
    let read = move |contents: &[Vec<u8>]| {
        let [content] = contents else { unreachable!("there is one file") };
        parse(std::str::from_utf8(content).map_err(|_| "it is not text".to_owned())?)
    };
    reload.watch(what, vec![path], read).map_err(anyhow::Error::msg)
}

/// The lines of a file that say something, with their numbers from 1, as words. A word that begins with `#` begins a comment.
fn lines(text: &str) -> Result<Vec<(usize, Vec<&str>)>, String> {
    let words = |line: &'_ str| line.split_whitespace().take_while(|word| !word.starts_with('#')).count();
    let lines: Vec<_> = (1..)
        .zip(text.lines())
        .filter(|(_, line)| words(line) > 0)
        .map(|(number, line)| (number, line.split_whitespace().take(words(line)).collect::<Vec<_>>()))
        .take(MAX_LINES + 1)
        .collect();
    if lines.len() > MAX_LINES {
        return Err(format!("it has more than {MAX_LINES} lines that say something"));
    }
    Ok(lines)
}

/// Said of a certificate without its key, and of a key without its certificate.
pub const UNPAIRED: &str = "a certificate and its key belong together; give both, or neither";
const MAX_LINES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names { cert: "C", key: "K", client_ca: "A", tokens: "T", permissions: "P" };

    #[test]
    fn files_that_need_each_other_are_named() {
        let some = || Some(PathBuf::from("file"));
        let conflicts = |files: Files| files.conflicts(&NAMES);
        assert!(conflicts(Files::default()).is_empty());
        let whole = Files { cert: some(), key: some(), client_ca: some(), tokens: some(), permissions: some() };
        assert!(conflicts(whole).is_empty());
        assert!(conflicts(Files { tokens: some(), permissions: some(), ..Files::default() }).is_empty());
        assert!(conflicts(Files { cert: some(), ..Files::default() })[0].starts_with("C is given without K"));
        assert!(conflicts(Files { key: some(), ..Files::default() })[0].starts_with("K is given without C"));
        assert!(conflicts(Files { client_ca: some(), ..Files::default() })[0].starts_with("A is given without C"));
        assert!(conflicts(Files { permissions: some(), ..Files::default() })[0].starts_with("P is given without A and T"));
        assert!(conflicts(Files { cert: some(), key: some(), permissions: some(), ..Files::default() }).len() == 1);
    }

    #[test]
    fn lines_are_words_without_comments_and_not_too_many() {
        assert_eq!(lines("\n# a\n b  c # d\n\te#f\n"), Ok(vec![(3, vec!["b", "c"]), (4, vec!["e#f"])]));
        assert!(lines(&"a\n".repeat(MAX_LINES)).is_ok());
        assert!(lines(&"a\n".repeat(MAX_LINES + 1)).is_err());
        assert!(lines(&"#\n".repeat(MAX_LINES + 1)).is_ok());
    }
}
