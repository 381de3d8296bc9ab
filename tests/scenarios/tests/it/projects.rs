//! Compose files that several scenarios use.

/// Start-first: the demo's api, with a health check of its own.
pub const API: &str = r#"
services:
  api:
    image: ${APP}:${TAG}
    command: [api]
    restart: unless-stopped
    ports: ["${API_PORT}:9000"]
    environment:
      GREETING: ${GREETING:-hello}
    deploy:
      replicas: ${REPLICAS:-1}
      update_config: {monitor: "${MONITOR:-500ms}"}
    healthcheck:
      test: [CMD, /app, health, "9000"]
      interval: 500ms
      timeout: 10s
      retries: 3
      start_period: 3s
"#;

/// Stop-first: a lock on a file of a volume, and a second to boot.
pub const STORE: &str = r#"
services:
  store:
    image: ${APP}:${TAG}
    command: [store]
    restart: unless-stopped
    ports: ["${STORE_PORT}:8000"]
    environment: {BOOT_MS: "1000"}
    volumes: ["data:/data"]
    deploy:
      update_config: {monitor: 500ms}
    healthcheck:
      test: [CMD, /app, health, "8000"]
      interval: 500ms
      timeout: 10s
      retries: 3
      start_period: 3s
volumes:
  data: {}
"#;

/// Two services that have nothing to do with each other, with a tag of their own.
pub const PAIR: &str = r#"
services:
  api:
    image: ${APP}:${API_TAG:-v1}
    command: [api]
    ports: ["${API_PORT}:9000"]
    deploy: {update_config: {monitor: 100ms}}
  web:
    image: ${APP}:${WEB_TAG:-v1}
    command: [web]
    ports: ["${WEB_PORT}:8080"]
    deploy: {update_config: {monitor: 100ms}}
"#;

/// A chain of callers, whose last is replaced in place.
pub const CALLERS: &str = r#"
services:
  web:
    image: ${APP}:v1
    command: [web]
    ports: ["${WEB_PORT}:8080"]
    depends_on: [api]
  api:
    image: ${APP}:v1
    command: [api]
    expose: ["9000"]
    depends_on: [store]
  store:
    image: ${APP}:${TAG}
    command: [store]
    volumes: ["data:/data"]
    deploy: {update_config: {monitor: 500ms}}
    healthcheck:
      test: [CMD, /app, health, "8000"]
      interval: 500ms
      timeout: 10s
      retries: 3
      start_period: 3s
volumes:
  data: {}
"#;
