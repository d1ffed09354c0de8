//! Time, ids and signed tokens.

mod access_tokens;
mod clock;
mod ids;
mod secret;
mod verified;
mod wait_tokens;

pub use access_tokens::{AccessKey, InvalidPublicKey};
pub use clock::SystemClock;
pub use ids::UuidV7;
pub use secret::{Secret, SecretTooShort};
pub use verified::VerifiedTokens;
pub use wait_tokens::WaitTokens;
