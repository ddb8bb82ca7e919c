use crate::harness::{Bridge, run};

#[test]
fn topics_are_created_described_listed_and_deleted() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let wanted = b"{\"partitions\":3,\"replication_factor\":1,\"configs\":{\"retention.ms\":60000}}";
        let created = client.request("PUT", "/v1/topics/new", &[], wanted).await;
        assert_eq!((created.status, &created.json()["partitions"]), (201, &3.into()), "{}", created.text());
        assert_eq!(client.request("PUT", "/v1/topics/new", &[], wanted).await.status, 200, "the same numbers");
        let other = client.request("PUT", "/v1/topics/new", &[], b"{\"partitions\":4}").await;
        assert_eq!(other.error_code(), 409);

        let described = client.request("GET", "/v1/topics/new", &[], b"").await.json();
        assert_eq!((&described["topic"], &described["replication_factor"]), (&"new".into(), &1.into()), "{described}");
        assert_eq!(described["partitions"].as_array().map(Vec::len), Some(3));
        assert!(described["partitions"][0]["leader"].is_number());

        let listed = client.request("GET", "/v1/topics", &[], b"").await.json();
        let names: Vec<_> = listed["topics"].as_array().expect("a list").iter().map(|topic| &topic["topic"]).collect();
        assert_eq!(names, ["events", "new"]);

        // Written to, once it is there; and gone after it was deleted.
        assert_eq!(client.request("POST", "/v1/topics/new/records", &[], b"x").await.status, 200);
        assert_eq!(client.request("DELETE", "/v1/topics/new", &[], b"").await.status, 204);
        assert_eq!(client.request("DELETE", "/v1/topics/new", &[], b"").await.error_code(), 40401);
    });
}

#[test]
fn what_no_topic_can_be_is_refused() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        for body in
            ["{\"partitions\":0}", "{\"partition\":1}", "[]", "{\"partitions\":\"x\"}", "{\"replication_factor\":-2}"]
        {
            assert_eq!(client.request("PUT", "/v1/topics/new", &[], body.as_bytes()).await.error_code(), 400, "{body}");
        }
        let long = format!("{{\"configs\":{{\"a\":\"{}\"}}}}", "x".repeat(70_000));
        assert_eq!(client.request("PUT", "/v1/topics/new", &[], long.as_bytes()).await.error_code(), 413);
    });
}
