//! The client for TypeScript: its types checked, and its calls before two daemons.

use std::path::Path;

use outrigger_integration::{Done, on_regtest};
use outrigger_rpc_schema::rendezvous::network_directory;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn the_client_for_typescript_is_typed_and_talks_to_a_daemon() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        regtest.channel(&alice, &bob, 1_000_000, 0).await?;
        let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/typescript/check");
        let output = Command::new(check)
            .env("OUTRIGGER_PAYER", network_directory(alice.directory(), "regtest"))
            .env("OUTRIGGER_PAYEE", network_directory(bob.directory(), "regtest"))
            .output()
            .await?;
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{said}");
        let count = |what: &str| said.lines().find_map(|line| line.split_once(what)?.1.trim().parse::<u32>().ok());
        assert!(count(" tests ") >= Some(10) && count(" pass ") == count(" tests "), "{said}");
        Ok(())
    })
    .await
}
