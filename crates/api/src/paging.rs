//! Lists in pages: `?limit=` and an opaque `cursor`, which names the last item of the page before.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use frontrow_domain::{AuditEntryId, ConcertId, ReservationId, RoomId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required, Type};
use uuid::Uuid;

use crate::problem::Problem;
use crate::query;

/// The page size unless asked for.
const DEFAULT_LIMIT: u32 = 20;
/// The largest page.
const MAX_LIMIT: u32 = 100;

/// What a list goes on after. Each list has its own tag, so that a cursor of another list is no cursor.
pub(crate) trait Position: Sized {
    /// The tag of the list.
    const TAG: u8;
    /// What every cursor of the list matches, and nothing else does.
    const PATTERN: &'static str;

    /// The position as bytes.
    fn to_bytes(&self) -> Vec<u8>;

    /// The position in these bytes, if they are one.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

macro_rules! id_positions {
    ($($id:ident = $tag:literal $head:literal),+ $(,)?) => {$(
        impl Position for $id {
            const TAG: u8 = $tag;
            // The tag is the first letter and a part of the second; 4 bits are left for the last.
            const PATTERN: &'static str = concat!("^", $head, "[A-Za-z0-9_-]{20}[AEIMQUYcgkosw048]$");

            fn to_bytes(&self) -> Vec<u8> {
                self.get().into_bytes().to_vec()
            }

            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self::new)
            }
        }
    )+};
}

id_positions! {
    ConcertId = b'c' "Y[w-z0-9_-]",
    ReservationId = b'r' "c[g-v]",
    RoomId = b'o' "b[w-z0-9_-]",
    AuditEntryId = b'a' "Y[Q-Za-f]",
}

/// The number of an account's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryNumber(pub i64);

impl Position for EntryNumber {
    const TAG: u8 = b'e';
    const PATTERN: &'static str = "^Z[Q-Za-f][A-Za-z0-9_-]{10}$";

    fn to_bytes(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(i64::from_be_bytes).map(Self)
    }
}

/// Writes a position as a cursor.
fn encode<P: Position>(position: &P) -> String {
    let mut bytes = vec![P::TAG];
    bytes.extend(position.to_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode<P: Position>(cursor: &str) -> Option<P> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (tag, position) = bytes.split_first()?;
    if *tag == P::TAG { P::from_bytes(position) } else { None }
}

/// The page that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page<P> {
    limit: u32,
    /// Where the page before ended.
    pub after: Option<P>,
}

#[derive(Deserialize)]
struct Params {
    limit: Option<String>,
    cursor: Option<String>,
}

impl<P: Position> Page<P> {
    /// Reads `limit` and `cursor`.
    ///
    /// # Errors
    /// 400 for a limit outside 1..100 or a cursor that this list never gave.
    pub(crate) fn parse(query_string: &str) -> Result<Self, Problem> {
        let Params { limit, cursor } = query::parse(query_string)?;
        let limit = match limit {
            None => DEFAULT_LIMIT,
            Some(text) => parse_limit(&text)
                .ok_or_else(|| Problem::malformed(format!("limit: must be from 1 to {MAX_LIMIT}")))?,
        };
        let after = match cursor {
            None => None,
            Some(text) => {
                Some(decode(&text).ok_or_else(|| Problem::malformed("cursor: not one of this list"))?)
            }
        };
        Ok(Self { limit, after })
    }

    /// How many items to fetch: one more than the page has, to see whether there is a next one.
    pub(crate) fn fetch(&self) -> u32 {
        self.limit.saturating_add(1)
    }

    /// Cuts what was fetched down to the page, and makes the cursor of the next one.
    pub(crate) fn cut<T>(&self, mut items: Vec<T>, position: impl Fn(&T) -> P) -> (Vec<T>, Option<String>) {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| encode(&position(last)));
        (items, next)
    }
}

impl<P: Position> IntoParams for Page<P> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let parameter = |name: &str, description: &str, schema: ObjectBuilder| {
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .description(Some(description))
                .schema(Some(schema))
                .build()
        };
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(MAX_LIMIT))
            .default(Some(DEFAULT_LIMIT.into()));
        let cursor = ObjectBuilder::new().schema_type(Type::String).pattern(Some(P::PATTERN));
        vec![
            parameter("limit", "How many items at most.", limit),
            parameter("cursor", "The nextCursor of the page before, of this list.", cursor),
        ]
    }
}

fn parse_limit(text: &str) -> Option<u32> {
    query::whole_number(text).filter(|limit| (1..=MAX_LIMIT).contains(limit))
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;
    use actix_web::http::StatusCode;
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    #[test]
    fn cursors_round_trip_in_their_own_list_only() {
        let id = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let cursor = encode(&ConcertId::new(id));
        assert_eq!(decode::<ConcertId>(&cursor), Some(ConcertId::new(id)));
        assert_eq!(decode::<ReservationId>(&cursor), None);
        assert_eq!(decode::<RoomId>(&cursor), None);
        assert_eq!(decode::<EntryNumber>(&cursor), None);
        for number in [i64::MIN, -1, 0, 1, i64::MAX] {
            assert_eq!(decode(&encode(&EntryNumber(number))), Some(EntryNumber(number)));
        }
    }

    #[test]
    fn garbage_is_no_cursor() {
        let cursor = encode(&EntryNumber(7));
        let cut = cursor.get(1..).unwrap();
        for bad in ["", "x", "====", "a b", "가", cut, &format!("{cursor}A"), &format!("{cursor}=")] {
            assert_eq!(decode::<EntryNumber>(bad), None, "{bad}");
        }
    }

    /// Every single letter of a cursor replaced by every other one.
    fn the_pattern_says_what_is_a_cursor<P: Position>(position: &P) {
        let pattern = Regex::new(P::PATTERN).unwrap();
        let cursor = encode(position);
        let of = |text: &str| (pattern.is_match(text), decode::<P>(text).is_some());
        assert_eq!(of(&cursor), (true, true), "{cursor}");
        for place in 0..cursor.len() {
            for letter in '\0'..='\u{ff}' {
                let changed: String = cursor
                    .chars()
                    .enumerate()
                    .map(|(at, old)| if at == place { letter } else { old })
                    .collect();
                let (matches, is_cursor) = of(&changed);
                assert_eq!(matches, is_cursor, "{changed:?}");
            }
        }
        for bad in ["", &format!("{cursor}\n"), &format!("{cursor}A"), cursor.get(1..).unwrap()] {
            assert_eq!(of(bad), (false, false), "{bad:?}");
        }
    }

    #[test]
    fn the_document_says_what_is_a_cursor() {
        for id in [0, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef].map(Uuid::from_u128) {
            the_pattern_says_what_is_a_cursor(&ConcertId::new(id));
            the_pattern_says_what_is_a_cursor(&ReservationId::new(id));
            the_pattern_says_what_is_a_cursor(&RoomId::new(id));
            the_pattern_says_what_is_a_cursor(&AuditEntryId::new(id));
        }
        for number in [0, i64::MIN, i64::MAX, -1] {
            the_pattern_says_what_is_a_cursor(&EntryNumber(number));
        }
    }

    #[test]
    fn limits_are_from_1_to_100() {
        let limit = |query: &str| Page::<EntryNumber>::parse(query).map(|page| page.limit).ok();
        assert_eq!(limit(""), Some(20));
        assert_eq!(limit("other=1"), Some(20));
        assert_eq!(limit("limit=1"), Some(1));
        assert_eq!(limit("limit=100"), Some(100));
        for bad in ["0", "101", "-1", "", "x", "1.0", "%2B1", "99999999999999999999", "1&limit=2"] {
            assert_eq!(limit(&format!("limit={bad}")), None, "{bad}");
        }
        assert!(Page::<EntryNumber>::parse("cursor=x").is_err());
        assert!(Page::<EntryNumber>::parse("cursor=").is_err());
    }

    #[test]
    fn a_page_says_whether_there_is_more() {
        let page = Page::<EntryNumber>::parse("limit=2").unwrap();
        assert_eq!(page.fetch(), 3);
        let position = |n: &i64| EntryNumber(*n);
        assert_eq!(page.cut(vec![], position), (vec![], None));
        assert_eq!(page.cut(vec![9, 8], position), (vec![9, 8], None));
        assert_eq!(page.cut(vec![9, 8, 7], position), (vec![9, 8], Some(encode(&EntryNumber(8)))));
    }

    /// What might be taken for a cursor: bytes in base64, or any text.
    fn cursors() -> impl Strategy<Value = String> {
        let tagged = (prop::sample::select(b"croae".as_slice()), prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(tag, bytes)| URL_SAFE_NO_PAD.encode([vec![tag], bytes].concat()));
        prop_oneof![tagged, "[A-Za-z0-9_=-]{0,40}", ".*"]
    }

    /// Two texts never name one position, so that a changed cursor is refused or another one.
    fn is_the_only_text<P: Position>(cursor: &str) -> bool {
        decode::<P>(cursor).is_none_or(|position| encode(&position) == cursor)
    }

    proptest! {
        #[test]
        fn any_text_is_a_cursor_that_we_would_write_or_none(cursor in cursors()) {
            prop_assert!(is_the_only_text::<ConcertId>(&cursor));
            prop_assert!(is_the_only_text::<ReservationId>(&cursor));
            prop_assert!(is_the_only_text::<RoomId>(&cursor));
            prop_assert!(is_the_only_text::<AuditEntryId>(&cursor));
            prop_assert!(is_the_only_text::<EntryNumber>(&cursor));
        }

        #[test]
        fn every_position_has_a_cursor_of_its_list_alone(id in any::<u128>(), number in any::<i64>()) {
            let (concert, entry) = (ConcertId::new(Uuid::from_u128(id)), EntryNumber(number));
            prop_assert_eq!(decode(&encode(&concert)), Some(concert));
            prop_assert_eq!(decode::<RoomId>(&encode(&concert)), None);
            prop_assert_eq!(decode(&encode(&entry)), Some(entry));
            prop_assert_eq!(decode::<AuditEntryId>(&encode(&entry)), None);
        }

        #[test]
        fn any_query_string_is_a_page_or_malformed(query in prop_oneof![
            "(limit|cursor|x)=[0-9A-Za-z%&=+_.-]{0,30}",
            "limit=[0-9+-]{0,4}(&cursor=[A-Za-z0-9_-]{0,30})?",
            ".*",
        ]) {
            match Page::<EntryNumber>::parse(&query) {
                Ok(page) => prop_assert!((1..=MAX_LIMIT).contains(&page.limit)),
                Err(problem) => prop_assert_eq!(problem.status_code(), StatusCode::BAD_REQUEST),
            }
        }

        #[test]
        fn a_limit_is_a_number_from_1_to_100_in_digits(text in prop_oneof!["[0-9+ -]{0,5}", ".*"]) {
            let written = |limit: &u32| limit.to_string() == text.trim_start_matches('0');
            prop_assert_eq!(parse_limit(&text), (1..=MAX_LIMIT).find(written));
        }
    }
}
