//! End-to-end tests that need root: control groups, packet filters, sockets killed from outside.
//!
//! `tests/root` runs them, one after the other, in a network namespace that has nothing but a loopback interface: what
//! they do to the network, nobody else feels. Started without that, they fail and say so.

mod cgroup;
mod clock;
mod network;
mod overload;
#[path = "../e2e/support.rs"]
#[expect(dead_code, reason = "these tests say less than the others")]
mod support;
