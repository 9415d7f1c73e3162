//! Which addresses may be connected to.
//!
//! An attacker who can write a configuration's URL, or answer for its name, must not reach what only the machine itself may
//! reach: the metadata services of clouds hand credentials to whoever asks. So every address is checked after it was resolved,
//! and the connection goes to the address that was checked, not to the name. Loopback and private addresses are where receivers
//! live, and are allowed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Metadata services outside of the link-local networks: Alibaba, Oracle, Azure.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];
/// Metadata services outside of the link-local networks: AWS, Google.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254),
    Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254),
];

/// Why an address is refused, if it is.
pub(super) fn refused(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => refused_v4(address),
        IpAddr::V6(address) => refused_v6(address),
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address {
        _ if METADATA_V4.contains(&address) || address == Ipv4Addr::new(169, 254, 169, 254) => {
            Some("a cloud's metadata service")
        }
        _ if address.is_link_local() => Some("a link-local address"),
        _ if address.octets()[0] == 0 => Some("an unspecified address"),
        _ if address.is_multicast() || address.is_broadcast() => Some("a multicast address"),
        _ => None,
    }
}

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    let parts = address.segments();
    let v4 = |high: u16, low: u16| refused_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match address {
        _ if METADATA_V6.contains(&address) => Some("a cloud's metadata service"),
        _ if address.is_unspecified() => Some("an unspecified address"),
        _ if address.is_loopback() => None,
        _ if address.is_multicast() => Some("a multicast address"),
        _ if address.is_unicast_link_local() => Some("a link-local address"),
        // What leads to an IPv4 address: mapped and compatible ones, NAT64, 6to4.
        _ if parts[..5] == [0; 5] && matches!(parts[5], 0 | 0xffff) => v4(parts[6], parts[7]),
        _ if parts[..2] == [0x64, 0xff9b] => v4(parts[6], parts[7]),
        _ if parts[0] == 0x2002 => v4(parts[1], parts[2]),
        _ => None,
    }
}

/// The addresses of a name that may be connected to.
///
/// # Errors
/// The name is unknown, or none of its addresses is allowed.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut why = None;
    let mut allowed = Vec::new();
    for address in tokio::net::lookup_host((host, port)).await? {
        match refused(address.ip()) {
            Some(reason) => why = Some(reason),
            None => allowed.push(address),
        }
    }
    match why {
        _ if !allowed.is_empty() => Ok(allowed),
        Some(why) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{host} is {why}, which is not connected to"),
        )),
        None => Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"))),
    }
}

/// The resolver of the HTTP client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guarded;

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses = resolve(name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (address, allowed) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("192.168.0.1", true),
            ("172.16.0.1", true),
            ("100.64.0.1", true),
            ("203.0.113.9", true),
            ("169.254.169.254", false),
            ("169.254.170.2", false),
            ("169.254.0.1", false),
            ("100.100.100.200", false),
            ("192.0.0.192", false),
            ("168.63.129.16", false),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", true),
            ("fd00::1", true),
            ("2001:db8::1", true),
            ("fd00:ec2::254", false),
            ("fd20:ce::254", false),
            ("fe80::1", false),
            ("febf::1", false),
            ("ff02::1", false),
            ("::", false),
            ("::ffff:169.254.169.254", false),
            ("::ffff:127.0.0.1", true),
            ("::ffff:0.0.0.0", false),
            ("::169.254.169.254", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("2002:a9fe:a9fe::1", false),
        ] {
            assert_eq!(refused(address.parse().unwrap()).is_none(), allowed, "{address}");
        }
    }

    #[tokio::test]
    async fn names_are_checked_by_their_addresses() {
        assert!(resolve("localhost", 80).await.is_ok());
        let error = resolve("169.254.169.254", 80).await.unwrap_err().to_string();
        assert_eq!(error, "169.254.169.254 is a cloud's metadata service, which is not connected to");
    }
}
