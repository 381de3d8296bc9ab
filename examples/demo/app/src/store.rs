use crate::api::health;
use crate::http::{Handler, Reply, Request};
use crate::settings::Settings;
use serde_json::json;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The back: the only writer of a file on a volume, as SQLite or DuckDB would be.
pub struct Store {
    settings: Arc<Settings>,
    lines: Mutex<Lines>,
}

/// The open, locked file and how many lines it has. The lock ends with the process.
struct Lines {
    file: File,
    count: u64,
}

impl Store {
    /// Takes the lock, or fails at once if another store has it; then boots for a while.
    pub async fn open(settings: Arc<Settings>) -> Result<Store, String> {
        let path = Path::new(&settings.data).join("store.log");
        let lines = open_locked(&path)?;
        println!("store: {} lines in {}", lines.count, path.display());
        tokio::time::sleep(settings.boot).await;
        Ok(Store { settings, lines: Mutex::new(lines) })
    }

    fn append(&self, request: &Request) -> Reply {
        let line = String::from_utf8_lossy(&request.body).replace(['\r', '\n'], " ");
        let mut lines = self.lines.lock().expect("no holder of the file panics");
        let line = format!("{line}\n");
        // Only what is on disk is acknowledged.
        match lines.file.write_all(line.as_bytes()).and_then(|()| lines.file.sync_data()) {
            Ok(()) => {
                lines.count += 1;
                Reply::json(201, json!({ "count": lines.count }))
            }
            Err(error) => Reply::json(503, json!({ "error": error.to_string() })),
        }
    }

    fn count(&self) -> Reply {
        let lines = self.lines.lock().expect("no holder of the file panics");
        Reply::json(200, json!({ "count": lines.count }))
    }
}

impl Handler for Store {
    fn handle(&self, request: Request) -> impl Future<Output = Reply> + Send {
        crate::ready(match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/version") => Reply::json(200, json!({ "version": self.settings.version })),
            ("GET", "/health") => health(&self.settings),
            ("POST", "/append") => self.append(&request),
            ("GET", "/count") => self.count(),
            _ => Reply::not_found(&request),
        })
    }
}

fn open_locked(path: &Path) -> Result<Lines, String> {
    let shown = path.display();
    let mut options = OpenOptions::new();
    let file = options.create(true).read(true).append(true).open(path);
    let file = file.map_err(|error| format!("opening {shown} failed: {error}"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(format!("another store has locked {shown}")),
        Err(TryLockError::Error(error)) => return Err(format!("locking {shown} failed: {error}")),
    }
    let count = BufReader::new(&file).lines().count() as u64;
    Ok(Lines { file, count })
}
