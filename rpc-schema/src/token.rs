//! `token.*`: what other programs may call, each with a token of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Method};

/// What a caller may do. The cookie, the unix socket and the parent of a child process may do everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Look at everything.
    Read,
    /// Create invoices, and look at those.
    Invoice,
    /// Pay over channels, within the token's budget where it has one, and look at payments by their id.
    Pay,
    /// Open and set channels, close them together with the peer, and connect peers. Nothing is given away: `push_msat` and
    /// `channel.force_close` need admin.
    Channel,
    /// Everything, tokens and coins on chain included.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] = [Self::Read, Self::Invoice, Self::Pay, Self::Channel, Self::Admin];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Invoice => "invoice",
            Self::Pay => "pay",
            Self::Channel => "channel",
            Self::Admin => "admin",
        }
    }
}

/// Makes a token, a secret that stands for some rights. It is shown in this answer and never again: only a salted hash of
/// it is kept. Callers send it as `Authorization: Bearer TOKEN`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// What the token is called: 1 to 128 characters, and no other token's name. Idempotency keys belong to this name: no
    /// program is answered with what a key of another did, and a new token of the name of one that was revoked goes on with its
    /// keys.
    pub name: String,
    /// What its holder may do; one scope at least.
    pub scopes: Vec<Scope>,
    /// Seconds until it is good no more: at most ten years; for ever without it. Not with the scope admin, which could make itself
    /// another token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 315_360_000))]
    pub expiry_secs: Option<u32>,
    /// The most that payments made with it may cost together, fees included, in millisatoshi; no limit without it. It needs
    /// the scope pay, and not admin, which could make itself another token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_msat: Option<u64>,
}

impl Method for TokenCreate {
    const NAME: &'static str = "token.create";
    const SCOPES: &'static [Scope] = &[Scope::Admin];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::AuthNameTaken, ErrorKind::AuthTooManyTokens];
    const EXAMPLE: &'static str = r#"{ "name": "shop", "scopes": ["invoice", "pay"], "budget_msat": 50000000 }"#;
    type Result = TokenCreated;
}

/// A new token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenCreated {
    /// What it is called.
    pub name: String,
    /// The secret itself. It cannot be shown again.
    pub token: String,
    /// When it is good no more, in unix seconds; absent where it is good for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// Lists the tokens, by name. Their secrets are not kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenList {
    /// The `next` of the page before; the first page without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many tokens to give at most: 1 to 1000; 100 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
}

impl Method for TokenList {
    const NAME: &'static str = "token.list";
    const SCOPES: &'static [Scope] = &[Scope::Admin];
    const ERRORS: &'static [ErrorKind] = &[];
    const EXAMPLE: &'static str = r#"{ "limit": 10 }"#;
    type Result = TokenPage;
}

/// A page of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenPage {
    /// The tokens.
    pub items: Vec<TokenInfo>,
    /// What to give as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenInfo {
    /// What it is called.
    pub name: String,
    /// What its holder may do.
    pub scopes: Vec<Scope>,
    /// When it was made, in unix seconds.
    pub created_at: u64,
    /// When it is good no more, in unix seconds; absent where it is good for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The most that payments made with it may cost together, in millisatoshi; absent where there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_msat: Option<u64>,
    /// What payments made with it have cost, and pending ones may cost at most, fees included, in millisatoshi.
    pub spent_msat: u64,
}

/// Takes a token back at once, also from connections that are open. Payments that it has begun go on. A repeat finds no such
/// token, and takes no key.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRevoke {
    /// What the token is called.
    pub name: String,
}

impl Method for TokenRevoke {
    const NAME: &'static str = "token.revoke";
    const SCOPES: &'static [Scope] = &[Scope::Admin];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::AuthTokenNotFound];
    const EXAMPLE: &'static str = r#"{ "name": "shop" }"#;
    type Result = TokenRevoked;
}

/// A token that is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenRevoked {
    /// What it was called.
    pub name: String,
}
