//! What an address is for, read from the address alone.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a range of addresses is for. Sources: RFC 6890 and the IANA registries of special-purpose addresses; for
/// metadata services the documentation of AWS, Azure, Google, Oracle and Alibaba Cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Anybody's, anywhere.
    Public,
    /// This host.
    Loopback,
    /// Inside a network: RFC 1918, `fc00::/7`, the old site-local ones.
    Private,
    /// Inside a carrier's or cloud's network: `100.64.0.0/10` (RFC 6598).
    Shared,
    /// One cable: `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// Where clouds hand credentials to whoever asks from a machine of theirs.
    Metadata,
    /// Many receivers.
    Multicast,
    /// Nobody's: `0.0.0.0/8`, `::`.
    Unspecified,
    /// Everybody on a cable.
    Broadcast,
    /// For examples in documents.
    Documentation,
    /// For measurements: `198.18.0.0/15`, `2001:2::/48`.
    Benchmark,
    /// For nothing that is dialled.
    Reserved,
    /// An IPv4 address hides in it and a tunnel takes it there: 6to4, Teredo.
    Tunnel,
    /// An IPv4 address hides in it, where only this network knows: `64:ff9b:1::/48` (RFC 8215).
    Translated,
}

/// How far an operator's word goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Dialled.
    Public,
    /// Dialled where the operator names no networks.
    Inside,
    /// Dialled only where the operator names its network.
    Odd,
    /// Never dialled.
    Never,
}

/// Metadata services outside the link-local range. The last two are ranges of their clouds' own.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
/// `fd00:ec2::/32` (AWS), `fd20:ce::254` (Google), `fd00:c1::a9fe:a9fe` (Oracle).
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

impl Class {
    /// The class of what a connection to this address reaches.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match meant(address) {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        }
    }

    pub(super) const fn standing(self) -> Standing {
        match self {
            Self::Public => Standing::Public,
            Self::Loopback | Self::Private | Self::Shared => Standing::Inside,
            Self::Documentation | Self::Benchmark | Self::Reserved | Self::Tunnel | Self::Translated => {
                Standing::Odd
            }
            Self::LinkLocal | Self::Metadata | Self::Multicast | Self::Unspecified | Self::Broadcast => {
                Standing::Never
            }
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "a public address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::Shared => "an address shared inside a network (100.64.0.0/10)",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud's metadata service",
            Self::Multicast => "a multicast address",
            Self::Unspecified => "nobody's address",
            Self::Broadcast => "the broadcast address",
            Self::Documentation => "an address for documentation",
            Self::Benchmark => "an address for benchmarks",
            Self::Reserved => "a reserved address",
            Self::Tunnel => "an address of a tunnel (6to4 or Teredo)",
            Self::Translated => "an address behind a translator of this network (64:ff9b:1::/48)",
        })
    }
}

/// The address that is reached: IPv4-mapped ones and those of `64:ff9b::/96` (RFC 6052 section 2.1) are the IPv4
/// address they hold.
pub(super) fn meant(address: IpAddr) -> IpAddr {
    let address = address.to_canonical();
    match address {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => pair(high, low).into(),
            _ => address,
        },
        IpAddr::V4(_) => address,
    }
}

fn of_v4(v4: Ipv4Addr) -> Class {
    if METADATA_V4.contains(&v4) {
        return Class::Metadata;
    }
    match v4.octets() {
        [0, ..] => Class::Unspecified,
        [127, ..] => Class::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private,
        [100, 64..=127, ..] => Class::Shared,
        [169, 254, ..] => Class::LinkLocal,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Class::Documentation,
        [198, 18..=19, ..] => Class::Benchmark,
        [192, 88, 99, _] => Class::Tunnel,
        [224..=239, ..] => Class::Multicast,
        [255, 255, 255, 255] => Class::Broadcast,
        [192, 0, 0, _] | [240..=255, ..] => Class::Reserved,
        _ => Class::Public,
    }
}

fn of_v6(v6: Ipv6Addr) -> Class {
    if METADATA_V6.contains(&v6) {
        return Class::Metadata;
    }
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        // The deprecated IPv4-compatible form (RFC 4291 section 2.5.5.1).
        [0, 0, 0, 0, 0, 0, high, low] => hiding(&[pair(high, low)], Class::Reserved),
        [0x64, 0xff9b, 1, ..] => hiding(&translated(v6), Class::Translated),
        [0xfd00, 0xec2, ..] => Class::Metadata,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Class::Private,
        [0xfe80..=0xfebf, ..] => Class::LinkLocal,
        [0xff00..=0xffff, ..] => Class::Multicast,
        // RFC 3056 section 2.
        [0x2002, high, low, ..] => hiding(&[pair(high, low)], Class::Tunnel),
        // RFC 4380 section 4: the server as it is, the client inverted.
        [0x2001, 0, high, low, _, _, client_high, client_low] => {
            hiding(&[pair(high, low), pair(!client_high, !client_low)], Class::Tunnel)
        }
        [0x2001, 2, 0, ..] => Class::Benchmark,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Class::Documentation,
        [0x2001, 0..=0x01ff, ..] => Class::Reserved,
        [0x2000..=0x3fff, ..] => Class::Public,
        _ => Class::Reserved,
    }
}

/// The class of an address that holds others: theirs, where they are never dialled.
fn hiding(held: &[Ipv4Addr], otherwise: Class) -> Class {
    let classes = held.iter().map(|v4| of_v4(*v4));
    classes.into_iter().find(|class| matches!(class, Class::LinkLocal | Class::Metadata)).unwrap_or(otherwise)
}

/// Every address that a translator could read in one of `64:ff9b:1::/48`: which of the prefix lengths 48, 56, 64 and
/// 96 it has is not in the address (RFC 6052 section 2.2).
fn translated(v6: Ipv6Addr) -> [Ipv4Addr; 4] {
    let [_, _, _, _, _, _, b6, b7, _, b9, b10, b11, b12, b13, b14, b15] = v6.octets();
    [
        Ipv4Addr::new(b6, b7, b9, b10),
        Ipv4Addr::new(b7, b9, b10, b11),
        Ipv4Addr::new(b9, b10, b11, b12),
        Ipv4Addr::new(b12, b13, b14, b15),
    ]
}

fn pair(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}
