//! Tests on the wire: real sockets between network namespaces, with breaker on the path. The bytes that the
//! venue receives decide each test. No agent runs. The tests need root.

mod attacks;
mod blind;
mod deadman;
mod edges;
mod escalation;
mod flows;
mod framing;
mod identity;
mod inbound;
mod inbound_limits;
mod inline;
mod killed_migration;
mod limits;
mod mass_action;
mod policy;
mod reload;
mod replay;
mod switch;
mod upgrade;
