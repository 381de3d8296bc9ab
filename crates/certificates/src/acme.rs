//! Certificates from authorities that look at a host by themselves (RFC 8555).

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use shiplap_edge::Client;
use shiplap_edge::table::{Challenge, Proof};

use crate::due::Advice;
use crate::proving::{self, OWNER};
use crate::store::Store;
use crate::transport::Https;
use crate::wanted::{Acme, ChallengeKind, ExternalAccount};

/// The directory of Let's Encrypt.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The one to try things with: it allows much more, and nobody believes what it issues.
pub const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// For the authority to look at all hosts, and again to issue.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.4)
    .timeout(Duration::from_secs(120));
/// What a problem's type begins with.
const URN: &str = "urn:ietf:params:acme:error:";

/// Why there is no certificate.
#[derive(Debug)]
pub(crate) struct AcmeError {
    pub text: String,
    pub advice: Advice,
}

impl AcmeError {
    fn new(text: impl Into<String>) -> AcmeError {
        AcmeError { text: text.into(), advice: Advice::None }
    }
}

/// Gets a certificate: chain and key, as PEM. Its key is made for it.
pub(crate) async fn issue(
    store: &Store,
    edge: &Client,
    acme: &Acme,
    names: &[String],
) -> Result<String, AcmeError> {
    can_be_proved(edge, acme.challenge).await?;
    let https = Https::new(acme.roots.as_deref()).map_err(AcmeError::new)?;
    let failed = |doing: &'static str| {
        let https = https.clone();
        move |error: Error| explain(doing, &error, &https)
    };
    let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
    let new_order = NewOrder::new(&identifiers);
    let account = account(store, acme, &https).await?;
    let mut order = match account.new_order(&new_order).await {
        // It has forgotten us. A person need not know.
        Err(Error::Api(problem)) if is(&problem, "accountDoesNotExist") => {
            forget_account(store, acme)?;
            let account = self::account(store, acme, &https).await?;
            account.new_order(&new_order).await.map_err(failed("ordering"))?
        }
        order => order.map_err(failed("ordering"))?,
    };
    let challenges = challenges(&mut order, edge, acme.challenge, &https).await?;
    let issued = finish(&mut order, edge, names, &challenges, acme.challenge, &https).await;
    if !challenges.is_empty()
        && let Err(error) = proving::prove(edge, &[]).await
        && issued.is_ok()
    {
        // What stays behind proves nothing to anybody else, and goes with the next order.
        return Err(AcmeError::new(format!("taking the proof back: {error}")));
    }
    issued
}

/// Asking without being able to answer would only count as a failure there.
async fn can_be_proved(edge: &Client, kind: ChallengeKind) -> Result<(), AcmeError> {
    let table = edge.table().await.map_err(|error| AcmeError::new(error.to_string()))?;
    let outside = || table.listeners.iter().filter(|listener| listener.namespace.is_none());
    let speaks_http = |listener: &&shiplap_edge::Listener| {
        let pool = listener.pool.as_ref().and_then(|name| table.pools.get(name));
        pool.is_none_or(|pool| pool.protocol != shiplap_edge::Protocol::Tcp)
    };
    let (can, what) = match kind {
        ChallengeKind::Http01 => {
            let plain = outside().filter(speaks_http).any(|listener| listener.tls.is_none());
            (plain, "HTTP without TLS, which HTTP-01 is asked at port 80 of")
        }
        ChallengeKind::TlsAlpn01 => {
            let tls = outside().any(|listener| listener.tls.is_some());
            (tls, "TLS, which TLS-ALPN-01 is asked at port 443 of")
        }
    };
    if can { Ok(()) } else { Err(AcmeError::new(format!("no listener of the edge is for {what}"))) }
}

/// What is to be proved; nothing where the authority still remembers.
async fn challenges(
    order: &mut Order,
    edge: &Client,
    kind: ChallengeKind,
    https: &Https,
) -> Result<Vec<Challenge>, AcmeError> {
    let failed = |error: Error| explain("asking what to prove", &error, https);
    let mut challenges = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(failed)?;
        let host = authorization.identifier().to_string();
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => return Err(AcmeError::new(format!("the order for {host} is {other:?}"))),
        }
        let Some(challenge) = authorization.challenge(type_of(kind)) else {
            let text = format!("the authority does not offer {:?} for {host}", type_of(kind));
            return Err(AcmeError::new(text));
        };
        let authorization = challenge.key_authorization();
        let proof = match kind {
            ChallengeKind::Http01 => Proof::Http {
                token: challenge.token.clone(),
                answer: authorization.as_str().to_owned(),
            },
            ChallengeKind::TlsAlpn01 => {
                let pem = proof(&host, authorization.digest().as_ref());
                let pem = pem.map_err(|error| AcmeError::new(error.to_string()))?;
                let given = edge.put_certificate(pem.into()).await;
                let certificate = given.map_err(|error| AcmeError::new(error.to_string()))?.id;
                Proof::Tls { certificate }
            }
        };
        challenges.push(Challenge { owner: OWNER.to_owned(), host, proof });
    }
    Ok(challenges)
}

/// Proves, waits, and takes the certificate.
async fn finish(
    order: &mut Order,
    edge: &Client,
    names: &[String],
    challenges: &[Challenge],
    kind: ChallengeKind,
    https: &Https,
) -> Result<String, AcmeError> {
    let failed = |doing: &'static str| move |error: Error| explain(doing, &error, https);
    if !challenges.is_empty() {
        let proved = proving::prove(edge, challenges).await;
        proved.map_err(|error| AcmeError::new(format!("giving the proof to the edge: {error}")))?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(failed("proving"))?;
            let doing = format!("proving {}", authorization.identifier());
            if authorization.status == AuthorizationStatus::Pending
                && let Some(mut challenge) = authorization.challenge(type_of(kind))
            {
                let ready = challenge.set_ready().await;
                ready.map_err(|error| explain(&doing, &error, https))?;
            }
        }
    }
    let looked = order.poll_ready(&PATIENCE).await;
    let refused = match looked {
        Ok(OrderStatus::Ready | OrderStatus::Valid) => None,
        Ok(other) => Some(AcmeError::new(format!("the order is {other:?}"))),
        Err(error) => Some(explain("proving", &error, https)),
    };
    if let Some(refused) = refused {
        // What is said of the order does not name the host.
        return Err(AcmeError { text: why_not(order).await.unwrap_or(refused.text), ..refused });
    }
    let key = KeyPair::generate().map_err(|error| AcmeError::new(error.to_string()))?;
    let csr = csr(names, &key).map_err(|error| AcmeError::new(error.to_string()))?;
    order.finalize_csr(&csr).await.map_err(failed("ordering"))?;
    let chain = order.poll_certificate(&PATIENCE).await.map_err(failed("fetching"))?;
    Ok(format!("{}\n{}", chain.trim_end(), key.serialize_pem()))
}

/// What the authority says about hosts that did not prove to be ours.
async fn why_not(order: &mut Order) -> Option<String> {
    let mut all = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let host = authorization.identifier().to_string();
        let Ok(state) = authorization.refresh().await else { continue };
        let problems = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        all.extend(problems.map(|problem| format!("{host}: {}", words(problem))));
    }
    (!all.is_empty()).then(|| all.join("; "))
}

fn type_of(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

/// The certificate that TLS-ALPN-01 asks for (RFC 8737).
fn proof(host: &str, digest: &[u8]) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::new(vec![host.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    Ok(format!("{}{}", params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn csr(names: &[String], key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

fn account_file(acme: &Acme) -> String {
    let key_id = acme.external_account.as_ref().map(|account| account.key_id.as_str());
    let contact = acme.contact.as_deref().unwrap_or_default();
    let named = format!("{}\n{contact}\n{}", acme.directory, key_id.unwrap_or_default());
    format!("accounts/{}.json", &blake3::hash(named.as_bytes()).to_hex()[..16])
}

/// The account that is kept, or a new one, which is kept from now on.
async fn account(store: &Store, acme: &Acme, https: &Https) -> Result<Account, AcmeError> {
    let file = account_file(acme);
    let builder = Account::builder_with_http(Box::new(https.clone()));
    if let Some(text) = store.read(&file).map_err(|error| AcmeError::new(chain(&error)))? {
        let credentials: AccountCredentials = serde_json::from_slice(&text)
            .map_err(|_| AcmeError::new(format!("{file} is not an account")))?;
        let restored = builder.from_credentials(credentials).await;
        return restored.map_err(|error| explain("reaching the authority", &error, https));
    }
    let external = acme.external_account.as_ref().map(external_key).transpose()?;
    let contact = acme.contact.as_ref().map(|address| format!("mailto:{address}"));
    let contact: Vec<&str> = contact.as_deref().into_iter().collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let created = builder.create(&new, acme.directory.clone(), external.as_ref()).await;
    let (account, credentials) =
        created.map_err(|error| explain("making an account", &error, https))?;
    let text =
        serde_json::to_vec(&credentials).map_err(|error| AcmeError::new(error.to_string()))?;
    store.write(&file, &text).map_err(|error| AcmeError::new(chain(&error)))?;
    Ok(account)
}

/// Sets an account aside that the authority does not know.
fn forget_account(store: &Store, acme: &Acme) -> Result<(), AcmeError> {
    let file = account_file(acme);
    let aside = store.path(&format!("{file}.unknown"));
    std::fs::rename(store.path(&file), aside)
        .map_err(|error| AcmeError::new(format!("setting {file} aside: {error}")))
}

fn external_key(account: &ExternalAccount) -> Result<ExternalAccountKey, AcmeError> {
    let path = account.key_file.display();
    let text = std::fs::read_to_string(&account.key_file)
        .map_err(|error| AcmeError::new(format!("reading {path}: {error}")))?;
    let key = BASE64_URL_SAFE_NO_PAD
        .decode(text.trim().trim_end_matches('='))
        .map_err(|_| AcmeError::new(format!("{path} does not hold base64url")))?;
    Ok(ExternalAccountKey::new(account.key_id.clone(), &key))
}

fn is(problem: &Problem, kind: &str) -> bool {
    problem.r#type.as_deref().and_then(|kinds| kinds.strip_prefix(URN)) == Some(kind)
}

fn words(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("a problem without a type");
    let kind = kind.strip_prefix(URN).unwrap_or(kind);
    format!("{kind}: {}", problem.detail.as_deref().unwrap_or("no details"))
}

fn explain(doing: &str, error: &Error, https: &Https) -> AcmeError {
    let text = match error {
        Error::Api(problem) => format!("{doing}: the authority says {}", words(problem)),
        error => format!("{doing}: {}", chain(error)),
    };
    let advice = match (https.come_back(), error) {
        (Some(after), _) => Advice::After(after),
        (None, Error::Api(problem)) if is(problem, "rateLimited") => Advice::RateLimited,
        (None, _) => Advice::None,
    };
    AcmeError { text, advice }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        // Transparent ones say the same again.
        if !text.ends_with(&next_text) {
            text.push_str(&format!(": {next_text}"));
        }
        cause = next.source();
    }
    text
}
