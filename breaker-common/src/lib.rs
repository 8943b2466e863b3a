//! The rules that breaker's kernel program and its user space share, and all logic that needs neither.
//!
//! The same code runs in the kernel (built for `bpfel-unknown-none`), in user space, and in tests without
//! root. The crate needs no standard library and has no unsafe code.
//!
//! The modules point one way: [`abi`] depends on no other module, and [`decide`] is at the top.
//!
//! # Framing
//! Each FIX message starts with its length, so the program counts messages without reading their bodies.
//! [`fix::header`] parses a header from the first 32 bytes of a message:
//! ```
//! use breaker_common::class::default_class;
//! use breaker_common::fix::{self, Chunk, Header};
//! use breaker_common::message::Class;
//!
//! let bytes = b"8=FIX.4.4\x019=148\x0135=D\x0149=FIRM\x0156";
//! let mut chunk: Chunk = [0; 4];
//! for (word, bytes) in chunk.iter_mut().zip(bytes.chunks(8)) {
//!     let mut padded = [0; 8];
//!     padded[..bytes.len()].copy_from_slice(bytes);
//!     *word = u64::from_le_bytes(padded);
//! }
//! let Header::Message { msg_type, length, .. } = fix::header(&chunk, bytes.len() as u32) else {
//!     panic!("a whole header")
//! };
//! // 16 bytes up to the body, the body, and 7 bytes of `10=nnn|`.
//! assert_eq!((default_class(msg_type), length), (Class::Order, 16 + 148 + 7));
//! // Fewer bytes may be the start of a message. The next segment continues it.
//! assert_eq!(fix::header(&[chunk[0], 0, 0, 0], 8), Header::Partial);
//! ```
//! [`sequence`] and [`inbound`] decide which bytes of a segment are new. [`walk`] reads them, and [`fields`]
//! reads the fields of the few messages that a field classifies. [`blind`] counts bytes if the offset of the
//! next message is unknown.
//!
//! # The window
//! A limit passes at most N messages in any interval of length W. Each message takes a ticket, and a ring
//! remembers the time of each ticket. The number of messages in the window is the difference of two ticket
//! numbers. The module [`window`] has an example. [`limits`] charges a segment to all limits of its session,
//! or to none.
//!
//! # Epochs
//! Each trip and each reset of a scope raises the epoch of the scope. A connection stores the epoch sum of
//! its scopes at its SYN. If the sum has changed since, the connection is older than a trip or a reset and is
//! fenced:
//! ```
//! use breaker_common::abi::{Session, Switch};
//! use breaker_common::decide::Switches;
//! use bytemuck::Zeroable;
//!
//! // A session with its own scope 1 and the host's scope 0.
//! let session = Session { scopes: [1, 0, 0, 0, 0, 0], scope_count: 2, ..Session::zeroed() };
//! let mut scopes = [Switch { epoch: 3, ..Switch::default() }; 2];
//! let epoch_sum = |scopes: &[Switch]| {
//!     let switch_of = |scope: u32| scopes.get(scope as usize).map(|switch| (switch.epoch, switch.causes));
//!     Switches::combined(&session, switch_of).epoch
//! };
//! let connection_epoch = epoch_sum(&scopes);
//! assert_eq!(connection_epoch, 6);
//! scopes[0].epoch += 1; // A trip of the host.
//! scopes[0].epoch += 1; // The reset.
//! assert_ne!(connection_epoch, epoch_sum(&scopes), "the connection stays fenced after the reset");
//! ```
//! [`decide`](decide::decide) applies these rules to a segment and returns a [`Verdict`](decide::Verdict).
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
pub mod blind;
pub mod class;
pub mod counts;
pub mod decide;
pub mod fields;
pub mod fix;
pub mod framing;
pub mod inbound;
pub mod limits;
pub mod message;
pub mod payload;
pub mod sequence;
pub mod walk;
pub mod window;
