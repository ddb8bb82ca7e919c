//! Who is at the other end of a connection.

use std::fmt;
use std::net::SocketAddr;

/// What is known of a connection's client.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The socket's other end: the client, or the load balancer in front of it.
    pub(crate) peer: SocketAddr,
    /// The client's address in the PROXY header.
    pub(crate) source: Option<SocketAddr>,
    /// The VPC endpoint that the client came through, by a trusted balancer's word.
    pub(crate) endpoint: Option<Box<str>>,
    /// The load balancer itself, for a health check: no rule is for it.
    pub(crate) is_balancer: bool,
}

impl Caller {
    /// Nothing is known but where the socket ends.
    pub(crate) const fn of_socket(peer: SocketAddr) -> Self {
        Self { peer, source: None, endpoint: None, is_balancer: false }
    }
}

/// For logs: the client's address, then the endpoint.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source.unwrap_or(self.peer))?;
        match &self.endpoint {
            Some(endpoint) => write!(f, " through {endpoint}"),
            None => Ok(()),
        }
    }
}
