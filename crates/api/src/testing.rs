//! What the unit tests share: headers, as anybody may send them.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

/// One header, on as many lines as there are values.
pub(crate) fn headers(name: impl AsRef<str>, values: &[impl AsRef<[u8]>]) -> HeaderMap {
    let name: HeaderName = name.as_ref().parse().unwrap();
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(name.clone(), HeaderValue::from_bytes(value.as_ref()).unwrap());
    }
    headers
}

/// Any bytes that a header may have, half of them text.
pub(crate) fn header_bytes() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let text = "[\t -~]{0,300}".prop_map(String::into_bytes);
    prop_oneof![bytes, text].prop_map(|mut bytes| {
        bytes.retain(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
        bytes
    })
}
