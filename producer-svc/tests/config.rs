//! Settings: where they come from, which values they take, which contradict each other, and how that is told.

use std::{collections::HashMap, fs, process::Command, time::Duration};

use clap::Parser;
use oncelog_proto::{Compression, v1::Acks};
use producer_svc::{Config, ConfigError, config::Settings};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

fn flags(flags: &[&str]) -> Config {
    Cli::try_parse_from(std::iter::once("producer-svc").chain(flags.iter().copied())).expect("flags parse").config
}

fn resolve(flag: &[&str], env: &[(&str, &str)], properties: &str) -> Result<Settings, ConfigError> {
    let env: HashMap<_, _> = env.iter().copied().collect();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("producer.properties");
    fs::write(&path, properties).expect("written");
    let config = flags(flag).with("producer.properties", path.display());
    config.resolve(&|name| env.get(name).map(ToString::to_string))
}

fn good(flags: &[&str], env: &[(&str, &str)], properties: &str) -> Settings {
    resolve(flags, env, properties).unwrap_or_else(|e| panic!("{e}"))
}

fn problems(flags: &[&str], env: &[(&str, &str)], properties: &str) -> Vec<String> {
    resolve(flags, env, properties).expect_err("a contradiction").problems
}

fn effective(settings: &Settings, name: &str) -> (String, String) {
    let found = settings.effective.iter().find(|setting| setting.name == name).expect("every setting is told");
    (found.value.clone(), found.source.clone())
}

#[test]
fn without_a_word_the_defaults_hold() {
    let settings = Config::default().resolve(&|_| None).expect("the defaults do not contradict each other");
    assert_eq!(settings.listen.to_string(), "127.0.0.1:50052");
    assert_eq!(settings.admin_listen.map(|addr| addr.port()), Some(9465));
    assert_eq!(settings.broker, "http://127.0.0.1:50051");
    assert!(settings.idempotence);
    assert_eq!(settings.acks, Acks::All);
    assert_eq!((settings.retries, settings.max_in_flight), (2_147_483_647, 5));
    assert_eq!(settings.delivery_timeout, Duration::from_secs(120));
    assert_eq!(settings.request_timeout, Duration::from_secs(30));
    assert_eq!(settings.linger, Duration::from_millis(5));
    assert_eq!((settings.batch_size, settings.buffer_memory, settings.max_request_size), (32_768, 33_554_432, 1_048_576));
    assert_eq!(settings.compression, Compression::Snappy);
    assert_eq!(settings.max_block, Duration::from_secs(60));
    assert_eq!((settings.retry_backoff, settings.retry_backoff_max), (Duration::from_millis(100), Duration::from_secs(1)));
    assert_eq!(settings.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(settings.max_connections, 1_000);
    assert!(settings.effective.iter().all(|setting| setting.source == "default"));
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let env = [("ONCELOG_PRODUCER_LINGER_MS", "2")];
    let file = "# mine\nlinger.ms=3";
    let settings = good(&["--linger-ms", "1"], &env, file);
    assert_eq!(effective(&settings, "linger.ms"), ("1".to_owned(), "flag --linger-ms".to_owned()));
    let settings = good(&[], &env, file);
    assert_eq!(settings.linger, Duration::from_millis(2));
    assert_eq!(effective(&settings, "linger.ms").1, "environment ONCELOG_PRODUCER_LINGER_MS");
    let settings = good(&[], &[], file);
    assert_eq!(settings.linger, Duration::from_millis(3));
    assert_eq!(effective(&settings, "linger.ms").1, "producer.properties line 2");
    assert_eq!(good(&[], &[], "").linger, Duration::from_millis(5));
}

#[test]
fn every_setting_of_a_kafka_user_is_taken_from_the_file() {
    let file = "bootstrap.servers = broker-1:9092, broker-2:9092\nenable.idempotence: FALSE\nacks 1\nretries=0\n\
                max.in.flight.requests.per.connection=7\ndelivery.timeout.ms=70\nrequest.timeout.ms=60\nlinger.ms=10\n\
                batch.size=0\ncompression.type=zstd\nbuffer.memory=2000\nmax.block.ms=0\nmax.request.size=2000\n\
                retry.backoff.ms=3\nretry.backoff.max.ms=3\nkey.serializer=x\nclient.id=me\nssl.keystore.type=JKS\n\
                security.protocol=PLAINTEXT\n";
    let settings = good(&[], &[], file);
    assert_eq!(settings.broker, "http://broker-1:9092");
    assert!(!settings.idempotence);
    assert_eq!((settings.acks, settings.retries, settings.max_in_flight), (Acks::One, 0, 7));
    assert_eq!((settings.batch_size, settings.buffer_memory), (0, 2000));
    assert_eq!(settings.compression, Compression::Zstd);
    assert_eq!(settings.max_block, Duration::ZERO);
    let warned = |what: &str| settings.warnings.iter().filter(|warning| warning.contains(what)).count();
    for what in [
        "key.serializer has no meaning",
        "client.id has no meaning",
        "ssl.keystore.type",
        "security.protocol",
        "only broker-1:9092",
    ] {
        assert_eq!(warned(what), 1, "{what}: {:?}", settings.warnings);
    }
    assert_eq!(settings.warnings.len(), 5, "{:?}", settings.warnings);
}

#[test]
fn the_file_is_named_by_a_flag_or_a_variable_and_may_not_be_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("p").display().to_string();
    let named = |name: &str| (name == "ONCELOG_PRODUCER_PROPERTIES").then(|| path.clone());
    let error = Config::default().resolve(&named).expect_err("there is no such file");
    assert!(error.to_string().contains(&path), "{error}");
    fs::write(&path, "linger.ms=7").expect("written");
    assert_eq!(Config::default().resolve(&named).expect("there is one").linger, Duration::from_millis(7));
    fs::write(&path, [0xff, 0xfe]).expect("written");
    assert!(Config::default().resolve(&named).is_err(), "no text");
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("written");
    assert!(Config::default().resolve(&named).is_err(), "too large");
    fs::write(&path, vec![b'#'; 1 << 20]).expect("written");
    assert!(Config::default().resolve(&named).is_ok(), "just not too large");
}

#[test]
fn unknown_settings_and_transactions_stop_the_start_and_are_told_all_at_once() {
    let file =
        "transactional.id=tx\nlinger.msec=5\nproducer.properties=x\nbroker=b:1\nsecurity.protocol=SASL_SSL\nkey.serialiser=x\n";
    let problems = problems(&["--acks", "2"], &[("ONCELOG_PRODUCER_RETRIES", "many")], file);
    assert_eq!(problems.len(), 8, "{problems:#?}");
    let told = |part: &str| assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:#?}");
    told("line 1: transactional.id is tx");
    told("line 2: linger.msec is no setting");
    told("line 3: producer.properties is no setting");
    told("line 4: broker is called bootstrap.servers");
    told("line 5: security.protocol is SASL_SSL");
    told("line 6: key.serialiser is no setting");
    told("acks is \"2\" (flag --acks); allowed: all, -1, 1, 0");
    told("retries is \"many\" (environment ONCELOG_PRODUCER_RETRIES); allowed: a whole number from 0 to 2147483647");
    assert_eq!(Config::default().with("linger", 1).resolve(&|_| None).expect_err("unknown").problems, ["linger is no setting"]);
}

#[test]
fn values_are_taken_up_to_their_limits_and_no_further() {
    let int = "2147483647";
    let above = "2147483648";
    // Setting, least, greatest, and what else has to be said so that these do not contradict another one.
    let table = [
        ("retries", "1", int, vec![]),
        ("max-in-flight-requests-per-connection", "1", int, vec!["--enable-idempotence", "false"]),
        ("delivery-timeout-ms", "1", int, vec!["--linger-ms", "0", "--request-timeout-ms", "1"]),
        ("request-timeout-ms", "1", int, vec!["--linger-ms", "0", "--delivery-timeout-ms", int]),
        ("linger-ms", "0", "2147483646", vec!["--request-timeout-ms", "1", "--delivery-timeout-ms", int]),
        ("batch-size", "0", "67108864", vec!["--max-request-size", "67108864", "--buffer-memory", "67108864"]),
        ("buffer-memory", "1", "1099511627776", vec!["--max-request-size", "1", "--batch-size", "1"]),
        ("max-block-ms", "0", int, vec![]),
        ("max-request-size", "1", "67108864", vec!["--batch-size", "0", "--buffer-memory", "67108864"]),
        ("retry-backoff-ms", "1", int, vec!["--retry-backoff-max-ms", int]),
        ("retry-backoff-max-ms", "1", int, vec!["--retry-backoff-ms", "1"]),
        ("shutdown-timeout-ms", "0", int, vec![]),
        ("max-connections", "1", "1000000", vec![]),
    ];
    for (name, least, greatest, others) in table {
        let flag = format!("--{name}");
        let with = |value: &str| {
            let said = [&[flag.as_str(), value], others.as_slice()].concat();
            resolve(&said, &[], "").map_err(|e| e.problems)
        };
        for allowed in [least, greatest] {
            assert!(with(allowed).is_ok(), "{name}={allowed}: {:?}", with(allowed));
        }
        for refused in ["-1", "", "1.5", "1e3", "0x1", "99999999999999999999"] {
            assert!(with(refused).is_err(), "{name}={refused}");
        }
        if greatest == int {
            assert!(with(above).is_err(), "{name}={above}");
        }
    }
    for (flag, refused) in [
        ("--request-timeout-ms", "0"),
        ("--max-in-flight-requests-per-connection", "0"),
        ("--buffer-memory", "0"),
        ("--max-request-size", "0"),
        ("--max-connections", "0"),
        ("--max-connections", "1000001"),
        ("--batch-size", "67108865"),
        ("--compression-type", "gzip"),
        ("--enable-idempotence", "yes"),
        ("--acks", "-2"),
        ("--listen", "localhost"),
        ("--admin-listen", "none"),
        ("--broker", "ftp://broker:50051"),
    ] {
        let problems = problems(&[flag, refused], &[], "");
        assert!(problems[0].contains(&format!("(flag {flag}); allowed: ")), "{problems:?}");
    }
}

#[test]
fn words_are_read_as_kafka_reads_them() {
    for (word, acks) in [("all", Acks::All), ("ALL", Acks::All), ("-1", Acks::All)] {
        assert_eq!(good(&["--acks", word], &[], "").acks, acks);
    }
    for (word, acks) in [("0", Acks::Zero), ("1", Acks::One)] {
        assert_eq!(good(&["--enable-idempotence", "false", "--acks", word], &[], "").acks, acks);
    }
    let compressions =
        [("none", Compression::None), ("snappy", Compression::Snappy), ("lz4", Compression::Lz4), ("zstd", Compression::Zstd)];
    for (word, compression) in compressions {
        assert_eq!(good(&["--compression-type", word], &[], "").compression, compression);
    }
    assert_eq!(good(&["--linger-ms", " 7 "], &[], "").linger, Duration::from_millis(7));
    assert_eq!(good(&["--admin-listen", "off"], &[], "").admin_listen, None);
}

#[test]
fn contradictions_name_both_settings_their_sources_and_what_is_allowed() {
    // What contradicts, all parts of the message, and the nearest configuration that does not.
    let table: [(&[&str], &[&str], &[&str]); 7] = [
        (
            &["--acks", "1"],
            &["enable.idempotence is \"true\" (default)", "acks is \"1\" (flag --acks)", "acks=all"],
            &["--acks", "all"],
        ),
        (
            &["--retries", "0"],
            &["enable.idempotence is \"true\" (default)", "retries is \"0\" (flag --retries)", "retries from 1"],
            &["--retries", "1"],
        ),
        (
            &["--max-in-flight-requests-per-connection", "6"],
            &[
                "enable.idempotence is \"true\" (default)",
                "max.in.flight.requests.per.connection is \"6\" (flag",
                "allows 1 to 5",
            ],
            &["--max-in-flight-requests-per-connection", "5"],
        ),
        (
            &["--delivery-timeout-ms", "30004"],
            &[
                "delivery.timeout.ms is \"30004\" (flag --delivery-timeout-ms)",
                "linger.ms is \"5\" (default)",
                "request.timeout.ms is \"30000\" (default)",
                "which is 30005",
            ],
            &["--delivery-timeout-ms", "30005"],
        ),
        (
            &["--batch-size", "1048577"],
            &["batch.size is \"1048577\" (flag --batch-size)", "max.request.size is \"1048576\" (default)", "at most"],
            &["--batch-size", "1048576"],
        ),
        (
            &["--buffer-memory", "1048575"],
            &["max.request.size is \"1048576\" (default)", "buffer.memory is \"1048575\" (flag --buffer-memory)", "at most"],
            &["--buffer-memory", "1048576"],
        ),
        (
            &["--retry-backoff-ms", "1001"],
            &["retry.backoff.ms is \"1001\" (flag --retry-backoff-ms)", "retry.backoff.max.ms is \"1000\" (default)", "at most"],
            &["--retry-backoff-ms", "1000"],
        ),
    ];
    for (wrong, parts, right) in table {
        let problems = problems(wrong, &[], "");
        assert_eq!(problems.len(), 1, "{wrong:?}: {problems:#?}");
        for part in parts {
            assert!(problems[0].contains(part), "{part}: {problems:#?}");
        }
        good(right, &[], "");
    }
    // Without idempotence the first three are nobody's business.
    let off = "enable.idempotence=false";
    let settings = good(&["--acks", "0", "--retries", "0", "--max-in-flight-requests-per-connection", "6"], &[], off);
    assert_eq!((settings.acks, settings.retries, settings.max_in_flight), (Acks::Zero, 0, 6));
}

#[test]
fn all_contradictions_are_told_at_once_with_their_sources() {
    let env = [("ONCELOG_PRODUCER_RETRIES", "0"), ("ONCELOG_PRODUCER_ENABLE_IDEMPOTENCE", "true")];
    let problems = problems(&["--max-in-flight-requests-per-connection", "9"], &env, "acks=0\n\nlinger.ms=2000000\n");
    assert_eq!(problems.len(), 4, "{problems:#?}");
    assert!(problems[0].contains("(environment ONCELOG_PRODUCER_ENABLE_IDEMPOTENCE)"), "{problems:#?}");
    assert!(problems[0].contains("(producer.properties line 1)"), "{problems:#?}");
    assert!(problems[1].contains("(environment ONCELOG_PRODUCER_RETRIES)"), "{problems:#?}");
    assert!(problems[3].contains("(producer.properties line 3)"), "{problems:#?}");
}

#[test]
fn a_contradiction_ends_the_process_with_code_2_before_it_listens() {
    let output = Command::new(env!("CARGO_BIN_EXE_producer-svc"))
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "off", "--acks", "1"])
        .env("ONCELOG_PRODUCER_RETRIES", "0")
        .output()
        .expect("starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    for part in ["2 reasons", "acks is \"1\" (flag --acks)", "retries is \"0\" (environment ONCELOG_PRODUCER_RETRIES)"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    let unknown = Command::new(env!("CARGO_BIN_EXE_producer-svc")).args(["--linger", "1"]).output().expect("starts");
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn help_names_flag_variable_default_and_allowed_values() {
    let help = Command::new(env!("CARGO_BIN_EXE_producer-svc")).arg("--help").output().expect("starts");
    let help = String::from_utf8_lossy(&help.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["--linger-ms <VALUE>", "[env: ONCELOG_PRODUCER_LINGER_MS]", "[default: 5]", "[allowed: none, snappy, lz4, zstd]"]
    {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn files_of_security_that_need_each_other_are_named() {
    let settings = good(
        &[
            "--broker=https://b:1",
            "--broker-tls-ca=ca",
            "--tls-cert=c",
            "--tls-key=k",
            "--reflection=false",
            "--drain-wait-ms=5000",
        ],
        &[("ONCELOG_PRODUCER_BROKER_TOKEN_FILE", "token")],
        "tokens.file=tokens\npermissions.file=permissions\nconnection.max.age.ms=0\n",
    );
    assert_eq!(settings.security.tokens.as_deref(), Some(std::path::Path::new("tokens")));
    assert_eq!(settings.broker_security.token.as_deref(), Some(std::path::Path::new("token")));
    assert!(!settings.reflection && settings.connection_max_age.is_zero());
    assert_eq!(settings.drain_wait, Duration::from_secs(5));
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    for (flags, said) in [
        (&["--broker=http://b:1", "--broker-token-file=t", "--tokens-file=t"][..], "show a token in plaintext"),
        (&["--broker=http://localhost:1", "--broker-token-file=t"], "writes in its name"),
        (&["--broker=https://b:1", "--broker-tls-cert=c", "--broker-tls-key=k"], "writes in its name"),
    ] {
        let warnings = good(flags, &[], "").warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(said), "{flags:?}: {warnings:?}");
    }
    for (flags, said) in [
        (&["--tls-cert=c"][..], "tls.cert is given without tls.key"),
        (&["--tls-client-ca=c"], "tls.client.ca is given without tls.cert"),
        (&["--permissions-file=p"], "permissions.file is given without tls.client.ca and tokens.file"),
        (&["--broker-tls-ca=c"], "https://"),
        (&["--broker=https://b:1", "--broker-tls-cert=c"], "belong together"),
    ] {
        let problems = problems(flags, &[], "");
        assert!(problems.len() == 1 && problems[0].contains(said), "{flags:?}: {problems:?}");
    }
}
