use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::time::{Duration, SystemTime};

use super::*;

/// Two folders, one with files.
struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("to")).unwrap();
        let lab = Self { folder };
        lab.write(files);
        lab
    }

    fn from(&self, path: &str) -> PathBuf {
        self.folder.path().join("from").join(path)
    }

    fn to(&self, path: &str) -> PathBuf {
        self.folder.path().join("to").join(path)
    }

    fn write(&self, files: &[(&str, &str)]) {
        for (path, text) in files {
            fs::create_dir_all(self.from(path).parent().unwrap()).unwrap();
            fs::write(self.from(path), text).unwrap();
        }
    }

    fn vault(&self) -> Vault {
        let variants = vec![Pattern::parse("{stem}_small.{ext}").unwrap()];
        Vault { from: self.from(""), to: self.to(""), variants, bytes_per_second: None }
    }

    fn copy(&self, paths: &[&str]) -> FilesReport {
        self.vault().copy(paths.iter().map(|path| (*path).to_owned())).unwrap()
    }

    /// What is beneath the target, but for our mark.
    fn there(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.to("")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path.clone());
                }
                let path = path.strip_prefix(self.to("")).unwrap().display().to_string();
                found.extend((path != MARK).then_some(path));
            }
        }
        found.sort();
        found
    }
}

#[test]
fn what_rows_name_comes_with_its_variants_and_the_rest_is_listed() {
    let lab = Lab::new(&[
        ("a/1.png", "one"),
        ("a/1_small.png", "o"),
        ("a/other.png", "not named"),
        ("2.png", "two"),
    ]);
    let report = lab.copy(&["a/1.png", "2.png", "a/3.png", "b/4.png", "/etc/passwd", "a/../2.png"]);
    assert_eq!(lab.there(), ["2.png", "a", "a/1.png", "a/1_small.png"]);
    assert_eq!((report.named, report.copied, report.bytes), (4, 3, 7));
    assert_eq!(report.missing_paths, ["a/3.png", "b/4.png"]);
    assert_eq!(report.refused_paths, ["/etc/passwd", "a/../2.png"]);
    assert_eq!(fs::read_to_string(lab.to("a/1.png")).unwrap(), "one");
    // Its own file: dev does not write into production's.
    assert_eq!(fs::metadata(lab.to("a/1.png")).unwrap().nlink(), 1);
}

#[test]
fn nothing_is_copied_twice_and_what_changed_is_copied_again() {
    let lab = Lab::new(&[("a/1.png", "one"), ("a/2.png", "two")]);
    fs::set_permissions(lab.from("a/1.png"), fs::Permissions::from_mode(0o4640)).unwrap();
    assert_eq!(lab.copy(&["a/1.png", "a/2.png"]).copied, 2);
    let modes = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(modes(lab.to("a/1.png")), 0o640);
    let again = lab.copy(&["a/1.png", "a/2.png"]);
    assert_eq!((again.copied, again.unchanged), (0, 2));
    // As long as before, and younger; another time longer, and as old.
    fs::write(lab.from("a/1.png"), "new").unwrap();
    let old = SystemTime::now() - Duration::from_secs(1_000);
    for path in [lab.from("a/1.png"), lab.from("a/2.png")] {
        fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
    let changed = lab.copy(&["a/1.png", "a/2.png"]);
    assert_eq!((changed.copied, changed.unchanged), (2, 0));
    assert_eq!(fs::read_to_string(lab.to("a/1.png")).unwrap(), "new");
}

#[test]
fn what_a_run_that_was_cut_off_left_is_in_nobodys_way() {
    let lab = Lab::new(&[("a/1.png", "one"), ("a/2.png", "two")]);
    assert_eq!(lab.copy(&["a/2.png"]).copied, 1);
    let part = format!("{}{}", super::super::copy::PART, &blake3::hash(b"1.png").to_hex()[..16]);
    fs::write(lab.to("a").join(part), "o").unwrap();
    let report = lab.copy(&["a/1.png", "a/2.png"]);
    assert_eq!((report.copied, report.unchanged), (1, 1));
    assert_eq!(lab.there(), ["a", "a/1.png", "a/2.png"]);
}

#[test]
fn links_are_not_followed_on_either_side() {
    let lab = Lab::new(&[("a/1.png", "one"), ("secret/key", "key")]);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("x"), "outside").unwrap();
    symlink(outside.path().join("x"), lab.from("a/link")).unwrap();
    symlink(outside.path(), lab.from("out")).unwrap();
    symlink("secret", lab.from("within")).unwrap();
    let report = lab.copy(&["a/link", "out/x", "within/key", "a"]);
    assert_eq!(report.refused_paths, ["a", "a/link", "out/x", "within/key"]);
    assert_eq!(report.copied, 0);
    // Somebody put a link where a folder of the target should be, or a file.
    let target = Lab::new(&[("a/1.png", "one"), ("b/2.png", "two")]);
    target.copy(&[]);
    symlink(outside.path(), target.to("a")).unwrap();
    let refused = target.vault().copy(["a/1.png".to_owned()]).unwrap_err().to_string();
    assert!(refused.contains("making"), "{refused}");
    fs::create_dir(target.to("b")).unwrap();
    symlink(outside.path().join("x"), target.to("b/2.png")).unwrap();
    target.copy(&["b/2.png"]);
    assert_eq!(fs::read_to_string(target.to("b/2.png")).unwrap(), "two");
    assert_eq!(fs::read_to_string(outside.path().join("x")).unwrap(), "outside");
    assert!(!outside.path().join("1.png").exists());
}

#[test]
fn what_no_row_names_any_more_goes_and_links_go_without_what_they_lead_to() {
    let lab = Lab::new(&[("a/1.png", "1"), ("a/1_small.png", "s"), ("b/c/2.png", "2")]);
    lab.copy(&["a/1.png", "b/c/2.png"]);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("x"), "outside").unwrap();
    symlink(outside.path(), lab.to("a/link")).unwrap();
    fs::write(lab.to("a/.shiplap-part-0123456789abcdef"), "cut off").unwrap();
    let mut report = lab.copy(&["a/1.png"]);
    // Until now nothing went: the old database may still name it.
    assert!(lab.to("b/c/2.png").exists());
    lab.vault().prune(&mut report).unwrap();
    assert_eq!(lab.there(), ["a", "a/1.png", "a/1_small.png"]);
    assert_eq!(report.removed, 3);
    assert!(outside.path().join("x").exists());
}

#[test]
fn folders_of_somebody_else_are_refused_before_anything_is_written() {
    let lab = Lab::new(&[("a/1.png", "one")]);
    fs::write(lab.to("mine"), "mine").unwrap();
    let refused = lab.vault().copy(["a/1.png".to_owned()]).unwrap_err().to_string();
    assert!(refused.contains("not ours") && !lab.to("a").exists(), "{refused}");
    for (from, to) in [("from", "from"), ("from", "from/a"), ("from/a", "from")] {
        let at = |path: &str| lab.folder.path().join(path);
        let vault = Vault { from: at(from), to: at(to), ..lab.vault() };
        let refused = vault.check().unwrap_err().to_string();
        assert!(refused.contains("not apart"), "{from} {to}: {refused}");
    }
    let link = lab.folder.path().join("again");
    symlink(lab.from(""), &link).unwrap();
    assert!(Vault { to: link, ..lab.vault() }.check().is_err());
}

#[test]
fn many_files_in_many_folders_all_come() {
    let paths: Vec<String> = (0..3_000).map(|n| format!("{}/{}/{n}.bin", n % 7, n % 3)).collect();
    let lab = Lab::new(&[]);
    for path in &paths {
        lab.write(&[(path, path)]);
    }
    let report = lab.vault().copy(paths.clone()).unwrap();
    assert_eq!((report.copied, report.named), (3_000, 3_000));
    for path in &paths {
        assert_eq!(&fs::read_to_string(lab.to(path)).unwrap(), path);
    }
    let again = lab.vault().copy(paths).unwrap();
    assert_eq!((again.copied, again.unchanged), (0, 3_000));
}
