//! Forged tokens: what somebody makes of good ones, and of what is public, without any key of ours.
//!
//! A forger is seeded, and each case stands alone: seed and number of a case give the same forgery again.

use std::collections::{BTreeMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

/// The order of Ed25519's group, little-endian: a signature's second half may be read modulo it, and must not.
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The order of P-256's group, big-endian. As above.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Forges tokens.
pub struct Forger {
    seed: u64,
    /// Good ones, of every kind.
    tokens: Vec<String>,
    issued: HashSet<String>,
    /// Some that are signed in order, and that nobody may take all the same.
    worthless: Vec<String>,
    /// What everybody may know of the keys: files as published, and their bytes.
    public: Vec<Vec<u8>>,
    /// The moduli of the RSA keys, big-endian.
    moduli: Vec<Vec<u8>>,
    /// The forger's own keys, and what it publishes of them.
    own: Vec<(EncodingKey, Algorithm, Value)>,
}

/// A forged token.
#[derive(Debug, Clone)]
pub struct Forgery {
    /// Which case of the seed it is.
    pub case: u64,
    /// The ways in which it was made, by name.
    pub ways: Vec<&'static str>,
    /// The text.
    pub text: String,
}

/// How a run went.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many forgeries were tried.
    pub tried: u64,
    /// How many cases gave the text of a good token, and so were none.
    pub skipped: u64,
    /// How many were tried of each way.
    pub ways: BTreeMap<&'static str, u64>,
    /// Those that somebody took for good, and who did.
    pub accepted: Vec<(Forgery, String)>,
}

impl Forger {
    /// Forges `tokens` for those who check with `public_keys` (PEM). `worthless` tokens were issued, and are past their time
    /// or for somebody else. `own_keys` are the forger's own (Ed25519 or P-256, PEM).
    ///
    /// # Panics
    /// When a key is none.
    #[must_use]
    pub fn new(
        seed: u64,
        tokens: Vec<String>,
        worthless: Vec<String>,
        public_keys: &[&str],
        own_keys: &[&str],
    ) -> Self {
        let issued = tokens.iter().cloned().collect();
        let own = own_keys.iter().map(|pem| own_key(pem)).collect();
        let moduli = public_keys.iter().filter_map(|pem| modulus(pem)).collect();
        let public = public_keys.iter().flat_map(|pem| published(pem)).collect();
        Self { seed, tokens, issued, worthless, public, moduli, own }
    }

    /// The forgery of a case.
    #[must_use]
    pub fn forge(&self, case: u64) -> Forgery {
        // Cases next to each other share nothing.
        let seed = self.seed ^ case.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut hand = Hand { forger: self, rng: StdRng::seed_from_u64(seed) };
        let mut text = hand.token();
        let mut ways = Vec::new();
        let rounds = if hand.one_in(4) { 2 } else { 1 };
        for _ in 0..rounds {
            let (name, way) = *WAYS.choose(&mut hand.rng).expect("there are ways");
            text = way(&mut hand, &text);
            ways.push(name);
        }
        Forgery { case, ways, text }
    }

    /// Whether a text is that of a good token.
    #[must_use]
    pub fn is_issued(&self, text: &str) -> bool {
        self.issued.contains(text)
    }

    /// The forgeries of the cases from `first` on, without those that are good tokens.
    pub fn forgeries(&self, first: u64) -> impl Iterator<Item = Forgery> {
        (first..).map(|case| self.forge(case)).filter(|forgery| !self.is_issued(&forgery.text))
    }

    /// Tries so many forgeries, the first of them the one of case `first`, on `accepts`, which names who takes one for
    /// good.
    pub fn run(&self, first: u64, count: u64, accepts: impl Fn(&str) -> Option<String>) -> Tally {
        let mut tally = Tally::default();
        for case in first.. {
            if tally.tried == count {
                break;
            }
            let forgery = self.forge(case);
            if self.is_issued(&forgery.text) {
                tally.skipped += 1;
                continue;
            }
            tally.tried += 1;
            for way in &forgery.ways {
                *tally.ways.entry(way).or_default() += 1;
            }
            if let Some(who) = accepts(&forgery.text) {
                tally.accepted.push((forgery, who));
            }
        }
        tally
    }
}

fn own_key(pem: &str) -> (EncodingKey, Algorithm, Value) {
    let ed = EncodingKey::from_ed_pem(pem.as_bytes()).map(|key| (key, Algorithm::EdDSA));
    let ec = || EncodingKey::from_ec_pem(pem.as_bytes()).map(|key| (key, Algorithm::ES256));
    let (key, algorithm) = ed.or_else(|_| ec()).expect("an Ed25519 or P-256 key");
    let public = Jwk::from_encoding_key(&key, algorithm).expect("its public half");
    (key, algorithm, serde_json::to_value(public).expect("JSON"))
}

/// A forger at work on one case.
struct Hand<'a> {
    forger: &'a Forger,
    rng: StdRng,
}

/// Makes another text of one.
type Way = fn(&mut Hand<'_>, &str) -> String;

/// Every way, by name.
const WAYS: [(&str, Way); 18] = [
    ("bits of the text flipped", flipped_bits),
    ("bits inside a part flipped", flipped_bits_inside),
    ("characters changed", changed_characters),
    ("another algorithm", other_algorithm),
    ("other members of the head", other_head),
    ("other claims, the old signature", other_claims),
    ("another signature", other_signature),
    ("parts of other tokens", swapped_parts),
    ("the head of another token", other_tokens_head),
    ("another spelling in base64", other_base64),
    ("dots", other_dots),
    ("strange characters", strange_characters),
    ("members that come twice", said_twice),
    ("a public key as the secret", signed_with_what_is_public),
    ("signed by the forger", signed_by_the_forger),
    ("the same signature as another number", same_signature_otherwise),
    ("another wrapping", wrapped),
    ("signed in order, and worthless", worthless),
];

impl Hand<'_> {
    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_range(0..n) == 0
    }

    fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { self.rng.random_range(0..n) }
    }

    fn token(&mut self) -> String {
        self.forger.tokens.choose(&mut self.rng).expect("there are tokens").clone()
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from.choose(&mut self.rng).expect("there is something to pick").clone()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.rng.random()).collect()
    }
}

/// Head, claims and signature; what is not there is empty, further dots are of the last.
fn parts(text: &str) -> [String; 3] {
    let mut parts = text.splitn(3, '.');
    std::array::from_fn(|_| parts.next().unwrap_or_default().to_owned())
}

fn decoded(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).unwrap_or_else(|_| part.as_bytes().to_vec())
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The JSON object of a part; an empty one where it is none.
fn object(part: &str) -> Map<String, Value> {
    serde_json::from_slice(&decoded(part)).unwrap_or_default()
}

fn flipped_bits(hand: &mut Hand<'_>, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=hand.below(3) {
        let (at, bit) = (hand.below(bytes.len()), hand.below(7));
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn flipped_bits_inside(hand: &mut Hand<'_>, text: &str) -> String {
    let mut parts = parts(text);
    let part = hand.below(3);
    let mut bytes = decoded(&parts[part]);
    for _ in 0..=hand.below(3) {
        let (at, bit) = (hand.below(bytes.len()), hand.below(8));
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }
    parts[part] = encoded(bytes);
    parts.join(".")
}

fn changed_characters(hand: &mut Hand<'_>, text: &str) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let alphabet: Vec<char> = "ABCXYZabcxyz0189-_+/=.".chars().collect();
    for _ in 0..=hand.below(3) {
        let (at, new) = (hand.below(characters.len()), hand.pick(&alphabet));
        match hand.below(4) {
            0 => characters.insert(at, new),
            1 if at < characters.len() => drop(characters.remove(at)),
            2 if at + 1 < characters.len() => characters.swap(at, at + 1),
            _ => characters.iter_mut().skip(at).take(1).for_each(|old| *old = new),
        }
    }
    characters.into_iter().collect()
}

fn other_algorithm(hand: &mut Hand<'_>, text: &str) -> String {
    let algorithms = [
        json!("none"),
        json!("None"),
        json!("NONE"),
        json!("nOnE"),
        json!("none "),
        json!("\u{0}none"),
        json!(""),
        json!(null),
        json!([]),
        json!(["none"]),
        json!({"HS256": null}),
        json!(0),
        json!(true),
        json!("HS256"),
        json!("hs256"),
        json!("HS384"),
        json!("HS512"),
        json!("RS256"),
        json!("RS512"),
        json!("PS256"),
        json!("ES256"),
        json!("ES256K"),
        json!("ES384"),
        json!("ES512"),
        json!("EdDSA"),
        json!("Ed25519"),
        json!("dir"),
    ];
    let [head, claims, signature] = parts(text);
    let mut head = object(&head);
    let algorithm = hand.pick(&algorithms);
    match hand.below(6) {
        0 => drop(head.remove("alg")),
        1 => drop(head.insert("ALG".into(), algorithm)),
        _ => drop(head.insert("alg".into(), algorithm)),
    }
    let head = encoded(Value::from(head).to_string());
    match hand.below(4) {
        0 => format!("{head}.{claims}."),
        1 => format!("{head}.{claims}"),
        2 => format!("{head}.{claims}.{}", encoded("none")),
        _ => format!("{head}.{claims}.{signature}"),
    }
}

fn other_head(hand: &mut Hand<'_>, text: &str) -> String {
    let [head, claims, signature] = parts(text);
    let mut head = object(&head);
    let other = object(&parts(&hand.token())[0]);
    let (_, _, own) = hand.pick(&hand.forger.own);
    let members = [
        ("typ", json!("JWT")),
        ("typ", json!("wait+jwt")),
        ("typ", json!("at+jwt")),
        ("typ", json!(null)),
        ("kid", other.get("kid").cloned().unwrap_or_default()),
        ("kid", json!("")),
        ("kid", json!("../../../../dev/null")),
        ("kid", json!("' UNION SELECT 'key' --")),
        ("kid", json!("k".repeat(5_000))),
        ("kid", json!(0)),
        ("jwk", own.clone()),
        ("jku", json!("https://example.com/keys")),
        ("x5u", json!("https://example.com/chain")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!([])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("enc", json!("A128GCM")),
    ];
    for _ in 0..=hand.below(3) {
        let (name, value) = hand.pick(&members);
        head.insert(name.into(), value);
    }
    if hand.one_in(4) {
        head.remove("kid");
    }
    format!("{}.{claims}.{signature}", encoded(Value::from(head).to_string()))
}

/// Claims that somebody would like to have.
fn wanted(hand: &mut Hand<'_>, claims: &str) -> Map<String, Value> {
    let mut claims = object(claims);
    let other = object(&parts(&hand.token())[1]);
    let of_other = |name: &str| other.get(name).cloned().unwrap_or_else(|| json!(1));
    let wishes = [
        ("role", json!("admin")),
        ("role", json!(["admin"])),
        ("sub", of_other("sub")),
        ("sub", json!("00000000-0000-0000-0000-000000000000")),
        ("exp", json!(4_102_444_800_u64)),
        ("exp", json!(1e300)),
        ("exp", json!("4102444800")),
        ("nbf", json!(0)),
        ("iss", of_other("iss")),
        ("aud", json!(["frontrow", "*"])),
        ("room", of_other("room")),
        ("jti", of_other("jti")),
        ("ticket", json!(1)),
        ("ticket", json!(-1)),
        ("entered", json!(0)),
        ("scope", json!("admin")),
    ];
    for _ in 0..=hand.below(4) {
        let (name, value) = hand.pick(&wishes);
        claims.insert(name.into(), value);
    }
    if hand.one_in(8) {
        claims.remove("exp");
    }
    claims
}

fn other_claims(hand: &mut Hand<'_>, text: &str) -> String {
    let [head, claims, signature] = parts(text);
    let claims = wanted(hand, &claims);
    format!("{head}.{}.{signature}", encoded(Value::from(claims).to_string()))
}

fn other_signature(hand: &mut Hand<'_>, text: &str) -> String {
    let [head, claims, signature] = parts(text);
    let mut bytes = decoded(&signature);
    let length = bytes.len();
    let other = decoded(&parts(&hand.token())[2]);
    match hand.below(9) {
        0 => bytes.truncate(hand.below(length)),
        1 => bytes.clear(),
        2 => bytes.fill(0),
        3 => bytes = hand.bytes(length),
        4 => bytes = other,
        5 => bytes.extend(hand.bytes(1)),
        6 => bytes.reverse(),
        7 => {
            let half = length / 2;
            bytes.truncate(half);
            bytes.extend(other.into_iter().skip(half));
        }
        _ => bytes.fill(0xff),
    }
    format!("{head}.{claims}.{}", encoded(bytes))
}

fn swapped_parts(hand: &mut Hand<'_>, text: &str) -> String {
    let tokens = [parts(text), parts(&hand.token()), parts(&hand.token())];
    let mut swapped: [String; 3] = std::array::from_fn(|part| tokens[hand.below(3)][part].clone());
    if hand.one_in(4) {
        let (a, b) = (hand.below(3), hand.below(3));
        swapped.swap(a, b);
    }
    swapped.join(".")
}

/// Another user's token under a head that chooses another key or kind.
fn other_tokens_head(hand: &mut Hand<'_>, text: &str) -> String {
    let [_, claims, signature] = parts(text);
    let [head, _, _] = parts(&hand.token());
    format!("{head}.{claims}.{signature}")
}

/// A text that decodes to the same bytes where somebody is lax.
fn other_base64(hand: &mut Hand<'_>, text: &str) -> String {
    let mut parts = parts(text);
    // Only of the signature is it worth it: head and claims are signed as text.
    let part = if hand.one_in(2) { 2 } else { hand.below(3) };
    let chosen = parts[part].clone();
    parts[part] = match hand.below(6) {
        0 => format!("{chosen}{}", "=".repeat((4 - chosen.len() % 4) % 4 + hand.below(2))),
        1 => STANDARD.encode(decoded(&chosen)),
        2 => chosen.replace('-', "+").replace('_', "/"),
        3 => {
            let at = hand.below(chosen.len());
            let between = hand.pick(&["\n", "\r\n", " ", "\t", "%3D", "="]);
            let (before, behind) = chosen.split_at_checked(at).unwrap_or((&chosen, ""));
            format!("{before}{between}{behind}")
        }
        _ => with_spare_bits(hand, &chosen),
    };
    parts.join(".")
}

/// Sets bits of the last character that no byte needs.
fn with_spare_bits(hand: &mut Hand<'_>, part: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let spare = match part.len() % 4 {
        2 => 4,
        3 => 2,
        _ => return format!("{part}A"),
    };
    let Some(last) = part.bytes().last() else { return "A".to_owned() };
    let Some(value) = ALPHABET.iter().position(|byte| *byte == last) else { return format!("{part}A") };
    let other = (value >> spare << spare) + 1 + hand.below((1 << spare) - 1);
    let mut bytes = part.as_bytes().to_vec();
    bytes.pop();
    bytes.push(ALPHABET[other]);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn other_dots(hand: &mut Hand<'_>, text: &str) -> String {
    let [head, claims, signature] = parts(text);
    match hand.below(10) {
        0 => format!("{head}.{claims}"),
        1 => format!("{head}..{signature}"),
        2 => format!(".{claims}.{signature}"),
        3 => format!("{text}."),
        4 => format!(".{text}"),
        5 => format!("{head}..{claims}.{signature}"),
        6 => format!("{head}.{claims}.{signature}.{signature}"),
        7 => format!("{head}.{claims}.{claims}.{signature}"),
        8 => format!("{head}.{head}.{claims}.{signature}.{signature}"),
        _ => text.replace('.', ""),
    }
}

fn strange_characters(hand: &mut Hand<'_>, text: &str) -> String {
    let strange = [
        " ",
        "\t",
        "\r\n",
        "\u{0}",
        "\u{7f}",
        "\u{a0}",
        "\u{200b}",
        "\u{feff}",
        "ｅ",
        "е",
        "．",
        "。",
        "대기",
        "\u{1f3ab}",
        "\"",
        ",",
        ";",
        "%2e",
        "&#46;",
    ];
    let between = hand.pick(&strange);
    match hand.below(4) {
        0 => format!("{between}{text}"),
        1 => format!("{text}{between}"),
        2 => text.replacen('.', &format!("{between}."), 1 + hand.below(2)),
        _ => {
            let at = hand.below(text.len());
            let (before, behind) = text.split_at_checked(at).unwrap_or((text, ""));
            format!("{before}{between}{behind}")
        }
    }
}

/// The wish beside the truth, before it or behind it.
fn said_twice(hand: &mut Hand<'_>, text: &str) -> String {
    let mut parts = parts(text);
    let part = hand.below(2);
    let json = String::from_utf8_lossy(&decoded(&parts[part])).into_owned();
    let inner = json.trim().trim_start_matches('{').trim_end_matches('}').to_owned();
    let wishes =
        [r#""alg":"none""#, r#""typ":"JWT""#, r#""role":"admin""#, r#""exp":4102444800"#, r#""ticket":1"#];
    let wish = hand.pick(&wishes);
    let json = match hand.below(3) {
        0 => format!("{{{wish},{inner}}}"),
        1 => format!("{{{inner},{wish}}}"),
        _ => format!("{{{inner}}}{{{wish}}}"),
    };
    parts[part] = encoded(json);
    parts.join(".")
}

/// Whoever takes the algorithm from the token makes a secret of a public key, or of nothing.
fn signed_with_what_is_public(hand: &mut Hand<'_>, text: &str) -> String {
    let [head, claims, _] = parts(text);
    let (algorithm, name) =
        hand.pick(&[(Algorithm::HS256, "HS256"), (Algorithm::HS256, "HS256"), (Algorithm::HS512, "HS512")]);
    let mut guesses = hand.forger.public.clone();
    let kid = object(&head).get("kid").and_then(Value::as_str).unwrap_or_default().to_owned();
    guesses.extend([Vec::new(), vec![0; 32], b"secret".to_vec(), kid.clone().into_bytes(), decoded(&kid)]);
    guesses.extend([head.clone().into_bytes(), claims.clone().into_bytes()]);
    let head = if hand.one_in(3) {
        // The very head of another token, so that it is found by its bytes.
        parts(&hand.token())[0].clone()
    } else {
        let mut head = object(&head);
        head.insert("alg".into(), name.into());
        if hand.one_in(2) {
            head.remove("kid");
        }
        encoded(Value::from(head).to_string())
    };
    let claims =
        if hand.one_in(2) { claims } else { encoded(Value::from(wanted(hand, &claims)).to_string()) };
    let signed = format!("{head}.{claims}");
    let key = EncodingKey::from_secret(&hand.pick(&guesses));
    let signature = crypto::sign(signed.as_bytes(), &key, algorithm).expect("any bytes sign");
    format!("{signed}.{signature}")
}

/// Signed in order, by a key that the token brings along or passes off as ours.
fn signed_by_the_forger(hand: &mut Hand<'_>, text: &str) -> String {
    let [head, claims, _] = parts(text);
    let mut head = object(&head);
    let (key, algorithm, public) = hand.pick(&hand.forger.own);
    head.insert("alg".into(), json!(algorithm));
    if hand.rng.random_range(0..2) == 0 {
        head.insert("jwk".into(), public);
    }
    if hand.rng.random_range(0..3) == 0 {
        head.remove("kid");
    }
    let claims = encoded(Value::from(wanted(hand, &claims)).to_string());
    let signed = format!("{}.{claims}", encoded(Value::from(head).to_string()));
    let signature = crypto::sign(signed.as_bytes(), &key, algorithm).expect("the key signs");
    format!("{signed}.{signature}")
}

/// Numbers that are the same to whoever does not look at their range.
fn same_signature_otherwise(hand: &mut Hand<'_>, text: &str) -> String {
    let [head, claims, signature] = parts(text);
    let mut bytes = decoded(&signature);
    match (hand.below(3), bytes.len()) {
        (0, _) => bytes.insert(0, 0),
        (1, 64) => add(bytes.iter_mut().skip(32).zip(GROUP_ORDER)),
        (_, 64) => {
            // Of either half.
            let end = 32 * (1 + hand.below(2));
            add(bytes.iter_mut().take(end).rev().zip(P256_ORDER.into_iter().rev()));
        }
        (_, length) => match hand.forger.moduli.iter().find(|modulus| modulus.len() == length) {
            Some(modulus) => add(bytes.iter_mut().rev().zip(modulus.iter().rev().copied())),
            None => bytes.push(0),
        },
    }
    format!("{head}.{claims}.{}", encoded(bytes))
}

/// Adds a number to another, the lowest bytes first.
fn add<'a>(bytes: impl Iterator<Item = (&'a mut u8, u8)>) {
    let mut carry = 0;
    for (byte, other) in bytes {
        let sum = u16::from(*byte) + u16::from(other) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
}

fn wrapped(hand: &mut Hand<'_>, text: &str) -> String {
    let [head, claims, signature] = parts(text);
    match hand.below(11) {
        0 => json!({"protected": head, "payload": claims, "signature": signature}).to_string(),
        1 => format!("Bearer {text}"),
        2 => format!("\"{text}\""),
        3 => encoded(text),
        4 => text.to_lowercase(),
        5 => text.to_uppercase(),
        6 => text.chars().rev().collect(),
        7 => format!("{text}{text}"),
        8 => format!("{text},{text}"),
        9 => text.get(..hand.below(text.len())).unwrap_or_default().to_owned(),
        _ => format!("{text}{}", "A".repeat(2_000)),
    }
}

/// Whoever only looks at the signature takes it.
fn worthless(hand: &mut Hand<'_>, _: &str) -> String {
    let worthless = &hand.forger.worthless;
    hand.pick(worthless)
}

/// The forms in which a public key may be mistaken for a secret.
fn published(pem: &str) -> Vec<Vec<u8>> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(&body).unwrap_or_default();
    // An Ed25519 key is the last 32 bytes of its DER, a P-256 one the last 65, or the 64 after the first of these.
    let raw =
        [32, 64, 65].map(|length| der.get(der.len().saturating_sub(length)..).unwrap_or_default().to_vec());
    let texts = [pem.to_owned(), pem.trim_end().to_owned(), pem.replace('\n', "\r\n"), body];
    texts.into_iter().map(String::into_bytes).chain([der]).chain(raw).chain(modulus(pem)).collect()
}

fn modulus(pem: &str) -> Option<Vec<u8>> {
    let key = DecodingKey::from_rsa_pem(pem.as_bytes()).ok()?;
    match Jwk::from_decoding_key(&key, None).ok()?.algorithm {
        AlgorithmParameters::RSA(rsa) => URL_SAFE_NO_PAD.decode(rsa.n).ok(),
        _ => None,
    }
}
