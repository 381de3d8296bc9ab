use crate::settings::Settings;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// A job that must run once for each release, as a change of a database's tables: it writes down
/// that it ran before it does anything, so that a second run shows even if the first was cut off.
pub async fn run(settings: &Settings) -> Result<(), String> {
    let path = Path::new(&settings.data).join("migrations.log");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|error| format!("opening {} failed: {error}", path.display()))?;
    file.write_all(format!("{}\n", settings.version).as_bytes())
        .and_then(|()| file.sync_data())
        .map_err(|error| format!("writing {} failed: {error}", path.display()))?;
    tokio::time::sleep(settings.boot).await;
    println!("migrate: {} done", settings.version);
    Ok(())
}
