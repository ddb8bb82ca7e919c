//! Users, tokens, and what a connection remembers.

use super::*;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair};
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::SystemTime;

use crate::config::Jwt;

/// "open sesame", as cheap as Argon2 gets.
const SESAME: &str = "$argon2id$v=19$m=64,t=1,p=2$c2FsdHNhbHRzYWx0$gBy48zpBVhe6990hHX7cw7qhuHkeE+hR";
/// "open sesame" by bcrypt.
const SESAME_BCRYPT: &str = "$2y$05$opQtzp70cnBMmcLC1ty9MejvKkFxbAceJZxXcTPKsU2ThiQsIH9ka";

struct Bench {
    authenticator: Authenticator,
    folder: tempfile::TempDir,
    caller: Rc<Caller>,
}

impl Bench {
    fn with_users(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        std::fs::write(&path, text).expect("written");
        Self::new(Auth { users_file: Some(path), jwt: None }, folder)
    }

    fn with_keys(set: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jwks.json");
        std::fs::write(&path, set.to_string()).expect("written");
        Self::new(Auth { users_file: None, jwt: Some(settings(path)) }, folder)
    }

    fn new(auth: Auth, folder: tempfile::TempDir) -> Self {
        let authenticator = Authenticator::new(&auth, &Metrics::new(1)).expect("read").expect("it is on");
        Self { authenticator, folder, caller: Rc::new(Caller::of_socket(([192, 0, 2, 7], 4000).into())) }
    }

    async fn identify(&self, header: &str) -> Result<String, LoginError> {
        self.identify_on(header, &Remembered::default()).await
    }

    async fn identify_on(&self, header: &str, remembered: &Remembered) -> Result<String, LoginError> {
        let header = HeaderValue::from_str(header).expect("a value");
        let caller = self.authenticator.identify(&header, &self.caller, remembered).await?;
        Ok(caller.user.as_deref().expect("a user").to_owned())
    }

    fn write_users(&self, text: &str) {
        std::fs::write(self.folder.path().join("users"), text).expect("written");
    }

    fn logins(&self, scheme: &str, result: &str) -> u64 {
        let series = format!("penstock_logins_total{{scheme=\"{scheme}\",result=\"{result}\"}} ");
        let text = self.authenticator.metrics.render();
        let count = text.lines().find_map(|line| line.strip_prefix(&series)).expect("a series");
        count.parse().expect("a number")
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
}

fn refused(result: Result<String, LoginError>) -> &'static str {
    match result {
        Err(LoginError::Refused(why)) => why,
        other => panic!("refused, but {other:?}"),
    }
}

const WRONG: &str = "no such user, or a wrong password";

#[tokio::test]
async fn users_are_who_know_their_password() {
    let bench = Bench::with_users(&format!("# team a\nalice:{SESAME}\n\n bob:{SESAME_BCRYPT} \r\n"));
    assert_eq!(bench.identify(&basic("alice", "open sesame")).await, Ok("alice".to_owned()));
    assert_eq!(bench.identify(&basic("bob", "open sesame")).await, Ok("bob".to_owned()));
    let any_case = basic("alice", "open sesame").replace("Basic ", "bASIC   ");
    assert_eq!(bench.identify(&any_case).await, Ok("alice".to_owned()));
    for (user, password) in [
        ("alice", "open sesam"),
        ("alice", ""),
        ("alice", ":open sesame"),
        ("Alice", "open sesame"),
        ("", "open sesame"),
        ("carol", "open sesame"),
        ("# team a", "open sesame"),
    ] {
        assert_eq!(refused(bench.identify(&basic(user, password)).await), WRONG, "{user}");
    }
}

#[tokio::test]
async fn what_is_no_login_is_told_so() {
    let bench = Bench::with_users(&format!("alice:{SESAME}\n"));
    let no_scheme = "the Authorization header has no scheme that is served here";
    for header in ["", "Basic", "Negotiate abc", "Bearer a.b.c", "Digest username=\"alice\""] {
        assert_eq!(refused(bench.identify(header).await), no_scheme, "{header}");
    }
    let malformed = "the Authorization header is not Basic's: Base64 of user:password in UTF-8";
    let no_text = format!("Basic {}", BASE64.encode(b"al\xffice:open sesame"));
    let no_colon = format!("Basic {}", BASE64.encode("alice"));
    for header in ["Basic !", "Basic ", &no_colon, &no_text] {
        assert_eq!(refused(bench.identify(header).await), malformed, "{header}");
    }
}

#[tokio::test]
async fn a_right_password_is_hashed_once_and_a_connection_asks_nobody() {
    let bench = Bench::with_users(&format!("alice:{SESAME}\n"));
    let users = bench.authenticator.users().expect("users");
    let connection = Remembered::default();
    bench.identify_on(&basic("alice", "open sesame"), &connection).await.expect("right");
    // Nobody can hash any more: what is known goes on.
    let _turns = users.take_all_turns().await;
    bench.identify(&basic("alice", "open sesame")).await.expect("another connection");
    assert_eq!(bench.logins("basic", "ok"), 2);
    bench.identify_on(&basic("alice", "open sesame"), &connection).await.expect("the same connection");
    assert_eq!(bench.logins("basic", "ok"), 2, "it was remembered");
    let header = HeaderValue::from_str(&basic("alice", "open sesamE")).expect("a value");
    let other = bench.authenticator.identify(&header, &bench.caller, &connection);
    assert!(futures_never(other).await, "another password has to be hashed");
}

/// Whether a future is still pending after it was polled.
async fn futures_never<T>(future: impl Future<Output = T>) -> bool {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

#[tokio::test]
async fn a_flood_of_wrong_passwords_is_stopped_and_those_who_are_known_go_on() {
    let bench = Bench::with_users(&format!("alice:{SESAME}\nbob:{SESAME}\n"));
    bench.identify(&basic("alice", "open sesame")).await.expect("right");
    for index in 0..attempts::BURST {
        assert_eq!(refused(bench.identify(&basic("alice", &index.to_string())).await), WRONG);
    }
    let too_many = bench.identify(&basic("nobody", "x")).await;
    assert!(matches!(too_many, Err(LoginError::TooMany(wait)) if wait <= attempts::FORGIVEN_AFTER), "{too_many:?}");
    bench.identify(&basic("bob", "open sesame")).await.expect_err("a new login from that address has to wait");
    bench.identify(&basic("alice", "open sesame")).await.expect("she is known");
    assert_eq!(refused(bench.identify(&basic("alice", "3")).await), WRONG, "known to be wrong, and free");
    let elsewhere = Rc::new(Caller::of_socket(([192, 0, 2, 8], 4000).into()));
    let header = HeaderValue::from_str(&basic("bob", "open sesame")).expect("a value");
    let remembered = Remembered::default();
    bench.authenticator.identify(&header, &elsewhere, &remembered).await.expect("from another address");
    assert_eq!(bench.logins("basic", "too_many"), 2);
}

#[tokio::test]
async fn more_than_can_be_hashed_is_refused_for_now() {
    let bench = Rc::new(Bench::with_users(&format!("alice:{SESAME}\n")));
    let users = bench.authenticator.users().expect("users");
    let turns = users.take_all_turns().await;
    let local = tokio::task::LocalSet::new();
    let mut waiting = Vec::new();
    for index in 0..300_u16 {
        let bench = bench.clone();
        waiting.push(local.spawn_local(async move {
            let [high, low] = index.to_be_bytes();
            let caller = Rc::new(Caller::of_socket(([192, 0, high, low], 4000).into()));
            let header = HeaderValue::from_str(&basic("alice", "open sesame")).expect("a value");
            bench.authenticator.identify(&header, &caller, &Remembered::default()).await.map(drop)
        }));
    }
    local
        .run_until(async {
            let mut results = Vec::new();
            // Those that there is no place for come back at once.
            for task in waiting.split_off(256) {
                results.push(task.await.expect("no panic"));
            }
            assert_eq!(results, vec![Err(LoginError::Unavailable); 44]);
            drop(turns);
            for task in waiting {
                assert_eq!(task.await.expect("no panic"), Ok(()));
            }
        })
        .await;
}

#[tokio::test]
async fn a_reload_takes_effect_on_open_connections_and_a_bad_file_does_not() {
    let bench = Bench::with_users(&format!("alice:{SESAME}\nbob:{SESAME}\n"));
    let (alice, bob) = (Remembered::default(), Remembered::default());
    let users = bench.authenticator.users().expect("users");
    let header = |user: &str| basic(user, "open sesame");
    bench.identify_on(&header("alice"), &alice).await.expect("right");
    bench.identify_on(&header("bob"), &bob).await.expect("right");

    bench.write_users("alice:secret\n");
    let problem = users.reload().expect_err("no hash");
    assert!(problem.ends_with("line 1: must be a hash: Argon2 ($argon2id$…) or bcrypt ($2b$…)"), "{problem}");
    assert!(!problem.contains("secret"), "{problem}");
    bench.identify_on(&header("bob"), &bob).await.expect("as before");

    bench.write_users(&format!("alice:{SESAME}\nbob:{SESAME_BCRYPT}\ncarol:{SESAME}\n"));
    bench.identify(&header("carol")).await.expect_err("not yet");
    users.reload().expect("good");
    bench.identify(&header("carol")).await.expect("what was wrong may be right now");
    bench.write_users(&format!("alice:{SESAME}\n"));
    users.reload().expect("good");
    bench.identify_on(&header("bob"), &bob).await.expect_err("he is gone");
    // Her hash is the same, so it need not be computed again.
    let _turns = users.take_all_turns().await;
    bench.identify_on(&header("alice"), &alice).await.expect("as before");
}

#[test]
fn files_of_users_are_read_line_by_line_and_mistakes_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("users");
    for (text, expected) in [
        (String::new(), "has no users"),
        ("# nobody\n".to_owned(), "has no users"),
        (format!("alice:{SESAME}\nbob"), "line 2: must be name:hash"),
        (format!(":{SESAME}"), "line 1: has no name"),
        (format!("a:{SESAME}\nb:{SESAME}\na:{SESAME}"), "line 3: \"a\" is there already"),
        ("a:hunter2".to_owned(), "line 1: must be a hash"),
    ] {
        std::fs::write(&path, &text).expect("written");
        let problem = UserFile::read(&path).expect_err(&text);
        assert!(problem.contains(expected) && !problem.contains("hunter2"), "{problem}");
    }
    assert!(UserFile::read(&folder.path().join("none")).expect_err("not there").contains("cannot be read"));
    let made = format!("carol:{}\n", hash_password(b"x"));
    std::fs::write(&path, made).expect("written");
    UserFile::read(&path).expect("a line of ours is one");
}

#[test]
fn the_challenges_name_what_is_served() {
    let bench = Bench::with_users(&format!("alice:{SESAME}\n"));
    assert_eq!(bench.authenticator.challenges(None), ["Basic realm=\"penstock\", charset=\"UTF-8\""]);
    let bench = Bench::with_keys(&json!({"keys": [Issuer::new("k").jwk()]}));
    assert_eq!(bench.authenticator.challenges(None), ["Bearer realm=\"penstock\""]);
    let token = HeaderValue::from_static("Bearer a.b.c");
    assert_eq!(bench.authenticator.challenges(Some(&token)), ["Bearer realm=\"penstock\", error=\"invalid_token\""]);
}

/// Signs tokens with an ECDSA key.
struct Issuer {
    id: &'static str,
    key: EncodingKey,
    x: String,
    y: String,
}

impl Issuer {
    fn new(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let pkcs8 = pair.to_pkcs8v1().expect("encoded");
        let point = pair.public_key().as_ref();
        let (x, y) = (BASE64_URL.encode(&point[1..33]), BASE64_URL.encode(&point[33..]));
        Self { id, key: EncodingKey::from_ec_der(pkcs8.as_ref()), x, y }
    }

    fn jwk(&self) -> Value {
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id, "x": self.x, "y": self.y})
    }

    fn token(&self, claims: &Value) -> String {
        self.token_with(Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) }, claims)
    }

    fn token_with(&self, header: Header, claims: &Value) -> String {
        format!("Bearer {}", encode(&header, claims, &self.key).expect("signed"))
    }
}

fn settings(path: PathBuf) -> Jwt {
    Jwt {
        keys: crate::config::JwtKeys::File(path),
        issuer: "https://idp.example".to_owned(),
        audience: "penstock".to_owned(),
        algorithms: vec![Algorithm::ES256, Algorithm::RS256],
        clock_skew: Duration::from_secs(60),
        user_claim: "sub".to_owned(),
    }
}

fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after the epoch");
    i64::try_from(now.as_secs()).expect("soon") + seconds
}

/// Good claims, but for `changes`; null takes one away.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "https://idp.example", "aud": "penstock", "sub": "alice", "exp": seconds_from_now(300),
    });
    for (name, value) in changes.as_object().expect("changes") {
        if value.is_null() {
            claims.as_object_mut().expect("claims").remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

#[tokio::test]
async fn a_token_counts_if_everything_about_it_is_right() {
    let issuer = Issuer::new("one");
    let bench = Bench::with_keys(&json!({"keys": [issuer.jwk()]}));
    for good in [
        json!({}),
        json!({"aud": ["other", "penstock"]}),
        json!({"nbf": seconds_from_now(30), "exp": seconds_from_now(-30)}),
        json!({"exp": 1e18}),
    ] {
        let token = issuer.token(&claims(good.clone()));
        assert_eq!(bench.identify(&token).await, Ok("alice".to_owned()), "{good}");
    }
    for (bad, why) in [
        (json!({"exp": seconds_from_now(-90)}), "the token has expired"),
        (json!({"exp": null}), "the token lacks exp, iss or aud"),
        (json!({"exp": "soon"}), "the token lacks exp, iss or aud"),
        (json!({"nbf": seconds_from_now(90)}), "the token does not hold yet"),
        (json!({"iss": "https://idp.example/"}), "the token is of another issuer"),
        (json!({"iss": ["https://idp.example"]}), "the token is of another issuer"),
        (json!({"iss": null}), "the token lacks exp, iss or aud"),
        (json!({"aud": "other"}), "the token is for another audience"),
        (json!({"aud": []}), "the token is for another audience"),
        (json!({"aud": null}), "the token lacks exp, iss or aud"),
        (json!({"sub": null}), "the token does not name a user in the claim that counts here"),
        (json!({"sub": ""}), "the token does not name a user in the claim that counts here"),
        (json!({"sub": 7}), "the token does not name a user in the claim that counts here"),
    ] {
        assert_eq!(refused(bench.identify(&issuer.token(&claims(bad.clone()))).await), why, "{bad}");
    }
}

#[tokio::test]
async fn only_keys_of_the_set_and_algorithms_of_the_list_sign() {
    let issuer = Issuer::new("one");
    let bench = Bench::with_keys(&json!({"keys": [issuer.jwk()]}));
    let good = issuer.token(&claims(json!({})));
    let (rest, signature) = good.rsplit_once('.').expect("three parts");
    let (head, _) = rest.rsplit_once('.').expect("three parts");

    let forged = format!("{head}.{}.{signature}", BASE64_URL.encode(claims(json!({"sub": "root"})).to_string()));
    assert_eq!(refused(bench.identify(&forged).await), "the token's signature is wrong");
    let stranger = Issuer::new("one");
    assert_eq!(refused(bench.identify(&stranger.token(&claims(json!({})))).await), "the token's signature is wrong");
    let unknown = Issuer::new("two").token(&claims(json!({})));
    assert_eq!(refused(bench.identify(&unknown).await), "the token is signed by a key that is not known here");

    // A key that the token brings itself is none.
    let jwk = serde_json::from_value(stranger.jwk()).expect("a key");
    let header = Header { jwk: Some(jwk), kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
    let brought = stranger.token_with(header, &claims(json!({})));
    assert_eq!(refused(bench.identify(&brought).await), "the token's signature is wrong");
    let header = Header { crit: Some(vec!["b64".to_owned()]), ..Header::new(Algorithm::ES256) };
    let critical = issuer.token_with(header, &claims(json!({})));
    assert_eq!(refused(bench.identify(&critical).await), "the token has extensions that are not understood here");
    // Without an id any key of its kind will do.
    let anonymous = issuer.token_with(Header::new(Algorithm::ES256), &claims(json!({})));
    assert_eq!(bench.identify(&anonymous).await, Ok("alice".to_owned()));

    // The public key, as everybody can read it, is no secret to sign with.
    let secret = EncodingKey::from_secret(issuer.jwk().to_string().as_bytes());
    let mac = encode(&Header::new(Algorithm::HS256), &claims(json!({})), &secret).expect("signed");
    let not_believed = "the token is signed by an algorithm that is not believed here";
    assert_eq!(refused(bench.identify(&format!("Bearer {mac}")).await), not_believed);
    let payload = BASE64_URL.encode(claims(json!({})).to_string());
    for algorithm in ["none", "None", "NONE", ""] {
        let header = BASE64_URL.encode(json!({"alg": algorithm, "typ": "JWT"}).to_string());
        let unsigned = format!("Bearer {header}.{payload}.");
        assert_eq!(refused(bench.identify(&unsigned).await), "the token is no JSON Web Token", "{algorithm}");
    }
    for garbage in ["Bearer x", "Bearer ..", "Bearer a.b.c.d", "Bearer \u{7f}"] {
        let header = HeaderValue::from_bytes(garbage.as_bytes());
        if header.is_ok() {
            bench.identify(garbage).await.expect_err(garbage);
        }
    }
}

#[tokio::test]
async fn rsa_keys_sign_as_their_set_says() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let public = pair.public_key();
    let n = BASE64_URL.encode(public.modulus().big_endian_without_leading_zero());
    let e = BASE64_URL.encode(public.exponent().big_endian_without_leading_zero());
    // What signs is PKCS#1 within PKCS#8.
    let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().expect("encoded");
    let key = EncodingKey::from_rsa_der(&pkcs8.as_ref()[26..]);
    let token = |algorithm| {
        let header = Header { kid: Some("r".to_owned()), ..Header::new(algorithm) };
        format!("Bearer {}", encode(&header, &claims(json!({})), &key).expect("signed"))
    };
    let jwk = json!({"kty": "RSA", "kid": "r", "n": n, "e": e});
    let bench = Bench::with_keys(&json!({"keys": [jwk.clone()]}));
    assert_eq!(bench.identify(&token(Algorithm::RS256)).await, Ok("alice".to_owned()));
    let not_believed = "the token is signed by an algorithm that is not believed here";
    assert_eq!(refused(bench.identify(&token(Algorithm::PS256)).await), not_believed);
    let mut bound = jwk;
    bound["alg"] = json!("PS256");
    let bench = Bench::with_keys(&json!({"keys": [bound]}));
    let unknown = "the token is signed by a key that is not known here";
    assert_eq!(refused(bench.identify(&token(Algorithm::RS256)).await), unknown, "the key is for another algorithm");
}

#[test]
fn sets_have_at_least_one_public_key_and_the_rest_is_skipped() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jwks.json");
    let read = |text: &str| {
        std::fs::write(&path, text).expect("written");
        KeySet::read(&path).map(drop)
    };
    let good = Issuer::new("one").jwk();
    let odd = [
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "one"}),
        json!({"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "PQC", "alg": "ML-DSA-44", "pub": "AA"}),
        json!("no key"),
    ];
    for set in odd.iter().map(|key| json!({"keys": [key]})).chain([json!({"keys": []})]) {
        assert!(read(&set.to_string()).expect_err("nothing").ends_with("has no public key for signatures"));
    }
    let mixed: Vec<_> = odd.into_iter().chain([good.clone()]).collect();
    read(&json!({"keys": mixed}).to_string()).expect("one is enough");
    read(&json!({"keys": vec![good; 101]}).to_string()).expect_err("too many");
    assert!(read("{").expect_err("no JSON").contains("is no JWK set"));
}

#[tokio::test]
async fn a_changed_set_takes_effect_on_open_connections_and_a_bad_one_does_not() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let bench = Bench::with_keys(&json!({"keys": [old.jwk()]}));
    let tokens = bench.authenticator.tokens().expect("tokens");
    let write = |text: &str| std::fs::write(bench.folder.path().join("jwks.json"), text).expect("written");
    let connection = Remembered::default();
    let token = old.token(&claims(json!({})));
    bench.identify_on(&token, &connection).await.expect("right");
    write("{\"keys\":[");
    tokens.reload().expect_err("half a file");
    bench.identify_on(&token, &connection).await.expect("as before");
    assert_eq!(bench.logins("bearer", "ok"), 1, "it was remembered");
    write(&json!({"keys": [old.jwk(), new.jwk()]}).to_string());
    tokens.reload().expect("good");
    bench.identify(&new.token(&claims(json!({})))).await.expect("both sign");
    bench.identify_on(&token, &connection).await.expect("both sign");
    write(&json!({"keys": [new.jwk()]}).to_string());
    tokens.reload().expect("good");
    bench.identify_on(&token, &connection).await.expect_err("withdrawn");
}

#[tokio::test(start_paused = true)]
async fn a_remembered_token_ends_when_it_ends() {
    let issuer = Issuer::new("one");
    let bench = Bench::with_keys(&json!({"keys": [issuer.jwk()]}));
    let connection = Remembered::default();
    let token = issuer.token(&claims(json!({})));
    bench.identify_on(&token, &connection).await.expect("right");
    // 300 s, and 60 s of skew; the wall clock stands still, so it is right when it is looked at again.
    tokio::time::advance(Duration::from_secs(350)).await;
    bench.identify_on(&token, &connection).await.expect("right");
    assert_eq!(bench.logins("bearer", "ok"), 1);
    tokio::time::advance(Duration::from_secs(20)).await;
    bench.identify_on(&token, &connection).await.expect("right");
    assert_eq!(bench.logins("bearer", "ok"), 2, "it was verified again");
}
