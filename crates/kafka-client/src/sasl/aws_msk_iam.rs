//! AWS_MSK_IAM: a request to `kafka-cluster:Connect`, signed and never sent, whose signature MSK checks.
//!
//! The mechanism is one JSON message with the query of a presigned URL (AWS Signature Version 4, by query) in lower
//! case, and one JSON answer. The request that is signed is
//!
//! ```text
//! GET https://HOST/?Action=kafka-cluster%3AConnect&X-Amz-Algorithm=…&X-Amz-Credential=…&…
//! ```
//!
//! with no header but `Host`, the name of the broker that is dialled, and an empty body.

use super::{Mechanism, Message, Refusal, Secret, Step};
use aws_lc_rs::{digest, hmac};
use serde_json::{Map, Value};
use std::{fmt::Write as _, time::SystemTime};

/// The name under which SigV4 knows brokers.
const SERVICE: &str = "kafka-cluster";
const ACTION: &str = "kafka-cluster:Connect";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// For how long the signature is good, in seconds: between its making and the broker's look at it, clocks' differences
/// included. As AWS's own library has it.
const EXPIRES: &str = "900";
/// The format of the JSON message.
const VERSION: &str = "2020_10_22";

/// What AWS gives out to sign with.
#[derive(Debug, Clone)]
pub struct AwsCredentials {
    /// Public.
    pub access_key_id: String,
    /// What signs.
    pub secret_access_key: Secret,
    /// With temporary credentials, which roles have.
    pub session_token: Option<Secret>,
}

/// The exchange.
pub(super) struct AwsMskIam {
    host: String,
    region: String,
    credentials: AwsCredentials,
    now: SystemTime,
}

impl AwsMskIam {
    /// `now`: the date of the signature.
    pub(super) fn new(region: &str, host: &str, credentials: AwsCredentials, now: SystemTime) -> Self {
        Self { host: host.to_owned(), region: region.to_owned(), credentials, now }
    }
}

impl Mechanism for AwsMskIam {
    fn first(&mut self) -> Result<Message, Refusal> {
        let timestamp = Timestamp::of(self.now)?;
        let scope = format!("{}/{}/{SERVICE}/aws4_request", timestamp.date(), self.region);
        let credential = format!("{}/{scope}", self.credentials.access_key_id);
        let mut query = vec![
            ("Action", ACTION),
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", timestamp.text()),
            ("X-Amz-Expires", EXPIRES),
        ];
        if let Some(token) = &self.credentials.session_token {
            query.push(("X-Amz-Security-Token", token.reveal()));
        }
        query.push(("X-Amz-SignedHeaders", "host"));
        let request = Request { host: &self.host, path: "/", query: &query, body_hash: EMPTY_BODY };
        let secret = self.credentials.secret_access_key.reveal();
        let signature = request.sign(secret, &timestamp, &self.region, SERVICE);

        let fields = [
            ("version", VERSION),
            ("host", &self.host),
            ("user-agent", concat!("penstock/", env!("CARGO_PKG_VERSION"))),
        ];
        let lower = query.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value));
        let all = fields.iter().map(|(name, value)| ((*name).to_owned(), *value)).chain(lower);
        let mut payload: Map<String, Value> = all.map(|(name, value)| (name, value.into())).collect();
        payload.insert("x-amz-signature".to_owned(), signature.into());
        Ok(Message::new(Value::Object(payload).to_string().into_bytes()))
    }

    fn step(&mut self, challenge: &[u8]) -> Result<Step, Refusal> {
        if challenge.is_empty() {
            // MSK's way to say no.
            return Err(Refusal::Refused("no answer to the signature, which is how MSK refuses one".to_owned()));
        }
        match serde_json::from_slice::<Value>(challenge) {
            Ok(Value::Object(answer)) if answer.get("version").and_then(Value::as_str) == Some(VERSION) => {
                Ok(Step::Done)
            }
            _ => Err(Refusal::Peer("the broker's answer is not one of AWS_MSK_IAM")),
        }
    }
}

/// SHA-256 of nothing.
const EMPTY_BODY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A request without headers but `Host`, to be signed by its query.
struct Request<'a> {
    host: &'a str,
    path: &'a str,
    /// In the order of their encoded names.
    query: &'a [(&'a str, &'a str)],
    body_hash: &'a str,
}

impl Request<'_> {
    /// Signature Version 4, in hexadecimal.
    fn sign(&self, secret: &str, timestamp: &Timestamp, region: &str, service: &str) -> String {
        let canonical = self.canonical();
        let scope = format!("{}/{region}/{service}/aws4_request", timestamp.date());
        let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let string_to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{hashed}", timestamp.text());
        let mut key = zeroize::Zeroizing::new(format!("AWS4{secret}").into_bytes());
        for part in [timestamp.date(), region, service, "aws4_request"] {
            key = zeroize::Zeroizing::new(hmac_sha256(&key, part).as_ref().to_vec());
        }
        hex(hmac_sha256(&key, &string_to_sign).as_ref())
    }

    fn canonical(&self) -> String {
        let Self { host, path, query, body_hash } = self;
        let mut canonical = format!("GET\n{path}\n");
        for (index, (name, value)) in query.iter().enumerate() {
            canonical.push_str(if index == 0 { "" } else { "&" });
            encode(&mut canonical, name);
            canonical.push('=');
            encode(&mut canonical, value);
        }
        let _infallible = write!(canonical, "\nhost:{host}\n\nhost\n{body_hash}");
        canonical
    }
}

fn hmac_sha256(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// Percent encoding of all but RFC 3986's unreserved characters.
fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _infallible = write!(out, "%{byte:02X}");
            }
        }
    }
}

/// `20260102T030405Z`, in UTC.
struct Timestamp(String);

impl Timestamp {
    fn of(time: SystemTime) -> Result<Self, Refusal> {
        const DAY: u64 = 86_400;
        // Years of five digits do not fit the format.
        const END: u64 = 253_402_300_800;
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).ok();
        let seconds = seconds.filter(|s| *s < END).ok_or(Refusal::Unfit("the clock shows no date to sign with"))?;
        let (days, second) = (seconds / DAY, seconds % DAY);
        // Days to a date, by eras of 400 years that begin on a 1 March: a leap day is the last of its year.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        Ok(Self(format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")))
    }

    fn text(&self) -> &str {
        &self.0
    }

    fn date(&self) -> &str {
        &self.0[..8]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_presigned_url_agrees_with_the_published_example() {
        // "Authenticating requests: using query parameters" of the S3 API reference: GET test.txt, 24 May 2013.
        let timestamp = Timestamp::of(at(1_369_353_600)).expect("a date");
        let query = [
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"),
            ("X-Amz-Date", "20130524T000000Z"),
            ("X-Amz-Expires", "86400"),
            ("X-Amz-SignedHeaders", "host"),
        ];
        let request = Request {
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            query: &query,
            body_hash: "UNSIGNED-PAYLOAD",
        };
        assert_eq!(timestamp.text(), "20130524T000000Z");
        assert_eq!(
            request.sign("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", &timestamp, "us-east-1", "s3"),
            "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    #[test]
    fn the_signing_key_s_hashes_agree_with_sha_256_of_nothing() {
        assert_eq!(hex(digest::digest(&digest::SHA256, b"").as_ref()), EMPTY_BODY);
    }

    #[test]
    fn dates_are_right_around_leap_days_and_centuries() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_709_164_800, "20240229T000000Z"),
            (1_767_225_599, "20251231T235959Z"),
            (1_767_323_045, "20260102T030405Z"),
            (4_107_542_400, "21000301T000000Z"),
            (253_402_300_799, "99991231T235959Z"),
        ] {
            assert_eq!(Timestamp::of(at(seconds)).expect("a date").text(), text);
        }
        assert!(Timestamp::of(at(253_402_300_800)).is_err());
        assert!(Timestamp::of(at(0) - Duration::from_secs(1)).is_err());
    }

    fn payload(session_token: Option<&str>) -> Map<String, Value> {
        let credentials = AwsCredentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: session_token.map(Secret::new),
        };
        let mut exchange = AwsMskIam::new("us-west-2", "b-3.unit-test.example", credentials, at(1_767_323_045));
        let message = exchange.first().expect("signed");
        let Ok(Value::Object(payload)) = serde_json::from_slice(&message) else { panic!("JSON") };
        payload
    }

    #[test]
    fn the_message_has_the_query_in_lower_case() {
        let payload = payload(None);
        let expected = [
            ("version", "2020_10_22"),
            ("host", "b-3.unit-test.example"),
            ("action", "kafka-cluster:Connect"),
            ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
            ("x-amz-credential", "AKIDEXAMPLE/20260102/us-west-2/kafka-cluster/aws4_request"),
            ("x-amz-date", "20260102T030405Z"),
            ("x-amz-expires", "900"),
            ("x-amz-signedheaders", "host"),
        ];
        for (name, value) in expected {
            assert_eq!(payload[name], value, "{name}");
        }
        assert!(payload["user-agent"].as_str().is_some_and(|agent| agent.starts_with("penstock/")));
        assert_eq!(payload["x-amz-signature"].as_str().map(str::len), Some(64));
        assert_eq!(payload.len(), expected.len() + 2);
    }

    #[test]
    fn the_signature_agrees_with_that_of_an_independent_client() {
        // What the tests of kafkajs-msk-iam-authentication-mechanism expect, midnight of 1 January 2021.
        let credentials = AwsCredentials {
            access_key_id: "accessKeyId".to_owned(),
            secret_access_key: Secret::new("secretAccessKey"),
            session_token: Some(Secret::new("sessionToken")),
        };
        let mut exchange = AwsMskIam::new("us-east-1", "examples.com", credentials, at(1_609_459_200));
        let message = exchange.first().expect("signed");
        let message: Value = serde_json::from_slice(&message).expect("JSON");
        assert_eq!(message["x-amz-date"], "20210101T000000Z");
        assert_eq!(message["x-amz-signature"], "3515d158e62c159a3d8d4344942cff44c865cdeac6748a4b5dc42686641bb272");
    }

    /// The official signer of AWS's SDK, as a second opinion on the same request.
    fn signed_by_aws(session_token: Option<&str>) -> String {
        use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
        use aws_sigv4::sign::v4;
        let identity = aws_credential_types::Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            session_token.map(str::to_owned),
            None,
            "test",
        )
        .into();
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_secs(900));
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-west-2")
            .name(SERVICE)
            .time(at(1_767_323_045))
            .settings(settings)
            .build()
            .expect("complete");
        let url = "https://b-3.unit-test.example/?Action=kafka-cluster%3AConnect";
        let request =
            SignableRequest::new("GET", url, std::iter::empty(), SignableBody::Bytes(b"")).expect("a request");
        let (_, signature) = sign(request, &parameters.into()).expect("signed").into_parts();
        signature
    }

    #[test]
    fn signatures_agree_with_those_of_the_official_signer() {
        // Characters that have to be encoded, as tokens have them.
        for token in [None, Some("IQoJb3JpZ2luX2VjE+/=="), Some("a b~c*é")] {
            assert_eq!(payload(token)["x-amz-signature"], signed_by_aws(token), "{token:?}");
        }
        assert_eq!(payload(Some("T+/="))["x-amz-security-token"], "T+/=");
    }

    #[test]
    fn an_empty_answer_is_a_refusal() {
        let credentials =
            AwsCredentials { access_key_id: "A".to_owned(), secret_access_key: Secret::new("s"), session_token: None };
        let exchange = || AwsMskIam::new("r", "h", credentials.clone(), at(0));
        assert!(matches!(exchange().step(b""), Err(Refusal::Refused(_))));
        for wrong in [&b"{}"[..], b"[]", b"{\"version\":\"2019\"}", b"\xff"] {
            assert!(matches!(exchange().step(wrong), Err(Refusal::Peer(_))));
        }
        assert_eq!(exchange().step(br#"{"version":"2020_10_22","request-id":"9ab"}"#), Ok(Step::Done));
    }
}
