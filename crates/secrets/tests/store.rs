//! The store on a real file system.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use shiplap_model::{Scope, Secret};
use shiplap_secrets::{LARGEST_VALUE, Name, Origin, Store, StoreError, Written};

/// Names the folder that a test in another process works in.
const FOLDER: &str = "SHIPLAP_SECRETS_TEST_FOLDER";

fn scope(environment: &str) -> Scope {
    Scope { project: "shop".into(), environment: environment.into() }
}

fn name(name: &str) -> Name {
    name.parse().unwrap()
}

fn value(text: &str) -> Secret<Vec<u8>> {
    Secret::new(text.as_bytes().to_vec())
}

fn set(store: &Store, of: &str, text: &str) -> Written {
    store.set(&scope("prod"), &name(of), &value(text), Origin::Given).unwrap()
}

fn get(store: &Store, of: &str, version: Option<u32>) -> String {
    let stored = store.get(&scope("prod"), &name(of), version).unwrap();
    String::from_utf8(stored.value.expose().clone()).unwrap()
}

fn folder() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("secrets"));
    (folder, store)
}

fn of_version(folder: &tempfile::TempDir, name: &str, version: u32) -> PathBuf {
    folder.path().join(format!("secrets/values/shop/prod/{name}/{version}.age"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn versions_are_kept_and_the_newest_counts() {
    let (_folder, store) = folder();
    assert_eq!(set(&store, "A", "one"), Written::New(1));
    assert_eq!(set(&store, "A", "two"), Written::New(2));
    assert_eq!(set(&store, "A", "two"), Written::Same(2), "the same value is no new version");
    assert_eq!(set(&store, "A", "one"), Written::New(3));
    assert_eq!(get(&store, "A", None), "one");
    assert_eq!(get(&store, "A", Some(2)), "two");
    let list = store.list(&scope("prod")).unwrap();
    let numbers: Vec<u32> = list[0].versions.iter().map(|version| version.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let missing = store.get(&scope("prod"), &name("A"), Some(4)).unwrap_err();
    assert_eq!(missing.to_string(), "the secret `A` of shop/prod has no version 4");
}

#[test]
fn environments_know_nothing_of_each_other() {
    let (_folder, store) = folder();
    set(&store, "A", "of production");
    let missing = store.get(&scope("dev"), &name("A"), None).unwrap_err();
    assert_eq!(missing.to_string(), "shop/dev has no secret `A`");
    assert!(store.list(&scope("dev")).unwrap().is_empty());
}

#[test]
fn looking_makes_nothing() {
    let (folder, store) = folder();
    assert!(store.list(&scope("prod")).unwrap().is_empty());
    assert!(store.versions(&scope("prod")).unwrap().is_empty());
    assert!(store.current(&scope("prod")).unwrap().is_empty());
    assert!(store.get(&scope("prod"), &name("A"), None).is_err());
    assert!(store.remove(&scope("prod"), &name("A")).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_removed_secret_does_not_count_and_its_versions_stay() {
    let (_folder, store) = folder();
    set(&store, "A", "one");
    store.remove(&scope("prod"), &name("A")).unwrap();
    assert!(store.get(&scope("prod"), &name("A"), None).is_err());
    assert!(store.current(&scope("prod")).unwrap().is_empty());
    assert!(store.remove(&scope("prod"), &name("A")).is_err(), "twice is once too often");
    assert!(store.list(&scope("prod")).unwrap()[0].removed_ms.is_some());
    let old = store.at(&scope("prod"), &BTreeMap::from([(name("A"), 1)])).unwrap();
    assert_eq!(old["A"].value.expose(), b"one", "a rollback finds it");
    assert_eq!(set(&store, "A", "one"), Written::New(2));
    assert_eq!(get(&store, "A", None), "one");
}

#[test]
fn a_value_is_any_bytes_up_to_a_mebibyte() {
    let (_folder, store) = folder();
    let set =
        |bytes: Vec<u8>| store.set(&scope("prod"), &name("A"), &Secret::new(bytes), Origin::Given);
    let largest: Vec<u8> = (0..LARGEST_VALUE).map(|at| (at % 251) as u8).collect();
    for bytes in [Vec::new(), vec![0, 255, b'\n'], largest] {
        set(bytes.clone()).unwrap();
        let stored = store.get(&scope("prod"), &name("A"), None).unwrap();
        assert_eq!(*stored.value.expose(), bytes);
    }
    assert!(matches!(set(vec![0; LARGEST_VALUE + 1]), Err(StoreError::TooLarge { .. })));
}

#[test]
fn no_file_holds_a_value_and_none_is_open_to_others() {
    let (folder, store) = folder();
    set(&store, "A", "hush-4711-hush");
    set(&store, "A", "hush-4712-hush");
    for path in files(folder.path()) {
        let content = fs::read(&path).unwrap();
        let is_in = |text: &[u8]| content.windows(text.len()).any(|window| window == text);
        assert!(!is_in(b"hush"), "{}", path.display());
        assert!(path.ends_with("key.txt") || !is_in(b"AGE-SECRET-KEY"), "{}", path.display());
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
        let mode = path.parent().unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "the folder of {}", path.display());
    }
}

#[test]
fn of_many_who_ask_at_once_one_makes_the_value() {
    let (_folder, store) = folder();
    let mut values: Vec<String> = std::thread::scope(|threads| {
        let ask = |asker: usize| {
            let store = store.clone();
            move || {
                let make = || Ok(value(&format!("made by {asker}")));
                let stored = store.ensure(&scope("prod"), &name("A"), make).unwrap();
                String::from_utf8(stored.value.expose().clone()).unwrap()
            }
        };
        let askers: Vec<_> = (0..8).map(|asker| threads.spawn(ask(asker))).collect();
        askers.into_iter().map(|asker| asker.join().unwrap()).collect()
    });
    values.dedup();
    assert_eq!(values.len(), 1, "{values:?}");
    let list = store.list(&scope("prod")).unwrap();
    assert_eq!(list[0].newest().origin, Origin::Generated);
    assert_eq!(list[0].versions.len(), 1);
}

#[test]
fn of_many_who_set_at_once_nobody_is_lost() {
    let (_folder, store) = folder();
    std::thread::scope(|threads| {
        for writer in 0..8 {
            let store = store.clone();
            threads.spawn(move || {
                for round in 0..5 {
                    set(&store, "SHARED", &format!("{writer}.{round}"));
                    set(&store, &format!("OWN_{writer}"), &format!("{round}"));
                }
            });
        }
    });
    let list = store.list(&scope("prod")).unwrap();
    assert_eq!(list.len(), 9);
    for entry in list {
        let numbers: Vec<u32> = entry.versions.iter().map(|version| version.number).collect();
        let count = if entry.name.as_str() == "SHARED" { 40 } else { 5 };
        assert_eq!(numbers, (1..=count).collect::<Vec<u32>>(), "{}", entry.name);
    }
}

#[test]
fn a_file_that_is_damaged_moved_or_foreign_is_named_and_not_shown() {
    let (folder, store) = folder();
    set(&store, "A", "one");
    set(&store, "A", "two");
    set(&store, "B", "other");
    let (first, second) = (of_version(&folder, "A", 1), of_version(&folder, "A", 2));
    let whole = fs::read(&first).unwrap();
    let check = |says: &str| {
        let error = store.get(&scope("prod"), &name("A"), Some(1)).unwrap_err().to_string();
        assert!(error.contains("shop/prod/A/1.age") && error.contains(says), "{error}");
        assert!(!error.contains("hush"), "{error}");
    };
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for broken in [flipped, whole[..whole.len() - 1].to_vec(), b"hush".to_vec(), Vec::new()] {
        fs::write(&first, broken).unwrap();
        check("is damaged, or no file of age");
    }
    fs::write(&first, vec![0; 3 << 20]).unwrap();
    check("is larger than anything");
    // Another value of the same store decrypts; that it does not belong here is noticed.
    fs::copy(&second, &first).unwrap();
    check("is not the file that was written there");
    fs::remove_file(&first).unwrap();
    check("is missing");
    let other = tempfile::tempdir().unwrap();
    let foreign = Store::open(&other.path().join("secrets"));
    set(&foreign, "A", "foreign");
    fs::copy(of_version(&other, "A", 1), &first).unwrap();
    check("is encrypted for another key");
    // The others are read all the same, and new ones are set.
    assert_eq!(get(&store, "B", None), "other");
    assert_eq!(set(&store, "A", "three"), Written::New(3));

    let index = folder.path().join("secrets/values/shop/prod/index.json");
    fs::write(&index, "{\"version\": 1, \"secrets\": {\"hush\"").unwrap();
    let error = store.get(&scope("prod"), &name("B"), None).unwrap_err().to_string();
    assert!(error.contains("index.json` is damaged") && !error.contains("hush"), "{error}");
    assert!(store.set(&scope("prod"), &name("B"), &value("x"), Origin::Given).is_err());
    assert!(fs::read_to_string(&index).unwrap().contains("hush"), "it is left as it is");
}

#[test]
fn a_key_that_is_gone_open_or_broken_is_refused_and_never_replaced() {
    let (folder, store) = folder();
    set(&store, "A", "one");
    let key = folder.path().join("secrets/key.txt");
    let whole = fs::read(&key).unwrap();
    let error = |store: &Store| {
        let read = store.get(&scope("prod"), &name("A"), None).unwrap_err().to_string();
        let set = store.set(&scope("prod"), &name("A"), &value("two"), Origin::Given);
        assert_eq!(set.unwrap_err().to_string(), read);
        assert!(!read.contains("AGE-SECRET") && read.contains("key.txt"), "{read}");
        read
    };
    fs::remove_file(&key).unwrap();
    assert!(error(&store).contains("is missing"));
    assert!(!key.exists());
    fs::write(&key, &whole).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(error(&store).contains("(mode 640); make it 600"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, b"# a comment\nAGE-SECRET-KEY-NONSENSE\n").unwrap();
    assert!(error(&store).contains("holds no key of age in line 2"));
    fs::write(&key, b"\n").unwrap();
    assert!(error(&store).contains("holds no key"));
    fs::write(&key, &whole).unwrap();
    assert_eq!(get(&store, "A", None), "one");
}

#[test]
fn what_a_dead_writer_left_is_not_counted_and_not_overwritten() {
    let (folder, store) = folder();
    set(&store, "A", "one");
    let left = of_version(&folder, "A", 2);
    fs::write(&left, "left").unwrap();
    fs::write(left.with_file_name("draft"), "half").unwrap();
    assert_eq!(get(&store, "A", None), "one");
    assert_eq!(set(&store, "A", "two"), Written::New(3));
    assert_eq!(fs::read(&left).unwrap(), b"left");
    assert!(!left.with_file_name("draft").exists());
}

#[test]
fn names_of_projects_and_environments_stay_inside() {
    let (folder, store) = folder();
    for bad in ["", ".", "..", "a/b", "a\0b", ".hidden", "ä"] {
        let scope = Scope { project: "shop".into(), environment: bad.into() };
        let set = store.set(&scope, &name("A"), &value("x"), Origin::Given);
        assert!(matches!(set, Err(StoreError::BadScope(_))), "{bad:?}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// The `age` program, unless it is not installed.
fn age(purpose: &str) -> Option<Command> {
    let program = std::env::var_os("AGE").unwrap_or_else(|| "age".into());
    if Command::new(&program).arg("--version").output().is_ok_and(|out| out.status.success()) {
        return Some(Command::new(program));
    }
    eprintln!("skipped: {purpose}: there is no program `age` (apt-get install age, or set AGE)");
    None
}

#[test]
fn the_age_program_reads_what_the_store_wrote() {
    let Some(mut age) = age("reading with `age`") else { return };
    let (folder, store) = folder();
    set(&store, "A", "for both\n");
    let key = folder.path().join("secrets/key.txt");
    let out = age.arg("-d").arg("-i").arg(key).arg(of_version(&folder, "A", 1)).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.stdout, b"for both\n");
}

#[test]
fn further_recipients_can_read_what_is_set_from_then_on() {
    let (folder, store) = folder();
    set(&store, "A", "before");
    let other = tempfile::tempdir().unwrap();
    let backup = Store::open(&other.path().join("secrets"));
    set(&backup, "X", "makes a key");
    let key = other.path().join("secrets/key.txt");
    let text = fs::read_to_string(&key).unwrap();
    let public = text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    let recipients = folder.path().join("secrets/recipients.txt");
    fs::write(&recipients, format!("# the backup\n\n{public}\n")).unwrap();
    set(&store, "A", "after");
    assert_eq!(get(&store, "A", None), "after");
    if let Some(mut age) = age("reading as a further recipient") {
        let file = of_version(&folder, "A", 2);
        let out = age.arg("-d").arg("-i").arg(&key).arg(file).output().unwrap();
        assert_eq!(out.stdout, b"after", "{}", String::from_utf8_lossy(&out.stderr));
    }
    // Whoever holds that key in place of ours reads it too.
    fs::copy(&key, folder.path().join("secrets/key.txt")).unwrap();
    assert_eq!(get(&store, "A", Some(2)), "after");
    assert!(store.get(&scope("prod"), &name("A"), Some(1)).is_err());

    let refused = |line: &str, says: &str| {
        fs::write(&recipients, line).unwrap();
        let error = store.set(&scope("prod"), &name("A"), &value("x"), Origin::Given);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains(line), "{error}");
    };
    refused("age1nonsense", "no public key of age in line 1");
    refused("AGE-SECRET-KEY-1XYZ", "a secret key instead of a public one in line 1");
}

/// This test program again, running one of the tests that do nothing by themselves.
fn another(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored", "--nocapture"]).env(FOLDER, folder);
    command
}

/// What a writer that is killed was told to be written, is there; and all else is as it was.
#[test]
fn a_killed_writer_leaves_a_whole_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path());
    let mut last = 0;
    for round in 0..12 {
        let mut writer =
            another("writes_until_killed", folder.path()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let written = lines.map_while(Result::ok).filter_map(|line| line.parse::<u32>().ok());
        let mut written = written.peekable();
        for _ in 0..=round % 4 {
            last = written.next().unwrap();
        }
        // Somewhere in the middle of the next one.
        std::thread::sleep(std::time::Duration::from_micros(300 * round));
        writer.kill().unwrap();
        writer.wait().unwrap();
        last = written.last().unwrap_or(last);
        let newest = store.get(&scope("prod"), &name("A"), None).unwrap();
        assert!(newest.version >= last, "{last} was told, {} is there", newest.version);
        for entry in store.list(&scope("prod")).unwrap() {
            for version in entry.versions {
                let known = BTreeMap::from([(entry.name.clone(), version.number)]);
                let read = store.at(&scope("prod"), &known).unwrap();
                assert_eq!(read["A"].value.expose().len(), 5_000);
            }
        }
        last = newest.version;
    }
    assert!(last >= 12);
}

#[test]
#[ignore = "runs inside of a_killed_writer_leaves_a_whole_store"]
fn writes_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = Store::open(Path::new(&folder));
    println!();
    for number in 0u64.. {
        let text = format!("{:05000}", number + u64::from(std::process::id()) * 1_000_000);
        if let Written::New(version) = set(&store, "A", &text) {
            println!("{version}");
            std::io::stdout().flush().unwrap();
        }
    }
}

#[test]
fn a_full_disk_leaves_the_state_before() {
    let folder = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=128k none \"$1\" && shift && exec \"$@\"";
    let on_a_small_disk = || {
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", mount, "sh"]).arg(folder.path());
        command
    };
    let tried = on_a_small_disk().arg("true").output();
    if !tried.is_ok_and(|out| out.status.success()) {
        eprintln!("skipped: a full disk: no file system can be mounted here (unshare -rm)");
        return;
    }
    let test = another("fills_its_disk", folder.path());
    let mut small = on_a_small_disk();
    small.arg(test.get_program()).args(test.get_args()).env(FOLDER, folder.path());
    let out = small.output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "runs inside of a_full_disk_leaves_the_state_before"]
fn fills_its_disk() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = Store::open(&Path::new(&folder).join("secrets"));
    set(&store, "A", "one");
    let large = Secret::new(vec![7; 200 << 10]);
    for secret in ["A", "B"] {
        let error = store.set(&scope("prod"), &name(secret), &large, Origin::Given).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    }
    assert_eq!(get(&store, "A", None), "one");
    assert_eq!(store.list(&scope("prod")).unwrap().len(), 1);
    // The half of it that was written takes no room.
    assert_eq!(set(&store, "A", "two"), Written::New(2));
    assert_eq!(set(&store, "B", "one"), Written::New(1));
}
