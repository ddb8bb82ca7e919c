//! Who a caller is by a JSON Web Token, with the issuer's keys in a file or behind a URL.

use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Answer, Bridge, Client, run};

const RECORDS: &str = "/v1/topics/events/records";
const CHALLENGE: &str = "Bearer realm=\"penstock\"";

/// Who signs tokens.
struct Issuer {
    id: &'static str,
    key: EncodingKey,
    jwk: Value,
}

impl Issuer {
    fn new(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = pair.public_key().as_ref();
        let (x, y) = (BASE64_URL.encode(&point[1..33]), BASE64_URL.encode(&point[33..]));
        let jwk = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id, "x": x, "y": y});
        Self { id, key: EncodingKey::from_ec_der(pair.to_pkcs8v1().expect("encoded").as_ref()), jwk }
    }

    fn set(&self) -> String {
        json!({"keys": [self.jwk]}).to_string()
    }

    /// For a user, from now on for so long.
    fn token(&self, user: &str, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after the epoch");
        let expires = i64::try_from(now.as_secs()).expect("small") + seconds;
        let claims = json!({"iss": "https://idp.example", "aud": "penstock", "sub": user, "exp": expires});
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        format!("Bearer {}", encode(&header, &claims, &self.key).expect("signed"))
    }
}

fn settings(keys: &str) -> String {
    format!(
        "[auth.jwt]\nkeys = {keys:?}\nissuer = \"https://idp.example\"\naudience = \"penstock\"\n\
         [[access]]\nidentity = \"user:alice\"\ntopics = [\"events\"]\nallow = [\"produce\"]\n"
    )
}

async fn post(client: &mut Client, token: &str) -> Answer {
    client.request("POST", RECORDS, &[("Authorization", token)], b"x").await
}

#[test]
fn a_token_is_who_a_caller_is() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys.json");
        let issuer = Issuer::new("first");
        std::fs::write(&file, issuer.set()).expect("written");
        let bridge = Bridge::with(&settings(&file.display().to_string())).await;
        let mut client = bridge.client().await;
        let nobody = client.request("POST", RECORDS, &[], b"x").await;
        assert_eq!(nobody.error_code(), 40101);
        assert!(nobody.header("www-authenticate").is_some_and(|challenge| challenge.starts_with(CHALLENGE)));

        let alice = issuer.token("alice", 600);
        assert_eq!(post(&mut client, &alice).await.status, 200);
        assert_eq!(post(&mut client, &issuer.token("bob", 600)).await.error_code(), 40301, "known, and not allowed");
        let expired = post(&mut client, &issuer.token("alice", -600)).await;
        assert_eq!(expired.error_code(), 40101);
        assert!(expired.header("www-authenticate").is_some_and(|challenge| challenge.starts_with(CHALLENGE)));
        let forged = Issuer::new("first");
        assert_eq!(post(&mut client, &forged.token("alice", 600)).await.error_code(), 40101);
        // A request is nobody's but for its own header, whoever came before it on the connection.
        assert_eq!(client.request("POST", RECORDS, &[], b"x").await.error_code(), 40101);

        // Once the file has another key, a token that was believed on this very connection is not.
        let second = Issuer::new("second");
        std::fs::write(folder.path().join("next"), second.set()).expect("written");
        std::fs::rename(folder.path().join("next"), &file).expect("renamed");
        while post(&mut client, &second.token("alice", 600)).await.status != 200 {}
        assert_eq!(post(&mut client, &alice).await.error_code(), 40101);
    });
}

#[test]
fn keys_come_from_a_url() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let url = format!("http://{}/keys", listener.local_addr().expect("bound"));
        let issuer = Issuer::new("first");
        let set = issuer.set();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("the bridge asks");
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.expect("a request");
            assert!(request[..read].starts_with(b"GET /keys HTTP/1.1\r\n"));
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{set}", set.len());
            stream.write_all(answer.as_bytes()).await.expect("the bridge reads");
        });
        let bridge = Bridge::with(&settings(&url)).await;
        let mut client = bridge.client().await;
        assert_eq!(post(&mut client, &issuer.token("alice", 600)).await.status, 200);
        tokio::time::timeout(Duration::from_secs(60), serving).await.expect("it was asked").expect("once");
        assert_eq!(post(&mut client, &Issuer::new("other").token("alice", 600)).await.error_code(), 40101);
    });
}
