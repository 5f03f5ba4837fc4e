//! Tokens of an authenticated publisher.

use super::Daemon;
use super::reply::{self, AUTH};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the operator asks of a token.
#[derive(Clone, Debug)]
pub struct JwtRules {
    pub secret: Vec<u8>,
    /// If above zero: `iat` is required, and `exp - iat` must be this.
    pub expiring_sec: i64,
    /// Checks claims about the upload.
    pub verify_upload: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Claims {
    pub iat: Option<i64>,
    pub exp: i64,
    pub jti: String,
    pub send_object_to: Option<String>,
    pub epochs: Option<u32>,
    pub max_epochs: Option<u32>,
    pub size: Option<u64>,
    pub max_size: Option<u64>,
}

fn refuse(status: u16, reason: &str, message: &str) -> Box<Response> {
    Box::new(reply::error(status, reason, AUTH, message))
}

/// Checks the token of a request and uses it up; `None` where the publisher asks for none.
pub fn admit(daemon: &Daemon, headers: &HeaderMap) -> Result<Option<Claims>, Box<Response>> {
    let token = match headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default()) {
        None if daemon.config.jwt.is_none() => return Ok(None),
        None => {
            return Err(Box::new(reply::text(StatusCode::BAD_REQUEST, "Header of type `authorization` was missing")));
        }
        Some(value) => value
            .strip_prefix("Bearer ")
            .ok_or_else(|| Box::new(reply::text(StatusCode::BAD_REQUEST, "invalid HTTP header (authorization)")))?,
    };
    let Some(rules) = &daemon.config.jwt else {
        // Claims are read even where nobody checks them.
        return match parse(token) {
            Some((claims, ..)) => Ok(Some(claims)),
            None => Err(Box::new(reply::internal("the token has no claims"))),
        };
    };
    let claims = verify(rules, token)?;
    if daemon.network().use_token(&claims.jti) {
        Ok(Some(claims))
    } else {
        Err(refuse(429, "TOKEN_ALREADY_USED", "the token has been used already"))
    }
}

/// Claims, the signed text and the signature.
fn parse(token: &str) -> Option<(Claims, &str, Vec<u8>)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (_, claims) = signed.split_once('.')?;
    let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?;
    Some((serde_json::from_slice(&claims).ok()?, signed, BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?))
}

fn verify(rules: &JwtRules, token: &str) -> Result<Claims, Box<Response>> {
    let (claims, signed, signature) =
        parse(token).ok_or_else(|| refuse(400, "INVALID_TOKEN", "the token cannot be read"))?;
    let header = signed.split('.').next().and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok());
    let header: serde_json::Value = header.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    let mut mac = Hmac::<Sha256>::new_from_slice(&rules.secret).map_err(|_| Box::new(reply::internal("no key")))?;
    mac.update(signed.as_bytes());
    if header["alg"] != "HS256" || mac.verify_slice(&signature).is_err() {
        return Err(refuse(401, "INVALID_SIGNATURE", "the token's signature is wrong"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    if claims.exp < now {
        return Err(refuse(504, "EXPIRED_SIGNATURE", "the token has expired"));
    }
    if claims.iat.is_some_and(|iat| iat > now) {
        return Err(refuse(400, "INVALID_TIMESTAMP", "the token is from the future"));
    }
    if rules.expiring_sec > 0 && claims.iat.is_none_or(|iat| claims.exp - iat != rules.expiring_sec) {
        return Err(refuse(400, "INVALID_EXPIRATION", "exp - iat is not what the publisher asks for"));
    }
    if (claims.epochs.is_some() && claims.max_epochs.is_some()) || (claims.size.is_some() && claims.max_size.is_some())
    {
        return Err(refuse(400, "INCONSISTENT_TOKEN", "an exact and a highest value exclude each other"));
    }
    Ok(claims)
}

/// Checks claims about the upload. A token that fails is not used up.
pub fn check_upload(
    daemon: &Daemon,
    claims: Option<&Claims>,
    epochs: u32,
    send_object_to: Option<&str>,
    size: u64,
) -> Result<(), Box<Response>> {
    let (Some(claims), Some(rules)) = (claims, &daemon.config.jwt) else { return Ok(()) };
    let reason = if rules.verify_upload
        && (claims.epochs.is_some_and(|exact| exact != epochs) || claims.max_epochs.is_some_and(|most| epochs > most))
    {
        "INVALID_EPOCHS"
    } else if rules.verify_upload && claims.send_object_to.as_deref().is_some_and(|to| Some(to) != send_object_to) {
        "INVALID_SEND_OBJECT_TO"
    } else if claims.size.is_some_and(|exact| exact != size) || claims.max_size.is_some_and(|most| size > most) {
        "INVALID_SIZE"
    } else {
        return Ok(());
    };
    daemon.network().spare_token(&claims.jti);
    Err(refuse(400, reason, "the request is not what the token allows"))
}
