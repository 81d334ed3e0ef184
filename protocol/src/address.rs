//! Addresses: `tcp://host:port`, `tls://host:port`, or `host:port` as users write them.

use std::fmt;

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// How it is reached.
    pub scheme: Scheme,
    /// Host name or IP, without brackets.
    pub host: String,
    /// The port; 0 asks for a free one when listening.
    pub port: u16,
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{text:?} is not an address: {reason}; write tcp://host:port or tls://host:port")]
pub struct AddressError {
    text: String,
    reason: &'static str,
}

impl Address {
    /// Reads an address. Without a scheme it is `default`; without a port it is `port`.
    ///
    /// The host may be empty, as in `tcp://:8786`, which asks a listener for every interface.
    ///
    /// # Errors
    /// If the scheme is unknown, the host has characters of another part, an IPv6 host lacks its brackets, or the
    /// port is missing or no number.
    pub fn parse(text: &str, default: Scheme, port: Option<u16>) -> Result<Self, AddressError> {
        let fail = |reason| AddressError {
            text: text.chars().take(256).collect(),
            reason,
        };
        let (scheme, rest) = match text.split_once("://") {
            Some(("tcp", rest)) => (Scheme::Tcp, rest),
            Some(("tls", rest)) => (Scheme::Tls, rest),
            Some(_) => return Err(fail("unknown scheme")),
            None => (default, text),
        };
        let rest = rest.trim_end_matches('/');
        let (host, port_text) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6.split_once(']').ok_or_else(|| fail("unclosed bracket"))?;
                match after.strip_prefix(':') {
                    None if !after.is_empty() => return Err(fail("text after the bracket")),
                    port => (host, port),
                }
            }
            None => match rest.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => {
                    return Err(fail("an IPv6 address must stand in brackets"));
                }
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        if host.contains(|c: char| "[]/".contains(c) || c.is_whitespace() || c.is_control()) {
            return Err(fail("the host has a character that no host has"));
        }
        let port = match port_text {
            // `u16::from_str` would take "+1" too.
            Some(digits) => Some(digits)
                .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(|| fail("the port is not a number from 0 to 65535"))?,
            None => port.ok_or_else(|| fail("no port"))?,
        };
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Tcp => "tcp",
            Scheme::Tls => "tls",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_users_write_them() {
        for (text, shown) in [
            ("tcp://127.0.0.1:8786", "tcp://127.0.0.1:8786"),
            ("localhost:8786", "tcp://localhost:8786"),
            ("tls://[::1]:1", "tls://[::1]:1"),
            ("scheduler", "tcp://scheduler:8786"),
            ("tcp://scheduler:0/", "tcp://scheduler:0"),
            ("tcp://:8786", "tcp://:8786"),
        ] {
            assert_eq!(
                Address::parse(text, Scheme::Tcp, Some(8786))
                    .unwrap()
                    .to_string(),
                shown
            );
        }
        for text in [
            "ucx://a:1",
            "a:b",
            "a:",
            "a:+1",
            "a:70000",
            "[::1",
            "[::1]junk",
            "[[]:1",
            "a b:1",
            "a/b:1",
            "::1",
            "fe80::1:8786",
            "scheduler",
        ] {
            assert!(Address::parse(text, Scheme::Tcp, None).is_err(), "{text}");
        }
    }
}
