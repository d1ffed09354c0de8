//! The server's secrets, from which every key comes: one that signs, and those before it (ADR 0009).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use sha2::Sha256;

/// What the names of keys are derived for.
const NAMES: &str = "frontrow key id 1";
/// The bytes of a key's name: enough to tell keys apart, far too few to say anything of the secret.
const NAME: usize = 6;

/// At least [`Secret::MIN_BYTES`] bytes that nobody else knows. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// The secret is too short to sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret must have at least {} bytes", Secret::MIN_BYTES)]
pub struct SecretTooShort;

impl Secret {
    /// The shortest secret, in bytes: as long as the output of SHA-256.
    pub const MIN_BYTES: usize = 32;

    /// Takes a secret as it was configured.
    ///
    /// # Errors
    /// [`SecretTooShort`] below [`Secret::MIN_BYTES`].
    pub fn new(text: &str) -> Result<Self, SecretTooShort> {
        if text.len() < Self::MIN_BYTES { Err(SecretTooShort) } else { Ok(Self(text.as_bytes().to_vec())) }
    }

    /// The secret itself: the HS256 key of access tokens.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A key for one purpose, so that a token signed for one never passes for another.
    pub(crate) fn derived(&self, purpose: &str) -> [u8; 32] {
        let mut key = [0; 32];
        // 32 bytes are far below the limit of HKDF-SHA256, the only way to fail.
        let expanded = Hkdf::<Sha256>::new(None, &self.0).expand(purpose.as_bytes(), &mut key);
        debug_assert!(expanded.is_ok());
        key
    }

    /// The `kid` of what is signed with this secret: public, and no way back to it.
    pub(crate) fn key_id(&self) -> String {
        let name = self.derived(NAMES);
        URL_SAFE_NO_PAD.encode(name.get(..NAME).unwrap_or_default())
    }
}

/// The secrets of a server. The current one signs; what the previous ones signed is still believed.
#[derive(Debug, Clone)]
pub struct KeyRing {
    pub(crate) current: Secret,
    /// None twice, and none of them the current one.
    pub(crate) previous: Vec<Secret>,
}

/// There are more previous secrets than anybody needs: each costs a signature where a token does not name its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there may be at most {} previous secrets in all", KeyRing::MOST_PREVIOUS)]
pub struct TooManySecrets;

impl KeyRing {
    /// The most previous secrets.
    pub const MOST_PREVIOUS: usize = 8;

    /// Signs with `current` and believes `previous`, too.
    ///
    /// # Errors
    /// [`TooManySecrets`] above [`KeyRing::MOST_PREVIOUS`].
    pub fn new(current: Secret, previous: impl IntoIterator<Item = Secret>) -> Result<Self, TooManySecrets> {
        Self::from(&current).believing(previous)
    }

    /// The public names of the secrets, the signing one first: the `kid` of their tokens, six derived bytes each.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        std::iter::once(&self.current).chain(&self.previous).map(Secret::key_id).collect()
    }

    /// Believes these, too.
    ///
    /// # Errors
    /// [`TooManySecrets`] above [`KeyRing::MOST_PREVIOUS`].
    pub fn believing(mut self, previous: impl IntoIterator<Item = Secret>) -> Result<Self, TooManySecrets> {
        for secret in previous {
            if secret != self.current && !self.previous.contains(&secret) {
                self.previous.push(secret);
            }
        }
        if self.previous.len() > Self::MOST_PREVIOUS { Err(TooManySecrets) } else { Ok(self) }
    }
}

/// A ring of one.
impl From<&Secret> for KeyRing {
    fn from(secret: &Secret) -> Self {
        Self { current: secret.clone(), previous: Vec::new() }
    }
}

impl From<&Self> for KeyRing {
    fn from(ring: &Self) -> Self {
        ring.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_long_and_never_printed() {
        assert!(Secret::new(&"x".repeat(31)).is_err());
        let secret = Secret::new(&"x".repeat(32)).unwrap();
        assert!(!format!("{secret:?}").contains('x'));
    }

    #[test]
    fn each_purpose_has_its_key() {
        let secret = Secret::new(&"x".repeat(32)).unwrap();
        assert_ne!(secret.derived("a"), secret.derived("b"));
        assert_eq!(secret.derived("a"), secret.derived("a"));
        assert_ne!(secret.derived("a").as_slice(), secret.bytes());
    }

    fn secret(letter: &str) -> Secret {
        Secret::new(&letter.repeat(32)).unwrap()
    }

    #[test]
    fn each_secret_has_a_name_that_never_changes() {
        // Tokens out there carry it.
        assert_eq!(secret("x").key_id(), "JBXrE8O0");
        assert_ne!(secret("x").key_id(), secret("y").key_id());
    }

    #[test]
    fn a_ring_has_a_public_name_for_each_secret_the_signing_one_first() {
        let ring = KeyRing::new(secret("x"), [secret("y")]).unwrap();
        assert_eq!(ring.names(), ["JBXrE8O0".to_owned(), secret("y").key_id()]);
    }

    #[test]
    fn a_ring_holds_no_secret_twice_and_not_too_many() {
        let ring = |previous: &[&str]| KeyRing::new(secret("a"), previous.iter().map(|text| secret(text)));
        assert_eq!(ring(&["b", "a", "b"]).unwrap().previous, [secret("b")]);
        assert_eq!(
            format!("{:?}", ring(&["b"]).unwrap()),
            "KeyRing { current: Secret(..), previous: [Secret(..)] }"
        );
        assert!(ring(&["b", "c", "d", "e", "f", "g", "h", "i"]).is_ok());
        assert_eq!(ring(&["b", "c", "d", "e", "f", "g", "h", "i", "j"]).unwrap_err(), TooManySecrets);
    }
}
