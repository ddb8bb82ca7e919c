//! JSON Web Tokens (RFC 7519) that an issuer signs with a key of its set (RFC 7517).
//!
//! What is believed of a token follows RFC 8725: the algorithm is one of the configuration's and never a symmetric one, a
//! key is used for its own kind of algorithm alone, issuer and audience have to be there and right, and nothing that the
//! token itself brings (`jwk`, `jku`, `x5c`) is a key. Extensions that have to be understood (`crit`) are not.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use hyper::header::ACCEPT;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::{Generation, LoginError, Verified};
use crate::client::{Endpoint, Lines, RequestBody};
use crate::config::{Jwt, JwtKeys};

/// How often a URL is asked without need.
const ASK_EVERY: Duration = Duration::from_secs(300);
/// How soon it is asked again: after a failure, and for a key that it did not have.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const ASK_PATIENCE: Duration = Duration::from_secs(20);
/// How long a token waits for a set that has its key.
const WAIT_FOR_KEY: Duration = Duration::from_secs(5);
/// A set has a handful of keys.
const MAX_SET_BYTES: usize = 1024 * 1024;
const MAX_KEYS: usize = 100;
/// Of a user's name.
const MAX_NAME_BYTES: usize = 1024;
/// A token is verified again after this long, however long it lives.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The keys that tokens may be signed with.
#[derive(Debug, Default)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    /// As it is in the set, to see whether a new set differs.
    jwk: Jwk,
    public: DecodingKey,
}

impl KeySet {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let wrong = |problem: &dyn std::fmt::Display| format!("{} {problem}", path.display());
        let text = std::fs::read(path).map_err(|error| wrong(&format_args!("cannot be read: {error}")))?;
        Self::parse(&text).map_err(|problem| wrong(&problem))
    }

    /// Keys of kinds that are not known, for encryption, or symmetric are skipped.
    fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        if text.len() > MAX_SET_BYTES {
            return Err(format!("has more than {MAX_SET_BYTES} bytes"));
        }
        let set: Set = serde_json::from_slice(text).map_err(|error| format!("is no JWK set: {error}"))?;
        let keys: Vec<_> = set.keys.into_iter().filter_map(Key::parse).collect();
        match keys.len() {
            0 => Err("has no public key for signatures".to_owned()),
            1..=MAX_KEYS => Ok(Self(keys)),
            many => Err(format!("has {many} keys; at most {MAX_KEYS} are read")),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.0.iter().map(|key| &key.jwk).eq(other.0.iter().map(|key| &key.jwk))
    }

    /// The keys that may have signed a token with this header.
    fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| {
            // A token without an id may be by any key of its kind.
            let is_named = id.is_none_or(|id| key.jwk.common.key_id.as_deref() == Some(id));
            let fits = key.jwk.common.key_algorithm.is_none_or(|own| own.to_string() == format!("{algorithm:?}"));
            is_named && fits && key.public.family() == algorithm.family()
        })
    }
}

impl Key {
    fn parse(key: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(key).ok()?;
        let is_for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let public = DecodingKey::from_jwk(&jwk).ok()?;
        (is_for_signatures && public.family() != AlgorithmFamily::Hmac).then_some(Self { jwk, public })
    }
}

/// Verifies tokens; shared by all workers.
#[derive(Debug)]
pub(crate) struct Tokens {
    settings: Jwt,
    keys: ArcSwap<KeySet>,
    generation: Arc<Generation>,
    /// Somebody misses a key, or an operator asks: the URL is to be asked now.
    wanted: Notify,
    /// How often the URL has been asked, whatever came of it.
    asked: watch::Sender<u64>,
    last_asked: Mutex<Option<Instant>>,
}

impl Tokens {
    /// Reads the file of keys, if that is where they are.
    pub(super) fn load(settings: &Jwt, generation: Arc<Generation>) -> Result<Self, String> {
        let keys = match &settings.keys {
            JwtKeys::File(path) => KeySet::read(path)?,
            JwtKeys::Url { .. } => KeySet::default(),
        };
        Ok(Self {
            settings: settings.clone(),
            keys: ArcSwap::from_pointee(keys),
            generation,
            wanted: Notify::new(),
            asked: watch::Sender::new(0),
            last_asked: Mutex::new(None),
        })
    }

    /// The file of keys, if they are in one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.settings.keys {
            JwtKeys::File(path) => Some(path),
            JwtKeys::Url { .. } => None,
        }
    }

    /// Reads the file anew, or has the URL asked.
    ///
    /// # Errors
    ///
    /// What is wrong with the file. The keys stay as they were.
    pub(crate) fn reload(&self) -> Result<(), String> {
        match &self.settings.keys {
            JwtKeys::File(path) => self.put(KeySet::read(path)?),
            JwtKeys::Url { .. } => self.wanted.notify_one(),
        }
        Ok(())
    }

    fn put(&self, keys: KeySet) {
        if !self.keys.load().is_same(&keys) {
            self.keys.store(Arc::new(keys));
            self.generation.raise();
        }
    }

    /// Asks the URL for keys for as long as it is polled; `told` hears how each answer was. Pending for ever where the keys
    /// are in a file.
    pub(crate) async fn follow(&self, mut told: impl FnMut(Result<(), String>)) {
        let JwtKeys::Url { endpoint, path } = &self.settings.keys else {
            return std::future::pending().await;
        };
        loop {
            let answer = match timeout(ASK_PATIENCE, ask(endpoint, path)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer in {ASK_PATIENCE:?}")),
            };
            let pause = if answer.is_ok() { ASK_EVERY } else { ASK_AGAIN };
            told(answer.map(|keys| self.put(keys)).map_err(|problem| format!("{endpoint}: {problem}")));
            *self.last_asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            self.asked.send_modify(|times| *times += 1);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    /// The user of a token.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(super) async fn verify(&self, token: &str) -> Result<Verified, LoginError> {
        let checked = match self.check(token, SystemTime::now()) {
            Err(Wrong::UnknownKey) if self.wait_for_keys().await => self.check(token, SystemTime::now()),
            checked => checked,
        };
        checked.map_err(|wrong| wrong.told(&self.keys.load()))
    }

    /// Has the URL asked for what may be a new key. Whether there was an answer.
    async fn wait_for_keys(&self) -> bool {
        if self.path().is_some() {
            return false;
        }
        let mut asked = self.asked.subscribe();
        let last = *self.last_asked.lock().unwrap_or_else(PoisonError::into_inner);
        match last {
            // Whoever makes up keys must not make us ask for each.
            Some(last) if last.elapsed() < ASK_AGAIN => return false,
            Some(_) => self.wanted.notify_one(),
            // The first answer is on its way.
            None => {}
        }
        timeout(WAIT_FOR_KEY, asked.changed()).await.is_ok_and(|changed| changed.is_ok())
    }

    fn check(&self, token: &str, now: SystemTime) -> Result<Verified, Wrong> {
        let header = decode_header(token).map_err(|_| Wrong::Told("the token is no JSON Web Token"))?;
        if !self.settings.algorithms.contains(&header.alg) {
            return Err(Wrong::Told("the token is signed by an algorithm that is not believed here"));
        }
        if header.crit.is_some() {
            return Err(Wrong::Told("the token has extensions that are not understood here"));
        }
        let mut validation = Validation::new(header.alg);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.validate_nbf = true;
        validation.leeway = self.settings.clock_skew.as_secs();
        let keys = self.keys.load();
        let mut wrong = Wrong::UnknownKey;
        for key in keys.candidates(header.kid.as_deref(), header.alg) {
            match decode::<Map<String, Value>>(token, &key.public, &validation) {
                Ok(token) => return self.verified(&token.claims, now),
                Err(error) => wrong = Wrong::of(error.kind()),
            }
            // The signature was by this key: no other will do better.
            if wrong != BAD_SIGNATURE {
                break;
            }
        }
        Err(wrong)
    }

    fn verified(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<Verified, Wrong> {
        // An issuer that is a list of issuers is none.
        if claims.get("iss").and_then(Value::as_str) != Some(&self.settings.issuer) {
            return Err(Wrong::Told("the token is of another issuer"));
        }
        let user = claims.get(&self.settings.user_claim).and_then(Value::as_str).unwrap_or_default();
        if user.is_empty() || user.len() > MAX_NAME_BYTES {
            return Err(Wrong::Told("the token does not name a user in the claim that counts here"));
        }
        let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or(0.0).max(0.0);
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let expires = Duration::try_from_secs_f64(expires).unwrap_or(Duration::MAX);
        let left = expires.saturating_add(self.settings.clock_skew).saturating_sub(now).min(REMEMBERED);
        Ok(Verified { user: user.into(), until: Some(Instant::now() + left) })
    }
}

/// Why a token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    UnknownKey,
    Told(&'static str),
}

const BAD_SIGNATURE: Wrong = Wrong::Told("the token's signature is wrong");

impl Wrong {
    fn of(error: &ErrorKind) -> Self {
        match error {
            ErrorKind::ExpiredSignature => Self::Told("the token has expired"),
            ErrorKind::ImmatureSignature => Self::Told("the token does not hold yet"),
            ErrorKind::InvalidIssuer => Self::Told("the token is of another issuer"),
            ErrorKind::InvalidAudience => Self::Told("the token is for another audience"),
            ErrorKind::MissingRequiredClaim(_) => Self::Told("the token lacks exp, iss or aud"),
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => BAD_SIGNATURE,
            _ => Self::Told("the token is not well-formed"),
        }
    }

    fn told(self, keys: &KeySet) -> LoginError {
        match self {
            // The issuer has not told us any: that is not the token's fault.
            Self::UnknownKey if keys.0.is_empty() => LoginError::Unavailable,
            Self::UnknownKey => LoginError::Refused("the token is signed by a key that is not known here"),
            Self::Told(why) => LoginError::Refused(why),
        }
    }
}

async fn ask(endpoint: &Endpoint, path: &str) -> Result<KeySet, String> {
    let request = endpoint.request(path).header(ACCEPT, "application/json").body(RequestBody::Empty);
    let request = request.map_err(|error| error.to_string())?;
    let mut connection = endpoint.connect().await.map_err(|error| error.to_string())?;
    let answer = connection.send(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    if status != hyper::StatusCode::OK {
        return Err(format!("status {status}"));
    }
    let set = Lines::new(answer.into_body(), MAX_SET_BYTES).rest().await.map_err(|error| error.to_string())?;
    KeySet::parse(&set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Public keys that somebody published (RFC 7517, appendix A.1; RFC 8037, appendix A.2).
    fn set(id: &str) -> String {
        format!(
            "{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"{id}\",\
             \"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}}]}}"
        )
    }

    #[tokio::test]
    async fn a_key_that_is_missed_is_asked_for_but_not_for_every_token() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let url = format!("http://{}/keys", listener.local_addr().expect("bound"));
        let (endpoint, path) = Endpoint::behind(&url, crate::client::Trust::Anyone).expect("a URL");
        let settings = Jwt {
            keys: JwtKeys::Url { endpoint, path },
            issuer: "i".to_owned(),
            audience: "a".to_owned(),
            algorithms: vec![Algorithm::EdDSA],
            clock_skew: Duration::ZERO,
            user_claim: "sub".to_owned(),
        };
        let tokens = Arc::new(Tokens::load(&settings, Arc::default()).expect("nothing to read"));
        let served = Arc::new(Mutex::new(Vec::from([set("old"), "no set".to_owned(), set("new")])));
        let serving = {
            let served = served.clone();
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.expect("a client");
                    let mut request = vec![0; 4096];
                    let read = stream.read(&mut request).await.expect("a request");
                    assert!(request[..read].starts_with(b"GET /keys HTTP/1.1\r\n"));
                    let body = served.lock().expect("not poisoned").remove(0);
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    stream.write_all(answer.as_bytes()).await.expect("the client reads");
                }
            })
        };
        let results = Arc::new(Mutex::new(Vec::new()));
        let following = {
            let (tokens, results) = (tokens.clone(), results.clone());
            tokio::spawn(async move {
                tokens.follow(|result| results.lock().expect("not poisoned").push(result.is_ok())).await;
            })
        };
        let why = async |id: &str| {
            let header = format!("{{\"alg\":\"EdDSA\",\"kid\":\"{id}\"}}");
            let encode =
                |text: &str| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text.as_bytes());
            tokens.verify(&format!("{}.{}.c2ln", encode(&header), encode("{}"))).await.expect_err("no signature")
        };
        let unknown = Wrong::UnknownKey.told(&KeySet::parse(set("x").as_bytes()).expect("a set"));
        let known = BAD_SIGNATURE.told(&KeySet::default());
        assert_eq!(why("old").await, known, "it waited for the first answer");
        assert_eq!(why("new").await, unknown, "too soon to ask again");
        let forget = || *tokens.last_asked.lock().expect("not poisoned") = Instant::now().checked_sub(ASK_AGAIN);
        forget();
        assert_eq!(why("new").await, unknown, "what answered was no set");
        assert_eq!(why("old").await, known, "and the old one stays");
        forget();
        assert_eq!(why("new").await, known);
        assert_eq!(why("old").await, unknown, "withdrawn");
        assert_eq!(*results.lock().expect("not poisoned"), [true, false, true]);
        following.abort();
        serving.abort();
    }
}
