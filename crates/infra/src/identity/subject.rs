//! User ids of an outside identity provider's subjects (ADR 0025).
//!
//! Distinct subjects have distinct user ids: a `sub` is taken as it is only in the one canonical text of a UUID, and only if
//! that cannot be the id of a mapped subject.

use frontrow_domain::UserId;
use serde_json::Value;
use uuid::{Uuid, Version};

/// The user id of a subject. A UUID in its canonical text (lower case, with hyphens) is the user id itself, unless it is of
/// version 5. Any other text is mapped to `UUIDv5(UUIDv5(NAMESPACE_URL, iss), sub)`, with an empty `iss` where the token has
/// none. `None` for an empty subject, and for an issuer that is no text where it is needed.
pub(super) fn user_id(sub: &str, issuer: Option<&Value>) -> Option<UserId> {
    let is_itself = |id: &Uuid| id.hyphenated().to_string() == sub && id.get_version() != Some(Version::Sha1);
    if let Some(id) = Uuid::try_parse(sub).ok().filter(is_itself) {
        return Some(UserId::new(id));
    }
    let issuer = match issuer {
        None => "",
        Some(issuer) => issuer.as_str()?,
    };
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, issuer.as_bytes());
    (!sub.is_empty()).then(|| UserId::new(Uuid::new_v5(&namespace, sub.as_bytes())))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(sub: &str, issuer: Option<&str>) -> Option<String> {
        user_id(sub, issuer.map(Value::from).as_ref()).map(|id| id.get().to_string())
    }

    /// As KEYS.md says, so that other systems can compute it.
    #[test]
    fn the_mapping_has_these_values() {
        let auth0 = "auth0|5f7c8ec7c33c6c004bbafe82";
        for (issuer, sub, expected) in [
            (Some("https://tenant.example.com/"), auth0, "6daebe10-1e69-5a24-891e-a9f721cd8bad"),
            (None, auth0, "2b9dc870-c022-5d22-8f77-83a4afdab914"),
            (Some("https://id"), "kim", "7576bb61-c2a6-5d1a-b531-63d968377cfa"),
        ] {
            assert_eq!(of(sub, issuer).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_canonical_uuid_is_the_user_id_itself() {
        for id in [
            "9f1c24a6-6c4a-4d5e-8f21-3b0f2c6f7a11",
            "01926d3a-0000-7000-8000-000000000000",
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ] {
            for issuer in [None, Some("https://id")] {
                assert_eq!(of(id, issuer).as_deref(), Some(id));
            }
            assert_eq!(user_id(id, Some(&json!(["x"]))).map(|id| id.get().to_string()).as_deref(), Some(id));
        }
    }

    #[test]
    fn no_chosen_subject_takes_the_id_of_another() {
        let victims = ["9f1c24a6-6c4a-4d5e-8f21-3b0f2c6f7a11", "kim"];
        for victim in victims {
            let id = of(victim, Some("https://id")).unwrap();
            let uuid = Uuid::parse_str(&id).unwrap();
            let upper = id.to_uppercase();
            let chosen = [
                uuid.simple().to_string(),
                uuid.urn().to_string(),
                uuid.braced().to_string(),
                if upper == id { format!("{id} ") } else { upper },
                format!(" {id}"),
                format!("https://id{victim}"),
            ];
            for chosen in chosen {
                assert_ne!(of(&chosen, Some("https://id")).unwrap(), id, "{chosen}");
            }
        }
        // The id that a mapped subject has is no subject of its own.
        let kim = of("kim", Some("https://id")).unwrap();
        assert_ne!(of(&kim, Some("https://id")).unwrap(), kim);
    }

    #[test]
    fn a_subject_needs_a_text_and_an_issuer_that_is_one() {
        assert_eq!(of("", Some("https://id")), None);
        assert_eq!(user_id("kim", Some(&json!(["https://id"]))), None);
        assert_eq!(user_id("kim", Some(&json!(7))), None);
    }

    proptest! {
        #[test]
        fn distinct_subjects_have_distinct_ids(
            subjects in prop::collection::hash_set(("[a-c/:]{0,3}", "[a-c/:]{1,4}|[0-9a-f-]{36}"), 2..20),
        ) {
            let mut seen = HashMap::new();
            for (issuer, sub) in subjects {
                let id = of(&sub, Some(&issuer)).unwrap();
                let other = seen.insert(id, (issuer.clone(), sub.clone()));
                prop_assert!(other.is_none(), "{:?} and {:?}", other, (issuer, sub));
            }
        }
    }
}
