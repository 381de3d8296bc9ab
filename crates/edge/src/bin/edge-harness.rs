//! Runs an edge for the tests: `edge-harness supervisor <state dir> <admin socket> [stop grace ms]`
//! or, started by that, `edge-harness worker`.

use std::time::Duration;

use shiplap_edge::supervisor::{self, SupervisorConfig};
use shiplap_edge::worker::{self, WorkerConfig};

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "worker"] => worker::run(WorkerConfig { build: "harness".to_owned(), threads: 2 }),
        [_, "supervisor", state_dir, socket, ref rest @ ..] => {
            let command = vec!["/proc/self/exe".into(), "worker".into()];
            let mut config = SupervisorConfig::new(state_dir, socket, command);
            if let Some(grace) = rest.first().and_then(|text| text.parse().ok()) {
                config.stop_grace = Duration::from_millis(grace);
            }
            supervisor::run(config)
        }
        _ => {
            let text = "usage: edge-harness supervisor <state dir> <admin socket> [stop grace ms]";
            Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text))
        }
    }
}
