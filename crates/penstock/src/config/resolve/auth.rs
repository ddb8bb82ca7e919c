//! `[auth]`: who vouches for callers.

use std::str::FromStr;

use jsonwebtoken::Algorithm;

use super::Settings;
use crate::{
    auth::{KeySet, UserFile},
    client::{Endpoint, Trust},
    config::{Auth, Jwt, JwtKeys, files},
};

/// What is believed unless `auth.jwt.algorithms` says otherwise.
const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

pub(super) fn auth(settings: &mut Settings<'_>) -> Auth {
    let users_file = settings.file("auth.users_file");
    if let Some(file) = &users_file
        && let Err(problem) = UserFile::read(file)
    {
        settings.mistake("auth.users_file", problem);
    }
    Auth { users_file, jwt: jwt(settings) }
}

fn jwt(settings: &mut Settings<'_>) -> Option<Jwt> {
    let Some(keys) = settings.text("auth.jwt.keys") else {
        let others = [
            "auth.jwt.ca",
            "auth.jwt.issuer",
            "auth.jwt.audience",
            "auth.jwt.algorithms",
            "auth.jwt.clock_skew",
            "auth.jwt.user_claim",
        ];
        settings.unused(&others, "needs auth.jwt.keys");
        return None;
    };
    let keys = key_set(settings, &keys);
    let why = "is required with auth.jwt.keys";
    let issuer = settings.text("auth.jwt.issuer").or_else(|| settings.missing("auth.jwt.issuer", why));
    let audience = settings.text("auth.jwt.audience").or_else(|| settings.missing("auth.jwt.audience", why));
    let chosen = settings.words("auth.jwt.algorithms");
    let known = |word: &&str| Algorithm::from_str(word).expect("the words are those of RFC 7518");
    let algorithms = if chosen.is_empty() { ALGORITHMS.to_vec() } else { chosen.iter().map(known).collect() };
    Some(Jwt {
        keys: keys?,
        issuer: issuer?,
        audience: audience?,
        algorithms,
        clock_skew: settings.duration("auth.jwt.clock_skew"),
        user_claim: settings.text("auth.jwt.user_claim").unwrap_or_default(),
    })
}

fn key_set(settings: &mut Settings<'_>, keys: &str) -> Option<JwtKeys> {
    if !keys.contains("://") {
        settings.unused(&["auth.jwt.ca"], "needs a URL in auth.jwt.keys");
        let file = settings.folder.join(keys);
        return match KeySet::read(&file) {
            Ok(_) => Some(JwtKeys::File(file)),
            Err(problem) => settings.missing("auth.jwt.keys", &problem),
        };
    }
    let ca = settings.text("auth.jwt.ca").filter(|ca| ca != "system").map(|ca| settings.folder.join(ca));
    if let Some(ca) = &ca
        && let Err(error) = files::authorities(Some(ca))
    {
        return settings.missing("auth.jwt.ca", &error.to_string());
    }
    match Endpoint::behind(keys, ca.as_deref().map_or(Trust::System, Trust::File)) {
        Ok((endpoint, path)) => Some(JwtKeys::Url { endpoint, path }),
        Err(problem) => settings.missing("auth.jwt.keys", &problem),
    }
}
