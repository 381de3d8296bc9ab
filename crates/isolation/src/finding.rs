//! What a verification comes to.

use std::fmt;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The environments are not separate.
    Leak,
    /// Nothing wrong, and good to know.
    Information,
}

/// Declares the codes, with the word of each and how much it matters.
macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident => $word:literal, $severity:ident;)*) => {
        /// What was found.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $($(#[$meta])* $name,)* }

        impl Code {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word for it, in documents.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// How much it matters.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }
        }
    };
}

codes! {
    /// Containers of both are on one network.
    SharedNetwork => "shared-network", Leak;
    /// A connection from one to the other came about.
    Reachable => "reachable", Leak;
    /// A name of the other is known to one.
    NameResolves => "name-resolves", Leak;
    /// A port that is published for this machine only answers a container.
    LocalPort => "local-port", Leak;
    /// A container is in the machine's network namespace.
    HostNetwork => "host-network", Leak;
    /// A container lives in a namespace of the other's, or is linked to it.
    Joined => "joined", Leak;
    /// Both are in one namespace of the machine.
    SharedNamespace => "shared-namespace", Leak;
    /// A volume is mounted by both, and at least one can write.
    SharedVolume => "shared-volume", Leak;
    /// So with a path of the machine, or one below the other.
    SharedPath => "shared-path", Leak;
    /// So with a device.
    SharedDevice => "shared-device", Leak;
    /// A container can tell the engine what to do.
    ControlSocket => "control-socket", Leak;
    /// A container can do with the machine what it likes.
    Privileged => "privileged", Leak;
    /// A container sees the processes of the machine.
    HostProcesses => "host-processes", Leak;
    /// A secret has the same value in both.
    SharedSecret => "shared-secret", Leak;
    /// What one is told to talk to belongs to the other.
    PointsAtOther => "points-at-other", Leak;
    /// Both are told to talk to the same one.
    SharedBroker => "shared-broker", Leak;
    /// Both want the same port of the machine.
    HostPort => "host-port", Leak;
    /// A container answers to a name of the other's.
    NameOfOther => "name-of-other", Leak;
    /// A path or volume that both can only read.
    SharedReadOnly => "shared-read-only", Information;
    /// Reachable for the world, and so for the neighbour.
    Published => "published", Information;
    /// One budget of the kernel for both.
    SharedBudget => "shared-budget", Information;
    /// Somebody else is there too.
    Neighbour => "neighbour", Information;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One side of a finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Party {
    /// The environment.
    pub environment: String,
    /// The Compose project.
    pub project: String,
    /// The service.
    pub service: String,
    /// The container; none where it is about the service as a whole.
    pub container: Option<String>,
}

impl fmt::Display for Party {
    /// `dev/api`: the environment and the service.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.environment, self.service)
    }
}

/// Something found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What kind.
    pub code: Code,
    /// What, in a sentence. Holds no value of a variable.
    pub what: String,
    /// Between whom.
    pub between: Vec<Party>,
    /// What to change or to type.
    pub fix: String,
}

/// Something that was looked at, and how much of it there was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// A word for it: `networks`, `connections` …
    pub what: &'static str,
    /// How many.
    pub count: usize,
    /// For people.
    pub text: String,
}

/// Something that could not be tried.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Untested {
    /// Whose; nobody's where it is about all of them.
    pub party: Option<Party>,
    /// What, and why not.
    pub why: String,
}

/// `1 network`, `2 networks`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A list for people: `a, b and c`.
pub(crate) fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let mut words: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match words.pop() {
        None => String::new(),
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} and {last}", words.join(", ")),
    }
}
