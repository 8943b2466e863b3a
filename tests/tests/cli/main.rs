//! The command line as a user types it: what it prints, what it ends with, what it leaves behind. Most tests load a breaker in
//! namespaces of their own, and so need root.

mod audit;
mod broken;
mod clsact;
mod codes;
mod denied;
mod faults;
mod help;
mod host;
mod load;
mod output;
mod pins;
mod race;
mod reload;
mod switch;
mod usage;
