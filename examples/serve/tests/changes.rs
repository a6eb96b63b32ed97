//! New items and reloads, while others ask.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

fn new_item(id: &str, title: &str) -> Value {
    json!({ "id": id, "title": title, "brand": "Fay", "categories": [["Care", "Soap"]], "description": "It smells of roses." })
}

#[test]
fn a_new_item_is_recommended_at_once_and_kept() {
    let server = Server::start(&["--max-wait-ms", "0"]);
    let before = server.recommender();
    let title = before.catalogue().items()[4].title.clone().unwrap();
    let reply = post(server.address, "/items", &new_item("brand-new", &title));
    assert_eq!(reply.status, 201, "{}", reply.text());
    let added = reply.json();
    assert_eq!(added["items"], json!(before.index().len() + 1));
    assert_eq!(get(server.address, "/items?q=brand-new").json()["items"][0], added["item"]);
    for body in [
        json!({ "history": [before.catalogue().items()[4].id], "only": ["brand-new"] }),
        json!({ "history": ["brand-new"], "categories": ["soap"] }),
    ] {
        assert_eq!(lists(&server.recommend(&body))[0][0].0, "brand-new", "{body}");
    }
    let kept = server.recommender();
    let row = kept.find("brand-new").unwrap();
    assert_eq!(json!(kept.index().sid(row).unwrap().codes()), added["item"]["sid"]);
    assert_eq!(server.metric("genrec_items_added_total"), 1.0);

    for (body, status, code) in [
        (new_item("brand-new", "again"), 409, "item_exists"),
        (new_item("", "no id"), 422, "empty_id"),
        (new_item("no-title", " "), 422, "no_title"),
        (json!({ "id": "no-title" }), 422, "no_title"),
        (json!({ "id": "x", "title": "t", "colour": "red" }), 422, "invalid_body"),
        (json!({ "id": 7, "title": "t" }), 422, "invalid_body"),
        (json!({ "id": "x", "title": "t", "categories": ["Care"] }), 422, "invalid_body"),
    ] {
        assert_eq!(post(server.address, "/items", &body).error(), (status, code.to_owned()), "{body}");
    }
    assert_eq!(server.metric("genrec_items"), kept.index().len() as f64);
    assert_eq!(server.metric("genrec_items_added_total"), 1.0);
}

#[test]
fn what_another_process_has_added_is_not_overwritten() {
    let server = Server::start(&[]);
    let mut other = server.recommender();
    other.add_item(genrec::data::Item::new("theirs")).unwrap();
    other.save_catalogue(server.dir.path()).unwrap();
    let refused = post(server.address, "/items", &new_item("ours", "soap"));
    assert_eq!(refused.error(), (409, "superseded".to_owned()));
    assert!(server.recommender().find("theirs").is_ok() && server.recommender().find("ours").is_err());
    assert_eq!(post(server.address, "/reload", &json!({})).status, 200);
    assert_eq!(post(server.address, "/items", &new_item("ours", "soap")).status, 201);
    assert!(server.recommender().find("theirs").is_ok() && server.recommender().find("ours").is_ok());
}

#[test]
fn items_added_by_many_at_once_are_all_there() {
    let server = Server::start(&[]);
    let before = server.recommender().index().len();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let reply = post(server.address, "/items", &new_item(&format!("new-{i}"), &format!("soap {i}")));
                assert_eq!(reply.status, 201, "{}", reply.text());
            });
        }
    });
    let after = server.recommender();
    assert_eq!(after.index().len(), before + 8);
    assert!((0..8).all(|i| after.find(&format!("new-{i}")).is_ok()));
}

#[test]
fn a_run_without_an_embedder_says_so() {
    let server = Server::start(&[]);
    let manifest = server.dir.path().join("run.json");
    let mut run: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    run["config"]["embedder"] = json!({ "type": "npy", "path": "vectors.npy" });
    fs::write(&manifest, run.to_string()).unwrap();
    assert_eq!(post(server.address, "/reload", &json!({})).status, 200);
    let reply = post(server.address, "/items", &new_item("x", "soap"));
    assert_eq!(reply.error(), (409, "no_embedder".to_owned()));
    assert!(reply.text().contains("--embedder"), "{}", reply.text());
}

/// Ends those who ask until then, even if what they are asked beside fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn reloads_drop_no_request_and_a_failing_one_changes_nothing() {
    let server = Server::start(&["--max-wait-ms", "2"]);
    let ids: Vec<String> = server.recommender().catalogue().items().iter().map(|item| item.id.clone()).collect();
    let expected: Vec<_> = ids[..4].iter().map(|id| lists(&server.recommend(&asked(&[id])))).collect();
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _done = Done(&done);
        for id in 0..4 {
            let (server, ids, expected, done, answered) = (&server, &ids, &expected, &done, &answered);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(lists(&server.recommend(&asked(&[&ids[id]]))), expected[id]);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let reload = || post(server.address, "/reload", &json!({}));
        let after = |answers| until("requests are answered", || answered.load(Ordering::Relaxed) > answers);
        for generation in 1..=4 {
            let reply = reload();
            assert_eq!((reply.status, &reply.json()["generation"]), (200, &json!(generation)), "{}", reply.text());
            after(answered.load(Ordering::Relaxed) + 8);
        }
        let index = server.dir.path().join("index/index.json");
        let saved = fs::read(&index).unwrap();
        fs::write(&index, "{").unwrap();
        let failed = reload();
        assert_eq!(failed.error(), (500, "reload_failed".to_owned()));
        assert!(
            failed.text().contains("index.json") && failed.text().contains("old one still serves"),
            "{}",
            failed.text()
        );
        after(answered.load(Ordering::Relaxed) + 8);
        assert_eq!(get(server.address, "/healthz").json()["generation"], json!(4));
        fs::write(&index, saved).unwrap();
        assert_eq!(reload().json()["generation"], json!(5));
    });
    assert_eq!(server.metric(r#"genrec_reloads_total{result="ok"}"#), 5.0);
    assert_eq!(server.metric(r#"genrec_reloads_total{result="failed"}"#), 1.0);
}
