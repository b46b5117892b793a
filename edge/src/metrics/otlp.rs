//! The same metrics for OTLP: an instrument of OpenTelemetry for each definition.

use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};

use super::{Family, Metric, Registry, Source, Unit};

impl Registry {
    /// Tells the metrics to `meter` from now on, for as long as its provider lives.
    pub fn export(self: &Arc<Self>, meter: &Meter) {
        for (index, family) in self.families.iter().enumerate() {
            let (metric, registry) = (family.metric, Arc::clone(self));
            let (name, help, unit) = (metric.name, metric.help, metric.unit.ucum());
            let tell = move |observer: &dyn AsyncInstrument<f64>| {
                registry.families[index].observe(|value, labels| observer.observe(value, labels));
            };
            // An instrument lives as long as its provider does; nothing is to be kept of it here.
            match &family.source {
                Source::Counter(_) => {
                    let _ = meter.f64_observable_counter(name).with_description(help).with_unit(unit).with_callback(tell).build();
                }
                Source::Gauge(_) => {
                    let _ = meter.f64_observable_gauge(name).with_description(help).with_unit(unit).with_callback(tell).build();
                }
                Source::Histogram(series) => {
                    let Some((_, first)) = series.first() else { continue };
                    let per_whole = metric.unit.per_whole();
                    let bounds = first.bounds().iter().map(|&bound| bound as f64 / per_whole).collect();
                    let builder = meter.f64_histogram(name).with_description(help).with_unit(unit);
                    let instrument = builder.with_boundaries(bounds).build();
                    for (values, histogram) in series {
                        histogram.export(instrument.clone(), attributes(metric, values), per_whole);
                    }
                }
            }
        }
    }
}

impl Family {
    fn observe(&self, mut tell: impl FnMut(f64, &[KeyValue])) {
        let (Source::Counter(series) | Source::Gauge(series)) = &self.source else { return };
        let known = series.iter().filter_map(|(values, read)| Some((values, read()?)));
        known.for_each(|(values, value)| tell(value, &attributes(self.metric, values)));
    }
}

fn attributes(metric: &Metric, values: &[&'static str]) -> Vec<KeyValue> {
    let said = metric.labels.iter().zip(values).filter(|(_, value)| !value.is_empty());
    said.map(|(label, value)| KeyValue::new(*label, *value)).collect()
}

impl Unit {
    /// As OpenTelemetry writes units.
    fn ucum(self) -> String {
        match self {
            Self::Seconds => "s".to_owned(),
            Self::Bytes => "By".to_owned(),
            Self::Ratio => "1".to_owned(),
            Self::Count(thing) => format!("{{{thing}}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::{
        InMemoryMetricExporter, PeriodicReader, SdkMeterProvider,
        data::{AggregatedMetrics, MetricData},
    };

    use super::*;
    use crate::metrics::Histogram;

    #[test]
    fn a_histogram_is_told_in_its_unit_with_the_same_bounds() {
        static SYNC: Metric = Metric::new("a.sync.duration", Unit::Seconds, "Synced.");
        let exporter = InMemoryMetricExporter::default();
        let provider = SdkMeterProvider::builder().with_reader(PeriodicReader::builder(exporter.clone()).build()).build();
        let (mut registry, sync) = (Registry::default(), Arc::new(Histogram::of_calls()));
        registry.histogram(&SYNC, &sync);
        Arc::new(registry).export(&provider.meter("test"));
        // 5 ms falls into the first bucket, 20 s behind the last.
        sync.record(5_000_000);
        sync.record(20_000_000_000);
        provider.force_flush().expect("collected");

        let told = exporter.get_finished_metrics().expect("whole");
        let metrics: Vec<_> = told.iter().flat_map(|told| told.scope_metrics()).flat_map(|scope| scope.metrics()).collect();
        let [metric] = &metrics[..] else { panic!("one metric, once: {metrics:?}") };
        assert_eq!((metric.name(), metric.unit(), metric.description()), ("a.sync.duration", "s", "Synced."));
        let AggregatedMetrics::F64(MetricData::Histogram(histogram)) = metric.data() else { panic!("{metric:?}") };
        let points: Vec<_> = histogram.data_points().collect();
        let [point] = &points[..] else { panic!("{points:?}") };
        assert_eq!((point.count(), point.sum()), (2, 20.005));
        let bounds: Vec<_> = point.bounds().collect();
        assert_eq!((bounds[0], bounds[bounds.len() - 1]), (0.005, 10.0));
        let counts: Vec<_> = point.bucket_counts().collect();
        assert_eq!((counts.len(), counts[0], counts[counts.len() - 1]), (bounds.len() + 1, 1, 1));
    }
}
