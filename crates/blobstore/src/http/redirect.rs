//! Which URLs may be asked, and where a redirect may lead.

use super::{Answer, Client, Failure, Request, Url};
use crate::{Context, Error, Result};
use reqwest::{Method, StatusCode};

/// Redirects in a row that are followed.
const HOPS: usize = 5;

/// Reads the URL of a server from an option: https, or http to this machine; a host; no credentials, query or
/// fragment. The path ends with a slash, so that [`Url::join`] appends to it.
///
/// # Errors
/// What is wrong with it, in words that go on after `option "..": `.
pub fn check_base(text: &str) -> std::result::Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    check(&url)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a query or fragment has no meaning here".to_owned());
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn check(url: &Url) -> std::result::Result<(), String> {
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err("names no host".to_owned());
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong into a URL, they go into the user mapping".to_owned());
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if loopback(url) => Ok(()),
        "http" => Err(format!("\"{host}\" is another machine, which needs https")),
        _ => Err("only https, and http to this machine, are spoken".to_owned()),
    }
}

fn loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// # Errors
/// [`Error::Protocol`] if this URL may not be asked.
pub(super) fn check_url(url: &Url) -> Result<()> {
    check(url).map_err(|what| Error::Protocol { message: format!("URL of {}: {what}", origin(url)) })
}

/// `scheme://host:port`.
pub(super) fn origin(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or(0);
    format!("{}://{}:{port}", url.scheme(), url.host_str().unwrap_or(""))
}

/// Whether a request to `first` may be led to `next`: the server itself, or a host that the options name.
fn allowed(first: &Url, next: &Url, hosts: &[String]) -> bool {
    let host = next.host_str().unwrap_or("").to_ascii_lowercase();
    let full = format!("{host}:{}", next.port_or_known_default().unwrap_or(0));
    let own = first.host_str().is_some_and(|own| own.eq_ignore_ascii_case(&host))
        && (first.port_or_known_default() == next.port_or_known_default());
    own || hosts.iter().any(|name| name.eq_ignore_ascii_case(&host) || name.eq_ignore_ascii_case(&full))
}

impl Client {
    /// As [`Client::send`], but GET and HEAD go where redirects lead, at most five times. Every hop must lead to the
    /// server itself (same host and port) or to one of `redirect_hosts`. Once another origin is asked, `Authorization`
    /// and the other headers of the request are not sent any more.
    ///
    /// # Errors
    /// As [`Client::send`]; [`Error::Refused`] if a redirect leads elsewhere.
    pub fn follow(&self, request: &Request<'_>, context: &Context) -> std::result::Result<Answer, Failure> {
        let mut request = request.clone();
        let first = request.url.clone();
        for _ in 0..=HOPS {
            let answer = self.send(&request, context)?;
            if !is_redirect(answer.status) || !matches!(request.method, Method::GET | Method::HEAD) {
                return Ok(answer);
            }
            let next = self.target(&first, &request.url, &answer)?;
            if origin(&next) != origin(&request.url) {
                request.authorize = None;
                request.headers.clear();
            }
            request.url = next;
        }
        Err(Error::Protocol { message: format!("{} redirects more than {HOPS} times", origin(&first)) }.into())
    }

    fn target(&self, first: &Url, current: &Url, answer: &Answer) -> Result<Url> {
        let refused = |message: String| Error::Refused { status: Some(answer.status.as_u16()), message };
        let location = answer.header("location").ok_or_else(|| Error::Protocol {
            message: format!("{} redirects without saying where", origin(current)),
        })?;
        let next = current.join(location).map_err(|error| Error::Protocol {
            message: format!("{} redirects to what is no URL: {error}", origin(current)),
        })?;
        check(&next).map_err(|what| refused(format!("a redirect to {}: {what}", origin(&next))))?;
        if !allowed(first, &next, &self.network.redirect_hosts) {
            let host = next.host_str().unwrap_or("");
            return Err(refused(format!(
                "a redirect to \"{host}\", which the option \"redirect_hosts\" does not name"
            )));
        }
        Ok(next)
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_https_or_this_machine() {
        for (text, good) in [
            ("https://example.org", Some("https://example.org/")),
            ("https://example.org:8443/api", Some("https://example.org:8443/api/")),
            ("http://localhost:5522", Some("http://localhost:5522/")),
            ("http://127.0.0.1:5522/", Some("http://127.0.0.1:5522/")),
            ("http://127.9.9.9", Some("http://127.9.9.9/")),
            ("http://[::1]:1", Some("http://[::1]:1/")),
            ("http://example.org", None),
            ("http://localhost.example.org", None),
            ("http://127.0.0.1.example.org", None),
            ("http://0.0.0.0", None),
            ("https://me@example.org", None),
            ("https://:pw@example.org", None),
            ("https://example.org/?token=1", None),
            ("https://example.org/#x", None),
            ("ftp://example.org", None),
            ("file:///etc/passwd", None),
            ("example.org", None),
            ("", None),
        ] {
            assert_eq!(check_base(text).ok().map(String::from).as_deref(), good, "{text}");
        }
    }

    #[test]
    fn redirects_stay_with_the_hosts_named() {
        let url = |text: &str| Url::parse(text).unwrap();
        let first = url("https://portal.example.org");
        let hosts = vec!["cdn.example.org".to_owned(), "127.0.0.1:81".to_owned()];
        for (next, good) in [
            ("https://portal.example.org/x", true),
            ("https://PORTAL.example.org:443/x", true),
            ("https://portal.example.org:444/x", false),
            ("https://cdn.example.org/x", true),
            ("https://cdn.example.org:9/x", true),
            ("https://xcdn.example.org/x", false),
            ("https://cdn.example.org.evil.example/x", false),
            ("http://127.0.0.1:81/", true),
            ("http://127.0.0.1:82/", false),
        ] {
            assert_eq!(allowed(&first, &url(next), &hosts), good, "{next}");
        }
    }
}
