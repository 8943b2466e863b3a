//! Responses, with the headers that all of them have.

use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::body::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

use crate::agent::page::{Asset, Encoding};

/// A body: complete, or a stream of events.
pub type Body = Either<Full<Bytes>, Channel<Bytes>>;

/// No file, style, script or connection of another origin, none inside the page, and no page around it.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A response with a text.
pub fn plain(status: StatusCode, text: &str) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", text.to_owned())
}

/// A response with a complete body.
pub fn whole(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    response(status, content_type, Either::Left(Full::new(text.into())))
}

/// A file of the page. The browser asks each time whether its copy is current.
pub fn file(asset: &'static Asset, is_current: bool) -> Response<Body> {
    let (status, content) =
        if is_current { (StatusCode::NOT_MODIFIED, &[][..]) } else { (StatusCode::OK, asset.content) };
    let mut response =
        response(status, asset.content_type, Either::Left(Full::new(Bytes::from_static(content))));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::from_str(&asset.etag) {
        headers.insert(ETAG, etag);
    }
    response
}

/// A stream of events.
pub fn events(encoding: Encoding, body: Body) -> Response<Body> {
    let mut response = response(StatusCode::OK, "text/event-stream", body);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if encoding == Encoding::Gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
