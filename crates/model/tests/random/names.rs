//! Which id is called what.

use std::collections::{BTreeMap, HashMap};

use frontrow_domain::UserId;
use frontrow_model::Name;
use uuid::Uuid;

/// What an id that nobody has told of is called: no call has this name.
const UNHEARD_OF: Name = 0;

/// A Wait-Token and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct OwnToken {
    pub(crate) user: UserId,
    pub(crate) wait_token: String,
}

/// The ids that the real thing gave to what operations have made.
#[derive(Debug, Default)]
pub(crate) struct Names {
    names: HashMap<Uuid, Name>,
    reservations: HashMap<Name, Uuid>,
    tokens: BTreeMap<Name, OwnToken>,
    access_tokens: HashMap<Name, String>,
}

/// Something that was made by a call.
#[derive(Debug)]
pub(crate) enum Made {
    Token(Uuid, OwnToken),
    Reservation(Uuid),
    /// The user, and the access token.
    Session(Uuid, String),
    /// Another access token of a user that has a name.
    Renewed(String),
    Other(Uuid),
}

impl Names {
    pub(crate) fn learn(&mut self, call: Name, made: Made) {
        let id = match made {
            Made::Token(id, token) => {
                self.tokens.insert(call, token);
                id
            }
            Made::Reservation(id) => {
                self.reservations.insert(call, id);
                id
            }
            Made::Session(user, access_token) => {
                self.access_tokens.insert(call, access_token);
                user
            }
            Made::Renewed(access_token) => {
                self.access_tokens.insert(call, access_token);
                return;
            }
            Made::Other(id) => id,
        };
        self.names.insert(id, call);
    }

    pub(crate) fn name_of(&self, id: Uuid) -> Name {
        self.names.get(&id).copied().unwrap_or(UNHEARD_OF)
    }

    /// The id of a reservation; one that nobody has if there is none of that name.
    pub(crate) fn reservation(&self, name: Name) -> Uuid {
        self.reservations.get(&name).copied().unwrap_or(Uuid::from_u128(u128::from(name)))
    }

    /// The Wait-Token of that name, or a forged one.
    pub(crate) fn wait_token(&self, name: Name) -> String {
        self.tokens.get(&name).map_or_else(|| "forged".to_owned(), |token| token.wait_token.clone())
    }

    /// The access token of the session of that name, or a forged one.
    pub(crate) fn access_token(&self, session: Name) -> String {
        self.access_tokens.get(&session).cloned().unwrap_or_else(|| "forged".to_owned())
    }

    /// Nobody asks for these any more: they are as if they had never been.
    pub(crate) fn forget_tokens(&mut self, names: impl Iterator<Item = Name>) {
        names.for_each(|name| drop(self.tokens.remove(&name)));
    }

    pub(crate) fn tokens(&self) -> Vec<OwnToken> {
        self.tokens.values().cloned().collect()
    }
}
