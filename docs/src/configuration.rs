//! The page of settings. Names, defaults and meanings are those of the services' own parsers, and so are the ranges: a parser is
//! asked what it takes, by bisection, because a range that is told by hand may be told wrongly.

use std::{ffi::OsStr, fmt::Write, process::Command as Process};

use clap::{Arg, Args, Command};
use oncelog_tests::binaries;

/// The page, as it should be.
///
/// # Panics
/// If a setting breaks the rules that the page states.
pub fn page() -> String {
    let broker = Service { name: "broker-svc", prefix: "ONCELOG_BROKER_", command: broker_svc::Config::augment_args(bare()) };
    let producer =
        Service { name: "producer-svc", prefix: "ONCELOG_PRODUCER_", command: producer_svc::Config::augment_args(bare()) };
    let ignored: Vec<_> = producer_svc::config::WITHOUT_MEANING.iter().map(|name| format!("`{name}`")).collect();
    let of_producers = PRODUCER_CONFLICTS.replace("IGNORED", &ignored.join(", "));
    let mut page = BEGINNING.to_owned();
    for (service, behind) in [(&broker, BROKER_CONFLICTS), (&producer, &of_producers)] {
        write!(page, "\n## {}\n\n{}{}\n{behind}", service.name, HEAD, service.rows()).expect("a string takes everything");
    }
    page
}

/// What is known of a service's settings.
struct Service {
    name: &'static str,
    prefix: &'static str,
    command: Command,
}

/// One row.
struct Setting {
    /// As a properties file calls it; none if it is not read from one.
    property: Option<String>,
    flag: String,
    variable: String,
    default: Option<String>,
    is_required: bool,
    range: String,
    unit: Unit,
    meaning: String,
}

/// What a number counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Milliseconds,
    Bytes,
    None,
}

impl Service {
    fn rows(&self) -> String {
        let settings = self.command.get_arguments().map(|arg| self.setting(arg)).chain(self.of_the_process());
        settings.map(|setting| setting.row()).collect()
    }

    fn setting(&self, arg: &Arg) -> Setting {
        let flag = arg.get_long().expect("every setting is a flag").to_owned();
        let help = arg.get_help().expect("every setting says what it means").to_string();
        let (meaning, said) = tags(&help);
        let variable = arg.get_env().and_then(OsStr::to_str).map(ToOwned::to_owned);
        let default = arg.get_default_values().first().and_then(|value| value.to_str()).map(ToOwned::to_owned);
        let range = match said("allowed") {
            Some(allowed) => allowed.trim_start_matches("a whole number from ").to_owned(),
            None => self.range(arg, &flag, default.as_deref()),
        };
        Setting {
            property: self.property(arg.get_id().as_str()),
            variable: variable.or_else(|| said("env")).expect("every setting is a variable"),
            default: default.or_else(|| said("default")),
            is_required: arg.is_required_set(),
            range,
            unit: Unit::of(&flag),
            meaning: meaning.to_owned(),
            flag,
        }
        .checked(self.prefix)
    }

    /// The producer's settings are called there as in a properties file.
    fn property(&self, id: &str) -> Option<String> {
        let in_file = self.name == "producer-svc" && !id.contains('_') && id != "producer.properties";
        in_file.then(|| id.to_owned())
    }

    fn range(&self, arg: &Arg, flag: &str, default: Option<&str>) -> String {
        let name = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        let words: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        match name {
            "N" | "BYTES" | "MS" => self.bounds(flag, default.and_then(|value| value.parse().ok())),
            "BOOL" => "true or false".to_owned(),
            "ADDR" => "IP:PORT".to_owned(),
            "DIR" => "a directory".to_owned(),
            "FILE" => "a file".to_owned(),
            _ if !words.is_empty() => words.join(", "),
            other => other.to_lowercase(),
        }
    }

    /// The least and the most that the parser takes.
    fn bounds(&self, flag: &str, default: Option<i128>) -> String {
        let takes = |value: i128| {
            let args = [format!("--{flag}={value}")];
            self.command.clone().mut_args(|arg| arg.required(false).env(None::<&str>)).try_get_matches_from(args).is_ok()
        };
        let known = default.or_else(|| [1, 1 << 20].into_iter().find(|&value| takes(value)));
        let known = known.unwrap_or_else(|| panic!("--{flag} takes no number that is known here"));
        assert!(takes(known), "--{flag} does not take its default {known}");
        let step = [1, 4096].into_iter().find(|&step| takes(known + step) || takes(known - step));
        let step = step.unwrap_or_else(|| panic!("--{flag} takes nothing beside {known}"));
        let furthest = |direction: i128| {
            let (mut taken, mut refused) = (0, 1_i128 << 65);
            while taken + 1 < refused {
                let middle = taken + (refused - taken) / 2;
                if takes(known + direction * step * middle) { taken = middle } else { refused = middle }
            }
            known + direction * step * taken
        };
        let steps = if step == 1 { String::new() } else { format!(", in steps of {step}") };
        match (furthest(-1), furthest(1)) {
            (least, most) if most >= i128::from(i64::MAX) => format!("from {least}{steps}"),
            (least, most) => format!("{least} to {most}{steps}"),
        }
    }

    /// What the program takes beside its configuration, by its `--help`.
    fn of_the_process(&self) -> impl Iterator<Item = Setting> {
        let output = Process::new(binaries::path(self.name)).arg("--help").output().expect("it runs");
        let help = String::from_utf8(output.stdout).expect("text");
        let known = |flag: &str| self.command.get_arguments().any(|arg| arg.get_long() == Some(flag));
        let others: Vec<_> =
            flags(&help).into_iter().filter(|(flag, _)| !known(flag) && !["help", "version"].contains(&&**flag)).collect();
        let prefix = self.prefix;
        others.into_iter().map(move |(flag, text)| {
            let (meaning, said) = tags(&text);
            let (meaning, words) = meaning.split_once(" Possible values:").unwrap_or((meaning, ""));
            let words: Vec<_> = words.split(" - ").skip(1).map(|word| word.split(':').next().unwrap_or(word)).collect();
            let range = said("possible values").unwrap_or_else(|| words.join(", "));
            Setting {
                property: None,
                variable: said("env").map(|name| name.trim_end_matches('=').to_owned()).expect("every setting is a variable"),
                default: said("default"),
                is_required: false,
                unit: Unit::of(&flag),
                meaning: meaning.trim().to_owned(),
                range,
                flag,
            }
            .checked(prefix)
        })
    }
}

impl Setting {
    /// The page says by which rule a variable is named; so it has to be true.
    fn checked(self, prefix: &str) -> Self {
        let said_twice = self.flag.strip_prefix("producer-").filter(|_| prefix.ends_with("_PRODUCER_"));
        let flag = said_twice.unwrap_or(&self.flag);
        assert_eq!(self.variable, format!("{prefix}{}", flag.replace('-', "_").to_uppercase()), "--{}", self.flag);
        self
    }

    fn row(&self) -> String {
        let property = self.property.as_ref().map(|name| format!("`{name}`<br>")).unwrap_or_default();
        let default = match self.default.as_deref() {
            None | Some("") if self.is_required => "has to be said".to_owned(),
            None | Some("") => "none".to_owned(),
            Some(value) => format!("`{value}`{}", self.unit.in_words(value)),
        };
        let (flag, range, unit, meaning) = (&self.flag, &self.range, self.unit.name(), self.meaning.trim_end_matches('.'));
        format!("| {property}`--{flag}` | {default} | {range} | {unit} | {} |\n", meaning.replace('|', "\\|"))
    }
}

impl Unit {
    fn of(flag: &str) -> Self {
        match flag.rsplit('-').next() {
            Some("ms") => Self::Milliseconds,
            Some("bytes" | "size" | "memory") => Self::Bytes,
            _ => Self::None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "milliseconds",
            Self::Bytes => "bytes",
            Self::None => "",
        }
    }

    /// A long number once more, for people.
    fn in_words(self, value: &str) -> String {
        let Ok(number) = value.parse::<u64>() else { return String::new() };
        let scale: &[(u64, &str)] = match self {
            Self::Milliseconds => &[(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")],
            Self::Bytes => &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")],
            Self::None => &[],
        };
        let fitting = scale.iter().find(|(size, _)| number >= *size && number.is_multiple_of(*size));
        fitting.map(|(size, name)| format!(" ({} {name})", number / size)).unwrap_or_default()
    }
}

/// What a help text means, and what it says in brackets.
fn tags(help: &str) -> (&str, impl Fn(&str) -> Option<String>) {
    let (meaning, tags) = help.split_once(" [").unwrap_or((help, ""));
    let said = move |name: &str| {
        let found = tags.split(" [").find_map(|tag| tag.strip_prefix(name)?.strip_prefix(": "))?;
        Some(found.split(']').next().unwrap_or(found).to_owned())
    };
    (meaning.trim(), said)
}

/// The flags of a `--help` in its long form, each with all that stands below it, on one line.
fn flags(help: &str) -> Vec<(String, String)> {
    let mut flags: Vec<(String, String)> = Vec::new();
    for line in help.lines() {
        let first = line.split_whitespace().find_map(|word| word.strip_prefix("--"));
        match (first, flags.last_mut()) {
            (Some(flag), _)
                if line.starts_with("  ")
                    && line.trim_start().starts_with('-')
                    && line.find("--") < Some(10)
                    && !line.trim_start().starts_with("- ") =>
            {
                flags.push((flag.to_owned(), String::new()));
            }
            (_, Some((_, text))) => {
                for word in line.split_whitespace() {
                    text.push(' ');
                    text.push_str(word);
                }
            }
            _ => {}
        }
    }
    flags
}

fn bare() -> Command {
    Command::new("settings").no_binary_name(true)
}

const HEAD: &str = "| setting | default | range | unit | meaning |\n|---|---|---|---|---|\n";

const BEGINNING: &str = "\
<!-- Made from the code. Write it anew by: WRITE_DOCS=1 cargo test -p oncelog-docs -->

# Configuration

Every setting is a flag and an environment variable: `--hold-ms` of broker-svc is `ONCELOG_BROKER_HOLD_MS`, `--linger-ms` of
producer-svc is `ONCELOG_PRODUCER_LINGER_MS`. producer-svc also reads a properties file as Kafka's producers have it, under the names
that stand first in its table, if `--producer-properties` (`ONCELOG_PRODUCER_PROPERTIES`) names one. A flag comes before a variable,
before the file, before the default.

What is out of its range stops the start, and so do settings that contradict each other: exit status 2, and a message that names the
setting, its value, what is allowed and, of producer-svc, where it was said. Nothing is repaired silently.

This page is made from the code. The ranges are what the parsers take, found by asking them.
";

const BROKER_CONFLICTS: &str = "\
These contradict each other:

- `--max-message-bytes` above half of `--segment-bytes`;
- `--max-request-bytes` less than 65,536 bytes above `--max-message-bytes`;
- `--queued-max-request-bytes` below `--max-request-bytes`;
- `--default-partitions` above `--max-partitions`;
- `--tls-cert` without `--tls-key`, or the reverse; `--tls-client-ca` without `--tls-cert`;
- `--permissions-file` without `--tls-client-ca` or `--tokens-file`.
";

const PRODUCER_CONFLICTS: &str = "\
These contradict each other:

- `enable.idempotence=true` with `acks` other than all (or -1), with `retries=0`, or with `max.in.flight.requests.per.connection` above 5;
- `delivery.timeout.ms` below `linger.ms` and `request.timeout.ms` together;
- `batch.size` above `max.request.size`, or that above `buffer.memory`;
- `retry.backoff.ms` above `retry.backoff.max.ms`;
- `--tls-cert` without `--tls-key`, or the reverse; `--tls-client-ca` without `--tls-cert`;
- `--permissions-file` without `--tls-client-ca` or `--tokens-file`;
- `broker.tls.cert` without `broker.tls.key`, or the reverse; `broker.tls.ca` or `broker.tls.cert` with a broker whose address does not
  begin with `https://`.

Settings of Kafka's producers that mean nothing here are ignored in the file, each with a warning: IGNORED; those that end with a
dot stand for all that begin so. `transactional.id`, a `security.protocol` other than `PLAINTEXT`, and a name that Kafka does not know
either stop the start. [Key by key](migrating-from-kafka.md).
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_what_the_parser_takes() {
        let service = Service { name: "none", prefix: "", command: broker_svc::Config::augment_args(bare()) };
        assert_eq!(service.bounds("hold-ms", Some(200)), "0 to 10000");
        assert_eq!(service.bounds("segment-bytes", Some(256 << 20)), "1048576 to 4294967296, in steps of 4096");
        assert_eq!(service.bounds("retention-bytes", None), "from 0");
        assert_eq!(service.bounds("retention-ms", Some(1)), "from -1");
    }

    #[test]
    fn a_help_text_is_read_flag_by_flag() {
        let help = "Options:\n      --log-format <F>\n          How it looks\n\n          Possible values:\n          - text: For people\n          \
                    - json: Lines\n          \n          [env: X_LOG_FORMAT=]\n          [default: text]\n\n  -h, --help\n          Print help\n";
        let flags = flags(help);
        assert_eq!(flags.iter().map(|(flag, _)| flag.as_str()).collect::<Vec<_>>(), ["log-format", "help"]);
        let (meaning, said) = tags(&flags[0].1);
        assert!(meaning.starts_with("How it looks Possible values: - text: For people"), "{meaning}");
        assert_eq!((said("default"), said("env")), (Some("text".to_owned()), Some("X_LOG_FORMAT=".to_owned())));
    }

    #[test]
    fn long_numbers_are_told_once_more() {
        assert_eq!(Unit::Bytes.in_words("268435456"), " (256 MiB)");
        assert_eq!(Unit::Milliseconds.in_words("604800000"), " (7 d)");
        assert_eq!(Unit::Bytes.in_words("1048588"), "");
        assert_eq!(Unit::None.in_words("4000000"), "");
    }
}
