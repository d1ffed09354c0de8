//! Paths and query strings, read strictly: what is wrong with them is 400.

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
    let version = whole_number(&since)
        .ok_or_else(|| Problem::malformed("since: must be a version, a whole number from 0"))?;
    Ok(Some(FeedVersion::new(version)))
}

/// Reads digits, and nothing else: `parse` alone would take a plus sign, too.
pub(crate) fn whole_number<N: FromStr>(text: &str) -> Option<N> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits)
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
    use frontrow_domain::ConcertId;
    use proptest::prelude::*;

    use super::*;

    fn asking(query: &str) -> HttpRequest {
        TestRequest::with_uri(&format!("/?{query}")).to_http_request()
    }

    /// What was read, or the status of the refusal.
    fn read<T>(read: Result<T, Problem>) -> Result<T, StatusCode> {
        read.map_err(|problem| problem.status_code())
    }

    #[test]
    fn a_version_is_digits() {
        let since = |query: &str| read(since(&asking(query)));
        assert_eq!(since(""), Ok(None));
        for (good, version) in [("0", 0), ("007", 7), ("9223372036854775807", i64::MAX)] {
            assert_eq!(since(&format!("since={good}")), Ok(Some(FeedVersion::new(version))), "{good}");
        }
        for bad in ["", "-0", "-1", "%2B1", "1.0", "x", "9223372036854775808", "1&since=1"] {
            assert_eq!(since(&format!("since={bad}")), Err(StatusCode::BAD_REQUEST), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_query_string_is_read_or_malformed(query in prop_oneof![
            "(status|since)=(all|[0-9]{1,20}|[0-9a-l%+_.-]{0,20})(&(status|since|x)=[0-9al%]{0,5})?",
            "[!-\"$-~]{0,60}",
        ]) {
            // What no URL has, the server itself refuses.
            prop_assume!(format!("/?{query}").parse::<actix_web::http::Uri>().is_ok());
            let (all, version) = (read(asks_for_all(&asking(&query))), read(since(&asking(&query))));
            prop_assert!(all.is_ok() || all == Err(StatusCode::BAD_REQUEST));
            prop_assert!(version.is_ok() || version == Err(StatusCode::BAD_REQUEST));
            prop_assert!(all != Ok(true) || query.contains("status="), "{}", query);
            prop_assert!(matches!(version, Ok(None) | Err(_)) || query.contains("since="), "{}", query);
        }

        #[test]
        fn every_version_is_read_as_it_is_written(version in 0..=i64::MAX) {
            let asked = asking(&format!("x=1&since={version}"));
            prop_assert_eq!(read(since(&asked)), Ok(Some(FeedVersion::new(version))));
        }

        #[test]
        fn a_path_has_a_uuid_or_is_malformed(text in prop_oneof![".*", "[0-9a-f-]{36}"], id in any::<u128>()) {
            let id_in = |text: &str| {
                let request = TestRequest::default().param("concertId", text.to_owned()).to_http_request();
                read(path_id(&request, "concertId", ConcertId::new))
            };
            let id = Uuid::from_u128(id);
            prop_assert_eq!(id_in(&id.to_string()), Ok(ConcertId::new(id)));
            match id_in(&text) {
                Ok(id) => prop_assert_eq!(id.to_string(), text),
                Err(status) => prop_assert_eq!(status, StatusCode::BAD_REQUEST),
            }
        }
    }
}
