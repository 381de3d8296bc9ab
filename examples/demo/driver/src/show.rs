//! The show: images, acts, and afterwards a clean stage.

use crate::act::{Act, Containers, Done, UNDER_LOAD, shown};
use crate::engine::Engine;
use crate::folder::Folder;
use crate::live::View;
use crate::tool::{Order, RUN_TIMEOUT, Tool};
use crate::traffic::Traffic;
use shiplap_load::{Report, Running};
use std::time::Duration;
use tokio::sync::Notify;

/// Each image and the fault that is built into it.
const RELEASES: [(&str, &str); 3] = [("v1", ""), ("v2", ""), ("v3", "health")];
/// How long after an act the expected version may take to answer alone.
const SETTLE: Duration = Duration::from_secs(10);
/// Load before the first act and after each: what an act breaks late is still its doing.
const TAIL: Duration = Duration::from_secs(1);
/// Lines written to the store in the beginning, to be found again in the end.
const LINES: u32 = 20;

/// Everything that the acts need.
pub struct Show {
    pub engine: Engine,
    pub tool: Tool,
    pub folder: Folder,
    pub traffic: Traffic,
    pub view: View,
}

impl Show {
    /// Plays all acts but the removal; `done` gets what each did.
    pub async fn play(&self, done: &mut Vec<Done>) -> Result<(), String> {
        self.view.during("build three images", &[], self.build()).await?;
        let (first, answered) = self.first_deploy().await?;
        done.push(first);
        // Without a first version there is nothing to show.
        answered?;
        let written = self.traffic.append(LINES).await?.ok;

        let load = self.traffic.start()?;
        self.view.during("load, steady", &load, tokio::time::sleep(TAIL)).await;
        for act in &UNDER_LOAD {
            let result = self.act(act, &load).await?;
            self.announce(&result);
            done.push(result);
        }
        let reports = stop_all(load).await;
        let last = done.last_mut().expect("acts were played");
        let late: u64 = reports.iter().map(|report| report.failed()).sum();
        if late > 0 {
            last.problems.push(format!("{late} requests failed after the act"));
        }
        let found = self.traffic.count().await?;
        if written != u64::from(LINES) || found != written {
            let text = format!("of {LINES} lines written to the store {written} were acknowledged");
            last.problems.push(format!("{text}, {found} were found in the end"));
        }
        Ok(())
    }

    async fn build(&self) -> Result<(), String> {
        let context = self.folder.context()?;
        for (version, fault) in RELEASES {
            let arguments = serde_json::json!({ "VERSION": version, "FAULT": fault });
            self.engine.build(&image(version), &arguments, &context).await?;
        }
        Ok(())
    }

    /// Nothing runs yet, so there is no load; all services must answer when it has ended.
    async fn first_deploy(&self) -> Result<(Done, Result<(), String>), String> {
        let title = "deploy v1";
        let ended = Notify::new();
        let run = async {
            let run = self.tool.run(Order::Deploy("v1"), &self.folder).await;
            ended.notify_one();
            run
        };
        let answered = async {
            let late = async {
                ended.notified().await;
                tokio::time::sleep(SETTLE).await;
            };
            tokio::select! {
                answered = self.traffic.all_answer("v1", RUN_TIMEOUT) => answered,
                () = late => Err(format!("`v1` did not answer within {SETTLE:?} after the act")),
            }
        };
        let work = async { tokio::join!(run, answered) };
        let (run, answered) = self.view.during(title, &[], work).await;
        let run = run?;
        let mut problems = Vec::new();
        if run.exit != Some(0) {
            problems.push(format!("exit code {}, not 0", shown(run.exit)));
        }
        let done = Done {
            title,
            expected_exit: 0,
            exit: run.exit,
            took: run.took,
            answered_after: answered.iter().flatten().copied().map(Some).collect(),
            reports: Vec::new(),
            problems,
            output: run.output,
        };
        self.announce(&done);
        Ok((done, answered.map(drop)))
    }

    async fn act(&self, act: &Act, load: &[Running]) -> Result<Done, String> {
        let before = self.engine.running(&self.folder.project).await?;
        // What ended between two acts belongs to no act, but is no less a failure.
        let between: u64 = load.iter().map(|running| running.cut().failed()).sum();
        let work = async {
            let run = self.tool.run(act.order, &self.folder).await?;
            let settled = self.traffic.all_answer(act.answers, SETTLE).await;
            tokio::time::sleep(TAIL).await;
            Ok::<_, String>((run, settled))
        };
        let (run, settled) = self.view.during(act.title, load, work).await?;
        let reports: Vec<_> = load.iter().map(Running::cut).collect();
        let after = self.engine.running(&self.folder.project).await?;

        let first_answer = |report: &Report| Some(report.tags.get(act.answers)?.first);
        let answered_after = match act.containers {
            Containers::Replaced => reports.iter().map(first_answer).collect(),
            Containers::Untouched => Vec::new(),
        };
        let mut done = Done {
            title: act.title,
            expected_exit: act.exit,
            exit: run.exit,
            took: run.took,
            answered_after,
            reports,
            problems: Vec::new(),
            output: run.output,
        };
        done.judge(act);
        done.problems.extend(settled.err());
        if between > 0 {
            done.problems.push(format!("{between} requests failed before the act"));
        }
        if act.containers == Containers::Untouched && before != after {
            done.problems.push("running containers were replaced".into());
        }
        Ok(done)
    }

    fn announce(&self, done: &Done) {
        let mark = if done.problems.is_empty() { "✓" } else { "✗" };
        let (title, took) = (done.title, done.took.as_secs_f64());
        self.view.say(&format!("{mark} {title}  {took:.1} s, exit code {}", shown(done.exit)));
        for problem in &done.problems {
            self.view.say(&format!("    {problem}"));
        }
    }

    /// The last act: the project and its data go.
    pub async fn remove(&self) -> Result<Done, String> {
        let title = "down";
        let run = self.tool.run(Order::Down, &self.folder);
        let run = self.view.during(title, &[], run).await?;
        let mut problems = Vec::new();
        if run.exit != Some(0) {
            problems.push(format!("exit code {}, not 0", shown(run.exit)));
        }
        let left = self.engine.objects(&self.folder.project).await?;
        if !left.is_empty() {
            problems.push(format!("left behind: {}", left.join(" ")));
        }
        let done = Done {
            title,
            expected_exit: 0,
            exit: run.exit,
            took: run.took,
            answered_after: Vec::new(),
            reports: Vec::new(),
            problems,
            output: run.output,
        };
        self.announce(&done);
        Ok(done)
    }

    /// Removes whatever is still there, however far the show came; says what it could not.
    pub async fn clean_up(&self) {
        let mut problems = Vec::new();
        match self.engine.objects(&self.folder.project).await {
            Ok(objects) => {
                for object in objects {
                    problems.extend(self.engine.remove(&object).await.err());
                }
            }
            Err(error) => problems.push(error),
        }
        for (version, _) in RELEASES {
            // The show may have ended before it was built.
            let removed = self.engine.remove_image(&image(version)).await;
            problems.extend(removed.err().filter(|error| !error.contains("answered 404")));
        }
        problems.extend(self.folder.remove().err());
        for problem in problems {
            self.view.say(&format!("warning: cleaning up: {problem}"));
        }
    }
}

async fn stop_all(load: Vec<Running>) -> Vec<Report> {
    // All of them stop sending before the first is waited for.
    load.iter().for_each(Running::end);
    let mut reports = Vec::new();
    for running in load {
        reports.push(running.finished().await);
    }
    reports
}

fn image(version: &str) -> String {
    format!("shiplap-demo/app:{version}")
}
