//! What each method is refused with where there is no node to ask: what the document lists for it.

use std::sync::Arc;

use outrigger_rpc_schema::{ErrorKind, methods};

use crate::stage::Stage;
use crate::tokens::fitting;

/// Calls every method but the one that stops the node, and gives how many were refused because there is none: those that list it.
async fn refused(stage: &Stage, absent: ErrorKind) -> usize {
    let mut refused = 0;
    for method in methods().iter().filter(|method| method.name != "node.stop") {
        let wanted = match method.name {
            // What their texts and lists mean is looked at first.
            "peer.connect" | "channel.open_wait" | "payment.send" | "token.create" => Some(ErrorKind::InvalidParameter),
            "event.subscribe" | "event.unsubscribe" => Some(ErrorKind::EventNoSession),
            // The stage has neither, as a process has neither at its very begin.
            "node.config_get" | "node.log_level" => Some(ErrorKind::Starting),
            // It asks where it is to follow events.
            "plugin.init" => None,
            _ => Some(absent).filter(|absent| method.errors.contains(absent)),
        };
        let answer = stage.call(method.name, fitting(method)).await.json();
        let kind = answer["error"]["data"]["kind"].as_str();
        assert_eq!(kind, wanted.map(ErrorKind::name), "{}: {answer}", method.name);
        refused += usize::from(wanted == Some(absent));
    }
    refused
}

#[tokio::test]
async fn rpc_11_what_asks_the_node_is_refused_before_there_is_one_and_while_it_stops_and_nothing_else_is() {
    let stage = Stage::empty().await;
    let before = refused(&stage, ErrorKind::Starting).await;
    stage.doors.open(Arc::clone(&stage.node));
    stage.doors.request_stop();
    let after = refused(&stage, ErrorKind::Stopping).await;
    assert!(before > after && after > 30, "{before} {after}");
    assert_eq!(stage.orders(), [""; 0]);
}
