//! Host ports that nobody else takes.

use std::fs::File;
use std::net::TcpListener;

/// Below the range from which the kernel takes the ports of outgoing connections: the load opens
/// thousands of those, and one could take the port between our look and the edge's.
const RANGE: std::ops::Range<u16> = 14_000..32_000;

/// A port that is free, and kept from other tests while this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// A free port.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn free() -> Self {
        let folder = std::env::temp_dir().join("shiplap-ports");
        std::fs::create_dir_all(&folder).expect("a folder for locks can be made");
        let width = u32::from(RANGE.end - RANGE.start);
        // Spread by process, so that tests side by side rarely look at the same port.
        let start = std::process::id().wrapping_mul(7919) % width;
        (0..width)
            .map(|step| RANGE.start + u16::try_from((start + step) % width).expect("in range"))
            .find_map(|number| {
                let lock = File::create(folder.join(number.to_string())).ok()?;
                lock.try_lock().ok()?;
                TcpListener::bind(("0.0.0.0", number)).ok()?;
                Some(Self { number, _lock: lock })
            })
            .expect("one port is free")
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}
