//! Which browser pages may call, and the headers that tell them.
//!
//! Cookies are never used, so every origin is admitted unless the settings name some. A named
//! list also guards WebSocket upgrades, which browsers do not check themselves.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PATCH, DELETE, OPTIONS");
/// The wildcard does not cover `authorization`, so it is named.
const HEADERS: HeaderValue = HeaderValue::from_static("*, authorization");
const ANY: HeaderValue = HeaderValue::from_static("*");
/// How long a browser may remember a preflight, seconds.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("86400");

/// The origins that may call.
#[derive(Debug)]
pub enum Origins {
    /// All of them.
    Any,
    /// These, in lower case.
    Only(Vec<String>),
}

impl Origins {
    /// The origins of the settings; none written means any.
    pub fn new(written: &[String]) -> Origins {
        if written.is_empty() {
            return Origins::Any;
        }
        Origins::Only(written.iter().map(|origin| origin.to_ascii_lowercase()).collect())
    }

    /// Whether a request may open a connection. Requests without an origin come from programs,
    /// not from pages.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        match headers.get(header::ORIGIN) {
            None => true,
            Some(origin) => self.knows(origin),
        }
    }

    fn knows(&self, origin: &HeaderValue) -> bool {
        match self {
            Origins::Any => true,
            Origins::Only(known) => origin
                .to_str()
                .is_ok_and(|origin| known.iter().any(|entry| entry.eq_ignore_ascii_case(origin))),
        }
    }

    /// The answer to a preflight, if the request is one.
    pub fn preflight<B: Default>(
        &self,
        method: &Method,
        headers: &HeaderMap,
    ) -> Option<Response<B>> {
        let asked = *method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !asked {
            return None;
        }
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let origin = headers.get(header::ORIGIN);
        if origin.is_some_and(|origin| self.knows(origin)) {
            let out = response.headers_mut();
            out.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            out.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
            out.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
        }
        self.mark(origin, response.headers_mut());
        Some(response)
    }

    /// Adds what a page needs in order to read the reply.
    pub fn mark(&self, origin: Option<&HeaderValue>, reply: &mut HeaderMap) {
        match self {
            Origins::Any => {
                if origin.is_some() {
                    reply.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
                    reply.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ANY);
                }
            }
            Origins::Only(_) => {
                reply.append(header::VARY, HeaderValue::from_static("origin"));
                if let Some(origin) = origin.filter(|origin| self.knows(origin)) {
                    reply.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                    reply.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ANY);
                }
            }
        }
    }
}
