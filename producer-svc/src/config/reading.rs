//! Finding a setting's value by precedence, and parsing it by its row of the table.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use tonic::transport::Uri;

use super::{
    key::{Allowed, BOOTSTRAP_SERVERS, KEYS, Key, WITHOUT_MEANING},
    properties::Property,
};

/// Where settings are said.
pub(super) struct Layers<'a> {
    pub(super) flags: &'a BTreeMap<String, String>,
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
    pub(super) file: BTreeMap<String, Property>,
}

/// A value as it was written, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) value: String,
    pub(super) source: Source,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Flag(String),
    Environment(String),
    File(usize),
    Default,
}

/// A reading of all settings, which goes on after a problem, to find them all.
pub(super) struct Reading<'a> {
    pub(super) layers: Layers<'a>,
    pub(super) problems: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Layers<'_> {
    /// A flag before an environment variable before the file before the default.
    pub(super) fn find(&self, key: &Key) -> Given {
        let given = |value: &str, source| Given { value: value.trim().to_owned(), source };
        if let Some(value) = self.flags.get(key.name) {
            return given(value, Source::Flag(key.flag()));
        }
        if let Some(value) = (self.environment)(&key.env()) {
            return given(&value, Source::Environment(key.env()));
        }
        match self.file.get(key.name) {
            Some(property) => given(&property.value, Source::File(property.line)),
            None => given(key.default, Source::Default),
        }
    }
}

impl Reading<'_> {
    /// A whole number, already within its bounds.
    pub(super) fn whole(&mut self, key: &Key) -> Option<i64> {
        let Allowed::Whole(min, max) = key.allowed else { unreachable!("{} is no number", key.name) };
        self.parse(key, |value| value.parse().ok().filter(|number| (min..=max).contains(number)))
    }

    /// A number of bytes, or of things.
    pub(super) fn size(&mut self, key: &Key) -> Option<usize> {
        self.whole(key).and_then(|number| usize::try_from(number).ok())
    }

    /// A number of milliseconds.
    pub(super) fn millis(&mut self, key: &Key) -> Option<Duration> {
        self.whole(key).and_then(|number| u64::try_from(number).ok()).map(Duration::from_millis)
    }

    /// `true` or `false`, in any case, as Kafka reads it.
    pub(super) fn flag(&mut self, key: &Key) -> Option<bool> {
        self.parse(key, |value| value.to_lowercase().parse().ok())
    }

    /// One of the allowed words.
    pub(super) fn word(&mut self, key: &Key) -> Option<&'static str> {
        let Allowed::Word(words) = key.allowed else { unreachable!("{} is no word", key.name) };
        self.parse(key, |value| words.iter().find(|word| word.eq_ignore_ascii_case(value)).copied())
    }

    /// A file, if there is one.
    pub(super) fn file(&self, key: &Key) -> Option<PathBuf> {
        let given = self.layers.find(key).value;
        (!given.is_empty()).then(|| given.into())
    }

    /// An address to listen on.
    pub(super) fn listen(&mut self, key: &Key) -> Option<SocketAddr> {
        self.parse(key, |value| value.parse().ok())
    }

    /// An address to listen on, or `off`.
    pub(super) fn listen_or_off(&mut self, key: &Key) -> Option<Option<SocketAddr>> {
        self.parse(key, |value| if value == "off" { Some(None) } else { value.parse().ok().map(Some) })
    }

    /// The broker's address. Kafka's setting is a list, of which only the first is taken.
    pub(super) fn broker(&mut self, key: &Key) -> Option<Uri> {
        let given = self.layers.find(key);
        let (first, rest) = given.value.split_once(',').unwrap_or((&given.value, ""));
        if !rest.trim().is_empty() {
            self.warnings.push(format!("{}: there is one broker; only {first} is used", told(key, &given)));
        }
        self.parse(key, |value| broker_uri(value.split(',').next().unwrap_or(value).trim()))
    }

    fn parse<T>(&mut self, key: &Key, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let given = self.layers.find(key);
        let parsed = parse(&given.value);
        if parsed.is_none() {
            self.problems.push(format!("{}; allowed: {}", told(key, &given), key.allowed));
        }
        parsed
    }

    /// The setting, its value and where that came from, for a message.
    pub(super) fn told(&self, key: &Key) -> String {
        told(key, &self.layers.find(key))
    }
}

/// Sorts the names in a properties file: ours, known to Kafka without a meaning here, and wrong.
pub(super) fn judge_names(path: &str, file: &BTreeMap<String, Property>, problems: &mut Vec<String>, warnings: &mut Vec<String>) {
    for (name, Property { value, line }) in file {
        let at = format!("{path} line {line}");
        if KEYS.iter().any(|key| key.name == name && key.in_file()) {
            continue;
        }
        if name == "transactional.id" {
            problems.push(format!(
                "{at}: transactional.id is {value}, but there are no transactions; remove it (enable.idempotence alone writes each record once)"
            ));
        } else if name == "security.protocol" && !value.trim().eq_ignore_ascii_case("PLAINTEXT") {
            problems.push(format!(
                "{at}: security.protocol is {value}; allowed: PLAINTEXT. For TLS remove it and say bootstrap.servers=https://HOST:PORT \
                 and broker.tls.ca, for a password broker.token.file"
            ));
        } else if WITHOUT_MEANING.iter().any(|known| name == known || known.ends_with('.') && name.starts_with(known)) {
            warnings.push(format!("{at}: {name} has no meaning here and is ignored"));
        } else if name == "broker" {
            problems.push(format!("{at}: broker is called {} in a properties file", BOOTSTRAP_SERVERS.name));
        } else {
            problems.push(format!("{at}: {name} is no setting of this producer, nor of Kafka's; remove it or correct its name"));
        }
    }
}

fn told(key: &Key, given: &Given) -> String {
    format!("{} is {:?} ({})", key.name, given.value, given.source)
}

fn broker_uri(value: &str) -> Option<Uri> {
    let uri: Uri = if value.contains("://") { value.parse().ok()? } else { format!("http://{value}").parse().ok()? };
    let authority = uri.authority()?;
    let plain = matches!(uri.scheme_str(), Some("http" | "https")) && !authority.as_str().contains('@');
    let complete = !authority.host().is_empty() && authority.port_u16().is_some_and(|port| port != 0);
    let nothing_else = matches!(uri.path(), "" | "/") && uri.query().is_none();
    (plain && complete && nothing_else).then_some(uri)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(line) => write!(f, "producer.properties line {line}"),
            Self::Default => f.write_str("default"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_address_needs_a_port_and_no_password() {
        for good in
            ["https://broker:50051", "127.0.0.1:1", "broker:50051", "http://broker:50051", "http://[::1]:65535/", "HTTP://b:1"]
        {
            assert!(broker_uri(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "broker",
            "broker:",
            "broker:0",
            "broker:65536",
            "ftp://b:1",
            "http://u@b:1",
            "https://b",
            "http://b:1/x",
            "http://b:1?x",
        ] {
            assert!(broker_uri(bad).is_none(), "{bad}");
        }
    }
}
