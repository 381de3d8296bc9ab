//! What may stand where in a Compose file, and what its values become.
//!
//! One table serves two passes: checking what people wrote, and turning it into the normal form.

/// What a place may hold.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// Anything: extensions, and what the specification leaves open.
    Any,
    /// A single value.
    Scalar(Scalar),
    /// A list of such items; `unique` ones may not be equal.
    List { item: &'static Shape, unique: bool },
    /// A mapping with known attributes.
    Object(&'static Object),
    /// One of several, told apart by their kind.
    Either(&'static [Shape]),
    /// `KEY=value` lines or a mapping of scalars.
    Dict(Nulls),
    /// The same, but the normal form is a list of sorted lines.
    Lines,
    /// `host: address` in any of its forms.
    Hosts,
    /// A command line, or its words.
    Command,
    /// A command line for the shell, or the words of a health check.
    HealthTest,
    /// One text, or a list of unique ones; the normal form is the list.
    Texts,
}

/// What a key without a value means in a [`Shape::Dict`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nulls {
    /// The empty text.
    Empty,
    /// To be taken from outside.
    Keep,
}

/// A single value.
#[derive(Clone, Copy)]
pub(crate) struct Scalar {
    /// The kinds allowed, see [`kind`].
    pub kinds: u8,
    /// What it becomes.
    pub target: Target,
    /// The only texts allowed, if any are given.
    pub words: &'static [&'static str],
    /// The smallest and the largest number allowed.
    pub range: (i64, i64),
}

/// The kinds of scalars in a file.
pub(crate) mod kind {
    pub const NULL: u8 = 1;
    pub const BOOL: u8 = 2;
    pub const INT: u8 = 4;
    pub const NUMBER: u8 = 8 | INT;
    pub const TEXT: u8 = 16;
}

/// What a scalar becomes in the normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Text,
    /// A text; nothing becomes the empty one.
    TextOrEmpty,
    Bool,
    Int,
    Float,
    /// A number of bytes.
    Bytes,
    Duration,
    /// A file mode; texts of it are octal.
    Mode,
    /// A number of devices, or `all`.
    Count,
    /// Stays as it is.
    Keep,
}

/// A mapping with known attributes.
pub(crate) struct Object {
    pub fields: &'static [(&'static str, Shape)],
    pub required: &'static [&'static str],
    /// What stands under names that the user chooses.
    pub others: Others,
    /// Whether `x-…` is allowed.
    pub extensions: bool,
}

/// Entries of a mapping that are not attributes.
pub(crate) enum Others {
    Forbidden,
    /// Anything under any name.
    Open,
    /// Entries with names of letters, digits, `.`, `_`, `-`; other names are an error.
    Named(Shape),
    /// The same, but other names hold anything.
    NamedOrOpen(Shape),
    /// Entries with any name.
    Each(Shape),
}

impl Object {
    pub fn field(&self, name: &str) -> Option<Shape> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, shape)| *shape)
    }
}

const fn scalar(kinds: u8, target: Target) -> Shape {
    Shape::Scalar(Scalar { kinds, target, words: &[], range: (i64::MIN, i64::MAX) })
}

const fn words(words: &'static [&'static str]) -> Shape {
    Shape::Scalar(Scalar {
        kinds: kind::TEXT,
        target: Target::Text,
        words,
        range: (i64::MIN, i64::MAX),
    })
}

const fn ranged(kinds: u8, target: Target, min: i64, max: i64) -> Shape {
    Shape::Scalar(Scalar { kinds, target, words: &[], range: (min, max) })
}

const fn list(item: &'static Shape) -> Shape {
    Shape::List { item, unique: false }
}

const fn set(item: &'static Shape) -> Shape {
    Shape::List { item, unique: true }
}

const fn object(object: &'static Object) -> Shape {
    Shape::Object(object)
}

const TEXT: Shape = scalar(kind::TEXT, Target::Text);
const TEXT_OR_NULL: Shape = scalar(kind::TEXT | kind::NULL, Target::Text);
const TEXT_OR_BOOL: Shape = scalar(kind::TEXT | kind::BOOL, Target::Text);
const TEXT_OR_NUMBER: Shape = scalar(kind::TEXT | kind::NUMBER, Target::Text);
const TEXT_NUMBER_NULL: Shape = scalar(kind::TEXT | kind::NUMBER | kind::NULL, Target::TextOrEmpty);
const ANY_SCALAR: Shape =
    scalar(kind::TEXT | kind::NUMBER | kind::NULL | kind::BOOL, Target::TextOrEmpty);
const NULL: Shape = scalar(kind::NULL, Target::Keep);
const BOOL: Shape = scalar(kind::TEXT | kind::BOOL, Target::Bool);
const STRICT_BOOL: Shape = scalar(kind::BOOL, Target::Bool);
const INT: Shape = scalar(kind::TEXT | kind::INT, Target::Int);
const NUMBER_AS_INT: Shape = scalar(kind::TEXT | kind::NUMBER, Target::Int);
const STRICT_NUMBER_AS_INT: Shape = scalar(kind::NUMBER, Target::Int);
const UINT: Shape = ranged(kind::TEXT | kind::INT, Target::Int, 0, i64::MAX);
const NUMBER: Shape = scalar(kind::TEXT | kind::NUMBER, Target::Float);
const BYTES: Shape = scalar(kind::TEXT | kind::NUMBER, Target::Bytes);
const INT_BYTES: Shape = scalar(kind::TEXT | kind::INT, Target::Bytes);
const TEXT_BYTES: Shape = scalar(kind::TEXT, Target::Bytes);
const DURATION: Shape = scalar(kind::TEXT, Target::Duration);
const MODE: Shape = scalar(kind::TEXT | kind::NUMBER, Target::Mode);
const COUNT: Shape = scalar(kind::TEXT | kind::INT, Target::Count);
const TEXT_LIST: Shape = list(&TEXT);
const TEXT_SET: Shape = set(&TEXT);
const LABELS: Shape = Shape::Dict(Nulls::Empty);
const VARIABLES: Shape = Shape::Dict(Nulls::Keep);
const OPTIONS: Shape = object(&Object {
    fields: &[],
    required: &[],
    others: Others::Each(TEXT_OR_NUMBER),
    extensions: false,
});

/// A whole file.
pub(crate) static PROJECT: Object = Object {
    fields: &[
        ("version", TEXT),
        ("name", TEXT),
        ("include", list(&INCLUDE)),
        ("services", object(&SERVICES)),
        ("models", object(&MODELS)),
        ("networks", object(&NETWORKS)),
        ("volumes", object(&VOLUMES)),
        ("secrets", object(&SECRETS)),
        ("configs", object(&CONFIGS)),
    ],
    required: &[],
    others: Others::Forbidden,
    extensions: true,
};

const INCLUDE: Shape = Shape::Either(&[
    TEXT,
    object(&Object {
        fields: &[("path", Shape::Texts), ("env_file", Shape::Texts), ("project_directory", TEXT)],
        required: &[],
        others: Others::Forbidden,
        extensions: false,
    }),
]);

const fn section(others: Others) -> Object {
    Object { fields: &[], required: &[], others, extensions: false }
}

static SERVICES: Object = section(Others::Named(object(&SERVICE)));
static MODELS: Object = section(Others::NamedOrOpen(object(&MODEL)));
static NETWORKS: Object = section(Others::NamedOrOpen(Shape::Either(&[object(&NETWORK), NULL])));
static VOLUMES: Object = section(Others::Named(Shape::Either(&[object(&VOLUME), NULL])));
static SECRETS: Object = section(Others::Named(object(&SECRET)));
static CONFIGS: Object = section(Others::Named(object(&CONFIG)));

pub(crate) static SERVICE: Object = Object {
    fields: &[
        ("annotations", LABELS),
        ("attach", BOOL),
        ("blkio_config", object(&BLKIO)),
        ("build", Shape::Either(&[TEXT, object(&BUILD)])),
        ("cap_add", TEXT_SET),
        ("cap_drop", TEXT_SET),
        ("cgroup", words(&["host", "private"])),
        ("cgroup_parent", TEXT),
        ("command", Shape::Command),
        ("configs", list(&FILE_REFERENCE)),
        ("container_name", TEXT),
        ("cpu_count", ranged(kind::TEXT | kind::INT, Target::Int, 0, i64::MAX)),
        ("cpu_percent", ranged(kind::TEXT | kind::INT, Target::Float, 0, 100)),
        ("cpu_period", NUMBER_AS_INT),
        ("cpu_quota", NUMBER_AS_INT),
        ("cpu_rt_period", NUMBER_AS_INT),
        ("cpu_rt_runtime", NUMBER_AS_INT),
        ("cpu_shares", NUMBER_AS_INT),
        ("cpus", NUMBER),
        ("cpuset", TEXT),
        ("credential_spec", object(&CREDENTIAL_SPEC)),
        ("depends_on", Shape::Either(&[TEXT_SET, object(&DEPENDS_ON)])),
        ("deploy", Shape::Either(&[object(&DEPLOY), NULL])),
        ("develop", Shape::Either(&[object(&DEVELOP), NULL])),
        ("device_cgroup_rules", TEXT_SET),
        ("devices", list(&Shape::Either(&[TEXT, object(&DEVICE)]))),
        ("dns", Shape::Texts),
        ("dns_opt", TEXT_SET),
        ("dns_search", Shape::Texts),
        ("domainname", TEXT),
        ("entrypoint", Shape::Command),
        ("env_file", Shape::Either(&[TEXT, list(&Shape::Either(&[TEXT, object(&ENV_FILE)]))])),
        ("environment", VARIABLES),
        ("expose", set(&TEXT_OR_NUMBER)),
        ("extends", Shape::Either(&[TEXT, object(&EXTENDS)])),
        ("external_links", TEXT_SET),
        ("extra_hosts", Shape::Hosts),
        ("gpus", Shape::Either(&[words(&["all"]), list(&object(&GPU))])),
        ("group_add", set(&TEXT_OR_NUMBER)),
        ("healthcheck", object(&HEALTHCHECK)),
        ("hostname", TEXT),
        ("image", TEXT),
        ("init", BOOL),
        ("ipc", TEXT),
        ("isolation", TEXT),
        ("label_file", Shape::Either(&[TEXT, TEXT_LIST])),
        ("labels", LABELS),
        ("links", TEXT_SET),
        ("logging", object(&LOGGING)),
        ("mac_address", TEXT),
        ("mem_limit", BYTES),
        ("mem_reservation", INT_BYTES),
        ("mem_swappiness", INT_BYTES),
        ("memswap_limit", BYTES),
        ("models", Shape::Either(&[TEXT_SET, object(&MODEL_REFERENCES)])),
        ("network_mode", TEXT),
        ("networks", Shape::Either(&[TEXT_SET, object(&ATTACHMENTS)])),
        ("oom_kill_disable", BOOL),
        ("oom_score_adj", ranged(kind::TEXT | kind::INT, Target::Int, -1000, 1000)),
        ("pid", TEXT_OR_NULL),
        ("pids_limit", NUMBER_AS_INT),
        ("platform", TEXT),
        ("ports", set(&Shape::Either(&[TEXT_OR_NUMBER, object(&PORT)]))),
        ("post_start", list(&object(&HOOK))),
        ("pre_stop", list(&object(&HOOK))),
        ("privileged", BOOL),
        ("profiles", TEXT_SET),
        ("provider", object(&PROVIDER)),
        ("pull_policy", TEXT),
        ("pull_refresh_after", TEXT),
        ("read_only", BOOL),
        ("restart", TEXT),
        ("runtime", TEXT),
        ("scale", UINT),
        ("secrets", list(&FILE_REFERENCE)),
        ("security_opt", TEXT_SET),
        ("shm_size", BYTES),
        ("stdin_open", BOOL),
        ("stop_grace_period", DURATION),
        ("stop_signal", TEXT),
        (
            "storage_opt",
            object(&Object {
                fields: &[],
                required: &[],
                others: Others::Each(ANY_SCALAR),
                extensions: false,
            }),
        ),
        ("sysctls", LABELS),
        ("tmpfs", Shape::Texts),
        ("tty", BOOL),
        ("ulimits", object(&ULIMITS)),
        ("use_api_socket", STRICT_BOOL),
        ("user", TEXT),
        ("userns_mode", TEXT),
        ("uts", TEXT),
        ("volumes", set(&Shape::Either(&[TEXT, object(&MOUNT)]))),
        ("volumes_from", TEXT_SET),
        ("working_dir", TEXT),
    ],
    required: &[],
    others: Others::Forbidden,
    extensions: true,
};

const fn plain(fields: &'static [(&'static str, Shape)]) -> Object {
    Object { fields, required: &[], others: Others::Forbidden, extensions: true }
}

static BUILD: Object = plain(&[
    ("context", TEXT),
    ("dockerfile", TEXT),
    ("dockerfile_inline", TEXT),
    ("entitlements", TEXT_LIST),
    ("args", VARIABLES),
    ("ssh", Shape::Lines),
    ("labels", LABELS),
    ("cache_from", TEXT_LIST),
    ("cache_to", TEXT_LIST),
    ("no_cache", BOOL),
    ("additional_contexts", LABELS),
    ("network", TEXT),
    ("provenance", TEXT_OR_BOOL),
    ("sbom", TEXT_OR_BOOL),
    ("pull", BOOL),
    ("target", TEXT),
    ("shm_size", INT_BYTES),
    ("extra_hosts", Shape::Hosts),
    ("isolation", TEXT),
    ("privileged", BOOL),
    ("secrets", list(&FILE_REFERENCE)),
    ("tags", TEXT_LIST),
    ("ulimits", object(&ULIMITS)),
    ("platforms", TEXT_LIST),
]);

const fn closed(fields: &'static [(&'static str, Shape)]) -> Object {
    Object { fields, required: &[], others: Others::Forbidden, extensions: false }
}

static BLKIO: Object = closed(&[
    ("device_read_bps", list(&object(&BLKIO_LIMIT))),
    ("device_read_iops", list(&object(&BLKIO_LIMIT))),
    ("device_write_bps", list(&object(&BLKIO_LIMIT))),
    ("device_write_iops", list(&object(&BLKIO_LIMIT))),
    ("weight", INT),
    ("weight_device", list(&object(&BLKIO_WEIGHT))),
]);
static BLKIO_LIMIT: Object = closed(&[("path", TEXT), ("rate", INT_BYTES)]);
static BLKIO_WEIGHT: Object = closed(&[("path", TEXT), ("weight", INT)]);

static CREDENTIAL_SPEC: Object = plain(&[("config", TEXT), ("file", TEXT), ("registry", TEXT)]);

static DEPENDS_ON: Object = section(Others::Named(object(&Object {
    fields: &[
        ("restart", BOOL),
        // The reference casts texts to booleans before it checks, here too.
        ("required", BOOL),
        (
            "condition",
            words(&["service_started", "service_healthy", "service_completed_successfully"]),
        ),
    ],
    required: &["condition"],
    others: Others::Forbidden,
    extensions: true,
})));

static DEVICE: Object = Object {
    fields: &[("source", TEXT), ("target", TEXT), ("permissions", TEXT)],
    required: &["source"],
    others: Others::Forbidden,
    extensions: true,
};

static ENV_FILE: Object = Object {
    fields: &[("path", TEXT), ("format", TEXT), ("required", BOOL)],
    required: &["path"],
    others: Others::Forbidden,
    extensions: false,
};

static EXTENDS: Object = Object {
    fields: &[("service", TEXT), ("file", TEXT)],
    required: &["service"],
    others: Others::Forbidden,
    extensions: false,
};

static GPU: Object = Object {
    fields: &[
        ("capabilities", TEXT_SET),
        ("count", COUNT),
        ("device_ids", TEXT_SET),
        ("driver", TEXT),
        ("options", LABELS),
    ],
    required: &[],
    others: Others::Open,
    extensions: true,
};

static HEALTHCHECK: Object = plain(&[
    ("disable", BOOL),
    ("interval", DURATION),
    ("retries", NUMBER_AS_INT),
    ("test", Shape::HealthTest),
    ("timeout", DURATION),
    ("start_period", DURATION),
    ("start_interval", DURATION),
]);

static LOGGING: Object = plain(&[
    ("driver", TEXT),
    (
        "options",
        object(&Object {
            fields: &[],
            required: &[],
            others: Others::Each(TEXT_NUMBER_NULL),
            extensions: false,
        }),
    ),
]);

static MODEL_REFERENCES: Object =
    section(Others::NamedOrOpen(Shape::Either(&[object(&MODEL_REFERENCE), NULL])));
static MODEL_REFERENCE: Object = plain(&[("endpoint_var", TEXT), ("model_var", TEXT)]);

static ATTACHMENTS: Object = section(Others::Named(Shape::Either(&[object(&ATTACHMENT), NULL])));
static ATTACHMENT: Object = plain(&[
    ("aliases", TEXT_SET),
    ("interface_name", TEXT),
    ("ipv4_address", TEXT),
    ("ipv6_address", TEXT),
    ("link_local_ips", TEXT_SET),
    ("mac_address", TEXT),
    ("driver_opts", OPTIONS),
    ("priority", STRICT_NUMBER_AS_INT),
    ("gw_priority", STRICT_NUMBER_AS_INT),
]);

static PORT: Object = plain(&[
    ("name", TEXT),
    ("mode", TEXT),
    ("host_ip", TEXT),
    ("target", ranged(kind::TEXT | kind::INT, Target::Int, 0, 65_535)),
    ("published", scalar(kind::TEXT | kind::INT, Target::Text)),
    ("protocol", TEXT),
    ("app_protocol", TEXT),
]);

static HOOK: Object = Object {
    fields: &[
        ("command", Shape::Command),
        ("user", TEXT),
        ("privileged", BOOL),
        ("working_dir", TEXT),
        ("environment", VARIABLES),
    ],
    required: &["command"],
    others: Others::Forbidden,
    extensions: true,
};

static PROVIDER: Object = Object {
    fields: &[("type", TEXT), ("options", object(&section(Others::NamedOrOpen(Shape::Any))))],
    required: &["type"],
    others: Others::Forbidden,
    extensions: true,
};

static MOUNT: Object = Object {
    fields: &[
        ("type", words(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"])),
        ("source", TEXT),
        ("target", TEXT),
        ("read_only", BOOL),
        ("consistency", TEXT),
        (
            "bind",
            object(&plain(&[
                ("propagation", TEXT),
                ("create_host_path", BOOL),
                ("recursive", words(&["enabled", "disabled", "writable", "readonly"])),
                ("selinux", words(&["z", "Z"])),
            ])),
        ),
        ("volume", object(&plain(&[("labels", LABELS), ("nocopy", BOOL), ("subpath", TEXT)]))),
        (
            "tmpfs",
            object(&plain(&[
                ("size", ranged(kind::TEXT | kind::INT, Target::Bytes, 0, i64::MAX)),
                ("mode", NUMBER_AS_INT),
            ])),
        ),
        ("image", object(&plain(&[("subpath", TEXT)]))),
    ],
    required: &["type"],
    others: Others::Forbidden,
    extensions: true,
};

static DEVELOP: Object = plain(&[("watch", list(&object(&WATCH)))]);
static WATCH: Object = Object {
    fields: &[
        ("ignore", Shape::Texts),
        ("include", Shape::Texts),
        ("path", TEXT),
        ("action", words(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"])),
        ("target", TEXT),
        ("exec", object(&HOOK)),
        ("initial_sync", STRICT_BOOL),
    ],
    required: &["path", "action"],
    others: Others::Forbidden,
    extensions: true,
};

static DEPLOY: Object = plain(&[
    ("mode", TEXT),
    ("endpoint_mode", TEXT),
    ("replicas", UINT),
    ("labels", LABELS),
    ("rollback_config", object(&UPDATE_CONFIG)),
    ("update_config", object(&UPDATE_CONFIG)),
    (
        "resources",
        object(&plain(&[("limits", object(&LIMITS)), ("reservations", object(&RESERVATIONS))])),
    ),
    (
        "restart_policy",
        object(&plain(&[
            ("condition", TEXT),
            ("delay", DURATION),
            ("max_attempts", UINT),
            ("window", DURATION),
        ])),
    ),
    (
        "placement",
        object(&plain(&[
            ("constraints", TEXT_LIST),
            ("preferences", list(&object(&plain(&[("spread", TEXT)])))),
            ("max_replicas_per_node", UINT),
        ])),
    ),
]);

static UPDATE_CONFIG: Object = plain(&[
    ("parallelism", UINT),
    ("delay", DURATION),
    ("failure_action", TEXT),
    ("monitor", DURATION),
    ("max_failure_ratio", NUMBER),
    ("order", words(&["start-first", "stop-first"])),
]);

static LIMITS: Object = plain(&[("cpus", NUMBER), ("memory", TEXT_BYTES), ("pids", INT)]);
static RESERVATIONS: Object = plain(&[
    ("cpus", NUMBER),
    ("memory", TEXT_BYTES),
    (
        "generic_resources",
        list(&object(&plain(&[(
            "discrete_resource_spec",
            object(&plain(&[("kind", TEXT), ("value", NUMBER_AS_INT)])),
        )]))),
    ),
    ("devices", list(&object(&DEVICE_REQUEST))),
]);
static DEVICE_REQUEST: Object = Object {
    fields: &[
        ("capabilities", TEXT_SET),
        ("count", COUNT),
        ("device_ids", TEXT_SET),
        ("driver", TEXT),
        ("options", LABELS),
    ],
    required: &["capabilities"],
    others: Others::Forbidden,
    extensions: true,
};

const FILE_REFERENCE: Shape = Shape::Either(&[
    TEXT,
    object(&plain(&[
        ("source", TEXT),
        ("target", TEXT),
        ("uid", TEXT),
        ("gid", TEXT),
        ("mode", MODE),
    ])),
]);

static ULIMITS: Object = section(Others::NamedOrOpen(Shape::Either(&[
    INT,
    object(&Object {
        fields: &[("hard", INT), ("soft", INT)],
        required: &["soft", "hard"],
        others: Others::Forbidden,
        extensions: true,
    }),
])));

static EXTERNAL: Object = plain(&[("name", TEXT)]);
static OPEN_EXTERNAL: Object =
    Object { fields: &[("name", TEXT)], required: &[], others: Others::Open, extensions: true };

static NETWORK: Object = plain(&[
    ("name", TEXT),
    ("driver", TEXT),
    ("driver_opts", OPTIONS),
    (
        "ipam",
        object(&plain(&[
            ("driver", TEXT),
            (
                "config",
                list(&object(&plain(&[
                    ("subnet", TEXT),
                    ("ip_range", TEXT),
                    ("gateway", TEXT),
                    ("aux_addresses", object(&section(Others::Each(TEXT)))),
                ]))),
            ),
            ("options", object(&section(Others::Each(TEXT)))),
        ])),
    ),
    ("external", Shape::Either(&[BOOL, object(&EXTERNAL)])),
    ("internal", BOOL),
    ("enable_ipv4", BOOL),
    ("enable_ipv6", BOOL),
    ("attachable", BOOL),
    ("labels", LABELS),
]);

static VOLUME: Object = plain(&[
    ("name", TEXT),
    ("driver", TEXT),
    ("driver_opts", OPTIONS),
    ("external", Shape::Either(&[BOOL, object(&EXTERNAL)])),
    ("labels", LABELS),
]);

static SECRET: Object = plain(&[
    ("name", TEXT),
    ("environment", TEXT),
    ("file", TEXT),
    ("external", Shape::Either(&[BOOL, object(&OPEN_EXTERNAL)])),
    ("labels", LABELS),
    ("driver", TEXT),
    ("driver_opts", OPTIONS),
    ("template_driver", TEXT),
]);

static CONFIG: Object = plain(&[
    ("name", TEXT),
    ("content", TEXT),
    ("environment", TEXT),
    ("file", TEXT),
    ("external", Shape::Either(&[BOOL, object(&OPEN_EXTERNAL)])),
    ("labels", LABELS),
    ("template_driver", TEXT),
]);

static MODEL: Object = Object {
    fields: &[
        ("name", TEXT),
        ("model", TEXT),
        ("context_size", scalar(kind::INT, Target::Int)),
        ("runtime_flags", TEXT_LIST),
    ],
    required: &["model"],
    others: Others::Forbidden,
    extensions: true,
};
