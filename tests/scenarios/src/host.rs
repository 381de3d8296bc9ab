//! Another machine: a container with an engine of its own and an ssh server.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::engine::label;
use crate::{Engine, Port, skip};

/// The image of all such machines; the number is raised when its content changes.
const IMAGE: (&str, &str) = ("shiplap-test-host", "trixie-1");
/// What is in it besides a small Debian.
const PACKAGES: &str = "docker.io,openssh-server,iptables,ca-certificates,iproute2";
/// The label of such containers, with the id of the process that made them.
const LABEL: &str = "shiplap-test-host";
/// For the engine in it to answer: it starts in two seconds.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// What runs in it. Its engine listens where tests reach it without ssh, too.
const START: &str = r#"
mount -o remount,rw /sys
useradd --create-home --groups docker deploy
for home in /root /home/deploy; do
  mkdir -p -m 700 $home/.ssh
  echo "$KEY" > $home/.ssh/authorized_keys
done
chown -R deploy: /home/deploy/.ssh
mkdir -p /run/sshd
/usr/sbin/sshd
exec dockerd --cgroup-parent=/$(hostname) -H unix:///var/run/docker.sock -H unix:///outside/d.sock
"#;

/// Another machine, with three free ports of this one that lead to the same ports there. Dropping it
/// removes it, in a panic too.
#[derive(Debug)]
pub struct Host {
    outer: Engine,
    id: String,
    /// Of the container, its volume and its network.
    name: String,
    address: String,
    key: String,
    ports: Vec<Port>,
    folder: tempfile::TempDir,
}

impl Host {
    /// A machine, unless no engine answers here, or its image cannot be made.
    ///
    /// # Panics
    /// If the engine refuses, or the one in the machine does not come up.
    #[must_use]
    pub fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let outer = Engine::connect()?;
        sweep(&outer);
        let image = image(&outer)?;
        let folder = tempfile::Builder::new().prefix("slhost-").tempdir();
        let folder = folder.expect("a temporary folder can be made");
        let make_key = ["-q", "-t", "ed25519", "-N", "", "-f"];
        let made =
            Command::new("ssh-keygen").args(make_key).arg(folder.path().join("key")).status();
        if !made.is_ok_and(|status| status.success()) {
            return skip("there is no ssh-keygen");
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shiplap-host-{}-{number}", std::process::id());
        let ports: Vec<Port> = (0..3).map(|_| Port::free()).collect();
        let public =
            fs::read_to_string(folder.path().join("key.pub")).expect("a key has two parts");
        let body = container(&image, &name, folder.path(), &ports, &public);
        outer.post("/networks/create", &json!({"Name": &name, "CheckDuplicate": true}));
        let made = outer.post(&format!("/containers/create?name={name}"), &body);
        let host = Self {
            id: made["Id"].as_str().expect("a container has an id").to_owned(),
            name,
            address: String::new(),
            key: String::new(),
            outer,
            ports,
            folder,
        };
        host.outer.post(&format!("/containers/{}/start", host.id), &Value::Null);
        let began = Instant::now();
        while host.engine().ping().is_err() {
            if began.elapsed() > UP_WITHIN {
                let log = host.outer.get_text(&format!("/containers/{}/logs?stderr=1", host.id));
                return skip(&format!("no engine comes up in a container: {log}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(host.known())
    }

    /// With what a client has to know of it.
    fn known(mut self) -> Self {
        let inspected = self.outer.inspect(&self.id);
        let address = inspected["NetworkSettings"]["Networks"][&self.name]["IPAddress"].as_str();
        self.address = address.expect("it is in its network").to_owned();
        self.key = self.run("cat /etc/ssh/ssh_host_ed25519_key.pub");
        self.trust(&self.key);
        let config = format!(
            "Host vm\n  HostName {}\n  IdentityFile {folder}/key\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {folder}/known\n  GlobalKnownHostsFile /dev/null\n",
            self.address,
            folder = self.folder.path().display(),
        );
        self.write("config", &config);
        let bin = self.folder.path().join("bin");
        fs::create_dir(&bin).expect("a folder can be made");
        // ssh reads the configuration in the home of its user, which is not a test's to change.
        let script = format!(
            "#!/bin/sh\nPATH={}\nexec ssh -F {}/config \"$@\"\n",
            std::env::var("PATH").unwrap_or_default(),
            self.folder.path().display()
        );
        self.write("bin/ssh", &script);
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755))
            .expect("it is ours");
        self
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.folder.path().join(name), content).expect("a file can be written");
    }

    /// Its engine, reached without ssh.
    #[must_use]
    pub fn engine(&self) -> Engine {
        Engine::at(self.folder.path().join("d.sock"))
    }

    /// The ports that lead to it.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.ports.iter().map(Port::number).collect()
    }

    /// `PATH` for programs that are to know it by the name `vm`.
    #[must_use]
    pub fn path(&self) -> String {
        let usual = std::env::var("PATH").unwrap_or_default();
        format!("{}/bin:{usual}", self.folder.path().display())
    }

    /// Makes clients believe that it has this key.
    pub fn trust(&self, key: &str) {
        self.write("known", &format!("{} {key}\n", self.address));
    }

    /// Makes clients know no key of it.
    pub fn forget_key(&self) {
        self.write("known", "");
    }

    /// A key that it does not have.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn other_key(&self) -> String {
        fs::read_to_string(self.folder.path().join("key.pub")).expect("a key has two parts")
    }

    /// Drops every packet of ssh from now on, and ends nothing: the other side hears no more.
    pub fn cut(&self) {
        self.run("iptables -I INPUT -p tcp --dport 22 -j DROP");
    }

    /// Ends every connection of ssh, and refuses new ones.
    pub fn break_off(&self) {
        self.run(
            "iptables -I INPUT -p tcp --dport 22 -j REJECT --reject-with tcp-reset; \
             pkill sshd-session",
        );
    }

    /// Lets ssh through again.
    pub fn mend(&self) {
        self.run("iptables -F INPUT");
    }

    /// Runs words of a shell in it, and returns what they print.
    ///
    /// # Panics
    /// If they fail.
    pub fn run(&self, words: &str) -> String {
        let command = json!({
            "AttachStdout": true, "AttachStderr": true, "Tty": true, "Cmd": ["sh", "-c", words],
        });
        let made = self.outer.post(&format!("/containers/{}/exec", self.id), &command);
        let exec = made["Id"].as_str().expect("an exec has an id").to_owned();
        let said = self.outer.post_text(&format!("/exec/{exec}/start"), &json!({"Tty": true}));
        let ended = self.outer.get(&format!("/exec/{exec}/json"));
        assert_eq!(ended["ExitCode"], 0, "{words}: {said}");
        said.replace("\r\n", "\n").trim().to_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let gone = [
            self.outer.delete(&format!("/containers/{}?force=1", self.id)),
            self.outer.delete(&format!("/volumes/{}?force=1", self.name)),
            self.outer.delete(&format!("/networks/{}", self.name)),
        ];
        for reason in gone.into_iter().filter_map(Result::err) {
            eprintln!("not removed: {reason}");
        }
    }
}

fn container(image: &str, name: &str, folder: &Path, ports: &[Port], key: &str) -> Value {
    let published = |port: &Port| {
        let number = port.number().to_string();
        (format!("{number}/tcp"), json!([{"HostIp": "127.0.0.1", "HostPort": number}]))
    };
    let published: serde_json::Map<String, Value> = ports.iter().map(published).collect();
    let exposed: serde_json::Map<String, Value> =
        published.keys().map(|port| (port.clone(), json!({}))).collect();
    let label = json!({ LABEL: std::process::id().to_string() });
    json!({
        "Image": image,
        "Hostname": name,
        "Labels": label,
        "Cmd": ["sh", "-c", START],
        "Env": [format!("KEY={}", key.trim())],
        "ExposedPorts": exposed,
        "HostConfig": {
            "PortBindings": published,
            // `Privileged` asks for SYS_RESOURCE too, which an engine in a container may lack.
            "CapAdd": ["ALL"],
            "CapDrop": ["SYS_RESOURCE"],
            "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
            "MaskedPaths": [],
            "ReadonlyPaths": [],
            "NetworkMode": name,
            "CgroupnsMode": "host",
            "Tmpfs": {"/run": "", "/tmp": ""},
            "Binds": [
                format!("{name}:/var/lib/docker"),
                format!("{}:/outside", folder.display()),
                "/sys/fs/cgroup:/sys/fs/cgroup:rw",
            ],
        },
    })
}

/// The image, made from Debian's packages where it is not there yet.
fn image(engine: &Engine) -> Option<String> {
    let (repository, tag) = IMAGE;
    let name = format!("{repository}:{tag}");
    let lock = File::create(std::env::temp_dir().join("shiplap-test-host.lock"));
    let lock = lock.expect("a lock file can be made");
    lock.lock().expect("nobody keeps the lock for ever");
    if engine.try_get(&format!("/images/{name}/json")).is_ok() {
        return Some(name);
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let tar: PathBuf = folder.path().join("host.tar");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", &format!("--include={PACKAGES}"), "trixie"]);
    match command.arg(&tar).output() {
        Err(error) => return skip(&format!("mmdebstrap: {error}")),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return skip(&format!("mmdebstrap cannot make another machine: {said}"));
        }
        Ok(_) => {}
    }
    let archive = fs::read(&tar).expect("it was made");
    engine.import(repository, tag, &archive);
    Some(name)
}

/// Removes what tests left that were killed: their process is gone.
fn sweep(engine: &Engine) {
    let all = engine.get(&format!("/containers/json?all=1&filters={}", label(LABEL)));
    for host in all.as_array().map(Vec::as_slice).unwrap_or_default() {
        let process = host["Labels"][LABEL].as_str().unwrap_or_default();
        if Path::new("/proc").join(process).exists() {
            continue;
        }
        // Another test may be at it as well.
        let _ =
            engine.delete(&format!("/containers/{}?force=1", host["Id"].as_str().unwrap_or("")));
        let name = host["Names"][0].as_str().unwrap_or_default().trim_start_matches('/');
        let _ = engine.delete(&format!("/volumes/{name}?force=1"));
        let _ = engine.delete(&format!("/networks/{name}"));
    }
}
