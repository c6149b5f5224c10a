//! What gate and calls ask about tokens, whatever node is behind the doors.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{Backend, Doors};
use crate::token::{Rights, TokenId};

/// The node is not there yet: no token can be told from another.
#[derive(Debug)]
pub(super) struct NotOpen;

/// Tokens as the doors know them.
pub(super) trait Bearers: Send + Sync + 'static {
    /// The token whose secret this text is, where there is one.
    fn admit(&self, shown: &str) -> Result<Option<TokenId>, NotOpen>;

    /// What this token allows now; none where it was revoked or has expired.
    fn rights(&self, token: &TokenId) -> Option<Rights>;

    /// All that is measured; none before there is a node.
    fn metrics(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Option<String>> + Send>>;
}

impl<B: Backend> Bearers for Doors<B> {
    fn admit(&self, shown: &str) -> Result<Option<TokenId>, NotOpen> {
        self.opened().map(|node| node.tokens().admit(shown)).ok_or(NotOpen)
    }

    fn rights(&self, token: &TokenId) -> Option<Rights> {
        self.opened()?.tokens().rights(token)
    }

    fn metrics(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> {
        Box::pin(async move {
            match self.opened() {
                Some(node) => Some(node.metrics().await),
                None => None,
            }
        })
    }
}
