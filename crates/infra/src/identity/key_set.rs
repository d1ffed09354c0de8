//! The keys of an outside identity provider as it publishes them: a JWK set (RFC 7517) in a file, which is read again
//! while it is in use. A provider rotates its keys by that; nobody restarts.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use frontrow_domain::Timestamp;
use frontrow_domain::ports::{AccessClaims, AccessTokens, InvalidAccessToken, NoIssuer};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::identity::access_tokens::{Choice, Key};
use crate::identity::{AccessKeys, Expected, VerifiedTokens};

/// The most bytes of a file that are looked at.
const MOST_BYTES: u64 = 1 << 20;
/// The most keys of a set.
const MOST_KEYS: usize = 64;

/// A file that is no set of keys to check tokens with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeySet {
    /// It is not there, or not for us.
    #[error("it cannot be read ({0})")]
    Unreadable(ErrorKind),
    /// Its text is something else.
    #[error("it is not a JWK set")]
    NotASet,
    /// It has what nobody but its owner may have.
    #[error("it holds a private or secret key")]
    Private,
    /// All of its keys are of other kinds or for other purposes.
    #[error(
        "it has no RSA (2,048 to 4,096 bits, RS256), P-256 (ES256) or Ed25519 key that checks signatures"
    )]
    NoKey,
    /// It is longer than any provider's.
    #[error("it has more than {MOST_KEYS} keys")]
    TooManyKeys,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

/// What is looked at of a key.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
    /// The private half of a pair.
    #[serde(default)]
    d: Option<IgnoredAny>,
    /// A secret that both sides have.
    #[serde(default)]
    k: Option<IgnoredAny>,
}

impl AccessKeys {
    /// The public keys of an outside identity provider, in JSON. RSA is RS256, P-256 is ES256, Ed25519 is EdDSA; keys of other kinds or
    /// for other purposes are passed over, as the RFC asks. A token is checked with the key that it names.
    ///
    /// # Errors
    /// [`InvalidKeySet`].
    pub fn key_set(json: &[u8]) -> Result<Self, InvalidKeySet> {
        let set: Set = serde_json::from_slice(json).map_err(|_| InvalidKeySet::NotASet)?;
        if set.keys.len() > MOST_KEYS {
            return Err(InvalidKeySet::TooManyKeys);
        }
        if set.keys.iter().any(|jwk| jwk.d.is_some() || jwk.k.is_some()) {
            return Err(InvalidKeySet::Private);
        }
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Jwk::key).collect();
        if keys.is_empty() { Err(InvalidKeySet::NoKey) } else { Ok(Self::checking(keys, Choice::Named)) }
    }
}

impl Jwk {
    /// The key, where it is of a kind that we know and there to check signatures.
    fn key(self) -> Option<Key> {
        let is_to_check = self.usage.is_none_or(|usage| usage == "sig")
            && self.key_ops.is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
        let (algorithm, name, decoding) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                (Algorithm::RS256, "RS256", DecodingKey::from_rsa_components(&self.n?, &self.e?).ok()?)
            }
            ("EC", Some("P-256")) => (Algorithm::ES256, "ES256", p256_key(&self.x?, &self.y?)?),
            ("OKP", Some("Ed25519")) => {
                (Algorithm::EdDSA, "EdDSA", DecodingKey::from_ed_components(&self.x?).ok()?)
            }
            _ => return None,
        };
        let is_of_kind = self.alg.is_none_or(|alg| alg == name);
        if is_to_check && is_of_kind { Key::public(self.kid, algorithm, decoding) } else { None }
    }
}

/// The key at a point of P-256. Each coordinate has its 32 bytes (RFC 7518, 6.2.1.2): of other lengths that make up 64 bytes
/// the point would be another one.
fn p256_key(x: &str, y: &str) -> Option<DecodingKey> {
    let is_whole = |text: &str| URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32);
    let key = DecodingKey::from_ec_components(x, y).ok()?;
    (is_whole(x) && is_whole(y)).then_some(key)
}

/// What was found in the file.
type Seen = Result<Vec<u8>, ErrorKind>;

/// Checks tokens with the keys of a file as they are now. A token that was checked before is checked anew once the file
/// has changed: a key that is withdrawn opens nothing any more.
pub struct KeySetFile {
    path: PathBuf,
    expected: Expected,
    tokens: RwLock<Arc<VerifiedTokens<AccessKeys>>>,
    seen: Mutex<Seen>,
}

impl KeySetFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`InvalidKeySet`]. Later such a file changes nothing; there must be one to begin with.
    pub fn open(path: PathBuf, expected: Expected) -> Result<Self, InvalidKeySet> {
        let seen = read(&path);
        let keys = keys_of(&seen)?.expecting(expected.clone());
        let tokens = RwLock::new(Arc::new(VerifiedTokens::new(keys)));
        Ok(Self { path, expected, tokens, seen: Mutex::new(seen) })
    }

    /// Reads the file again and takes its keys if it has changed. One that is broken or gone changes nothing, which is
    /// logged once. It is compared by its content: it is small, and times do not tell of every change. Blocks.
    pub fn refresh(&self) {
        let found = read(&self.path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == found {
            return;
        }
        let path = self.path.display();
        match keys_of(&found) {
            Ok(keys) => {
                tracing::info!(%path, keys = keys.count(), "the identity provider has other keys");
                let tokens = Arc::new(VerifiedTokens::new(keys.expecting(self.expected.clone())));
                *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
            }
            Err(error) => tracing::warn!(%path, %error, "the identity provider's keys stay as they were"),
        }
        *seen = found;
    }

    fn tokens(&self) -> Arc<VerifiedTokens<AccessKeys>> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(path: &PathBuf) -> Seen {
    let mut json = Vec::new();
    let file = File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut json));
    file.map(|_| json).map_err(|error| error.kind())
}

fn keys_of(seen: &Seen) -> Result<AccessKeys, InvalidKeySet> {
    AccessKeys::key_set(seen.as_ref().map_err(|kind| InvalidKeySet::Unreadable(*kind))?)
}

impl AccessTokens for KeySetFile {
    fn verify(&self, token: &str, now: Timestamp) -> Result<AccessClaims, InvalidAccessToken> {
        self.tokens().verify(token, now)
    }

    fn issue(&self, claims: &AccessClaims) -> Result<String, NoIssuer> {
        self.tokens().issue(claims)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use frontrow_domain::UserId;
    use frontrow_domain::ports::Role;
    use jsonwebtoken::{EncodingKey, Header};
    use proptest::prelude::*;
    use proptest::sample::Index;
    use serde_json::{Value, json};
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;

    const RSA: &str = include_str!("test_keys/rsa_private.pem");
    const ED: &str = include_str!("test_keys/ed25519_private.pem");
    const EC: &str = include_str!("test_keys/ec_private.pem");
    const OTHER_ED: &str = include_str!("test_keys/ed25519_other_private.pem");

    fn encoding(private: &str) -> (EncodingKey, Algorithm) {
        let ed = EncodingKey::from_ed_pem(private.as_bytes()).map(|key| (key, Algorithm::EdDSA));
        let ec = || EncodingKey::from_ec_pem(private.as_bytes()).map(|key| (key, Algorithm::ES256));
        let rsa = || EncodingKey::from_rsa_pem(private.as_bytes()).map(|key| (key, Algorithm::RS256));
        ed.or_else(|_| ec()).or_else(|_| rsa()).unwrap()
    }

    /// The public half, with more fields or others.
    fn jwk(private: &str, more: Value) -> Value {
        let (key, algorithm) = encoding(private);
        let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    }

    fn key_set(keys: &[Value]) -> Result<AccessKeys, InvalidKeySet> {
        AccessKeys::key_set(json!({"keys": keys}).to_string().as_bytes())
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-22T20:00:00Z").unwrap()
    }

    fn somebody() -> AccessClaims {
        let user_id = UserId::new(Uuid::from_u128(7));
        AccessClaims { user_id, role: Role::User, expires_at: now().plus_seconds(60) }
    }

    fn signed(private: &str, kid: Option<&str>) -> String {
        let (key, algorithm) = encoding(private);
        let header = Header { kid: kid.map(ToOwned::to_owned), ..Header::new(algorithm) };
        let exp = somebody().expires_at.unix_micros() / 1_000_000;
        jsonwebtoken::encode(&header, &json!({"sub": Uuid::from_u128(7), "exp": exp}), &key).unwrap()
    }

    proptest! {
        #[test]
        fn any_file_is_a_set_of_keys_or_none(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            (field, value) in ("kty|crv|n|e|x|y|alg|use|kid|key_ops|d|k", "[\\[\"]?[A-Za-z0-9_=-]{0,50}[\"\\]]?"),
        ) {
            let named = jwk(ED, json!({"kid": "1"})).to_string();
            let changed = named.replacen("\"kid\":\"1\"", &format!("\"{field}\":{value}"), 1);
            for file in [&bytes, format!("{{\"keys\":[{changed}]}}").as_bytes()] {
                prop_assert!(!matches!(AccessKeys::key_set(file).map(|keys| keys.count()), Ok(0)));
            }
        }

        #[test]
        fn a_changed_key_checks_nothing_that_the_key_signed(
            (private, token) in prop::sample::select(signed_by_all()),
            (at, part) in (any::<Index>(), "[ -~]{0,6}"),
        ) {
            let good = json!({"keys": [jwk(private, json!({}))]});
            let mut text = good.to_string();
            let at = at.index(text.len());
            text.replace_range(at..(at + part.len()).min(text.len()), &part);
            let Ok(keys) = AccessKeys::key_set(text.as_bytes()) else { return Ok(()) };
            let set: Value = serde_json::from_str(&text).unwrap();
            let is_same = ["n", "e", "x", "y"].iter().all(|field| set["keys"][0][field] == good["keys"][0][field]);
            prop_assert_eq!(keys.verify(&token, now()).is_ok(), is_same, "{}", text);
        }
    }

    /// Made once: a signature takes its time.
    fn signed_by_all() -> Vec<(&'static str, String)> {
        [RSA, ED, EC].map(|private| (private, signed(private, None))).to_vec()
    }

    #[test]
    fn the_name_chooses_the_key_and_the_key_fixes_the_algorithm() {
        let keys = [
            jwk(RSA, json!({"kid": "r", "use": "sig"})),
            jwk(ED, json!({"kid": "e"})),
            jwk(OTHER_ED, json!({"kid": "o", "key_ops": ["verify"]})),
            jwk(EC, json!({"kid": "c", "alg": "ES256"})),
        ];
        let keys = key_set(&keys).unwrap();
        assert_eq!(keys.count(), 4);
        let all = [(RSA, "r"), (ED, "e"), (OTHER_ED, "o"), (EC, "c")];
        for (private, own) in all {
            for (_, name) in all {
                let verified = keys.verify(&signed(private, Some(name)), now());
                assert_eq!(
                    verified,
                    if name == own { Ok(somebody()) } else { Err(InvalidAccessToken) },
                    "{name}"
                );
            }
            for nameless in [None, Some(""), Some("x")] {
                assert_eq!(keys.verify(&signed(private, nameless), now()), Err(InvalidAccessToken));
            }
        }
        assert_eq!(keys.issue(&somebody()), Err(NoIssuer));
    }

    #[test]
    fn the_only_key_needs_no_name() {
        let named = key_set(&[jwk(ED, json!({"kid": "e"}))]).unwrap();
        let nameless = key_set(&[jwk(ED, json!({}))]).unwrap();
        let verify = |keys: &AccessKeys, kid| keys.verify(&signed(ED, kid), now()).is_ok();
        assert_eq!([None, Some("e"), Some("x")].map(|kid| verify(&named, kid)), [true, true, false]);
        assert_eq!([None, Some("e"), Some("x")].map(|kid| verify(&nameless, kid)), [true, true, true]);
        assert!(named.verify(&signed(OTHER_ED, Some("e")), now()).is_err());
    }

    #[test]
    fn keys_of_one_name_are_all_tried() {
        let keys =
            [jwk(RSA, json!({"kid": "1"})), jwk(ED, json!({"kid": "1"})), jwk(OTHER_ED, json!({"kid": "1"}))];
        let keys = key_set(&keys).unwrap();
        assert!(
            [RSA, ED, OTHER_ED].iter().all(|private| keys.verify(&signed(private, Some("1")), now()).is_ok())
        );
    }

    #[test]
    fn keys_of_other_kinds_are_passed_over() {
        let other = [
            json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "ec"}),
            json!({"kty": "OKP", "crv": "X25519", "x": "AA"}),
            json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}),
            json!({"kty": "RSA"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}),
            json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
            jwk(RSA, json!({"use": "enc"})),
            jwk(RSA, json!({"alg": "PS256"})),
            jwk(RSA, json!({"key_ops": ["encrypt"]})),
            jwk(ED, json!({"alg": "RS256"})),
            jwk(EC, json!({"crv": "P-384"})),
            jwk(EC, json!({"crv": "secp256k1"})),
            jwk(EC, json!({"alg": "ES384"})),
            jwk(EC, json!({"use": "enc"})),
            jwk(EC, json!({"y": jwk(EC, json!({}))["x"]})),
            with_coordinates_cut_elsewhere(),
        ];
        assert_eq!(key_set(&other).err(), Some(InvalidKeySet::NoKey));
        let with_a_good_one: Vec<_> = other.into_iter().chain([jwk(ED, json!({"kid": "e"}))]).collect();
        assert!(key_set(&with_a_good_one).unwrap().verify(&signed(ED, Some("e")), now()).is_ok());
    }

    /// The same 64 bytes, of which the first coordinate has one more.
    fn with_coordinates_cut_elsewhere() -> Value {
        let whole = jwk(EC, json!({}));
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(whole[name].as_str().unwrap()).unwrap();
        let both = [coordinate("x"), coordinate("y")].concat();
        let (x, y) = both.split_at(33);
        jwk(EC, json!({"x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)}))
    }

    #[test]
    fn other_files_are_no_set() {
        for text in ["", "{}", "[]", "{\"keys\": {}}", "{\"keys\": [1]}", "{\"keys\": []} x", RSA] {
            assert_eq!(AccessKeys::key_set(text.as_bytes()).err(), Some(InvalidKeySet::NotASet), "{text}");
        }
        assert_eq!(key_set(&[]).err(), Some(InvalidKeySet::NoKey));
        for private in [jwk(ED, json!({"d": "AA"})), json!({"kty": "oct", "k": "AA"})] {
            assert_eq!(key_set(&[jwk(RSA, json!({})), private]).err(), Some(InvalidKeySet::Private));
        }
        let many = vec![jwk(ED, json!({})); MOST_KEYS + 1];
        assert_eq!(key_set(&many).err(), Some(InvalidKeySet::TooManyKeys));
    }

    struct InFile {
        folder: TempDir,
        keys: KeySetFile,
    }

    impl InFile {
        fn new(keys: &[Value]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("keys.json");
            fs::write(&path, json!({"keys": keys}).to_string()).unwrap();
            let keys = KeySetFile::open(path, Expected::default()).unwrap();
            Self { folder, keys }
        }

        fn write(&self, text: &str) {
            fs::write(self.folder.path().join("keys.json"), text).unwrap();
            self.keys.refresh();
        }

        fn believes(&self, private: &str, kid: &str) -> bool {
            self.keys.verify(&signed(private, Some(kid)), now()).is_ok()
        }
    }

    #[test]
    fn a_changed_file_counts_at_the_next_look_and_a_withdrawn_key_opens_nothing() {
        let (first, second) = (jwk(ED, json!({"kid": "1"})), jwk(OTHER_ED, json!({"kid": "2"})));
        let file = InFile::new(std::slice::from_ref(&first));
        assert!(file.believes(ED, "1") && !file.believes(OTHER_ED, "2"));
        file.write(&json!({"keys": [first, second]}).to_string());
        assert!(file.believes(ED, "1") && file.believes(OTHER_ED, "2"));
        file.write(&json!({"keys": [second]}).to_string());
        assert!(!file.believes(ED, "1"), "a token that was checked before is checked anew");
        assert!(file.believes(OTHER_ED, "2"));
    }

    #[test]
    fn a_broken_file_or_none_changes_nothing() {
        let first = jwk(ED, json!({"kid": "1"}));
        let file = InFile::new(std::slice::from_ref(&first));
        for broken in ["", "{\"keys\":[]}", "{\"keys\":[{\"kty\":\"RSA\"", "rubbish"] {
            file.write(broken);
            assert!(file.believes(ED, "1"), "{broken}");
        }
        fs::remove_file(file.folder.path().join("keys.json")).unwrap();
        file.keys.refresh();
        assert!(file.believes(ED, "1"));
        file.write(&json!({"keys": [jwk(OTHER_ED, json!({"kid": "1"}))]}).to_string());
        assert!(!file.believes(ED, "1") && file.believes(OTHER_ED, "1"));
    }

    #[test]
    fn what_is_unchanged_is_not_read_anew() {
        let file = InFile::new(&[jwk(ED, json!({"kid": "1"}))]);
        let before = Arc::as_ptr(&file.keys.tokens());
        file.keys.refresh();
        assert_eq!(Arc::as_ptr(&file.keys.tokens()), before, "what was checked stays known");
    }

    #[test]
    fn there_must_be_a_set_to_begin_with() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| KeySetFile::open(folder.path().join(name), Expected::default()).err();
        assert_eq!(open("missing.json"), Some(InvalidKeySet::Unreadable(ErrorKind::NotFound)));
        fs::write(folder.path().join("long.json"), " ".repeat(2 << 20) + "{\"keys\":[]}").unwrap();
        assert_eq!(open("long.json"), Some(InvalidKeySet::NotASet));
    }
}
