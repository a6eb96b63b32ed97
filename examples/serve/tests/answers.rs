//! Answers are those of the library, alone and in a batch.

use genrec::{
    DecodeConfig, History, Recommender, Wanted,
    decode::{AnySearch, PerLevel, Sampling, Shape},
    index::{ItemFilter, ItemId},
};
use serde_json::json;

use super::*;

/// Ids and scores that the library gives.
fn direct(
    recommender: &Recommender,
    history: &[ItemId],
    user: Option<&str>,
    k: usize,
    wanted: &Wanted<'_>,
) -> Vec<(String, f32)> {
    let histories = [History { user, items: history }];
    let found = recommender.recommend_wanted(&histories, k, wanted).unwrap();
    found.into_iter().flatten().map(|found| (found.id, found.score)).collect()
}

fn id(recommender: &Recommender, item: u32) -> String {
    recommender.catalogue().get(ItemId(item)).unwrap().id.clone()
}

#[test]
fn an_answer_is_what_the_library_says() {
    let server = Server::start(&["--max-wait-ms", "0"]);
    let recommender = server.recommender();
    let (a, b) = ([ItemId(3), ItemId(14)], [ItemId(20)]);
    let ids: Vec<String> = [3, 14, 20].map(|item| id(&recommender, item)).into();
    let any = Wanted::any();

    let reply = server.recommend(&json!({ "history": ids[..2], "k": 7 }));
    assert_eq!(lists(&reply), [direct(&recommender, &a, None, 7, &any)]);
    let value = reply.json();
    let first = &value["recommendations"][0][0]["item"];
    let item = recommender.find(first["id"].as_str().unwrap()).unwrap();
    assert_eq!(first["sid"], json!(recommender.index().sid(item).unwrap().codes()));
    assert_eq!(first["title"], json!(recommender.catalogue().get(item).unwrap().title));
    assert!(first["category"].is_string() && value["order"] == "score", "{value}");

    let several = json!({ "histories": [{ "items": ids[..2], "user": "someone" }, ids[2..]] });
    let expected = [direct(&recommender, &a, Some("someone"), 10, &any), direct(&recommender, &b, None, 10, &any)];
    assert_eq!(lists(&server.recommend(&several)), expected);

    let own = json!({ "history": ids, "own_items": false, "k": 30 });
    let all = [ItemId(3), ItemId(14), ItemId(20)];
    let without = direct(&recommender, &all, None, 30, &Wanted::any().without_history());
    assert_eq!(lists(&server.recommend(&own)), [without]);
}

#[test]
fn filters_are_those_of_the_library() {
    let server = Server::start(&["--max-wait-ms", "0"]);
    let recommender = server.recommender();
    let (index, catalogue) = (recommender.index(), recommender.catalogue());
    let history = [ItemId(5)];
    let ids: Vec<String> = (0..12).map(|item| id(&recommender, item)).collect();
    let name = catalogue.get(ItemId(5)).unwrap().categories[0].last().unwrap().clone();
    let has =
        |item| catalogue.get(item).is_some_and(|item| item.categories.iter().flatten().any(|found| *found == name));
    let (of, not) = (ItemFilter::matching(index, has), ItemFilter::matching(index, |item| !has(item)));
    let only = ItemFilter::only(index, (0..12).map(ItemId)).unwrap();
    let exclude = ItemFilter::excluding(index, (0..12).map(ItemId)).unwrap();
    for (field, value, filter) in [
        ("only", json!(ids), &only),
        ("exclude", json!(ids), &exclude),
        ("categories", json!([name.to_uppercase()]), &of),
        ("exclude_categories", json!([name]), &not),
    ] {
        let mut body = json!({ "history": [ids[5]], "k": 9 });
        body[field] = value;
        let expected = direct(&recommender, &history, None, 9, &Wanted::any().with_filter("it", filter));
        assert!(!expected.is_empty());
        assert_eq!(lists(&server.recommend(&body)), [expected], "{field}");
    }
}

#[test]
fn drawing_is_seeded_and_takes_a_temperature_a_level() {
    let server = Server::start(&["--max-wait-ms", "0"]);
    let mut recommender = server.recommender();
    let (history, ids) = ([ItemId(5)], [id(&recommender, 5)]);
    let config: DecodeConfig = recommender.config().clone().with_rerank(None);
    for temperature in [vec![1.5], vec![2.0, 0.5, 0.0]] {
        let mut shape = Shape::default();
        shape.temperature = PerLevel::Each(temperature.clone());
        let search = AnySearch::Sampling(Sampling::new(20, 9).with_shape(shape));
        recommender = recommender.with_config(config.clone().with_search(search)).unwrap();
        let expected = direct(&recommender, &history, None, 8, &Wanted::any());
        let body = json!({ "history": ids, "k": 8, "temperature": temperature, "seed": 9 });
        let reply = server.recommend(&body);
        assert_eq!(lists(&reply), [expected], "{temperature:?}");
        assert_eq!(reply.json()["order"], "drawn");
        assert_eq!(lists(&server.recommend(&body)), lists(&reply));
    }
    let of = |seed| lists(&server.recommend(&json!({ "history": ids, "temperature": 1.5, "seed": seed })));
    assert_ne!(of(1), of(2));
    let whole = json!({ "history": ids, "temperature": 1, "seed": 1 });
    assert_eq!(lists(&server.recommend(&whole))[0].len(), 10, "a whole number is a number too");
}

#[test]
fn requests_share_batches_and_get_what_they_would_get_alone() {
    let alone = Server::start(&["--max-wait-ms", "0", "--max-batch", "1"]);
    let together = Server::start(&["--max-wait-ms", "500", "--max-batch", "8"]);
    let recommender = alone.recommender();
    let bodies: Vec<Value> = (0..24)
        .map(|i| {
            let history: Vec<String> = (0..=i % 5).map(|j| id(&recommender, 7 * i + j)).collect();
            let mut body = json!({ "history": history, "k": 5 + i % 2 });
            if i % 3 == 0 {
                (body["temperature"], body["seed"]) = (json!([1.2, 0.4]), json!(3));
            }
            body
        })
        .collect();
    let expected: Vec<_> = bodies.iter().map(|body| lists(&alone.recommend(body))).collect();
    let got: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = bodies.iter().map(|body| scope.spawn(|| lists(&together.recommend(body)))).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(got, expected);
    assert_eq!(together.metric("genrec_batch_histories_sum"), 24.0);
    assert!(together.metric("genrec_batch_histories_count") < 24.0, "no two requests shared a batch");
}

#[test]
fn one_user_without_an_item_left_does_not_take_the_others_lists() {
    let server = Server::start(&["--max-wait-ms", "3600000", "--max-batch", "2", "--timeout-ms", "3600000"]);
    let recommender = server.recommender();
    let ids: Vec<String> = (0..4).map(|item| id(&recommender, item)).collect();
    let ask = |history: &[String]| server.recommend(&json!({ "history": history, "only": ids, "own_items": false }));
    let (all, some) = std::thread::scope(|scope| {
        let (all, some) = (scope.spawn(|| ask(&ids)), scope.spawn(|| ask(&ids[..1])));
        (all.join().unwrap(), some.join().unwrap())
    });
    assert_eq!(all.error(), (422, "nothing_left".to_owned()));
    let mut left: Vec<String> = lists(&some).remove(0).into_iter().map(|(id, _)| id).collect();
    left.sort_unstable();
    let mut expected = ids[1..].to_vec();
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(server.metric("genrec_batch_histories_count"), 1.0);
}

#[test]
fn titles_users_and_the_tree_can_be_looked_through() {
    let data = trained().to_str().unwrap();
    let server = Server::start(&["--data", data]);
    let recommender = server.recommender();
    let info = get(server.address, "/info").json();
    let items = recommender.index().len();
    assert_eq!(info["items"], json!(items));
    assert!(info["categories"].as_array().is_some_and(|categories| !categories.is_empty()), "{info}");

    let title = recommender.catalogue().get(ItemId(9)).unwrap().title.clone().unwrap();
    let query = title.to_uppercase().replace(' ', "%20");
    let found = get(server.address, &format!("/items?q={query}&limit=100")).json();
    assert!(found["items"].as_array().unwrap().iter().any(|item| item["title"] == json!(title)), "{found}");
    let by_id = get(server.address, &format!("/items?q={}&limit=1", id(&recommender, 9))).json();
    assert_eq!(by_id["items"][0]["id"], json!(id(&recommender, 9)));
    assert_eq!(get(server.address, "/items?q=no-such-word-anywhere").json()["items"], json!([]));

    let users = get(server.address, "/users").json();
    assert_eq!(users["users"].as_array().map(Vec::len), info["users"].as_u64().map(|users| users as usize));
    let user = &users["users"][0];
    assert!(user["user"].is_string() && user["next"]["id"].is_string() && user["history"][0]["sid"].is_array());

    // Down to a leaf, each level having all the items of its parent.
    let (mut prefix, mut above) = (Vec::<u64>::new(), items as u64);
    for _ in 0..recommender.index().layout().positions() {
        let path: Vec<String> = prefix.iter().map(u64::to_string).collect();
        let level = get(server.address, &format!("/tree?prefix={}", path.join(","))).json();
        let children = level["children"].as_array().unwrap();
        assert_eq!(children.iter().map(|child| child["items"].as_u64().unwrap()).sum::<u64>(), above);
        let last = children.last().unwrap();
        assert!(last["category"].is_string() && last["share"].as_f64().is_some_and(|share| share > 0.0), "{last}");
        prefix.push(last["code"].as_u64().unwrap());
        above = last["items"].as_u64().unwrap();
        assert_eq!(
            last["examples"][0]["sid"].as_array().unwrap()[..prefix.len()],
            json!(prefix).as_array().unwrap()[..]
        );
    }
    assert_eq!(above, 1);
}

#[test]
fn the_page_is_part_of_the_program() {
    let server = Server::start(&[]);
    for (path, kind, holds) in [
        ("/", "text/html", "<title>"),
        ("/style.css", "text/css", "--accent"),
        ("/app.js", "text/javascript", "fetch("),
    ] {
        let reply = get(server.address, path);
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.header("content-type").is_some_and(|found| found.starts_with(kind)), "{}", reply.head);
        assert!(reply.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
        let text = reply.text();
        assert!(text.contains(holds), "{path}");
        let hosts = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!hosts.contains("://"), "{path} names a host");
    }
}

#[test]
fn metrics_are_counted_and_can_be_parsed() {
    let server = Server::start(&["--max-wait-ms", "0"]);
    let id = id(&server.recommender(), 1);
    for history in [id.as_str(), "nobody knows it", id.as_str()] {
        server.recommend(&asked(&[history]));
    }
    get(server.address, "/no/such/path");
    let reply = get(server.address, "/metrics");
    assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    let text = reply.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let bare = name.split('{').next().unwrap();
        let known = bare.starts_with("genrec_") || bare == "process_resident_memory_bytes";
        assert!(known && bare.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
        assert!(!name.contains('{') || name.ends_with('}'), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    for (metric, value) in [
        (r#"genrec_requests_total{route="POST /recommend",status="200"}"#, 2.0),
        (r#"genrec_requests_total{route="POST /recommend",status="422"}"#, 1.0),
        (r#"genrec_requests_total{route="GET other",status="404"}"#, 1.0),
        (r#"genrec_request_duration_seconds_count{route="POST /recommend"}"#, 3.0),
        ("genrec_batch_histories_count", 2.0),
        ("genrec_queue_histories", 0.0),
        ("genrec_items_added_total", 0.0),
    ] {
        assert_eq!(server.metric(metric), value, "{metric}");
    }
    assert!(server.metric("genrec_items") > 100.0);
    if cfg!(target_os = "linux") {
        assert!(server.metric("process_resident_memory_bytes") > 1e6);
    }
}
