//! Reads from a registry: manifests, small blobs, and who refers to a manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;
use sha2::Digest as _;
use shiplap_model::Reference;

use crate::auth::Challenge;
use crate::retry;
use crate::{Keyring, Login, RegistryError, RegistryErrorKind};

/// The name by which images call Docker's own registry.
const DOCKER_HUB: &str = "docker.io";
/// Where it answers.
const DOCKER_HUB_API: &str = "registry-1.docker.io";
/// How long a whole answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take until somebody answers at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Registries take manifests of 4 MiB at most.
const LONGEST_MANIFEST: usize = 4 << 20;
/// Further hosts that an answer may send us to.
const REDIRECTS: usize = 5;
/// Pages of a list of referrers that are read.
const REFERRER_PAGES: usize = 20;
/// The kinds of manifest that are understood.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// What a manifest says of something else.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its length in bytes.
    #[serde(default)]
    pub size: u64,
    /// What it is for, where an index says so.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// Further words about it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// A manifest, checked against its digest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its digest.
    pub digest: String,
    /// What it says.
    pub content: Value,
}

impl Manifest {
    /// The descriptors of one of its lists: `layers`, `manifests`.
    #[must_use]
    pub fn descriptors(&self, list: &str) -> Vec<Descriptor> {
        let all = self.content[list].as_array().into_iter().flatten();
        let read = all.filter_map(|one| serde_json::from_value(one.clone()).ok());
        read.filter(|one: &Descriptor| Reference::is_digest(&one.digest)).collect()
    }
}

/// Speaks to registries, with the logins of a keyring.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    keyring: Arc<Keyring>,
    plain: BTreeSet<String>,
    /// What opened a repository the last time; a token is for one host and one repository.
    tokens: Arc<Mutex<BTreeMap<(String, String), HeaderValue>>>,
}

struct Answer {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Client {
    /// A client. Registries on this machine, and those of `plain`, are asked without TLS.
    ///
    /// # Errors
    /// When the machine's certificates cannot be used.
    pub fn new(
        keyring: Arc<Keyring>,
        plain: impl IntoIterator<Item = String>,
    ) -> Result<Self, RegistryError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(trust())
            .connect_timeout(CONNECT_LIMIT)
            .timeout(ANSWER_LIMIT)
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS))
            .user_agent(concat!("shiplap/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| RegistryError {
                kind: RegistryErrorKind::Failing,
                doing: "preparing to ask registries".to_owned(),
                message: chain(&error),
            })?;
        let plain = plain.into_iter().collect();
        Ok(Self { http, keyring, plain, tokens: Arc::default() })
    }

    /// The manifest of a tag or digest.
    ///
    /// # Errors
    /// When there is none, or the registry does not give it.
    pub async fn manifest(&self, image: &Reference) -> Result<Manifest, RegistryError> {
        let path = format!("manifests/{}", image.name());
        let answer = self.get(image, &path, MANIFESTS, LONGEST_MANIFEST).await?;
        let digest = sha256(&answer.body);
        let garbled = |message: String| garbled(image, message);
        if let Some(wanted) = &image.digest
            && *wanted != digest
        {
            return Err(garbled(format!("it sent {digest} for {wanted}")));
        }
        let content = serde_json::from_slice(&answer.body)
            .map_err(|error| garbled(format!("the manifest is not JSON: {error}")))?;
        Ok(Manifest { digest, content })
    }

    /// A blob of an image's repository, checked against its digest.
    ///
    /// # Errors
    /// When it is longer than `limit` bytes, is not what its digest says, or is not given.
    pub async fn blob(
        &self,
        image: &Reference,
        digest: &str,
        limit: usize,
    ) -> Result<Vec<u8>, RegistryError> {
        let path = format!("blobs/{digest}");
        let body = self.get(image, &path, "*/*", limit).await?.body;
        match sha256(&body) == digest {
            true => Ok(body),
            false => Err(garbled(image, format!("blob {digest} is another one"))),
        }
    }

    /// Manifests that refer to the one of a digest: by the registry's own list, else by the tag
    /// under which clients keep one where a registry has no such list.
    ///
    /// # Errors
    /// When the registry does not answer. One without any referrer gives none.
    pub async fn referrers(
        &self,
        image: &Reference,
        digest: &str,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        const INDEX: &str = "application/vnd.oci.image.index.v1+json";
        let mut found = Vec::new();
        let mut path = format!("referrers/{digest}");
        for page in 0..REFERRER_PAGES {
            match self.get(image, &path, INDEX, LONGEST_MANIFEST).await {
                Ok(answer) => {
                    let content = serde_json::from_slice(&answer.body)
                        .map_err(|error| garbled(image, format!("referrers: {error}")))?;
                    let list = Manifest { digest: String::new(), content };
                    found.extend(list.descriptors("manifests"));
                    match answer.headers.get("link").and_then(next_page) {
                        Some(query) => path = format!("referrers/{digest}?{query}"),
                        None => return Ok(found),
                    }
                }
                Err(error) if page == 0 && is_absent(error.kind) => break,
                Err(error) => return Err(error),
            }
        }
        let tag =
            Reference { tag: Some(digest.replacen(':', "-", 1)), digest: None, ..image.clone() };
        match self.manifest(&tag).await {
            Ok(list) => {
                found.extend(list.descriptors("manifests"));
                Ok(found)
            }
            Err(error) if is_absent(error.kind) => Ok(found),
            Err(error) => Err(error),
        }
    }

    /// Asks for something of an image's repository, with patience.
    async fn get(
        &self,
        image: &Reference,
        path: &str,
        accept: &str,
        limit: usize,
    ) -> Result<Answer, RegistryError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match self.get_once(image, path, accept, limit).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let pause = match error.kind {
                RegistryErrorKind::RateLimited(asked_for) => retry::wait(attempts, asked_for),
                RegistryErrorKind::Unreachable | RegistryErrorKind::Failing => {
                    retry::wait(attempts, None)
                }
                RegistryErrorKind::NoSuchTag
                | RegistryErrorKind::NoSuchRepository
                | RegistryErrorKind::Denied
                | RegistryErrorKind::Garbled => None,
            };
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn get_once(
        &self,
        image: &Reference,
        path: &str,
        accept: &str,
        limit: usize,
    ) -> Result<Answer, RegistryError> {
        let host = api_host(image);
        let scheme = if self.is_plain(host) { "http" } else { "https" };
        let url = format!("{scheme}://{host}/v2/{}/{path}", image.repository);
        let url = Url::parse(&url).map_err(|error| garbled(image, error.to_string()))?;
        let key = (image.host.clone(), image.repository.clone());
        let known = self.tokens.lock().expect("no holder panics").get(&key).cloned();
        let first = self.send(image, &url, accept, known).await?;
        let answer = if first.status() == StatusCode::UNAUTHORIZED {
            let header = self.authorize(image, first.headers()).await?;
            let again = self.send(image, &url, accept, Some(header.clone())).await?;
            if again.status() != StatusCode::UNAUTHORIZED {
                self.tokens.lock().expect("no holder panics").insert(key, header);
            }
            again
        } else {
            first
        };
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = whole(image, answer, limit).await?;
        if status.is_success() {
            return Ok(Answer { headers, body });
        }
        Err(refused(image, status, &headers, &body))
    }

    fn is_plain(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        // As engines have it: what is on this machine needs no TLS.
        name == "localhost" || name.starts_with("127.") || self.plain.contains(host)
    }

    async fn send(
        &self,
        image: &Reference,
        url: &Url,
        accept: &str,
        authorization: Option<HeaderValue>,
    ) -> Result<reqwest::Response, RegistryError> {
        let mut request = self.http.get(url.clone()).header(ACCEPT, accept);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        request.send().await.map_err(|error| unreachable(image, &error))
    }

    /// Does what the registry asks for; returns the header that should open the repository.
    async fn authorize(
        &self,
        image: &Reference,
        headers: &HeaderMap,
    ) -> Result<HeaderValue, RegistryError> {
        let login = self.keyring.login(&image.host).await;
        let asked = headers.get_all(WWW_AUTHENTICATE).iter();
        let challenge = asked.filter_map(|value| Challenge::parse(value.to_str().ok()?)).next();
        let none = || denied(image, "it wants a login, and there is none for it");
        let text = match (challenge, login) {
            (Some(Challenge::Basic), Some(Login::Password { user, password })) => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose())))
            }
            (Some(Challenge::Basic), Some(Login::Identity(_)) | None) => return Err(none()),
            (Some(Challenge::Bearer { realm, service, scope }), login) => {
                let token = self.token(image, &realm, service, scope, login).await?;
                format!("Bearer {token}")
            }
            (None, _) => {
                return Err(denied(image, "it wants a login of a kind that is not supported"));
            }
        };
        let mut value =
            HeaderValue::from_str(&text).map_err(|_| denied(image, "its token is no header"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn token(
        &self,
        image: &Reference,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
        login: Option<Login>,
    ) -> Result<String, RegistryError> {
        let mut url = Url::parse(realm).map_err(|_| garbled(image, "its realm is no address"))?;
        // A login that would go over the wire readable goes nowhere.
        let is_safe = url.scheme() == "https" || url.host_str().is_some_and(|h| self.is_plain(h));
        let is_safe = is_safe || self.is_plain(api_host(image));
        if login.is_some() && !is_safe {
            return Err(denied(image, "it asks for the login without TLS"));
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", image.repository));
        let service = service.unwrap_or_default();
        let request = match login {
            Some(Login::Identity(token)) => {
                let mut form = Url::parse("form:/").expect("it is an address");
                form.query_pairs_mut()
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", "shiplap")
                    .append_pair("service", &service)
                    .append_pair("scope", &scope)
                    .append_pair("refresh_token", token.expose());
                let body = form.query().unwrap_or_default().to_owned();
                let post = self.http.post(url);
                post.header("content-type", "application/x-www-form-urlencoded").body(body)
            }
            login => {
                url.query_pairs_mut().append_pair("service", &service).append_pair("scope", &scope);
                let get = self.http.get(url);
                match login {
                    Some(Login::Password { user, password }) => {
                        get.basic_auth(user, Some(password.expose()))
                    }
                    Some(Login::Identity(_)) | None => get,
                }
            }
        };
        let answer = request.send().await.map_err(|error| unreachable(image, &error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = whole(image, answer, LONGEST_MANIFEST).await?;
        if !status.is_success() {
            return Err(refused(image, status, &headers, &body));
        }
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = answer["token"].as_str().or_else(|| answer["access_token"].as_str());
        token.map(str::to_owned).ok_or_else(|| garbled(image, "it gave no token"))
    }
}

/// Where a registry answers.
fn api_host(image: &Reference) -> &str {
    if image.host == DOCKER_HUB { DOCKER_HUB_API } else { &image.host }
}

/// Trusts whom the machine trusts; `SSL_CERT_FILE` names further authorities.
fn trust() -> rustls::ClientConfig {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Somebody else may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

async fn whole(
    image: &Reference,
    mut answer: reqwest::Response,
    limit: usize,
) -> Result<Vec<u8>, RegistryError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(image, &error))? {
        if body.len() + chunk.len() > limit {
            return Err(garbled(image, format!("the answer is longer than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn doing(image: &Reference) -> String {
    format!("asking {} for {}", image.host, image)
}

fn garbled(image: &Reference, message: impl Into<String>) -> RegistryError {
    let (kind, doing) = (RegistryErrorKind::Garbled, doing(image));
    RegistryError { kind, doing, message: message.into() }
}

fn denied(image: &Reference, message: &str) -> RegistryError {
    let (kind, doing) = (RegistryErrorKind::Denied, doing(image));
    RegistryError { kind, doing, message: message.to_owned() }
}

fn unreachable(image: &Reference, error: &reqwest::Error) -> RegistryError {
    let (kind, doing) = (RegistryErrorKind::Unreachable, doing(image));
    RegistryError { kind, doing, message: chain(error) }
}

fn is_absent(kind: RegistryErrorKind) -> bool {
    matches!(kind, RegistryErrorKind::NoSuchTag | RegistryErrorKind::NoSuchRepository)
}

/// What an answer that is no success means.
fn refused(
    image: &Reference,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> RegistryError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let first = &body["errors"][0];
    let code = first["code"].as_str().unwrap_or_default();
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let kind = match (status.as_u16(), code) {
        (429, _) | (_, "TOOMANYREQUESTS") => RegistryErrorKind::RateLimited(
            retry_after.and_then(|header| retry::after(header, SystemTime::now())),
        ),
        (_, "NAME_UNKNOWN" | "NAME_INVALID") => RegistryErrorKind::NoSuchRepository,
        (401 | 403, _) => RegistryErrorKind::Denied,
        (404, _) => RegistryErrorKind::NoSuchTag,
        (500.., _) => RegistryErrorKind::Failing,
        _ => RegistryErrorKind::Garbled,
    };
    let said = first["message"].as_str().filter(|message| !message.is_empty());
    let message = match said {
        Some(message) => format!("{message} ({})", status.as_u16()),
        None => format!("it answered {status}"),
    };
    RegistryError { kind, doing: doing(image), message }
}

/// The query of the next page: `</v2/a/referrers/sha256:…?n=1&last=x>; rel="next"`.
fn next_page(link: &HeaderValue) -> Option<String> {
    let link = link.to_str().ok()?;
    let (address, rest) = link.strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then_some(())?;
    Some(address.split_once('?')?.1.to_owned())
}

/// An error with all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
