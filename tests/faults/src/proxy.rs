//! Stands between a deployer and a Unix socket (of the engine, or of the edge), and can spoil any
//! call.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Longest head of a request or an answer; the engine's are a few hundred bytes.
const MAX_HEAD: usize = 64 * 1024;
/// How long a call may be held: longer than any test waits for it.
const HOLD_LIMIT: Duration = Duration::from_secs(60);

/// A call that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which one, from 1.
    pub number: usize,
    /// Which one of those that change something, from 1; `None` for one that only looks.
    pub change: Option<usize>,
    /// `POST`.
    pub method: String,
    /// Its path without the version of the API and without its query.
    pub path: String,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It is passed on.
    Pass,
    /// It is passed on later.
    Delay(Duration),
    /// It is answered with status 500, and not passed on.
    Refuse,
    /// Its connection is closed, and it is not passed on.
    CutBefore,
    /// It is passed on; its answer is not.
    CutAfter,
    /// It is not passed on, and nothing is answered.
    HoldBefore,
    /// It is passed on; when the answer is there, nothing is answered.
    HoldAfter,
}

type Rule = Box<dyn Fn(&Call) -> Treatment + Send + Sync>;

/// A proxy. Dropping it closes its socket.
pub struct Proxy {
    path: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: PathBuf,
    rule: Mutex<Rule>,
    state: Mutex<State>,
    changed: Condvar,
    closed: AtomicBool,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    held: Option<Call>,
    spoiled: u64,
    /// Both ends of what is open, to be cut all at once.
    open: Vec<(UnixStream, UnixStream)>,
}

impl Proxy {
    /// Listens at `path` for calls to `upstream`, and passes all on.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn start(path: &Path, upstream: &Path) -> Self {
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            rule: Mutex::new(Box::new(|_| Treatment::Pass)),
            state: Mutex::default(),
            changed: Condvar::new(),
            closed: AtomicBool::new(false),
        });
        let proxy = Self { path: path.to_owned(), shared };
        proxy.listen();
        proxy
    }

    /// Its socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As `DOCKER_HOST` names it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// From now on treats calls so, and counts them from 1.
    ///
    /// # Panics
    /// If a thread of it panicked.
    pub fn treat(&self, rule: impl Fn(&Call) -> Treatment + Send + Sync + 'static) {
        *self.shared.rule.lock().expect("no rule panics") = Box::new(rule);
        *self.state() = State::default();
    }

    /// The calls that came since.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How many of them were not simply passed on.
    #[must_use]
    pub fn spoiled(&self) -> u64 {
        self.state().spoiled
    }

    /// The call that is held now; waits for one while `go_on` says so.
    ///
    /// # Panics
    /// If a thread of it panicked.
    pub fn held(&self, mut go_on: impl FnMut() -> bool) -> Option<Call> {
        let mut state = self.state();
        loop {
            if state.held.is_some() {
                return state.held.clone();
            }
            if !go_on() {
                return None;
            }
            let pause = Duration::from_millis(5);
            state = self.shared.changed.wait_timeout(state, pause).expect("no holder panics").0;
        }
    }

    /// Closes its socket and cuts what is open: nobody is reached, as if the engine were gone.
    pub fn vanish(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts, which then lets go of its socket.
        let _ = UnixStream::connect(&self.path);
        let _ = fs::remove_file(&self.path);
        for (from, to) in self.state().open.drain(..) {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        }
    }

    /// Listens again.
    ///
    /// # Panics
    /// If it cannot.
    pub fn listen(&self) {
        let _ = fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path);
        let listener = listener.unwrap_or_else(|e| panic!("{}: {e}", self.path.display()));
        self.shared.closed.store(false, Ordering::SeqCst);
        let shared = self.shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.closed.load(Ordering::SeqCst) {
                    break;
                }
                let shared = shared.clone();
                // Who is cut off is told by that; there is nobody else to tell.
                std::thread::spawn(move || drop(serve(&shared, client)));
            }
        });
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().expect("no holder panics")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.vanish();
    }
}

/// One connection, which carries one call: both sides are told that it is the last one.
fn serve(shared: &Shared, mut client: UnixStream) -> io::Result<()> {
    let Some((head, rest)) = read_head(&mut client)? else { return Ok(()) };
    let call = shared.arrived(&head);
    let treatment = (shared.rule.lock().expect("no rule panics"))(&call);
    if treatment != Treatment::Pass {
        shared.state.lock().expect("no holder panics").spoiled += 1;
    }
    match treatment {
        Treatment::Pass => {}
        Treatment::Delay(time) => std::thread::sleep(time),
        Treatment::Refuse => {
            let text = r#"{"message":"something went wrong inside of the engine"}"#;
            write!(
                client,
                "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
                 Connection: close\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            )?;
            client.shutdown(Shutdown::Write)?;
            // Closing with a body unread would reset the connection before the answer is read.
            return io::copy(&mut client, &mut io::sink()).map(drop);
        }
        Treatment::CutBefore => return client.shutdown(Shutdown::Both),
        Treatment::HoldBefore => return shared.hold(call, &mut client),
        Treatment::CutAfter | Treatment::HoldAfter => {}
    }
    let mut engine = UnixStream::connect(&shared.upstream)?;
    shared.opened(&client, &engine)?;
    engine.write_all(&last_of_its_connection(&head))?;
    engine.write_all(&rest)?;
    let (mut body, mut to) = (client.try_clone()?, engine.try_clone()?);
    std::thread::spawn(move || {
        // For what is upgraded, the end of one direction is news for the other side.
        let _ = io::copy(&mut body, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    match treatment {
        Treatment::CutAfter => {
            io::copy(&mut engine, &mut io::sink())?;
            client.shutdown(Shutdown::Both)
        }
        Treatment::HoldAfter => {
            io::copy(&mut engine, &mut io::sink())?;
            shared.hold(call, &mut client)
        }
        _ => {
            io::copy(&mut engine, &mut client)?;
            client.shutdown(Shutdown::Both)
        }
    }
}

impl Shared {
    fn arrived(&self, head: &str) -> Call {
        let mut words = head.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let path = match path.strip_prefix("/v1.").and_then(|rest| rest.find('/')) {
            Some(end) => path[end + 4..].to_owned(),
            None => path.to_owned(),
        };
        // Health checks that we run change nothing.
        let looks = matches!(method.as_str(), "GET" | "HEAD") || path.contains("/exec");
        let mut state = self.state.lock().expect("no holder panics");
        let changes = state.calls.iter().filter(|call| call.change.is_some()).count();
        let change = (!looks).then_some(changes + 1);
        let call = Call { number: state.calls.len() + 1, change, method, path };
        state.calls.push(call.clone());
        call
    }

    fn opened(&self, client: &UnixStream, engine: &UnixStream) -> io::Result<()> {
        let pair = (client.try_clone()?, engine.try_clone()?);
        self.state.lock().expect("no holder panics").open.push(pair);
        Ok(())
    }

    /// Says that it holds a call, and keeps it until the caller is gone.
    fn hold(&self, call: Call, client: &mut UnixStream) -> io::Result<()> {
        self.state.lock().expect("no holder panics").held = Some(call);
        self.changed.notify_all();
        client.set_read_timeout(Some(HOLD_LIMIT))?;
        io::copy(client, &mut io::sink()).map(drop)
    }
}

/// The head of a request, with what came behind it; nothing if nothing came.
fn read_head(client: &mut UnixStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), rest)));
        }
        let read = client.read(&mut part)?;
        if read == 0 || bytes.len() > MAX_HEAD {
            return Ok(None);
        }
        bytes.extend_from_slice(&part[..read]);
    }
}

/// The same head, which asks the other side to close afterwards, unless it asks for an upgrade.
fn last_of_its_connection(head: &str) -> Vec<u8> {
    let lower = head.to_ascii_lowercase();
    if lower.contains("\r\nupgrade:") {
        return head.as_bytes().to_vec();
    }
    let lines = head.trim_end().split("\r\n");
    let kept: Vec<&str> =
        lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:")).collect();
    format!("{}\r\nConnection: close\r\n\r\n", kept.join("\r\n")).into_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Proxy, Treatment};

    /// Answers every call with 204, and counts them.
    fn upstream(path: &Path) -> Arc<AtomicUsize> {
        let (listener, served) = (UnixListener::bind(path).unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = served.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = [0; 1024];
                let read = stream.read(&mut head).unwrap();
                assert!(String::from_utf8_lossy(&head[..read]).contains("Connection: close"));
                count.fetch_add(1, Ordering::SeqCst);
                stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
            }
        });
        served
    }

    fn call(proxy: &Proxy, method: &str, path: &str) -> String {
        let mut stream = UnixStream::connect(proxy.path()).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        // Being cut off is an answer too.
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn each_call_is_treated_as_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let served = upstream(&folder.path().join("up"));
        let proxy = Proxy::start(&folder.path().join("proxy"), &folder.path().join("up"));
        assert!(call(&proxy, "GET", "/v1.41/info").starts_with("HTTP/1.1 204"));
        for (treatment, answer, reached) in [
            (Treatment::Refuse, "HTTP/1.1 500", 1),
            (Treatment::CutBefore, "", 1),
            (Treatment::CutAfter, "", 2),
            (Treatment::Pass, "HTTP/1.1 204", 3),
        ] {
            proxy.treat(
                move |call| if call.change == Some(1) { treatment } else { Treatment::Pass },
            );
            let got = call(&proxy, "POST", "/v1.41/containers/create?name=a");
            assert!(got.starts_with(answer) && got.is_empty() == answer.is_empty(), "{got}");
            assert_eq!(served.load(Ordering::SeqCst), reached, "{treatment:?}");
            assert_eq!(proxy.calls()[0].path, "/containers/create");
        }
    }

    #[test]
    fn one_that_vanished_is_reached_when_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let _served = upstream(&folder.path().join("up"));
        let proxy = Proxy::start(&folder.path().join("proxy"), &folder.path().join("up"));
        proxy.vanish();
        assert!(UnixStream::connect(proxy.path()).is_err());
        proxy.listen();
        assert!(call(&proxy, "GET", "/_ping").starts_with("HTTP/1.1 204"));
    }
}
