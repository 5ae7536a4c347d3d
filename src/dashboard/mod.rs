//! The operators' page at `/offpeak/`: its files, and how they are served. They hold no
//! data and need no token; what the page shows it asks `/offpeak/admin/…` for.

mod files;

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use self::files::{File, all};

/// `/offpeak/`, `/offpeak/assets/…`, and the way to them from `/offpeak`. Whatever is
/// no file is left to others.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let routes = all().iter().fold(Router::new(), |router, file| {
        let serve = move |headers: HeaderMap| async move { answer(file, &headers) };
        router.route(&file.path, get(serve))
    });
    routes
        .route("/offpeak", get(|| async { to_the_page() }))
        .layer(middleware::from_fn(guarded))
}

/// Named from where it is, so that it holds below a proxy's prefix too. Browsers keep the
/// fragment, and with it the token.
fn to_the_page() -> Response {
    let location = [(header::LOCATION, "offpeak/")];
    (StatusCode::TEMPORARY_REDIRECT, location).into_response()
}

fn answer(file: &'static File, asked: &HeaderMap) -> Response {
    // Asked for anew each time, and mostly answered without a body: after an upgrade
    // no file of the old page is left in any cache.
    let kept = [
        (header::ETAG, file.etag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    if is_known(asked, &file.etag) {
        return (StatusCode::NOT_MODIFIED, kept).into_response();
    }
    let kind = [(header::CONTENT_TYPE, file.kind)];
    (kept, kind, file.bytes).into_response()
}

/// Whether `If-None-Match` names what would be sent (RFC 9110 §13.1.2).
fn is_known(asked: &HeaderMap, etag: &HeaderValue) -> bool {
    let values = asked.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"));
    tags.any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes())
}

/// Nothing from elsewhere, nothing inline, in no frame, and no word to others about where
/// the operator was.
async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (OPENER_POLICY, "same-origin"),
        (RESOURCE_POLICY, "same-origin"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use http::Method;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(method: Method, path: &str, etag: Option<&str>) -> (Response<()>, Vec<u8>) {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = routes::<()>().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (Response::from_parts(parts, ()), body.to_vec())
    }

    #[tokio::test]
    async fn the_page_and_its_guards() {
        let (page, body) = ask(Method::GET, "/offpeak/", None).await;
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        assert_eq!(page.headers()["x-content-type-options"], "nosniff");
        assert_eq!(page.headers()["referrer-policy"], "no-referrer");
        assert_eq!(page.headers()["content-security-policy"], POLICY);
        assert!(body.starts_with(b"<!doctype html>"));
        let (head, nothing) = ask(Method::HEAD, "/offpeak/", None).await;
        assert_eq!(head.headers(), page.headers());
        assert_eq!(head.headers()["content-length"], body.len().to_string());
        assert!(nothing.is_empty());
    }

    #[tokio::test]
    async fn a_file_that_is_known_is_not_sent_again() {
        let path = "/offpeak/assets/main.js";
        let (first, body) = ask(Method::GET, path, None).await;
        let etag = first.headers()["etag"].to_str().unwrap().to_owned();
        assert!(!body.is_empty());
        for known in [
            etag.clone(),
            format!("W/{etag}"),
            format!("\"a\", {etag}"),
            "*".into(),
        ] {
            let (again, body) = ask(Method::GET, path, Some(&known)).await;
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(again.headers()["etag"], etag.as_str());
            assert!(body.is_empty());
        }
        let (other, _) = ask(Method::GET, path, Some("\"another\"")).await;
        assert_eq!(other.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn the_way_there_and_no_further() {
        let (there, _) = ask(Method::GET, "/offpeak", None).await;
        assert_eq!(there.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(there.headers()["location"], "offpeak/");
        for path in [
            "/offpeak/assets/",
            "/offpeak/assets/../mod.rs",
            "/offpeak/index.html",
        ] {
            let (none, _) = ask(Method::GET, path, None).await;
            assert_eq!(none.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
