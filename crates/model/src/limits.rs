//! How long things may take.
//!
//! Every wait has a name here, with a default and what it bounds; the command line, the messages
//! and the documentation say the same words.

use std::fmt;
use std::time::Duration;

/// The name of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Fetching one image.
    Pull,
    /// Building one image.
    Build,
    /// A pull or a build that says nothing.
    Silence,
    /// A registry's answer for one image.
    Registry,
    /// Starting a container.
    Start,
    /// A new replica, until it works.
    Gate,
    /// A replica without any other gate.
    Steady,
    /// A request that waits at the edge.
    Hold,
    /// Old replicas finishing their requests.
    Drain,
    /// Stopping a container.
    Stop,
    /// A service that others wait for to end.
    Job,
    /// Watching after the switch.
    Watch,
    /// Others that are deployed together with this one.
    Meet,
    /// One call to the engine.
    EngineCall,
    /// An engine that does not answer.
    EngineAway,
    /// One call to the edge.
    EdgeCall,
    /// An edge that does not answer.
    EdgeAway,
    /// A deployer that says nothing.
    Lease,
}

impl Limit {
    /// All of them, in the order in which a deployment meets them.
    pub const ALL: [Self; 18] = [
        Self::Pull,
        Self::Build,
        Self::Silence,
        Self::Registry,
        Self::Start,
        Self::Gate,
        Self::Steady,
        Self::Hold,
        Self::Drain,
        Self::Stop,
        Self::Job,
        Self::Watch,
        Self::Meet,
        Self::EngineCall,
        Self::EngineAway,
        Self::EdgeCall,
        Self::EdgeAway,
        Self::Lease,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Build => "build",
            Self::Silence => "silence",
            Self::Registry => "registry",
            Self::Start => "start",
            Self::Gate => "gate",
            Self::Steady => "steady",
            Self::Hold => "hold",
            Self::Drain => "drain",
            Self::Stop => "stop",
            Self::Job => "job",
            Self::Watch => "watch",
            Self::Meet => "meet",
            Self::EngineCall => "engine-call",
            Self::EngineAway => "engine-away",
            Self::EdgeCall => "edge-call",
            Self::EdgeAway => "edge-away",
            Self::Lease => "lease",
        }
    }

    /// What it bounds, and what happens then.
    #[must_use]
    pub const fn bounds(self) -> &'static str {
        match self {
            Self::Pull => "fetching one image; then the deployment fails",
            Self::Build => "building one image; then the deployment fails",
            Self::Silence => {
                "a pull or a build that reports no progress; then the deployment fails"
            }
            Self::Registry => "a registry's answer for one image; then it counts as unreachable",
            Self::Start => "the engine starting one container; then the deployment is undone",
            Self::Gate => {
                "a new replica until it works, on top of its `start_period`; then the deployment \
                 is undone"
            }
            Self::Steady => {
                "how long a replica without health check and published port has to run to count \
                 as working"
            }
            Self::Hold => "one request that waits at the edge; then it is answered with 503",
            Self::Drain => {
                "old replicas finishing their requests, in all at most two thirds of `hold` where \
                 requests are held meanwhile; then these are cut"
            }
            Self::Stop => {
                "the engine stopping one container, beyond its `stop_grace_period`; then the step \
                 has failed"
            }
            Self::Job => {
                "a service that others wait for with `service_completed_successfully`; then the \
                 deployment is undone"
            }
            Self::Watch => {
                "how long new replicas are watched after the switch, where the file does not say \
                 `monitor`"
            }
            Self::Meet => {
                "other environments of a group that are deployed together with this one, until \
                 they have come as far; then all of them are undone"
            }
            Self::EngineCall => "one other call to the engine; then the step has failed",
            Self::EngineAway => {
                "an engine that does not answer in the middle of a deployment, and replicas that \
                 it restarts; then the deployment is undone"
            }
            Self::EdgeCall => "one call to the edge; then it counts as away",
            Self::EdgeAway => {
                "an edge that does not answer in the middle of a deployment; then the deployment \
                 is undone"
            }
            Self::Lease => {
                "a deployer that does not renew its lease; then another one may take over, and \
                 this one changes nothing any more"
            }
        }
    }

    /// The limit of this name.
    ///
    /// # Errors
    /// [`UnknownLimit`], which lists the names.
    pub fn parse(name: &str) -> Result<Self, UnknownLimit> {
        Self::ALL
            .into_iter()
            .find(|limit| limit.name() == name)
            .ok_or_else(|| UnknownLimit(name.to_owned()))
    }

    /// Which limit was reached, and what to type for more: `limit gate: --limit gate=2m`.
    ///
    /// `reached` is how long was waited; twice as much is proposed.
    #[must_use]
    pub fn raise(self, reached: Duration) -> String {
        let more = Duration::from_secs((reached.as_secs_f64() * 2.0).ceil().max(1.0) as u64);
        format!("limit `{self}`: --limit {self}={}", Span(more))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no limit of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no limit `{0}`; these are: {names}",
    names = Limit::ALL.map(Limit::name).join(", ")
)]
pub struct UnknownLimit(String);

/// A duration as the command line takes it: `90s`, `2m`, `1h`, `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.as_secs(), self.0.subsec_millis()) {
            (0, 0) => f.write_str("0"),
            (s, 0) if s % 3600 == 0 => write!(f, "{}h", s / 3600),
            (s, 0) if s % 60 == 0 => write!(f, "{}m", s / 60),
            (s, 0) => write!(f, "{s}s"),
            (0, ms) => write!(f, "{ms}ms"),
            (s, ms) => write!(f, "{s}s{ms}ms"),
        }
    }
}

/// How long each thing may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// [`Limit::Pull`].
    pub pull: Duration,
    /// [`Limit::Build`].
    pub build: Duration,
    /// [`Limit::Silence`].
    pub silence: Duration,
    /// [`Limit::Registry`].
    pub registry: Duration,
    /// [`Limit::Start`].
    pub start: Duration,
    /// [`Limit::Gate`].
    pub gate: Duration,
    /// [`Limit::Steady`].
    pub steady: Duration,
    /// [`Limit::Hold`].
    pub hold: Duration,
    /// [`Limit::Drain`].
    pub drain: Duration,
    /// [`Limit::Stop`].
    pub stop: Duration,
    /// [`Limit::Job`].
    pub job: Duration,
    /// [`Limit::Watch`].
    pub watch: Duration,
    /// [`Limit::Meet`].
    pub meet: Duration,
    /// [`Limit::EngineCall`].
    pub engine_call: Duration,
    /// [`Limit::EngineAway`].
    pub engine_away: Duration,
    /// [`Limit::EdgeCall`].
    pub edge_call: Duration,
    /// [`Limit::EdgeAway`].
    pub edge_away: Duration,
    /// [`Limit::Lease`].
    pub lease: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const fn s(seconds: u64) -> Duration {
            Duration::from_secs(seconds)
        }
        Self {
            // Ten gigabytes at 3 MB/s.
            pull: s(60 * 60),
            build: s(60 * 60),
            // Unpacking a large layer on a slow disk is the longest silence seen: about a minute.
            silence: s(5 * 60),
            registry: s(30),
            // Starting waits for volumes' drivers, and for the copy of an image's content into an
            // empty volume.
            start: s(3 * 60),
            // Enough for a JVM or a cold Python on a small machine.
            gate: s(60),
            // Long enough for a bad command line or a missing module.
            steady: s(1),
            // What proxies and browsers wait.
            hold: s(30),
            drain: s(30),
            stop: s(60),
            // Migrations of a small team's database end well within it, and a hanging one does not
            // block deployments for the night.
            job: s(30 * 60),
            // Swarm's own default.
            watch: s(5),
            // Whoever is waited for has limits of its own: the longest pull, then the longest job,
            // and gates and drains besides.
            meet: s(2 * 60 * 60),
            // Looking at something or changing its state takes well under a second on a healthy
            // engine; a busy disk makes it slow, hardly ever slower than this.
            engine_call: s(60),
            // An engine with a hundred containers is back after an upgrade of its package within
            // half a minute.
            engine_away: s(60),
            // Sockets are bound and files are synced meanwhile, on a loaded machine.
            edge_call: s(30),
            edge_away: s(60),
            // Renewed three times within it: two renewals may fail.
            lease: s(30),
        }
    }
}

impl Limits {
    /// One of them.
    #[must_use]
    pub const fn get(&self, limit: Limit) -> Duration {
        match limit {
            Limit::Pull => self.pull,
            Limit::Build => self.build,
            Limit::Silence => self.silence,
            Limit::Registry => self.registry,
            Limit::Start => self.start,
            Limit::Gate => self.gate,
            Limit::Steady => self.steady,
            Limit::Hold => self.hold,
            Limit::Drain => self.drain,
            Limit::Stop => self.stop,
            Limit::Job => self.job,
            Limit::Watch => self.watch,
            Limit::Meet => self.meet,
            Limit::EngineCall => self.engine_call,
            Limit::EngineAway => self.engine_away,
            Limit::EdgeCall => self.edge_call,
            Limit::EdgeAway => self.edge_away,
            Limit::Lease => self.lease,
        }
    }

    /// Sets one of them.
    pub const fn set(&mut self, limit: Limit, to: Duration) {
        *match limit {
            Limit::Pull => &mut self.pull,
            Limit::Build => &mut self.build,
            Limit::Silence => &mut self.silence,
            Limit::Registry => &mut self.registry,
            Limit::Start => &mut self.start,
            Limit::Gate => &mut self.gate,
            Limit::Steady => &mut self.steady,
            Limit::Hold => &mut self.hold,
            Limit::Drain => &mut self.drain,
            Limit::Stop => &mut self.stop,
            Limit::Job => &mut self.job,
            Limit::Watch => &mut self.watch,
            Limit::Meet => &mut self.meet,
            Limit::EngineCall => &mut self.engine_call,
            Limit::EngineAway => &mut self.engine_away,
            Limit::EdgeCall => &mut self.edge_call,
            Limit::EdgeAway => &mut self.edge_away,
            Limit::Lease => &mut self.lease,
        } = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_found_by_its_name_and_keeps_what_it_is_set_to() {
        let mut limits = Limits::default();
        for (number, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(Limit::parse(limit.name()), Ok(limit));
            limits.set(limit, Duration::from_secs(1000 + number as u64));
        }
        for (number, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limits.get(limit), Duration::from_secs(1000 + number as u64), "{limit}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_names() {
        let error = Limit::parse("gates").unwrap_err().to_string();
        assert!(error.starts_with("there is no limit `gates`; these are: pull, build"), "{error}");
    }

    #[test]
    fn more_time_is_proposed_in_words_that_can_be_typed() {
        let raise = |seconds| Limit::Gate.raise(Duration::from_secs_f64(seconds));
        assert_eq!(raise(60.0), "limit `gate`: --limit gate=2m");
        assert_eq!(raise(45.0), "limit `gate`: --limit gate=90s");
        assert_eq!(raise(0.1), "limit `gate`: --limit gate=1s");
        assert_eq!(raise(1800.0), "limit `gate`: --limit gate=1h");
    }
}
