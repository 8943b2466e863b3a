//! Encodes the figures as text: OpenMetrics 1.0, or the Prometheus text format 0.0.4.

use std::fmt::{self, Write};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
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
    match format {
        Format::OpenMetrics => {
            let mut text = String::new();
            encode_registry(&mut text, &registry)?;
            encode_eof(&mut text)?;
            Ok(text)
        }
        Format::Classic => {
            let mut classic = Classic::default();
            encode_registry(&mut classic, &registry)?;
            Ok(classic.text)
        }
    }
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
        let mut sample = || match (labels.is_empty(), value) {
            (true, Value::Count(count)) if family.is_counter() => {
                metric.encode_counter::<NoLabelSet, _, f64>(&count, None)
            }
            (true, Value::Count(count)) => metric.encode_gauge(&count),
            (true, Value::Seconds(seconds)) => metric.encode_gauge(&seconds),
            (false, Value::Count(count)) if family.is_counter() => {
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)
            }
            (false, Value::Count(count)) => metric.encode_family(&labels)?.encode_gauge(&count),
            (false, Value::Seconds(seconds)) if family.is_counter() => {
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&seconds, None)
            }
            (false, Value::Seconds(seconds)) => metric.encode_family(&labels)?.encode_gauge(&seconds),
        };
        if done.is_ok() {
            done = sample();
        }
    });
    done
}

/// Converts OpenMetrics to Prometheus text, in which HELP and TYPE name a counter with its `_total`.
#[derive(Default)]
struct Classic {
    text: String,
    /// The comment line so far.
    comment: String,
}

impl Write for Classic {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let mut rest = part;
        while !rest.is_empty() {
            let at_start = self.comment.is_empty() && (self.text.is_empty() || self.text.ends_with('\n'));
            let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
            let (line, after) = rest.split_at(length);
            if at_start && line.starts_with('#') || !self.comment.is_empty() {
                self.comment.push_str(line);
            } else {
                self.text.push_str(line);
            }
            if self.comment.ends_with('\n') {
                let comment = std::mem::take(&mut self.comment);
                self.text.push_str(&rename(&comment).unwrap_or(comment));
            }
            rest = after;
        }
        Ok(())
    }
}

/// The comment with `_total` added, if it is about a counter.
fn rename(comment: &str) -> Option<String> {
    let mut words = comment.splitn(4, ' ');
    let (hash, keyword, name, rest) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let counter = FAMILIES.iter().find(|family| family.is_counter() && family.base() == name)?;
    Some(format!("{hash} {keyword} {} {rest}", counter.name))
}
