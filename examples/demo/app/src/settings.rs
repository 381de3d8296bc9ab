use std::env;
use std::time::Duration;

/// What the environment of the container says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Told in every answer.
    pub version: String,
    pub fault: Fault,
    /// In place of the role's own port.
    pub port: Option<u16>,
    /// How long the store takes to boot.
    pub boot: Duration,
    /// Where the store keeps its file.
    pub data: String,
    /// Where web and worker find the api.
    pub api: String,
}

impl Settings {
    pub fn from_environment() -> Result<Settings, String> {
        let text = |name: &str, default: &str| {
            env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.into())
        };
        let port = match text("PORT", "").as_str() {
            "" => None,
            port => Some(port.parse().map_err(|_| format!("PORT is no port: `{port}`"))?),
        };
        let boot_ms = text("BOOT_MS", "1000");
        let boot_ms = boot_ms.parse().map_err(|_| format!("BOOT_MS is no number: `{boot_ms}`"))?;
        Ok(Settings {
            version: text("VERSION", "v0"),
            fault: Fault::parse(&text("FAULT", ""))?,
            port,
            boot: Duration::from_millis(boot_ms),
            data: text("DATA", "/data"),
            api: text("API", "api:9000"),
        })
    }
}

/// How a release is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Answers its health check with 503.
    Health,
    /// Exits at once.
    Crash,
    /// Does not listen for 20 s.
    Slow,
    /// Exits after 3 s.
    ExitLater,
}

impl Fault {
    fn parse(text: &str) -> Result<Fault, String> {
        match text {
            "" => Ok(Fault::None),
            "health" => Ok(Fault::Health),
            "crash" => Ok(Fault::Crash),
            "slow" => Ok(Fault::Slow),
            "exit-later" => Ok(Fault::ExitLater),
            _ => Err(format!("FAULT is none of health, crash, slow, exit-later: `{text}`")),
        }
    }
}
