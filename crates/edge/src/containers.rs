//! Where containers are, read from `/proc` of the host: without the engine's socket.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::api::ListeningPort;

/// A full container id.
const ID_LENGTH: usize = 64;

/// Whether the text is a full container id. Only those are looked for.
pub(crate) fn is_container_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(is_id_byte)
}

fn is_id_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Whether the processes of the host can be seen, that is, whether "not found" means "not running".
pub(crate) fn sees_host_processes() -> bool {
    // The kernel's thread daemon is process 2 of the host and of no other PID namespace.
    fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd")
}

/// The first process of each of these containers, for those that run. One pass over `/proc`.
pub(crate) fn find(containers: &HashSet<String>) -> HashMap<String, u32> {
    let mut processes: HashMap<String, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end at any moment: whatever cannot be read is not there.
        let Ok(cgroups) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else { continue };
        if let Some(id) = innermost_container(&cgroups)
            && containers.contains(id)
        {
            processes.entry(id.to_owned()).or_default().push(pid);
        }
    }
    let first = |(id, pids): (String, Vec<u32>)| first_process(&pids).map(|pid| (id, pid));
    processes.into_iter().filter_map(first).collect()
}

/// The id in `…/docker/<id>`, `…/docker-<id>.scope`, `…/<outer id>/docker/<id>/init.scope`: the
/// last one, for a container inside a container is in the group of both.
fn innermost_container(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| {
        let runs = line.split(|c: char| !c.is_ascii() || !is_id_byte(c as u8));
        runs.rev().find(|run| run.len() == ID_LENGTH)
    })
}

/// The one whose parent is outside. `docker exec` makes more of those, with the same network.
fn first_process(pids: &[u32]) -> Option<u32> {
    let alive: Vec<(u32, u32)> =
        pids.iter().filter_map(|pid| Some((*pid, live_parent(*pid)?))).collect();
    let outside = alive.iter().filter(|(_, parent)| !pids.contains(parent));
    outside.chain(&alive).map(|(pid, _)| *pid).next()
}

/// The parent, of a process that is not a zombie.
fn live_parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, also parentheses.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.next()?.parse().ok()
}

/// The addresses in the network namespace of a process, without loopback and link-local ones.
pub(crate) fn addresses(pid: u32) -> io::Result<Vec<IpAddr>> {
    let v4 = fs::read_to_string(format!("/proc/{pid}/net/fib_trie"))?;
    let mut found: Vec<IpAddr> = local_addresses_v4(&v4).into_iter().map(IpAddr::V4).collect();
    // Absent where IPv6 is off.
    if let Ok(v6) = fs::read_to_string(format!("/proc/{pid}/net/if_inet6")) {
        found.extend(v6.lines().filter_map(global_address_v6).map(IpAddr::V6));
    }
    Ok(found)
}

/// `fib_trie` names an address, then in the next line what it is:
/// `|-- 172.17.0.2` / `/32 host LOCAL`.
fn local_addresses_v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = BTreeSet::new();
    let mut leaf = None;
    for line in trie.lines() {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.trim().parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = leaf
            && !address.is_loopback()
        {
            found.insert(address);
        }
    }
    found.into_iter().collect()
}

/// A line of `if_inet6`: address, interface, prefix length, scope (00 is global), flags, name.
fn global_address_v6(line: &str) -> Option<Ipv6Addr> {
    let mut fields = line.split_ascii_whitespace();
    let address = u128::from_str_radix(fields.next()?, 16).ok()?;
    (fields.nth(2)? == "00").then(|| Ipv6Addr::from_bits(address))
}

/// The TCP ports that listen in the network namespace of a process.
pub(crate) fn listening_ports(pid: u32) -> io::Result<Vec<ListeningPort>> {
    let mut found: BTreeSet<ListeningPort> = BTreeSet::new();
    let v4 = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    found.extend(v4.lines().filter_map(listening_port));
    if let Ok(v6) = fs::read_to_string(format!("/proc/{pid}/net/tcp6")) {
        found.extend(v6.lines().filter_map(listening_port));
    }
    Ok(found.into_iter().collect())
}

/// `0: 0100007F:1F90 00000000:0000 0A …`: the address in words of the machine's byte order, the
/// port, the other end, the state (0A is listening).
fn listening_port(line: &str) -> Option<ListeningPort> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    if fields.nth(1)? != "0A" {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for start in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(ListeningPort { port, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1f3c9a1f3c9a1f3c9a1f3c9a1f3c9a1f3c9a1f3c9a1f3c9a1f3c9a1f3c9aabcd";

    #[test]
    fn the_container_is_found_in_every_kind_of_cgroup_path() {
        for path in [
            format!("12:pids:/docker/{ID}\n11:memory:/docker/{ID}\n"),
            format!("0::/system.slice/docker-{ID}.scope\n"),
            format!("0::/../{ID}/init.scope\n"),
            format!("0::/docker/{}/docker/{ID}\n", "0".repeat(64)),
        ] {
            assert_eq!(innermost_container(&path), Some(ID), "{path}");
        }
        assert_eq!(innermost_container("0::/user.slice\n"), None);
    }

    #[test]
    fn local_addresses_are_those_of_the_host_leaves() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                    Local:\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 172.17.0.2\n\
                    \x20       /32 host LOCAL\n     |-- 172.17.255.255\n        /32 link BROADCAST\n";
        assert_eq!(local_addresses_v4(trie), [Ipv4Addr::new(172, 17, 0, 2)]);
        let line = "fd000000000000000000000000000002 05 40 00 80     eth0";
        assert_eq!(global_address_v6(line), Some("fd00::2".parse().unwrap()));
        assert_eq!(global_address_v6(&line.replace(" 00 ", " 20 ")), None);
    }

    #[test]
    fn listening_sockets_are_told_from_connected_ones() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000";
        let expected = ListeningPort { port: 8080, address: "127.0.0.1".parse().unwrap() };
        assert_eq!(listening_port(line), Some(expected));
        assert_eq!(listening_port(&line.replace(" 0A ", " 01 ")), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let pid = std::process::id();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listening_ports(pid).unwrap().iter().any(|one| one.port == port));
        addresses(pid).unwrap();
    }
}
