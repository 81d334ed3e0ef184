//! Which addresses to listen on, from what the user wrote.

use anyhow::{Context, bail};
use oxidask_protocol::address::{Address, Scheme};

/// Port of a scheduler.
const DEFAULT_PORT: u16 = 8786;

/// Port of its HTTP server.
const DEFAULT_DASHBOARD_PORT: u16 = 8787;

/// What the user wrote about the address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// A host, or a URI whose scheme counts unless [`protocol`](Self::protocol) is given; may be empty.
    pub(crate) host: &'a str,
    /// A port, or several with commas.
    pub(crate) port: Option<&'a str>,
    /// A network interface, or several with commas.
    pub(crate) interface: Option<&'a str>,
    /// `tcp` or `tls`, or several with commas.
    pub(crate) protocol: Option<&'a str>,
    /// The scheme where none is given.
    pub(crate) default_scheme: Option<Scheme>,
}

/// The addresses, at least one. An empty host means all interfaces.
///
/// Several ports, protocols or interfaces give several addresses and must be equally many, as in stock Dask.
///
/// # Errors
/// If a part is malformed, or parts contradict each other.
pub(crate) fn addresses(wanted: &Wanted<'_>) -> anyhow::Result<Vec<Address>> {
    let split = |list: Option<&str>| -> Vec<Option<String>> {
        list.filter(|text| !text.is_empty())
            .map_or_else(Vec::new, |text| {
                text.split(',')
                    .map(|part| Some(part.trim().to_owned()))
                    .collect()
            })
    };
    let mut ports = split(wanted.port);
    let mut protocols = split(wanted.protocol);
    let mut interfaces = split(wanted.interface);
    let count = ports
        .len()
        .max(protocols.len())
        .max(interfaces.len())
        .max(1);
    if ports.is_empty() && protocols.len() > 1 {
        // The first protocol gets the known port, the others any, as in stock Dask.
        ports = vec![Some("0".to_owned()); count];
        ports[0] = None;
    }
    for (flag, list) in [
        ("--port", &mut ports),
        ("--protocol", &mut protocols),
        ("--interface", &mut interfaces),
    ] {
        match list.len() {
            0 => list.resize(count, None),
            1 if count > 1 && flag == "--interface" => {
                let only = list[0].clone();
                list.resize(count, only);
            }
            n if n == count => {}
            n => bail!(
                "--protocol, --port and --interface must be lists of equal length, but {flag} has {n} of {count}"
            ),
        }
    }
    ports
        .iter()
        .zip(&protocols)
        .zip(&interfaces)
        .map(|((port, protocol), interface)| {
            address(
                wanted,
                port.as_deref(),
                protocol.as_deref(),
                interface.as_deref(),
            )
        })
        .collect()
}

fn address(
    wanted: &Wanted<'_>,
    port: Option<&str>,
    protocol: Option<&str>,
    interface: Option<&str>,
) -> anyhow::Result<Address> {
    let (scheme, rest) = match wanted.host.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, wanted.host),
    };
    let scheme = match protocol.map(|p| p.trim_end_matches("://")).or(scheme) {
        None => wanted.default_scheme.unwrap_or(Scheme::Tcp),
        Some("tcp") => Scheme::Tcp,
        Some("tls") => Scheme::Tls,
        Some(other) => bail!("protocol {other:?} is not supported; use tcp or tls"),
    };
    let port = port
        .map(|text| {
            text.parse::<u16>()
                .with_context(|| format!("--port {text:?} is not a number from 0 to 65535"))
        })
        .transpose()?;
    let port_in_host = Address::parse(rest, scheme, None).ok();
    let mut address = match (port_in_host, port) {
        (Some(address), Some(port)) if address.port != 0 && port != address.port => bail!(
            "the port is given twice: --host {:?} and --port {port}",
            wanted.host
        ),
        (Some(address), _) => address,
        (None, _) => Address::parse(rest, scheme, Some(DEFAULT_PORT))
            .with_context(|| format!("--host {:?} is malformed", wanted.host))?,
    };
    if let Some(port) = port {
        address.port = port;
    }
    if let Some(interface) = interface {
        if !address.host.is_empty() {
            bail!(
                "both --interface {interface} and --host {} are given; give one",
                address.host
            );
        }
        address.host = oxidask_settings::process::interface_address(interface)?.to_string();
    }
    Ok(address)
}

/// Where the HTTP server listens: host (empty for all interfaces) and port.
///
/// # Errors
/// If the text is no `host:port`, `:port` or `port`.
pub(crate) fn dashboard(text: &str) -> anyhow::Result<(String, u16)> {
    // Stock listens on each address of a list; one is enough here.
    let first = text.split(',').next().unwrap_or_default().trim();
    if let Ok(port) = first.parse() {
        return Ok((String::new(), port));
    }
    let first = first
        .trim_start_matches("http://")
        .trim_start_matches("https://");
    let address = Address::parse(first, Scheme::Tcp, Some(DEFAULT_DASHBOARD_PORT))
        .with_context(|| format!("--dashboard-address {text:?} is malformed"))?;
    Ok((address.host, address.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(
        host: &str,
        port: Option<&str>,
        protocol: Option<&str>,
    ) -> Result<Vec<String>, String> {
        let wanted = Wanted {
            host,
            port,
            protocol,
            ..Wanted::default()
        };
        addresses(&wanted)
            .map(|list| list.iter().map(ToString::to_string).collect())
            .map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn addresses_are_what_stock_makes_of_the_flags() {
        for (host, port, protocol, expected) in [
            ("", None, None, "tcp://:8786"),
            ("", Some("0"), None, "tcp://:0"),
            ("127.0.0.1", Some("9"), None, "tcp://127.0.0.1:9"),
            ("127.0.0.1:9", None, None, "tcp://127.0.0.1:9"),
            ("tcp://127.0.0.1:0", Some("9"), None, "tcp://127.0.0.1:9"),
            ("tls://", None, None, "tls://:8786"),
            ("tls://host", None, None, "tls://host:8786"),
            ("tcp://host", None, Some("tls"), "tls://host:8786"),
            ("host", None, Some("tls://"), "tls://host:8786"),
            ("[::1]", Some("5"), None, "tcp://[::1]:5"),
        ] {
            assert_eq!(shown(host, port, protocol).unwrap(), [expected], "{host:?}");
        }
        let two = shown("", Some("8786,0"), Some("tcp,tls")).unwrap();
        assert_eq!(two, ["tcp://:8786", "tls://:0"]);
        let two = shown("", None, Some("tls,tcp")).unwrap();
        assert_eq!(two, ["tls://:8786", "tcp://:0"]);
    }

    #[test]
    fn what_cannot_be_meant_is_an_error_that_names_the_flag() {
        for (host, port, protocol, part) in [
            ("h:1", Some("2"), None, "given twice"),
            ("", Some("x"), None, "--port \"x\""),
            ("", Some("70000"), None, "from 0 to 65535"),
            ("", None, Some("ucx"), "use tcp or tls"),
            ("", Some("1,2"), Some("tcp"), "equal length"),
            ("ucx://h", None, None, "use tcp or tls"),
        ] {
            let error = shown(host, port, protocol).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn an_interface_gives_its_address() {
        let wanted = Wanted {
            interface: Some("lo"),
            port: Some("1"),
            ..Wanted::default()
        };
        let list = addresses(&wanted).unwrap();
        assert_eq!(list[0].to_string(), "tcp://127.0.0.1:1");
        let both = Wanted {
            host: "h",
            ..wanted.clone()
        };
        assert!(addresses(&both).is_err());
        let unknown = Wanted {
            interface: Some("no-such-if"),
            ..wanted
        };
        let error = format!("{:#}", addresses(&unknown).unwrap_err());
        assert!(
            error.contains("no-such-if") && error.contains("lo"),
            "{error}"
        );
    }

    #[test]
    fn dashboard_addresses_are_read_as_stock_reads_them() {
        for (text, host, port) in [
            (":8787", "", 8787),
            ("8787", "", 8787),
            ("0", "", 0),
            ("127.0.0.1:0", "127.0.0.1", 0),
            ("0.0.0.0", "0.0.0.0", 8787),
            (":1,:2", "", 1),
        ] {
            assert_eq!(dashboard(text).unwrap(), (host.to_owned(), port), "{text}");
        }
        assert!(dashboard("a:b").is_err());
    }
}
