//! Arguments of the verbs that read captures.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Path of the configuration file.
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// The captures: pcap or pcapng, also compressed by gzip.
    #[arg(required = true, value_name = "CAPTURE")]
    pub captures: Vec<PathBuf>,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Draw the messages in the window of each limit to this file, as SVG.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// Arguments of `learn`.
#[derive(Debug, Args)]
pub struct LearnArgs {
    /// Captures: pcap or pcapng, also compressed by gzip. Without any, the peaks are those of what is loaded.
    #[arg(value_name = "CAPTURE")]
    pub captures: Vec<PathBuf>,
    /// Path of a configuration with the sessions. Required without captures.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The proposal is the highest peak, times this number: from 1 to 100.
    #[arg(long, value_name = "NUMBER", default_value_t = 2.0, value_parser = factor)]
    pub factor: f64,
    /// Print JSON instead of a configuration.
    #[arg(long)]
    pub json: bool,
}

/// Parses a factor. Below 1 a proposal would trip on the days that it was learnt from.
fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "it is not a number: write a number like 2".to_owned())?;
    match factor {
        1.0..=100.0 => Ok(factor),
        _ => Err("it is out of range: write a number from 1 to 100".to_owned()),
    }
}
