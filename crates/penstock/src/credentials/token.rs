//! Tokens from an authorization server: the client credentials grant of OAuth 2.0 (RFC 6749, section 4.4).

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use hyper::{
    Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use kafka_client::sasl::{BearerToken, Credentials, CredentialsError, Obtaining, Secret};
use zeroize::Zeroizing;

use super::{Kept, password::secret};
use crate::client::{Endpoint, Lines, RequestBody, Trust};

/// The longest answer worth reading.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// An authorization server, and who we are to it.
#[derive(Debug)]
pub struct TokenServer {
    endpoint: Endpoint,
    /// What follows the endpoint's base: a slash, if the URL ends in one.
    path: &'static str,
    client_id: String,
    client_secret: PathBuf,
    scope: Option<String>,
    kept: Kept<BearerToken>,
}

impl TokenServer {
    /// No request is made, and the secret's file is not read yet.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL, or with the authorities to believe. Without TLS the client's secret would be readable
    /// on its way, so that is for loopback only.
    pub fn new(
        url: &str,
        trust: Trust<'_>,
        client_id: String,
        client_secret: PathBuf,
        scope: Option<String>,
    ) -> Result<Self, String> {
        let (endpoint, path) = Endpoint::behind(url, trust)?;
        Ok(Self { endpoint, path, client_id, client_secret, scope, kept: Kept::new() })
    }

    async fn fetch(&self) -> Result<(BearerToken, Duration), CredentialsError> {
        let failed = |error: &dyn std::fmt::Display| CredentialsError::from(format!("{}: {error}", self.endpoint));
        let mut body = "grant_type=client_credentials".to_owned();
        if let Some(scope) = &self.scope {
            body.push_str("&scope=");
            form_encode(&mut body, scope);
        }
        let request = self
            .endpoint
            .request(self.path)
            .method(Method::POST)
            .header(AUTHORIZATION, self.authorization().await?)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(RequestBody::Whole(Bytes::from(body)))
            .map_err(|error| failed(&error))?;
        let mut connection = self.endpoint.connect().await.map_err(|error| failed(&error))?;
        let answer = connection.send(request).await.map_err(|error| failed(&error))?;
        let status = answer.status();
        let mut lines = Lines::new(answer.into_body(), MAX_ANSWER_BYTES);
        let answer = Zeroizing::new(lines.rest().await.map_err(|error| failed(&error))?);
        read_answer(status.as_u16(), &answer).map_err(|problem| failed(&problem))
    }

    /// Name and secret by HTTP's Basic scheme, each form-encoded before (RFC 6749, section 2.3.1).
    async fn authorization(&self) -> Result<HeaderValue, CredentialsError> {
        let secret = secret(self.client_secret.clone()).await?;
        let mut pair = Zeroizing::new(String::with_capacity(3 * (self.client_id.len() + secret.reveal().len()) + 1));
        form_encode(&mut pair, &self.client_id);
        pair.push(':');
        form_encode(&mut pair, secret.reveal());
        let value = Zeroizing::new(format!("Basic {}", BASE64.encode(&*pair)));
        let mut value = HeaderValue::from_str(&value).expect("Base64 fits into a header");
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Credentials<BearerToken> for TokenServer {
    fn credentials(&self) -> Obtaining<'_, BearerToken> {
        Box::pin(self.kept.get(self.fetch()))
    }

    fn refused(&self) {
        self.kept.forget();
    }
}

/// A token and how long it lives, or what the server says against it (RFC 6749, sections 5.1 and 5.2).
fn read_answer(status: u16, body: &[u8]) -> Result<(BearerToken, Duration), String> {
    /// Never the description of a parser's error: it would quote the token.
    #[derive(serde::Deserialize)]
    struct Answer {
        access_token: Option<String>,
        token_type: Option<String>,
        expires_in: Option<serde_json::Value>,
        error: Option<String>,
        error_description: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| format!("status {status}, and not JSON"))?;
    let token = answer.access_token.map(Secret::new);
    if status != 200 {
        let told = answer.error.into_iter().chain(answer.error_description).collect::<Vec<_>>().join(": ");
        let told: String = told.chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(format!("status {status} {told}").trim_end().to_owned());
    }
    let token = token.ok_or("an answer without access_token")?;
    if !answer.token_type.is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err("a token that is no bearer token".to_owned());
    }
    // Some servers write the number as text.
    let seconds = match answer.expires_in {
        Some(serde_json::Value::Number(number)) => number.as_u64(),
        Some(serde_json::Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    // A token of unknown end is for one login.
    Ok((BearerToken { token }, Duration::from_secs(seconds.unwrap_or(0))))
}

/// `application/x-www-form-urlencoded`, but a space as `%20`, which every decoder takes.
fn form_encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._*".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes any text");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    #[test]
    fn urls_without_tls_are_for_loopback() {
        let server = |url| TokenServer::new(url, Trust::Anyone, "id".to_owned(), PathBuf::new(), None);
        for right in ["https://idp.example.com/token", "https://idp.example.com", "http://127.0.0.1:80/t"] {
            assert!(server(right).is_ok(), "{right}");
        }
        for wrong in ["http://idp.example.com/token", "ftp://h/", "idp", "", "https://h/t?a=b", "https://u@h/t"] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn answers_are_read_as_the_rfc_says() {
        let body = br#"{"access_token":"abc.def","token_type":"Bearer","expires_in":3600}"#;
        let (token, lifetime) = read_answer(200, body).expect("a token");
        assert_eq!((token.token.reveal(), lifetime), ("abc.def", Duration::from_secs(3600)));
        let body = br#"{"access_token":"a","token_type":"bearer","expires_in":"60"}"#;
        assert_eq!(read_answer(200, body).expect("a token").1, Duration::from_secs(60));
        let body = br#"{"access_token":"a","token_type":"bearer"}"#;
        assert_eq!(read_answer(200, body).expect("a token").1, Duration::ZERO);
    }

    #[test]
    fn refusals_are_told_and_secrets_are_not() {
        let refusal = br#"{"error":"invalid_client","error_description":"no\u0007 such client"}"#;
        assert_eq!(read_answer(401, refusal).expect_err("refused"), "status 401 invalid_client: no such client");
        for (status, body) in [
            (200, &br#"{"access_token":"hunter2","token_type":"mac"}"#[..]),
            (200, br#"{"token_type":"bearer"}"#),
            (200, br#"{"access_token":"hunter2","token_type":"bearer""#),
            (200, br#"{"access_token":{"a":"hunter2"},"token_type":"bearer"}"#),
            (500, b"<html>hunter2"),
            (302, br#"{"access_token":"hunter2","token_type":"bearer"}"#),
        ] {
            let error = read_answer(status, body).expect_err("no token");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_grant_is_asked_for_once_and_anew_after_a_refusal() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let secret = folder.path().join("secret");
        fs::write(&secret, "p:w%d\n").expect("written");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let url = format!("http://{}/oauth2/token", listener.local_addr().expect("bound"));
        let server = TokenServer::new(&url, Trust::Anyone, "my id".to_owned(), secret, Some("a b".to_owned()));
        let server = server.expect("a URL");
        let serving = tokio::spawn(async move {
            for round in 1.. {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut request = String::new();
                while !request.ends_with("scope=a%20b") {
                    let mut bytes = [0; 1024];
                    let read = stream.read(&mut bytes).await.expect("a request");
                    assert_ne!(read, 0, "{request}");
                    request.push_str(std::str::from_utf8(&bytes[..read]).expect("text"));
                }
                let lower = request.to_ascii_lowercase();
                assert!(request.starts_with("POST /oauth2/token HTTP/1.1\r\n"), "{request}");
                assert!(lower.contains("content-type: application/x-www-form-urlencoded\r\n"), "{request}");
                assert!(lower.contains("content-length: 41\r\n"), "{request}");
                // my%20id:p%3Aw%25d
                assert!(request.contains("Basic bXklMjBpZDpwJTNBdyUyNWQ=\r\n"), "{request}");
                assert!(request.ends_with("\r\n\r\ngrant_type=client_credentials&scope=a%20b"), "{request}");
                let body = format!(r#"{{"access_token":"t{round}","token_type":"Bearer","expires_in":3600}}"#);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.expect("the client reads");
            }
        });
        let get = async || server.credentials().await.expect("a token").token.reveal().to_owned();
        assert_eq!((get().await, get().await), ("t1".to_owned(), "t1".to_owned()));
        server.refused();
        assert_eq!(get().await, "t2");
        serving.abort();
    }
}
