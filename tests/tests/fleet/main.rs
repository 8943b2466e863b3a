//! Many hosts, with a real etcd cluster.

mod engine;
