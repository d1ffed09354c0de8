//! Request bodies, read before anything else is decided, so that a client that sends too much still hears why.

use std::pin::pin;
use std::time::Duration;

use actix_web::dev::{Payload, ServiceRequest};
use actix_web::http::Method;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, UPGRADE};
use actix_web::web::{Bytes, BytesMut};
use actix_web::{FromRequest, HttpMessage, HttpRequest, rt};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use serde::Deserialize;

use crate::json::{self, Object};
use crate::problem::{Code, Problem};
use crate::{ApiState, state};

/// The largest body that is read.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;
/// How much of a larger body is taken off the wire and thrown away: a client that is still sending cannot hear.
const MAX_DRAINED_BYTES: usize = 16 * 1024 * 1024;

/// How long a body may still take once the server stops: with the second in which its client may hear the answer, and the
/// second in which the HTTP library looks for the end of its connections, 5 s in all.
const BODY_WHEN_STOPPING: Duration = Duration::from_secs(3);

/// What became of a request's body.
#[derive(Debug, Clone)]
enum Received {
    Whole(Bytes),
    TooLarge,
    Late,
    Broken,
}

/// Reads the body. What is wrong with it is said later, in the order of the contract. Of a request without one nothing is
/// kept: most have none.
pub(crate) async fn receive(req: &mut ServiceRequest) {
    let payload = match req.take_payload() {
        Payload::None => return,
        payload => payload,
    };
    let received = {
        let late = pin!(late(req.request()));
        let collected = pin!(collect(payload, length(req.request())));
        // A body that is there already is collected by the first poll; nothing of `late` is set up for it.
        match select(collected, late).await {
            Either::Left((received, _)) => received,
            Either::Right(((), _)) => Received::Late,
        }
    };
    req.extensions_mut().insert(received);
}

/// Resolves when a body that has not arrived by then is too late.
async fn late(req: &HttpRequest) {
    let Ok(state) = state(req) else { return rt::time::sleep(ApiState::BODY_WITHIN).await };
    let time_is_up = pin!(rt::time::sleep(state.body_within));
    let stopping = pin!(async {
        state.stopping.clone().await;
        rt::time::sleep(BODY_WHEN_STOPPING).await;
    });
    select(time_is_up, stopping).await;
}

/// How much of the payload is the body: all of it, if it ends. To actix-http whatever follows `Upgrade: websocket` or a CONNECT
/// is payload, without end; but nothing is upgraded here, so that its body is that of any other request (RFC 9112, 6.3).
fn length(req: &HttpRequest) -> usize {
    let may_be_endless = req.headers().contains_key(UPGRADE) || req.method() == Method::CONNECT;
    if !may_be_endless || req.chunked().unwrap_or(false) {
        return usize::MAX;
    }
    let length = req.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.trim().parse().ok()).unwrap_or(0)
}

async fn collect(mut payload: Payload, length: usize) -> Received {
    let (mut body, mut drained, mut left) = (BytesMut::new(), 0_usize, length);
    while left > 0
        && let Some(chunk) = payload.next().await
    {
        let Ok(mut chunk) = chunk else { return Received::Broken };
        chunk.truncate(left);
        left = left.saturating_sub(chunk.len());
        if drained == 0 && body.len().saturating_add(chunk.len()) <= MAX_BODY_BYTES {
            body.extend_from_slice(&chunk);
            continue;
        }
        drained = drained.saturating_add(body.len()).saturating_add(chunk.len());
        body = BytesMut::new();
        if drained > MAX_DRAINED_BYTES {
            break;
        }
    }
    if drained == 0 { Received::Whole(body.freeze()) } else { Received::TooLarge }
}

/// Refuses a body that was too large: 413, or too slow: 408. The connection of such a one ends.
pub(crate) fn require_received(req: &HttpRequest) -> Result<(), Problem> {
    match req.extensions().get() {
        Some(Received::TooLarge) => {
            let detail = format!("A body has at most {MAX_BODY_BYTES} bytes.");
            Err(Problem::new(Code::PayloadTooLarge, detail))
        }
        Some(Received::Late) => Err(Problem::new(Code::RequestTimeout, "The body did not arrive in time.")),
        Some(Received::Whole(_) | Received::Broken) | None => Ok(()),
    }
}

/// The raw bytes, for a fingerprint; none when they did not arrive whole.
pub(crate) fn raw(req: &HttpRequest) -> Option<Bytes> {
    match req.extensions().get() {
        None => Some(Bytes::new()),
        Some(Received::Whole(bytes)) => Some(bytes.clone()),
        Some(Received::TooLarge | Received::Late | Received::Broken) => None,
    }
}

/// The body of a request that takes JSON.
pub(crate) struct JsonBody {
    bytes: Option<Bytes>,
    is_json: bool,
}

impl JsonBody {
    /// Reads the body as a JSON object.
    ///
    /// # Errors
    /// 415 for another media type, 400 for anything but a readable `T`.
    pub(crate) fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        let bytes = self.bytes.as_ref();
        let bytes = bytes.ok_or_else(|| Problem::malformed("The body did not arrive whole."))?;
        if !self.is_json && !bytes.is_empty() {
            let detail = "The Content-Type must be application/json.";
            return Err(Problem::new(Code::UnsupportedMediaType, detail));
        }
        let Object(value) = json::read(bytes)?;
        Ok(value)
    }

    /// Reads the body, if there is one.
    ///
    /// # Errors
    /// As [`JsonBody::parse`].
    pub(crate) fn parse_optional<'a, T: Deserialize<'a> + Default>(&'a self) -> Result<T, Problem> {
        if self.bytes.as_ref().is_some_and(Bytes::is_empty) { Ok(T::default()) } else { self.parse() }
    }
}

impl FromRequest for JsonBody {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let media_type = req.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let is_json = media_type.is_none_or(is_json);
        std::future::ready(Ok(Self { bytes: raw(req), is_json }))
    }
}

/// Whether a Content-Type is `application/json` or some `application/...+json`, whatever its parameters.
fn is_json(content_type: &[u8]) -> bool {
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    let media_type = media_type.trim_ascii().to_ascii_lowercase();
    media_type.strip_prefix(b"application/").is_some_and(|kind| kind == b"json" || kind.ends_with(b"+json"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::header_bytes;

    #[test]
    fn json_by_any_of_its_names() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
            assert!(is_json(good.as_bytes()), "{good}");
        }
        for bad in ["", "text/plain", "text/json", "application/jsonp", "application/x-www-form-urlencoded"] {
            assert!(!is_json(bad.as_bytes()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parameters_say_nothing_of_the_media_type(
            media_type in prop_oneof!["[Aa]pplication/([a-z.-]{0,9}\\+?)?[Jj][Ss][Oo][Nn] ?", "[ -:<-~]{0,40}"],
            parameters in header_bytes(),
        ) {
            let whole = [media_type.as_bytes(), b";", &parameters].concat();
            prop_assert_eq!(is_json(&whole), is_json(media_type.as_bytes()));
            let name = media_type.trim().to_ascii_lowercase();
            let kind = name.strip_prefix("application/").unwrap_or_default();
            prop_assert_eq!(is_json(&whole), kind == "json" || kind.ends_with("+json"));
        }
    }
}
