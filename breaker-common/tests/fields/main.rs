//! The walk over the fields of a message.

#[path = "../messages/mod.rs"]
mod messages;

mod dictionary;
mod examples;
mod inspect;
mod reference;
mod segmentation;
mod streams;
