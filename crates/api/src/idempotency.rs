//! `Idempotency-Key`: what was answered before is answered again, byte for byte.

use actix_web::body::BoxBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, FromRequest, HttpMessage, HttpRequest, HttpResponse};
use frontrow_app::Reply;
use frontrow_domain::idempotency::{
    Answer, Fingerprint, IdempotencyKey, InvalidIdempotencyKey, KeyedRequest,
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::body;
use crate::caller::Known;
use crate::problem::Problem;
use crate::state;

/// The header that carries the key.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header that marks an earlier answer.
pub(crate) const IDEMPOTENCY_REPLAYED: &str = "idempotency-replayed";

/// Gives an earlier answer to this request, if there is one. A bad key is left for the handler to refuse.
pub(crate) async fn replay(
    req: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match find(req.request()).await {
        Ok(Found::Answer(reply)) => Ok(req.into_response(respond(reply))),
        Ok(Found::Key(key)) => {
            req.extensions_mut().insert(key);
            next.call(req).await
        }
        Err(problem) => Ok(req.into_response(problem.response())),
    }
}

enum Found {
    Answer(Reply),
    Key(Key),
}

async fn find(req: &HttpRequest) -> Result<Found, Problem> {
    let known = req.extensions().get::<Known>().copied();
    let known = known.ok_or_else(|| Problem::internal("an idempotent route does not know the caller"))?;
    let key = match key_of(req.headers()) {
        Ok(Some(key)) => key,
        Ok(None) => return Ok(Found::Key(Key(Ok(None)))),
        Err(invalid) => return Ok(Found::Key(Key(Err(invalid)))),
    };
    // A body that did not arrive whole has no fingerprint, and is refused by the handler.
    let Some(raw) = body::raw(req) else { return Ok(Found::Key(Key(Ok(None)))) };
    let target = req.uri().path_and_query().map_or("/", |target| target.as_str());
    let fingerprint = fingerprint(req.method().as_str(), target, &raw);
    let request = KeyedRequest { user_id: known.user_id(), key, fingerprint };
    match state(req)?.use_cases.idempotency.replay(&request).await? {
        Some(reply) => Ok(Found::Answer(reply)),
        None => Ok(Found::Key(Key(Ok(Some(request))))),
    }
}

fn key_of(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, InvalidIdempotencyKey> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY);
    let Some(key) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(InvalidIdempotencyKey);
    }
    IdempotencyKey::new(key.to_str().map_err(|_| InvalidIdempotencyKey)?).map(Some)
}

/// Each part goes in with its length first, so that no two requests run into the same text.
fn fingerprint(method: &str, target: &str, raw: &[u8]) -> Fingerprint {
    let mut digest = Sha256::new();
    for part in [method.as_bytes(), target.as_bytes(), raw] {
        // A `usize` has at most 64 bits.
        digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(part);
    }
    Fingerprint(digest.finalize().into())
}

/// The key of a request, if it has one. Only routes behind [`replay`] do.
#[derive(Debug, Clone)]
pub(crate) struct Key(Result<Option<KeyedRequest>, InvalidIdempotencyKey>);

impl Key {
    /// What to store the answer under.
    ///
    /// # Errors
    /// 400 for a bad key.
    pub(crate) fn checked(self) -> Result<Option<KeyedRequest>, Problem> {
        self.0.map_err(|invalid| Problem::malformed(format!("Idempotency-Key: {invalid}")))
    }
}

impl FromRequest for Key {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let key = req.extensions().get().cloned();
        std::future::ready(
            key.ok_or_else(|| Problem::internal("an idempotent route never looked for a replay")),
        )
    }
}

/// The final bytes of a JSON answer.
pub(crate) fn json_answer(status: StatusCode, body: &impl Serialize) -> Answer {
    // Plain strings, numbers and lists: this cannot fail.
    let body = serde_json::to_vec(body).unwrap_or_default();
    Answer { status: status.as_u16(), content_type: "application/json".to_owned(), body }
}

/// Sends an answer as it is, and says so when it is an earlier one.
pub(crate) fn respond(reply: Reply) -> HttpResponse {
    let Reply { answer, replayed } = reply;
    let (Ok(status), Ok(content_type)) =
        (StatusCode::from_u16(answer.status), HeaderValue::from_str(&answer.content_type))
    else {
        return Problem::internal("a stored answer has no valid status or content type").response();
    };
    let mut response = HttpResponse::build(status);
    response.insert_header((CONTENT_TYPE, content_type));
    response.insert_header((CACHE_CONTROL, "no-store"));
    if replayed {
        response.insert_header((IDEMPOTENCY_REPLAYED, "true"));
    }
    response.body(answer.body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::testing::{header_bytes, headers};

    #[test]
    fn one_printable_key_or_none() {
        let key = |values: &[&[u8]]| key_of(&headers(IDEMPOTENCY_KEY, values));
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&[b"k 1"]).unwrap().unwrap().as_str(), "k 1");
        let long = [b'x'; 256];
        let bad: [Vec<&[u8]>; 4] = [vec![b""], vec!["키".as_bytes()], vec![b"a", b"a"], vec![&long]];
        for bad in bad {
            assert_eq!(key(&bad), Err(InvalidIdempotencyKey), "{bad:?}");
        }
        assert!(key(&[&[b'x'; 255]]).is_ok());
    }

    proptest! {
        #[test]
        fn any_header_is_the_key_that_was_sent_or_none(bytes in header_bytes()) {
            let is_printable = bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
            let is_key = is_printable && (1..=255).contains(&bytes.len());
            match key_of(&headers(IDEMPOTENCY_KEY, &[&bytes])) {
                Ok(key) => prop_assert!(is_key && key.unwrap().as_str().as_bytes() == bytes),
                Err(InvalidIdempotencyKey) => prop_assert!(!is_key),
            }
        }

        /// One text, cut into method, target and body in two ways.
        #[test]
        fn one_fingerprint_means_one_request(text in "[A-Z/{}]{0,8}", cuts in any::<[Index; 4]>()) {
            let cut = |one: Index, other: Index| {
                let (one, other) = (one.index(text.len() + 1), other.index(text.len() + 1));
                (&text[..one.min(other)], &text[one.min(other)..one.max(other)], &text[one.max(other)..])
            };
            let of = |(method, target, raw): (&str, &str, &str)| fingerprint(method, target, raw.as_bytes());
            let (this, that) = (cut(cuts[0], cuts[1]), cut(cuts[2], cuts[3]));
            prop_assert_eq!(of(this) == of(that), this == that);
        }
    }

    #[test]
    fn a_fingerprint_tells_its_parts_apart() {
        let of = |method, target, raw: &[u8]| fingerprint(method, target, raw).0;
        let original = of("POST", "/pay", b"{}");
        assert_eq!(original, of("POST", "/pay", b"{}"));
        for (method, target, raw) in [
            ("PUT", "/pay", b"{}".as_slice()),
            ("POST", "/pay?", b"{}"),
            ("POST", "/pay{", b"}"),
            ("POS", "T/pay", b"{}"),
            ("POST", "/pay", b"{ }"),
            ("POST", "/pay{}", b""),
        ] {
            assert_ne!(original, of(method, target, raw), "{method} {target}");
        }
    }
}
