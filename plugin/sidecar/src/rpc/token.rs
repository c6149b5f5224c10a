//! `token.*`.

use std::collections::BTreeSet;
use std::sync::Arc;

use outrigger_bolt::amount::Msat;
use outrigger_rpc_schema::{
    Scope, TokenCreate, TokenCreated, TokenInfo, TokenList, TokenPage, TokenRevoke, TokenRevoked,
};

use super::desk::Call;
use super::serve::Serve;
use super::{Answer, Backend, Doors, Fault, page, read};
use crate::token::{Token, TokenOrder};

/// The bit of a scope, on disk too.
const fn bit(scope: Scope) -> u8 {
    match scope {
        Scope::Read => 1,
        Scope::Invoice => 2,
        Scope::Pay => 4,
        Scope::Channel => 8,
        Scope::Admin => 16,
    }
}

/// Whether a token with these bits may call what one of `enough` allows.
pub(super) fn allows(bits: u8, enough: &[Scope]) -> bool {
    let of_method = enough.iter().fold(bit(Scope::Admin), |bits, scope| bits | bit(*scope));
    bits & of_method != 0
}

impl<B: Backend> Serve<B> for TokenCreate {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<TokenCreated> {
        let order = token_order(self)?;
        doors.node()?.token_create(order).await
    }
}

fn token_order(call: TokenCreate) -> Answer<TokenOrder> {
    let scopes: BTreeSet<Scope> = call.scopes.iter().copied().collect();
    if scopes.is_empty() {
        return Err(Fault::invalid_parameter("scopes", "must name one scope at least"));
    }
    let may_pay = scopes.contains(&Scope::Pay) && !scopes.contains(&Scope::Admin);
    if call.budget_msat.is_some() && !may_pay {
        return Err(Fault::invalid_parameter("budget_msat", "needs the scope pay, and not admin"));
    }
    // It could make itself another without an end.
    if call.expiry_secs.is_some() && scopes.contains(&Scope::Admin) {
        return Err(Fault::invalid_parameter("expiry_secs", "is for tokens without the scope admin"));
    }
    Ok(TokenOrder {
        name: read::name("name", call.name)?,
        scopes: scopes.into_iter().fold(0, |bits, scope| bits | bit(scope)),
        expiry_secs: call.expiry_secs.map(u64::from),
        budget: call.budget_msat.map(Msat::new),
    })
}

impl<B: Backend> Serve<B> for TokenList {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<TokenPage> {
        let limit = page::limit(self.limit);
        let tokens = doors.node()?.token_list(self.after.as_deref(), limit.saturating_add(1)).await?;
        let (items, next) =
            page::cut(tokens.into_iter().map(info).collect(), limit, |token: &TokenInfo| token.name.clone());
        Ok(TokenPage { items, next })
    }
}

fn info(token: Token) -> TokenInfo {
    let Token { row, spent } = token;
    TokenInfo {
        scopes: Scope::ALL.into_iter().filter(|scope| row.scopes & bit(*scope) != 0).collect(),
        name: row.name,
        created_at: row.created_at,
        expires_at: row.expires_at,
        budget_msat: row.budget.map(Msat::get),
        spent_msat: spent.get(),
    }
}

impl<B: Backend> Serve<B> for TokenRevoke {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<TokenRevoked> {
        let name = read::name("name", self.name)?;
        doors.node()?.token_revoke(&name).await?;
        Ok(TokenRevoked { name })
    }
}
