"""Which network addresses a stranger may have us call."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

# The only block that IANA hands out as global unicast. Outside it lie mapped and compatible IPv4, NAT64 (64:ff9b::/96),
# site-local, unique-local, link-local and whatever comes next: refused without being looked into.
_GLOBAL_V6 = IPv6Network("2000::/3")

# Inside it, and known as global to some of the Python versions that this runs on.
_NOT_PLACES = (
    IPv6Network("2001::/23"),  # Teredo (carries IPv4 addresses) and other protocols' own blocks
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4 (carries IPv4 addresses)
    IPv6Network("3fff::/20"),  # documentation
)

# Global, but relays of 6to4 that are gone (RFC 7526).
_RELAYS_V4 = IPv4Address("192.88.99.0").packed[:3]


def is_public(address: str) -> bool:
    """Whether this textual address is one of the open internet; False for what is no address at all."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    return _is_public_v4(ip) if isinstance(ip, IPv4Address) else _is_public_v6(ip)


def _is_public_v4(ip: IPv4Address) -> bool:
    return ip.packed[:3] != _RELAYS_V4


def _is_public_v6(ip: IPv6Address) -> bool:
    return ip in _GLOBAL_V6 and not any(ip in network for network in _NOT_PLACES)
