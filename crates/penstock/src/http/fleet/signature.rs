//! What one bridge of a fleet signs, and another believes: HMAC-SHA-256 under a secret that the fleet shares.
//!
//! * A **request** between bridges carries an envelope, in which everything stands that the request is about but its
//!   body, and a seal: time, nonce, and the code over both, the envelope and the body. It is believed within
//!   [`SKEW`] of the receiver's clock and once: the receiver remembers nonces for as long as their times are believed.
//! * An **owner's mark** at the end of a consumer instance's id names the bridge that has it. It is signed too, or anyone
//!   could make a bridge connect anywhere.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac, rand};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use kafka_client::sasl::Secret;

/// How far the clocks of two bridges may differ, and how long a request may take to its receiver.
pub(super) const SKEW: Duration = Duration::from_secs(30);
/// Nonces that are remembered; beyond it requests are not believed. A nonce is forgotten after twice the skew.
const MAX_NONCES: usize = 200_000;
/// Bytes of the code in an owner's mark: 96 bits.
const MARK_BYTES: usize = 12;

/// The fleet's secrets: the first signs, all are believed, so that one can be replaced without a gap.
pub(super) struct Keys(Vec<hmac::Key>);

impl Keys {
    /// `secrets`: never empty.
    pub(super) fn new(secrets: &[Secret]) -> Self {
        let keys = secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes()));
        Self(keys.collect())
    }

    /// A seal for a request that is sent now.
    pub(super) fn seal(&self, envelope: &str, body: &[u8]) -> String {
        let mut nonce = [0; 16];
        rand::fill(&mut nonce).expect("the system gives random numbers");
        let nonce = BASE64_URL_SAFE_NO_PAD.encode(nonce);
        let time = now_ms();
        let code = hmac::sign(&self.0[0], &request_text(time, &nonce, envelope, body));
        format!("{time};{nonce};{}", BASE64_URL_SAFE_NO_PAD.encode(code))
    }

    /// Whether a request comes from the fleet, now, and for the first time.
    pub(super) fn believes(&self, seal: &str, envelope: &str, body: &[u8], seen: &Nonces) -> bool {
        let mut fields = seal.split(';');
        let (Some(time), Some(nonce), Some(code), None) = (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return false;
        };
        let (Ok(time), Ok(code)) = (time.parse::<u64>(), BASE64_URL_SAFE_NO_PAD.decode(code)) else {
            return false;
        };
        let now = now_ms();
        let text = request_text(time, nonce, envelope, body);
        u128::from(now.abs_diff(time)) <= SKEW.as_millis()
            && self.0.iter().any(|key| hmac::verify(key, &text, &code).is_ok())
            && seen.is_new(nonce, now)
    }

    /// The mark of `owner` (`address:port`) for an instance's id.
    pub(super) fn mark(&self, owner: &str, group: &str, instance: &str) -> String {
        let code = hmac::sign(&self.0[0], &mark_text(owner, group, instance));
        let code = BASE64_URL_SAFE_NO_PAD.encode(&code.as_ref()[..MARK_BYTES]);
        format!("{}.{code}", BASE64_URL_SAFE_NO_PAD.encode(owner))
    }

    /// The owner that a mark names, if the fleet wrote it.
    pub(super) fn owner(&self, mark: &str, group: &str, instance: &str) -> Option<String> {
        let (owner, code) = mark.split_once('.')?;
        let owner = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(owner).ok()?).ok()?;
        let code = BASE64_URL_SAFE_NO_PAD.decode(code).ok()?;
        let text = mark_text(&owner, group, instance);
        let signed = |key| {
            let whole = hmac::sign(key, &text);
            aws_lc_rs::constant_time::verify_slices_are_equal(&whole.as_ref()[..MARK_BYTES], &code).is_ok()
        };
        self.0.iter().any(signed).then_some(owner)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn request_text(time: u64, nonce: &str, envelope: &str, body: &[u8]) -> Vec<u8> {
    let digest = digest::digest(&digest::SHA256, body);
    joined(&[b"request", time.to_string().as_bytes(), nonce.as_bytes(), envelope.as_bytes(), digest.as_ref()])
}

fn mark_text(owner: &str, group: &str, instance: &str) -> Vec<u8> {
    joined(&[b"owner", owner.as_bytes(), group.as_bytes(), instance.as_bytes()])
}

/// Each part with its length in front, so that no two lists of parts make the same bytes.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut text = Vec::new();
    for part in parts {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    }
    text
}

/// The nonces of the last minute or two, in two generations: a nonce is in one of them for at least twice the skew.
#[derive(Debug, Default)]
pub(super) struct Nonces(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<Box<str>>,
    old: HashSet<Box<str>>,
    /// When the young became it, ms since the epoch.
    since: u64,
}

impl Nonces {
    /// Remembers a nonce. False if it is known already, or too many are.
    fn is_new(&self, nonce: &str, now: u64) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if u128::from(now.abs_diff(known.since)) > 2 * SKEW.as_millis() {
            let both = u128::from(now.abs_diff(known.since)) > 4 * SKEW.as_millis();
            known.old = if both { HashSet::new() } else { std::mem::take(&mut known.young) };
            known.young.clear();
            known.since = now;
        }
        known.young.len() < MAX_NONCES && !known.old.contains(nonce) && known.young.insert(nonce.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secrets: &[&str]) -> Keys {
        Keys::new(&secrets.iter().map(|secret| Secret::new(*secret)).collect::<Vec<_>>())
    }

    #[test]
    fn a_request_is_believed_once_and_as_it_was_signed() {
        let (ours, seen) = (keys(&["new", "old"]), Nonces::default());
        let seal = ours.seal("envelope", b"body");
        assert!(!ours.believes(&seal, "envelopes", b"body", &seen));
        assert!(!ours.believes(&seal, "envelope", b"bodyy", &seen));
        assert!(!keys(&["other"]).believes(&seal, "envelope", b"body", &seen));
        assert!(ours.believes(&seal, "envelope", b"body", &seen), "what was refused is not remembered");
        assert!(!ours.believes(&seal, "envelope", b"body", &seen), "a second time");
        let old = keys(&["old"]).seal("envelope", b"body");
        assert!(ours.believes(&old, "envelope", b"body", &seen), "the secret that is on its way out");
        for wrong in ["", ";;", "1;2", "x;y;z", "1;2;3;4"] {
            assert!(!ours.believes(wrong, "envelope", b"body", &seen));
        }
    }

    #[test]
    fn an_old_request_is_not_believed() {
        let ours = keys(&["s"]);
        let stale = |ms_ago: u64| {
            let time = now_ms() - ms_ago;
            let code = hmac::sign(&ours.0[0], &request_text(time, "n", "e", b""));
            format!("{time};n;{}", BASE64_URL_SAFE_NO_PAD.encode(code))
        };
        assert!(!ours.believes(&stale(31_000), "e", b"", &Nonces::default()));
        assert!(ours.believes(&stale(20_000), "e", b"", &Nonces::default()));
    }

    #[test]
    fn a_nonce_is_remembered_for_as_long_as_its_time_is_believed() {
        let seen = Nonces::default();
        let start = 1_700_000_000_000;
        assert!(seen.is_new("a", start));
        assert!(seen.is_new("b", start + 61_000));
        assert!(!seen.is_new("a", start + 61_000), "in the old generation");
        assert!(!seen.is_new("b", start + 130_000));
        assert!(seen.is_new("a", start + 130_000), "long gone");
    }

    #[test]
    fn a_mark_names_its_owner_for_one_instance_alone() {
        let ours = keys(&["s"]);
        let mark = ours.mark("10.0.0.7:8444", "g", "c1");
        assert_eq!(ours.owner(&mark, "g", "c1").as_deref(), Some("10.0.0.7:8444"));
        assert_eq!(ours.owner(&mark, "g", "c2"), None);
        assert_eq!(ours.owner(&mark, "h", "c1"), None);
        assert_eq!(keys(&["t"]).owner(&mark, "g", "c1"), None);
        let forged = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode("evil:1"), mark.split_once('.').expect("a dot").1);
        assert_eq!(ours.owner(&forged, "g", "c1"), None);
        assert_eq!(ours.owner("no mark", "g", "c1"), None);
    }
}
