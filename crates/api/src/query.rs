//! Paths and query strings, read strictly: what is wrong with them is 400.

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
    let version = since.parse().ok().filter(|version: &i64| *version >= 0 && !since.starts_with('+'));
    let version =
        version.ok_or_else(|| Problem::malformed("since: must be a version, a whole number from 0"))?;
    Ok(Some(FeedVersion::new(version)))
}

/// The id in the path under this name.
///
/// # Errors
/// 400 when it is no UUID.
pub(crate) fn path_id<T>(req: &HttpRequest, name: &'static str, new: fn(Uuid) -> T) -> Result<T, Problem> {
    let id = req.match_info().get(name).and_then(parse_uuid);
    id.map(new).ok_or_else(|| Problem::malformed(format!("{name}: must be a UUID")))
}
