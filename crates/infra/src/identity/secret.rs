//! The server's secret, from which every key comes.

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;

/// At least [`Secret::MIN_BYTES`] bytes that nobody else knows. Never printed.
#[derive(Clone)]
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
}
