//! The operator's page at its door: who may have it, what it comes with, and what it may call.

use std::collections::BTreeSet;

use outrigger_rpc_schema::{MethodInfo, Scope};
use serde_json::json;
use tokio::net::TcpStream;

use crate::sessions::open;
use crate::stage::{HttpAnswer, Stage};

const JSON: &str = "Content-Type: application/json";
const STATUS: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"node.status"}"#;

/// Every file of the page, and its type.
const FILES: [(&str, &str); 6] = [
    ("/", "text/html; charset=utf-8"),
    ("/page.css", "text/css; charset=utf-8"),
    ("/page.js", "text/javascript; charset=utf-8"),
    ("/node.js", "text/javascript; charset=utf-8"),
    ("/show.js", "text/javascript; charset=utf-8"),
    ("/icon.svg", "image/svg+xml"),
];

impl Stage {
    async fn get(&self, path: &str, more: &[&str]) -> HttpAnswer {
        let more = more.iter().map(|header| (*header).to_owned());
        self.send_to(path, "GET", &[self.host()].into_iter().chain(more).collect::<Vec<_>>(), b"").await
    }
}

#[tokio::test]
async fn the_page_is_served_where_it_is_configured_and_nowhere_else() {
    let without = Stage::open().await;
    let stage = Stage::with_page().await;
    for (path, media_type) in FILES {
        assert_eq!(without.get(path, &[]).await.status, 405, "{path}: it is off without the key");
        let answer = stage.get(path, &[]).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.contains(&format!("content-type: {media_type}\r\n")), "{}", answer.head);
        for header in [
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cross-origin-opener-policy: same-origin",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(answer.head.contains(header), "{path} lacks {header}: {}", answer.head);
        }
        let policy = answer.head.split_once("content-security-policy: ").expect("a policy").1;
        let policy = policy.split_once("\r\n").expect("a line").0;
        let rules: BTreeSet<&str> = policy.split("; ").collect();
        let wanted = [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ];
        assert_eq!(rules, BTreeSet::from(wanted), "{path}");
        assert_eq!(stage.send_to(path, "HEAD", &[stage.host()], b"").await.body, "", "{path}");
    }
    for path in ["/index.html", "/page.js/", "//page.js", "/../page.js", "/rpc.sock", "/.cookie", "/%2e%2e/.cookie"] {
        assert_eq!(stage.get(path, &[]).await.status, 404, "{path}");
    }
    for verb in ["PUT", "OPTIONS", "DELETE"] {
        assert_eq!(stage.send_to("/", verb, &[stage.host()], b"").await.status, 405, "{verb}");
    }
}

#[tokio::test]
async fn bad_input_80_the_page_is_not_given_to_who_means_another_server_nor_to_other_pages() {
    let stage = Stage::with_page().await;
    let port = stage.server.address().port();
    for host in ["evil.example".to_owned(), format!("evil.example:{port}"), format!("127.0.0.1.nip.io:{port}")] {
        for (path, _) in FILES {
            let answer = stage.send_to(path, "GET", &[format!("Host: {host}")], b"").await;
            assert_eq!((answer.status, answer.body.as_str()), (403, ""), "{host} {path}");
        }
    }
    assert_eq!(stage.get("/page.js", &["Origin: http://evil.example"]).await.status, 403);
    assert_eq!(stage.get("/page.js", &["Origin: null"]).await.status, 403, "a page in a sandbox");
}

/// Scripts of the page call from its own address, by each name of the server; those of another port or name do not.
#[tokio::test]
async fn bad_input_80_the_page_may_call_and_no_other() {
    let stage = Stage::with_page().await;
    let port = stage.server.address().port();
    let token = stage.token("page", &[Scope::Read]);
    let call = async |origin: &str| {
        let headers =
            [stage.host(), format!("Authorization: Bearer {token}"), JSON.into(), format!("Origin: {origin}")];
        stage.send("POST", &headers, STATUS).await.status
    };
    for origin in
        [format!("http://127.0.0.1:{port}"), format!("http://localhost:{port}"), "https://node.example".to_owned()]
    {
        assert_eq!(call(&origin).await, 200, "{origin}");
    }
    for origin in [
        format!("https://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{}", port ^ 1),
        "http://127.0.0.1".to_owned(),
        format!("http://localhost:{port}.evil.example"),
        "https://node.example.evil.example".to_owned(),
        "null".to_owned(),
        String::new(),
    ] {
        assert_eq!(call(&origin).await, 403, "{origin}");
    }
    let address = stage.server.address().to_string();
    let bearer = format!("Bearer {token}");
    for (origin, is_let_in) in [(format!("http://{address}"), true), ("http://evil.example".to_owned(), false)] {
        let stream = TcpStream::connect(stage.server.address()).await.expect("connects");
        let headers = [("Origin", origin.as_str()), ("Authorization", bearer.as_str())];
        let opened = open(stream, &address, &headers).await;
        assert_eq!(opened.err(), (!is_let_in).then_some(403), "{origin}");
    }
}

/// The files are text that a script or a style may stand in: none has any, and none names another place.
#[tokio::test]
async fn the_page_has_nothing_inline_and_names_no_other_place() {
    let stage = Stage::with_page().await;
    let html = stage.get("/", &[]).await.body;
    for tag in html.split('<').filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag) {
        let is_inline = tag.starts_with("style") || tag.contains(" style=") || tag.contains(" on");
        assert!(!is_inline, "<{tag}>");
    }
    for script in html.split("<script").skip(1) {
        let (attributes, rest) = script.split_once('>').expect("closed");
        assert!(attributes.contains("src=") && rest.starts_with("</script>"), "a script within the page: {script}");
    }
    for (path, _) in FILES {
        let text = stage.get(path, &[]).await.body;
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        for other in ["http://", "https://", "url(", "@import", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval("]
        {
            assert!(!elsewhere.contains(other), "{path} has {other}");
        }
    }
}

/// What the page calls is published, and a token that may read is enough for all of it.
#[tokio::test]
async fn the_page_calls_published_methods_that_a_reader_may_call() {
    let stage = Stage::with_page().await;
    let mut called = BTreeSet::new();
    for path in ["/page.js", "/node.js"] {
        let text = stage.get(path, &[]).await.body;
        for quoted in text.split('"').skip(1).step_by(2) {
            if quoted.split_once('.').is_some_and(|(group, verb)| {
                !group.is_empty()
                    && !["js", "toml"].contains(&verb)
                    && [group, verb].iter().all(|part| part.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            }) {
                called.insert(quoted.to_owned());
            }
        }
    }
    assert!(called.len() >= 9, "{called:?}");
    called.extend(["payment.list", "payment.get", "invoice.list", "invoice.get"].map(str::to_owned));
    for name in &called {
        let method = MethodInfo::named(name).unwrap_or_else(|| panic!("{name} is not published"));
        assert!(method.scopes.contains(&Scope::Read) && !method.moves_money, "{name}");
    }
    let token = stage.token("page", &[Scope::Read]);
    let answer = stage.call_with(&token, "wallet.balance", json!({})).await;
    assert_eq!(answer.json()["result"]["confirmed_sat"], 1);
}
