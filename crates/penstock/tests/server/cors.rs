//! Web pages of other origins (Fetch standard).

use crate::harness::{Answer, Bridge, run};

const PATH: &str = "/v1/topics/events/records";
const APP: &str = "https://app.example";
const CORS: [&str; 6] = [
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-allow-credentials",
    "access-control-expose-headers",
    "access-control-max-age",
];

fn says_nothing(answer: &Answer) -> bool {
    CORS.iter().all(|name| answer.header(name).is_none())
}

async fn preflight(bridge: &Bridge, origin: &str) -> Answer {
    let wanted = [
        ("Origin", origin),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,kafka-key"),
    ];
    bridge.client().await.request("OPTIONS", PATH, &wanted, b"").await
}

#[test]
fn by_default_no_answer_says_a_word_of_it() {
    run(async {
        let bridge = Bridge::start().await;
        assert!(says_nothing(&preflight(&bridge, APP).await));
        let answer = bridge.client().await.request("POST", PATH, &[("Origin", APP)], b"x").await;
        assert!(answer.status == 200 && says_nothing(&answer) && answer.header("vary").is_none());
    });
}

#[test]
fn pages_of_a_named_origin_may_ask_and_read() {
    run(async {
        let settings = "[listen]\ncors_origins = [\"https://app.example\", \"http://localhost:3000\"]\n";
        let bridge = Bridge::with(settings).await;
        let allowed = preflight(&bridge, APP).await;
        assert_eq!(allowed.status, 204);
        assert_eq!(allowed.header("access-control-allow-origin"), Some(APP));
        assert_eq!(allowed.header("access-control-allow-headers"), Some("authorization,kafka-key"));
        assert!(allowed.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
        assert_eq!(allowed.header("access-control-allow-credentials"), None);
        assert_eq!(allowed.header("vary"), Some("Origin"));

        let mut client = bridge.client().await;
        client.request("POST", PATH, &[], b"x").await;
        let path = "/v1/topics/events/partitions/0/records?offset=earliest";
        let read = client.request("GET", path, &[("Origin", "http://localhost:3000")], b"").await;
        assert_eq!(read.header("access-control-allow-origin"), Some("http://localhost:3000"));
        let exposed = read.header("access-control-expose-headers").expect("some");
        assert!(read.header("kafka-next-offset").is_some() && exposed.contains("Kafka-Next-Offset"), "{exposed}");
        // A page must be able to read what went wrong, too.
        let missing = client.request("POST", "/v1/topics/none/records", &[("Origin", APP)], b"x").await;
        assert_eq!((missing.status, missing.header("access-control-allow-origin")), (404, Some(APP)));

        for other in ["https://evil.example", "https://app.example.evil.example", "http://app.example", "null"] {
            let refused = preflight(&bridge, other).await;
            assert!(refused.status == 403 && says_nothing(&refused), "{other}");
            let answer = client.request("GET", path, &[("Origin", other)], b"").await;
            assert!(says_nothing(&answer) && answer.header("vary") == Some("Origin"), "{other}");
        }
        // A request that no browser sent, and an OPTIONS that asks for something else.
        assert!(says_nothing(&client.request("GET", path, &[], b"").await));
        assert_eq!(client.request("OPTIONS", PATH, &[("Origin", APP)], b"").await.status, 405);
    });
}

#[test]
fn credentials_are_for_origins_by_name_alone() {
    run(async {
        let named = "[listen]\ncors_origins = [\"https://app.example\"]\ncors_credentials = true\n";
        let bridge = Bridge::with(named).await;
        let allowed = preflight(&bridge, APP).await;
        assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(allowed.header("access-control-allow-origin"), Some(APP));

        let bridge = Bridge::with("[listen]\ncors_origins = [\"*\"]\n").await;
        let allowed = preflight(&bridge, "https://anything.example").await;
        assert_eq!(allowed.header("access-control-allow-origin"), Some("*"));
        assert_eq!((allowed.header("access-control-allow-credentials"), allowed.header("vary")), (None, None));
    });
}
