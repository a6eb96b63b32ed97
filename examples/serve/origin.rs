//! Who may ask: pages of other sites may not, whatever name they give this server.

use std::sync::Arc;

use axum::{
    extract::{Request, State as Shared},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{errors::ApiError, options::Options, reply::check_type, state::State};

/// Refuses names that are not this machine's where it listens for this machine alone: a site may have its own name lead here, and
/// its pages would read the answers as their own.
pub(crate) async fn local_names(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    match check_host(&state.options, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_host(options: &Options, headers: &HeaderMap) -> Result<(), ApiError> {
    if !options.listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let known = |value: &HeaderValue| {
        let Ok(host) = value.to_str() else { return false };
        let name = without_port(host);
        let local = ["localhost", "127.0.0.1", "[::1]"].into_iter();
        local.chain(options.host.iter().map(|host| without_port(host))).any(|known| known.eq_ignore_ascii_case(name))
    };
    // Browsers always say where they ask; what says nothing is not one.
    match headers.get_all(header::HOST).iter().all(known) {
        true => Ok(()),
        false => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "other_host",
            "the header `host` names another machine; ask localhost, or start the server with `--host` and that name",
        )),
    }
}

/// Refuses what would change the run where nobody may, and what a page of another site sends in a person's name.
pub(crate) fn may_change(options: &Options, headers: &HeaderMap) -> Result<(), ApiError> {
    let forbidden = |code, message| Err(ApiError::new(StatusCode::FORBIDDEN, code, message));
    if options.read_only {
        let message = "the server was started with `--read-only`; add items where it was not, and reload by SIGHUP";
        return forbidden("read_only", message);
    }
    let elsewhere = "a page of another site asked for this; ask from the server's own page, or start it with `--host` and the name \
                     that people reach it by";
    // Browsers leave this one out where a page came neither by TLS nor from this machine.
    if !matches!(headers.get("sec-fetch-site").map(HeaderValue::as_bytes), None | Some(b"same-origin" | b"none")) {
        return forbidden("other_site", elsewhere);
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own = |origin: &HeaderValue| origin.to_str().is_ok_and(|origin| is_own(origin, host, &options.host));
    if !headers.get_all(header::ORIGIN).iter().all(own) {
        return forbidden("other_site", elsewhere);
    }
    Ok(())
}

/// Refuses what a form of another page can send without asking first: neither JSON nor a header of its own.
pub(crate) fn asked_by_program(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key("x-requested-with") {
        return Ok(());
    }
    check_type(headers)
}

/// Whether an origin is the host that was asked, or one of the `names` that it is known by.
fn is_own(origin: &str, host: Option<&str>, names: &[String]) -> bool {
    let (authority, default) = match origin.split_once("://") {
        Some((scheme, authority)) if scheme.eq_ignore_ascii_case("http") => (authority, ":80"),
        Some((scheme, authority)) if scheme.eq_ignore_ascii_case("https") => (authority, ":443"),
        // `null` is an origin that will not say who it is.
        _ => return false,
    };
    let bare = |authority: &str| authority.strip_suffix(default).unwrap_or(authority).to_ascii_lowercase();
    host.into_iter().chain(names.iter().map(String::as_str)).any(|own| bare(own) == bare(authority))
}

/// The name of `name:port`, an address in brackets included.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn options(more: &[&str]) -> Options {
        Options::parse_from(["serve", "--run", "somewhere"].iter().chain(more))
    }

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        of.iter().map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_loopback_listener_knows_its_names() {
        let local = options(&["--host", "Recommend.example:8443"]);
        for (host, well) in [
            ("localhost", true),
            ("LOCALHOST:8080", true),
            ("127.0.0.1:1", true),
            ("[::1]", true),
            ("[::1]:8080", true),
            ("recommend.example", true),
            ("evil.example", false),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("localhost:8080:x", false),
            ("[::2]:8080", false),
            ("", false),
        ] {
            assert_eq!(check_host(&local, &headers(&[("host", host)])).is_ok(), well, "{host}");
        }
        assert!(check_host(&local, &HeaderMap::new()).is_ok());
        let mapped = options(&["--listen", "[::ffff:127.0.0.1]:80"]);
        assert!(check_host(&mapped, &headers(&[("host", "evil.example")])).is_err());
        let open = options(&["--listen", "0.0.0.0:80"]);
        assert!(check_host(&open, &headers(&[("host", "whatever.example")])).is_ok());
    }

    #[test]
    fn an_origin_is_the_host_that_was_asked() {
        let names = ["recommend.example".to_owned(), "other.example:8443".to_owned()];
        for (origin, host, well) in [
            ("http://localhost:8080", "localhost:8080", true),
            ("HTTP://Localhost:8080", "localhost:8080", true),
            ("http://10.0.0.7", "10.0.0.7:80", true),
            ("https://shop.example", "shop.example", true),
            ("https://recommend.example", "127.0.0.1:8080", true),
            ("https://other.example:8443", "127.0.0.1:8080", true),
            ("https://other.example", "127.0.0.1:8080", false),
            ("http://localhost:3000", "localhost:8080", false),
            ("http://127.0.0.1:8080", "localhost:8080", false),
            ("http://evil.example", "10.0.0.7", false),
            ("null", "localhost:8080", false),
            ("null", "null", false),
        ] {
            assert_eq!(is_own(origin, Some(host), &names), well, "{origin} asks {host}");
        }
        assert!(!is_own("http://localhost", None, &[]));
    }
}
