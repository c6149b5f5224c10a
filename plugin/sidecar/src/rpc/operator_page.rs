//! The operator's page: a few files within the binary, the same for everybody who asks. They hold nothing of the node. What the
//! page shows it asks for by the published interface, with the token that its reader types in.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use jsonrpsee::server::{HttpBody, HttpResponse};

/// What the page may do: load its own files and call its own server. No script or style stands within another file, nothing is
/// made of text that a script has (trusted types), and no other page shows it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// What every file comes with.
const HEADERS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    // A newer daemon has newer files.
    (CACHE_CONTROL, "no-cache"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// A file of the page.
pub(super) struct PageFile {
    path: &'static str,
    media_type: &'static str,
    content: &'static str,
}

static FILES: [PageFile; 6] = [
    PageFile { path: "/", media_type: "text/html; charset=utf-8", content: include_str!("operator_page/page.html") },
    PageFile {
        path: "/page.css",
        media_type: "text/css; charset=utf-8",
        content: include_str!("operator_page/page.css"),
    },
    PageFile {
        path: "/page.js",
        media_type: "text/javascript; charset=utf-8",
        content: include_str!("operator_page/page.js"),
    },
    PageFile {
        path: "/node.js",
        media_type: "text/javascript; charset=utf-8",
        content: include_str!("operator_page/node.js"),
    },
    PageFile {
        path: "/show.js",
        media_type: "text/javascript; charset=utf-8",
        content: include_str!("operator_page/show.js"),
    },
    PageFile { path: "/icon.svg", media_type: "image/svg+xml", content: include_str!("operator_page/icon.svg") },
];

/// The file at this path.
pub(super) fn file(path: &str) -> Option<&'static PageFile> {
    FILES.iter().find(|file| file.path == path)
}

impl PageFile {
    /// The file as an answer.
    pub(super) fn answer(&self) -> HttpResponse {
        let mut response = HttpResponse::new(HttpBody::from(self.content));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        headers.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
        response
    }
}
