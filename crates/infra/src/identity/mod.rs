//! Time, ids and signed tokens.

mod access_tokens;
mod clock;
mod ids;
mod key_set;
mod secret;
mod subject;
mod verified;
mod wait_tokens;

pub use access_tokens::{AccessKeys, Expected, InvalidPublicKey};
pub use clock::SystemClock;
pub use ids::UuidV7;
pub use key_set::{InvalidKeySet, KeySetFile};
pub use secret::{KeyRing, Secret, SecretTooShort, TooManySecrets};
pub use verified::VerifiedTokens;
pub use wait_tokens::WaitTokens;
