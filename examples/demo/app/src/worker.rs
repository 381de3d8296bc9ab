use crate::client::Pool;
use crate::settings::Settings;
use crate::shutdown::Shutdown;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(1);

/// Sends an order every second and logs what became of it; it answers nobody.
pub async fn run(settings: &Settings, shutdown: &Shutdown) -> Result<(), String> {
    let api = Pool::new(&settings.api);
    let mut interval = tokio::time::interval(INTERVAL);
    shutdown.ready();
    loop {
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            _ = interval.tick() => {}
        }
        // An order that was begun is finished before the worker stops.
        match api.request("POST", "/orders", settings.version.as_bytes()).await {
            Ok(answer) => {
                println!(
                    "worker: api {} answered {} {}",
                    answer.version,
                    answer.status,
                    answer.text()
                );
            }
            Err(error) => eprintln!("worker: api did not answer: {error}"),
        }
    }
}
