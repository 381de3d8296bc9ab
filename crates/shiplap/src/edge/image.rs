//! The edge's image: this very binary and nothing else, made here and loaded into the engine.

use std::io;

use bytes::Bytes;

/// An image archive, and what it will be called.
pub struct EdgeImage {
    /// `shiplap/edge:<build>`.
    pub tag: String,
    /// Twelve hexadecimal digits of the binary's hash.
    pub build: String,
    binary: Vec<u8>,
}

impl EdgeImage {
    /// Reads the running binary.
    ///
    /// # Errors
    /// If it cannot be read, for instance because it was replaced while it ran.
    pub fn of_this_binary() -> io::Result<Self> {
        let binary = std::fs::read("/proc/self/exe")?;
        let build = blake3::hash(&binary).to_hex()[..12].to_owned();
        Ok(Self { tag: format!("shiplap/edge:{build}"), build, binary })
    }

    /// The archive, in the form of `docker save`. The same binary gives the same bytes.
    ///
    /// # Errors
    /// None in practice: it is written to memory.
    pub fn archive(&self) -> io::Result<Bytes> {
        let layer = tar(&[("shiplap", &self.binary, 0o755)])?;
        let config = serde_json::json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": ["/shiplap"],
                "Cmd": ["edge", "supervise"],
                "Labels": { shiplap_model::ROLE: "edge" },
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
        });
        let config = serde_json::to_vec(&config)?;
        let config_name = format!("{}.json", sha256(&config));
        let manifest = serde_json::json!([{
            "Config": config_name,
            "RepoTags": [self.tag],
            "Layers": ["layer.tar"],
        }]);
        let manifest = serde_json::to_vec(&manifest)?;
        let files: [(&str, &[u8], u32); 3] = [
            ("layer.tar", &layer, 0o644),
            (&config_name, &config, 0o644),
            ("manifest.json", &manifest, 0o644),
        ];
        Ok(tar(&files)?.into())
    }
}

/// As engines call it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn tar(files: &[(&str, &[u8], u32)]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_cksum();
        archive.append_data(&mut header, name, *content)?;
    }
    archive.into_inner()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
