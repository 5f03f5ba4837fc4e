//! How long to wait before a request is made again.

use crate::{Context, Result};
use std::time::{Duration, SystemTime};

/// Longest pause that is chosen here.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// First bound of the pauses; it doubles with every attempt.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// Longest pause that a server may ask for. One that asks for more is not asked again.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How often a waiting thread looks whether it should go on waiting.
pub const LOOK: Duration = Duration::from_millis(20);

/// A pause before attempt `attempt` + 2 (the first has number 0), anywhere between nothing and a bound that doubles, so
/// that clients that failed together do not come back together.
pub fn backoff(attempt: u32) -> Duration {
    let bound = FIRST_BACKOFF.saturating_mul(1 << attempt.min(10)).min(LONGEST_BACKOFF);
    bound.mul_f64(rand::random::<f64>())
}

/// Sleeps, looking at `context` every [`LOOK`].
///
/// # Errors
/// As [`Context::check`].
pub fn sleep(duration: Duration, context: &Context) -> Result<()> {
    let mut left = duration;
    loop {
        context.check()?;
        if left.is_zero() {
            return Ok(());
        }
        let step = left.min(LOOK);
        std::thread::sleep(step);
        left -= step;
    }
}

/// What a `Retry-After` header asks for: seconds, or a date (RFC 9110, 10.2.3). `None` if it is neither.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let then = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(http_date(value)?))?;
    Some(then.duration_since(now).unwrap_or_default())
}

/// Seconds since 1970 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7; the two obsolete forms are
/// not read).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let mut fields = rest.split(' ');
    let day: u64 = fields.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = fields.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year: u64 = fields.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut time = fields.next()?.splitn(3, ':').map(|part| part.parse::<u64>().ok().filter(|part| *part <= 60));
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if fields.next() != Some("GMT") || fields.next().is_some() || hour > 23 {
        return None;
    }
    // Days of the proleptic Gregorian calendar, counting years from March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_reads_seconds_and_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, seconds) in [
            ("0", Some(0)),
            (" 17 ", Some(17)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Tue, 29 Feb 2000 00:00:00 GMT", Some(951_782_400 - 784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("Sun, 99 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn pauses_are_bounded() {
        for attempt in [0, 1, 5, 40, u32::MAX] {
            let bound = FIRST_BACKOFF * (1 << attempt.min(10));
            assert!((0..100).all(|_| backoff(attempt) <= bound.min(LONGEST_BACKOFF)), "attempt {attempt}");
        }
    }
}
