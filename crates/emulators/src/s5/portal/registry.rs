//! The registry: signed pointers that can be moved.

use super::saved::Entry;
use super::{Answer, State};
use axum::body::Bytes;
use axum::extract::{Query, State as Given};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use std::collections::HashMap;
use std::sync::Arc;

const LARGEST_REVISION: u64 = 1 << 48;
const LONGEST_DATA: usize = 64;

pub async fn get(Given(state): Given<Arc<State>>, Query(query): Query<HashMap<String, String>>) -> Answer {
    let entry = query.get("pk").and_then(|pk| state.saved().registry.get(pk).cloned());
    Ok(match entry {
        Some(entry) => axum::Json(entry).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

pub async fn set(Given(state): Given<Arc<State>>, body: Bytes) -> Answer {
    let entry: Entry = serde_json::from_slice(&body).map_err(|error| state.fail(400, error.to_string()))?;
    check(&entry).map_err(|text| state.fail(400, text))?;
    let stored = state.change(|saved| {
        let newer = saved.registry.get(&entry.pk).is_none_or(|old| old.revision < entry.revision);
        if newer {
            saved.registry.insert(entry.pk.clone(), entry);
        }
        newer
    });
    if !stored {
        return Err(state.fail(409, "Revision number too low"));
    }
    Ok(if state.lume() { StatusCode::OK } else { StatusCode::NO_CONTENT }.into_response())
}

/// What is signed: `07`, revision (8 bytes, little-endian), length of the data (1 byte), data.
fn check(entry: &Entry) -> Result<(), &'static str> {
    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes());
    let pk = decode(&entry.pk).map_err(|_| "Invalid pubkey")?;
    let (kind, key) = pk.split_first().filter(|(_, key)| key.len() == 32).ok_or("Invalid pubkey")?;
    if *kind != 0xed {
        return Err("Only ed25519 keys are supported");
    }
    let key = VerifyingKey::try_from(key).map_err(|_| "Invalid pubkey")?;
    let data = decode(&entry.data).map_err(|_| "Invalid data")?;
    let length = u8::try_from(data.len()).ok().filter(|_| data.len() <= LONGEST_DATA).ok_or("Data too long")?;
    if entry.revision > LARGEST_REVISION {
        return Err("Invalid revision");
    }
    let message = [&[7][..], &entry.revision.to_le_bytes(), &[length], &data].concat();
    let signature = decode(&entry.signature).map_err(|_| "Invalid signature found")?;
    let signature = Signature::from_slice(&signature).map_err(|_| "Invalid signature found")?;
    key.verify(&message, &signature).map_err(|_| "Invalid signature found")
}
