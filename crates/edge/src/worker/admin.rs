//! The admin API.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use super::control::{Control, PutError};
use super::{Core, metrics, probe};
use crate::api::{
    Drain, DrainRequest, DrainingStatus, Failure, PoolStatus, Ports, PortsRequest, ProbeRequest,
    Status, StoredCertificate,
};
use crate::channel::{Ask, Reply};
use crate::log::event;
use crate::table::{Group, Table};

/// No request is larger: a table with a thousand pools is below 1 MiB.
const MAX_BODY_BYTES: usize = 16 << 20;
/// After an error such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

type Answer = Response<Full<Bytes>>;

/// Serves the admin socket for ever.
pub(super) async fn serve(
    socket: std::os::unix::net::UnixListener,
    core: Arc<Core>,
    control: Arc<Control>,
) {
    let listener = match UnixListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return core.problem(format!("cannot accept on the admin socket: {error}")),
    };
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                event("worker", "accept-failed", &[("error", &error)]);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (core, control) = (core.clone(), control.clone());
        let service = service_fn(move |request| {
            let (core, control) = (core.clone(), control.clone());
            async move { Ok::<_, Infallible>(answer(&core, &control, request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(core: &Arc<Core>, control: &Control, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return failure(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
    };
    match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/v1/status") => json(&status(core, control).await),
        (&Method::GET, "/v1/table") => table(&control.table().await),
        (&Method::GET, "/metrics") => {
            let mut answer = Response::new(Full::from(metrics::text(core)));
            let kind = header::HeaderValue::from_static("text/plain; version=0.0.4");
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            answer
        }
        (&Method::PUT, "/v1/table") => put(control, &parts.headers, &body).await,
        (&Method::POST, "/v1/certificates") => match control.put_certificate(&body).await {
            Ok(certificate) => json(&StoredCertificate::from(&certificate)),
            Err(error) => not_put(error, 0),
        },
        (&Method::POST, "/v1/probe") => match read::<ProbeRequest>(&body) {
            Ok(request) => json(&probe::probe(&request).await),
            Err(answer) => *answer,
        },
        (&Method::POST, "/v1/drain") => match read::<DrainRequest>(&body) {
            Ok(request) => json(&drain(core, &request).await),
            Err(answer) => *answer,
        },
        (&Method::POST, "/v1/ports") => match read::<PortsRequest>(&body) {
            Ok(request) => ports(core, request).await,
            Err(answer) => *answer,
        },
        (
            _,
            "/v1/status" | "/v1/table" | "/v1/probe" | "/v1/drain" | "/v1/ports"
            | "/v1/certificates",
        ) => failure(StatusCode::METHOD_NOT_ALLOWED, "not with this method".to_owned()),
        (_, path) => failure(StatusCode::NOT_FOUND, format!("there is no `{path}`")),
    }
}

async fn put(control: &Control, headers: &HeaderMap, body: &[u8]) -> Answer {
    let expected = headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok());
    let Some(expected) = expected.and_then(|value| value.trim_matches('"').parse().ok()) else {
        let text = "If-Match must give the generation that the table was read at";
        return failure(StatusCode::PRECONDITION_REQUIRED, text.to_owned());
    };
    let given = match Table::from_json(body) {
        Ok(table) => table,
        Err(error) => return failure(StatusCode::BAD_REQUEST, error.to_string()),
    };
    match control.put(expected, given).await {
        Ok(applied) => table(&applied),
        Err(error) => not_put(error, expected),
    }
}

/// Why something was not taken. `expected` is the generation that was given.
fn not_put(error: PutError, expected: u64) -> Answer {
    match error {
        PutError::Conflict { current } => {
            let error = format!("the table is at generation {current}, not {expected}");
            let failure = Failure { current: Some(current), ..plain(error) };
            with_status(StatusCode::CONFLICT, &failure)
        }
        PutError::Overtaken { owner, lease } => {
            let error = format!("{owner} was changed under lease {lease} meanwhile");
            let failure = Failure { lease: Some(lease), ..plain(error) };
            with_status(StatusCode::PRECONDITION_FAILED, &failure)
        }
        PutError::Unbindable(unbindable) => {
            let error = "some listeners cannot be opened".to_owned();
            let failure = Failure { unbindable, ..plain(error) };
            with_status(StatusCode::UNPROCESSABLE_ENTITY, &failure)
        }
        PutError::Certificates(wrong) => failure(StatusCode::BAD_REQUEST, wrong.join("; ")),
        PutError::Invalid(error) => failure(StatusCode::BAD_REQUEST, error.to_string()),
        PutError::Stopping => {
            let text = "this edge is stopping; its successor takes tables".to_owned();
            failure(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        PutError::Disk(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

async fn status(core: &Arc<Core>, control: &Control) -> Status {
    let listeners = control.listeners().await;
    let certificates = control.certificate_status().await;
    let routing = core.routing.load_full();
    let mut pools = std::collections::BTreeMap::new();
    for (name, pool) in &routing.pools {
        let status = PoolStatus {
            paused: pool.paused,
            held: pool.shared.held.load(Ordering::Relaxed),
            hold_rejected: pool.shared.rejected.load(Ordering::Relaxed),
            retried: pool.shared.retried.load(Ordering::Relaxed),
            groups: [Group::Stable, Group::Canary]
                .map(|group| (group, pool.shared.group(group).status()))
                .into_iter()
                .filter(|(group, _)| *group == Group::Stable || pool.canary.is_some())
                .collect(),
            replicas: pool.replicas.iter().map(|replica| replica.status()).collect(),
        };
        pools.insert(name.clone(), status);
    }
    let retired = core.retired.lock().expect("no panic while held");
    let open = retired.iter().filter(|(_, replica)| replica.open() > 0);
    let draining = open
        .map(|(pool, one)| DrainingStatus { pool: pool.clone(), replica: one.status() })
        .collect();
    Status {
        schema: 1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: core.build.clone(),
        supervisor_pid: core.supervisor.pid,
        worker_pid: std::process::id(),
        worker_restarts: core.supervisor.worker_restarts,
        generation: routing.generation,
        uptime_ms: core.started.elapsed().as_millis() as u64,
        supervisor_uptime_ms: core.supervisor.started.elapsed().as_millis() as u64,
        stopping: core.is_stopping(),
        has_ipv6: Some(crate::has_ipv6()),
        problems: core.problems.lock().expect("no panic while held").clone(),
        listeners,
        certificates,
        pools,
        draining,
    }
}

async fn drain(core: &Core, request: &DrainRequest) -> Drain {
    let replicas = core.find(&request.pool, &request.replicas);
    let timeout = Duration::from_millis(request.timeout_ms);
    let streams_stay = request.streams_stay;
    if !streams_stay {
        core.end_streams_for_drain(&request.pool, &replicas, timeout);
    }
    let all = async {
        for replica in &replicas {
            loop {
                let mut drained = std::pin::pin!(replica.drained.notified());
                drained.as_mut().enable();
                if replica.in_flight() == 0 && (streams_stay || replica.endable() == 0) {
                    break;
                }
                drained.await;
            }
        }
    };
    let _ = tokio::time::timeout(timeout, all).await;
    let in_flight = replicas.iter().map(|replica| replica.in_flight()).sum();
    let streams = replicas.iter().map(|replica| replica.streams()).sum();
    Drain { drained: in_flight == 0, in_flight, streams }
}

async fn ports(core: &Core, request: PortsRequest) -> Answer {
    match core.link.ask(Ask::Ports(request.container)).await {
        Ok((Reply::Ports(ports), _)) => json(&Ports { ports }),
        Ok((Reply::Failed(error), _)) => failure(StatusCode::NOT_FOUND, error),
        Ok((other, _)) => {
            let error = format!("the supervisor answered {other:?}");
            failure(StatusCode::INTERNAL_SERVER_ERROR, error)
        }
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn read<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, Box<Answer>> {
    serde_json::from_slice(body)
        .map_err(|error| Box::new(failure(StatusCode::BAD_REQUEST, error.to_string())))
}

fn table(table: &Table) -> Answer {
    let mut answer = json(table);
    let tag = format!("\"{}\"", table.generation);
    answer.headers_mut().insert(header::ETAG, tag.parse().expect("digits and quotes"));
    answer
}

fn json(value: &impl Serialize) -> Answer {
    with_status(StatusCode::OK, value)
}

fn failure(status: StatusCode, error: String) -> Answer {
    with_status(status, &plain(error))
}

const fn plain(error: String) -> Failure {
    Failure { error, current: None, lease: None, unbindable: Vec::new() }
}

fn with_status(status: StatusCode, value: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(value).expect("our messages have only text keys");
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
