//! What runs out by itself: certificates and revocation lists of the configuration.
//!
//! They are no mistakes of it: the bridge starts with a certificate that has expired and says so, for a restart must not make
//! of a warning an outage. `penstock check` is asked before, and looks at them.

use std::{fmt, path::PathBuf, time::Duration};

use rustls::pki_types::UnixTime;

use super::{
    Config, Tls,
    files::{self, FileError},
};

/// Of certificates: as long as it takes to have a new one signed.
const SOON_FOR_CERTIFICATES: Duration = Duration::from_hours(14 * 24);
/// Of revocation lists, which authorities issue anew every day or week.
const SOON_FOR_LISTS: Duration = Duration::from_hours(24);

/// A file and when it is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The setting that names it.
    pub key: &'static str,
    path: PathBuf,
    until: UnixTime,
    soon: Duration,
}

/// How it is with an [`Expiry`] at some time. Shown, it says what is the matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It is good for a while.
    Enough,
    /// For so long, and somebody should see to it.
    Soon(Duration),
    /// Not since then.
    None(Duration),
}

impl Expiry {
    /// How it is at `now`.
    pub fn left(&self, now: UnixTime) -> Left {
        let (until, now) = (self.until.as_secs(), now.as_secs());
        match until.checked_sub(now).map(Duration::from_secs) {
            None | Some(Duration::ZERO) => Left::None(Duration::from_secs(now - until)),
            Some(left) if left <= self.soon => Left::Soon(left),
            Some(_) => Left::Enough,
        }
    }

    /// One line, as a mistake of the configuration is shown.
    pub fn show(&self, left: Left) -> String {
        format!("{} = {:?}: {left}", self.key, self.path.display().to_string())
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enough => f.write_str("is good"),
            Self::Soon(left) => write!(f, "expires in {}", rough(*left)),
            Self::None(since) => write!(f, "expired {} ago", rough(*since)),
        }
    }
}

/// In the largest unit of which there are two.
fn rough(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    match minutes {
        2880.. => format!("{} days", minutes / (24 * 60)),
        120.. => format!("{} hours", minutes / 60),
        _ => format!("{minutes} minutes"),
    }
}

impl Config {
    /// Everything of it that runs out: the data listener's certificate, revocation lists, the certificate for brokers. Of a
    /// chain or several lists, the first to end. Authorities are left out: nobody looks at when they end.
    ///
    /// # Errors
    ///
    /// A file has changed since the configuration was read, and cannot be used.
    pub fn expiries(&self) -> Result<Vec<Expiry>, FileError> {
        let certificate = |key, path: &PathBuf| {
            let until = files::chain_until(path, &files::certificates(path)?)?;
            Ok(Expiry { key, path: path.clone(), until, soon: SOON_FOR_CERTIFICATES })
        };
        let mut found = Vec::new();
        if let Tls::Files(tls) = &self.tls {
            found.push(certificate("tls.certificate", &tls.certificate)?);
            if let Some(auth) = &tls.client_auth
                && let (Some(path), Some(until)) = (&auth.crl, files::client_verifier(auth)?.lists_until)
            {
                found.push(Expiry { key: "tls.crl", path: path.clone(), until, soon: SOON_FOR_LISTS });
            }
        }
        if let Some((own, _)) = self.kafka_tls.as_ref().and_then(|files| files.own.as_ref()) {
            found.push(certificate("kafka.certificate", own)?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    #[test]
    fn what_is_left_is_told_in_round_numbers() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let certificate = Expiry {
            key: "tls.certificate",
            path: "server.pem".into(),
            until: at(100 * DAY),
            soon: SOON_FOR_CERTIFICATES,
        };
        for (now, expected) in [
            (0, "is good"),
            (86 * DAY - 1, "is good"),
            (86 * DAY, "expires in 14 days"),
            (100 * DAY - 7300, "expires in 2 hours"),
            (100 * DAY - 90, "expires in 1 minutes"),
            (100 * DAY, "expired 0 minutes ago"),
            (103 * DAY, "expired 3 days ago"),
        ] {
            assert_eq!(certificate.left(at(now)).to_string(), expected, "{now}");
        }
        let left = certificate.left(at(103 * DAY));
        assert_eq!(certificate.show(left), "tls.certificate = \"server.pem\": expired 3 days ago");
        let lists = Expiry { soon: SOON_FOR_LISTS, ..certificate };
        assert_eq!(lists.left(at(98 * DAY)), Left::Enough);
        assert_eq!(lists.left(at(99 * DAY)), Left::Soon(Duration::from_secs(DAY)));
    }
}
