//! What browsers are told: which pages of other origins may call, and what no page may do with an answer.

use std::fmt;
use std::str::FromStr;

use actix_cors::Cors;
use actix_web::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH,
    REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::http::{Method, Uri};
use actix_web::middleware::DefaultHeaders;
use actix_web::web::{self, ServiceConfig};

use crate::gate::WAIT_TOKEN;
use crate::idempotency::{IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED};
use crate::routes::concerts::SEAT_MAP_VERSION;

/// How long a browser may keep what a preflight said, in seconds.
const PREFLIGHT_SECONDS: usize = 3_600;

/// The pages that may call: those of these origins, or `*`. Nothing is sent along by a browser on its own (there are no
/// cookies), so that `*` lets in no page that has no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins(Vec<String>);

/// A text that is no list of origins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidOrigin;

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("origins are like https://tickets.example.com, as browsers write them (no path, no default port, no wildcard), separated by commas, or a lone * for all")
    }
}

impl std::error::Error for InvalidOrigin {}

impl FromStr for Origins {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let origins: Vec<String> = text.split(',').map(|origin| origin.trim().to_owned()).collect();
        let is_any = origins.iter().any(|origin| origin == "*");
        let fine = if is_any { origins.len() == 1 } else { origins.iter().all(|origin| is_origin(origin)) };
        fine.then_some(Self(origins)).ok_or(InvalidOrigin)
    }
}

/// A scheme, a host and perhaps a port, as browsers write them.
fn is_origin(text: &str) -> bool {
    // Part of a URL to some, but no browser sends it.
    if text.contains('*') {
        return false;
    }
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let (Some(scheme @ ("http" | "https")), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return false;
    };
    let port = match (scheme, uri.port_u16()) {
        (_, None) => String::new(),
        // A browser leaves it out.
        ("http", Some(80)) | ("https", Some(443)) => return false,
        (_, Some(port)) => format!(":{port}"),
    };
    // Nothing besides, and nothing written otherwise: it is compared with what a browser sends, letter for letter.
    text == format!("{scheme}://{host}{port}").to_ascii_lowercase()
}

impl Origins {
    fn cors(&self) -> Cors {
        let name = HeaderName::from_static;
        let cors = Cors::default()
            .allowed_methods([Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE])
            .allowed_headers([AUTHORIZATION, CONTENT_TYPE, ACCEPT, IF_NONE_MATCH])
            .allowed_headers([name(WAIT_TOKEN), name(IDEMPOTENCY_KEY)])
            .expose_headers([RETRY_AFTER, ETAG])
            .expose_headers([name(WAIT_TOKEN), name(IDEMPOTENCY_REPLAYED), SEAT_MAP_VERSION])
            .max_age(PREFLIGHT_SECONDS);
        match self.0.as_slice() {
            [any] if any == "*" => cors.allow_any_origin().send_wildcard(),
            origins => origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin)),
        }
    }
}

/// Registers every route, as [`crate::configure`] does; pages of these origins may call them.
pub fn configure_for(origins: Option<&Origins>, config: &mut ServiceConfig) {
    match origins {
        None => crate::configure(config),
        Some(origins) => {
            config.service(web::scope("").wrap(origins.cors()).configure(crate::configure));
        }
    }
}

/// Goes with every answer: it is what it says it is, no page may frame it, and no link tells where it was. HSTS is the
/// affair of the proxy that ends TLS.
#[must_use]
pub fn security_headers() -> DefaultHeaders {
    DefaultHeaders::new()
        .add((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .add((REFERRER_POLICY, "no-referrer"))
        .add((CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a browser writes it: without the port that the scheme has anyway.
    fn origins() -> impl Strategy<Value = String> {
        let host = "[a-z][a-z0-9-]{0,9}[a-z](\\.[a-z]{2,5}){0,2}|127\\.0\\.0\\.1|\\[::1\\]";
        ("https?", host, prop::option::of(1_024..=u16::MAX)).prop_map(|(scheme, host, port)| match port {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        })
    }

    proptest! {
        #[test]
        fn what_a_browser_sends_is_an_origin(origins in prop::collection::vec(origins(), 1..4)) {
            prop_assert_eq!(origins.join(", ").parse(), Ok(Origins(origins)));
        }

        #[test]
        fn any_text_is_origins_or_none(text in prop_oneof![
            "https?://[a-zA-Z0-9.@:/?#%-]{0,20}",
            "(https?://[a-z]{1,3}(:[0-9]{1,6})?, ?){0,2}",
            "[*, ]{0,4}",
            "https://[a-z*.]{1,9}",
            ".*",
        ]) {
            let Ok(Origins(origins)) = text.parse() else { return Ok(()) };
            prop_assert_eq!(origins.len(), text.split(',').count());
            for origin in origins.iter().filter(|origin| *origin != "*") {
                let (scheme, host) = origin.split_once("://").unwrap();
                prop_assert!(scheme == "http" || scheme == "https", "{}", origin);
                let is_extra = |letter: char| letter.is_ascii_uppercase() || "/@?#,*".contains(letter);
                prop_assert!(!host.is_empty() && !host.contains(is_extra), "{}", origin);
            }
        }
    }

    #[test]
    fn origins_are_what_browsers_send() {
        for good in
            ["https://a.example", "http://localhost:5173", "https://a.example, https://b.example:8443", "*"]
        {
            assert!(good.parse::<Origins>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "a.example",
            "https://",
            "https://a.example/",
            "https://a.example/path",
            "https://a.example?x",
            "https://me@a.example",
            "https://A.example",
            "ftp://a.example",
            "*,https://a.example",
            "https://*.example",
            "https://*",
            "http://*:8080",
            "https://a.example,",
            "https://a.example#part",
            "https://a.example:",
            "https://a.example:0443",
            "https://a.example:99999",
            "https://a.example:443",
            "http://a.example:80",
            "null",
        ] {
            assert_eq!(bad.parse::<Origins>(), Err(InvalidOrigin), "{bad}");
        }
    }
}
