//! Whom a server tells what happens.

use std::net::SocketAddr;

/// Where a server listens, and who is told of what it does.
pub trait Listening: Sync {
    /// It listens at this address.
    fn ready(&self, address: SocketAddr);
    /// A line of the log: a request and its answer.
    fn log(&self, line: &serde_json::Value);
    /// Whether it is to end.
    fn is_over(&self) -> bool;
}
