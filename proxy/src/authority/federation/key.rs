//! One published key of an issuer (RFC 7517), and what it verifies (RFC 7518 section 3).

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Bytes of an RSA modulus: 8192 bits and a leading zero.
const MAX_MODULUS: usize = 1_025;
/// Bytes of an RSA exponent; 65537 has three.
const MAX_EXPONENT: usize = 8;
/// Bytes of a key's name.
const MAX_KID: usize = 512;

/// The algorithms an identity token may be signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Es512,
}

impl Algorithm {
    pub(super) const fn from_word(word: &str) -> Option<Self> {
        Some(match word.as_bytes() {
            b"RS256" => Self::Rs256,
            b"RS384" => Self::Rs384,
            b"RS512" => Self::Rs512,
            b"ES256" => Self::Es256,
            b"ES384" => Self::Es384,
            b"ES512" => Self::Es512,
            _ => return None,
        })
    }

    /// None for an elliptic curve.
    const fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
            Self::Es256 | Self::Es384 | Self::Es512 => None,
        }
    }
}

/// A usable key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    kid: String,
    /// When the issuer says so; any of its family otherwise.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// The curve's algorithm and the uncompressed point (SEC 1 section 2.3.3).
    Curve(Algorithm, Vec<u8>),
}

impl Key {
    /// Reads a key; `None` for one that cannot verify an identity token: unnamed, not for signatures, of another type
    /// or algorithm, malformed.
    pub(super) fn read(entry: &Value) -> Option<Self> {
        let text = |name| entry.get(name).and_then(Value::as_str);
        let kid = text("kid").filter(|kid| (1..=MAX_KID).contains(&kid.len()))?;
        let signs = entry.get("use").is_none_or(|word| word.as_str() == Some("sig"));
        let verifies = |list: &Value| {
            list.as_array().is_some_and(|list| list.iter().any(|word| word.as_str() == Some("verify")))
        };
        if !signs || !entry.get("key_ops").is_none_or(verifies) {
            return None;
        }
        let algorithm = match entry.get("alg") {
            None => None,
            Some(word) => Some(Algorithm::from_word(word.as_str()?)?),
        };
        let bytes = |name| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let material = match text("kty")? {
            "RSA" => Material::Rsa {
                modulus: number(bytes("n")?, MAX_MODULUS)?,
                exponent: number(bytes("e")?, MAX_EXPONENT)?,
            },
            "EC" => {
                let (algorithm, size) = match text("crv")? {
                    "P-256" => (Algorithm::Es256, 32),
                    "P-384" => (Algorithm::Es384, 48),
                    "P-521" => (Algorithm::Es512, 66),
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != size || y.len() != size {
                    return None;
                }
                Material::Curve(algorithm, [&[4], x.as_slice(), y.as_slice()].concat())
            }
            _ => return None,
        };
        let key = Self { kid: kid.to_owned(), algorithm, material };
        algorithm.is_none_or(|algorithm| key.has_family(algorithm)).then_some(key)
    }

    /// Whether a token that names this key and algorithm is to be verified with it.
    pub(super) fn is_for(&self, kid: &str, algorithm: Algorithm) -> bool {
        self.kid == kid && self.algorithm.is_none_or(|own| own == algorithm) && self.has_family(algorithm)
    }

    fn has_family(&self, algorithm: Algorithm) -> bool {
        match &self.material {
            Material::Rsa { .. } => algorithm.rsa().is_some(),
            Material::Curve(own, _) => *own == algorithm,
        }
    }

    /// Whether `signature` is this key's over `message`. Cost: tens of microseconds.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { modulus, exponent } => algorithm.rsa().is_some_and(|parameters| {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(parameters, message, signature).is_ok()
            }),
            Material::Curve(own, point) => curve(*own).is_some_and(|verification| {
                *own == algorithm
                    && UnparsedPublicKey::new(verification, point).verify(message, signature).is_ok()
            }),
        }
    }
}

/// None for RSA.
fn curve(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    match algorithm {
        Algorithm::Es256 => Some(&ECDSA_P256_SHA256_FIXED),
        Algorithm::Es384 => Some(&ECDSA_P384_SHA384_FIXED),
        Algorithm::Es512 => Some(&ECDSA_P521_SHA512_FIXED),
        Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 => None,
    }
}

/// A big-endian number without leading zeros, which some issuers write.
fn number(bytes: Vec<u8>, most: usize) -> Option<Vec<u8>> {
    if bytes.len() > most {
        return None;
    }
    let digits: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
    (!digits.is_empty()).then_some(digits)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).finish_non_exhaustive()
    }
}
