//! Whether an image is signed with one of the keys that `shiplap.yaml` names.

use std::path::PathBuf;

use async_trait::async_trait;
use shiplap_model::{CheckedImage, ImageCheck, Reference, Tell};
use shiplap_registry::Client;
use shiplap_registry::signature::{self, PublicKey, Unsigned};

/// A key in PEM has a few hundred bytes.
const LONGEST_KEY: u64 = 64 << 10;

/// Asks an image's registry for signatures, and checks them.
#[derive(Debug)]
pub struct KeyCheck {
    keys: Vec<PublicKey>,
    /// The keys' files, for people.
    names: Vec<String>,
    client: Client,
}

impl KeyCheck {
    /// Reads the keys.
    ///
    /// # Errors
    /// Which of them cannot be used, and why.
    pub fn read(files: &[PathBuf], client: Client) -> Result<Self, Vec<(usize, String)>> {
        let (mut keys, mut names, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for (number, file) in files.iter().enumerate() {
            match key(file) {
                Ok(key) => {
                    keys.push(key);
                    let name = file.file_name().unwrap_or_default();
                    names.push(name.to_string_lossy().into_owned());
                }
                Err(why) => bad.push((number, why)),
            }
        }
        if bad.is_empty() { Ok(Self { keys, names, client }) } else { Err(bad) }
    }
}

fn key(file: &PathBuf) -> Result<PublicKey, String> {
    let read = || {
        let length = std::fs::metadata(file)?.len();
        if length > LONGEST_KEY {
            return Err(std::io::Error::other("it is too long"));
        }
        std::fs::read(file)
    };
    let pem = read().map_err(|error| format!("{}: {error}", file.display()))?;
    PublicKey::from_pem(&pem).map_err(|error| error.to_string())
}

#[async_trait]
impl ImageCheck for KeyCheck {
    async fn check(&self, image: &CheckedImage, _: Tell) -> Result<String, String> {
        let Some(digest) = &image.digest else {
            return Err("no registry is known to have it, and a signature is in the registry: it \
                        was built or loaded on the engine"
                .to_owned());
        };
        let reference = Reference::parse(&image.reference).map_err(|error| error.to_string())?;
        match signature::verify(&self.client, &reference, digest, &self.keys).await {
            Ok(signed) => {
                let key = &self.names[signed.key];
                Ok(format!("signed with {key} for {digest} ({})", signed.form))
            }
            Err(Unsigned::Registry(error)) => {
                let help = error.kind.help(&reference.host);
                let help = help.map(|help| format!(" ({help})")).unwrap_or_default();
                Err(format!("{error}{help}"))
            }
            Err(error @ (Unsigned::None | Unsigned::Bad { .. })) => {
                Err(format!("{error}; wanted is one with {}", self.names.join(" or ")))
            }
        }
    }
}
