//! What is deployed.

/// One service with a published port and a health check, as in the demo.
pub const ONE: &str = r#"
services:
  api:
    image: ${APP}:${TAG}
    command: [api]
    restart: unless-stopped
    ports: ["${API_PORT}:9000"]
    healthcheck:
      test: [CMD, /app, health, "9000"]
      interval: 500ms
      timeout: 5s
      retries: 3
      start_period: 3s
"#;

/// Many services without published ports, in one network.
pub fn many(count: usize) -> String {
    let mut text = "services:\n".to_owned();
    for number in 1..=count {
        text.push_str(&format!(
            "  s{number}:\n    image: ${{APP}}:v1\n    command: [api]\n    environment: {{NUMBER: \
             \"{number}\"}}\n    restart: unless-stopped\n"
        ));
    }
    text
}
