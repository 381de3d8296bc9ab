//! What an [`Engine`] promises.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use shiplap_model::{
    AnonymousVolumes, ContainerState, CreateReplica, Created, DEPLOYMENT, Desired, Engine,
    EngineError, EngineErrorKind, EngineNetwork, EngineVolume, GENERATION, Mark, MarkStanding,
    Scope,
};

/// An engine, and a project that nobody else has on it.
pub struct Ground {
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// Services `api`, which runs until it is stopped, and `linked`, which is on the network
    /// besides. Their images are there.
    pub desired: Desired,
    /// A replica of `api` that is not there yet.
    pub api: CreateReplica,
    /// A replica of `linked` that is not there yet.
    pub linked: CreateReplica,
    /// The network of `linked`, which is not there yet.
    pub network: EngineNetwork,
    /// A volume that is not there yet.
    pub volume: EngineVolume,
    /// Whatever removes all this in the end.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Makes a test of each promise of an engine.
#[macro_export]
macro_rules! engine_contract {
    ($ground:path) => {
        $crate::contract!(
            engine,
            $ground,
            [
                making_a_container_that_exists_returns_it,
                what_another_lease_made_and_never_started_is_made_anew,
                making_a_container_of_a_taken_name_is_a_conflict,
                a_made_container_does_not_run,
                starting_a_running_container_is_no_error,
                a_container_that_has_ended_runs_again_when_it_is_started,
                starting_what_is_not_there_is_not_found,
                stopping_a_stopped_container_is_no_error,
                stopping_what_is_not_there_is_not_found,
                freezing_and_thawing_twice_is_no_error,
                freezing_what_does_not_run_is_a_conflict,
                thawing_what_does_not_run_is_a_conflict,
                starting_a_frozen_container_is_a_conflict,
                renaming_twice_is_no_error,
                renaming_by_id_finds_it_under_any_name,
                renaming_to_a_taken_name_is_a_conflict,
                renaming_what_is_not_there_is_not_found,
                removing_twice_is_no_error,
                removing_kills_what_runs,
                a_restart_policy_can_be_set_twice_and_on_nothing,
                a_command_ends_with_its_code,
                a_command_in_what_does_not_run_is_a_conflict,
                what_is_not_there_is_nothing,
                questions_about_what_is_not_there_are_not_found,
                making_a_network_twice_is_no_error,
                removing_a_network_twice_is_no_error,
                removing_a_network_that_is_used_is_a_conflict,
                making_a_volume_twice_is_no_error,
                removing_a_volume_twice_is_no_error,
                tagging_what_is_not_there_is_not_found,
                removing_an_image_that_is_not_there_is_no_error,
                the_first_mark_of_a_number_stays,
                marks_come_in_order_and_go_when_asked,
                marks_of_other_scopes_are_not_seen,
            ]
        );
    };
}

impl Ground {
    async fn make(&self) -> String {
        self.create(&self.api).await.id().to_owned()
    }

    async fn create(&self, replica: &CreateReplica) -> Created {
        self.engine.create(&self.desired, replica).await.unwrap()
    }

    async fn run(&self) -> String {
        let id = self.make().await;
        self.engine.start(&id).await.unwrap();
        id
    }

    async fn state(&self, container: &str) -> Option<ContainerState> {
        self.engine.container(container).await.unwrap().map(|found| found.state)
    }

    fn name(&self) -> &str {
        &self.api.name
    }

    fn nobody(&self) -> String {
        format!("{}-nobody", self.desired.project)
    }

    fn mark(&self, sequence: u64, nonce: &str) -> Mark {
        Mark {
            scope: self.scope(),
            sequence,
            generation: 3,
            standing: MarkStanding::Held,
            holder: "ada@vm1 (process 9)".to_owned(),
            nonce: nonce.to_owned(),
            ledger: "this one".to_owned(),
            since_ms: 1_700_000_000_000,
            ttl_ms: 30_000,
        }
    }

    fn scope(&self) -> Scope {
        Scope { project: self.desired.project.clone(), environment: "default".to_owned() }
    }
}

/// The test containers end when they are told to.
const GRACE: Option<Duration> = Some(Duration::from_secs(5));

#[track_caller]
fn fails_as<T: std::fmt::Debug>(result: Result<T, EngineError>, kind: EngineErrorKind) {
    assert_eq!(result.unwrap_err().kind, kind);
}

fn is_ended(state: Option<ContainerState>) -> bool {
    matches!(state, Some(ContainerState::Exited(_)))
}

/// `create`: an existing container of that name and the same labels is what was asked for.
pub async fn making_a_container_that_exists_returns_it(ground: &Ground) {
    let made = ground.create(&ground.api).await;
    let Created::Made(id) = made else { panic!("{made:?}: there was none") };
    assert_eq!(ground.create(&ground.api).await, Created::Found(id.clone()));
    ground.engine.start(&id).await.unwrap();
    assert_eq!(ground.create(&ground.api).await, Created::Found(id));
}

/// `create`: whoever made it may still remove it, unless it has run.
pub async fn what_another_lease_made_and_never_started_is_made_anew(ground: &Ground) {
    let of_lease = |generation: &str| {
        let mut replica = ground.api.clone();
        replica.labels.insert(GENERATION.to_owned(), generation.to_owned());
        replica
    };
    let first = ground.create(&of_lease("1")).await;
    let second = ground.create(&of_lease("2")).await;
    let Created::Made(id) = second else { panic!("{second:?} instead of a new one") };
    assert_eq!(ground.state(first.id()).await, None);
    ground.engine.start(&id).await.unwrap();
    assert_eq!(ground.create(&of_lease("3")).await, Created::Found(id));
}

/// `create`: one of another deployment is not.
pub async fn making_a_container_of_a_taken_name_is_a_conflict(ground: &Ground) {
    ground.make().await;
    let mut other = ground.api.clone();
    other.labels.insert(DEPLOYMENT.to_owned(), "8".to_owned());
    let made = ground.engine.create(&ground.desired, &other).await;
    fails_as(made, EngineErrorKind::Conflict);
}

/// `create`: not started.
pub async fn a_made_container_does_not_run(ground: &Ground) {
    let id = ground.make().await;
    assert_eq!(ground.state(&id).await, Some(ContainerState::Created));
    assert_eq!(ground.state(ground.name()).await, Some(ContainerState::Created));
}

/// `start`: one that runs is no error.
pub async fn starting_a_running_container_is_no_error(ground: &Ground) {
    let id = ground.run().await;
    ground.engine.start(&id).await.unwrap();
    assert_eq!(ground.state(&id).await, Some(ContainerState::Running));
}

/// `start`: one that has ended runs once more.
pub async fn a_container_that_has_ended_runs_again_when_it_is_started(ground: &Ground) {
    let id = ground.run().await;
    ground.engine.stop(&id, GRACE).await.unwrap();
    let ended = ground.engine.container(&id).await.unwrap().unwrap();
    ground.engine.start(&id).await.unwrap();
    let again = ground.engine.container(&id).await.unwrap().unwrap();
    assert_eq!(again.state, ContainerState::Running);
    assert!(again.started_ms >= ended.started_ms);
}

/// `start`: nothing is started that is not there.
pub async fn starting_what_is_not_there_is_not_found(ground: &Ground) {
    fails_as(ground.engine.start(&ground.nobody()).await, EngineErrorKind::NotFound);
}

/// `stop`: one that does not run is no error, whether it ever ran or not.
pub async fn stopping_a_stopped_container_is_no_error(ground: &Ground) {
    let id = ground.make().await;
    ground.engine.stop(&id, GRACE).await.unwrap();
    assert_eq!(ground.state(&id).await, Some(ContainerState::Created));
    ground.engine.start(&id).await.unwrap();
    for _ in 0..2 {
        ground.engine.stop(&id, GRACE).await.unwrap();
        assert!(is_ended(ground.state(&id).await));
    }
}

/// `stop`: nothing is stopped that is not there.
pub async fn stopping_what_is_not_there_is_not_found(ground: &Ground) {
    fails_as(ground.engine.stop(&ground.nobody(), GRACE).await, EngineErrorKind::NotFound);
}

/// `pause`, `unpause`: one that is so already is no error.
pub async fn freezing_and_thawing_twice_is_no_error(ground: &Ground) {
    let id = ground.run().await;
    for _ in 0..2 {
        ground.engine.pause(&id).await.unwrap();
        assert_eq!(ground.state(&id).await, Some(ContainerState::Paused));
    }
    for _ in 0..2 {
        ground.engine.unpause(&id).await.unwrap();
        assert_eq!(ground.state(&id).await, Some(ContainerState::Running));
    }
}

/// `pause`: one that does not run is a conflict.
pub async fn freezing_what_does_not_run_is_a_conflict(ground: &Ground) {
    let id = ground.make().await;
    fails_as(ground.engine.pause(&id).await, EngineErrorKind::Conflict);
    fails_as(ground.engine.pause(&ground.nobody()).await, EngineErrorKind::NotFound);
}

/// `unpause`: one that does not run is a conflict.
pub async fn thawing_what_does_not_run_is_a_conflict(ground: &Ground) {
    let id = ground.run().await;
    ground.engine.stop(&id, GRACE).await.unwrap();
    fails_as(ground.engine.unpause(&id).await, EngineErrorKind::Conflict);
    fails_as(ground.engine.unpause(&ground.nobody()).await, EngineErrorKind::NotFound);
}

/// `start`: a frozen one is thawed, not started.
pub async fn starting_a_frozen_container_is_a_conflict(ground: &Ground) {
    let id = ground.run().await;
    ground.engine.pause(&id).await.unwrap();
    fails_as(ground.engine.start(&id).await, EngineErrorKind::Conflict);
}

/// `rename`: it already having the new name is success.
pub async fn renaming_twice_is_no_error(ground: &Ground) {
    let id = ground.make().await;
    let other = ground.nobody();
    for _ in 0..2 {
        ground.engine.rename(ground.name(), &other).await.unwrap();
    }
    assert_eq!(ground.state(ground.name()).await, None);
    assert_eq!(ground.engine.container(&other).await.unwrap().unwrap().id, id);
}

/// `rename`: by id, too.
pub async fn renaming_by_id_finds_it_under_any_name(ground: &Ground) {
    let id = ground.make().await;
    let other = ground.nobody();
    for name in [&other, &other, &ground.api.name, &ground.api.name] {
        ground.engine.rename(&id, name).await.unwrap();
        assert_eq!(ground.engine.container(name).await.unwrap().unwrap().id, id);
    }
}

/// `rename`: never over another one.
pub async fn renaming_to_a_taken_name_is_a_conflict(ground: &Ground) {
    ground.make().await;
    let second = CreateReplica { name: ground.nobody(), ..ground.api.clone() };
    ground.engine.create(&ground.desired, &second).await.unwrap();
    let renamed = ground.engine.rename(ground.name(), &second.name).await;
    fails_as(renamed, EngineErrorKind::Conflict);
    ground.engine.remove(&second.name, AnonymousVolumes::Remove).await.unwrap();
}

/// `rename`: nothing is renamed that is not there under either name.
pub async fn renaming_what_is_not_there_is_not_found(ground: &Ground) {
    let renamed = ground.engine.rename(&ground.nobody(), ground.name()).await;
    fails_as(renamed, EngineErrorKind::NotFound);
}

/// `remove`: one that is gone is no error.
pub async fn removing_twice_is_no_error(ground: &Ground) {
    let id = ground.make().await;
    for _ in 0..2 {
        ground.engine.remove(&id, AnonymousVolumes::Remove).await.unwrap();
    }
    assert_eq!(ground.state(&id).await, None);
}

/// `remove`: killing it if need be.
pub async fn removing_kills_what_runs(ground: &Ground) {
    let id = ground.run().await;
    ground.engine.remove(&id, AnonymousVolumes::Remove).await.unwrap();
    assert_eq!(ground.state(&id).await, None);
}

/// `set_restart`: the facts say so afterwards; one that is gone needs none.
pub async fn a_restart_policy_can_be_set_twice_and_on_nothing(ground: &Ground) {
    let id = ground.make().await;
    for policy in ["always", "always", "unless-stopped"] {
        ground.engine.set_restart(&id, policy).await.unwrap();
        let found = ground.engine.container(&id).await.unwrap().unwrap();
        assert_eq!(found.facts.get("restart").and_then(|fact| fact.as_str()), Some(policy));
    }
    for _ in 0..2 {
        ground.engine.set_restart(&id, "no").await.unwrap();
        let found = ground.engine.container(&id).await.unwrap().unwrap();
        assert_eq!(found.facts.get("restart"), None);
    }
    ground.engine.set_restart(&ground.nobody(), "no").await.unwrap();
}

/// `exec`: waits for the command.
pub async fn a_command_ends_with_its_code(ground: &Ground) {
    let id = ground.run().await;
    let command = ["true".to_owned()];
    let ran = ground.engine.exec(&id, &command, Duration::from_secs(20)).await.unwrap();
    assert_eq!(ran.exit_code, 0);
}

/// `exec`: there is nothing to run it in.
pub async fn a_command_in_what_does_not_run_is_a_conflict(ground: &Ground) {
    let id = ground.make().await;
    let command = ["true".to_owned()];
    let ran = ground.engine.exec(&id, &command, Duration::from_secs(20)).await;
    fails_as(ran, EngineErrorKind::Conflict);
}

/// `container`, `image`: nothing, and no error.
pub async fn what_is_not_there_is_nothing(ground: &Ground) {
    assert_eq!(ground.state(&ground.nobody()).await, None);
    assert!(ground.engine.image(&format!("{}:none", ground.nobody())).await.unwrap().is_none());
}

/// `healthcheck`, `tail`, `exec`: of what?
pub async fn questions_about_what_is_not_there_are_not_found(ground: &Ground) {
    let nobody = ground.nobody();
    fails_as(ground.engine.healthcheck(&nobody).await, EngineErrorKind::NotFound);
    fails_as(ground.engine.tail(&nobody, 3).await, EngineErrorKind::NotFound);
    let ran = ground.engine.exec(&nobody, &["true".to_owned()], Duration::from_secs(20)).await;
    fails_as(ran, EngineErrorKind::NotFound);
}

/// `create_network`: one of that name is what was asked for.
pub async fn making_a_network_twice_is_no_error(ground: &Ground) {
    for _ in 0..2 {
        ground.engine.create_network(&ground.network).await.unwrap();
    }
    let observed = ground.engine.observe(&ground.desired.project, None).await.unwrap();
    assert_eq!(observed.networks.keys().collect::<Vec<_>>(), [&ground.network.name]);
}

/// `remove_network`: one that is gone is no error.
pub async fn removing_a_network_twice_is_no_error(ground: &Ground) {
    ground.engine.create_network(&ground.network).await.unwrap();
    for _ in 0..2 {
        ground.engine.remove_network(&ground.network.name).await.unwrap();
    }
    let observed = ground.engine.observe(&ground.desired.project, None).await.unwrap();
    assert!(observed.networks.is_empty());
}

/// `remove_network`: one that is used is a conflict.
pub async fn removing_a_network_that_is_used_is_a_conflict(ground: &Ground) {
    ground.engine.create_network(&ground.network).await.unwrap();
    let id = ground.create(&ground.linked).await.id().to_owned();
    ground.engine.start(&id).await.unwrap();
    let removed = ground.engine.remove_network(&ground.network.name).await;
    fails_as(removed, EngineErrorKind::Conflict);
}

/// `create_volume`: one of that name is what was asked for.
pub async fn making_a_volume_twice_is_no_error(ground: &Ground) {
    for _ in 0..2 {
        ground.engine.create_volume(&ground.volume).await.unwrap();
    }
    let observed = ground.engine.observe(&ground.desired.project, None).await.unwrap();
    assert_eq!(observed.volumes.keys().collect::<Vec<_>>(), [&ground.volume.name]);
}

/// `remove_volume`: one that is gone is no error.
pub async fn removing_a_volume_twice_is_no_error(ground: &Ground) {
    ground.engine.create_volume(&ground.volume).await.unwrap();
    for _ in 0..2 {
        ground.engine.remove_volume(&ground.volume.name).await.unwrap();
    }
    let observed = ground.engine.observe(&ground.desired.project, None).await.unwrap();
    assert!(observed.volumes.is_empty());
}

/// `tag`: nothing is named that is not there.
pub async fn tagging_what_is_not_there_is_not_found(ground: &Ground) {
    let id = format!("sha256:{:064x}", 7);
    let tagged = ground.engine.tag(&id, &format!("{}:tag", ground.nobody())).await;
    fails_as(tagged, EngineErrorKind::NotFound);
}

/// `remove_image`: one that is gone is no error.
pub async fn removing_an_image_that_is_not_there_is_no_error(ground: &Ground) {
    ground.engine.remove_image(&format!("{}:none", ground.nobody())).await.unwrap();
}

/// `mark`: makes it unless there is one of its number, and returns the one that is there.
pub async fn the_first_mark_of_a_number_stays(ground: &Ground) {
    let first = ground.mark(1, "first");
    assert_eq!(ground.engine.mark(&first).await.unwrap(), first);
    assert_eq!(ground.engine.mark(&ground.mark(1, "second")).await.unwrap(), first);
    assert_eq!(ground.engine.marks(&ground.scope()).await.unwrap(), [first]);
    ground.engine.unmark(&ground.scope(), 1).await.unwrap();
}

/// `marks`: the oldest first; `unmark`: one that is gone is no error.
pub async fn marks_come_in_order_and_go_when_asked(ground: &Ground) {
    let released = Mark { standing: MarkStanding::Released, ..ground.mark(10, "b") };
    ground.engine.mark(&released).await.unwrap();
    ground.engine.mark(&ground.mark(9, "a")).await.unwrap();
    let marks = ground.engine.marks(&ground.scope()).await.unwrap();
    assert_eq!(marks, [ground.mark(9, "a"), released]);
    for sequence in [9, 9, 10] {
        ground.engine.unmark(&ground.scope(), sequence).await.unwrap();
    }
    assert_eq!(ground.engine.marks(&ground.scope()).await.unwrap(), []);
}

/// `marks`: of this scope only.
pub async fn marks_of_other_scopes_are_not_seen(ground: &Ground) {
    let mut other = ground.mark(1, "a");
    other.scope.environment = "default.1".to_owned();
    ground.engine.mark(&other).await.unwrap();
    assert_eq!(ground.engine.marks(&ground.scope()).await.unwrap(), []);
    ground.engine.unmark(&other.scope, 1).await.unwrap();
    assert_eq!(ground.engine.marks(&other.scope).await.unwrap(), []);
}
