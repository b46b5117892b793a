//! The raw numbers, for those who want to reckon themselves.

use serde_json::{Map, Value, json};

use super::Report;
use crate::{
    load::Load,
    measured::Measured,
    session::{RowResult, Run},
};

pub(super) fn text(report: &Report) -> serde_json::Result<String> {
    let machine: Map<String, Value> = report.machine.0.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    serde_json::to_string_pretty(&json!({
        "began_unix_seconds": report.began,
        "quick": report.is_quick,
        "machine": machine,
        "peer_versions": report.versions,
        "peers_missing": report.missing,
        "binary_bytes": report.sizes.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "rows": report.rows.iter().map(row).collect::<Vec<_>>(),
    }))
}

fn row(row: &RowResult) -> Value {
    let entries: Vec<_> = row.entries.iter().map(|(name, durability)| json!({"name": name, "durability": durability})).collect();
    json!({
        "name": row.name,
        "about": row.about,
        "entries": entries,
        "runs": row.runs.iter().map(run).collect::<Vec<_>>(),
    })
}

fn run(run: &Run) -> Value {
    let mut value = json!({
        "entry": run.entry,
        "round": run.round,
        "load": load(&run.load),
        "others_cores": run.disturbance.others,
        "stolen_cores": run.disturbance.stolen,
        "attempts": run.attempts,
    });
    match &run.outcome {
        Ok(of) => value["measured"] = measured(of),
        Err(why) => value["failed"] = json!(why),
    }
    value
}

fn load(load: &Load) -> Value {
    json!({
        "record_bytes": load.record_bytes,
        "partitions": load.partitions,
        "records": load.records,
        "unacknowledged": load.unacknowledged,
        "records_per_second": load.rate,
    })
}

fn measured(of: &Measured) -> Value {
    let bytes = |processes: &[(String, u64)]| processes.iter().map(|(name, bytes)| (name.clone(), json!(bytes))).collect();
    let (idle, loaded): (Map<_, _>, Map<_, _>) = (bytes(&of.idle_bytes), bytes(&of.loaded_bytes));
    let cpu: Map<_, _> = of.server_cpu_seconds.iter().map(|(name, seconds)| (name.clone(), json!(seconds))).collect();
    json!({
        "records": of.records,
        "payload_bytes": of.payload_bytes,
        "seconds": of.seconds,
        "client_cpu_seconds": of.client_cpu_seconds,
        "server_cpu_seconds": cpu,
        "idle_bytes": idle,
        "loaded_bytes": loaded,
        "disk_bytes": of.disk_bytes,
        "latency_us": of.latency_us.map(|l| json!({"p50": l.p50, "p90": l.p90, "p99": l.p99, "p99.9": l.p99_9, "max": l.max})),
        "verified": of.verified,
    })
}
