//! Who is at the other end of a connection, and who a request says it is.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What is known of a request's client. All of it was proved to us, or is the word of a balancer that we trust: what a
/// client says of itself in other headers counts for nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Caller {
    /// The socket's other end: the client, or the load balancer in front of it.
    pub(crate) peer: SocketAddr,
    /// The client's address in the PROXY header.
    pub(crate) source: Option<SocketAddr>,
    /// The VPC endpoint that the client came through, by a trusted balancer's word.
    pub(crate) endpoint: Option<Box<str>>,
    /// The load balancer itself, for a health check: no rule is for it.
    pub(crate) is_balancer: bool,
    /// The names in the certificate that the client has shown.
    pub(crate) certificate: Option<Arc<CertificateNames>>,
    /// The user that the request's `Authorization` proved.
    pub(crate) user: Option<Arc<str>>,
}

impl Caller {
    /// Nothing is known but where the socket ends.
    pub(crate) const fn of_socket(peer: SocketAddr) -> Self {
        Self { peer, source: None, endpoint: None, is_balancer: false, certificate: None, user: None }
    }

    /// What counts as one source, where one of them must not take everything.
    pub(crate) fn network(&self) -> IpAddr {
        network(self.source.unwrap_or(self.peer).ip())
    }

    /// Whether two callers are one identity, as far as access rules tell identities apart. Addresses are none: a client
    /// may come from several, and behind a balancer all come from one.
    pub(crate) fn is_same_identity(&self, other: &Self) -> bool {
        // Named one by one: whoever adds a field says here what it means.
        let Self { peer: _, source: _, endpoint, is_balancer, certificate, user } = self;
        *endpoint == other.endpoint
            && *is_balancer == other.is_balancer
            && *certificate == other.certificate
            && *user == other.user
    }
}

/// An IPv4 address, or the 64 bits of an IPv6 address that a host does not choose itself.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// For logs: the client's address, then the endpoint, the certificate and the user.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source.unwrap_or(self.peer))?;
        if let Some(endpoint) = &self.endpoint {
            write!(f, " through {endpoint}")?;
        }
        if let Some(name) = self.certificate.as_ref().and_then(|names| names.first()) {
            write!(f, " with cert:{}", name.escape_debug())?;
        }
        match &self.user {
            Some(user) => write!(f, " as user:{}", user.escape_debug()),
            None => Ok(()),
        }
    }
}

/// What a certificate says its owner is called. Only certificates that hold come so far.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CertificateNames {
    /// The subject's CN, then alternative names that are URIs, e-mail or IP addresses: compared to the letter.
    pub(crate) exact: Vec<Box<str>>,
    /// Alternative names that are DNS names: their letters' case does not count (RFC 4343).
    pub(crate) dns: Vec<Box<str>>,
}

impl CertificateNames {
    /// Whether one of them is `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.exact.iter().any(|own| **own == *name) || self.dns.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    fn first(&self) -> Option<&str> {
        self.exact.first().or(self.dns.first()).map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_ipv6_is_one_source_whatever_it_calls_itself() {
        let network = |address: &str| network(address.parse().expect("an address"));
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
    }

    #[test]
    fn a_log_line_says_all_that_is_known_and_is_one_line() {
        let names = CertificateNames { exact: vec!["a\nb".into()], dns: vec!["c".into()] };
        let caller = Caller {
            source: Some(([192, 0, 2, 7], 4000).into()),
            endpoint: Some("vpce-1".into()),
            certificate: Some(Arc::new(names)),
            user: Some("eve\u{1b}".into()),
            ..Caller::of_socket(([10, 0, 0, 1], 1).into())
        };
        assert_eq!(caller.to_string(), "192.0.2.7:4000 through vpce-1 with cert:a\\nb as user:eve\\u{1b}");
    }
}
