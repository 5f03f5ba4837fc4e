//! An account at a portal: a token, or a key that gets one.

use super::phrase;
use crate::http::{Answer, Body, Client, HeaderName, Method, Repeat, Request, Url, Verdict, sleep, usual};
use crate::redact::{Redactor, Secret};
use crate::{Context, Error, Result};
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const REPLY: usize = 64 << 10;
/// Challenges that are tried to answer before the last one.
const CHALLENGES: u32 = 9;

/// What a signed answer to a challenge is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Register,
    Login,
}

pub struct Account {
    url: Url,
    key: Option<SigningKey>,
    token: Mutex<Option<Secret>>,
    /// Tokens of logins, also those that do not hold any more: an answer may still repeat them.
    seen: Mutex<Vec<Secret>>,
}

/// `host[:port]`, as in the URL of the portal.
pub fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or("");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// `ed` and the public key, base64url.
pub fn public_key(key: &SigningKey) -> String {
    BASE64URL_NOPAD.encode(&[&[0xed][..], key.verifying_key().as_bytes()].concat())
}

/// The message that answers a challenge, and its signature, both base64url: purpose (1 byte), challenge (32), BLAKE3 of
/// the authority (32).
pub fn response(key: &SigningKey, purpose: Purpose, challenge: &[u8; 32], authority: &str) -> (String, String) {
    let kind = match purpose {
        Purpose::Register => 1,
        Purpose::Login => 2,
    };
    let message = [&[kind][..], challenge, blake3::hash(authority.as_bytes()).as_bytes()].concat();
    let signature = key.sign(&message).to_bytes();
    (BASE64URL_NOPAD.encode(&message), BASE64URL_NOPAD.encode(&signature))
}

impl Account {
    /// # Errors
    /// [`Error::Option`] if the seed is none.
    pub fn new(url: &Url, token: Option<Secret>, seed: Option<&Secret>) -> Result<Self> {
        let key = seed.map(|seed| phrase::key(seed.reveal(), &authority(url))).transpose();
        let key = key.map_err(|what| Error::Option {
            option: "seed".to_owned(),
            message: what.to_owned(),
            hint: Some("Write the 15 words of a seed phrase, or the key of the account as 64 digits.".to_owned()),
        })?;
        Ok(Self { url: url.clone(), key, token: Mutex::new(token), seen: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Secret>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token to send, if there is one.
    pub fn token(&self) -> Option<Secret> {
        self.lock().clone()
    }

    /// An answer whose body may be shown to a person: what the client's own redactor knows was given before the login.
    /// Bodies of success are left as they are; nobody shows them.
    pub fn scrubbed(&self, mut answer: Answer) -> Answer {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if answer.status.as_u16() != 200 && !seen.is_empty() {
            let text = Redactor::new(seen.iter().cloned()).clean(&String::from_utf8_lossy(&answer.body));
            answer.body = text.into_bytes();
        }
        answer
    }

    /// Logs in, if that is possible and was not done. A portal without accounts needs none.
    pub fn ensure(&self, client: &Client, context: &Context) -> Result<()> {
        if self.key.is_none() || self.token().is_some() {
            return Ok(());
        }
        match self.renew(None, client, context) {
            Ok(_) | Err(Error::Refused { status: Some(404), .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A new token in place of `used`, which was refused; `false` if there is no way to get one. When another thread has
    /// got one in the meantime, that is taken.
    pub fn renew(&self, used: Option<&Secret>, client: &Client, context: &Context) -> Result<bool> {
        let Some(key) = &self.key else { return Ok(false) };
        // Held during the login, so that threads do not log in side by side. Each wait inside looks at `context`.
        let mut token = self.lock();
        if token.is_some() && token.as_ref() != used {
            return Ok(true);
        }
        *token = None;
        let (login, _) = self.prove(key, Purpose::Login, client, context)?;
        let got = match login {
            Some(got) => got,
            None => self.register(key, client, context)?,
        };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(got.clone());
        *token = Some(got);
        Ok(true)
    }

    /// Registers the account, which the portal does not know.
    fn register(&self, key: &SigningKey, client: &Client, context: &Context) -> Result<Secret> {
        let (token, answer) = self.prove(key, Purpose::Register, client, context)?;
        if let Some(token) = token {
            return Ok(token);
        }
        // An earlier attempt may have registered it without getting an answer.
        if let (Some(token), _) = self.prove(key, Purpose::Login, client, context)? {
            return Ok(token);
        }
        let status = answer.status.as_u16();
        let message = match status {
            404 => "the portal has no accounts".to_owned(),
            _ => format!("the portal does not know this account, and does not register it: {}", answer.text()),
        };
        Err(Error::Refused { status: Some(status), message })
    }

    /// Answers a challenge, and another one if a session with the same account asked for its own in between: a portal
    /// keeps only the last. No token: the portal said no.
    fn prove(
        &self,
        key: &SigningKey,
        purpose: Purpose,
        client: &Client,
        context: &Context,
    ) -> Result<(Option<Secret>, Answer)> {
        for attempt in 0..CHALLENGES {
            let (token, answer) = self.prove_once(key, purpose, client, context)?;
            if token.is_some() || !String::from_utf8_lossy(&answer.body).contains("challenge") {
                return Ok((token, answer));
            }
            let pause = Duration::from_millis(50 << attempt.min(5)).mul_f64(rand::random());
            sleep(pause, context)?;
        }
        self.prove_once(key, purpose, client, context)
    }

    fn prove_once(
        &self,
        key: &SigningKey,
        purpose: Purpose,
        client: &Client,
        context: &Context,
    ) -> Result<(Option<Secret>, Answer)> {
        let route = match purpose {
            Purpose::Register => "s5/account/register",
            Purpose::Login => "s5/account/login",
        };
        let url = self.url.join(route).map_err(|error| Error::Protocol { message: format!("URL: {error}") })?;
        let own = public_key(key);
        let mut asked = url.clone();
        asked.query_pairs_mut().append_pair("pubKey", &own);
        let request =
            Request { limit: REPLY, repeat: Repeat::Safe, judge: Some(&judge), ..Request::new(Method::GET, asked) };
        let answer = self.scrubbed(client.send(&request, context)?);
        if answer.status.as_u16() != 200 {
            return said_no(answer);
        }
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let challenge = value.get("challenge").and_then(Value::as_str).unwrap_or_default();
        let challenge = BASE64URL_NOPAD.decode(challenge.trim_end_matches('=').as_bytes()).ok();
        let challenge: [u8; 32] = challenge
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| Error::Protocol { message: "the portal sends no challenge of 32 bytes".to_owned() })?;
        let (response, signature) = response(key, purpose, &challenge, &authority(&self.url));
        // One portal reads pubKey, another pubkey.
        let body =
            json!({ "pubKey": own, "pubkey": own, "response": response, "signature": signature, "label": "hybridvec" });
        let request = Request {
            headers: vec![(HeaderName::from_static("content-type"), "application/json".to_owned())],
            body: Body::Bytes(body.to_string().into()),
            limit: REPLY,
            repeat: Repeat::Safe,
            judge: Some(&judge),
            ..Request::new(Method::POST, url)
        };
        let answer = self.scrubbed(client.send(&request, context)?);
        if !matches!(answer.status.as_u16(), 200 | 201) {
            return said_no(answer);
        }
        let token = token_of(&answer)
            .ok_or_else(|| Error::Protocol { message: "the portal accepts the login and sends no token".to_owned() })?;
        Ok((Some(token), answer))
    }
}

/// 500 is how the Dart node says no to what it understands.
fn judge(answer: &Answer) -> Verdict {
    if answer.status.as_u16() == 500 { Verdict::Take } else { usual(answer) }
}

fn said_no(answer: Answer) -> Result<(Option<Secret>, Answer)> {
    match answer.status.as_u16() {
        400..=500 => Ok((None, answer)),
        _ => Err(answer.error("account")),
    }
}

/// The token of a login: in the cookie, else in the body.
fn token_of(answer: &Answer) -> Option<Secret> {
    let cookies = answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    let cookie = cookies
        .filter_map(|cookie| cookie.split(';').next()?.trim().strip_prefix("s5-auth-token="))
        .find(|token| !token.is_empty());
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    cookie.or_else(|| value.get("authToken")?.as_str()).map(Secret::new)
}
