//! What tokens are signed and checked with: the server's own secrets, and perhaps the keys of an outside identity provider.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use frontrow_domain::ports::AccessTokens;
use frontrow_infra::identity::{AccessKeys, Expected, KeyRing, KeySetFile, VerifiedTokens};

use crate::cli::{DatabaseUrl, Options};
use crate::secret;

/// Who signs tokens, and what they must say.
#[derive(Clone)]
pub struct TokenSettings {
    /// The server's secrets: for Wait-Tokens, and for access tokens unless a provider issues them.
    pub ring: KeyRing,
    /// Who issues the access tokens, where it is not the server.
    pub provider: Option<Provider>,
    /// What every access token must say besides.
    pub expected: Expected,
}

/// An outside identity provider, by its keys.
#[derive(Clone)]
pub enum Provider {
    /// One public key, in PEM.
    PublicKey(Vec<u8>),
    /// The path of a JWK set, which is read again while it is in use.
    KeySet(PathBuf),
}

/// What checks access tokens, and the file behind it that must be looked at now and then.
type Checking = (Arc<dyn AccessTokens>, Option<Arc<KeySetFile>>);

impl TokenSettings {
    /// The settings that the command line asks for.
    ///
    /// # Errors
    /// A secret or key that is not usable.
    pub fn new(options: &Options, database: &DatabaseUrl) -> Result<Self> {
        if options.identity_role_claim.is_some() && !options.has_identity_provider() {
            bail!("--identity-role-claim needs --identity-public-key or --identity-jwks");
        }
        let read = |path| std::fs::read(path).context("cannot read --identity-public-key");
        let public_key = options.identity_public_key.as_ref().map(read).transpose()?;
        Ok(Self {
            ring: secret::load(options.secret.as_deref(), &options.previous_secrets, database)?,
            provider: public_key
                .map(Provider::PublicKey)
                .or_else(|| options.identity_jwks.clone().map(Provider::KeySet)),
            expected: options.expected(),
        })
    }

    /// The keys that sign access tokens where no provider does.
    #[must_use]
    pub fn own(&self) -> AccessKeys {
        AccessKeys::own(&self.ring).expecting(self.expected.clone())
    }

    /// Where access tokens come from, for the comparison of nodes.
    pub(crate) const fn provider_kind(&self) -> &'static str {
        match self.provider {
            None => "own",
            Some(Provider::PublicKey(_)) => "public key",
            Some(Provider::KeySet(_)) => "key set",
        }
    }

    /// What checks access tokens.
    ///
    /// # Errors
    /// A key that is not usable.
    pub(crate) fn checking(&self) -> Result<Checking> {
        match &self.provider {
            None => Ok((Arc::new(VerifiedTokens::new(self.own())), None)),
            Some(Provider::PublicKey(pem)) => {
                let key = AccessKeys::outside(pem).context("--identity-public-key is not usable")?;
                Ok((Arc::new(VerifiedTokens::new(key.expecting(self.expected.clone()))), None))
            }
            Some(Provider::KeySet(path)) => {
                let file = KeySetFile::open(path.clone(), self.expected.clone());
                let file = Arc::new(file.context("--identity-jwks is not usable")?);
                Ok((file.clone(), Some(file)))
            }
        }
    }
}
