//! Prometheus' text format. Names are made of OpenTelemetry's by the rule that collectors follow, so that a metric has one name
//! in Prometheus however it got there.

use std::fmt::{self, Write};

use super::{Metric, Registry, Source, Unit};

impl Registry {
    /// Everything that is known now, in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for family in &self.families {
            // Writing to a string does not fail.
            let _ = family.source.write(family.metric, &mut text);
        }
        text
    }
}

impl Source {
    fn write(&self, metric: &Metric, text: &mut String) -> fmt::Result {
        let (name, kind) = (self.name(metric), self.kind());
        let mut is_told = false;
        let mut head = |text: &mut String| match is_told {
            true => Ok(()),
            false => {
                is_told = true;
                write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n", metric.help)
            }
        };
        match self {
            Self::Counter(series) | Self::Gauge(series) => {
                for (values, read) in series {
                    let Some(value) = read() else { continue };
                    head(text)?;
                    writeln!(text, "{name}{} {value}", labels(metric, values, None))?;
                }
            }
            Self::Histogram(series) => {
                for (values, histogram) in series {
                    let counted = histogram.counted();
                    let [.., total] = counted.cumulative[..] else { continue };
                    if total == 0 && !values.is_empty() {
                        continue;
                    }
                    head(text)?;
                    let scale = metric.unit.per_whole();
                    let bounds = histogram.bounds().iter().map(|&bound| (bound as f64 / scale).to_string());
                    for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&counted.cumulative) {
                        writeln!(text, "{name}_bucket{} {count}", labels(metric, values, Some(&bound)))?;
                    }
                    let labels = labels(metric, values, None);
                    writeln!(text, "{name}_sum{labels} {}\n{name}_count{labels} {total}", counted.sum as f64 / scale)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }

    pub(super) fn name(&self, metric: &Metric) -> String {
        let mut name = metric.name.replace('.', "_");
        let unit = match metric.unit {
            Unit::Seconds => "_seconds",
            Unit::Bytes => "_bytes",
            Unit::Ratio => "_ratio",
            Unit::Count(_) => "",
        };
        if !name.ends_with(unit) {
            name.push_str(unit);
        }
        if matches!(self, Self::Counter(_)) {
            name.push_str("_total");
        }
        name
    }
}

impl Unit {
    /// How many whole numbers of a histogram make one.
    pub(super) fn per_whole(self) -> f64 {
        match self {
            Self::Seconds => 1e9,
            Self::Ratio => 1e3,
            Self::Bytes | Self::Count(_) => 1.0,
        }
    }
}

/// In braces, or nothing; a label without a value is left out. No value needs to be escaped: all of them are constants of this
/// project.
fn labels(metric: &Metric, values: &[&'static str], bound: Option<&str>) -> String {
    let names = metric.labels.iter().map(|label| label.replace('.', "_"));
    let own = names.zip(values.iter().copied());
    let all: Vec<_> = own
        .chain(bound.map(|bound| ("le".to_owned(), bound)))
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::Histogram;

    #[test]
    fn a_metric_is_told_as_prometheus_reads_it() {
        static SENT: Metric = Metric::new("a.sent", Unit::Count("record"), "Sent.").by(&["some.outcome"]);
        static SIZE: Metric = Metric::new("a.log.bytes", Unit::Bytes, "Size.");
        static UNKNOWN: Metric = Metric::new("a.start", Unit::Seconds, "Not told.");
        static SYNC: Metric = Metric::new("a.sync.duration", Unit::Seconds, "Synced.");
        static BUILD: Metric = Metric::new("a.build_info", Unit::Count("build"), "Built.").by(&["version"]);
        let mut registry = Registry::default();
        registry.counters(&SENT, [("ok", 3), ("not", 0)], Some);
        registry.gauge(&SIZE, || Some(4 << 20));
        registry.measured(&UNKNOWN, || None);
        registry.info(&BUILD, "1.2.3");
        let sync = Arc::new(Histogram::of_calls());
        sync.record(5_000_000);
        sync.record(20_000_000_000);
        registry.histogram(&SYNC, &sync);
        let text = registry.text();
        let start = "# HELP a_sent_total Sent.\n# TYPE a_sent_total counter\n\
                     a_sent_total{some_outcome=\"ok\"} 3\na_sent_total{some_outcome=\"not\"} 0\n\
                     # HELP a_log_bytes Size.\n# TYPE a_log_bytes gauge\na_log_bytes 4194304\n\
                     # HELP a_build_info Built.\n# TYPE a_build_info gauge\na_build_info{version=\"1.2.3\"} 1\n\
                     # HELP a_sync_duration_seconds Synced.\n# TYPE a_sync_duration_seconds histogram\n\
                     a_sync_duration_seconds_bucket{le=\"0.005\"} 1\n";
        assert!(text.starts_with(start), "{text}");
        let end = "a_sync_duration_seconds_bucket{le=\"10\"} 1\na_sync_duration_seconds_bucket{le=\"+Inf\"} 2\n\
                   a_sync_duration_seconds_sum 20.005\na_sync_duration_seconds_count 2\n";
        assert!(text.ends_with(end), "{text}");
    }
}
