//! Address blocks.

use std::net::IpAddr;

/// An address block such as `172.18.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    prefix: u32,
}

impl Subnet {
    /// Reads `address/prefix`.
    pub fn parse(text: &str) -> Option<Subnet> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let prefix: u32 = prefix.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= longest).then_some(Subnet { address, prefix })
    }

    /// Reads `address/prefix`, or an address alone, which is the block of that one.
    pub fn parse_any(text: &str) -> Option<Subnet> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let prefix = if address.is_ipv4() { 32 } else { 128 };
            return Some(Subnet { address, prefix });
        }
        Subnet::parse(text)
    }

    /// Whether the address lies inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(32 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(128 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_contain_their_addresses() {
        let check = |subnet: &str, address: &str| {
            Subnet::parse(subnet).unwrap().contains(address.parse().unwrap())
        };
        assert!(check("172.18.0.0/16", "172.18.255.1"));
        assert!(!check("172.18.0.0/16", "172.19.0.1"));
        assert!(check("0.0.0.0/0", "1.2.3.4"));
        assert!(check("10.0.0.1/32", "10.0.0.1"));
        assert!(check("fd00::/64", "fd00::1"));
        assert!(!check("fd00::/64", "10.0.0.1"));
        assert_eq!(Subnet::parse("10.0.0.0/33"), None);
        assert_eq!(Subnet::parse_any("10.0.0.1"), Subnet::parse("10.0.0.1/32"));
    }
}
