//! Routes by host and path, and what holds for requests on the way.

use std::net::SocketAddr;

use hyper::{Request, Response, StatusCode};
use shiplap_edge::table::{
    BasicAuth, HeaderRules, Maintenance, Rate, RateKey, Redirect, Route, Target,
};
use shiplap_edge::{ClientError, Policy, Table};

use crate::support::*;

fn route(host: Option<&str>, path: &str, pool: &str) -> Route {
    Route {
        owner: OWNER.to_owned(),
        host: host.map(str::to_owned),
        path: path.to_owned(),
        entries: vec!["http".to_owned()],
        target: Target::Pool(pool.to_owned()),
        policy: Policy::default(),
    }
}

/// A listener for these routes. The pools that they name each have a replica that answers the
/// pool's name and the path that it saw.
async fn serve(edge: &Edge, routes: Vec<Route>) -> (SocketAddr, Vec<Upstream>) {
    let mut apps: Vec<(String, Upstream)> = Vec::new();
    for route in &routes {
        let Target::Pool(name) = &route.target else { continue };
        if apps.iter().all(|(known, _)| known != name) {
            let said = name.clone();
            let app = Upstream::start(move |request| {
                let said = format!("{said} {}", request.uri());
                async move { text(&said) }
            });
            apps.push((name.clone(), app.await));
        }
    }
    let table = edge
        .client
        .update_table(|table| {
            for (name, app) in &apps {
                table.pools.insert(name.clone(), http(vec![app.replica("a")]));
            }
            let mut listener = listener("", 0);
            listener.pool = None;
            listener.entry = Some("http".to_owned());
            table.listeners.push(listener);
            table.routes = routes.clone();
        })
        .await
        .unwrap();
    let listener = table.listeners.last().unwrap();
    let address = SocketAddr::new(listener.address, listener.port);
    (address, apps.into_iter().map(|(_, app)| app).collect())
}

async fn set_policy(edge: &Edge, policy: Policy) {
    let set = |table: &mut Table| table.routes[0].policy = policy.clone();
    edge.client.update_table(set).await.unwrap();
}

async fn ask(address: SocketAddr, request: Request<Body>) -> Response<hyper::body::Incoming> {
    Http::connect(address).await.unwrap().send(request).await.unwrap()
}

fn from(host: &str, path: &str) -> Request<Body> {
    Request::get(path).header("host", host).body(body("")).unwrap()
}

async fn said(address: SocketAddr, host: &str, path: &str) -> String {
    let (status, text) = read(ask(address, from(host, path)).await).await.unwrap();
    if status == StatusCode::OK { text } else { status.as_u16().to_string() }
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_hosts_go_before_wildcards_and_long_paths_before_short_ones() {
    let edge = Edge::start().await;
    let routes = vec![
        route(Some("shop.example"), "/", "web"),
        route(Some("shop.example"), "/api", "api"),
        route(Some("shop.example"), "/api/v2/", "v2"),
        route(Some("*.shop.example"), "/", "tenants"),
        route(Some("*.eu.shop.example"), "/", "eu"),
        route(Some("only.example"), "/app", "only"),
        route(None, "/health", "any"),
    ];
    let (address, _apps) = serve(&edge, routes).await;
    for (host, path, expected) in [
        ("shop.example", "/", "web /"),
        ("SHOP.example:8080", "/x?y=z", "web /x?y=z"),
        ("shop.example.", "/", "web /"),
        ("shop.example", "/api", "api /api"),
        ("shop.example", "/api/", "api /api/"),
        ("shop.example", "/apix", "web /apix"),
        ("shop.example", "/api/v2", "v2 /api/v2"),
        ("shop.example", "/api/v2/x", "v2 /api/v2/x"),
        ("shop.example", "/api/v22", "api /api/v22"),
        ("a.shop.example", "/", "tenants /"),
        ("b.a.shop.example", "/", "tenants /"),
        ("a.eu.shop.example", "/", "eu /"),
        ("xshop.example", "/", "404"),
        ("only.example", "/app/x", "only /app/x"),
        ("only.example", "/", "404"),
        ("only.example", "/health", "any /health"),
        ("10.0.0.1", "/health", "any /health"),
        ("unknown.example", "/", "404"),
        // As a server may read it; it gets what was sent.
        ("shop.example", "/%61pi/x", "api /%61pi/x"),
        ("shop.example", "//api", "api //api"),
        ("shop.example", "/x/../api", "api /x/../api"),
        ("shop.example", "/x%2f..%2fapi", "api /x%2f..%2fapi"),
        ("shop.example", "/../api", "400"),
        ("shop.example", "/a%00b", "400"),
        ("shop.example", "/a%2", "400"),
    ] {
        assert_eq!(said(address, host, path).await, expected, "{host} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listeners_pool_answers_what_no_route_is_about() {
    let edge = Edge::start().await;
    let (address, _apps) = serve(&edge, vec![route(Some("a.example"), "/", "web")]).await;
    let rest = Upstream::named("rest").await;
    edge.client
        .update_table(|table| {
            table.pools.insert("rest".to_owned(), http(vec![rest.replica("a")]));
            table.listeners[0].pool = Some("rest".to_owned());
        })
        .await
        .unwrap();
    assert_eq!(said(address, "a.example", "/").await, "web /");
    assert_eq!(said(address, "b.example", "/").await, "rest 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_request_goes_where_its_route_leads_when_it_is_let_go() {
    let edge = Edge::start().await;
    let routes = vec![route(Some("a.example"), "/", "old"), route(Some("b.example"), "/", "new")];
    let (address, _apps) = serve(&edge, routes).await;
    edge.change("old", |pool| pool.paused = true).await;
    let pending = tokio::spawn(async move { said(address, "a.example", "/x").await });
    edge.wait(|status| status.pools["old"].held == 1).await;
    edge.client
        .update_table(|table| table.routes[0].target = Target::Pool("new".to_owned()))
        .await
        .unwrap();
    assert_eq!(pending.await.unwrap(), "new /x");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_of_a_route_can_be_taken_off() {
    let edge = Edge::start().await;
    let (address, _apps) = serve(&edge, vec![route(None, "/api", "api")]).await;
    set_policy(&edge, Policy { strip_path: true, ..Policy::default() }).await;
    for (path, expected) in [
        ("/api/x?y", "api /x?y"),
        ("/api", "api /"),
        ("/api/", "api /"),
        ("/api?y", "api /?y"),
        ("/%61pi/x", "400"),
    ] {
        assert_eq!(said(address, "a", path).await, expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_redirected() {
    let edge = Edge::start().await;
    let mut routes = vec![route(Some("a.example"), "/", "web"), route(None, "/old", "web")];
    let redirect = Redirect { to: "https://new.example/x/".to_owned(), exact: false, status: 301 };
    routes[1].target = Target::Redirect(redirect);
    let (address, _apps) = serve(&edge, routes).await;
    let answer = ask(address, from("b", "/old/page?q=1")).await;
    assert_eq!(answer.status(), 301);
    assert_eq!(answer.headers()["location"], "https://new.example/x/old/page?q=1");
    set_policy(&edge, Policy { https_port: Some(443), ..Policy::default() }).await;
    let answer = ask(address, from("a.example:80", "/page?q=1")).await;
    assert_eq!(answer.status(), 308);
    assert_eq!(answer.headers()["location"], "https://a.example/page?q=1");
    // A trusted proxy has taken the TLS off.
    let secure = Request::get("/").header("host", "a.example").header("x-forwarded-proto", "https");
    assert_eq!(ask(address, secure.body(body("")).unwrap()).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn name_and_password_let_in_and_go_no_further() {
    let app = Upstream::start(|request| async move {
        text(if request.headers().contains_key("authorization") { "told" } else { "not told" })
    })
    .await;
    let edge = Edge::start().await;
    let (address, _apps) = serve(&edge, vec![route(None, "/", "web")]).await;
    edge.switch("web", vec![app.replica("b")]).await;
    let users = [("ann".to_owned(), bcrypt::hash("secret", 4).unwrap())];
    let auth = BasicAuth { realm: "dev".to_owned(), users: users.into_iter().collect() };
    set_policy(&edge, Policy { basic_auth: Some(auth), ..Policy::default() }).await;
    let answer = ask(address, from("a", "/")).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["www-authenticate"], "Basic realm=\"dev\", charset=\"UTF-8\"");
    // ann:secret, ann:wrong
    for (given, status) in [("Basic YW5uOnNlY3JldA==", 200), ("Basic YW5uOndyb25n", 401)] {
        let request = Request::get("/").header("host", "a").header("authorization", given);
        let answer = ask(address, request.body(body("")).unwrap()).await;
        assert_eq!(answer.status(), status);
        if status == 200 {
            assert_eq!(read(answer).await.unwrap().1, "not told");
        }
    }
    // No hash is told by accident.
    let table = edge.client.table().await.unwrap();
    assert!(!format!("{table:?}").contains("$2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_let_in_by_address() {
    let edge = Edge::start().await;
    let (address, _apps) = serve(&edge, vec![route(None, "/", "web")]).await;
    let through = |client: &str| {
        let request = Request::get("/").header("host", "a").header("x-forwarded-for", client);
        request.body(body("")).unwrap()
    };
    let allow = vec!["10.0.0.0/8".to_owned(), "fd00::1".to_owned()];
    set_policy(&edge, Policy { allow, ..Policy::default() }).await;
    for (client, status) in [("10.1.2.3", 200), ("fd00::1", 200), ("11.0.0.1", 403), ("x", 403)] {
        assert_eq!(ask(address, through(client)).await.status(), status, "{client}");
    }
    // Nobody is believed who is not trusted.
    edge.client.update_table(|table| table.trusted_proxies = vec![]).await.unwrap();
    assert_eq!(ask(address, through("10.1.2.3")).await.status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_told_when_to_come_back() {
    let edge = Edge::start().await;
    let (address, apps) = serve(&edge, vec![route(None, "/", "web")]).await;
    let rate = Rate { requests: 2, per_ms: 60_000, burst: 3, by: RateKey::Client };
    set_policy(&edge, Policy { rate: Some(rate), ..Policy::default() }).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let answer = ask(address, from("a", "/")).await;
        if answer.status() == 429 {
            let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((25..=30).contains(&wait), "{wait}");
        }
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(apps[0].requests(), 3);
    // Another table does not start the count anew.
    edge.change("web", |pool| pool.service = "other".to_owned()).await;
    assert_eq!(ask(address, from("a", "/")).await.status(), 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_by_its_length_or_on_the_way() {
    let app = Upstream::named("a").await;
    let edge = Edge::start().await;
    let (address, _apps) = serve(&edge, vec![route(None, "/", "web")]).await;
    edge.switch("web", vec![app.replica("b")]).await;
    set_policy(&edge, Policy { body_bytes: Some(1000), ..Policy::default() }).await;
    assert_eq!(post(address, &"x".repeat(1000)).await.1, "a 1000");
    let requests = app.requests();
    let (status, _) = post(address, &"x".repeat(1001)).await;
    assert_eq!((status, app.requests()), (StatusCode::PAYLOAD_TOO_LARGE, requests));
    let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = raw(address, format!("{head}{chunk}{chunk}0\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maintenance_page_is_shown_to_all_but_some() {
    let edge = Edge::start().await;
    let (address, apps) = serve(&edge, vec![route(None, "/", "web")]).await;
    let page = Maintenance {
        content_type: "text/html".to_owned(),
        body: "<h1>soon</h1>".to_owned(),
        allow: vec!["10.0.0.1".to_owned()],
        ..Maintenance::default()
    };
    set_policy(&edge, Policy { maintenance: Some(page), ..Policy::default() }).await;
    let answer = ask(address, from("a", "/")).await;
    assert_eq!(answer.headers()["content-type"], "text/html");
    assert_eq!(answer.headers()["retry-after"], "120");
    let (status, text) = read(answer).await.unwrap();
    assert_eq!((status.as_u16(), text.as_str(), apps[0].requests()), (503, "<h1>soon</h1>", 0));
    let request = Request::get("/").header("host", "a").header("x-forwarded-for", "10.0.0.1");
    assert_eq!(ask(address, request.body(body("")).unwrap()).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn search_engines_are_kept_away() {
    let edge = Edge::start().await;
    let (address, apps) = serve(&edge, vec![route(None, "/", "web")]).await;
    set_policy(&edge, Policy { noindex: true, ..Policy::default() }).await;
    let answer = ask(address, from("a", "/")).await;
    assert_eq!(answer.headers()["x-robots-tag"], "noindex, nofollow");
    let (status, text) = read(ask(address, from("a", "/robots.txt")).await).await.unwrap();
    assert_eq!((status.as_u16(), text.as_str()), (200, "User-agent: *\nDisallow: /\n"));
    assert_eq!(apps[0].requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_changed_both_ways() {
    let app = Upstream::start(|request| async move {
        let seen = |name: &str| match request.headers().get(name) {
            Some(value) => value.to_str().unwrap().to_owned(),
            None => "-".to_owned(),
        };
        let said = format!("{} {}", seen("x-set"), seen("x-gone"));
        let answer = Response::builder().header("server", "secret/1.0").header("x-set", "theirs");
        answer.body(body(said)).unwrap()
    })
    .await;
    let edge = Edge::start().await;
    let (address, _apps) = serve(&edge, vec![route(None, "/", "web")]).await;
    edge.switch("web", vec![app.replica("b")]).await;
    let rules = |remove: &str| HeaderRules {
        remove: vec![remove.to_owned()],
        set: [("X-Set".to_owned(), "ours".to_owned())].into_iter().collect(),
    };
    let (request_headers, response_headers) = (rules("X-Gone"), rules("Server"));
    set_policy(&edge, Policy { request_headers, response_headers, ..Policy::default() }).await;
    let request = Request::get("/").header("host", "a").header("x-gone", "1").header("x-set", "1");
    let answer = ask(address, request.body(body("")).unwrap()).await;
    assert_eq!(answer.headers()["x-set"], "ours");
    assert!(!answer.headers().contains_key("server"));
    assert_eq!(read(answer).await.unwrap().1, "ours -");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_cannot_be_are_refused() {
    let edge = Edge::start().await;
    let (_, _apps) = serve(&edge, vec![route(Some("a.example"), "/", "web")]).await;
    let refused = async |change: &dyn Fn(&mut Table)| {
        let mut table = edge.client.table().await.unwrap();
        change(&mut table);
        match edge.client.put_table(&table).await {
            Err(ClientError::Refused { status: 400, message }) => message,
            other => panic!("{other:?}"),
        }
    };
    let twice = refused(&|table| table.routes.push(route(Some("a.example"), "", "web")));
    assert!(twice.await.contains("plain path"));
    let twice = refused(&|table| table.routes.push(route(Some("a.example"), "/", "web")));
    assert!(twice.await.contains("two routes for the same requests: route a.example/"));
    let host = refused(&|table| table.routes[0].host = Some("A.example".to_owned()));
    assert!(host.await.contains("not a host name"));
    let pool = refused(&|table| table.routes[0].target = Target::Pool("db".to_owned()));
    assert!(pool.await.contains("names pool `db`"));
    let bytes = refused(&|table| {
        table.pools.get_mut("web").unwrap().protocol = shiplap_edge::Protocol::Tcp;
    });
    assert!(bytes.await.contains("does not speak HTTP"));
    let nowhere = refused(&|table| table.listeners[0].entry = None);
    assert!(nowhere.await.contains("neither a pool nor an entry"));
    let block = refused(&|table| table.routes[0].policy.allow = vec!["10.0.0.0/99".to_owned()]);
    assert!(block.await.contains("10.0.0.0/99"));
    let hash = refused(&|table| {
        let users = [("ann".to_owned(), "$apr1$x$y".to_owned())].into_iter().collect();
        table.routes[0].policy.basic_auth = Some(BasicAuth { realm: "x".to_owned(), users });
    });
    assert!(hash.await.contains("not a bcrypt hash"));
    let header = refused(&|table| {
        table.routes[0].policy.request_headers.remove = vec!["Content-Length".to_owned()];
    });
    assert!(header.await.contains("Content-Length"));
}
