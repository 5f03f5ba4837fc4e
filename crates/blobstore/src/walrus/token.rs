//! Tokens for publishers that ask for them (HS256). A token is used up by one attempt, whatever comes of it.

use crate::redact::Secret;
use crate::{Error, Result};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

/// Seconds between `iat` and `exp`. A publisher looks at a token when a request begins.
const LIFETIME: i64 = 60;

/// What a token allows.
pub(super) struct Grant<'a> {
    /// Bytes: no less than the body of the request, nor than what is made of it.
    pub max_size: u64,
    pub epochs: u32,
    pub send_object_to: Option<&'a str>,
}

/// A new token. `secret`: text, or `0x` and hexadecimal digits; `now` in seconds since 1970.
///
/// # Errors
/// [`Error::Option`] if the secret begins as hexadecimal and is not.
pub(super) fn issue(secret: &Secret, grant: &Grant, now: i64) -> Result<Secret> {
    let key = key(secret)?;
    let mut claims = json!({
        "iat": now,
        "exp": now + LIFETIME,
        "jti": HEXLOWER.encode(&rand::random::<[u8; 16]>()),
        "max_size": grant.max_size,
        "max_epochs": grant.epochs,
    });
    if let Some(address) = grant.send_object_to {
        claims["send_object_to"] = json!(address);
    }
    let header = BASE64URL_NOPAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()));
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| bad("cannot be used as a key"))?;
    mac.update(signed.as_bytes());
    Ok(Secret::new(format!("{signed}.{}", BASE64URL_NOPAD.encode(&mac.finalize().into_bytes()))))
}

fn key(secret: &Secret) -> Result<Vec<u8>> {
    match secret.reveal().strip_prefix("0x") {
        Some(digits) => HEXLOWER_PERMISSIVE
            .decode(digits.as_bytes())
            .map_err(|_| bad("begins with 0x and goes on with what is not hexadecimal")),
        None => Ok(secret.reveal().as_bytes().to_vec()),
    }
}

fn bad(message: &str) -> Error {
    Error::Option { option: "jwt_secret".to_owned(), message: message.to_owned(), hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_text_or_hexadecimal() {
        assert_eq!(key(&Secret::new("abc")).unwrap(), b"abc");
        assert_eq!(key(&Secret::new("0x0aFF")).unwrap(), [0x0a, 0xff]);
        assert!(key(&Secret::new("0x0")).is_err());
    }

    #[test]
    fn no_two_tokens_are_alike() {
        let grant = Grant { max_size: 1, epochs: 1, send_object_to: None };
        let make = || issue(&Secret::new("abc"), &grant, 5).unwrap();
        assert!(make() != make());
    }
}
