use super::*;
use crate::http1::close_after;
use hyper::StatusCode;
use std::task::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

const LIMITS: Limits = Limits {
    idle_timeout: Duration::from_secs(300),
    head_timeout: Duration::from_secs(5),
    max_age: None,
    head_bytes: 16 * 1024,
};

/// Answers by path.
#[derive(Default)]
struct Scripted {
    /// `/wait` answers when this says so.
    go: Notify,
    /// Requests that were answered or dropped: path, and whether they were answered.
    ended: Rc<RefCell<Vec<(String, bool)>>>,
    pieces: RefCell<Option<mpsc::UnboundedReceiver<Bytes>>>,
}

struct Ended(Rc<RefCell<Vec<(String, bool)>>>, String, bool);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.borrow_mut().push((std::mem::take(&mut self.1), self.2));
    }
}

struct Channel(mpsc::UnboundedReceiver<Bytes>);

impl PieceStream for Channel {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_recv(cx)
    }
}

impl Service for Scripted {
    async fn call(&self, request: Request<Body>) -> Response<ResponseBody> {
        let path = request.uri().path().to_owned();
        let mut ended = Ended(self.ended.clone(), path.clone(), false);
        let mut body = request.into_body();
        let response = match &path[..] {
            "/echo" => {
                let mut whole = Vec::new();
                loop {
                    match poll_fn(|cx| body.poll_next(cx)).await {
                        Ok(Some(piece)) => whole.extend_from_slice(&piece),
                        Ok(None) => break Response::new(ResponseBody::whole(whole)),
                        Err(error) => {
                            let mut response = Response::new(ResponseBody::whole(error.to_string()));
                            *response.status_mut() = StatusCode::BAD_REQUEST;
                            close_after(&mut response);
                            break response;
                        }
                    }
                }
            }
            "/wait" => {
                self.go.notified().await;
                Response::new(ResponseBody::whole("waited"))
            }
            "/pieces" => {
                let pieces = self.pieces.borrow_mut().take().expect("asked for once");
                Response::new(ResponseBody::pieces(Channel(pieces)))
            }
            "/large" => Response::new(ResponseBody::whole(vec![b'x'; 1 << 20])),
            _ => Response::new(ResponseBody::whole("early")),
        };
        ended.2 = true;
        response
    }

    fn refuse(&self, head: BadHead) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::whole(head.message));
        *response.status_mut() = head.status;
        response
    }
}

struct Client {
    stream: DuplexStream,
    service: Rc<Scripted>,
    stop: Stop,
    served: tokio::task::JoinHandle<()>,
}

impl Client {
    fn connect(limits: Limits) -> Self {
        let (stream, far) = tokio::io::duplex(16 * 1024);
        let service = Rc::new(Scripted::default());
        let stop = Stop::default();
        let serving = (service.clone(), stop.clone());
        let served = tokio::task::spawn_local(async move { serve(far, &*serving.0, limits, serving.1).await });
        Self { stream, service, stop, served }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("it is read");
    }

    async fn get(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
    }

    /// One answer with a length: its status line and headers, and its body.
    async fn answer(&mut self) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap_or_else(|error| panic!("{error} after {head:?}")));
        }
        let head = String::from_utf8(head).expect("ASCII");
        let length = head
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.split("\r\n").next().and_then(|length| length.parse().ok()).expect("a length"));
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.expect("all of it");
        (head, body)
    }

    async fn status(&mut self) -> u16 {
        self.answer().await.0[9..12].parse().expect("a status")
    }

    /// What comes until the end.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.expect("an end");
        rest
    }

    /// Waits until nothing happens any more at this moment.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

/// Runs a test of a current-thread runtime whose clock goes on when nothing else does.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("one");
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn requests_are_answered_in_their_order_pipelined_or_not() {
    run(async {
        let mut client = Client::connect(LIMITS);
        let post =
            |body: &str| format!("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        client.send(post("one")).await;
        assert_eq!(client.answer().await.1, b"one");
        let chunked = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n";
        client.send(format!("{chunked}{}{}", post("three"), post(""))).await;
        for body in [&b"two"[..], b"three", b""] {
            assert_eq!(client.answer().await.1, body);
        }
    });
}

#[test]
fn a_body_comes_whole_whatever_its_pieces() {
    run(async {
        let client = Client::connect(LIMITS);
        let body: Vec<u8> = (0..300_000_u32).map(|index| (index % 251) as u8).collect();
        let head = format!("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
        let (mut read, mut write) = tokio::io::split(client.stream);
        let sending = async {
            write.write_all(head.as_bytes()).await.expect("read");
            for piece in body.chunks(7919) {
                write.write_all(piece).await.expect("read");
            }
        };
        let mut answer = Vec::new();
        let reading = async {
            while !answer.ends_with(&body[body.len() - 1000..]) {
                read.read_buf(&mut answer).await.expect("more");
            }
        };
        tokio::join!(sending, reading);
        assert!(answer.ends_with(&body));
        client.stop.drain.cancel();
    });
}

#[test]
fn a_refused_head_ends_the_connection_and_hides_what_is_behind_it() {
    run(async {
        for (head, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505),
            ("\x16\x03\x01", 400),
        ] {
            let mut client = Client::connect(LIMITS);
            client.send(head).await;
            client.get("/canary").await;
            assert_eq!(client.status().await, status, "{head:?}");
            assert_eq!(client.rest().await, b"");
            assert!(client.service.ended.borrow().is_empty(), "{head:?}");
        }
    });
}

#[test]
fn bad_chunks_are_an_error_of_the_body() {
    run(async {
        let mut client = Client::connect(LIMITS);
        client.send("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await;
        let (head, body) = client.answer().await;
        assert!(head.starts_with("HTTP/1.1 400 ") && head.contains("connection: close"), "{head}");
        assert!(String::from_utf8_lossy(&body).contains("chunks"));
        assert_eq!(client.rest().await, b"");
    });
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_when_the_body_is_asked_for() {
    run(async {
        let mut client = Client::connect(LIMITS);
        let head = "HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        client.send(format!("POST /echo {head}")).await;
        assert_eq!(client.answer().await.0, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("ok").await;
        assert_eq!(client.answer().await.1, b"ok");
        // One that did not wait needs none.
        client.send(format!("POST /echo {head}ok")).await;
        assert_eq!(client.answer().await.1, b"ok");
        // Whose body is not asked for, keeps it, and the connection ends: nobody knows whether it will come.
        client.send(format!("POST /early {head}")).await;
        let (head, _) = client.answer().await;
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(client.rest().await, b"");
    });
}

#[test]
fn a_short_body_that_is_not_wanted_is_thrown_away() {
    run(async {
        let mut client = Client::connect(LIMITS);
        client.send("POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n01234").await;
        assert_eq!(client.status().await, 200);
        client.send("56789").await;
        client.get("/early").await;
        assert_eq!(client.status().await, 200);
    });
}

#[test]
fn a_long_body_that_is_not_wanted_ends_the_connection_after_a_moment() {
    run(async {
        let mut client = Client::connect(LIMITS);
        client.send("POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").await;
        let (head, _) = client.answer().await;
        assert!(head.contains("connection: close"), "{head}");
        let start = Instant::now();
        // Some of it is taken, so that a client that only writes comes to read.
        client.send(vec![0; 200 * 1024]).await;
        assert_eq!(client.rest().await, b"");
        client.served.await.expect("no panic");
        assert!(start.elapsed() <= DISCARD.1);
    });
}

#[test]
fn an_idle_connection_outlives_the_head_timeout_and_ends_at_its_own() {
    run(async {
        let mut client = Client::connect(LIMITS);
        client.get("/early").await;
        assert_eq!(client.status().await, 200);
        let start = Instant::now();
        assert_eq!(client.rest().await, b"");
        assert_eq!(start.elapsed(), LIMITS.idle_timeout);
    });
}

#[test]
fn a_slow_head_ends_at_the_head_timeout_however_often_a_byte_comes() {
    run(async {
        let mut client = Client::connect(LIMITS);
        tokio::time::sleep(Duration::from_secs(100)).await;
        let start = Instant::now();
        for byte in b"GET / HTTP" {
            if client.stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        client.served.await.expect("no panic");
        assert!(start.elapsed() >= LIMITS.head_timeout);
        assert_eq!(client.stream.read(&mut [0]).await.expect("an end"), 0);
        assert!(client.service.ended.borrow().is_empty());
    });
}

#[test]
fn a_request_that_waits_is_left_alone_until_its_client_goes_away() {
    run(async {
        let mut client = Client::connect(LIMITS);
        client.get("/wait").await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        client.service.go.notify_one();
        assert_eq!(client.answer().await.1, b"waited");
        client.get("/wait").await;
        Client::settle().await;
        let service = client.service.clone();
        drop(client);
        Client::settle().await;
        assert_eq!(service.ended.borrow()[..], [("/wait".to_owned(), true), ("/wait".to_owned(), false)]);
    });
}

#[test]
fn pieces_come_as_chunks_when_they_are_made() {
    run(async {
        let mut client = Client::connect(LIMITS);
        let (pieces, stream) = mpsc::unbounded_channel();
        *client.service.pieces.borrow_mut() = Some(stream);
        client.get("/pieces").await;
        let (head, _) = client.answer().await;
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let large = Bytes::from(vec![b'y'; SMALL_ANSWER + 1]);
        for (piece, wire) in [(Bytes::from("abc"), "3\r\nabc\r\n"), (Bytes::from("0123456789"), "a\r\n0123456789\r\n")]
        {
            pieces.send(piece).expect("taken");
            let mut chunk = vec![0; wire.len()];
            client.stream.read_exact(&mut chunk).await.expect("at once");
            assert_eq!(chunk, wire.as_bytes());
        }
        pieces.send(large.clone()).expect("taken");
        drop(pieces);
        let mut rest = vec![0; 6 + large.len() + 2 + 5];
        client.stream.read_exact(&mut rest).await.expect("at once");
        assert!(rest.starts_with(b"4001\r\nyy") && rest.ends_with(b"yy\r\n0\r\n\r\n"));
        client.get("/early").await;
        assert_eq!(client.status().await, 200);
    });
}

#[test]
fn to_http_1_0_pieces_end_with_the_connection() {
    run(async {
        let mut client = Client::connect(LIMITS);
        let (pieces, stream) = mpsc::unbounded_channel();
        *client.service.pieces.borrow_mut() = Some(stream);
        client.send("GET /pieces HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        pieces.send(Bytes::from("abc")).expect("taken");
        drop(pieces);
        let answer = String::from_utf8(client.rest().await).expect("text");
        assert!(answer.contains("connection: close") && answer.ends_with("\r\n\r\nabc"), "{answer}");
    });
}

#[test]
fn http_1_0_is_kept_alive_if_it_asks() {
    run(async {
        let mut client = Client::connect(LIMITS);
        client.send("GET /early HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        assert!(client.answer().await.0.contains("connection: keep-alive"));
        client.send("GET /early HTTP/1.0\r\n\r\n").await;
        assert!(client.answer().await.0.contains("connection: close"));
        assert_eq!(client.rest().await, b"");
    });
}

#[test]
fn head_is_answered_without_the_body() {
    run(async {
        let mut client = Client::connect(LIMITS);
        client.send("HEAD /early HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        let answer = String::from_utf8(client.rest().await).expect("text");
        assert!(answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    });
}

#[test]
fn an_answer_that_is_not_taken_ends_the_connection() {
    run(async {
        let client = Client::connect(LIMITS);
        let mut client = client;
        client.get("/large").await;
        let start = Instant::now();
        Client::settle().await;
        // It reads a little, and then no more.
        tokio::time::sleep(Duration::from_secs(100)).await;
        client.stream.read_exact(&mut [0; 1000]).await.expect("the front");
        (&mut client.served).await.expect("no panic");
        let silent = start.elapsed() - Duration::from_secs(100);
        assert!(silent >= LIMITS.idle_timeout && silent <= 2 * LIMITS.idle_timeout, "{silent:?}");
    });
}

#[test]
fn a_client_that_sends_may_leave_its_answer_unread() {
    run(async {
        let mut client = Client::connect(LIMITS);
        let (pieces, stream) = mpsc::unbounded_channel();
        *client.service.pieces.borrow_mut() = Some(stream);
        client.get("/pieces").await;
        Client::settle().await;
        pieces.send(Bytes::from(vec![b'x'; 100_000])).expect("taken");
        drop(pieces);
        // Whoever reads it meanwhile is somebody else; here nobody does, but bytes move.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(200)).await;
            client.stream.read_exact(&mut [0; 4096]).await.expect("still there");
        }
        let rest = client.stream.read(&mut [0; 10]).await.expect("still there");
        assert!(rest > 0 && !client.served.is_finished());
    });
}

#[test]
fn an_old_connection_ends_with_the_request_under_way() {
    run(async {
        let mut client = Client::connect(Limits { max_age: Some(Duration::from_secs(60)), ..LIMITS });
        tokio::time::sleep(Duration::from_secs(53)).await;
        client.get("/wait").await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        client.service.go.notify_one();
        assert!(client.answer().await.0.contains("connection: close"));
        assert_eq!(client.rest().await, b"");
        let mut asked = Client::connect(Limits { max_age: Some(Duration::from_secs(100)), ..LIMITS });
        let start = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            asked.get("/early").await;
            if asked.answer().await.0.contains("connection: close") {
                break;
            }
        }
        let age = start.elapsed();
        assert!((Duration::from_secs(80)..Duration::from_secs(91)).contains(&age), "{age:?}");
        let mut idle = Client::connect(Limits { max_age: Some(Duration::from_secs(60)), ..LIMITS });
        let start = Instant::now();
        assert_eq!(idle.rest().await, b"");
        let age = start.elapsed();
        assert!((Duration::from_secs(54)..=Duration::from_secs(60)).contains(&age), "{age:?}");
    });
}

#[test]
fn a_drain_ends_idle_connections_and_lets_requests_finish() {
    run(async {
        let mut idle = Client::connect(LIMITS);
        idle.get("/early").await;
        assert_eq!(idle.status().await, 200);
        idle.stop.drain.cancel();
        assert_eq!(idle.rest().await, b"");
        let mut busy = Client::connect(LIMITS);
        busy.get("/wait").await;
        Client::settle().await;
        busy.stop.drain.cancel();
        busy.service.go.notify_one();
        let (head, body) = busy.answer().await;
        assert!(head.contains("connection: close") && body == b"waited", "{head}");
        assert_eq!(busy.rest().await, b"");
    });
}

#[test]
fn a_connection_leaves_with_an_answer_at_a_moment_of_its_own() {
    run(async {
        let mut client = Client::connect(LIMITS);
        client.get("/early").await;
        assert_eq!(client.status().await, 200);
        client.stop.leave(Duration::from_secs(30));
        let start = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.get("/early").await;
            if client.answer().await.0.contains("connection: close") {
                break;
            }
        }
        assert!(start.elapsed() < Duration::from_secs(32), "{:?}", start.elapsed());
        assert_eq!(client.rest().await, b"");

        // Nothing is under way on an idle one, but something might come at this very moment.
        let mut idle = Client::connect(LIMITS);
        idle.stop.leave(Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(200)).await;
        idle.get("/early").await;
        assert!(idle.answer().await.0.contains("connection: close"));
        assert_eq!(idle.rest().await, b"");
    });
}

#[test]
fn a_drain_waits_for_the_first_request_of_a_new_connection() {
    run(async {
        let mut new = Client::connect(LIMITS);
        new.stop.drain.cancel();
        tokio::time::sleep(Duration::from_secs(4)).await;
        new.get("/early").await;
        assert!(new.answer().await.0.contains("connection: close"));
        assert_eq!(new.rest().await, b"");

        let mut silent = Client::connect(LIMITS);
        silent.stop.drain.cancel();
        let start = Instant::now();
        assert_eq!(silent.rest().await, b"");
        assert_eq!(start.elapsed().as_secs(), 5, "not for ever");
    });
}

#[test]
fn a_body_that_breaks_off_wakes_its_reader() {
    run(async {
        let mut client = Client::connect(LIMITS);
        client.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n012").await;
        Client::settle().await;
        client.stream.shutdown().await.expect("open");
        assert_eq!(client.status().await, 400);
        assert_eq!(client.service.ended.borrow()[..], [("/echo".to_owned(), true)]);
    });
}
