//! What a service tells of itself in numbers: one owner, and one definition for each metric.
//!
//! A [`Metric`] is a constant: name, unit, kind, help. The [`Registry`] of a service joins it with where its numbers are read
//! from, and tells them twice: as text for Prometheus ([`Registry::text`]) and, where an exporter is configured, by OTLP. What is
//! counted is counted once, by whoever it happens to, without a lock: nothing is added up here.
//!
//! | file | owns |
//! |---|---|
//! | `histogram` | how long and how large: buckets that many threads count into |
//! | `text` | Prometheus' text format, and the names in it |
//! | `otlp` | the same for OTLP |
//! | `table` | what the documentation shows of it |
//! | [`calls`] | the calls of a service, and those that it makes |

pub mod calls;
mod histogram;
mod otlp;
mod table;
mod text;

use std::{fmt, sync::Arc};

pub use histogram::Histogram;

/// What a metric is.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// OpenTelemetry's form: words with dots. Prometheus' is made of it by the usual rule.
    pub name: &'static str,
    /// What it counts or measures.
    pub unit: Unit,
    /// In a sentence.
    pub help: &'static str,
    /// What tells its series apart, as OpenTelemetry names attributes. The values are few, and all known beforehand.
    pub labels: &'static [&'static str],
}

/// What a number is of. Base units alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Time. A histogram counts nanoseconds and tells seconds; what is read is read in seconds.
    Seconds,
    /// Memory, disk, network.
    Bytes,
    /// A share of something. A histogram counts thousandths.
    Ratio,
    /// Things, named in the singular.
    Count(&'static str),
}

impl Metric {
    /// One series.
    pub const fn new(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self { name, unit, help, labels: &[] }
    }

    /// A series for each combination of these labels' values.
    #[must_use]
    pub const fn by(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }
}

/// All metrics of a service. Put together at its start, and never changed.
#[derive(Debug, Default)]
pub struct Registry {
    families: Vec<Family>,
}

/// A metric with where its numbers come from.
struct Family {
    metric: &'static Metric,
    source: Source,
}

enum Source {
    /// Grows for as long as the process lives.
    Counter(Vec<(Values, Read)>),
    /// Goes up and down.
    Gauge(Vec<(Values, Read)>),
    Histogram(Vec<(Values, Arc<Histogram>)>),
}

/// The values of a series' labels, in the order of its metric's. An empty one stands for none.
type Values = Vec<&'static str>;

/// Reads a number; none if it is not known yet.
type Read = Box<dyn Fn() -> Option<f64> + Send + Sync>;

impl Registry {
    /// Adds what only grows. `read` is asked whenever the metrics are told, from any thread; it must not block.
    ///
    /// # Panics
    /// The metric has labels, or is there already.
    pub fn counter(&mut self, metric: &'static Metric, read: impl Fn() -> Option<u64> + Send + Sync + 'static) {
        self.add(metric, Source::Counter(vec![(Vec::new(), whole(read))]));
    }

    /// The same with a series for each value of its one label; `read` is told which by the key beside it.
    ///
    /// # Panics
    /// The metric has not one label, or is there already.
    pub fn counters<K, R>(&mut self, metric: &'static Metric, series: impl IntoIterator<Item = (&'static str, K)>, read: R)
    where
        K: Copy + Send + Sync + 'static,
        R: Fn(K) -> Option<u64> + Clone + Send + Sync + 'static,
    {
        let series = series.into_iter().map(|(value, key)| {
            let read = read.clone();
            (vec![value], whole(move || read(key)))
        });
        self.add(metric, Source::Counter(series.collect()));
    }

    /// Adds what goes up and down.
    ///
    /// # Panics
    /// As [`Self::counter`].
    pub fn gauge(&mut self, metric: &'static Metric, read: impl Fn() -> Option<u64> + Send + Sync + 'static) {
        self.add(metric, Source::Gauge(vec![(Vec::new(), whole(read))]));
    }

    /// The same for a time in seconds, or a share.
    ///
    /// # Panics
    /// As [`Self::counter`].
    pub fn measured(&mut self, metric: &'static Metric, read: impl Fn() -> Option<f64> + Send + Sync + 'static) {
        self.add(metric, Source::Gauge(vec![(Vec::new(), Box::new(read))]));
    }

    /// Adds what never changes and is said in words: the gauge is 1, and its one label has the word as its `value`.
    ///
    /// # Panics
    /// As [`Self::counters`].
    pub fn info(&mut self, metric: &'static Metric, value: &'static str) {
        self.add(metric, Source::Gauge(vec![(vec![value], whole(|| Some(1)))]));
    }

    /// Adds a histogram.
    ///
    /// # Panics
    /// As [`Self::counter`].
    pub fn histogram(&mut self, metric: &'static Metric, histogram: &Arc<Histogram>) {
        self.add(metric, Source::Histogram(vec![(Vec::new(), Arc::clone(histogram))]));
    }

    /// The same with a series for each of `series`. One that has counted nothing is not told.
    ///
    /// # Panics
    /// As [`Self::counters`].
    pub fn histograms(&mut self, metric: &'static Metric, series: impl IntoIterator<Item = (Values, Arc<Histogram>)>) {
        self.add(metric, Source::Histogram(series.into_iter().collect()));
    }

    fn add(&mut self, metric: &'static Metric, source: Source) {
        assert!(self.families.iter().all(|family| family.metric.name != metric.name), "{} is there already", metric.name);
        let labelled = match &source {
            Source::Counter(series) | Source::Gauge(series) => {
                series.iter().all(|(values, _)| values.len() == metric.labels.len())
            }
            Source::Histogram(series) => series.iter().all(|(values, _)| values.len() == metric.labels.len()),
        };
        assert!(labelled, "{} has the labels {:?}", metric.name, metric.labels);
        self.families.push(Family { metric, source });
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Family").field(&self.metric.name).finish()
    }
}

fn whole(read: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Read {
    Box::new(move || read().map(|value| value as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    static SENT: Metric = Metric::new("a.sent", Unit::Count("record"), "Sent.").by(&["outcome"]);

    #[test]
    #[should_panic(expected = "a.sent is there already")]
    fn a_metric_has_one_source() {
        let mut registry = Registry::default();
        for _ in 0..2 {
            registry.counters(&SENT, [("ok", ())], |()| Some(1));
        }
    }

    #[test]
    #[should_panic(expected = "a.sent has the labels")]
    fn a_series_has_a_value_for_each_label() {
        Registry::default().counter(&SENT, || Some(1));
    }
}
