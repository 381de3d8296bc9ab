//! An image in a file, as engines save it, and parts of it as engines load them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::Digest as _;

/// The list of images in an archive.
const MANIFEST: &str = "manifest.json";
/// The longest list, or configuration, that is read.
const LONGEST_TEXT: u64 = 8 << 20;
/// Links that lead to links, in an archive.
const LINKS: usize = 8;
/// What is read at a time.
const CHUNK: usize = 64 << 10;

/// An image that was taken out of an engine.
#[derive(Debug)]
pub struct SavedImage {
    file: File,
    config: Vec<u8>,
    layers: Vec<Layer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    /// The digest of its tar.
    diff_id: String,
    offset: u64,
    length: u64,
}

/// How an archive is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// As it is: it goes nowhere.
    Plain,
    /// Compressed, for a line that is slower than this machine.
    Gzip,
}

impl SavedImage {
    /// Reads what is where in an archive of one image.
    ///
    /// # Errors
    /// When it is not one.
    pub(crate) fn open(mut file: File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let entries = Entries::read(&mut file)?;
        let list: Value = serde_json::from_slice(&entries.text(&mut file, MANIFEST)?)?;
        let image = &list[0];
        let name = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
        let config = entries.text(&mut file, &name(&image["Config"])?)?;
        let parsed: Value = serde_json::from_slice(&config)?;
        let diff_ids = parsed["rootfs"]["diff_ids"].as_array().ok_or_else(wrong)?;
        let names = image["Layers"].as_array().ok_or_else(wrong)?;
        if names.len() != diff_ids.len() {
            return Err(wrong());
        }
        let layers = diff_ids.iter().zip(names).map(|(diff_id, path)| {
            let at = entries.find(&name(path)?)?;
            Ok(Layer { diff_id: name(diff_id)?, offset: at.start, length: at.end - at.start })
        });
        let layers = layers.collect::<io::Result<_>>()?;
        Ok(Self { file, config, layers })
    }

    /// Its id on the engine that it came from: the digest of its configuration.
    #[must_use]
    pub fn id(&self) -> String {
        sha256(&self.config)
    }

    /// Digests of its layers' tars, the lowest first.
    pub(crate) fn diff_ids(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(|layer| layer.diff_id.as_str())
    }

    /// How many layers it has.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Bytes of some layers.
    pub(crate) fn length(&self, layers: Range<usize>) -> u64 {
        self.layers[layers].iter().map(|layer| layer.length).sum()
    }

    /// An image of its lowest layers alone, for sending it in parts: its configuration.
    pub(crate) fn part(&self, layers: usize) -> Vec<u8> {
        let whole: Value = serde_json::from_slice(&self.config).unwrap_or_default();
        let diff_ids: Vec<&str> = self.diff_ids().take(layers).collect();
        let mut part = json!({
            "architecture": whole["architecture"], "os": whole["os"],
            "config": {"Labels": {"shiplap.role": "part"}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        if let Some(variant) = whole.get("variant") {
            part["variant"] = variant.clone();
        }
        part.to_string().into_bytes()
    }

    /// Writes an archive that makes an image of the layers up to the end of `sent`. Those below are
    /// named and left out: an engine that has them does not look for them.
    ///
    /// `read` counts the bytes of layers that have been read.
    pub(crate) fn write(
        &self,
        config: Config<'_>,
        sent: Range<usize>,
        packing: Packing,
        read: &AtomicU64,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        match packing {
            Packing::Plain => self.write_tar(config, sent, read, out),
            Packing::Gzip => {
                let mut out = GzEncoder::new(out, Compression::fast());
                self.write_tar(config, sent, read, &mut out)?;
                out.finish().map(drop)
            }
        }
    }

    fn write_tar(
        &self,
        config: Config<'_>,
        sent: Range<usize>,
        read: &AtomicU64,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let (content, tags) = match config {
            Config::Whole { tag } => (self.config.clone(), vec![tag]),
            Config::Part => (self.part(sent.end), Vec::new()),
        };
        let name = |index: usize| format!("{index}.tar");
        let config_name = format!("{}.json", sha256(&content).trim_start_matches("sha256:"));
        let names: Vec<String> = (0..sent.end).map(name).collect();
        let tags = if tags.is_empty() { Value::Null } else { json!(tags) };
        let list = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]).to_string();
        let mut archive = tar::Builder::new(out);
        append(&mut archive, &config_name, &content[..], content.len() as u64)?;
        append(&mut archive, MANIFEST, list.as_bytes(), list.len() as u64)?;
        for index in sent {
            let layer = &self.layers[index];
            let from =
                Slice { file: &self.file, at: layer.offset, end: layer.offset + layer.length };
            let counted = Counted { from, read };
            append(&mut archive, &name(index), counted, layer.length)?;
        }
        archive.finish()
    }
}

/// Which image an archive makes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Config<'a> {
    /// The whole one, under a name.
    Whole {
        /// The name.
        tag: &'a str,
    },
    /// One of its lowest layers alone, without a name.
    Part,
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    content: impl Read,
    length: u64,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(length);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, io::BufReader::with_capacity(CHUNK, content))
}

/// What is where in an archive.
#[derive(Default)]
struct Entries {
    files: BTreeMap<String, Range<u64>>,
    /// Layers that an image has twice are links.
    links: BTreeMap<String, String>,
}

impl Entries {
    fn read(file: &mut File) -> io::Result<Self> {
        let mut found = Self::default();
        let mut archive = tar::Archive::new(file);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let path = plain(&entry.path()?.to_string_lossy());
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let at = entry.raw_file_position();
                found.files.insert(path, at..at + entry.size());
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name()?.ok_or_else(wrong)?.to_string_lossy().into_owned();
                let from = match kind.is_hard_link() {
                    true => "",
                    false => path.rsplit_once('/').map_or("", |(folder, _)| folder),
                };
                found.links.insert(path.clone(), plain(&format!("{from}/{target}")));
            }
        }
        Ok(found)
    }

    fn find(&self, path: &str) -> io::Result<Range<u64>> {
        let mut path = plain(path);
        for _ in 0..LINKS {
            match self.links.get(&path) {
                Some(target) => path.clone_from(target),
                None => break,
            }
        }
        self.files.get(&path).cloned().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("the archive has no {path}"))
        })
    }

    fn text(&self, file: &mut File, path: &str) -> io::Result<Vec<u8>> {
        let at = self.find(path)?;
        if at.end - at.start > LONGEST_TEXT {
            return Err(wrong());
        }
        let mut text = Vec::new();
        Slice { file, at: at.start, end: at.end }.read_to_end(&mut text)?;
        Ok(text)
    }
}

/// `./a/../b` to `b`.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A part of a file, read without moving anybody else's place in it.
struct Slice<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Slice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

struct Counted<'a> {
    from: Slice<'a>,
    read: &'a AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// For sharing with the thread that writes.
pub(crate) type Shared = Arc<SavedImage>;

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not an archive of an image")
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":["sha256:a","sha256:b","sha256:a"]}}"#;

    /// An archive as an engine writes it, in which the third layer is a link to the first.
    fn saved() -> SavedImage {
        let mut archive = tar::Builder::new(tempfile::tempfile().unwrap());
        let list = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["x/layer.tar","y/layer.tar","z/layer.tar"]}]"#;
        for (name, text) in [
            ("x/layer.tar", "first"),
            ("y/layer.tar", "other"),
            ("c.json", CONFIG),
            (MANIFEST, list),
        ] {
            append(&mut archive, name, text.as_bytes(), text.len() as u64).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "z/layer.tar", "../x/layer.tar").unwrap();
        SavedImage::open(archive.into_inner().unwrap()).unwrap()
    }

    fn written(
        config: Config<'_>,
        sent: Range<usize>,
        packing: Packing,
    ) -> BTreeMap<String, String> {
        let mut out = Vec::new();
        let read = AtomicU64::new(0);
        let image = saved();
        image.write(config, sent.clone(), packing, &read, &mut out).unwrap();
        assert_eq!(read.into_inner(), image.length(sent));
        let plain: Box<dyn Read> = match packing {
            Packing::Plain => Box::new(&out[..]),
            Packing::Gzip => Box::new(flate2::read::GzDecoder::new(&out[..])),
        };
        let mut archive = tar::Archive::new(plain);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), text)
        });
        entries.collect()
    }

    #[test]
    fn an_archive_keeps_the_image_and_leaves_out_the_layers_that_are_there() {
        assert_eq!(saved().id(), sha256(CONFIG.as_bytes()));
        for packing in [Packing::Plain, Packing::Gzip] {
            let files = written(Config::Whole { tag: "a:1" }, 1..3, packing);
            let names: Vec<&str> = files.keys().map(String::as_str).collect();
            let config = format!("{}.json", saved().id().replace("sha256:", ""));
            let mut expected = vec!["1.tar", "2.tar", &config, MANIFEST];
            expected.sort_unstable();
            assert_eq!(names, expected);
            assert_eq!(files["2.tar"], "first");
            assert_eq!(files[&config], CONFIG);
            let list: Value = serde_json::from_str(&files[MANIFEST]).unwrap();
            assert_eq!(list[0]["Layers"], json!(["0.tar", "1.tar", "2.tar"]));
            assert_eq!(list[0]["RepoTags"], json!(["a:1"]));
        }
    }

    #[test]
    fn a_part_is_an_image_of_the_lowest_layers() {
        let files = written(Config::Part, 0..2, Packing::Plain);
        let list: Value = serde_json::from_str(&files[MANIFEST]).unwrap();
        assert_eq!(list[0]["RepoTags"], Value::Null);
        let config: Value =
            serde_json::from_str(&files[list[0]["Config"].as_str().unwrap()]).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!(["sha256:a", "sha256:b"]));
        assert_eq!(saved().part(2), saved().part(2));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 2048]).unwrap();
        assert!(SavedImage::open(file).is_err());
        let archive = tar::Builder::new(tempfile::tempfile().unwrap());
        assert!(SavedImage::open(archive.into_inner().unwrap()).is_err());
    }
}
