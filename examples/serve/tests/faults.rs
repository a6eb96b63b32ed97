//! Each kind of wrong request, and clients that are too many or too slow.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
};

use super::{
    client::{JSON, post_bytes, read, request, send},
    *,
};

#[test]
fn every_mistake_has_its_status_and_says_what_to_do() {
    let server =
        Server::start(&["--max-wait-ms", "0", "--max-body", "5000", "--max-items", "20", "--max-histories", "3"]);
    let id = server.recommender().catalogue().items()[0].id.clone();
    let many: Vec<&str> = vec![&id; 21];
    let everything: Vec<String> =
        server.recommender().catalogue().items().iter().take(20).map(|item| item.id.clone()).collect();
    let own = |k: u32| json!({ "history": everything, "only": everything, "own_items": false, "k": k });
    for (body, status, code) in [
        (json!({}), 422, "no_history"),
        (json!([]), 422, "no_history"),
        (json!("text"), 422, "invalid_body"),
        (json!({ "history": id }), 422, "invalid_body"),
        (json!({ "history": [1] }), 422, "invalid_body"),
        (json!({ "history": [id], "historie": [] }), 422, "invalid_body"),
        (json!({ "history": [] }), 422, "no_history"),
        (json!({ "history": [id], "histories": [] }), 422, "no_history"),
        (json!({ "histories": [], "user": "u" }), 422, "no_history"),
        (json!({ "histories": [] }), 422, "no_history"),
        (json!({ "histories": [{ "items": [id] }, { "items": [id], "name": 1 }] }), 422, "invalid_body"),
        (json!({ "histories": vec![json!([id]); 4] }), 422, "no_history"),
        (json!({ "histories": [id] }), 422, "invalid_body"),
        (json!({ "histories": [[[id]]] }), 422, "invalid_body"),
        (json!({ "history": ["no such item"] }), 422, "unknown_item"),
        (json!({ "history": ["x".repeat(3000)] }), 422, "unknown_item"),
        (json!({ "history": many }), 422, "too_many"),
        (json!({ "history": [id], "exclude": many }), 422, "too_many"),
        (json!({ "history": [id], "only": ["no such item"] }), 422, "unknown_item"),
        (json!({ "history": [id], "only": [] }), 422, "nothing_left"),
        (json!({ "history": [id], "categories": ["No such"] }), 422, "unknown_category"),
        (json!({ "history": [id], "k": 0 }), 422, "invalid_k"),
        (json!({ "history": [id], "k": 101 }), 422, "invalid_k"),
        (json!({ "history": [id], "k": -1 }), 422, "invalid_body"),
        (json!({ "history": [id], "k": 1.5 }), 422, "invalid_body"),
        (json!({ "history": [id], "seed": 1 }), 422, "seed_without_temperature"),
        (json!({ "history": [id], "temperature": "hot" }), 422, "invalid_body"),
        (json!({ "history": [id], "temperature": ["hot"] }), 422, "invalid_body"),
        (json!({ "history": [id], "temperature": [] }), 422, "invalid_temperature"),
        (json!({ "history": [id], "temperature": vec![1; 9] }), 422, "invalid_temperature"),
        (json!({ "history": [id], "temperature": -1 }), 422, "invalid_temperature"),
        (json!({ "history": [id], "temperature": 1e39 }), 422, "invalid_temperature"),
        (own(5), 422, "nothing_left"),
        (json!({ "history": [id], "user": "x".repeat(6000) }), 413, "body_too_large"),
    ] {
        let reply = server.recommend(&body);
        assert_eq!(reply.error(), (status, code.to_owned()), "{body}: {}", reply.text());
        assert!(reply.text().len() < 1000, "a message as long as what was sent");
    }
    let path = server.recommend(&json!({ "histories": [[id], [id, 7]] })).text();
    assert!(path.contains("histories[1][1]"), "{path}");
    let path = server.recommend(&json!({ "histories": [{ "items": [id] }, { "items": [7] }] })).text();
    assert!(path.contains("histories[1].items[0]"), "{path}");
    for (body, status, code) in [
        (&b""[..], 400, "not_json"),
        (b"{", 400, "not_json"),
        (b"{} {}", 400, "not_json"),
        (b"{\"history\": [\"\xff\"]}", 400, "not_utf8"),
        (b"{\"history\": [\"\\ud800\"]}", 400, "not_json"),
        (b"{\"history\": [], \"history\": []}", 422, "invalid_body"),
        (b"{\"k\": 1e999}", 400, "not_json"),
        (&b"[".repeat(4000), 422, "invalid_body"),
        // More than a connection holds: the client is still sending when the answer is known.
        (&b" ".repeat(6 << 20), 413, "body_too_large"),
    ] {
        let reply = post_bytes(server.address, "/recommend", body);
        assert_eq!(
            reply.error(),
            (status, code.to_owned()),
            "{:?}: {}",
            String::from_utf8_lossy(&body[..body.len().min(80)]),
            reply.text()
        );
    }
    // Who asks first is told before sending anything.
    let polite = format!("{JSON}expect: 100-continue\r\n");
    let head = request("POST", "/recommend", &polite, &[b' '; 9000]);
    assert_eq!(send(server.address, &head[..head.len() - 9000]).unwrap().error().0, 413);
    assert_eq!(server.recommend(&asked(&[&id])).status, 200);
}

/// A whole request with one byte after the other replaced: whatever comes of it, the fault is the client's.
#[test]
fn a_damaged_request_is_never_the_servers_fault() {
    let server = Server::start(&["--max-wait-ms", "0"]);
    let id = server.recommender().catalogue().items()[0].id.clone();
    let body = json!({ "histories": [{ "items": [id], "user": "u" }], "k": 3, "temperature": [1.5, 0.5], "seed": 1,
        "exclude": [], "own_items": true })
    .to_string();
    assert_eq!(post_bytes(server.address, "/recommend", body.as_bytes()).status, 200);
    for place in 0..body.len() {
        for byte in [b'"', b'}', b'9', b'-', b'\\', 0, 0xff] {
            let mut damaged = body.clone().into_bytes();
            damaged[place] = byte;
            let reply = post_bytes(server.address, "/recommend", &damaged);
            let said = (reply.status, reply.text());
            assert!([200, 400, 422].contains(&reply.status), "{said:?} to {}", String::from_utf8_lossy(&damaged));
            assert!(reply.status == 200 || reply.error().0 == reply.status);
        }
    }
}

#[test]
fn wrong_paths_methods_types_and_queries_are_named() {
    let server = Server::start(&["--read-only"]);
    let body = br#"{"id": "new", "title": "New"}"#;
    for (method, path, headers, status, code) in [
        ("GET", "/nothing", "", 404, "no_route"),
        ("DELETE", "/items", "", 405, "no_method"),
        ("GET", "/recommend", "", 405, "no_method"),
        ("POST", "/recommend", "", 415, "not_json_type"),
        ("POST", "/recommend", "content-type: text/plain\r\n", 415, "not_json_type"),
        ("POST", "/items", JSON, 403, "read_only"),
        ("POST", "/reload", JSON, 403, "read_only"),
        ("GET", "/items", "", 400, "invalid_query"),
        ("GET", "/items?q=a&limit=many", "", 400, "invalid_query"),
        ("GET", "/items?q=a&other=1", "", 400, "invalid_query"),
        ("GET", "/items?q=a&limit=0", "", 422, "invalid_limit"),
        ("GET", "/items?q=a&limit=101", "", 422, "invalid_limit"),
        ("GET", "/tree?prefix=a", "", 422, "invalid_prefix"),
        ("GET", "/tree?prefix=-1", "", 422, "invalid_prefix"),
        ("GET", "/tree?prefix=4000000000", "", 404, "no_prefix"),
        ("GET", "/tree?prefix=1,1,1,1,1,1,1,1,1,1", "", 404, "no_prefix"),
    ] {
        let reply = send(server.address, &request(method, path, headers, body)).unwrap();
        assert_eq!(reply.error(), (status, code.to_owned()), "{method} {path}");
    }
    let allowed = send(server.address, &request("DELETE", "/items", "", b"")).unwrap();
    assert!(allowed.header("allow").is_some_and(|allow| allow.contains("POST")), "{}", allowed.head);
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n\0\0\0\0\r\n"] {
        assert!(send(server.address, garbage).is_none_or(|reply| reply.status == 400), "{garbage:?}");
    }
    assert_eq!(get(server.address, "/healthz").status, 200);
    let open = Server::start(&[]);
    for path in ["/items", "/reload"] {
        let elsewhere = format!("{JSON}sec-fetch-site: cross-site\r\n");
        let reply = send(open.address, &request("POST", path, &elsewhere, body)).unwrap();
        assert_eq!(reply.error(), (403, "other_site".to_owned()), "{path}");
    }
}

/// Jobs wait for company that never comes: what waits is known.
#[test]
fn a_full_queue_turns_away_and_an_end_answers_what_waits() {
    let mut server =
        Server::start(&["--max-wait-ms", "3600000", "--queue", "3", "--max-histories", "3", "--timeout-ms", "3600000"]);
    let id = server.recommender().catalogue().items()[0].id.clone();
    let expected = server
        .recommender()
        .recommend(&[genrec::History { user: None, items: &[genrec::index::ItemId(0)] }], 10)
        .unwrap();
    let address = server.address;
    let ask = {
        let body = asked(&[&id]);
        move || post(address, "/recommend", &body)
    };
    let waiting: Vec<_> = (0..3).map(|_| std::thread::spawn(ask.clone())).collect();
    until("three wait", || server.state.queue.waiting() == 3);
    let refused = ask();
    assert_eq!(refused.error(), (503, "queue_full".to_owned()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(server.metric("genrec_queue_histories"), 3.0);

    // A request that has begun to arrive is answered too.
    let mut begun = TcpStream::connect(address).unwrap();
    let body = asked(&[&id]).to_string();
    let bytes = request("POST", "/recommend", JSON, body.as_bytes());
    begun.write_all(&bytes[..bytes.len() - 5]).unwrap();
    until("it is read, beside three and the question", || server.metric("genrec_requests_in_flight") == 5.0);
    server.begin_to_end();
    for thread in waiting {
        let ids: Vec<String> = lists(&thread.join().unwrap()).remove(0).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, expected[0].iter().map(|found| found.id.clone()).collect::<Vec<_>>());
    }
    begun.write_all(&bytes[bytes.len() - 5..]).unwrap();
    assert_eq!(lists(&read(&mut begun).unwrap())[0].len(), 10);
    assert!(server.end(), "something was cut off");
    assert!(TcpStream::connect(address).is_err(), "it still listens");
}

#[test]
fn who_waits_too_long_is_told_and_makes_room() {
    let server =
        Server::start(&["--max-wait-ms", "3600000", "--timeout-ms", "50", "--queue", "1", "--max-histories", "1"]);
    let id = server.recommender().catalogue().items()[0].id.clone();
    for _ in 0..3 {
        let reply = server.recommend(&asked(&[&id]));
        assert_eq!(reply.error(), (503, "timed_out".to_owned()));
        assert!(reply.header("retry-after").is_some());
    }
}

#[test]
fn slow_clients_are_given_up() {
    let server = Server::start(&["--client-timeout-ms", "3000"]);
    let body = asked(&["1"]).to_string();
    let whole = request("POST", "/recommend", JSON, body.as_bytes());
    let of_body = send(server.address, &whole[..whole.len() - 5]).unwrap();
    assert_eq!(of_body.error(), (408, "body_timeout".to_owned()));
    assert!(send(server.address, &whole[..30]).is_none_or(|reply| reply.status == 408), "half a head was answered");
    let mut cut = TcpStream::connect(server.address).unwrap();
    cut.write_all(&whole[..whole.len() - 5]).unwrap();
    cut.shutdown(Shutdown::Write).unwrap();
    assert!(read(&mut cut).is_none_or(|reply| reply.status == 400));

    // Some ten megabytes of answers that nobody takes.
    let mut deaf = TcpStream::connect(server.address).unwrap();
    let styles = b"GET /style.css HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    deaf.set_write_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    for _ in 0..20 {
        if deaf.write_all(&styles).is_err() {
            break;
        }
    }
    until("the deaf one is cut off", || server.metric("genrec_connections") == 1.0);
    let mut taken = Vec::new();
    let _ = deaf.read_to_end(&mut taken);
    assert!(taken.len() < 100 * 20 * include_str!("../page/style.css").len(), "everything was sent");
}
