//! Where callers present keys that we issued: what passes, and with whose key. Nothing
//! waits here on the store; only of a key that lists its models a body is read.

use std::{fmt, sync::Arc, time::Duration};

use axum::body::Body as Whole;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};

use super::body::RequestBody;
use crate::{
    edge::{ask, auth, errors::ApiError, memory::Memory, models, read},
    engine::{Caller, Engine, REPLACED},
};

/// Looks at every call that is to pass.
pub(super) struct Gate {
    engine: Arc<Engine>,
    paths: Paths,
    /// Of a body that is read, or refused.
    most: read::Bounds,
    memory: Arc<Memory>,
}

/// Which calls an issued key's holder may pass to the upstream. What is not named does
/// not pass: the upstream's key opens more than one tenant's own, such as the input
/// files of all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths(Vec<Named>);

/// A path and all below it, of one method or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    method: Option<Method>,
    path: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no path such as \"/v1/responses\" or \"POST /v1/embeddings\", nor \"*\"")]
pub struct BadPath(String);

impl Paths {
    /// Each is a path, perhaps behind a method; `*` names them all.
    ///
    /// # Errors
    /// Names the first that is neither.
    pub fn read(named: &[String]) -> Result<Paths, BadPath> {
        let read = |text: &String| {
            let bad = || BadPath(text.clone());
            let (method, path) = match text.split_once(' ') {
                Some((method, path)) => (Some(method), path),
                None => (None, text.as_str()),
            };
            let known = |method: &&str| method.bytes().all(|byte| byte.is_ascii_uppercase());
            if method.is_some_and(|method| !known(&method)) {
                return Err(bad());
            }
            let method = method.map(|method| method.parse().map_err(|_| bad()));
            let path = match path {
                "*" => "",
                path if path.starts_with('/') && !path.ends_with('/') => path,
                _ => return Err(bad()),
            };
            Ok(Named {
                method: method.transpose()?,
                path: path.to_owned(),
            })
        };
        named.iter().map(read).collect::<Result<_, _>>().map(Paths)
    }

    /// What an upstream could take for another path passes only where all do.
    fn have(&self, method: &Method, path: &str) -> bool {
        let plain = !path.contains(['%', '\\', ';'])
            && !path.contains("//")
            && !path.split('/').any(|part| part == "." || part == "..");
        self.0.iter().any(|named| {
            let below = path.strip_prefix(named.path.as_str());
            let below = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            let here = named.path.is_empty() || (plain && below);
            here && named.method.as_ref().is_none_or(|one| one == method)
        })
    }
}

impl fmt::Display for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, named) in self.0.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            let method = named.method.as_ref().map(|method| format!("{method} "));
            let path = match named.path.as_str() {
                "" => "*",
                path => path,
            };
            write!(f, "{comma}{}{path}", method.unwrap_or_default())?;
        }
        Ok(())
    }
}

impl Gate {
    pub fn new(
        engine: &Arc<Engine>,
        paths: Paths,
        body_timeout: Duration,
        memory: Arc<Memory>,
    ) -> Gate {
        Gate {
            memory,
            most: read::Bounds {
                bytes: engine.settings().admission.max_body_bytes,
                time: body_timeout,
            },
            engine: engine.clone(),
            paths,
        }
    }

    /// The call as the upstream gets it, and whose it is.
    ///
    /// # Errors
    /// 401 for a key that opens nothing, 403 for what it does not open, 429 for a call
    /// too many.
    pub async fn admit(
        &self,
        request: Request<RequestBody>,
    ) -> Result<(Request<RequestBody>, Caller), ApiError> {
        let most = self.most;
        let caller = match self.look(&request) {
            Ok(caller) => caller,
            Err(error) => {
                read::discard(Whole::new(request.into_body()), most).await;
                return Err(error);
            }
        };
        let (mut parts, mut body) = request.into_parts();
        if models::are_listed(&caller) && !matches!(parts.method, Method::GET | Method::HEAD) {
            let read = Whole::new(body);
            if let Err(error) = is_readable(&parts.headers) {
                read::discard(read, most).await;
                return Err(error);
            }
            let portion = self.memory.begin(caller.tenant);
            let (whole, portion) =
                read::read(read, most, portion)
                    .await
                    .map_err(|error| match error.status() {
                        StatusCode::PAYLOAD_TOO_LARGE => too_large(most.bytes),
                        _ => error,
                    })?;
            if !whole.is_empty() {
                models::check(&caller, &whole)?;
            }
            body = Whole::from(portion.of(whole)).into();
        }
        put_in_place(&mut parts.headers, &caller)?;
        Ok((Request::from_parts(parts, body), caller))
    }

    fn look(&self, request: &Request<RequestBody>) -> Result<Caller, ApiError> {
        let (method, uri): (_, &Uri) = (request.method(), request.uri());
        let presented = auth::credential(request.headers(), uri)?;
        let caller = self.engine.identify(presented)?;
        if !self.paths.have(method, uri.path()) {
            let message = format!(
                "{method} {} is not passed on for keys that this server issues. Accepted: {} \
                 (auth.passthrough_paths).",
                uri.path(),
                self.paths
            );
            return Err(ApiError::forbidden("path_not_allowed", message));
        }
        if caller
            .key
            .as_ref()
            .is_some_and(|key| !key.issued.passthrough)
        {
            let message = "This key may only make calls with a deadline: send `Offpeak-Deadline`, \
                           such as `Offpeak-Deadline: 6h`, on a call that a batch takes.";
            return Err(ApiError::forbidden("passthrough_not_allowed", message));
        }
        auth::in_turn(&self.engine, &caller)?;
        Ok(caller)
    }
}

/// No key of the caller's goes on, wherever it may stand.
fn put_in_place(headers: &mut http::HeaderMap, caller: &Caller) -> Result<(), ApiError> {
    let others = ["x-api-key", "offpeak-previous-authorization"];
    for name in REPLACED.iter().chain(&others) {
        headers.remove(*name);
    }
    let theirs = caller.presented.headers.iter();
    for (name, value) in theirs.filter(|(name, _)| REPLACED.contains(&name.as_str())) {
        let unusable = || {
            let message = "The upstream's key cannot be sent in a header.";
            ApiError::server(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
        };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| unusable())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(())
}

fn is_readable(headers: &http::HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let essence = kind.and_then(|kind| kind.split(|byte| *byte == b';').next());
    let json = essence.is_none_or(|it| it.trim_ascii().eq_ignore_ascii_case(b"application/json"));
    match json && ask::plain_body(headers).is_ok() {
        true => Ok(()),
        false => Err(models::unseen("its body is not plain JSON")),
    }
}

fn too_large(most: u64) -> ApiError {
    ApiError::invalid(
        StatusCode::PAYLOAD_TOO_LARGE,
        "request_too_large",
        format!(
            "This key may call some models only: a body is read to see the model, and may have \
             at most {most} bytes (admission.max_body_bytes)."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(named: &[&str]) -> Result<Paths, BadPath> {
        let named: Vec<String> = named.iter().map(ToString::to_string).collect();
        Paths::read(&named)
    }

    #[test]
    fn what_is_named_passes_and_nothing_else() {
        let some = paths(&[
            "/v1/responses",
            "POST /v1/chat/completions",
            "GET /v1/models",
        ]);
        let some = some.unwrap();
        for (method, path, passes) in [
            ("POST", "/v1/responses", true),
            ("GET", "/v1/responses/resp_1", true),
            ("DELETE", "/v1/responses/resp_1", true),
            ("POST", "/v1/chat/completions", true),
            ("GET", "/v1/chat/completions", false),
            ("GET", "/v1/models/gpt-5", true),
            ("DELETE", "/v1/models/ft:gpt", false),
            ("GET", "/v1/files", false),
            ("GET", "/v1/responsesx", false),
            ("GET", "/V1/RESPONSES", false),
            // What an upstream might read as /v1/files.
            ("GET", "/v1/responses/../files", false),
            ("GET", "/v1/responses/%2e%2e/files", false),
            ("GET", "/v1/responses/..%2ffiles", false),
            ("GET", "/v1/responses//files", false),
            ("GET", "/v1/responses/..\\files", false),
            ("GET", "/v1/responses/..;/files", false),
        ] {
            let method: Method = method.parse().unwrap();
            assert_eq!(some.have(&method, path), passes, "{method} {path}");
        }
        let all = paths(&["*"]).unwrap();
        assert!(all.have(&Method::DELETE, "/v1/x/%2e%2e/files"));
        let gets = paths(&["GET *"]).unwrap();
        assert!(gets.have(&Method::GET, "/v1/files") && !gets.have(&Method::POST, "/v1/files"));
        assert!(!paths(&[]).unwrap().have(&Method::GET, "/v1/models"));
        assert_eq!(
            some.to_string(),
            "/v1/responses, POST /v1/chat/completions, GET /v1/models"
        );
    }

    #[test]
    fn what_is_no_path_is_refused_by_name() {
        for bad in [
            "",
            "v1/models",
            "/v1/",
            "post /v1/x",
            "GET",
            "GET  /v1/x",
            "/",
            "**",
        ] {
            assert_eq!(
                paths(&["/v1/models", bad]),
                Err(BadPath(bad.into())),
                "{bad}"
            );
        }
    }
}
