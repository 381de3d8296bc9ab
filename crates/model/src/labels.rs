//! Labels on engine objects. Compose's own are kept, so that its commands go on working.

/// Compose: the project's name.
pub const COMPOSE_PROJECT: &str = "com.docker.compose.project";
/// Compose: the service's name.
pub const COMPOSE_SERVICE: &str = "com.docker.compose.service";
/// Compose: the replica's number, from 1.
pub const COMPOSE_NUMBER: &str = "com.docker.compose.container-number";
/// Compose: `True` on one-off containers.
pub const COMPOSE_ONEOFF: &str = "com.docker.compose.oneoff";
/// Compose: hash of the configuration. Its commands only see containers that carry it.
pub const COMPOSE_CONFIG_HASH: &str = "com.docker.compose.config-hash";
/// Compose: id of the image.
pub const COMPOSE_IMAGE: &str = "com.docker.compose.image";
/// Compose: the project's folder.
pub const COMPOSE_WORKING_DIR: &str = "com.docker.compose.project.working_dir";
/// Compose: the files, separated by commas.
pub const COMPOSE_FILES: &str = "com.docker.compose.project.config_files";
/// Compose: version of the tool that made the object.
pub const COMPOSE_VERSION: &str = "com.docker.compose.version";
/// Compose: the network's key in the file.
pub const COMPOSE_NETWORK: &str = "com.docker.compose.network";
/// Compose: the volume's key in the file.
pub const COMPOSE_VOLUME: &str = "com.docker.compose.volume";
/// Compose: a service's dependencies.
pub const COMPOSE_DEPENDS_ON: &str = "com.docker.compose.depends_on";

/// The environment that a container belongs to.
pub const ENVIRONMENT: &str = "shiplap.environment";
/// The number of the deployment that made a container.
pub const DEPLOYMENT: &str = "shiplap.deployment";
/// The generation of the lease under which an object was made.
pub const GENERATION: &str = "shiplap.generation";
/// Digests of the fields that a container was made from, see [`Fields`](crate::Fields).
pub const FIELDS: &str = "shiplap.fields";
/// `held` on a replica whose service's names belong to a name holder.
pub const NAMES: &str = "shiplap.names";
/// What an object of Shiplap's own does: `edge`, `names` or `lease`.
pub const ROLE: &str = "shiplap.role";
/// Of a name holder, and of a mark: `project/environment`.
pub const OWNER: &str = "shiplap.owner";
/// Of a name holder: the services whose names it carries, separated by commas.
pub const HELD_SERVICES: &str = "shiplap.services";
