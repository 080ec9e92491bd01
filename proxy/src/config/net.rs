//! Address ranges in CIDR form.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses: a base address and the number of leading bits that count.
///
/// Shape: IPv4-mapped IPv6 addresses are unmapped first, so `::ffff:10.0.0.0/104` and `10.0.0.0/8` are the same
/// range and an IPv4 peer seen on a dual-stack socket matches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpNet {
    addr: IpAddr,
    prefix: u8,
}

/// Why a text is no address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpNetProblem {
    /// The part before the slash is no IPv4 or IPv6 address.
    #[error("not an IP address")]
    Address,
    /// The part after the slash is no number, or more bits than the address has.
    #[error("the prefix length does not fit the address")]
    Prefix,
    /// The address has bits set behind the prefix, which is most often a typing mistake.
    #[error("the address has bits set beyond the prefix length")]
    HostBits,
}

impl IpNet {
    /// The base address.
    #[must_use]
    pub const fn addr(&self) -> IpAddr {
        self.addr
    }

    /// How many leading bits of the address count.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether `ip` lies in the range. IPv4-mapped addresses are unmapped first.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (ours, ours_len) = bits(self.addr);
        let (theirs, theirs_len) = bits(ip.to_canonical());
        ours_len == theirs_len && (ours ^ theirs) & mask(self.prefix) == 0
    }
}

impl FromStr for IpNet {
    type Err = IpNetProblem;

    /// Reads `10.0.0.0/8`, `fd00::/8`, or a single address without a slash.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_bad| IpNetProblem::Address)?;
        let (_, written_len) = bits(written);
        let given = match length {
            None => written_len,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_bad| IpNetProblem::Prefix)?
            }
            Some(_) => return Err(IpNetProblem::Prefix),
        };
        if given > written_len {
            return Err(IpNetProblem::Prefix);
        }
        let addr = written.to_canonical();
        let (raw, len) = bits(addr);
        // 96 bits of an IPv4-mapped address only say that it is one.
        let prefix = given.checked_sub(written_len.saturating_sub(len)).ok_or(IpNetProblem::Prefix)?;
        if raw & !mask(prefix) != 0 {
            return Err(IpNetProblem::HostBits);
        }
        Ok(Self { addr, prefix })
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

/// The address as the topmost bits of a `u128`, and how many bits it has.
fn bits(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

/// `prefix` ones followed by zeros.
fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128_u32.saturating_sub(u32::from(prefix))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_their_prefix_says() {
        let cases = [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::1/128", "::1", true),
            ("::/0", "::1", true),
        ];
        for (net, ip, inside) in cases {
            let parsed: IpNet = net.parse().unwrap();
            assert_eq!(parsed.contains(ip.parse().unwrap()), inside, "{ip} in {net}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("10.0.0/8", IpNetProblem::Address),
            ("localhost", IpNetProblem::Address),
            ("10.0.0.0/33", IpNetProblem::Prefix),
            ("10.0.0.0/+8", IpNetProblem::Prefix),
            ("10.0.0.0/", IpNetProblem::Prefix),
            ("::ffff:10.0.0.0/8", IpNetProblem::Prefix),
            ("10.0.0.1/8", IpNetProblem::HostBits),
        ];
        for (net, problem) in cases {
            assert_eq!(net.parse::<IpNet>(), Err(problem), "{net}");
        }
        assert_eq!("10.0.0.0/8".parse::<IpNet>().unwrap().to_string(), "10.0.0.0/8");
    }
}
