//! Faults, which a test orders in advance: a list that each request is compared with, first match first.
//!
//! Those that concern the transport are done by the server in front of every emulator. [`Kind::Special`] is for faults
//! that only the emulator itself can do (e.g. an error inside an answer of status 200); it asks for them by name.

use serde::{Deserialize, Serialize};
use std::sync::Mutex;

/// A fault and the requests that it meets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// `GET`, `PUT`, ..; `None` matches all methods.
    #[serde(default)]
    pub method: Option<String>,
    /// Beginning of the path, e.g. `/v1/quilts`.
    #[serde(default)]
    pub path: String,
    /// So many matching requests are let through first.
    #[serde(default)]
    pub after: u32,
    /// So many matching requests are met; `None`: all of them.
    #[serde(default = "once")]
    pub times: Option<u32>,
    pub kind: Kind,
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
fn once() -> Option<u32> {
    Some(1)
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Waits, then serves the request as usual.
    Delay { ms: u64 },
    /// Reads so many bytes of the request's body, then resets the connection. The emulator never sees the request.
    ResetUpload { after_bytes: usize },
    /// Hands so many bytes of the request's body to the emulator, which then sees the body fail; resets the connection
    /// when it is done. What came before may have been kept.
    CutUpload { after_bytes: usize },
    /// Resets the connection without reading the body.
    Reset,
    /// Serves the request, then resets the connection instead of answering: what was asked for has happened.
    Lost,
    /// Serves the request, and sends only so many bytes of the answer's body, with the `Content-Length` of the whole.
    Truncate { keep: usize },
    /// Serves the request, and sends only so many bytes of the answer's body, with a `Content-Length` that agrees.
    Shorten { keep: usize },
    /// Serves the request, and inverts the lowest bit of this byte (modulo the length) of the answer's body.
    Flip { byte: usize },
    /// Serves the request, and sends its answer in pieces of so many bytes with a pause after each.
    Trickle { piece: usize, pause_ms: u64 },
    /// Answers this instead of serving the request, after reading its body.
    Answer { status: u16, content_type: String, body: String, headers: Vec<(String, String)> },
    /// Never answers; the connection stays open.
    Stall,
    /// Done by the emulator, which asks for it by this name.
    Special { name: String },
}

impl Fault {
    /// A fault that meets the next request of any method on a path that begins with `path`, once.
    pub fn on(path: &str, kind: Kind) -> Self {
        Self { method: None, path: path.to_string(), after: 0, times: Some(1), kind }
    }

    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_string());
        self
    }

    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    #[must_use]
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    #[must_use]
    pub fn after(mut self, after: u32) -> Self {
        self.after = after;
        self
    }
}

/// Frequent answers of services in trouble.
impl Kind {
    pub fn special(name: &str) -> Self {
        Self::Special { name: name.to_string() }
    }

    pub fn text(status: u16, body: &str) -> Self {
        Self::Answer {
            status,
            content_type: "text/plain; charset=utf-8".to_string(),
            body: body.to_string(),
            headers: Vec::new(),
        }
    }

    pub fn json(status: u16, body: &str) -> Self {
        Self::Answer {
            status,
            content_type: "application/json".to_string(),
            body: body.to_string(),
            headers: Vec::new(),
        }
    }

    /// The page of a proxy or a content delivery network, instead of the service.
    pub fn html(status: u16) -> Self {
        Self::Answer {
            status,
            content_type: "text/html".to_string(),
            body: "<!DOCTYPE html><html><head><title>Error</title></head><body><h1>Error</h1></body></html>"
                .to_string(),
            headers: Vec::new(),
        }
    }

    /// 429 with `Retry-After` in seconds.
    pub fn busy(retry_after: u32) -> Self {
        Self::Answer {
            status: 429,
            content_type: "text/plain; charset=utf-8".to_string(),
            body: "too many requests; please try again later".to_string(),
            headers: vec![("retry-after".to_string(), retry_after.to_string())],
        }
    }
}

/// The faults ordered at an emulator.
#[derive(Debug, Default)]
pub struct Faults {
    list: Mutex<Vec<Fault>>,
}

impl Faults {
    pub fn add(&self, fault: Fault) {
        self.lock().push(fault);
    }

    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Faults that still wait for requests.
    pub fn left(&self) -> Vec<Fault> {
        self.lock().clone()
    }

    /// The transport fault that this request meets, if any; counts it.
    pub fn take(&self, method: &str, path: &str) -> Option<Kind> {
        self.find(method, path, |kind| !matches!(kind, Kind::Special { .. }))
    }

    /// Whether this request meets the special fault `name`; counts it.
    pub fn take_special(&self, name: &str, method: &str, path: &str) -> bool {
        self.find(method, path, |kind| matches!(kind, Kind::Special { name: given } if given == name)).is_some()
    }

    fn find(&self, method: &str, path: &str, wanted: impl Fn(&Kind) -> bool) -> Option<Kind> {
        let mut list = self.lock();
        let matches = |fault: &Fault| {
            wanted(&fault.kind)
                && path.starts_with(&fault.path)
                && fault.method.as_deref().is_none_or(|given| given.eq_ignore_ascii_case(method))
        };
        let mut found = None;
        for fault in list.iter_mut().filter(|fault| matches(fault)) {
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            if let Some(times) = &mut fault.times {
                *times -= 1;
            }
            found = Some(fault.kind.clone());
            break;
        }
        list.retain(|fault| fault.times != Some(0));
        found
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        self.list.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_meets_as_many_requests_as_ordered() {
        let faults = Faults::default();
        faults.add(Fault::on("/v1/blobs", Kind::Reset).method("put").after(1).times(2));
        assert_eq!(faults.take("GET", "/v1/blobs/x"), None);
        let met: Vec<bool> = (0..4).map(|_| faults.take("PUT", "/v1/blobs").is_some()).collect();
        assert_eq!(met, [false, true, true, false]);
    }

    #[test]
    fn special_faults_are_left_to_the_emulator() {
        let faults = Faults::default();
        faults.add(Fault::on("", Kind::special("wrong-id")));
        assert_eq!(faults.take("PUT", "/"), None);
        assert!(!faults.take_special("other", "PUT", "/"));
        assert!(faults.take_special("wrong-id", "PUT", "/"));
        assert!(!faults.take_special("wrong-id", "PUT", "/"));
    }

    #[test]
    fn read_from_json() {
        let fault: Fault = serde_json::from_str(r#"{"path":"/x","kind":{"delay":{"ms":5}}}"#).unwrap();
        assert_eq!(fault.times, Some(1));
        assert_eq!(fault.kind, Kind::Delay { ms: 5 });
        let fault: Fault = serde_json::from_str(r#"{"times":null,"kind":"lost"}"#).unwrap();
        assert_eq!((fault.times, fault.kind), (None, Kind::Lost));
    }
}
