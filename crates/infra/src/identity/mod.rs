//! Ids and signed tokens, and the clock that both are made by.

mod access_tokens;
mod ids;
mod key_set;
mod secret;
mod subject;
mod verified;
mod wait_tokens;

pub use crate::clock::SystemClock;
pub use access_tokens::{AccessKeys, Expected, InvalidPublicKey};
pub use ids::UuidV7;
pub use key_set::{InvalidKeySet, KeySetFile};
pub use secret::{KeyRing, Secret, SecretTooShort, TooManySecrets};
pub use verified::VerifiedTokens;
pub use wait_tokens::WaitTokens;
