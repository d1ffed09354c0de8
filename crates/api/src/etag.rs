//! Conditional and compressed answers: `If-None-Match`, `Accept-Encoding`.

use std::io::{self, Write as _};

use actix_web::http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, IF_NONE_MATCH};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::query::whole_number;

/// How a body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    /// As it is.
    Identity,
    /// Compressed.
    Gzip,
}

impl Encoding {
    /// A body of up to this many bytes fits a packet: compressing it gains nothing.
    const WORTHWHILE_BYTES: usize = 1024;

    /// The encoding for a body of this length, by what the client accepts.
    pub(crate) fn choose(headers: &HeaderMap, body_bytes: usize) -> Self {
        let accepted = list(headers, ACCEPT_ENCODING.as_str());
        let accepted = if accepts_gzip(&accepted) { Self::Gzip } else { Self::Identity };
        accepted.for_body(body_bytes)
    }

    /// This encoding, where it gains anything for a body of this length.
    pub(crate) const fn for_body(self, body_bytes: usize) -> Self {
        if body_bytes > Self::WORTHWHILE_BYTES { self } else { Self::Identity }
    }

    /// The value of `Content-Encoding`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
        }
    }
}

/// All values of a list header as one text; what is not visible ASCII is left out.
fn list(headers: &HeaderMap, name: &str) -> String {
    let values: Vec<&str> = headers.get_all(name).filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

/// Whether `Accept-Encoding` allows gzip, and does not like identity better.
fn accepts_gzip(accepted: &str) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for item in accepted.split(',') {
        let mut parts = item.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.next().map_or(Some(1_000), thousandths);
        match coding.as_str() {
            "gzip" | "x-gzip" => gzip = weight,
            "identity" => identity = weight,
            "*" => any = weight,
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// Reads `q=0.5` as 500; `None` when it is no weight.
fn thousandths(parameter: &str) -> Option<u32> {
    let (name, weight) = parameter.split_once('=')?;
    let (whole, fraction) = weight.trim().split_once('.').unwrap_or((weight.trim(), ""));
    if !name.trim().eq_ignore_ascii_case("q") || fraction.len() > 3 {
        return None;
    }
    let whole = whole_number(whole).filter(|whole: &u32| *whole <= 1)?;
    let fraction: u32 = whole_number(&format!("{fraction:0<3}"))?;
    Some(whole.saturating_mul(1_000).saturating_add(fraction).min(1_000))
}

/// Whether `If-None-Match` names this tag. Compares weakly, as a GET does.
pub(crate) fn is_named(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let mut values = headers.get_all(IF_NONE_MATCH);
    let (Some(first), None) = (values.next(), values.next()) else { return is_in_list(headers, tag) };
    // What clients send as a rule costs nothing.
    first == tag || is_in_list(headers, tag)
}

fn is_in_list(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let named = list(headers, IF_NONE_MATCH.as_str());
    if named.trim() == "*" {
        return true;
    }
    let mut rest = named.as_str();
    // A quoted tag may hold commas, so the list is walked tag by tag.
    while let Some(start) = rest.find('"') {
        let Some(quoted) = rest.get(start..) else { return false };
        let Some(end) = quoted.get(1..).and_then(|text| text.find('"')) else { return false };
        let (found, after) = quoted.split_at(end.saturating_add(2));
        if found.as_bytes() == tag.as_bytes() {
            return true;
        }
        rest = after;
    }
    false
}

/// Compresses a body.
///
/// # Errors
/// Never: the compressor writes to memory.
pub(crate) fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{header_bytes, headers};

    /// Lines of a header: anything, and what is nearly one of these.
    fn lines(nearly: &'static str) -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop_oneof![header_bytes(), nearly.prop_map(String::into_bytes)], 0..4)
    }

    proptest! {
        #[test]
        fn any_if_none_match_names_only_what_stands_in_it(
            lines in lines("(W/)?\"?[a,\" *]{0,6}\"?(, ?\"a\")?"),
        ) {
            let named = is_named(&headers(IF_NONE_MATCH, &lines), &HeaderValue::from_static("\"a\""));
            let names = |line: &[u8]| line.trim_ascii() == b"*" || line.windows(3).any(|part| part == b"\"a\"");
            prop_assert!(!named || lines.iter().any(|line| names(line)));
        }

        #[test]
        fn a_tag_is_found_where_it_stands_in_a_list(
            lines in prop::collection::vec(prop::collection::vec(("(W/)?", "[a-c,* ]{0,3}"), 1..4), 1..4),
        ) {
            let line = |tags: &Vec<(String, String)>| {
                let tags: Vec<String> = tags.iter().map(|(weak, tag)| format!("{weak}\"{tag}\"")).collect();
                tags.join(", ")
            };
            let given: Vec<String> = lines.iter().map(line).collect();
            let is_there = lines.iter().flatten().any(|(_, tag)| tag == "a");
            prop_assert_eq!(
                is_named(&headers(IF_NONE_MATCH, &given), &HeaderValue::from_static("\"a\"")),
                is_there
            );
        }

        #[test]
        fn gzip_comes_only_to_whoever_named_it_or_anything(
            lines in lines("(gzip|\\*|br|identity)(;q=[01](\\.[0-9]{0,3})?)?"),
            body_bytes in 0..4_096_usize,
        ) {
            let chosen = Encoding::choose(&headers(ACCEPT_ENCODING, &lines), body_bytes);
            let all = String::from_utf8_lossy(&lines.concat()).to_ascii_lowercase();
            let is_named = all.contains("gzip") || all.contains('*');
            prop_assert!(chosen == Encoding::Identity || (body_bytes > 1_024 && is_named));
        }

        /// The weights of RFC 9110, 12.4.2: up to three digits behind the point, and up to one.
        #[test]
        fn every_weight_is_read(weight in "0(\\.[0-9]{0,3})?|1(\\.0{0,3})?", equals in "q=|Q=|q = ") {
            let expected = (weight.parse::<f64>().unwrap() * 1_000.0).round();
            let read = thousandths(&format!("{equals}{weight}")).map(f64::from);
            prop_assert_eq!(read, Some(expected));
        }

        #[test]
        fn what_is_no_number_is_no_weight(text in "q=[+ -]?[0-2]?\\.?[+ eE-]?[0-9]{0,3}") {
            if let Some(weight) = thousandths(&text) {
                prop_assert!(weight <= 1_000);
                let number = text.strip_prefix("q=").unwrap().trim();
                prop_assert!(number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'), "{}", text);
            }
        }
    }

    #[test]
    fn weights_are_honoured() {
        for (accepted, expected) in [
            ("", false),
            ("gzip", true),
            ("GZIP", true),
            ("br, gzip", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("gzip;q=0.001", true),
            ("gzip ; Q=1.0", true),
            ("*", true),
            ("*;q=0", false),
            ("gzip;q=0, *", false),
            ("*;q=0, gzip;q=0.5", true),
            ("identity", false),
            ("identity;q=0.5, gzip;q=0.4", false),
            ("identity;q=0.5, gzip;q=0.5", true),
            ("br, deflate", false),
            ("gzip;q=2", false),
            ("gzip;q=x", false),
            ("gzip;q=+1", false),
            ("gzip;q=0.+5", false),
        ] {
            assert_eq!(accepts_gzip(accepted), expected, "{accepted}");
        }
    }

    #[test]
    fn small_bodies_are_not_compressed() {
        let accept = headers(ACCEPT_ENCODING, &["br", "gzip"]);
        assert_eq!(Encoding::choose(&accept, 1024), Encoding::Identity);
        assert_eq!(Encoding::choose(&accept, 1025), Encoding::Gzip);
        assert_eq!(Encoding::choose(&HeaderMap::new(), 1025), Encoding::Identity);
    }

    #[test]
    fn tags_are_found_in_lists() {
        for (values, expected) in [
            (&[][..], false),
            (&["\"a\""], true),
            (&["W/\"a\""], true),
            (&["*"], true),
            (&["\"b\", \"a\""], true),
            (&["\"b\"", "W/\"a\""], true),
            (&["\"b,\", \"a\""], true),
            (&["\"b\""], false),
            (&["\"b, a\""], false),
            (&["a"], false),
            (&["\"a"], false),
            (&["\""], false),
            (&["\"*\""], false),
        ] {
            let tag = HeaderValue::from_static("\"a\"");
            assert_eq!(is_named(&headers(IF_NONE_MATCH, values), &tag), expected, "{values:?}");
        }
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let body = b"seat ".repeat(1_000);
        let packed = gzip(&body).unwrap();
        assert!(packed.len() < body.len() / 10);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, body);
    }
}
