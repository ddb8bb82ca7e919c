//! Passwords' hashes: Argon2 in PHC's format, and bcrypt as `htpasswd -B` writes it.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher, PasswordVerifier};
use aws_lc_rs::rand;

/// KiB that one hash may take.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
/// Argon2's work: KiB times passes. At this much one core is busy for about a second.
const MAX_WORK_KIB: u64 = 1024 * 1024;
/// bcrypt's work is two to the power of this. At this much one core is busy for about a second.
const MAX_BCRYPT_COST: u32 = 14;

/// What bcrypt looks at of a password.
const MAX_BCRYPT_BYTES: usize = 72;

/// What a password is compared with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Argon2(Box<PasswordHash>),
    Bcrypt(Box<str>),
}

impl Hash {
    /// Reads a hash, and sees that it will do.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("$argon2") {
            let hash = PasswordHash::new(text).map_err(|error| format!("is no Argon2 hash: {error}"))?;
            let params = Params::try_from(&hash).map_err(|error| format!("is no Argon2 hash: {error}"))?;
            if hash.salt.is_none() || hash.hash.is_none() {
                return Err("is no Argon2 hash: it has no salt, or no hash".to_owned());
            }
            if argon2::Algorithm::try_from(hash.algorithm.as_str()).is_err() {
                return Err("is no Argon2 hash: argon2id, argon2i and argon2d are known".to_owned());
            }
            let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
            if params.m_cost() > MAX_MEMORY_KIB || work > MAX_WORK_KIB {
                return Err(format!("costs too much: at most m={MAX_MEMORY_KIB}, and m times t {MAX_WORK_KIB}"));
            }
            return Ok(Self::Argon2(Box::new(hash)));
        }
        let is_bcrypt = ["$2a$", "$2b$", "$2y$"].iter().any(|start| text.starts_with(start));
        if is_bcrypt {
            let parts: bcrypt::HashParts = text.parse().map_err(|error| format!("is no bcrypt hash: {error}"))?;
            if parts.get_cost() > MAX_BCRYPT_COST {
                return Err(format!("costs too much: at most 2^{MAX_BCRYPT_COST}"));
            }
            return Ok(Self::Bcrypt(text.into()));
        }
        Err("must be a hash: Argon2 ($argon2id$…) or bcrypt ($2b$…)".to_owned())
    }

    /// Whether it is this password's. Takes as long as whoever made the hash wanted: not for a thread that serves.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        match self {
            Self::Argon2(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
            // What is longer than bcrypt looks at is refused, not cut.
            Self::Bcrypt(hash) => password.len() <= MAX_BCRYPT_BYTES && bcrypt::verify(password, hash).unwrap_or(false),
        }
    }
}

/// A new hash, Argon2id with 19 MiB and two passes (OWASP's and RFC 9106's order of magnitude), and a random salt.
pub(crate) fn hash_password(password: &[u8]) -> String {
    let mut salt = [0; 16];
    rand::fill(&mut salt).expect("the system has randomness");
    let hash: PasswordHash = Argon2::default()
        .hash_password_with_salt(password, &salt)
        .expect("the default parameters fit, and the password is below 4 GiB");
    hash.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_that_was_made_is_of_its_password_alone() {
        let text = hash_password("pässword".as_bytes());
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let hash = Hash::parse(&text).expect("a hash");
        assert!(hash.is_of("pässword".as_bytes()));
        assert!(!hash.is_of(b"password") && !hash.is_of(b""));
        assert_ne!(text, hash_password("pässword".as_bytes()), "salted");
    }

    /// Made by argon2-cffi 25.1 and by htpasswd 2.4 (`-B`, cost 5).
    const FOREIGN: [&str; 3] = [
        "$argon2id$v=19$m=64,t=1,p=2$c2FsdHNhbHRzYWx0$gBy48zpBVhe6990hHX7cw7qhuHkeE+hR",
        "$argon2i$v=19$m=32,t=2,p=1$c2FsdHNhbHRzYWx0$DBgTkje1K6BpOCV14rb/Ix/hkY/s04HFnDd0GM5sglY",
        "$2y$05$opQtzp70cnBMmcLC1ty9MejvKkFxbAceJZxXcTPKsU2ThiQsIH9ka",
    ];

    #[test]
    fn hashes_of_other_tools_are_read() {
        for text in FOREIGN {
            let hash = Hash::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
            assert!(hash.is_of(b"open sesame"), "{text}");
            assert!(!hash.is_of(b"open sesame "), "{text}");
        }
    }

    #[test]
    fn bcrypt_does_not_take_a_beginning_for_the_whole() {
        let password = [b'a'; 72];
        let hash = Hash::parse(&bcrypt::hash_with_salt(password, 4, [7; 16]).expect("a hash").to_string());
        let hash = hash.expect("a hash");
        assert!(hash.is_of(&password));
        assert!(!hash.is_of(&[b'a'; 73]), "cut after 72 bytes it would be the same");
    }

    #[test]
    fn what_is_no_hash_or_costs_too_much_is_told() {
        for (text, expected) in [
            ("secret", "must be a hash"),
            ("", "must be a hash"),
            ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "must be a hash"),
            ("$apr1$x$y", "must be a hash"),
            ("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0", "is no Argon2 hash"),
            ("$argon2id$", "is no Argon2 hash"),
            ("$argon2x$v=19$m=32,t=1,p=1$c2FsdHNhbHRzYWx0$Zm9vYmFyZm9vYmFyZm9vYmFy", "is no Argon2 hash"),
            ("$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHRzYWx0$Zm9vYmFyZm9vYmFyZm9vYmFy", "costs too much"),
            ("$argon2id$v=19$m=65536,t=99,p=1$c2FsdHNhbHRzYWx0$Zm9vYmFyZm9vYmFyZm9vYmFy", "costs too much"),
            ("$2b$05$tooshort", "is no bcrypt hash"),
            ("$2b$20$L6Bc/AlTQHyd9liGgGEZyOFLPHNgyxeEPfgYfBCVxJ7JIlwxyVU3u", "costs too much"),
        ] {
            let problem = Hash::parse(text).expect_err(text);
            assert!(problem.starts_with(expected), "{text}: {problem}");
        }
    }
}
