//! The acts.

use crate::contest::{Turn, Who};
use crate::projects::{ONE, many};
use shiplap_load::{Config, Load, Url, first_answer};
use shiplap_scenarios::{Lab, Peer, Run, Running, block_on};
use std::time::Duration;

/// Requests per second while a service is replaced: some 500 in each act.
const RATE: f64 = 100.0;
/// Longer than the slowest act.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A project for each of the two.
pub struct Bench {
    pub ours: Lab,
    pub theirs: Lab,
    pub peer: Peer,
}

/// What one of the two did.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The figure that is compared.
    pub seconds: f64,
    /// Until the command had ended.
    pub command_seconds: f64,
    /// Requests that were sent meanwhile.
    pub sent: u64,
    /// Requests that failed meanwhile.
    pub failed: u64,
}

impl Bench {
    fn lab(&self, who: Who) -> &Lab {
        match who {
            Who::Ours => &self.ours,
            Who::Theirs => &self.theirs,
        }
    }

    fn start(&self, who: Who, tag: &str) -> Running {
        let lab = self.lab(who);
        lab.set("TAG", tag);
        match who {
            Who::Ours => lab.start(&["deploy", "--yes"]),
            Who::Theirs => self.peer.start(lab, &["up", "-d"]),
        }
    }

    fn deploy(&self, who: Who, tag: &str) -> Run {
        self.start(who, tag).finish().ok()
    }

    fn down(&self, who: Who) {
        let lab = self.lab(who);
        // An engine sometimes believes for a moment that a network is in use; then it stays for
        // the next turn, which both may meet.
        let _ = match who {
            Who::Ours => lab.run(&["down", "--yes"]),
            Who::Theirs => self.peer.run(lab, &["down"]),
        };
        assert!(lab.engine.containers(&lab.project).is_empty(), "{} is not down", lab.project);
    }

    /// Deploys again what is there.
    pub fn nothing(&self, turn: Turn) -> Sample {
        if turn.number == 0 {
            self.lab(turn.who).compose(&many(10));
            let _ = self.deploy(turn.who, "v1");
        }
        let sample = whole(&self.deploy(turn.who, "v1"));
        if turn.is_last {
            self.down(turn.who);
        }
        sample
    }

    /// Makes another tag current, under load, until it answers.
    pub fn update(&self, turn: Turn) -> Sample {
        let tags = ["v1", "v2"];
        if turn.number == 0 {
            self.lab(turn.who).compose(ONE);
            let _ = self.deploy(turn.who, tags[0]);
        }
        let tag = tags[(turn.number + 1) % 2];
        let sample = self.served_by(turn.who, tag, || self.start(turn.who, tag));
        if turn.is_last {
            self.down(turn.who);
        }
        sample
    }

    /// Goes back to the release before, under load, until it answers. The peer deploys the old tag.
    pub fn rollback(&self, turn: Turn) -> Sample {
        if turn.number == 0 {
            self.lab(turn.who).compose(ONE);
        }
        let _ = self.deploy(turn.who, "v1");
        let _ = self.deploy(turn.who, "v2");
        let sample = self.served_by(turn.who, "v1", || match turn.who {
            Who::Ours => self.ours.start(&["rollback", "--yes"]),
            Who::Theirs => self.start(turn.who, "v1"),
        });
        if turn.is_last {
            self.down(turn.who);
        }
        sample
    }

    /// Starts many services of which nothing is there.
    pub fn start_from_nothing(&self, turn: Turn) -> Sample {
        self.lab(turn.who).compose(&many(30));
        let sample = whole(&self.deploy(turn.who, "v1"));
        self.down(turn.who);
        sample
    }

    fn served_by(&self, who: Who, tag: &str, start: impl FnOnce() -> Running) -> Sample {
        let port = self.lab(who).api;
        let url: Url = format!("http://127.0.0.1:{port}/version").parse().expect("an address");
        let load = Load::start(Config::new(url.clone(), RATE)).expect("a thread can be made");
        shiplap_scenarios::until("the load is answered", ANSWER_LIMIT, || {
            (load.snapshot().ok > 10).then_some(())
        });
        let command = start();
        let served = block_on(first_answer(&url, "x-version", tag, ANSWER_LIMIT));
        let served = served.unwrap_or_else(|error| panic!("{error}\n{}", command.said()));
        let run = command.finish().ok();
        let report = block_on(load.stop());
        Sample {
            seconds: served.as_secs_f64(),
            command_seconds: run.took.as_secs_f64(),
            sent: report.sent,
            failed: report.failed(),
        }
    }
}

/// The whole command counts.
fn whole(run: &Run) -> Sample {
    let seconds = run.took.as_secs_f64();
    Sample { seconds, command_seconds: seconds, sent: 0, failed: 0 }
}
