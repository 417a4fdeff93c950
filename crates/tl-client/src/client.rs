//! Calls to a node over HTTP. A read is one attempt; a write that changes a session as a whole is
//! repeated under one `Idempotency-Key` until its outcome is known.
//!
//! The base address can be swapped while the client is in use: a node that comes back on another
//! port is followed by producers and tails without losing their positions.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tl_types::Seq;
use tl_types::limits::REQUEST_MEMORY_MS;

use crate::error::{ClientError, Refusal};
use crate::event::Event;
use crate::retry::RetryPolicy;
use crate::session::{CreateSession, ListQuery, PatchSession, Session, SessionPage, percent};

/// Largest reply body read into memory, bytes. A page holds at most 4 MiB of payload; metadata
/// may be several times that.
pub const REPLY_BYTES_MAX: usize = 96 * 1024 * 1024;
/// Idle connections kept per node.
const IDLE_CONNECTIONS_MAX: usize = 512;
/// How long an idle connection is kept.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
/// Longest time for all attempts of a write with a key: half of what a server remembers keys for,
/// so that a late attempt is still known there.
pub const WRITE_RETRY_MAX: Duration = Duration::from_millis(REQUEST_MEMORY_MS / 2);
/// The client's own name for a write: a server that took it already gives the first reply again.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// How a client connects.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Longest wait for a connection. Default 5 s.
    pub connect_timeout: Duration,
    /// Longest wait for one whole reply. Default 30 s; long polls add their own wait.
    pub request_timeout: Duration,
    /// The namespace asked for; the server's default when absent.
    pub namespace: Option<String>,
    /// How long a write is repeated whose outcome is not known, at most [`WRITE_RETRY_MAX`]. Default
    /// 60 s. Appends go by the policy of their [`Producer`](crate::Producer).
    pub write_retry: RetryPolicy,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            namespace: None,
            write_retry: RetryPolicy::default(),
        }
    }
}

/// A node's HTTP face. Clones share connections and the base address.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Arc<RwLock<Arc<str>>>,
    options: Arc<ClientOptions>,
}

/// Events of one session after a cursor.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// The cursor behind the last event of this page.
    pub next_cursor: Seq,
    /// The session's last event.
    pub last_seq: Seq,
    /// Whether nothing more could be read at that moment.
    pub up_to_date: bool,
}

#[derive(Deserialize)]
struct EventPageBody<'a> {
    #[serde(borrow)]
    events: &'a RawValue,
    next_cursor: u64,
    last_seq: u64,
    up_to_date: bool,
}

/// A reply with a 2xx status.
pub(crate) struct Reply {
    url: String,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|e| self.unexpected(e))
    }

    fn unexpected(&self, what: impl ToString) -> ClientError {
        ClientError::Unexpected { url: self.url.clone(), what: what.to_string() }
    }
}

impl Client {
    /// A client of the node at `base`, such as `http://127.0.0.1:4000`.
    ///
    /// # Errors
    /// [`ClientError::BadArgument`] when `base` is not an `http://` address.
    pub fn new(base: &str) -> Result<Client, ClientError> {
        Client::with_options(base, ClientOptions::default())
    }

    /// A client with its own time limits and namespace.
    ///
    /// # Errors
    /// [`ClientError::BadArgument`] when `base` is not an `http://` address.
    pub fn with_options(base: &str, options: ClientOptions) -> Result<Client, ClientError> {
        let base = checked_base(base)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(options.connect_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_CONNECTION)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| ClientError::BadArgument(format!("no HTTP client: {e}")))?;
        Ok(Client { http, base: Arc::new(RwLock::new(base)), options: Arc::new(options) })
    }

    /// The address in use.
    #[must_use]
    pub fn base(&self) -> Arc<str> {
        self.base.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends all further requests, of every clone, to another address.
    ///
    /// # Errors
    /// [`ClientError::BadArgument`] when `base` is not an `http://` address.
    pub fn set_base(&self, base: &str) -> Result<(), ClientError> {
        let base = checked_base(base)?;
        *self.base.write().unwrap_or_else(PoisonError::into_inner) = base;
        Ok(())
    }

    /// Makes a session.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `session_exists` when the id is taken;
    /// [`ClientError::GaveUp`] when the outcome is still not known at the end.
    pub async fn create(&self, session: &CreateSession) -> Result<Session, ClientError> {
        let body = json_body(session)?;
        self.write(Method::POST, "/v1/sessions", Some(body)).await?.json()
    }

    /// Makes a session, or answers the one that already has this id. The flag tells whether it
    /// was made now.
    ///
    /// # Errors
    /// As [`Client::create`] and [`Client::get`], but never `session_exists`, unless the id
    /// belongs to a deleted session.
    pub async fn create_or_bind(
        &self,
        session: &CreateSession,
    ) -> Result<(Session, bool), ClientError> {
        // One attempt without a key: a caller that tries again joins what the first one made.
        match self.send_json(Method::POST, "/v1/sessions", session).await {
            Ok(reply) => Ok((reply.json()?, true)),
            Err(ClientError::Refused(refusal)) if refusal.status == 409 => {
                let Some(id) = &session.id else { return Err(refusal.into()) };
                Ok((self.get(id).await?, false))
            }
            Err(other) => Err(other),
        }
    }

    /// The row of one session.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `session_not_found` or `session_tombstoned`.
    pub async fn get(&self, id: &str) -> Result<Session, ClientError> {
        self.send(Method::GET, &session_path(id, "")?, None).await?.json()
    }

    /// One page of sessions, by id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the query is not one.
    pub async fn list(&self, query: &ListQuery) -> Result<SessionPage, ClientError> {
        let path = format!("/v1/sessions{}", query.to_query());
        self.send(Method::GET, &path, None).await?.json()
    }

    /// Changes title or metadata.
    ///
    /// # Errors
    /// [`ClientError::Refused`], with `expected_version_conflict` when the header has moved on.
    pub async fn patch(&self, id: &str, patch: &PatchSession) -> Result<Session, ClientError> {
        let body = json_body(patch)?;
        self.write(Method::PATCH, &session_path(id, "")?, Some(body)).await?.json()
    }

    /// Takes a session out of default lists.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when there is no such session.
    pub async fn archive(&self, id: &str) -> Result<Session, ClientError> {
        self.write(Method::POST, &session_path(id, "/archive")?, None).await?.json()
    }

    /// Puts a session back into default lists.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when there is no such session.
    pub async fn unarchive(&self, id: &str) -> Result<Session, ClientError> {
        self.write(Method::POST, &session_path(id, "/unarchive")?, None).await?.json()
    }

    /// Ends a session: no further appends, tails end after the last event.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when there is no such session.
    pub async fn close(&self, id: &str) -> Result<Session, ClientError> {
        self.write(Method::POST, &session_path(id, "/close")?, None).await?.json()
    }

    /// Deletes a session for good.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when there is no such session.
    pub async fn delete(&self, id: &str) -> Result<(), ClientError> {
        self.write(Method::DELETE, &session_path(id, "")?, None).await.map(|_| ())
    }

    /// Events after `after`, at most `limit`. With a `wait` the server holds the request until
    /// there is something to give or the wait is over (at most 30 s).
    ///
    /// # Errors
    /// [`ClientError::Refused`] when there is no such session or an argument is out of range.
    pub async fn events(
        &self,
        id: &str,
        after: Seq,
        limit: u32,
        wait: Duration,
    ) -> Result<EventPage, ClientError> {
        let mut path = session_path(id, "/events")?;
        path.push_str(&format!("?cursor={after}&limit={limit}"));
        if !wait.is_zero() {
            path.push_str(&format!("&wait_ms={}", wait.as_millis()));
        }
        let request = self.request(Method::GET, &path);
        let request = request.timeout(self.options.request_timeout + wait);
        let reply = self.finish(path, request).await?;
        let page: EventPageBody<'_> =
            serde_json::from_slice(&reply.body).map_err(|e| reply.unexpected(e))?;
        let events = reply.body.slice_ref(page.events.get().as_bytes());
        Ok(EventPage {
            events: Event::parse_array(&events).map_err(|e| reply.unexpected(e))?,
            next_cursor: Seq(page.next_cursor),
            last_seq: Seq(page.last_seq),
            up_to_date: page.up_to_date,
        })
    }

    /// Any other request of the API, by path and query: what a plain HTTP client would send.
    ///
    /// # Errors
    /// [`ClientError`] as for every call.
    pub async fn get_raw(&self, path_and_query: &str) -> Result<Bytes, ClientError> {
        Ok(self.send(Method::GET, path_and_query, None).await?.body)
    }

    /// The same with a JSON body.
    ///
    /// # Errors
    /// [`ClientError`] as for every call.
    pub async fn post_raw(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<Bytes, ClientError> {
        Ok(self.send_json(Method::POST, path, body).await?.body)
    }

    /// Sends the body of an append once; a `Producer` retries this.
    pub(crate) async fn append_body(
        &self,
        path: &str,
        body: Bytes,
        content_type: &'static str,
        policy: &RetryPolicy,
    ) -> Result<Reply, ClientError> {
        let within = policy.attempt_within(self.options.request_timeout);
        let request = self.with_body(Method::POST, path, Some((body, content_type)), within);
        self.finish(path.to_owned(), request).await
    }

    /// A request for a stream of bytes: no limit on the whole, the caller watches for silence.
    pub(crate) async fn open_stream(
        &self,
        path: &str,
        accept: &'static str,
    ) -> Result<reqwest::Response, ClientError> {
        let request = self.request(Method::GET, path).header(ACCEPT, accept);
        let opened = tokio::time::timeout(self.options.request_timeout, request.send()).await;
        let response = match opened {
            Ok(sent) => sent.map_err(|e| transport_error(self.url(path), e))?,
            Err(late) => {
                return Err(ClientError::Broken { url: self.url(path), source: late.into() });
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.read_reply(path, response).await.err().unwrap_or_else(|| {
            ClientError::Unexpected { url: self.url(path), what: "no stream".into() }
        }))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base())
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.options
    }

    async fn send_json(
        &self,
        method: Method,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<Reply, ClientError> {
        self.send(method, path, Some(json_body(body)?)).await
    }

    /// Sends a write until its outcome is known. Every attempt carries the same key, so it takes
    /// effect once, as long as the server remembers the key: ten minutes, or until the session's
    /// group has taken 10,000 others. When the first attempt reaches nobody, nothing was sent and it
    /// ends at once.
    async fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<Body>,
    ) -> Result<Reply, ClientError> {
        let key = random_key()?;
        let policy = self.options.write_retry.within(WRITE_RETRY_MAX);
        let within = policy.attempt_within(self.options.request_timeout);
        let mut attempts = policy.start();
        let mut is_first = true;
        loop {
            let request = self.with_body(method.clone(), path, body.clone(), within);
            let request = request.header(IDEMPOTENCY_KEY, &key);
            match self.finish(path.to_owned(), request).await {
                Ok(reply) => return Ok(reply),
                Err(failure) if is_first && failure.is_unreachable() => return Err(failure),
                Err(failure) => attempts.again(failure).await?,
            }
            is_first = false;
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Body>,
    ) -> Result<Reply, ClientError> {
        let request = self.with_body(method, path, body, self.options.request_timeout);
        self.finish(path.to_owned(), request).await
    }

    fn with_body(
        &self,
        method: Method,
        path: &str,
        body: Option<Body>,
        within: Duration,
    ) -> reqwest::RequestBuilder {
        let request = self.request(method, path).timeout(within);
        match body {
            Some((body, content_type)) => request.header(CONTENT_TYPE, content_type).body(body),
            None => request,
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, self.url(path));
        match &self.options.namespace {
            Some(namespace) => request.header("x-throughline-namespace", namespace),
            None => request,
        }
    }

    async fn finish(
        &self,
        path: String,
        request: reqwest::RequestBuilder,
    ) -> Result<Reply, ClientError> {
        let response = request.send().await.map_err(|e| transport_error(self.url(&path), e))?;
        self.read_reply(&path, response).await
    }

    async fn read_reply(
        &self,
        path: &str,
        mut response: reqwest::Response,
    ) -> Result<Reply, ClientError> {
        let url = self.url(path);
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let mut body = BytesMut::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|e| transport_error(url.clone(), e))?
        {
            if body.len() + chunk.len() > REPLY_BYTES_MAX {
                let what = format!("it is longer than {REPLY_BYTES_MAX} bytes");
                return Err(ClientError::Unexpected { url, what });
            }
            body.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            return Err(Refusal::from_reply(status.as_u16(), retry_after, &body).into());
        }
        Ok(Reply { url, body: body.freeze() })
    }
}

/// A name that nobody else gives a request: the server makes ids of sessions from it.
fn random_key() -> Result<String, ClientError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| {
        ClientError::BadArgument(format!("the operating system gave no random bytes: {e}"))
    })?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// Bytes and their content type.
type Body = (Bytes, &'static str);

fn json_body(body: &impl serde::Serialize) -> Result<Body, ClientError> {
    let body = serde_json::to_vec(body)
        .map_err(|e| ClientError::BadArgument(format!("the body is not JSON: {e}")))?;
    Ok((body.into(), "application/json"))
}

/// `/v1/sessions/<id>` and what follows it.
pub(crate) fn session_path(id: &str, rest: &str) -> Result<String, ClientError> {
    // URL parsers drop these two as steps of a path, however they are encoded.
    if id.is_empty() || id == "." || id == ".." {
        return Err(ClientError::BadArgument(format!("{id:?} cannot stand in a path as an id")));
    }
    Ok(format!("/v1/sessions/{}{rest}", percent(id)))
}

fn checked_base(base: &str) -> Result<Arc<str>, ClientError> {
    let trimmed = base.trim_end_matches('/');
    let parsed = reqwest::Url::parse(trimmed);
    let good = parsed.is_ok_and(|url| url.scheme() == "http" && url.has_host());
    if !good {
        let hint = "an address looks like http://127.0.0.1:4000";
        return Err(ClientError::BadArgument(format!("{base:?} is not an address; {hint}")));
    }
    Ok(trimmed.into())
}

/// The transport's own layers add nothing for a reader: the innermost cause says it.
fn transport_error(url: String, error: reqwest::Error) -> ClientError {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let source = cause.to_string().into();
    if error.is_builder() {
        return ClientError::BadArgument(format!("{url} is not an address: {cause}"));
    }
    if error.is_connect() {
        return ClientError::Unreachable { url: origin(&url), source };
    }
    ClientError::Broken { url, source }
}

/// Scheme, host and port: where nobody answers, the path does not matter.
pub(crate) fn origin(url: &str) -> String {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    url[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_when_given() {
        for good in ["http://127.0.0.1:4000", "http://localhost:4000/"] {
            assert!(Client::new(good).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:4000", "https://example.com", "http://", "ftp://x"] {
            let refused = Client::new(bad).err();
            assert!(matches!(refused, Some(ClientError::BadArgument(_))), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_what_stands_before_the_path() {
        for (url, want) in [
            ("http://127.0.0.1:1/v1/sessions?x=/", "http://127.0.0.1:1"),
            ("http://localhost", "http://localhost"),
        ] {
            assert_eq!(origin(url), want);
        }
    }

    #[test]
    fn clones_follow_a_new_address() {
        let client = Client::new("http://127.0.0.1:1").expect("client");
        let clone = client.clone();
        client.set_base("http://127.0.0.1:2/").expect("set");
        assert_eq!(&*clone.base(), "http://127.0.0.1:2");
    }

    #[test]
    fn ids_stand_in_paths_as_one_segment() {
        assert_eq!(
            session_path("a/b ü", "/tail").ok().as_deref(),
            Some("/v1/sessions/a%2Fb%20%C3%BC/tail")
        );
        assert!(session_path("..", "").is_err());
    }
}
