//! A vault's files, and `rsync --files-from`, in turns: from nothing, and when nothing changed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use shiplap_data::vault::Vault;

use crate::FilesArgs;

/// Files are spread over so many folders.
const FOLDERS: usize = 256;
/// Of each three files that are there, so many are named.
const NAMED_OF_THREE: usize = 1;
/// The largest file, in bytes; the mean is half of it, as with pictures of pixels.
const LARGEST: usize = 30_000;

pub fn measure(args: &FilesArgs) -> anyhow::Result<()> {
    let from = args.folder.join("from");
    let paths = make(&from, args.files)?;
    let mut ratios: Vec<[f64; 2]> = Vec::new();
    for turn in 0..=args.turns {
        let to = |name: &str| args.folder.join(format!("{name}-{turn}"));
        // From nothing, and again: ours, and rsync's.
        let mut seconds = [[0.0; 2]; 2];
        for seconds in &mut seconds {
            let mut act = |who: usize| -> anyhow::Result<()> {
                // What somebody wrote before is not to be waited for by whoever comes next.
                ensure!(Command::new("sync").status()?.success(), "sync failed");
                seconds[who] = match who {
                    0 => own(&from, &to("own"), &paths)?,
                    _ => rsync(&from, &to("rsync"), &paths)?,
                };
                Ok(())
            };
            // Who goes first changes.
            let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
            order.into_iter().try_for_each(&mut act)?;
        }
        let [cold, again] = seconds;
        println!(
            "{turn}  from nothing {:6.2} s, rsync {:6.2} s; nothing changed {:6.2} s, rsync {:6.2} s",
            cold[0], cold[1], again[0], again[1]
        );
        if turn > 0 {
            ratios.push([cold, again].map(|[own, rsync]| own / rsync));
        }
        for name in ["own", "rsync"] {
            std::fs::remove_dir_all(to(name))?;
        }
    }
    for (at, what) in ["from nothing   ", "nothing changed"].into_iter().enumerate() {
        let mut of: Vec<f64> = ratios.iter().map(|ratio| ratio[at]).collect();
        of.sort_by(f64::total_cmp);
        println!("{what}  {}", crate::cost::spread(&of));
    }
    std::fs::remove_dir_all(&from)?;
    Ok(())
}

/// Makes files; returns the paths of those that are named.
fn make(from: &Path, files: usize) -> anyhow::Result<Vec<String>> {
    ensure!(!from.exists(), "{} is there already", from.display());
    for folder in 0..FOLDERS {
        std::fs::create_dir_all(from.join(format!("{folder:02x}")))?;
    }
    let bytes: Vec<u8> = (0..LARGEST).map(|at| (at * 7 % 251) as u8).collect();
    let mut named = Vec::new();
    for number in 0..files * 3 {
        // Spread evenly, the same each time.
        let spread = number.wrapping_mul(0x9e37_79b9);
        let path = format!("{:02x}/{number:08}.webp", spread % FOLDERS);
        std::fs::write(from.join(&path), &bytes[..spread / FOLDERS % LARGEST])?;
        if number % 3 < NAMED_OF_THREE {
            named.push(path);
        }
    }
    Ok(named)
}

fn own(from: &Path, to: &Path, paths: &[String]) -> anyhow::Result<f64> {
    std::fs::create_dir_all(to)?;
    let vault =
        Vault { from: from.into(), to: to.into(), variants: Vec::new(), bytes_per_second: None };
    let begun = Instant::now();
    let mut report = vault.copy(paths.iter().cloned())?;
    vault.prune(&mut report)?;
    ensure!(report.copied + report.unchanged == paths.len() as u64, "{report:?}");
    Ok(begun.elapsed().as_secs_f64())
}

fn rsync(from: &Path, to: &PathBuf, paths: &[String]) -> anyhow::Result<f64> {
    std::fs::create_dir_all(to)?;
    let begun = Instant::now();
    let mut running = Command::new("rsync")
        .args(["-a", "--files-from=-"])
        .args([from, to.as_path()])
        .stdin(Stdio::piped())
        .spawn()
        .context("rsync is not installed")?;
    let mut names = running.stdin.take().context("it reads names")?;
    names.write_all(paths.join("\n").as_bytes())?;
    drop(names);
    ensure!(running.wait()?.success(), "rsync failed");
    Ok(begun.elapsed().as_secs_f64())
}
