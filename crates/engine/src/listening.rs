//! Whether something in a container listens, read from `/proc` of this machine.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

/// Whether the network namespace of a container's first process has a socket that listens for TCP
/// on anything but the loopback.
///
/// Nothing where that cannot be told: the process is not the container's (an engine behind a
/// socket may be on another machine), its namespace is this machine's, or it may not be read.
pub(crate) fn listens(container_id: &str, pid: u32) -> Option<bool> {
    let of = own_namespace(container_id, pid)?;
    // Absent where IPv6 is off. First, since most listen on both by one socket that is in there.
    let v6 = File::open(of("net/tcp6")).map_err(drop).map(BufReader::new);
    if v6.is_ok_and(|table| any_open(table).unwrap_or(false)) {
        return Some(true);
    }
    any_open(BufReader::new(File::open(of("net/tcp")).ok()?)).ok()
}

/// All ports of such sockets; nothing where [`listens`] could not tell.
pub(crate) fn ports(container_id: &str, pid: u32) -> Option<BTreeSet<u16>> {
    let of = own_namespace(container_id, pid)?;
    let mut found = open_ports(BufReader::new(File::open(of("net/tcp")).ok()?)).ok()?;
    if let Ok(v6) = File::open(of("net/tcp6")) {
        found.extend(open_ports(BufReader::new(v6)).ok()?);
    }
    Some(found)
}

/// The files of a process that is a container's and has a network namespace of its own.
fn own_namespace(container_id: &str, pid: u32) -> Option<impl Fn(&str) -> PathBuf> {
    let of = process(container_id, pid)?;
    let own = fs::read_link("/proc/self/ns/net").ok()?;
    (fs::read_link(of("ns/net")).ok()? != own).then_some(of)
}

/// The files of a process, if it is a container's.
fn process(container_id: &str, pid: u32) -> Option<impl Fn(&str) -> PathBuf + use<>> {
    let of = move |what: &str| PathBuf::from(format!("/proc/{pid}/{what}"));
    fs::read_to_string(of("cgroup")).ok()?.contains(container_id).then_some(of)
}

/// Files right below a folder that a container sees, each with its path, as long as they are no
/// longer than `longest` bytes: also where the folder is a file system in memory, which no archive
/// of the engine's holds. Nothing where the container is not on this machine.
pub(crate) fn files(
    container_id: &str,
    pid: u32,
    folder: &str,
    longest: u64,
) -> Option<Vec<(String, Vec<u8>)>> {
    let root = process(container_id, pid)?("root");
    let mut place = root;
    for part in folder.split('/').filter(|part| !part.is_empty()) {
        place.push(part);
        // A link inside of the container would lead to a place of this machine.
        match fs::symlink_metadata(&place) {
            Ok(data) if data.is_dir() => {}
            Ok(_) => return Some(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(Vec::new()),
            Err(_) => return None,
        }
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&place).ok()?.flatten() {
        let data = entry.metadata().ok()?;
        if data.is_file() && data.len() <= longest {
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            found.push((path, fs::read(entry.path()).ok()?));
        }
    }
    found.sort();
    Some(found)
}

/// Whether a table of sockets has an open one. Read no further than that needs: listening sockets
/// come first (Documentation/networking/proc_net_tcp.rst), and behind them the kernel searches the
/// connections of all namespaces, some milliseconds on a machine with much memory.
fn any_open(table: impl BufRead) -> io::Result<bool> {
    for line in table.lines().skip(1) {
        let line = line?;
        if is_open(&line) {
            return Ok(true);
        }
        if !is_listening(&line) {
            break;
        }
    }
    Ok(false)
}

/// The ports of all open sockets of a table.
fn open_ports(table: impl BufRead) -> io::Result<BTreeSet<u16>> {
    let mut found = BTreeSet::new();
    for line in table.lines().skip(1) {
        let line = line?;
        if is_open(&line) {
            let local = line.split_ascii_whitespace().nth(1);
            let port = local.and_then(|local| local.rsplit_once(':')).map(|(_, port)| port);
            found.extend(port.and_then(|port| u16::from_str_radix(port, 16).ok()));
        } else if !is_listening(&line) {
            break;
        }
    }
    Ok(found)
}

fn is_listening(line: &str) -> bool {
    line.split_ascii_whitespace().nth(3) == Some("0A")
}

/// `0: 00000000:1F90 00000000:0000 0A …`: address and port, the other end, the state; 0A is
/// listening. Addresses are in words of the machine's byte order.
fn is_open(line: &str) -> bool {
    let local = line.split_ascii_whitespace().nth(1).and_then(|local| local.split_once(':'));
    let Some((address, _)) = local.filter(|_| is_listening(line)) else { return false };
    let loopback_v4 = u32::from_ne_bytes([127, 0, 0, 1]);
    let word = |start: usize| {
        address.get(start..start + 8).and_then(|word| u32::from_str_radix(word, 16).ok())
    };
    match address.len() {
        // The engine's own resolver listens on 127.0.0.11 in every namespace.
        8 => word(0).is_some_and(|word| word.to_ne_bytes()[0] != 127),
        32 => {
            let words = [word(0), word(8), word(16), word(24)];
            let loopback = [Some(0), Some(0), Some(0), Some(u32::from_ne_bytes([0, 0, 0, 1]))];
            let mapped = [Some(0), Some(0), Some(u32::from_ne_bytes([0, 0, 0xff, 0xff]))];
            words != loopback && !(words[..3] == mapped && words[3] == Some(loopback_v4))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str, state: &str) -> bool {
        is_open(&format!("   0: {address}:1F90 00000000:0000 {state} 00000000:00000000"))
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_socket_is_open_if_it_listens_beyond_the_loopback() {
        assert!(tcp("00000000", "0A") && tcp("020011AC", "0A"));
        assert!(!tcp("00000000", "01"), "connected");
        assert!(!tcp("0B00007F", "0A"), "the engine's resolver, 127.0.0.11");
        assert!(tcp("00000000000000000000000000000000", "0A"), "[::]");
        assert!(!tcp("00000000000000000000000001000000", "0A"), "[::1]");
        assert!(!tcp("0000000000000000FFFF00000100007F", "0A"), "[::ffff:127.0.0.1]");
        assert!(!is_open("  sl  local_address rem_address   st tx_queue rx_queue"));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_table_is_read_up_to_its_connections() {
        let table = |lines: &[(&str, &str)]| {
            let line = |(address, state): &(&str, &str)| {
                format!("   0: {address}:1F90 00000000:0000 {state} 00000000:00000000\n")
            };
            let lines: String = lines.iter().map(line).collect();
            any_open(format!("  sl  local_address rem_address   st\n{lines}").as_bytes())
                .expect("text")
        };
        assert!(!table(&[]));
        assert!(table(&[("0B00007F", "0A"), ("00000000", "0A")]), "behind the resolver");
        assert!(!table(&[("0B00007F", "0A"), ("020011AC", "01"), ("020011AC", "06")]));
        let text = "  sl  local\n   0: 0B00007F:0035 00000000:0000 0A 0\n   \
            1: 00000000:1F90 00000000:0000 0A 0\n   2: 020011AC:1538 00000000:0000 0A 0\n   \
            3: 020011AC:0050 00000000:0000 01 0\n";
        assert_eq!(open_ports(text.as_bytes()).expect("text"), BTreeSet::from([8080, 5432]));
    }

    #[test]
    fn what_is_not_the_containers_tells_nothing() {
        let (id, own) = ("0".repeat(64), std::process::id());
        assert_eq!(listens(&id, own), None);
        assert_eq!(ports(&id, own), None);
        assert_eq!(files(&id, own, "/run", 1), None);
    }
}
