//! Who may ask: keys, hosts and origins.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::{Choice, ConstantTimeEq};

/// Keys that open the server. Only their hashes are kept.
#[derive(Clone, Default)]
pub struct Keys {
    hashes: Vec<[u8; 32]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.hashes.len())
    }
}

impl Keys {
    /// Of a file's lines; empty ones, and those that begin with `#`, are none.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { hashes: lines.map(|line| Sha256::digest(line).into()).collect() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether a request has one of the keys. All are compared, in a time that does not depend on what they are.
    fn opens(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
        let given = given.strip_prefix("Bearer ").unwrap_or("").trim();
        let hash: [u8; 32] = Sha256::digest(given).into();
        let none = Choice::from(0);
        let found = self.hashes.iter().fold(none, |found, key| found | key[..].ct_eq(&hash[..]));
        bool::from(found) && !given.is_empty()
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no key, or a wrong one.
    Key,
    /// A page of another origin sent it.
    Origin,
    /// It names another host: a page whose name was made to lead here.
    Host,
}

/// The name in a host header, without its port.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// Whether a request may be served. `local`: the server is bound to this machine alone, so other names are not its own.
pub fn check(headers: &HeaderMap, keys: &Keys, local: bool, needs_key: bool) -> Result<(), Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST).unwrap_or("");
    let is_known = !keys.is_empty() && keys.opens(headers);
    if local && !["localhost", "127.0.0.1", "::1", ""].contains(&host_name(host)) {
        return Err(Refusal::Host);
    }
    if let Some(origin) = text(ORIGIN) {
        let from = origin.split_once("://").map_or(origin, |(_, host)| host);
        if from != host {
            return Err(Refusal::Origin);
        }
    }
    if needs_key && !keys.is_empty() && !is_known {
        return Err(Refusal::Key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(axum::http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn keys_open_and_nothing_else_does() {
        let keys = Keys::parse("# comment\nfirst\n\n second \n");
        let with =
            |value: &str| check(&headers(&[(HOST, "localhost:8080"), (AUTHORIZATION, value)]), &keys, true, true);
        assert_eq!(with("Bearer first"), Ok(()));
        assert_eq!(with("Bearer second"), Ok(()));
        for wrong in ["Bearer third", "Bearer ", "first", "Bearer # comment", "Basic first"] {
            assert_eq!(with(wrong), Err(Refusal::Key), "{wrong}");
        }
        assert_eq!(check(&headers(&[]), &keys, true, true), Err(Refusal::Key));
        assert_eq!(check(&headers(&[]), &keys, true, false), Ok(()));
        assert_eq!(check(&headers(&[]), &Keys::default(), true, true), Ok(()));
    }

    #[test]
    fn other_origins_and_names_are_refused() {
        let open = Keys::default();
        let of = |host, origin| check(&headers(&[(HOST, host), (ORIGIN, origin)]), &open, true, true);
        assert_eq!(of("127.0.0.1:8080", "http://127.0.0.1:8080"), Ok(()));
        assert_eq!(of("[::1]:8080", "http://[::1]:8080"), Ok(()));
        assert_eq!(of("localhost:8080", "http://evil.example"), Err(Refusal::Origin));
        assert_eq!(of("localhost:8080", "http://localhost:9090"), Err(Refusal::Origin));
        assert_eq!(of("localhost:8080", "null"), Err(Refusal::Origin));
        assert_eq!(of("evil.example:8080", "http://evil.example:8080"), Err(Refusal::Host));
        let elsewhere = headers(&[(HOST, "node7:8080")]);
        assert_eq!(check(&elsewhere, &open, false, true), Ok(()));
    }
}
