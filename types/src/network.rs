//! What counts as one address where places, tries or memory are shared out.

use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address is itself, also where it came as one of IPv6. Of IPv6 it is the /64: whoever has one address of it has
/// all the others.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))),
        v4 => v4,
    }
}
