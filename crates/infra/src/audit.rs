//! The invariants of a database, checked by SQL that both databases understand.
//!
//! Each looks at stored states alone, in one statement, and all of them within one snapshot, so that a live system can be
//! audited: what a report counts in one table agrees with what it counts in another. PostgreSQL takes the snapshot with
//! `REPEATABLE READ READ ONLY`; `SERIALIZABLE DEFERRABLE` would add nothing, since every transaction that commits keeps every
//! promise by itself. SQLite takes it with the first read of a transaction. Neither keeps a writer waiting; what is dead or
//! logged since the audit began is cleared away after it.
//!
//! What depends on the options of a server, or on a policy that an operator may change, is no invariant of a database: how
//! many seats a user may have, how many may be ACTIVE or wait. Nor is a hold or token past its deadline: the clock ends it.

mod lines;
mod money;
mod records;
mod seats;

use diesel::prelude::QueryableByName;
use diesel::sql_types::BigInt;
use serde::Serialize;
use uuid::Uuid;

use crate::sql::types::{DbId, Id};

/// One promise and how to check it.
pub(crate) struct Invariant {
    /// What programs call it.
    pub(crate) name: &'static str,
    /// What is promised, in a line.
    pub(crate) promise: &'static str,
    /// Counts what there is to check.
    pub(crate) checked: &'static str,
    /// The ids of what breaks the promise. What the databases say each in its own way stands in braces, see [`Dialect`].
    breaches: &'static str,
}

/// What the check of one invariant found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What programs call it.
    pub name: &'static str,
    /// What is promised, in a line.
    pub promise: &'static str,
    /// How many things were checked.
    pub checked: i64,
    /// How many of them break the promise.
    pub breaches: i64,
    /// The ids of some of those.
    pub examples: Vec<Uuid>,
}

/// Every invariant, in the order of the report.
pub(crate) fn invariants() -> impl Iterator<Item = &'static Invariant> {
    let topics: [&[Invariant]; 4] =
        [&seats::INVARIANTS, &money::INVARIANTS, &lines::INVARIANTS, &records::INVARIANTS];
    topics.into_iter().flatten()
}

/// What the databases say each in its own way.
pub(crate) struct Dialect {
    /// `{paymentId}`: the 36 characters of `answer_body` that follow the beginning of this field; `NULL` without the field.
    pub(crate) id_in_answer: fn(begin: &str) -> String,
    /// `{p.payment_id is a.payment_id}`: whether a column has the id of a text, which may be no id at all.
    pub(crate) has_id: fn(column: &str, text: &str) -> String,
}

impl Invariant {
    /// Counts what breaks the promise.
    pub(crate) fn count(&self, dialect: &Dialect) -> String {
        format!("{} SELECT count(*) FROM broken", self.broken(dialect))
    }

    /// Up to ten ids of what breaks it.
    pub(crate) fn examples(&self, dialect: &Dialect) -> String {
        format!("{} SELECT id FROM broken ORDER BY id LIMIT 10", self.broken(dialect))
    }

    fn broken(&self, dialect: &Dialect) -> String {
        let breaches = dialect.say(self.breaches);
        format!("WITH found (id) AS ({breaches}), broken (id) AS (SELECT DISTINCT id FROM found)")
    }
}

impl Dialect {
    fn say(&self, query: &str) -> String {
        let mut pieces = query.split(['{', '}']);
        let mut said: String = pieces.next().into_iter().collect();
        while let Some(braced) = pieces.next() {
            said += &match braced.split_once(" is ") {
                Some((column, text)) => (self.has_id)(column, text),
                None => (self.id_in_answer)(&format!("\"{braced}\":\"")),
            };
            said += pieces.next().unwrap_or_default();
        }
        said
    }
}

/// A row of a [`column_query`] that counts.
#[derive(QueryableByName)]
pub(crate) struct Number {
    #[diesel(sql_type = BigInt)]
    pub(crate) value: i64,
}

/// A row of a [`column_query`] that names what is broken.
#[derive(QueryableByName)]
pub(crate) struct Broken {
    #[diesel(sql_type = Id)]
    pub(crate) value: DbId,
}

/// A query of one column, whose column is called `value` as both adapters read it.
pub(crate) fn column_query(query: &str) -> String {
    format!("WITH answer (column_value) AS ({query}) SELECT column_value AS \"value\" FROM answer")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_a_name_and_a_promise_of_its_own() {
        let plain = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let names: BTreeSet<_> = invariants().map(|invariant| invariant.name).collect();
        let promises: BTreeSet<_> = invariants().map(|invariant| invariant.promise).collect();
        assert_eq!((names.len(), promises.len()), (invariants().count(), invariants().count()));
        assert!(names.iter().all(|name| plain(name)), "{names:?}");
    }
}
