//! The metrics as the documentation shows them, so that it can be checked against what there is.

use super::{Registry, Unit};

impl Registry {
    /// A table in Markdown, a line for each metric.
    pub fn table(&self) -> String {
        let mut table = "| metric | in Prometheus | kind | unit | by | what |\n|---|---|---|---|---|---|\n".to_owned();
        for family in &self.families {
            let (metric, source) = (family.metric, &family.source);
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let cells = [
                format!("`{}`", metric.name),
                format!("`{}`", source.name(metric)),
                source.kind().to_owned(),
                metric.unit.word().to_owned(),
                labels.join(", "),
                metric.help.to_owned(),
            ];
            table.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        table
    }
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Ratio => "ratio",
            Self::Count(thing) => thing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metric;

    #[test]
    fn each_metric_has_its_line() {
        static SENT: Metric = Metric::new("a.sent", Unit::Count("record"), "Sent.").by(&["outcome"]);
        static SIZE: Metric = Metric::new("a.log", Unit::Bytes, "Size.");
        let mut registry = Registry::default();
        registry.counters(&SENT, [("ok", 3)], Some);
        registry.gauge(&SIZE, || None);
        let lines = "| `a.sent` | `a_sent_total` | counter | record | `outcome` | Sent. |\n\
                     | `a.log` | `a_log_bytes` | gauge | bytes |  | Size. |\n";
        assert!(registry.table().ends_with(&format!("---|\n{lines}")), "{}", registry.table());
    }
}
