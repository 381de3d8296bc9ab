//! A build context as a tar stream.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, stream};
use shiplap_compose::model::Build;
use tokio::sync::mpsc;

use crate::ignore::Rules;

/// Chunks that wait for the engine: two megabytes.
const QUEUE: usize = 32;
const CHUNK: usize = 64 << 10;
/// The deepest folder that is followed; paths on Linux end at 4,096 bytes anyway.
const DEEPEST: usize = 500;
/// Where a Dockerfile that is not part of the context appears in the stream.
const OUTSIDE_DOCKERFILE: &str = ".shiplap.Dockerfile";

/// What a build is made from.
pub(crate) enum Context {
    /// A Git repository or an archive that the engine fetches.
    Remote(String),
    /// A folder on this machine.
    Local {
        folder: PathBuf,
        /// Path in the stream.
        dockerfile: String,
        /// Its content, for looking at and, where it is not part of the context, for sending.
        content: Vec<u8>,
        inside: bool,
        rules: Rules,
    },
}

impl Context {
    pub(crate) fn open(build: &Build) -> Result<Self, String> {
        let context = build.context.as_deref().unwrap_or(".");
        if is_remote(context) {
            return Ok(Self::Remote(context.to_owned()));
        }
        let folder = PathBuf::from(context);
        let metadata = folder.metadata().map_err(|e| format!("build context {context}: {e}"))?;
        if !metadata.is_dir() {
            return Err(format!("build context {context}: not a folder"));
        }
        let name = build.dockerfile.as_deref().unwrap_or("Dockerfile");
        let path = folder.join(name);
        let (content, inside) = match &build.dockerfile_inline {
            Some(text) => (text.clone().into_bytes(), None),
            None => {
                let content =
                    std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                (content, path_inside(&folder, &path))
            }
        };
        // A Dockerfile's own list comes before the folder's.
        let own = path.with_file_name(format!(
            "{}.dockerignore",
            path.file_name().unwrap_or_default().to_string_lossy()
        ));
        let rules = [own, folder.join(".dockerignore")]
            .into_iter()
            .find_map(|path| std::fs::read_to_string(path).ok())
            .map(|text| Rules::parse(&text))
            .unwrap_or_default();
        Ok(Self::Local {
            folder,
            dockerfile: inside.clone().unwrap_or_else(|| OUTSIDE_DOCKERFILE.into()),
            content,
            inside: inside.is_some(),
            rules,
        })
    }

    /// The Dockerfile, where it is known.
    pub(crate) fn dockerfile(&self) -> Option<String> {
        match self {
            Self::Remote(_) => None,
            Self::Local { content, .. } => Some(String::from_utf8_lossy(content).into_owned()),
        }
    }
}

/// Whether the engine fetches the context itself.
pub(crate) fn is_remote(context: &str) -> bool {
    ["https://", "http://", "git://", "ssh://", "git@", "github.com/"]
        .iter()
        .any(|prefix| context.starts_with(prefix))
}

/// The path relative to the folder, unless it leads out of it.
fn path_inside(folder: &Path, path: &Path) -> Option<String> {
    let (folder, path) = (folder.canonicalize().ok()?, path.canonicalize().ok()?);
    Some(path.strip_prefix(folder).ok()?.to_str()?.to_owned())
}

/// The tar of a context. `sent` counts what has left.
pub(crate) fn tar_stream(
    context: Context,
    sent: Arc<AtomicU64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    written(sent, move |out| write_tar(&context, out))
}

/// What is written on a thread of its own, as it comes. `sent` counts what has left.
pub(crate) fn written(
    sent: Arc<AtomicU64>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(QUEUE);
    tokio::task::spawn_blocking(move || {
        let mut out = ChannelWriter { sender: sender.clone(), buffer: Vec::new(), sent };
        if let Err(error) = write(&mut out).and_then(|()| out.flush()) {
            // A closed channel means that nobody waits for the error either.
            let _ = sender.blocking_send(Err(error));
        }
    });
    stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) })
}

struct ChannelWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
    sent: Arc<AtomicU64>,
}

impl Write for ChannelWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        self.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        let closed = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.blocking_send(Ok(chunk)).map_err(closed)
    }
}

pub(crate) fn write_tar(context: &Context, out: impl Write) -> io::Result<()> {
    let Context::Local { folder, dockerfile, content, inside, rules } = context else {
        return Ok(());
    };
    let mut tar = tar::Builder::new(out);
    tar.follow_symlinks(false);
    add_folder(&mut tar, folder, "", rules, dockerfile, 0)?;
    if !inside {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        tar.append_data(&mut header, dockerfile, content.as_slice())?;
    }
    tar.finish()
}

fn add_folder<W: Write>(
    tar: &mut tar::Builder<W>,
    root: &Path,
    folder: &str,
    rules: &Rules,
    dockerfile: &str,
    depth: usize,
) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(io::Error::other(format!("folders too deep: {folder}")));
    }
    let mut entries: Vec<_> = std::fs::read_dir(root.join(folder))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = if folder.is_empty() { name.into_owned() } else { format!("{folder}/{name}") };
        let kind = entry.file_type()?;
        // The builder needs both, and removes them from the image's view itself.
        let is_needed = path == dockerfile || path == ".dockerignore";
        let excluded = !is_needed && rules.excludes(&path);
        if kind.is_dir() {
            let holds_dockerfile = dockerfile.starts_with(&format!("{path}/"));
            if !excluded {
                append(tar, root, &path)?;
            }
            if !excluded || rules.has_exceptions() || holds_dockerfile {
                add_folder(tar, root, &path, rules, dockerfile, depth + 1)?;
            }
        } else if !excluded && (kind.is_file() || kind.is_symlink()) {
            append(tar, root, &path)?;
        }
    }
    Ok(())
}

fn append<W: Write>(tar: &mut tar::Builder<W>, root: &Path, path: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let full = root.join(path);
    let metadata = full.symlink_metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    // Owners on this machine mean nothing in an image, and would spoil the build cache.
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("").and_then(|()| header.set_groupname(""))?;
    header.set_mode(metadata.permissions().mode() & 0o7777);
    if metadata.is_symlink() {
        header.set_size(0);
        tar.append_link(&mut header, path, std::fs::read_link(full)?)
    } else if metadata.is_dir() {
        header.set_size(0);
        tar.append_data(&mut header, format!("{path}/"), io::empty())
    } else {
        let file = std::fs::File::open(full)?;
        header.set_size(metadata.len());
        tar.append_data(&mut header, path, io::Read::take(file, metadata.len()))
    }
}

/// What a classic builder cannot do, of what the Dockerfile uses.
pub(crate) fn buildkit_feature(dockerfile: &str) -> Option<&'static str> {
    for line in dockerfile.lines().map(str::trim) {
        let upper = line.to_ascii_uppercase();
        let directive = upper.strip_prefix('#').is_some_and(|rest| {
            rest.trim_start()
                .strip_prefix("SYNTAX")
                .is_some_and(|r| r.trim_start().starts_with('='))
        });
        if directive {
            return Some("# syntax=");
        }
        let instruction = upper.split_whitespace().next().unwrap_or_default();
        let takes_files = matches!(instruction, "COPY" | "ADD");
        if instruction == "RUN" {
            for flag in ["--mount", "--network", "--security"] {
                if upper.split_whitespace().any(|word| word.starts_with(&flag.to_ascii_uppercase()))
                {
                    return Some("RUN --mount");
                }
            }
        }
        if takes_files {
            for flag in ["--LINK", "--CHMOD", "--PARENTS", "--EXCLUDE"] {
                if upper.split_whitespace().any(|word| word.starts_with(flag)) {
                    return Some("COPY --link, --chmod, --parents or --exclude");
                }
            }
        }
        if (takes_files || instruction == "RUN") && has_heredoc(line) {
            return Some("here-documents");
        }
    }
    None
}

/// `<<EOF`, `<<-EOF`, `<<"EOF"`.
fn has_heredoc(line: &str) -> bool {
    line.split("<<").skip(1).any(|rest| {
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        let rest = rest.trim_start_matches(['"', '\'']);
        rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(build: &Build) -> Vec<String> {
        let mut out = Vec::new();
        write_tar(&Context::open(build).unwrap(), &mut out).unwrap();
        let mut archive = tar::Archive::new(out.as_slice());
        let entries = archive.entries().unwrap();
        entries.map(|e| e.unwrap().path().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_context_holds_what_is_not_ignored() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["src", "target/deep", "docs"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in ["Dockerfile", "src/main.rs", "target/deep/keep", "target/x", "docs/a.md"] {
            std::fs::write(dir.path().join(file), "x").unwrap();
        }
        std::os::unix::fs::symlink("main.rs", dir.path().join("src/link")).unwrap();
        let rules = "target\n!target/deep/keep\n**/*.md\nDockerfile\n";
        std::fs::write(dir.path().join(".dockerignore"), rules).unwrap();
        let context = Some(dir.path().to_string_lossy().into_owned());
        let build = Build { context, ..Default::default() };
        assert_eq!(
            names(&build),
            [
                ".dockerignore",
                "Dockerfile",
                "docs/",
                "src/",
                "src/link",
                "src/main.rs",
                "target/deep/keep"
            ]
        );
        let inline = Build { dockerfile_inline: Some("FROM x".into()), ..build };
        assert!(names(&inline).contains(&OUTSIDE_DOCKERFILE.to_owned()));
    }

    #[test]
    fn a_dockerfile_outside_of_the_context_is_sent_along() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("app")).unwrap();
        std::fs::write(dir.path().join("Other"), "FROM x").unwrap();
        let build = Build {
            context: Some(dir.path().join("app").to_string_lossy().into_owned()),
            dockerfile: Some("../Other".into()),
            ..Default::default()
        };
        assert_eq!(names(&build), [OUTSIDE_DOCKERFILE]);
    }

    #[test]
    fn features_of_buildkit_are_recognised() {
        assert!(buildkit_feature("FROM a\nRUN --mount=type=cache,target=/x make").is_some());
        assert!(buildkit_feature("# syntax=docker/dockerfile:1\nFROM a").is_some());
        assert!(buildkit_feature("FROM a\nCOPY <<EOF /x\nhi\nEOF").is_some());
        assert_eq!(buildkit_feature("FROM a\nRUN echo $((1<<2))\nCOPY a b"), None);
    }
}
