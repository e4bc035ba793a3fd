//! Django's signed values: `[.]DATA:TIME:SIGNATURE`, where a leading dot means that the data are compressed.
//!
//! The signature is checked first, in constant time, and over everything before it: nothing of what is not ours is
//! decoded. Django's rules: `django.core.signing`, with Django-Q's salt.

use std::fmt;
use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::read::ZlibDecoder;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::pickle::MOST_BYTES;

const BASE64: GeneralPurpose = URL_SAFE_NO_PAD;

/// What Django signs with, for one salt. Shows nothing of itself.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What was signed, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The data, decompressed.
    pub data: Vec<u8>,
    /// When, in seconds since 1970 by the signer's clock.
    pub at_unix_s: u64,
}

/// Why a value is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was not signed with this key, or is not whole.
    Signature,
    /// It was signed with this key, and holds what cannot be read.
    Content,
}

impl Key {
    /// From Django's `SECRET_KEY` and a salt.
    pub fn new(secret_key: &str, salt: &str) -> Self {
        let derived = Sha256::new().chain_update(salt).chain_update("signer").chain_update(secret_key);
        // An HMAC takes a shorter key as one that zeros follow, and this form of it needs no check of its length.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&derived.finalize());
        Self(Hmac::new(&block.into()))
    }

    /// Takes a value that was signed with this key, and no other.
    pub fn open(&self, value: &[u8]) -> Result<Signed, Refused> {
        let (signed, signature) = split_last(value).ok_or(Refused::Signature)?;
        let signature = BASE64.decode(signature).map_err(|_| Refused::Signature)?;
        self.mac(signed).verify_slice(&signature).map_err(|_| Refused::Signature)?;
        read(signed).ok_or(Refused::Content)
    }

    fn mac(&self, signed: &[u8]) -> Hmac<Sha256> {
        self.0.clone().chain_update(signed)
    }
}

fn split_last(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = value.iter().rposition(|byte| *byte == b':')?;
    Some((&value[..colon], &value[colon + 1..]))
}

fn read(signed: &[u8]) -> Option<Signed> {
    let (data, time) = split_last(signed)?;
    let (compressed, data) = match data {
        [b'.', data @ ..] => (true, data),
        data => (false, data),
    };
    let data = BASE64.decode(data).ok()?;
    let data = if compressed { inflate(&data).ok()? } else { data };
    Some(Signed { data, at_unix_s: base62(time)? })
}

/// Decompresses what is no larger than may be read of it.
fn inflate(data: &[u8]) -> io::Result<Vec<u8>> {
    let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX);
    let mut inflated = Vec::new();
    // One byte more, so that what is too large is too large for its reader too.
    ZlibDecoder::new(data).take(most + 1).read_to_end(&mut inflated)?;
    Ok(inflated)
}

/// Django's number to the base 62: digits, capitals, small letters.
fn base62(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'Z' => digit - b'A' + 10,
            b'a'..=b'z' => digit - b'a' + 36,
            _ => return None,
        };
        number.checked_mul(62)?.checked_add(value.into())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn sign(key: &Key, signed: &str) -> String {
        let signature = key.mac(signed.as_bytes()).finalize().into_bytes();
        format!("{signed}:{}", BASE64.encode(signature))
    }

    #[test]
    fn a_number_to_the_base_62_is_what_django_means() {
        // `b62_encode` of Django says so.
        for (digits, number) in
            [("0", 0), ("z", 61), ("10", 62), ("1xUR5Z", 1_795_190_629), ("LygHa16AHYF", u64::MAX)]
        {
            assert_eq!(base62(digits.as_bytes()), Some(number), "{digits}");
        }
        for wrong in ["", "-1", "1 ", "LygHa16AHYG", "zzzzzzzzzzzzzzzz"] {
            assert_eq!(base62(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn what_inflates_without_end_is_not_inflated_without_end() {
        let key = Key::new("secret", "salt");
        let mut bomb = ZlibEncoder::new(Vec::new(), Compression::best());
        for _ in 0..64 {
            bomb.write_all(&vec![b'N'; 1 << 20]).unwrap();
        }
        let bomb = bomb.finish().unwrap();
        assert!(bomb.len() < 1 << 17);
        let opened = key.open(sign(&key, &format!(".{}:10", BASE64.encode(bomb))).as_bytes()).unwrap();
        assert_eq!((opened.data.len(), opened.at_unix_s), (MOST_BYTES + 1, 62));
    }

    #[test]
    fn what_is_signed_and_cannot_be_read_is_told_apart_from_what_is_not_signed() {
        let key = Key::new("secret", "salt");
        for (signed, refused) in [
            ("Tg:10", None),
            ("Tg:", Some(Refused::Content)),
            ("Tg", Some(Refused::Content)),
            ("T g:10", Some(Refused::Content)),
            (".Tg:10", Some(Refused::Content)),
            (":10", None),
        ] {
            assert_eq!(key.open(sign(&key, signed).as_bytes()).err(), refused, "{signed}");
        }
        for value in ["", ":", "::", "Tg:10", "Tg:10:", "Tg:10:AAAA"] {
            assert_eq!(key.open(value.as_bytes()), Err(Refused::Signature), "{value}");
        }
        assert_eq!(format!("{key:?}"), "Key(…)");
    }
}
