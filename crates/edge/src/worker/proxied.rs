//! The PROXY protocol (1 and 2): what a proxy in front says of its client, before anything else.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Every header of version 2 begins so.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Every header of version 1.
const WORD: &[u8] = b"PROXY ";
/// Of version 1, with the end of its line.
const MAX_LINE: usize = 107;
/// Of version 2, behind its first 16 bytes: addresses, and extensions that we pass over.
const MAX_REST: usize = 2048;

/// Reads the header and nothing behind it; answers the client's address, or none where the proxy
/// speaks for itself, as its health checks do.
///
/// # Errors
/// `InvalidData` for anything but a header.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<IpAddr>> {
    // The shortest header of version 1 has 15 bytes.
    let mut first = [0; SIGNATURE.len()];
    stream.read_exact(&mut first).await?;
    if first == SIGNATURE {
        return version_2(stream).await;
    }
    if !first.starts_with(WORD) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut line = first.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // One at a time: what follows is somebody else's to read.
        line.push(stream.read_u8().await?);
    }
    version_1(&line[WORD.len()..line.len() - 2])
}

fn version_1(line: &[u8]) -> io::Result<Option<IpAddr>> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let line = std::str::from_utf8(line).map_err(|_| wrong())?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(None);
    }
    let parts: Vec<&str> = line.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = parts[..] else {
        return Err(wrong());
    };
    for port in [source_port, destination_port] {
        port.parse::<u16>().map_err(|_| wrong())?;
    }
    let address = |text: &str| -> io::Result<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::from).map_err(|_| wrong()),
            "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::from).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    };
    address(destination)?;
    address(source).map(Some)
}

async fn version_2<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<IpAddr>> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let (command, family) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_REST {
        return Err(wrong());
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match (command, family) {
        // The proxy itself, or a client of which it does not say more.
        (0x20, _) | (0x21, 0x00) => Ok(None),
        // Source, destination, and a port for each.
        (0x21, 0x11) => match rest.first_chunk::<12>() {
            Some([a, b, c, d, ..]) => Ok(Some(Ipv4Addr::new(*a, *b, *c, *d).into())),
            None => Err(wrong()),
        },
        (0x21, 0x21) if rest.len() >= 36 => {
            let source: [u8; 16] = *rest.first_chunk().ok_or_else(wrong)?;
            Ok(Some(Ipv6Addr::from(source).into()))
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of these bytes, and what is left.
    async fn read_of(bytes: &[u8]) -> Result<(Option<String>, Vec<u8>), io::ErrorKind> {
        let mut rest = bytes;
        let read = read(&mut rest).await.map_err(|error| error.kind())?;
        Ok((read.map(|address| address.to_string()), rest.to_vec()))
    }

    #[tokio::test]
    async fn headers_are_read_to_their_end_and_no_further() {
        let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET /";
        assert_eq!(read_of(line).await, Ok((Some("192.0.2.7".to_owned()), b"GET /".to_vec())));
        let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n";
        assert_eq!(read_of(line).await, Ok((Some("2001:db8::7".to_owned()), Vec::new())));
        assert_eq!(read_of(b"PROXY UNKNOWN\r\nx").await, Ok((None, b"x".to_vec())));
        assert_eq!(read_of(b"PROXY UNKNOWN ffff::1 x 1 2\r\n").await, Ok((None, Vec::new())));
        let four =
            [&SIGNATURE[..], &[0x21, 0x11, 0, 12, 192, 0, 2, 7, 1, 1, 1, 1, 0, 1, 0, 2], b"x"];
        assert_eq!(
            read_of(&four.concat()).await,
            Ok((Some("192.0.2.7".to_owned()), b"x".to_vec()))
        );
        let mut six = [&SIGNATURE[..], &[0x21, 0x21, 0, 40], &[0; 40], b"x"].concat();
        six[16..20].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(read_of(&six).await, Ok((Some("2001:db8::".to_owned()), b"x".to_vec())));
        let local = [&SIGNATURE[..], &[0x20, 0x00, 0, 0], b"x"].concat();
        assert_eq!(read_of(&local).await, Ok((None, b"x".to_vec())));
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let invalid = io::ErrorKind::InvalidData;
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
            "PROXY TCP4 2001:db8::7 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
        ] {
            assert_eq!(read_of(line.as_bytes()).await, Err(invalid), "{line}");
        }
        let long = format!("PROXY TCP4 {}", "1".repeat(200));
        assert_eq!(read_of(long.as_bytes()).await, Err(invalid));
        for head in [
            [0x11, 0x11, 0, 12],
            [0x22, 0x11, 0, 12],
            [0x21, 0x12, 0, 12],
            [0x21, 0x21, 0, 12],
            [0x21, 0x11, 0, 4],
            [0x21, 0x11, 255, 255],
        ] {
            let bytes = [&SIGNATURE[..], &head, &[0; 300]].concat();
            assert_eq!(read_of(&bytes).await, Err(invalid), "{head:?}");
        }
        assert_eq!(read_of(b"PROXY TCP4 192.0.2").await, Err(io::ErrorKind::UnexpectedEof));
    }
}
