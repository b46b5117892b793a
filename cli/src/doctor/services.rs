//! A service: does it answer, does it call itself healthy, which version is it, and does its clock agree with this one.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use oncelog_chaos::process::get;
use tokio::time::timeout;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use super::finding::Finding;
use crate::{
    connect::{self, Secured},
    exit::Exit,
};

/// What was found of one service.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) findings: Vec<Finding>,
    /// Nobody answered at its address.
    pub(super) is_unreachable: bool,
}

/// Asks the `name` ("broker" or "producer") at `url`, and its admin port.
pub(super) async fn look(name: &'static str, url: &str, secured: &Secured, admin: SocketAddr) -> Looked {
    let health = match timeout(PATIENCE, connect::health(name, url, secured)).await {
        Ok(Ok(health)) => health,
        Ok(Err(error)) if Exit::of(&error) == Exit::Unreachable => return unreachable(name, error.to_string()),
        // What this command was told is wrong, or the service is there and the two do not trust each other.
        Ok(Err(error)) => {
            let advice =
                format!("mend what it names; --{name}, --tls-ca, --tls-cert and --token-file say where to go and what to show");
            let findings = vec![Finding::problem(name, format!("{error:#}"), advice)];
            return Looked { findings, is_unreachable: false };
        }
        Err(_) => return unreachable(name, format!("no {name} answers at {url} within {} s", PATIENCE.as_secs())),
    };
    let mut findings = vec![healthy(name, url, health).await];
    findings.extend(admin_port(name, admin).await);
    Looked { findings, is_unreachable: false }
}

fn unreachable(name: &'static str, what: String) -> Looked {
    let advice = format!("see that {name}-svc runs, and listens there; --offline asks no service");
    Looked { findings: vec![Finding::problem(name, what, advice)], is_unreachable: true }
}

async fn healthy(
    name: &'static str,
    url: &str,
    mut health: tonic_health::pb::health_client::HealthClient<oncelog_proto::Link>,
) -> Finding {
    let answer = timeout(PATIENCE, health.check(HealthCheckRequest { service: String::new() })).await;
    match answer {
        Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Finding::good(name, format!("serving at {url}")),
        Ok(Ok(_)) => {
            let advice = "it starts, drains, or has lost what it needs; its admin port and its log say which";
            Finding::problem(name, format!("it answers at {url}, and says that it does not serve"), advice)
        }
        Ok(Err(status)) => {
            let what = connect::failure(&format!("asking {url} for its health"), &status).to_string();
            Finding::problem(name, what, format!("is another service listening there? name the {name} with --{name}"))
        }
        Err(_) => {
            let what = format!("it accepts connections at {url}, and has not answered within {} s", PATIENCE.as_secs());
            Finding::problem(name, what, "it may be stopped or overloaded: see its log, and the load of its machine")
        }
    }
}

/// Readiness, version and clock, as the admin port tells them.
async fn admin_port(name: &'static str, admin: SocketAddr) -> Vec<Finding> {
    let ready = match get(admin, "/readyz").await {
        Ok(ready) => ready,
        Err(error) => {
            let advice =
                format!("nothing is lost by that but a look; name it with --{name}-admin, or set --admin-listen of the service");
            return vec![Finding::advice(name, format!("no admin port at {admin} ({error:#})"), advice)];
        }
    };
    let mut findings = Vec::new();
    let body = ready.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    if ready.starts_with("HTTP/1.1 200") {
        let version = get(admin, "/metrics").await.ok().and_then(|metrics| version(&metrics));
        let told = version.as_ref().map_or_else(String::new, |version| format!(", version {version}"));
        findings.push(judge_version(name, version.as_deref(), format!("ready{told}")));
    } else {
        findings.push(Finding::problem(
            name,
            format!("not ready: {body}"),
            "it says why; what it waits for has to be mended first",
        ));
    }
    if let Some(there) = date(&ready) {
        findings.push(judge_clock(name, there, now()));
    }
    findings
}

fn judge_version(name: &'static str, theirs: Option<&str>, what: String) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    match theirs {
        Some(theirs) if theirs != ours => {
            let advice =
                format!("this command is {ours}; they speak the same contract, but use the command of the service's version");
            Finding::advice(name, what, advice)
        }
        _ => Finding::good(name, what),
    }
}

/// From the label `version` of a metric `…build_info`.
fn version(metrics: &str) -> Option<String> {
    let line = metrics.lines().find(|line| !line.starts_with('#') && line.contains("build_info{"))?;
    Some(line.split_once("version=\"")?.1.split_once('"')?.0.to_owned())
}

/// The head `date` of an HTTP answer, to the second.
fn date(answer: &str) -> Option<SystemTime> {
    let heads = answer.split_once("\r\n\r\n")?.0;
    let mut heads = heads.lines().filter_map(|line| line.split_once(':'));
    let (_, date) = heads.find(|(name, _)| name.eq_ignore_ascii_case("date"))?;
    httpdate::parse_http_date(date.trim()).ok()
}

fn judge_clock(name: &'static str, there: SystemTime, here: SystemTime) -> Finding {
    let apart = here.duration_since(there).unwrap_or_else(|earlier| earlier.duration());
    if apart > CLOCKS_APART {
        let advice =
            "times of records will be those of the broker's clock; let a time service keep both (chrony, systemd-timesyncd)";
        return Finding::advice(name, format!("its clock and this one are {:.0} s apart", apart.as_secs_f64()), advice);
    }
    Finding::good(name, "its clock and this one agree, to the second")
}

#[expect(clippy::disallowed_methods, reason = "this is what looks at the clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

const PATIENCE: Duration = Duration::from_secs(5);
/// The head tells whole seconds, and the answer was on its way.
const CLOCKS_APART: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn the_clock_of_an_answer_is_compared_with_this_one() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nDate: Thu, 01 Jan 1970 00:01:00 GMT\r\n\r\n";
        let there = date(answer).expect("it has one");
        let level = |seconds| judge_clock("broker", there, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).level;
        assert_eq!([56, 57, 60, 63, 64].map(level), [Level::Advice, Level::Good, Level::Good, Level::Good, Level::Advice]);
        assert_eq!(date("HTTP/1.1 200 OK\r\n\r\ndate: Thu, 01 Jan 1970 00:01:00 GMT"), None);
    }

    #[test]
    fn a_version_is_found_in_the_metrics_if_they_tell_it() {
        let metrics = "# HELP oncelog_broker_build_info x\noncelog_broker_build_info{version=\"9.9.9\"} 1\n";
        let told = version(metrics);
        assert_eq!(told.as_deref(), Some("9.9.9"));
        assert_eq!(judge_version("broker", told.as_deref(), String::new()).level, Level::Advice);
        assert_eq!(version("oncelog_broker_producers 1\n"), None);
        assert_eq!(judge_version("broker", None, String::new()).level, Level::Good);
    }
}
