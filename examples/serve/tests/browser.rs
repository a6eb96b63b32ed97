//! The page in a browser without a window, where there is one.

#![allow(clippy::print_stderr, reason = "a test that did not run says so")]

use std::process::Command;

use super::*;

/// The program that `CHROMIUM` names, or the one in the path.
fn chromium() -> Option<String> {
    let named = std::env::var("CHROMIUM").ok();
    let candidates = named.into_iter().chain(["chromium", "chromium-browser", "google-chrome"].map(str::to_owned));
    candidates
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success()))
}

/// What the page has become once its scripts have come to rest.
fn rendered(browser: &str, url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=20000", "--dump-dom", url])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_page_shows_what_the_routes_say() {
    let Some(browser) = chromium() else {
        eprintln!("NOT RUN: there is no Chromium; install it or name it in CHROMIUM to test the page");
        return;
    };
    let server = Server::start(&["--data", trained().to_str().unwrap()]);
    let odd = "A,1 & Co";
    let added = post(server.address, "/items", &json!({ "id": odd, "title": "Rose soap" }));
    assert_eq!(added.status, 201, "{}", added.text());
    let mut ids: Vec<String> =
        server.recommender().catalogue().items()[3..5].iter().map(|item| item.id.clone()).collect();
    ids.push(odd.to_owned());
    let asked: String = ids.iter().map(|id| format!("item={}&", id.replace('&', "%26").replace(' ', "+"))).collect();
    let found = server.recommend(&json!({ "history": ids, "k": 10, "own_items": true })).json();
    let page = rendered(&browser, &format!("http://{}/#{asked}", server.address));
    assert!(page.contains("data-ready=\"yes\""), "the script did not come to its end: {page}");
    assert!(page.contains("<div id=\"error\" role=\"alert\" hidden=\"\">"), "the page complains");
    let list = page.split("id=\"list\"").nth(1).unwrap().split("</ol>").next().unwrap();
    for found in found["recommendations"][0].as_array().unwrap() {
        let title = found["item"]["title"].as_str().unwrap();
        assert!(list.contains(title), "`{title}` is not in the list: {list}");
    }
    assert_eq!(list.matches("<li").count(), 10);
    let history = page.split("id=\"history\"").nth(1).unwrap().split("</ol>").next().unwrap();
    assert_eq!(history.matches("<li").count(), 3);
    assert!(page.split("id=\"tree\"").nth(1).unwrap().split("</ul>").next().unwrap().contains("class=\"count\""));
    assert!(page.contains("<option value=\"0\">"), "there is no example user");

    let drawn = rendered(&browser, &format!("http://{}/#{asked}drawn", server.address));
    let sliders = drawn.split("id=\"sliders\"").nth(1).unwrap().split("</div>").next().unwrap();
    assert_eq!(sliders.matches("type=\"range\"").count(), server.recommender().index().layout().positions());
    assert!(drawn.split("id=\"list\"").nth(1).unwrap().split("</ol>").next().unwrap().contains("<li"));
}
