//! The deployer dies at every step: as soon as a line of its journal is written, and before and
//! after each call that changes something at the engine or at the edge.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use shiplap_faults::{Journal, Line, Proxy, Recorder, Requests, Treatment, pick};
use shiplap_scenarios::{Lab, Running, Traffic};

use crate::shapes::{
    ADOPT, DOWN, Disturbed, FIRST, HOLD, MANY, ROLLBACK, SCALE, Shape, Stage, Standing, UPDATE,
};

/// Between two looks at a journal: a fraction of the time that it takes to write a line.
const LOOK: Duration = Duration::from_micros(200);
/// How often a line is aimed at before it counts as too short to be met.
const TRIES: usize = 3;
/// How many points of each kind a sample has.
const SAMPLE: usize = 3;
/// Names the commands that come next, of all that are promised to work.
const NEXT_VARIABLE: &str = "SHIPLAP_FAULTS_NEXT";

/// Where it dies.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Point {
    /// When this is written.
    Line(Line),
    /// At the n-th call that changes something.
    Call { to: Side, change: usize, treatment: Treatment },
}

/// Who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Engine,
    Edge,
}

/// What comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Resume,
    Again,
    Back,
}

/// Where it died.
struct Death {
    number: u64,
    /// The place, worded alike in each deployment.
    place: String,
    /// Whether it is the one that was aimed at.
    hit: bool,
    /// Whether anything was written down of the deployment.
    begun: bool,
    /// Whether it had come to its end.
    over: bool,
    /// What it had said until then.
    said: String,
}

/// A stage with all that disturbs it and looks at it.
struct Matrix {
    stage: Stage,
    traffic: Option<Traffic>,
    journal: Journal,
    engine: Proxy,
    edge: Option<Proxy>,
    recorder: Recorder,
    places: BTreeSet<String>,
    nexts: Vec<Next>,
    trials: usize,
}

fn killed_everywhere(shape: Shape) {
    killed(shape, |_| true);
}

fn killed(shape: Shape, chosen: fn(&Point) -> bool) {
    let Some(lab) = Lab::new(&format!("flt{}", shape.purpose)) else { return };
    let mut matrix = Matrix::of(Stage::set(lab, shape));
    let points = matrix.points();
    for point in points.iter().filter(|point| chosen(point)) {
        matrix.aim(point);
    }
    matrix.end();
}

impl Matrix {
    fn of(stage: Stage) -> Self {
        let fault = format!("kill -9 of the deployer: {}", stage.shape.name);
        let promise = match stage.shape.disturbed {
            Disturbed::First | Disturbed::Down => "there entirely, or not at all",
            Disturbed::Adopt => "taken over, or as Compose left it",
            _ => "the new release or the old one, every request answered, each job once",
        };
        let nexts = nexts(stage.shape.disturbed);
        let engine = Proxy::start(&stage.lab.dir().join("e.sock"), stage.lab.engine.socket());
        // There is a ledger from the beginning: looking for the first line must not make it.
        let _ = stage.lab.run(&["history"]);
        if matches!(stage.shape.disturbed, Disturbed::First | Disturbed::Adopt) {
            let mut stage = stage;
            stage.deploy(stage.target());
            stage.clear();
            return Self::with(stage, engine, &fault, promise, nexts);
        }
        Self::with(stage, engine, &fault, promise, nexts)
    }

    fn with(stage: Stage, engine: Proxy, fault: &str, promise: &str, nexts: Vec<Next>) -> Self {
        let (journal, traffic) = (Journal::of(&stage.lab), stage.traffic());
        let edge = Some(edge_proxy(&stage.lab));
        let recorder = Recorder::new("A deployer that dies", fault, promise);
        let places = BTreeSet::new();
        Self { stage, traffic, journal, engine, edge, recorder, places, nexts, trials: 0 }
    }

    /// Runs once undisturbed in each direction, to learn where it can be stopped.
    fn points(&mut self) -> Vec<Point> {
        let mut lines: Vec<Line> = Vec::new();
        let mut calls = [0, 0];
        for _ in 0..2 {
            self.stage.reset();
            let target = self.stage.target();
            for proxy in self.proxies() {
                proxy.treat(|_| Treatment::Pass);
            }
            let number = self.journal.newest() + 1;
            let run = self.start(target).finish().exits(0);
            drop(run);
            self.stage.now = target;
            for line in self.journal.lines(number) {
                if !lines.contains(&line) {
                    lines.push(line);
                }
            }
            for (most, proxy) in calls.iter_mut().zip(self.proxies()) {
                let changes = proxy.calls().iter().filter(|call| call.change.is_some()).count();
                *most = changes.max(*most);
            }
        }
        self.stage.reset();
        let mut points = pick(lines.into_iter().map(Point::Line).collect(), SAMPLE);
        for (to, most) in [Side::Engine, Side::Edge].into_iter().zip(calls) {
            // Of many services, what happens before a call is what happens when its step is begun.
            let moments: &[Treatment] = match self.stage.shape.job {
                Some(_) => &[Treatment::HoldAfter],
                None => &[Treatment::HoldBefore, Treatment::HoldAfter],
            };
            let at = |change| {
                moments.iter().map(move |&treatment| Point::Call { to, change, treatment })
            };
            points.extend(pick((1..=most).flat_map(at).collect(), SAMPLE));
        }
        points
    }

    fn proxies(&self) -> Vec<&Proxy> {
        [&self.engine].into_iter().chain(&self.edge).collect()
    }

    fn start(&self, target: Standing) -> Running {
        let words = self.stage.words(target);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.stage.lab.start_with(&words, &[("DOCKER_HOST", &self.engine.address())])
    }

    /// Aims at a point until it is hit, or has proved too short.
    fn aim(&mut self, point: &Point) {
        for _ in 0..TRIES {
            if self.trial(point) {
                return;
            }
        }
        self.recorder.came("too short to be met");
    }

    /// Kills it there, lets the next command put things in order, and looks at everything.
    fn trial(&mut self, point: &Point) -> bool {
        self.stage.reset();
        let (old, new) = (self.stage.now, self.stage.target());
        let _before = Requests::since_last(self.traffic.as_ref());
        let jobs = self.stage.job_runs();
        // Shifted once per round: points come in pairs, and would always be followed by the same.
        let number = self.nexts.len();
        let next = self.nexts[(self.trials + self.trials / number) % number];
        self.trials += 1;
        let death = self.kill(point, new);
        for proxy in self.proxies() {
            proxy.treat(|_| Treatment::Pass);
        }
        // There is nothing to go back from where it had ended by then, or had not begun.
        let is_open = death.begun && !death.over;
        let next = if !is_open && next == Next::Back { Next::Again } else { next };
        let mut wrong = Vec::new();
        let run = self.follow(next, new);
        let said = run.all();
        let allowed: &[i32] = match next {
            Next::Again => &[0],
            _ if death.over => &[0, 1],
            Next::Resume | Next::Back => &[0, 3],
        };
        if !run.code.is_some_and(|code| allowed.contains(&code)) {
            wrong.push(format!("it ended with {:?}", run.code));
        }
        let is_new = self.stage.expected(new).runs(&self.stage.lab);
        let came = match next {
            Next::Again => new,
            Next::Back => old,
            Next::Resume if death.over || is_new => new,
            Next::Resume => old,
        };
        let inspection = self.stage.inspect(came);
        wrong.extend(inspection.wrong);
        let ran = self.stage.job_runs() - jobs;
        if ran > 1 || (came == new && self.stage.shape.job.is_some() && ran != 1) {
            wrong.push(format!("the job ran {ran} times"));
        }
        let requests = Requests::since_last(self.traffic.as_ref());
        wrong.extend(requests.complaint());
        let seen = &mut self.recorder.seen;
        seen.leaks += inspection.leaks;
        seen.requests += requests.sent;
        seen.failed += requests.failed();
        if !death.over {
            seen.crash_points += 1;
            self.places.insert(death.place.clone());
        }
        if wrong.is_empty() {
            let to = if came == new { "new" } else { "old" };
            self.recorder.came(to);
            self.stage.now = came;
        } else {
            let (number, place) = (death.number, &death.place);
            let wrong = wrong.join("\n    ");
            self.recorder.broke(format!(
                "deployment {number} killed at {place}, then {next:?}:\n    {wrong}\n{}{said}",
                death.said
            ));
            // What is not answered while things are put in order is nobody's fault.
            drop(self.traffic.take().map(Traffic::end));
            self.stage.heal();
            self.traffic = self.stage.traffic();
        }
        self.stage.lab.end_background();
        death.hit
    }

    fn kill(&self, point: &Point, target: Standing) -> Death {
        let number = self.journal.newest() + 1;
        let proxy = match point {
            Point::Line(_) => None,
            Point::Call { to: Side::Engine, .. } => Some(&self.engine),
            Point::Call { to: Side::Edge, .. } => self.edge.as_ref(),
        };
        if let (Some(proxy), Point::Call { change, treatment, .. }) = (proxy, point) {
            let (wanted, treatment) = (Some(*change), *treatment);
            proxy
                .treat(move |call| if call.change == wanted { treatment } else { Treatment::Pass });
        }
        let mut deployer = self.start(target);
        let (mut held, mut written) = (None, Vec::new());
        match (point, proxy) {
            (Point::Call { .. }, Some(proxy)) => held = proxy.held(|| deployer.is_running()),
            (Point::Line(line), _) => {
                // Several lines may appear at once, where steps are side by side.
                written = self.journal.lines(number);
                while !written.contains(line) && deployer.is_running() {
                    std::thread::sleep(LOOK);
                    written = self.journal.lines(number);
                }
            }
            (Point::Call { .. }, None) => unreachable!("such a point needs an edge"),
        }
        deployer.signal(Signal::KILL);
        let run = deployer.finish();
        assert!(matches!(run.code, None | Some(0)), "{}", run.all());
        let lines = self.journal.lines(number);
        let last = lines.last().map_or("nothing written".to_owned(), Line::to_string);
        let over = run.code.is_some() || self.journal.outcome(number).is_some();
        let (place, hit) = match (point, held) {
            (Point::Line(line), _) if !over && lines == written => (line.to_string(), true),
            (Point::Line(_), _) => (last, false),
            (Point::Call { treatment, .. }, Some(call)) => {
                let when = if *treatment == Treatment::HoldBefore { "before" } else { "after" };
                (format!("{when} {} {}, {last}", call.method, class(&call.path)), true)
            }
            (Point::Call { .. }, None) => (last, false),
        };
        let begun = self.journal.newest() >= number;
        Death { number, place, hit, begun, over, said: run.all() }
    }

    fn follow(&self, next: Next, target: Standing) -> shiplap_scenarios::Run {
        let lab = &self.stage.lab;
        let standby = self.stage.shape.standby;
        match next {
            Next::Resume => {
                self.stage.announce(target);
                lab.run(&["resume", "--yes", "--standby", standby])
            }
            Next::Again => {
                let words = self.stage.words(target);
                lab.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
            }
            Next::Back => lab.run(&["rollback", "--yes", "--standby", standby]),
        }
    }

    fn end(mut self) {
        self.recorder.seen.distinct = self.places.len() as u64;
        // The edge's own socket goes back to its place.
        self.edge = None;
        let folder = self.stage.lab.edge_dir();
        std::fs::rename(folder.join("real.sock"), folder.join("admin.sock")).expect("it is there");
        if let Some(traffic) = self.traffic.take() {
            drop(traffic.end());
        }
        self.recorder.finish();
    }
}

/// What can come next, and must put things in order.
fn nexts(disturbed: Disturbed) -> Vec<Next> {
    let named = std::env::var(NEXT_VARIABLE).unwrap_or_default();
    let all = [("resume", Next::Resume), ("again", Next::Again), ("back", Next::Back)];
    let some = all.into_iter().filter(|(name, next)| {
        let chosen = named.is_empty() || named.split(',').any(|word| word == *name);
        // There is nothing before the first deployment, and nothing that `down` left.
        let fits = *next != Next::Back
            || !matches!(disturbed, Disturbed::First | Disturbed::Down | Disturbed::Adopt);
        chosen && fits
    });
    some.map(|(_, next)| next).collect()
}

/// In front of the admin socket of a lab's edge.
fn edge_proxy(lab: &Lab) -> Proxy {
    let socket = lab.edge_dir().join("admin.sock");
    let real = lab.edge_dir().join("real.sock");
    // A listening socket goes along with its name.
    std::fs::rename(&socket, &real).expect("the edge runs");
    Proxy::start(&socket, &real)
}

/// `/containers/4f1c…/start` as `/containers/start`.
fn class(path: &str) -> String {
    let plain = |part: &&str| part.len() < 20 && !part.contains("shiplap-scn");
    path.split('/').filter(plain).collect::<Vec<_>>().join("/")
}

#[test]
fn start_first_update() {
    killed_everywhere(UPDATE);
}

#[test]
fn stop_first_update_with_hold() {
    killed_everywhere(HOLD);
}

#[test]
fn several_services_with_dependencies_and_a_job_at_lines_of_the_journal() {
    killed(MANY, |point| matches!(point, Point::Line(_)));
}

#[test]
fn several_services_with_dependencies_and_a_job_at_calls() {
    killed(MANY, |point| matches!(point, Point::Call { .. }));
}

#[test]
fn rollback() {
    killed_everywhere(ROLLBACK);
}

#[test]
fn first_deployment() {
    killed_everywhere(FIRST);
}

#[test]
fn scaling() {
    killed_everywhere(SCALE);
}

#[test]
fn taking_down() {
    killed_everywhere(DOWN);
}

#[test]
fn taking_over_from_compose() {
    killed_everywhere(ADOPT);
}
