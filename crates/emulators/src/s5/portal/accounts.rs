//! Accounts: registration, login, tokens, use of storage.

use super::{Answer, Failure, Registration, State};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State as Given};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// Seconds that a cookie lasts.
const COOKIE_AGE: u32 = 2_592_000;

type Parameters = HashMap<String, String>;

pub fn router() -> Router<Arc<State>> {
    Router::new()
        .route("/s5/account/register", get(register_challenge).post(register))
        .route("/s5/account/login", get(login_challenge).post(login))
        .route("/s5/account/stats", get(stats))
}

/// The account of a request, as its public key; `None` where accounts are off. Looks at the header `Authorization`, then
/// the cookie, then the query.
pub fn authorize(state: &State, headers: &HeaderMap, query: &Parameters) -> Result<Option<String>, Failure> {
    if !state.settings.accounts {
        return Ok(None);
    }
    let refuse = |text: &str| Failure::new(401, axum::Json(json!({ "error": text })));
    let token = token(headers, query).ok_or_else(|| refuse("No auth token found"))?;
    let saved = state.saved();
    let account = saved.tokens.get(&token).ok_or_else(|| refuse("Invalid auth token"))?;
    Ok(Some(account.clone()))
}

/// As [`authorize`], for what a restricted account may not do.
pub fn authorize_write(state: &State, headers: &HeaderMap, query: &Parameters) -> Result<Option<String>, Failure> {
    let account = authorize(state, headers, query)?;
    if let Some(account) = &account
        && state.saved().used(account) > state.settings.storage_limit
    {
        return Err(Failure::new(401, axum::Json(json!({ "error": "This account is restricted" }))));
    }
    Ok(account)
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::to_string)
}

fn token(headers: &HeaderMap, query: &Parameters) -> Option<String> {
    let cookie = || {
        let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
        cookies.split("; ").find_map(|cookie| cookie.strip_prefix("s5-auth-token=")).map(str::to_string)
    };
    bearer(headers).or_else(cookie).or_else(|| query.get("auth_token").cloned())
}

async fn register_challenge(given: Given<Arc<State>>, headers: HeaderMap, query: Query<Parameters>) -> Answer {
    may_register(&given, &headers)?;
    challenge(&given, &query)
}

async fn login_challenge(Given(state): Given<Arc<State>>, query: Query<Parameters>) -> Answer {
    if !known(&state, query.get("pubKey")) {
        return Err(state.fail(404, "This public key is not registered on this portal"));
    }
    challenge(&state, &query)
}

async fn register(Given(state): Given<Arc<State>>, headers: HeaderMap, body: Bytes) -> Answer {
    may_register(&state, &headers)?;
    let account = prove(&state, &body)?;
    if known(&state, Some(&account)) {
        return Err(state.fail(409, "User with this public key already exists"));
    }
    state.change(|saved| saved.accounts.push(account.clone()));
    Ok(welcome(&state, &account))
}

async fn login(Given(state): Given<Arc<State>>, body: Bytes) -> Answer {
    let account = prove(&state, &body)?;
    if !known(&state, Some(&account)) {
        return Err(state.fail(404, "This public key is not registered on this portal"));
    }
    Ok(welcome(&state, &account))
}

fn may_register(state: &State, headers: &HeaderMap) -> Result<(), Failure> {
    let open = match &state.settings.registration {
        Registration::Open => true,
        Registration::Invited(token) => bearer(headers).as_ref() == Some(token),
        Registration::Closed => false,
    };
    if open { Ok(()) } else { Err(Failure::new(401, axum::Json(json!({ "error": "Invalid auth token" })))) }
}

fn known(state: &State, account: Option<&String>) -> bool {
    account.is_some_and(|account| state.saved().accounts.contains(account))
}

fn challenge(state: &State, query: &Parameters) -> Answer {
    let account = query.get("pubKey").ok_or_else(|| state.fail(400, "Null check operator used on a null value"))?;
    if public_key(account).is_none() {
        return Err(state.fail(400, "Only ed25519 keys are supported"));
    }
    let challenge = crate::s5::fresh();
    state.change(|saved| saved.challenges.insert(account.clone(), challenge));
    Ok(axum::Json(json!({ "challenge": BASE64URL_NOPAD.encode(&challenge) })).into_response())
}

fn public_key(text: &str) -> Option<VerifyingKey> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    match bytes.as_slice() {
        [0xed, key @ ..] => VerifyingKey::from_bytes(key.try_into().ok()?).ok(),
        _ => None,
    }
}

/// The public key of a request that answers the key's challenge. The Dart node looks at the length, the challenge and
/// the signature, not at the kind of request or the name of the portal inside the message.
fn prove(state: &State, body: &[u8]) -> Result<String, Failure> {
    let fields: Value = serde_json::from_slice(body).map_err(|error| state.fail(400, error.to_string()))?;
    let text = |name: &str| {
        let value = fields.get(name).and_then(Value::as_str);
        value.map(str::to_string).ok_or_else(|| state.fail(400, "type 'Null' is not a subtype of type 'String'"))
    };
    let account = text(if state.lume() { "pubkey" } else { "pubKey" })?;
    text("label")?;
    let key = public_key(&account).ok_or_else(|| state.fail(400, "Only ed25519 keys are supported"))?;
    let message = decode(state, &text("response")?)?;
    let known = state.saved().challenges.get(&account).copied();
    if message.len() != 65 || known.is_none_or(|challenge| message.get(1..33) != Some(&challenge[..])) {
        return Err(state.fail(400, "Invalid challenge"));
    }
    let signature = Signature::from_slice(&decode(state, &text("signature")?)?);
    let signature = signature.map_err(|_| state.fail(401, "Invalid signature"))?;
    key.verify(&message, &signature).map_err(|_| state.fail(401, "Invalid signature"))?;
    Ok(account)
}

fn decode(state: &State, text: &str) -> Result<Vec<u8>, Failure> {
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| state.fail(400, "FormatException: Invalid encoding"))
}

/// A new token: in a cookie, and in the body where the portal is not Lume.
fn welcome(state: &State, account: &str) -> Response {
    let random = bs58::encode(crate::s5::fresh()).into_string();
    let token = if state.lume() { format!("eyJhbGciOiJFZERTQSJ9.{random}.{random}") } else { format!("S5A{random}") };
    state.change(|saved| saved.tokens.insert(token.clone(), account.to_string()));
    let cookie = format!("s5-auth-token={token}; Path=/; Max-Age={COOKIE_AGE}; HttpOnly; Secure; SameSite=None");
    if state.lume() {
        return ([(header::SET_COOKIE, cookie)], "").into_response();
    }
    ([(header::SET_COOKIE, cookie)], axum::Json(json!({ "authToken": token }))).into_response()
}

async fn stats(Given(state): Given<Arc<State>>, headers: HeaderMap, query: Query<Parameters>) -> Answer {
    let account = authorize(&state, &headers, &query)?.unwrap_or_default();
    let used = state.saved().used(&account);
    let exceeded = used > state.settings.storage_limit;
    Ok(axum::Json(json!({
        "email": null, "createdAt": 1_700_000_000_000_u64, "quotaExceeded": exceeded, "emailConfirmed": false,
        "isRestricted": exceeded,
        "tier": { "id": 1, "name": "free", "uploadBandwidth": 10_485_760, "storageLimit": state.settings.storage_limit,
                  "scopes": [] },
        "stats": { "total": { "usedStorage": used } }
    }))
    .into_response())
}
