//! Encodes the figures as text: OpenMetrics 1.0, or the Prometheus text format 0.0.4.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::families::{FAMILIES, Family, Value};
use super::figures::Figures;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Classic,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that an Accept header prefers (RFC 9110, 12.5.1); the default is Prometheus text.
    pub fn accepted(accept: &str) -> Self {
        let weight_of = |media: &str| {
            let items = accept.split(',').map(|item| item.split(';').map(str::trim));
            let weights = items.filter_map(|mut parts| {
                let matches = parts.next()?.eq_ignore_ascii_case(media);
                let weight = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse::<f32>().ok());
                matches.then_some(weight.unwrap_or(1.0))
            });
            weights.fold(0.0, f32::max)
        };
        let open = weight_of("application/openmetrics-text");
        if open > 0.0 && open >= weight_of("text/plain") { Self::OpenMetrics } else { Self::Classic }
    }

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Encodes the figures.
pub fn text(figures: Figures, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(figures));
    let mut text = String::new();
    match format {
        Format::Classic => prometheus_text::encode(&mut text, &registry)?,
        Format::OpenMetrics => text::encode(&mut text, &registry)?,
    }
    Ok(text)
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        FAMILIES.iter().try_for_each(|family| encode(self, family, &mut encoder))
    }
}

fn encode(figures: &Figures, family: &Family, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let metric_type = if family.is_counter() { MetricType::Counter } else { MetricType::Gauge };
    let mut metric = encoder.encode_descriptor(family.base(), family.help, None, metric_type)?;
    let mut done = Ok(());
    (family.samples)(figures, &mut |values, value| {
        let labels: Vec<(&str, &str)> = family.labels.iter().copied().zip(values.iter().copied()).collect();
        let mut sample = || match value {
            Value::Count(count) if family.is_counter() => {
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)
            }
            Value::Count(count) => metric.encode_family(&labels)?.encode_gauge(&count),
            Value::Seconds(seconds) if family.is_counter() => {
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&seconds, None)
            }
            Value::Seconds(seconds) => metric.encode_family(&labels)?.encode_gauge(&seconds),
        };
        if done.is_ok() {
            done = sample();
        }
    });
    done
}
