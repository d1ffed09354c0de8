//! Paths and query strings, read strictly: what is wrong with them is 400.

use std::fmt::Display;
use std::str::FromStr;

use actix_web::HttpRequest;
use actix_web::web::Query;
use frontrow_domain::seat::FeedVersion;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::json::parse_uuid;
use crate::problem::Problem;

/// Reads a query string. Unknown parameters are ignored.
///
/// # Errors
/// 400 when a known one is given twice.
pub(crate) fn parse<T: DeserializeOwned>(query_string: &str) -> Result<T, Problem> {
    Query::<T>::from_query(query_string)
        .map(Query::into_inner)
        .map_err(|error| Problem::malformed(format!("The query string cannot be read: {error}")))
}

#[derive(Deserialize)]
struct Status {
    status: Option<String>,
}

/// Whether `?status=all` asks for everything.
///
/// # Errors
/// 400 for any other value.
pub(crate) fn asks_for_all(req: &HttpRequest) -> Result<bool, Problem> {
    match parse::<Status>(req.query_string())?.status.as_deref() {
        None => Ok(false),
        Some("all") => Ok(true),
        Some(_) => Err(Problem::malformed("status: must be absent or \"all\"")),
    }
}

#[derive(Deserialize)]
struct Since {
    since: Option<String>,
}

/// The version after `?since=`.
///
/// # Errors
/// 400 when it is no whole number from 0.
pub(crate) fn since(req: &HttpRequest) -> Result<Option<FeedVersion>, Problem> {
    let Some(since) = parse::<Since>(req.query_string())?.since else { return Ok(None) };
    let version = whole_number(&since).filter(|version: &i64| *version >= 0);
    let version =
        version.ok_or_else(|| Problem::malformed("since: must be a version, a whole number from 0"))?;
    Ok(Some(FeedVersion::new(version)))
}

/// Reads a number as it is written again: without a plus, or zeros before it.
pub(crate) fn whole_number<N: FromStr + Display>(text: &str) -> Option<N> {
    text.parse().ok().filter(|number: &N| number.to_string() == text)
}

/// The id in the path under this name.
///
/// # Errors
/// 400 when it is no UUID.
pub(crate) fn path_id<T>(req: &HttpRequest, name: &'static str, new: fn(Uuid) -> T) -> Result<T, Problem> {
    let id = req.match_info().get(name).and_then(parse_uuid);
    id.map(new).ok_or_else(|| Problem::malformed(format!("{name}: must be a UUID")))
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;
    use actix_web::http::StatusCode;
    use actix_web::test::TestRequest;
    use proptest::prelude::*;

    use super::*;

    fn request(query: &str) -> HttpRequest {
        TestRequest::with_uri(&format!("/?{query}")).to_http_request()
    }

    #[test]
    fn a_version_has_one_form() {
        let since_of = |text: &str| since(&request(&format!("since={text}"))).ok().flatten();
        assert_eq!(since_of("0"), Some(FeedVersion::new(0)));
        assert_eq!(since_of("9223372036854775807"), Some(FeedVersion::new(i64::MAX)));
        for bad in ["", "-0", "-1", "%2B1", "01", "1.0", "x", "9223372036854775808", "1&since=1"] {
            assert_eq!(since_of(bad), None, "{bad}");
        }
        assert_eq!(since(&request("")).unwrap(), None);
    }

    proptest! {
        #[test]
        fn a_query_string_is_read_or_malformed(
            query in prop_oneof!["(status|since)=[0-9a-l%&=+_.-]{0,20}", "[!-~]{0,60}"],
        ) {
            // What no URL has, the server itself refuses.
            prop_assume!(!query.contains('#') && format!("/?{query}").parse::<actix_web::http::Uri>().is_ok());
            let request = request(&query);
            if let Err(problem) = asks_for_all(&request) {
                prop_assert_eq!(problem.status_code(), StatusCode::BAD_REQUEST);
            }
            if let Err(problem) = since(&request) {
                prop_assert_eq!(problem.status_code(), StatusCode::BAD_REQUEST);
            }
            prop_assert_eq!(asks_for_all(&request).ok(), asks_for_all(&request).ok(), "the same answer twice");
            prop_assert_eq!(since(&request).ok(), since(&request).ok(), "the same answer twice");
        }

        #[test]
        fn every_version_is_read(version in 0..=i64::MAX) {
            let read = since(&request(&format!("since={version}"))).unwrap();
            prop_assert_eq!(read, Some(FeedVersion::new(version)));
        }

        #[test]
        fn a_number_is_a_text_that_we_would_write(text in prop_oneof!["[0-9+-]{0,5}", ".*"]) {
            if let Some(number) = whole_number::<i64>(&text) {
                prop_assert_eq!(number.to_string(), text);
            }
        }
    }
}
