//! Addresses of network interfaces by name.

use std::net::IpAddr;

/// Why an interface has no address for us.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The system does not tell its interfaces.
    #[error("failed to list the network interfaces")]
    List(#[source] std::io::Error),
    /// There is none of that name, or it has no address.
    #[error("no address on network interface {name:?}; there are {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// Those that have an address.
        known: String,
    },
}

/// The address of an interface such as `eth0`; an IPv4 address if it has one.
///
/// # Errors
/// If there is no such interface.
pub fn interface_address(name: &str) -> Result<IpAddr, InterfaceError> {
    let interfaces = if_addrs::get_if_addrs().map_err(InterfaceError::List)?;
    let of_name = || interfaces.iter().filter(|i| i.name == name).map(|i| i.ip());
    let found = of_name().find(IpAddr::is_ipv4).or_else(|| of_name().next());
    found.ok_or_else(|| {
        let mut known: Vec<&str> = interfaces.iter().map(|i| i.name.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        InterfaceError::Unknown {
            name: name.to_owned(),
            known: known.join(", "),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_its_address_and_others_are_named() {
        assert_eq!(interface_address("lo").unwrap().to_string(), "127.0.0.1");
        let error = interface_address("nope").unwrap_err().to_string();
        assert!(
            error.contains("\"nope\"") && error.contains("lo"),
            "{error}"
        );
    }
}
