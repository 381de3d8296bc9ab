//! Images of the demo's application, good ones and broken ones, built once per build of it.

use std::fs::File;
use std::path::PathBuf;

use crate::{Engine, binary};

/// Tags of the images, with what breaks them.
const TAGS: &[(&str, &str)] = &[
    ("v1", ""),
    ("v2", ""),
    ("v3", ""),
    ("sick", "health"),
    ("crash", "crash"),
    ("exit-later", "exit-later"),
];

/// Images on an engine; `v1`, `v2` and `v3` work, `sick` is never healthy, `crash` exits at its
/// start and `exit-later` after three seconds.
#[derive(Clone, Debug)]
pub struct Images {
    /// The name of all, without a tag.
    pub name: String,
}

impl Images {
    /// Makes sure that they are there.
    ///
    /// # Panics
    /// If they cannot be built.
    #[must_use]
    pub fn ensure(engine: &Engine) -> Self {
        let app = app();
        let hash = blake3::hash(&app).to_hex();
        let images = Self { name: format!("shiplap-scenarios/app-{}", &hash[..8]) };
        let lock = File::create(std::env::temp_dir().join("shiplap-images.lock"));
        let lock = lock.expect("a lock file can be made");
        lock.lock().expect("nobody keeps the lock for ever");
        for (tag, fault) in TAGS {
            if engine.try_get(&format!("/images/{}:{tag}/json", images.name)).is_err() {
                build(engine, &format!("{}:{tag}", images.name), &app, tag, fault);
            }
        }
        images
    }

    /// Builds one more under a name of its own, with other content than any other image.
    pub fn build(engine: &Engine, name: &str, version: &str) {
        build(engine, name, &app(), version, "");
    }
}

fn app() -> Vec<u8> {
    let path: PathBuf = binary("shiplap-demo-app");
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; `cargo build -p shiplap-demo-app` makes it", path.display())
    })
}

fn build(engine: &Engine, name: &str, app: &[u8], version: &str, fault: &str) {
    // With its name inside, no image is the same as one of another name.
    let dockerfile = format!(
        "FROM scratch\nCOPY app /app\nENV VERSION={version} FAULT={fault}\nLABEL name={name}\n\
         ENTRYPOINT [\"/app\"]\n"
    );
    let mut archive = tar::Builder::new(Vec::new());
    for (path, mode, content) in [("Dockerfile", 0o644, dockerfile.as_bytes()), ("app", 0o755, app)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append_data(&mut header, path, content).expect("memory takes it");
    }
    engine.build(name, &archive.into_inner().expect("memory takes it"));
}
