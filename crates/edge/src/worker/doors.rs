//! How many connections there are at a listener, in all and by address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::rate::group;
use crate::table::Limits;

/// The connections of one listener.
#[derive(Default)]
pub(super) struct Doors {
    open: AtomicU32,
    by_address: Mutex<HashMap<IpAddr, u32>>,
}

/// One connection's place. It ends by being dropped.
pub(super) struct Inside {
    doors: Arc<Doors>,
    address: Option<IpAddr>,
}

impl Doors {
    /// Lets a connection in, unless there are too many. Without an address, it counts as one of
    /// all only.
    pub(super) fn enter(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        limits: &Limits,
    ) -> Option<Inside> {
        let address = address.map(group);
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let mut inside = Inside { doors: self.clone(), address: None };
        if open >= limits.connections {
            return None;
        }
        if let Some(address) = address {
            let mut by_address = self.by_address.lock().expect("no panic while held");
            let count = by_address.entry(address).or_default();
            if *count >= limits.connections_per_address {
                return None;
            }
            *count += 1;
            inside.address = Some(address);
        }
        Some(inside)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.doors.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = self.doors.by_address.lock().expect("no panic while held");
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}
