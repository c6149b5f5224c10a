//! Tokens at the doors: what they admit, what they allow, and when they end.

use outrigger_rpc_schema::{Method, MethodInfo, Parameter, Scope, TokenCreate, TokenList, TokenRevoke, methods};
use serde_json::{Map, Value, json};

use crate::stage::{NODE_ID, Stage};

#[tokio::test]
async fn bad_input_79_what_is_no_token_learns_nothing_and_no_token_is_known_before_the_node_is() {
    let stage = Stage::empty().await;
    assert_eq!(stage.call_with("outr_00", "node.status", json!({})).await.status, 503);
    stage.doors.open(stage.node.clone());
    let good = stage.token("good", &[Scope::Read]);
    let other = stage.token("other", &[Scope::Admin]);
    assert_eq!(stage.call_with(&good, "wallet.balance", json!({})).await.json()["result"]["confirmed_sat"], 1);
    let ids = [&good[..22], &other[22..]].concat();
    let mut bad = vec![String::new(), "outr_".into(), good.to_uppercase(), good[5..].into(), ids, format!("{good}00")];
    bad.push(good.replace("outr_", "outr-"));
    bad.push(good.chars().rev().collect());
    for shown in bad {
        let answer = stage.call_with(&shown, "wallet.balance", json!({})).await;
        assert_eq!((answer.status, answer.body.as_str()), (401, ""), "{shown}");
    }
    // It is not the cookie either.
    let basic = [stage.host(), format!("Authorization: Basic {good}"), "Content-Type: application/json".into()];
    assert_eq!(stage.send("POST", &basic, b"{}").await.status, 401);
}

/// Parameters that the method takes, as far as its schema says.
pub(crate) fn fitting(method: &MethodInfo) -> Value {
    use outrigger_rpc_schema::ParameterType::{Boolean, Choice, Integer, List, Object, Text};
    let mut given = Map::new();
    // Nobody waits for an end in these tests.
    let is_given = |parameter: &&Parameter| parameter.required || parameter.name == "timeout_secs";
    for parameter in method.parameters.iter().filter(is_given) {
        let value = match &parameter.kind {
            Integer { min, .. } => json!(min),
            Boolean => json!(true),
            Text if parameter.name == "node_id" => json!(NODE_ID),
            Text => json!("00".repeat(32)),
            Choice(choices) => json!(choices[0]),
            List(_) => json!([]),
            Object(_) => json!({}),
        };
        given.insert(parameter.name.clone(), value);
    }
    Value::Object(given)
}

#[tokio::test]
async fn rpc_6_bad_input_85_each_method_is_refused_to_each_scope_that_does_not_allow_it() {
    let stage = Stage::open().await;
    let (mut refused, mut allowed) = (0, 0);
    for scope in Scope::ALL {
        let token = stage.token(scope.name(), &[scope]);
        for method in methods().iter().filter(|method| method.name != "node.stop") {
            let answer = stage.call_with(&token, method.name, fitting(method)).await;
            let kind = answer.json()["error"]["data"]["kind"].as_str().unwrap_or_default().to_owned();
            let may = scope == Scope::Admin || method.scopes.contains(&scope);
            assert_eq!(kind == "auth_scope_missing", !may, "{} with {}: {answer:?}", method.name, scope.name());
            if may {
                allowed += 1;
                continue;
            }
            refused += 1;
            let message = answer.json()["error"]["message"].as_str().expect("text").to_owned();
            assert_eq!(answer.json()["error"]["code"], 1803);
            for wanted in method.scopes {
                assert!(message.contains(wanted.name()), "{message}");
            }
        }
    }
    assert!(refused > 50 && allowed > 40, "{refused} {allowed}");
    // In a batch each call is looked at by itself.
    let token = stage.token("reader", &[Scope::Read]);
    let headers = [stage.host(), format!("Authorization: Bearer {token}"), "Content-Type: application/json".into()];
    let call = |id: u8, method: &str| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": {} });
    let batch = json!([call(1, "wallet.balance"), call(2, "node.stop")]).to_string();
    let answers = stage.send("POST", &headers, batch.as_bytes()).await.json();
    assert_eq!(answers[0]["result"]["confirmed_sat"], 1);
    assert_eq!(answers[1]["error"]["data"]["kind"], "auth_scope_missing");
}

#[tokio::test]
async fn rpc_6_a_token_of_channels_gives_nothing_away() {
    let stage = Stage::open().await;
    let open = |push: u64| json!({ "node_id": NODE_ID, "funding_sat": 10, "push_msat": push, "idempotency_key": "a" });
    let opener = stage.token("opener", &[Scope::Channel, Scope::Pay]);
    let answer = stage.call_with(&opener, "channel.open", open(1)).await;
    assert_eq!(answer.error(), (1803, "auth_scope_missing".to_owned()));
    assert_eq!(stage.orders(), [""; 0]);
    assert_eq!(stage.call_with(&opener, "channel.open", open(0)).await.json()["result"]["state"], "opening");
    let admin = stage.token("admin", &[Scope::Admin]);
    assert_eq!(stage.call_with(&admin, "channel.open", open(1)).await.json()["result"]["state"], "opening");
}

#[tokio::test]
async fn rpc_6_payments_are_counted_for_the_token_that_they_come_with() {
    let stage = Stage::open().await;
    let pay = stage.token("payer", &[Scope::Pay]);
    let id = stage.node.tokens.list(None, 1)[0].row.id;
    stage.call_with(&pay, "payment.send", json!({ "invoice": "lnbcrt1" })).await.json();
    stage.call("payment.send", json!({ "invoice": "lnbcrt1" })).await.json();
    let orders = stage.orders();
    assert!(orders[0].contains(&format!("payer: Some({id:?})")) && orders[1].contains("payer: None"), "{orders:?}");
}

#[tokio::test]
async fn rpc_6_an_idempotency_key_belongs_to_the_name_of_the_token_that_it_is_shown_with() {
    let stage = Stage::open().await;
    let (shop, till) = (stage.token("shop", &[Scope::Invoice]), stage.token("till", &[Scope::Invoice]));
    let order = json!({ "description": "oars", "idempotency_key": "1" });
    stage.call_with(&shop, "invoice.create", order.clone()).await.json();
    stage.call_with(&till, "invoice.create", order.clone()).await.json();
    stage.call("invoice.create", order.clone()).await.json();
    // One that takes the place of another goes on with its keys: what that has paid is paid.
    stage.node.tokens.revoke("shop", drop).map(drop).expect("revoked");
    let again = stage.token("shop", &[Scope::Invoice]);
    stage.call_with(&again, "invoice.create", order).await.json();
    let orders = stage.orders();
    assert_eq!(orders.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{orders:?}");
    assert_eq!(orders[0], orders[3]);
    assert!(orders[2].contains(r#"idempotency_key: Some("1")"#), "{orders:?}");
    // No name and no key of a caller can have what stands between them.
    let forged = json!({ "description": "oars", "idempotency_key": "shop\u{1}1" });
    assert_eq!(stage.call("invoice.create", forged).await.error().0, -32602);
}

#[tokio::test]
async fn rpc_6_an_operation_is_found_by_the_tokens_of_its_name_and_by_who_may_do_everything() {
    let stage = Stage::open().await;
    let (opener, admin) = (stage.token("opener", &[Scope::Channel]), stage.token("admin", &[Scope::Admin]));
    let wait = json!({ "op_id": "07".repeat(16) });
    for token in [&opener, &admin] {
        let answer = stage.call_with(token, "channel.open_wait", wait.clone()).await;
        assert_eq!(answer.error(), (1005, "operation_not_found".to_owned()));
    }
    assert_eq!(stage.call("channel.open_wait", wait).await.error().0, 1005);
    let all = r#"(7, Whose { prefix: None }, 60s)"#;
    assert_eq!(stage.orders(), [r#"(7, Whose { prefix: Some("opener\u{1}") }, 60s)"#, all, all]);
    let payer = stage.token("payer", &[Scope::Pay]);
    let answer = stage.call_with(&payer, "channel.open_wait", json!({ "op_id": "07".repeat(16) })).await;
    assert_eq!(answer.error(), (1803, "auth_scope_missing".to_owned()));
}

#[tokio::test]
async fn rpc_6_tokens_are_made_listed_and_taken_back_one_by_one() {
    let stage = Stage::open().await;
    let client = stage.client();
    let shop = TokenCreate {
        name: "shop".into(),
        scopes: vec![Scope::Pay, Scope::Invoice, Scope::Pay],
        expiry_secs: Some(60),
        budget_msat: Some(5),
    };
    let made = client.call(shop.clone()).await.expect("made");
    assert!(made.token.starts_with("outr_") && made.expires_at.is_some());
    assert_eq!(client.call(shop).await.expect_err("taken").kind(), Some("auth_name_taken"));
    stage.token("till", &[Scope::Read]);
    let first = client.call(TokenList { limit: Some(1), ..TokenList::default() }).await.expect("listed");
    assert_eq!((first.items[0].name.as_str(), first.next.as_deref()), ("shop", Some("shop")));
    assert_eq!(first.items[0].scopes, [Scope::Invoice, Scope::Pay]);
    assert_eq!((first.items[0].budget_msat, first.items[0].spent_msat), (Some(5), 0));
    let rest = client.call(TokenList { after: first.next, limit: None }).await.expect("listed");
    assert_eq!((rest.items.len(), rest.items[0].name.as_str(), rest.next), (1, "till", None));
    let info = json!(first.items[0]).to_string();
    let secret = made.token.rsplit('_').next().expect("a secret");
    assert!(!info.contains(secret), "no list shows a secret");
    assert_eq!(stage.call_with(&made.token, "node.status", json!({})).await.status, 200);
    client.call(TokenRevoke { name: "shop".into() }).await.expect("taken back");
    assert_eq!(stage.call_with(&made.token, "node.status", json!({})).await.status, 401);
    let again = client.call(TokenRevoke { name: "shop".into() }).await.expect_err("it is gone");
    assert_eq!(again.kind(), Some("auth_token_not_found"));
}

#[tokio::test]
async fn bad_input_85_what_no_token_can_be_is_refused() {
    let stage = Stage::open().await;
    for (params, parameter) in [
        (json!({ "name": "", "scopes": ["read"] }), "name"),
        (json!({ "name": "a", "scopes": [] }), "scopes"),
        (json!({ "name": "a", "scopes": ["root"] }), "scopes"),
        (json!({ "name": "a", "scopes": ["read"], "budget_msat": 1 }), "budget_msat"),
        (json!({ "name": "a", "scopes": ["pay", "admin"], "budget_msat": 1 }), "budget_msat"),
        (json!({ "name": "a", "scopes": ["pay"], "budget_msat": -1 }), "budget_msat"),
        (json!({ "name": "a", "scopes": ["admin"], "expiry_secs": 9 }), "expiry_secs"),
        (json!({ "name": "a", "scopes": ["pay"], "expiry_secs": 0 }), "expiry_secs"),
        (json!({ "name": "a", "scopes": ["pay"], "expiry_secs": 315_360_001 }), "expiry_secs"),
    ] {
        let answer = stage.call(TokenCreate::NAME, params.clone()).await;
        assert_eq!(answer.error(), (-32602, "invalid_parameter".to_owned()), "{params}");
        assert_eq!(answer.json()["error"]["data"]["parameter"], parameter, "{params}");
    }
    assert!(stage.node.tokens.list(None, 10).is_empty());
}

/// What a page of any site can send without asking (a form), and whatever else comes without a secret.
#[tokio::test]
async fn rpc_1_no_method_is_anonymous_on_the_port() {
    let stage = Stage::open().await;
    for method in methods() {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method.name, "params": fitting(method) }).to_string();
        let headers = [stage.host(), "Content-Type: application/json".to_owned()];
        let answer = stage.send("POST", &headers, body.as_bytes()).await;
        assert_eq!((answer.status, answer.body.as_str()), (401, ""), "{}", method.name);
        let form = [stage.host(), "Content-Type: text/plain".to_owned(), "Origin: http://evil.example".to_owned()];
        assert_eq!(stage.send("POST", &form, body.as_bytes()).await.status, 403, "{}", method.name);
    }
    assert_eq!(stage.orders(), [""; 0]);
}

/// What is ended for good is named in full by whoever ends it: no beginning, no list, no default stands for it.
#[tokio::test]
async fn rpc_9_what_cannot_be_taken_back_is_named_in_full() {
    let stage = Stage::open().await;
    let admin = stage.token("admin", &[Scope::Admin]);
    let name = "ab".repeat(32);
    for method in ["channel.force_close", "channel.close"] {
        let given = [json!(name[..62]), json!(format!("{name}00")), json!(""), json!("*"), json!([name]), json!(null)];
        for given in given.map(|given| json!({ "channel_id": given })).into_iter().chain([json!({})]) {
            let answer = stage.call_with(&admin, method, given.clone()).await;
            let (code, kind) = answer.error();
            assert_eq!((code, kind.as_str()), (-32602, "invalid_parameter"), "{method} {given}");
        }
        let answer = stage.call_with(&admin, method, json!({ "channel_id": name })).await;
        assert_eq!(answer.json()["result"]["channel_id"], name, "{method}: {answer:?}");
    }
    // Who may open channels may not put all of them on chain.
    let opener = stage.token("opener", &[Scope::Read, Scope::Invoice, Scope::Pay, Scope::Channel]);
    let given = json!({ "channel_id": name });
    assert_eq!(stage.call_with(&opener, "channel.force_close", given.clone()).await.error().1, "auth_scope_missing");
    assert_eq!(stage.call_with(&opener, "channel.close", given).await.json()["result"]["channel_id"], name);
}
