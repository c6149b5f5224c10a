//! Tokens that the owner makes and takes back.

use outrigger_rpc_schema as schema;

use super::backend::Doorkeeper;
use crate::rpc::{Answer, Fault};
use crate::token::{TokenFault, TokenOrder};

impl Doorkeeper {
    /// `token.create`.
    pub(super) async fn create_token(&self, order: TokenOrder) -> Answer<schema::TokenCreated> {
        let name = order.name.clone();
        let made = self.tokens.create(order, |batch| self.manager.env().writer.submit(batch));
        let (text, row, durable) = made.map_err(|fault| token_fault(&name, fault))?;
        // The writer drops the waiter only with the process.
        let _ = durable.await;
        Ok(schema::TokenCreated { name: row.name, token: text.to_string(), expires_at: row.expires_at })
    }

    /// `token.revoke`.
    pub(super) async fn revoke_token(&self, name: &str) -> Answer<()> {
        let taken_back = self.tokens.revoke(name, |batch| self.manager.env().writer.submit(batch));
        match taken_back {
            Ok(durable) => {
                let _ = durable.await;
                Ok(())
            }
            Err(fault) => {
                // Another call may have revoked it a moment ago: that it is gone is told once a crash does not bring it back.
                self.manager.env().writer.barrier().await;
                Err(token_fault(name, fault))
            }
        }
    }
}

fn token_fault(name: &str, fault: TokenFault) -> Fault {
    match fault {
        TokenFault::NameTaken => Fault::token_name_taken(name),
        TokenFault::TooMany => Fault::too_many_tokens(fault),
        TokenFault::NotFound => Fault::token_not_found(name),
        TokenFault::NoEntropy(fault) => Fault::internal(fault),
    }
}
