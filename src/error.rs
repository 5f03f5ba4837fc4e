//! Raising an ERROR with a SQLSTATE: the one way in which this extension reports a fault to a session.

use crate::pg::encoding::message;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// A fault as psql shows it: a short message in lower case, detail and hint as sentences.
pub(crate) struct Fault {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Fault {
    #[cold]
    pub(crate) fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None, hint: None }
    }

    pub(crate) fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    #[allow(dead_code, reason = "for the index access method")]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Ends the statement. Unwinds, so guards on the stack run.
    #[cold]
    #[track_caller]
    pub(crate) fn raise(self) -> ! {
        self.report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }

    /// Tells the session, or raises, as `level` says.
    #[track_caller]
    pub(crate) fn report(self, level: PgLogLevel) {
        let mut report = ErrorReport::new(self.code, message(self.message), "hybridvec");
        if let Some(detail) = self.detail {
            report = report.set_detail(message(detail));
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(message(hint));
        }
        report.report(level);
    }
}

/// Raises an ERROR that needs neither detail nor hint.
#[cold]
#[track_caller]
pub(crate) fn raise(code: PgSqlErrorCode, message: impl Into<String>) -> ! {
    Fault::new(code, message).raise()
}
