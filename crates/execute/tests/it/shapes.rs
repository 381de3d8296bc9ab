//! Changes of every kind that the planner knows.

use crate::resuming::shop::{Act, Change};
use crate::support::{Old, Shape};

const API: &str = r#"
services:
  api: { image: "api:v1", ports: ["8000:8000"], restart: always }
"#;
const API_2: &str = r#"
services:
  api: { image: "api:v2", ports: ["8000:8000"], restart: always }
"#;
const API_THREE_REPLICAS: &str = r#"
services:
  api: { image: "api:v1", ports: ["8000:8000"], restart: always, deploy: { replicas: 3 } }
"#;
const STACK: &str = r#"
services:
  db:
    image: "db:v1"
    restart: always
    volumes: ["data:/data"]
    healthcheck: { test: ["CMD", "true"] }
  migrate:
    image: "api:v1"
    command: migrate
    depends_on: { db: { condition: service_healthy } }
  api:
    image: "api:v1"
    restart: always
    ports: ["8000:8000"]
    depends_on:
      db: { condition: service_healthy }
      migrate: { condition: service_completed_successfully }
  web:
    image: "web:v1"
    restart: always
    ports: ["80:3000"]
    depends_on: [api]
volumes: { data: {} }
"#;
const STACK_2: &str = r#"
services:
  db:
    image: "db:v2"
    restart: always
    volumes: ["data:/data"]
    healthcheck: { test: ["CMD", "true"] }
  migrate:
    image: "api:v2"
    command: migrate
    depends_on: { db: { condition: service_healthy } }
  api:
    image: "api:v2"
    restart: always
    ports: ["8000:8000"]
    depends_on:
      db: { condition: service_healthy }
      migrate: { condition: service_completed_successfully }
  web:
    image: "web:v2"
    restart: always
    ports: ["80:3000"]
    depends_on: [api]
volumes: { data: {} }
"#;
const STORE: &str = r#"
services:
  store: { image: "store:v1", restart: always, ports: ["9000:9000"], volumes: ["data:/data"] }
  api: { image: "api:v1", restart: always, ports: ["8000:8000"], depends_on: [store] }
volumes: { data: {} }
"#;
const STORE_2: &str = r#"
services:
  store: { image: "store:v2", restart: always, ports: ["9000:9000"], volumes: ["data:/data"] }
  api: { image: "api:v1", restart: always, ports: ["8000:8000"], depends_on: [store] }
volumes: { data: {} }
"#;
const STORE_AND_API_2: &str = r#"
services:
  store: { image: "store:v2", restart: always, ports: ["9000:9000"], volumes: ["data:/data"] }
  api: { image: "api:v2", restart: always, ports: ["8000:8000"], depends_on: [store] }
volumes: { data: {} }
"#;
/// No `restart`: a container that was stopped looks like a job that ended well.
const PLAIN: &str = r#"
services:
  api: { image: "api:v1", ports: ["8000:8000"] }
  store: { image: "store:v1", expose: ["9000"], volumes: ["data:/data"] }
volumes: { data: {} }
"#;
const PLAIN_2: &str = r#"
services:
  api: { image: "api:v2", ports: ["8000:8000"] }
  store: { image: "store:v2", expose: ["9000"], volumes: ["data:/data"] }
volumes: { data: {} }
"#;
const OTHER_PORT: &str = r#"
services:
  api: { image: "api:v1", ports: ["8001:8000"], restart: always }
"#;
const OTHER_PORT_2: &str = r#"
services:
  api: { image: "api:v2", ports: ["8001:8000"], restart: always }
"#;
const SIDECAR: &str = r#"
services:
  vpn: { image: "vpn:v1", restart: always }
  app: { image: "app:v1", restart: always, network_mode: "service:vpn" }
"#;
const SIDECAR_2: &str = r#"
services:
  vpn: { image: "vpn:v2", restart: always }
  app: { image: "app:v1", restart: always, network_mode: "service:vpn" }
"#;
const NAMED: &str = r#"
services:
  api: { image: "api:v1", container_name: the-api, ports: ["8000:8000"], restart: always }
"#;
const NAMED_2: &str = r#"
services:
  api: { image: "api:v2", container_name: the-api, ports: ["8000:8000"], restart: always }
"#;
const ANONYMOUS: &str = r#"
x-images: { "db:v1": { volumes: [/data] }, "db:v2": { volumes: [/data] } }
services:
  db: { image: "db:v1", restart: always, ports: ["5432:5432"] }
"#;
const ANONYMOUS_2: &str = r#"
x-images: { "db:v1": { volumes: [/data] }, "db:v2": { volumes: [/data] } }
services:
  db: { image: "db:v2", restart: always, ports: ["5432:5432"] }
"#;
/// Reached by a route and a protected port, and by nothing else from outside.
const ROUTED: &str = r#"
services:
  api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
  web: { image: "web:v1", restart: always, expose: ["3000"] }
x-routes:
  entries: [{ name: http, port: 80 }]
  guard: { noindex: true }
  routes:
    - { host: shop.example, path: /, entries: [http], service: { service: web, port: 3000 } }
"#;
/// Another host, a second route, and new images.
const ROUTED_2: &str = r#"
services:
  api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
  web: { image: "web:v2", restart: always, expose: ["3000"] }
x-routes:
  entries: [{ name: http, port: 80 }, { name: https, port: 443 }]
  routes:
    - { host: www.shop.example, path: /, entries: [http, https], service: { service: web, port: 3000 } }
    - { host: shop.example, path: /api, entries: [http], service: { service: api, port: 8000 } }
"#;
const PULLED: &str = r#"
x-images: { "api:v2": { pull: true } }
services:
  api: { image: "api:v2", ports: ["8000:8000"], restart: always }
"#;

fn nothing(_: &mut shiplap_plan::Policy) {}

/// All of them.
pub fn all() -> Vec<Shape> {
    let shape = |name, old, new| Shape { name, old, new, change: nothing };
    vec![
        shape("first deploy", Old::Nothing, STACK),
        shape("start-first", Old::Deployed(&[API]), API_2),
        shape("pull", Old::Deployed(&[API]), PULLED),
        shape("stop-first with hold", Old::Deployed(&[STORE]), STORE_2),
        shape("both orders", Old::Deployed(&[STORE]), STORE_AND_API_2),
        shape("several with dependencies", Old::Deployed(&[STACK]), STACK_2),
        shape("without restart", Old::Deployed(&[PLAIN]), PLAIN_2),
        shape("scale up", Old::Deployed(&[API]), API_THREE_REPLICAS),
        shape("scale down", Old::Deployed(&[API_THREE_REPLICAS]), API),
        shape("adopt", Old::Compose(STACK), STACK_2),
        shape("adopt store", Old::Compose(STORE), STORE_AND_API_2),
        shape("rollback by revival", Old::Deployed(&[API, API_2]), API),
        shape("rollback of a store", Old::Deployed(&[STORE, STORE_AND_API_2]), STORE),
        shape("another port", Old::Deployed(&[API]), OTHER_PORT),
        shape("another port and image", Old::Deployed(&[API]), OTHER_PORT_2),
        shape("sidecar", Old::Deployed(&[SIDECAR]), SIDECAR_2),
        shape("container name", Old::Deployed(&[NAMED]), NAMED_2),
        shape("anonymous volume", Old::Deployed(&[ANONYMOUS]), ANONYMOUS_2),
        shape("first routes", Old::Deployed(&[API]), ROUTED),
        shape("other routes", Old::Deployed(&[ROUTED]), ROUTED_2),
    ]
}

/// Projects of which any may follow any other.
pub fn projects() -> Vec<&'static str> {
    vec![
        API,
        API_2,
        API_THREE_REPLICAS,
        STACK,
        STACK_2,
        STORE,
        STORE_2,
        STORE_AND_API_2,
        PLAIN,
        PLAIN_2,
        OTHER_PORT,
        OTHER_PORT_2,
        SIDECAR,
        SIDECAR_2,
        NAMED,
        NAMED_2,
        ANONYMOUS,
        ANONYMOUS_2,
        ROUTED,
        ROUTED_2,
        PULLED,
    ]
}

/// Changes that only the use cases know.
pub fn used() -> Vec<Change> {
    vec![
        Change { name: "down", old: Old::Deployed(&[STACK]), act: Act::Down, new: None },
        Change {
            name: "scale by command",
            old: Old::Deployed(&[API]),
            act: Act::Scale(API, "api", 3),
            new: Some(API_THREE_REPLICAS),
        },
        Change {
            name: "restart",
            old: Old::Deployed(&[STACK]),
            act: Act::Restart(STACK),
            new: Some(STACK),
        },
        Change {
            name: "rollback with a job",
            old: Old::Deployed(&[STACK, STACK_2]),
            act: Act::Rollback,
            new: Some(STACK),
        },
        Change {
            name: "services come and go",
            old: Old::Deployed(&[API]),
            act: Act::Deploy(STORE_AND_API_2),
            new: Some(STORE_AND_API_2),
        },
    ]
}
