//! Compose files that several tests use.

/// Start-first: the demo's api, with a health check of its own.
pub const API: &str = r#"
services:
  api:
    image: ${APP}:${TAG}
    command: [api]
    restart: unless-stopped
    ports: ["${API_PORT}:9000"]
    environment: {EDITION: "${EDITION:-0}"}
    deploy:
      replicas: ${REPLICAS:-1}
      update_config: {monitor: "${MONITOR:-200ms}"}
    healthcheck:
      test: [CMD, /app, health, "9000"]
      interval: 5s
      timeout: 10s
      retries: 3
      start_period: 3s
"#;

/// Stop-first: a lock on a file of a volume.
pub const STORE: &str = r#"
services:
  store:
    image: ${APP}:${TAG}
    command: [store]
    restart: unless-stopped
    ports: ["${STORE_PORT}:8000"]
    environment: {BOOT_MS: "300", EDITION: "${EDITION:-0}"}
    volumes: ["data:/data"]
    deploy:
      update_config: {monitor: 200ms}
    healthcheck:
      test: [CMD, /app, health, "8000"]
      interval: 5s
      timeout: 10s
      retries: 3
      start_period: 3s
volumes:
  data: {}
"#;

/// A job, a service that is stop-first, and two that are start-first, one upon the other.
pub const SEVERAL: &str = r#"
services:
  migrate:
    image: ${APP}:${TAG}
    command: [migrate]
    environment: {BOOT_MS: "200", EDITION: "${EDITION:-0}"}
    volumes: ["${JOBS}:/data"]
  store:
    image: ${APP}:${TAG}
    command: [store]
    restart: unless-stopped
    ports: ["${STORE_PORT}:8000"]
    environment: {BOOT_MS: "300", EDITION: "${EDITION:-0}"}
    volumes: ["data:/data"]
    depends_on:
      migrate: {condition: service_completed_successfully}
    deploy: {update_config: {monitor: 200ms}}
  api:
    image: ${APP}:${TAG}
    command: [api]
    restart: unless-stopped
    ports: ["${API_PORT}:9000"]
    environment: {EDITION: "${EDITION:-0}"}
    depends_on:
      migrate: {condition: service_completed_successfully}
    deploy: {update_config: {monitor: 200ms}}
    healthcheck:
      test: [CMD, /app, health, "9000"]
      interval: 5s
      timeout: 10s
      retries: 3
      start_period: 3s
  web:
    image: ${APP}:${TAG}
    command: [web]
    restart: unless-stopped
    ports: ["${WEB_PORT}:8080"]
    environment: {EDITION: "${EDITION:-0}"}
    depends_on:
      api: {condition: service_healthy}
    deploy: {update_config: {monitor: 200ms}}
volumes:
  data: {}
"#;
