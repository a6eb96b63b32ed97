//! What is asked too much of, who may not ask, and runs that change under those who wait.

use genrec::artifacts::RunDir;

use super::{
    client::{JSON, request, send},
    *,
};
use crate::{request::Asked, state::BROWSING};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn item(id: &str, title: &str) -> Value {
    json!({ "id": id, "title": title, "categories": [["Care", "Soap"]] })
}

#[test]
fn an_id_with_capitals_is_found_and_long_questions_are_refused() {
    let server = Server::start(&[]);
    let id = format!("B00,{}", "XyZ".repeat(84));
    assert_eq!(id.len(), 256);
    let added = post(server.address, "/items", &item(&id, "Rose soap"));
    assert_eq!(added.status, 201, "{}", added.text());
    for query in [id.clone(), format!("%20{id}")] {
        let found = get(server.address, &format!("/items?limit=1&q={query}"));
        match query.len() {
            256 => assert_eq!(found.json()["items"][0]["id"], json!(id)),
            _ => assert_eq!(found.error(), (400, "query_too_long".to_owned())),
        }
    }
    post(server.address, "/items", &item("B01A", "Lily soap"));
    assert_eq!(get(server.address, "/items?q=%20B01A%20").json()["items"][0]["id"], "B01A");
    let many = "a+".repeat(32_000);
    assert_eq!(get(server.address, &format!("/items?q={many}")).error(), (400, "query_too_long".to_owned()));
}

#[test]
fn who_leaves_does_not_give_its_turn_to_look_back_early() {
    let server = Server::start(&[]);
    let state = Arc::clone(&server.state);
    let looked = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // Dropped before the runtime, which waits for the look to end.
    let ((begun, begins), (end, ends)) = (mpsc::channel(), mpsc::channel::<()>());
    let asking = looked.spawn(async move {
        let look = move |_: &crate::snapshot::Snapshot| {
            begun.send(()).unwrap();
            let _ = ends.recv();
        };
        drop(state.browse(look).await);
    });
    begins.recv().unwrap();
    asking.abort();
    until("it has gone", || asking.is_finished());
    assert_eq!(server.state.browsing.available_permits(), BROWSING - 1);
    drop(end);
    until("the look has ended", || server.state.browsing.available_permits() == BROWSING);
}

#[test]
fn names_of_categories_count_once_and_not_without_end() {
    let server = Server::start(&["--max-wait-ms", "0"]);
    let snapshot = server.state.snapshot();
    let items = snapshot.recommender.catalogue().items();
    let (id, limits) = (&items[0].id, &server.state.options.limits);
    let mut names: Vec<&String> = items.iter().flat_map(|item| item.categories.iter().flatten()).collect();
    names.sort_unstable();
    names.dedup();
    let [a, b] = [names[0], names[names.len() - 1]];
    let check = |field: &str, names: Vec<&str>| {
        let mut body = json!({ "history": [id] });
        body[field] = json!(names);
        let asked: Asked = serde_json::from_value(body).unwrap();
        asked.check(&snapshot, limits)
    };
    let (upper, lower) = (a.to_uppercase(), a.to_lowercase());
    for field in ["categories", "exclude_categories"] {
        let once = check(field, vec![a, b]).unwrap();
        assert_eq!(check(field, vec![b, &upper, a, &lower, b]).unwrap(), once, "{field}");
        assert_ne!(check(field, vec![a]).unwrap(), once, "{field}");
        assert!(check(field, vec![a; 64]).is_ok());
        let error = check(field, vec![a; 65]).unwrap_err();
        assert!(error.code == "too_many" && error.message.contains(field), "{error}");
    }
}

#[test]
fn an_item_too_large_is_refused_before_it_is_added() {
    let server = Server::start(&[]);
    // Nobody is waited for.
    let held = Arc::clone(&server.state.writing).blocking_lock_owned();
    for body in [item(&"x".repeat(257), "t"), item("x", &"t".repeat(5000)), item("x", &"t".repeat(900_000))] {
        let reply = post(server.address, "/items", &body);
        assert_eq!(reply.error(), (400, "item_too_large".to_owned()));
        assert!(reply.text().len() < 300, "{}", reply.text());
    }
    drop(held);
}

#[test]
fn no_message_is_as_long_as_what_was_sent() {
    let server = Server::start(&[]);
    let long = "x".repeat(20_000);
    for (path, body, holds) in [
        ("/recommend", json!({ long.as_str(): 1 }), "expected one of"),
        ("/recommend", json!({ "history": long }), "expected a sequence"),
        ("/items", json!({ "id": "x", "attributes": { long.as_str(): 1 } }), "expected a string"),
    ] {
        let reply = post(server.address, path, &body);
        assert_eq!(reply.error(), (422, "invalid_body".to_owned()));
        assert!(reply.text().len() < 700 && reply.text().contains(holds), "{}", reply.text());
    }
    let reply = get(server.address, &format!("/items?q=a&{long}=1"));
    assert_eq!(reply.error(), (400, "invalid_query".to_owned()));
    assert!(reply.text().len() < 700, "{}", reply.text());
}

#[test]
fn pages_of_other_sites_change_nothing_and_read_nothing() {
    let server = Server::start(&["--host", "shop.example"]);
    let address = server.address;
    let ask = |path: &str, host: &str, headers: &str| {
        let bytes = String::from_utf8(request("POST", path, headers, b"{}")).unwrap();
        send(address, bytes.replace("host: localhost", &format!("host: {host}")).as_bytes()).unwrap()
    };
    for (host, origin, well) in [
        ("localhost:81", "http://localhost:81", true),
        ("localhost:81", "https://shop.example", true),
        ("localhost:81", "http://localhost:82", false),
        ("localhost:81", "http://evil.example", false),
        ("localhost:81", "null", false),
    ] {
        for path in ["/items", "/reload"] {
            let reply = ask(path, host, &format!("{JSON}origin: {origin}\r\n"));
            match (well, path) {
                (false, _) => assert_eq!(reply.error(), (403, "other_site".to_owned()), "{origin}"),
                (true, "/items") => assert_eq!(reply.error(), (422, "no_title".to_owned()), "{origin}"),
                (true, _) => assert_eq!(reply.status, 200, "{origin}"),
            }
        }
    }
    assert_eq!(ask("/reload", "localhost", "").error(), (415, "not_json_type".to_owned()));
    assert_eq!(ask("/reload", "localhost", "x-requested-with: a script\r\n").status, 200);
    assert_eq!(ask("/reload", "SHOP.example:8443", JSON).status, 200);
    let rebound = format!("{JSON}origin: http://evil.example\r\n");
    assert_eq!(ask("/reload", "evil.example", &rebound).error(), (403, "other_host".to_owned()));
    let read = b"GET /users HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    assert_eq!(send(address, read).unwrap().error(), (403, "other_host".to_owned()));
}

#[test]
fn a_signal_waits_for_its_turn_as_long_as_it_takes() {
    let server = Server::start(&["--timeout-ms", "50"]);
    let held = Arc::clone(&server.state.writing).blocking_lock_owned();
    let (state, address) = (Arc::clone(&server.state), server.address);
    let signal = std::thread::spawn(move || block_on(state.reload(None)).map(|snapshot| snapshot.generation));
    let refused = post(address, "/reload", &json!({}));
    assert_eq!(refused.error(), (503, "timed_out".to_owned()));
    assert!(!signal.is_finished());
    drop(held);
    assert_eq!(signal.join().unwrap().unwrap(), 1);
}

#[test]
fn who_still_waits_at_the_end_is_told_of_it() {
    let server = Server::start(&["--max-wait-ms", "3600000", "--timeout-ms", "3600000"]);
    let id = server.recommender().catalogue().items()[0].id.clone();
    let asking = std::thread::spawn({
        let address = server.address;
        move || post(address, "/recommend", &asked(&[&id]))
    });
    until("it waits", || server.state.queue.waiting() == 1);
    // What comes after `--drain-ms`.
    server.state.stop();
    server.state.queue.discard();
    assert_eq!(asking.join().unwrap().error(), (503, "stopping".to_owned()));
}

#[test]
fn what_is_on_disk_is_served_even_if_the_checksums_are_not_whole() {
    let server = Server::start(&[]);
    let checksums = RunDir::new(server.dir.path()).checksums();
    let whole = fs::read(&checksums).unwrap();
    for (id, text) in [("torn", &whole[..whole.len() / 2]), ("whole", &whole)] {
        fs::write(&checksums, text).unwrap();
        let reply = post(server.address, "/items", &item(id, "Rose soap"));
        let kept = server.recommender().find(id).is_ok();
        let served = get(server.address, &format!("/items?q={id}&limit=1")).json()["items"][0]["id"] == json!(id);
        assert_eq!((reply.status == 201, served), (kept, kept), "{id}: {}", reply.text());
    }
}

#[test]
fn users_are_of_the_run_that_is_served() {
    let data = trained().to_str().unwrap();
    let server = Server::start(&["--data", data]);
    let path = RunDir::new(server.dir.path()).catalogue();
    let before = get(server.address, "/users").json()["users"].clone();
    let ids = |user: &Value| -> Vec<String> {
        user["history"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    let gone = ids(&before[0]);
    // A run of the same items in another order, without those that the first user took.
    let mut lines: Vec<Value> =
        fs::read_to_string(&path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut found: Vec<Value> = lines.iter().map(|line| line["id"].clone()).collect();
    found.reverse();
    for (line, id) in lines.iter_mut().zip(found) {
        line["id"] = match gone.contains(&id.as_str().unwrap().to_owned()) {
            true => json!(format!("other-{}", id.as_str().unwrap())),
            false => id,
        };
    }
    fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    assert_eq!(post(server.address, "/reload", &json!({})).status, 200);

    let after = get(server.address, "/users").json()["users"].as_array().unwrap().clone();
    let left = |user: &Value| -> Vec<String> { ids(user).into_iter().filter(|id| !gone.contains(id)).collect() };
    let expected: Vec<(&Value, Vec<String>)> = before
        .as_array()
        .unwrap()
        .iter()
        .map(|user| (&user["user"], left(user)))
        .filter(|(_, history)| !history.is_empty())
        .collect();
    assert_eq!(after.iter().map(|user| (&user["user"], ids(user))).collect::<Vec<_>>(), expected);
    assert!(after.iter().all(|user| user["user"] != before[0]["user"]));
    assert_eq!(get(server.address, "/info").json()["users"], json!(after.len()));
}
