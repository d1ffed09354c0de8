//! JSON in: strict about types, so that what is malformed (400) and what is invalid (422) stay apart.

use std::fmt;
use std::marker::PhantomData;

use frontrow_domain::Timestamp;
use frontrow_domain::queue::RoomMode;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::problem::Problem;

/// How deep arrays and objects may lie in each other. The API's own bodies have three levels.
const MAX_DEPTH: usize = 32;

/// Reads a whole JSON text.
///
/// # Errors
/// 400 when it is not one, or not a `T`, or nested deeper than any body needs, even where it would be ignored.
pub(crate) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    if is_deep(bytes) {
        return Err(Problem::malformed(format!("The body has more than {MAX_DEPTH} levels.")));
    }
    let text = str::from_utf8(bytes).map_err(|_| Problem::malformed("The body is not UTF-8."))?;
    serde_json::from_str(text).map_err(|error| Problem::malformed(error.to_string()))
}

/// Whether arrays and objects lie deeper in each other than [`MAX_DEPTH`].
fn is_deep(json: &[u8]) -> bool {
    // Few bodies have so many brackets at all.
    if json.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() <= MAX_DEPTH {
        return false;
    }
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth = depth.saturating_add(1),
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// A field that may be absent but, if it is there, must be a `T`: `#[serde(default, deserialize_with = "present")]`.
/// With an `Option` as `T`, null is told from absent.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A `T` written as a JSON object. Left to itself, serde takes an array for a struct too.
#[derive(Debug)]
pub(crate) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        from.deserialize_map(Fields(PhantomData))
    }
}

/// A JSON integer of any size. One that does not fit is well-formed, and so for a rule to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Integer(Option<i64>);

impl Integer {
    /// The number, or `None` when it is beyond 64 bits.
    pub(crate) fn get(self) -> Option<i64> {
        self.0
    }

    /// The number for a rule with a range; one beyond 64 bits becomes a number that is out of every range too.
    pub(crate) fn or_out_of_range(self) -> i64 {
        self.0.unwrap_or(i64::MAX)
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(from)?.get();
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(de::Error::custom("expected an integer"));
        }
        Ok(Self(text.parse().ok()))
    }
}

/// Reads a UUID in its usual form: 36 characters, with hyphens.
pub(crate) fn parse_uuid(text: &str) -> Option<Uuid> {
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

macro_rules! from_text {
    ($($(#[$doc:meta])* $name:ident($value:ty), $expected:literal, $parse:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name(pub $value);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        let parse: fn(&str) -> Option<$value> = $parse;
                        parse(text).map($name).ok_or_else(|| E::custom(concat!("expected ", $expected)))
                    }
                }
                from.deserialize_str(Text)
            }
        }
    )+};
}

from_text! {
    /// A UUID.
    Id(Uuid), "a UUID", parse_uuid;
    /// A time.
    Time(Timestamp), "an RFC 3339 time", |text| Timestamp::parse(text).ok();
    /// How a room admits.
    Mode(RoomMode), "one of AUTO, HOLD, OPEN, CLOSED, PAUSED",
        |text| RoomMode::NAMES.iter().find(|(_, name)| *name == text).map(|(mode, _)| *mode);
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;
    use actix_web::http::StatusCode;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Bytes that are nearly a body.
    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        let nearly = concat!(
            r#"\{"n": ?-?[0-9]{1,25}([.eE][0-9]{0,3})? ?"#,
            r#"(,"mode":"?(OPEN|[A-Z]{0,6})"?)?(,"limit":(null|[0-9]{0,5}))?\}?"#,
        );
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            r#"[\[\]{}",:\\0-9a-fn.+-]{0,200}"#.prop_map(String::into_bytes),
            nearly.prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_object_or_malformed(bytes in bodies()) {
            match read::<Object<Sample>>(&bytes) {
                Err(problem) => prop_assert_eq!(problem.status_code(), StatusCode::BAD_REQUEST),
                Ok(Object(Sample { n, .. })) => {
                    let value: Value = serde_json::from_slice(&bytes).unwrap();
                    prop_assert!(value.is_object());
                    prop_assert!(n.get() == value["n"].as_i64() || value["n"] == json!(-0.0));
                }
            }
        }

        #[test]
        fn what_is_written_is_read(
            n in any::<i128>(),
            limit in prop::option::of(prop::option::of(any::<i64>())),
            mode in prop::option::of(prop::sample::select(RoomMode::NAMES.as_slice())),
            (name, text) in ("[x-z]{1,5}", ".{0,20}"),
        ) {
            let mut fields = vec![format!("\"n\": {n}"), format!("\"{name}\":[{}]", json!(text))];
            fields.extend(limit.map(|limit| format!("\"limit\":{}", json!(limit))));
            fields.extend(mode.map(|(_, name)| format!("\"mode\":\"{name}\"")));
            let read = sample(&format!("{{{}}}", fields.join(","))).unwrap();
            prop_assert_eq!(read.n.get(), i64::try_from(n).ok());
            prop_assert_eq!(read.limit.map(|limit| limit.and_then(Integer::get)), limit);
            prop_assert_eq!(read.mode, mode.map(|(mode, _)| Mode(mode)));
        }

        #[test]
        fn every_uuid_is_read_in_one_form_but_for_the_case(
            id in any::<u128>(),
            text in prop_oneof!["(urn:uuid:|\\{)?[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\\}?", "[0-9a-f-]{36}", ".*"],
        ) {
            let id = Uuid::from_u128(id);
            prop_assert_eq!(parse_uuid(&id.to_string()), Some(id));
            if let Some(read) = parse_uuid(&text) {
                prop_assert_eq!(read.to_string(), text.to_ascii_lowercase());
            }
        }

        #[test]
        fn what_lies_deep_is_refused_and_nothing_else(levels in 0..70_usize, text in "[\\[{]{0,40}") {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            // The object around it is a level, too.
            let body = format!("{{\"n\":1,\"text\":\"{text}\",\"unknown\":{open}0{close}}}");
            prop_assert_eq!(sample(&body).is_ok(), levels < MAX_DEPTH);
        }
    }

    #[derive(Debug, Deserialize)]
    struct Sample {
        n: Integer,
        #[serde(default, deserialize_with = "present")]
        limit: Option<Option<Integer>>,
        #[serde(default, deserialize_with = "present")]
        mode: Option<Mode>,
    }

    fn sample(text: &str) -> Result<Sample, Problem> {
        read::<Object<Sample>>(text.as_bytes()).map(|object| object.0)
    }

    #[test]
    fn integers_of_any_size_are_well_formed() {
        for (text, value) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("-7", Some(-7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            (&"9".repeat(60_000), None),
        ] {
            assert_eq!(sample(&format!("{{\"n\": {text} }}")).unwrap().n.get(), value, "{text}");
        }
    }

    #[test]
    fn nothing_else_is_an_integer() {
        for text in
            ["1.0", "1e3", "1E3", "\"1\"", "null", "true", "[]", "{}", "01", "+1", "-", "1.", "NaN", ""]
        {
            assert!(sample(&format!("{{\"n\":{text}}}")).is_err(), "{text}");
        }
    }

    #[test]
    fn only_objects_are_objects() {
        for text in
            ["", " ", "[1]", "[1,null,null]", "1", "null", "\"n\"", "{\"n\":1", "{\"n\":1}x", "{\"n\":1,}"]
        {
            assert!(sample(text).is_err(), "{text}");
        }
        assert!(sample("{\"n\":1,\"n\":2}").is_err(), "a field twice");
        assert!(sample("{\"n\":1,\"unknown\":[{\"x\":null}]}").is_ok());
        assert!(read::<Object<Sample>>(b"{\"n\":1,\"unknown\":\"\xff\"}").is_err(), "not UTF-8");
    }

    #[test]
    fn nesting_never_overflows_the_stack() {
        let (open, close) = ("[".repeat(30_000), "]".repeat(30_000));
        assert!(sample(&format!("{{\"n\":1,\"unknown\":{open}{close}}}")).is_err());
        assert!(sample(&format!("{{\"n\":{open}{close}}}")).is_err());
        assert!(sample(&format!("{{\"n\":1,\"unknown\":{open}")).is_err());
        assert!(sample(&format!("{open}{close}")).is_err());
    }

    #[test]
    fn depth_is_what_lies_in_each_other_outside_of_texts() {
        let nested = |levels: usize| {
            let (open, close) = ("{\"a\":[".repeat(levels / 2), "]}".repeat(levels / 2));
            format!("{{\"n\":1,\"unknown\":{open}{close}}}")
        };
        assert!(sample(&nested(30)).is_ok());
        assert!(sample(&nested(32)).is_err());
        let wide = format!("{{\"n\":1,\"unknown\":[{}[]]}}", "[],{},".repeat(10_000));
        assert!(sample(&wide).is_ok(), "many are not deep");
        let brackets = "[{\\\\\\\"[".repeat(1_000);
        assert!(
            sample(&format!("{{\"n\":1,\"unknown\":\"{brackets}\"}}")).is_ok(),
            "in a text they are letters"
        );
        assert!(!is_deep(brackets.as_bytes().get(..32).unwrap()));
    }

    #[test]
    fn absent_is_not_null() {
        assert_eq!(sample("{\"n\":1}").unwrap().limit, None);
        assert_eq!(sample("{\"n\":1,\"limit\":null}").unwrap().limit, Some(None));
        assert_eq!(sample("{\"n\":1,\"limit\":5}").unwrap().limit.flatten().unwrap().get(), Some(5));
        assert_eq!(sample("{\"n\":1}").unwrap().mode, None);
        assert!(sample("{\"n\":1,\"mode\":null}").is_err());
    }

    #[test]
    fn enums_are_their_names() {
        assert_eq!(sample("{\"n\":1,\"mode\":\"OPEN\"}").unwrap().mode, Some(Mode(RoomMode::Open)));
        for text in ["\"open\"", "\"SHUT\"", "{\"OPEN\":null}", "1"] {
            assert!(sample(&format!("{{\"n\":1,\"mode\":{text}}}")).is_err(), "{text}");
        }
    }

    #[test]
    fn uuids_have_one_form() {
        assert!(parse_uuid("01890a5d-ac96-774b-bcce-b302099a8057").is_some());
        assert!(parse_uuid("01890A5D-AC96-774B-BCCE-B302099A8057").is_some());
        for bad in [
            "",
            "x",
            "01890a5dac96774bbcceb302099a8057",
            "{01890a5d-ac96-774b-bcce-b302099a8057}",
            "01890a5d-ac96-774b-bcce-b302099a805g",
        ] {
            assert!(parse_uuid(bad).is_none(), "{bad}");
        }
    }
}
