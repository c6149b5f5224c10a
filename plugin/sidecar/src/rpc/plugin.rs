//! `plugin.*` and `rpc.*`.

use std::sync::Arc;

use outrigger_rpc_schema::{
    EventKind, EventSubscribe, PROTOCOL_VERSION, PluginGroup, PluginInit, PluginInitialised, PluginManifest,
    PluginManifestReport, RpcDiscover, RpcDiscovered, document, methods,
};

use super::desk::Call;
use super::serve::Serve;
use super::{Answer, Backend, Doors, Fault};
use crate::config::options;

impl<B: Backend> Serve<B> for RpcDiscover {
    async fn serve(self, _: Arc<Doors<B>>, _: Call) -> Answer<RpcDiscovered> {
        serde_json::from_value(document()).map_err(Fault::internal)
    }
}

impl<B: Backend> Serve<B> for PluginManifest {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<PluginManifestReport> {
        let features = match doors.node() {
            Ok(node) => node.node_info().await.ok().map(|info| info.features),
            Err(_) => None,
        };
        Ok(PluginManifestReport {
            name: "outrigger".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL_VERSION,
            groups: groups(),
            event_kinds: EventKind::ALL.to_vec(),
            hooks: Vec::new(),
            options: options().collect(),
            features,
        })
    }
}

/// Every method, by what stands before the point.
fn groups() -> Vec<PluginGroup> {
    let mut groups: Vec<PluginGroup> = Vec::new();
    for method in methods() {
        let name = method.name.split('.').next().unwrap_or_default();
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.methods.push(method.name.to_owned()),
            None => groups.push(PluginGroup { name: name.to_owned(), methods: vec![method.name.to_owned()] }),
        }
    }
    groups
}

impl<B: Backend> Serve<B> for PluginInit {
    async fn serve(self, doors: Arc<Doors<B>>, call: Call) -> Answer<PluginInitialised> {
        let in_force = |option: &String| {
            let items = doors.config().map_or(&[][..], |config| &config.items);
            let is_set = |(name, value)| items.iter().any(|item| item.key == name && item.value == value);
            option.split_once('=').is_some_and(is_set)
        };
        let (accepted, refused) = self.options.unwrap_or_default().into_iter().partition(in_force);
        let subscription_id = match self.subscriptions {
            None => None,
            Some(kinds) => {
                let subscribe = EventSubscribe { after_seq: None, kinds: Some(kinds) };
                Some(subscribe.serve(doors, call).await?.subscription_id)
            }
        };
        Ok(PluginInitialised { protocol: PROTOCOL_VERSION, accepted, refused, subscription_id })
    }
}
