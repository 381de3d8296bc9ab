//! Images from one engine to another. The other one is started for the test, and needs root.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shiplap_compose::model::Build;
use shiplap_engine::{DockerEngine, Endpoint};
use shiplap_model::{BuildRequest, Engine as _, EngineErrorKind, ImageInfo, ProgressSink};

use crate::support::{engine, skip};

/// An engine of its own, with nothing on it.
struct Other {
    daemon: Child,
    folder: tempfile::TempDir,
}

impl Other {
    async fn start() -> Option<(Self, DockerEngine)> {
        let folder = tempfile::Builder::new().prefix("slse-").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let log = std::fs::File::create(at("log")).unwrap();
        // In a network of its own: one that goes without a bridge removes `docker0` where it starts.
        let daemon = Command::new("unshare")
            .args(["--net", "--", "dockerd", "--data-root"])
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .args(["--bridge=none", "--iptables=false", "--host"])
            .arg(format!("unix://{}", at("d.sock").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let Ok(daemon) = daemon else { return skip("dockerd cannot be started") };
        let mut other = Self { daemon, folder };
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            if let Ok(engine) = DockerEngine::connect(&other.endpoint())
                && engine.reach().await.is_ok()
            {
                return Some((other, engine));
            }
            if other.daemon.try_wait().unwrap().is_some() {
                return skip("dockerd does not stay: another engine of its own needs root");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        skip("dockerd does not answer")
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.path("d.sock"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let id = self.daemon.id().to_string();
        // It has mounts to take down, and a containerd of its own to stop.
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            if !matches!(self.daemon.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn quiet() -> ProgressSink {
    Arc::new(|_| {})
}

/// Removes names of images when the test ends.
struct Names(DockerEngine, Vec<String>);

impl Drop for Names {
    fn drop(&mut self) {
        let (engine, names) = (self.0.clone(), std::mem::take(&mut self.1));
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                for name in names {
                    let _ = engine.remove_image(&name).await;
                }
            });
        });
        _ = cleaner.join();
    }
}

/// Builds an image of a base, a layer of 3 MB and a small one on top.
async fn built(engine: &DockerEngine, name: &str, top: &str) -> ImageInfo {
    let dockerfile = format!(
        "FROM busybox:latest\nRUN dd if=/dev/zero bs=1000 count=3000 | tr '\\\\0' x > /large\n\
         RUN echo {top} > /top\nLABEL of={top}\n"
    );
    let build = Build { dockerfile_inline: Some(dockerfile), ..Build::default() };
    let folder = tempfile::tempdir().unwrap();
    let context = Some(folder.path().to_string_lossy().into_owned());
    let build = Build { context, network: Some("none".to_owned()), ..build };
    let request = BuildRequest { tag: name.to_owned(), build, platform: None };
    engine.build(&request, quiet()).await.unwrap()
}

#[tokio::test]
async fn only_missing_layers_are_sent_and_the_image_keeps_its_id() {
    let Some(here) = engine().await else { return };
    let Some((_other, there)) = Other::start().await else { return };
    let folder = std::env::temp_dir();
    let [first, second] = ["one", "two"].map(|n| format!("slt-send-{}:{n}", std::process::id()));
    let _names = Names(here.clone(), vec![first.clone(), second.clone()]);
    let one = built(&here, &first, "one").await;
    let two = built(&here, &second, "two").await;

    let saved = here.save(&first, &folder, &quiet()).await.unwrap();
    assert_eq!(saved.id(), one.id);
    let sent = there.receive(saved, &first, &quiet()).await.unwrap();
    assert_eq!(sent.image.id, one.id);
    assert_eq!(sent.sent_layers, sent.layers);
    assert!(sent.sent_bytes > 3_000_000, "{sent:?}");
    assert_eq!(there.image(&first).await.unwrap().unwrap().labels["of"], "one");

    // Of the next one, the layer on top alone.
    let saved = here.save(&second, &folder, &quiet()).await.unwrap();
    let sent = there.receive(saved, &second, &quiet()).await.unwrap();
    assert_eq!((sent.image.id.as_str(), sent.sent_layers), (two.id.as_str(), 1));
    assert!(sent.sent_bytes < 100_000, "{sent:?}");

    // Of one that is there, nothing; and it has both names.
    let again = format!("{second}-again");
    let saved = here.save(&second, &folder, &quiet()).await.unwrap();
    let sent = there.receive(saved, &again, &quiet()).await.unwrap();
    assert_eq!((sent.sent_layers, sent.sent_bytes), (0, 0));
    assert_eq!(there.image(&again).await.unwrap().unwrap().id, two.id);

    // Parts leave nothing but the images that were sent.
    assert_eq!(there.images().await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_sent() {
    let Some(here) = engine().await else { return };
    let absent = format!("slt-absent-{}:1", std::process::id());
    let error = here.save(&absent, &std::env::temp_dir(), &quiet()).await.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(&absent), "{error}");
}
