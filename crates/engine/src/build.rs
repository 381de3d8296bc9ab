//! Building images with the engine's classic builder.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::{Value, json};
use shiplap_compose::model::{Build, ByteSize, Ulimit};
use shiplap_model::{
    BuildRequest, EngineError, EngineErrorKind, ImageInfo, Limit, Progress, ProgressSink,
};

use crate::client::Call;
use crate::context::{Context, buildkit_feature, tar_stream};
use crate::engine::DockerEngine;
use crate::error::{invalid, scrubbed, with_kind};
use crate::registry;

/// Lines of a failed build's output that the error shows.
const SHOWN_LINES: usize = 20;

impl DockerEngine {
    pub(crate) async fn build_image(
        &self,
        request: &BuildRequest,
        progress: &ProgressSink,
    ) -> Result<ImageInfo, EngineError> {
        self.api().await?;
        let doing = || format!("building {}", request.tag);
        unsupported(request).map_err(|message| EngineError {
            help: Some(buildx(request)),
            ..invalid(doing(), message)
        })?;
        let arguments = arguments(&request.build, registry::proxies(self.endpoint()));
        let build = request.build.clone();
        let opened = tokio::task::spawn_blocking(move || Context::open(&build)).await;
        let context = opened
            .expect("reading a Dockerfile does not panic")
            .map_err(|message| invalid(doing(), message))?;
        let feature = context.dockerfile().as_deref().and_then(buildkit_feature);
        let mut call = build_call(request, &arguments);
        if let Some(header) = registry::all_auths_header(&self.keyring).await {
            call = call.header("x-registry-config", header);
        }
        let sent = Arc::new(AtomicU64::new(0));
        call = match context {
            Context::Remote(url) => {
                let dockerfile = request.build.dockerfile.as_deref().unwrap_or("Dockerfile");
                call.query("remote", &url).query("dockerfile", dockerfile)
            }
            Context::Local { ref dockerfile, .. } => {
                let call = call.query("dockerfile", dockerfile);
                call.tar_stream(tar_stream(context, Arc::clone(&sent)))
            }
        };
        let mut output = Output::default();
        let outcome = self
            .follow(call, Limit::Build, doing, &sent, |event| {
                for line in output.update(event) {
                    progress(Progress::Line(line));
                }
            })
            .await;
        if let Err(mut error) = outcome {
            let secrets = arguments.values().map(String::as_str);
            error.message = output.explain(&error.message);
            if error.kind == EngineErrorKind::Internal {
                error.kind = EngineErrorKind::Invalid;
            }
            if let Some(feature) = feature {
                error.help = Some(format!(
                    "the Dockerfile uses {feature}, which needs BuildKit: {}",
                    buildx(request)
                ));
            }
            return Err(scrubbed(error, secrets));
        }
        let missing = || {
            let message = "the engine built it and does not have it";
            with_kind(EngineErrorKind::Internal, doing(), message)
        };
        let name = output.image_id.as_deref().unwrap_or(&request.tag);
        self.inspect_image(name).await?.ok_or_else(missing)
    }
}

/// What a build printed.
#[derive(Default)]
struct Output {
    pending: String,
    last: VecDeque<String>,
    image_id: Option<String>,
}

impl Output {
    /// Takes an event and returns the lines that it completes.
    fn update(&mut self, event: &Value) -> Vec<String> {
        if let Some(id) = event["aux"]["ID"].as_str() {
            self.image_id = Some(id.to_owned());
        }
        self.pending.push_str(event["stream"].as_str().unwrap_or_default());
        let mut lines = Vec::new();
        while let Some(end) = self.pending.find('\n') {
            let line: String = self.pending.drain(..=end).collect();
            let line = line.trim_end();
            if !line.is_empty() {
                lines.push(line.to_owned());
            }
        }
        self.last.extend(lines.iter().cloned());
        while self.last.len() > SHOWN_LINES {
            self.last.pop_front();
        }
        lines
    }

    fn explain(&self, message: &str) -> String {
        let lines: Vec<&str> = self.last.iter().map(String::as_str).collect();
        match lines.is_empty() {
            true => message.to_owned(),
            false => format!("{message}\n{}", lines.join("\n")),
        }
    }
}

/// Arguments of a build: the file's, those taken from our own environment, and proxies.
fn arguments(build: &Build, proxies: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut out = proxies;
    for (name, value) in &build.args {
        if let Some(value) = value.clone().or_else(|| std::env::var(name).ok()) {
            out.insert(name.clone(), value);
        }
    }
    out
}

fn build_call(request: &BuildRequest, arguments: &BTreeMap<String, String>) -> Call {
    let build = &request.build;
    let mut call = Call::post("/build").query("rm", "1").query("forcerm", "1");
    let tags = [&request.tag].into_iter().chain(build.tags.iter().filter(|t| **t != request.tag));
    for tag in tags {
        call = call.query("t", tag);
    }
    for host in &build.extra_hosts {
        call = call.query("extrahosts", &host.replacen('=', ":", 1));
    }
    let flags = [("nocache", build.no_cache), ("pull", build.pull)];
    for (name, _) in flags.into_iter().filter(|(_, set)| *set) {
        call = call.query(name, "1");
    }
    let ulimits: Vec<Value> = build
        .ulimits
        .iter()
        .map(|(name, ulimit)| match ulimit {
            Ulimit::Single(both) => json!({"Name": name, "Soft": both, "Hard": both}),
            Ulimit::Range { soft, hard } => json!({"Name": name, "Soft": soft, "Hard": hard}),
        })
        .collect();
    let lists = [
        ("buildargs", json!(arguments), arguments.is_empty()),
        ("labels", json!(build.labels), build.labels.is_empty()),
        ("cachefrom", json!(build.cache_from), build.cache_from.is_empty()),
        ("ulimits", json!(ulimits), ulimits.is_empty()),
    ];
    for (name, value, _) in lists.iter().filter(|(_, _, empty)| !empty) {
        call = call.query(name, &value.to_string());
    }
    let platform = request.platform.as_deref().or(build.platforms.first().map(String::as_str));
    let shm_size = build.shm_size.map(ByteSize::bytes).map(|bytes| bytes.to_string());
    let texts = [
        ("target", build.target.as_deref()),
        ("networkmode", build.network.as_deref()),
        ("platform", platform),
        ("shmsize", shm_size.as_deref()),
        ("isolation", build.isolation.as_deref()),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            call = call.query(name, value);
        }
    }
    call
}

/// What only BuildKit does, and would silently be left out.
fn unsupported(request: &BuildRequest) -> Result<(), String> {
    let build = &request.build;
    let is_remote = |build: &Build| build.context.as_deref().is_some_and(crate::context::is_remote);
    let used = [
        ("secrets", !build.secrets.is_empty()),
        ("ssh", !build.ssh.is_empty()),
        ("additional_contexts", !build.additional_contexts.is_empty()),
        ("entitlements", !build.entitlements.is_empty()),
        ("platforms", build.platforms.len() > 1),
        ("dockerfile_inline", build.dockerfile_inline.is_some() && is_remote(build)),
    ];
    match used.iter().find(|(_, used)| *used) {
        Some((name, _)) => Err(format!("`build.{name}` needs BuildKit")),
        None => Ok(()),
    }
}

fn buildx(request: &BuildRequest) -> String {
    let context = request.build.context.as_deref().unwrap_or(".");
    let file = match request.build.dockerfile.as_deref() {
        Some(file) if file != "Dockerfile" => format!(" --file {file}"),
        _ => String::new(),
    };
    format!("docker buildx build --load --tag {}{file} {context}", request.tag)
}
