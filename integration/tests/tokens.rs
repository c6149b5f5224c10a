//! A token in the hands of another program.

use outrigger_integration::{Done, on_regtest};
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, network_directory};
use outrigger_rpc_schema::{CallError, Client, InvoiceCreate, NodeInfo, Scope, TokenCreate, TokenRevoke};

#[tokio::test(flavor = "multi_thread")]
async fn the_typed_client_calls_with_a_token_what_its_scopes_allow_until_it_is_revoked() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = regtest.sidecar("alice").await?;
        let order = TokenCreate { name: "a screen".to_owned(), scopes: vec![Scope::Read], ..Default::default() };
        let token = alice.call(order).await?.token;
        let address = std::fs::read_to_string(network_directory(alice.directory(), "regtest").join(ADDRESS_FILE))?;
        let screen = Client::with_token(address.trim(), &token)?;
        assert_eq!(screen.call(NodeInfo {}).await?.node_id, alice.node_id().await?);
        let invoice = InvoiceCreate { description: "not for a screen".to_owned(), ..Default::default() };
        let refused = screen.call(invoice).await.map_err(|error| error.kind().map(str::to_owned));
        assert_eq!(refused.map(|created| created.invoice), Err(Some("auth_scope_missing".to_owned())));
        alice.call(TokenRevoke { name: "a screen".to_owned() }).await?;
        let revoked = screen.call(NodeInfo {}).await;
        assert!(matches!(revoked, Err(CallError::Rejected(401))), "{revoked:?}");
        Ok(())
    })
    .await
}
