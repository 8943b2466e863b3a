//! Counts of messages by FIX framing.

#[path = "../feed/mod.rs"]
mod feed;
#[path = "../messages/mod.rs"]
mod messages;

mod blind;
mod inbound;
mod segmentation;
mod sequence;
mod streams;
#[path = "../messages/versions.rs"]
mod versions;
