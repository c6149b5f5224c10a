//! A program that keeps backups, is required, and refuses a channel for good, or is late with one: what that costs, and what it does not.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outrigger_integration::{Done, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::{
    BackupInfo, BackupState, BackupStatus, ChannelForceClose, ChannelForceClosing, ChannelOpen, ChannelState,
    PaymentGet, PaymentState,
};

const CAPACITY_SAT: u64 = 1_000_000;
const PUSH_MSAT: u64 = 300_000_000;
const LIMIT: Duration = Duration::from_secs(60);
/// What the HTLC holds that only the newest commitment has.
const NEWEST_MSAT: u64 = 20_000_000;
/// Of a commitment with two balances and no HTLC: each balance, and an anchor beside each (BOLT 3).
const OUTPUTS: usize = 4;
/// What `outriggerd` ends with where a backup refuses a second channel.
const SECOND_REFUSAL: i32 = 5;

/// Hands everything to the program behind it, but a write of a channel that has a file here. That is refused for good, at once or
/// when there is a file `answer`; `asked` says that it has come.
const REFUSER: &str = r#"#!/usr/bin/env bash
exec 3>&1
while IFS= read -r line; do
    if [[ $line =~ '"id":'([0-9]+) ]] && id=${BASH_REMATCH[1]} && [[ $line =~ '_channel"' ]] &&
        [[ $line =~ '"channel_id":"'([0-9a-f]+) ]] && [[ -e $1/${BASH_REMATCH[1]} ]]; then
        : >"$1/asked"
        until [[ -e $1/answer ]]; do sleep 0.01; done
        printf '{"jsonrpc":"2.0","id":%s,"result":{"answer":"permanent_failure","reason":"no room for it, ever"}}\n' "$id" >&3
    else
        printf '%s\n' "$line"
    fi
done | "${@:2}"
"#;

/// Hands everything to the program behind it, but the writes of a channel that has a file here: those are in progress until the file is gone,
/// and only then brought to that program and completed. They die with this one.
const LATE: &str = r#"#!/usr/bin/env bash
coproc KEEPER { exec "${@:2}"; }
held=()
keep() { printf '%s\n' "$1" >&"${KEEPER[1]}"; IFS= read -r answer <&"${KEEPER[0]}"; }
names() { [[ $1 =~ '"channel_id":"'([0-9a-f]+) ]] && channel=${BASH_REMATCH[1]}; }
let_go() {
    local left=() write
    for write in "${held[@]}"; do
        names "$write"
        if [[ -e $1/$channel ]]; then left+=("$write"); continue; fi
        keep "$write"
        [[ $write =~ '"update_id":'([0-9]+) ]]
        printf '{"jsonrpc":"2.0","method":"channel_monitor_updated","params":{"channel_id":"%s","update_id":%s}}\n' \
            "$channel" "${BASH_REMATCH[1]}"
    done
    held=("${left[@]}")
}
line=
while true; do
    IFS= read -r -t 0.02 part
    status=$?
    line+=$part
    if ((status > 128)); then let_go "$1"; continue; fi
    ((status == 0)) || exit 0
    let_go "$1"
    if [[ $line =~ '"id":'([0-9]+) ]] && id=${BASH_REMATCH[1]} && [[ $line =~ '_channel"' ]] && names "$line" &&
        [[ -e $1/$channel ]]; then
        held+=("$line")
        printf '{"jsonrpc":"2.0","id":%s,"result":{"answer":"in_progress"}}\n' "$id"
    else
        keep "$line"
        printf '%s\n' "$answer"
    fi
    line=
done
"#;

/// Alice, whose required backup is such a program, with a channel to Bob and one to Carol.
struct Trio {
    alice: Sidecar,
    bob: Sidecar,
    carol: Sidecar,
    with_bob: String,
    with_carol: String,
    /// What tells the program what to do.
    orders: PathBuf,
    /// Alice's configuration.
    config: PathBuf,
}

impl Trio {
    async fn new(regtest: &Regtest) -> Done<Self> {
        Self::with(regtest, REFUSER, "").await
    }

    /// With this program, and these backups before it in the configuration.
    async fn with(regtest: &Regtest, script: &str, before: &str) -> Done<Self> {
        let (orders, disk) = (regtest.directory("orders")?, regtest.directory("disk")?);
        let program = regtest.directory("programs")?.join("sink");
        std::fs::write(&program, script)?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        let keeper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/examples/keep-in-directory");
        let words = [&program, &orders, &keeper, &disk].map(|word| format!("{:?}", word.display().to_string()));
        let command = words.join(", ");
        let file = format!(
            "{before}[[backup]]\nname = \"elsewhere\"\nkind = \"command\"\nrequirement = \"required\"\ncommand = [{command}]\n"
        );
        let config = regtest.directory("alice")?.join("outrigger.toml");
        std::fs::write(&config, file)?;
        let (alice, bob, carol) =
            tokio::try_join!(regtest.sidecar("alice"), regtest.sidecar("bob"), regtest.sidecar("carol"))?;
        alice.fund(&regtest.bitcoind).await?;
        let mut opened = Vec::new();
        for peer in [&bob, &carol] {
            peer.until_synced_with(&regtest.bitcoind).await?;
            alice.until_synced_with(&regtest.bitcoind).await?;
            alice.connect(peer).await?;
            let order = ChannelOpen {
                node_id: peer.node_id().await?,
                funding_sat: CAPACITY_SAT,
                push_msat: Some(PUSH_MSAT),
                idempotency_key: format!("channel {}", opened.len()),
                ..Default::default()
            };
            opened.push(regtest.open(&alice, order).await?.channel_id);
        }
        for (channel, peer) in opened.iter().zip([&bob, &carol]) {
            alice.until_channel_is(channel, ChannelState::Normal).await?;
            peer.until_channel_is(channel, ChannelState::Normal).await?;
        }
        let [with_bob, with_carol] = opened.try_into().map_err(|_| "two channels")?;
        let trio = Self { alice, bob, carol, with_bob, with_carol, orders, config };
        trio.until_backed(BackupState::Complete).await?;
        Ok(trio)
    }

    async fn until_backed(&self, state: BackupState) -> Done<()> {
        until(LIMIT, &format!("the backup to be {state:?}"), async || {
            let backup = self.alice.call(BackupStatus {}).await?.items.pop().ok_or("no backup")?;
            Ok((backup.state == state && backup.lag_updates == 0).then_some(()))
        })
        .await
    }

    async fn backup(&self, name: &str) -> Done<BackupInfo> {
        let found = self.alice.call(BackupStatus {}).await?.items.into_iter().find(|backup| backup.name == name);
        Ok(found.ok_or("no such backup")?)
    }

    /// The program lacks something and has lacked it for a while, and nothing is wrong with it.
    async fn until_late(&self) -> Done<()> {
        until(LIMIT, "the backup to be late", async || {
            let late = self.backup("elsewhere").await?;
            assert!(late.state != BackupState::Troubled && late.state != BackupState::Failed, "{late:?}");
            Ok((late.state == BackupState::Behind && late.lag_updates > 0 && late.lag_secs > 0).then_some(()))
        })
        .await
    }

    fn order(&self, name: &str) -> Done<()> {
        Ok(std::fs::write(self.orders.join(name), "")?)
    }

    /// Bob pays Alice, and signs a commitment of hers with the HTLC. The backup is asked to keep it and has not answered when Bob is
    /// gone: he publishes nothing.
    async fn sign_what_is_refused(&mut self) -> Done<()> {
        let invoice = self.alice.invoice(NEWEST_MSAT, "never arrives").await?;
        self.order(&self.with_bob)?;
        self.bob.send(&invoice).await?;
        let asked = self.orders.join("asked");
        until(LIMIT, "the backup to be asked", async || Ok(asked.exists().then_some(()))).await?;
        self.bob.kill().await
    }

    async fn paid_to_carol(&self) -> Done<()> {
        let payment = self.alice.pay(&self.carol.invoice(1_000_000, "as ever").await?).await?;
        assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
        Ok(())
    }

    async fn force_close(&self) -> Done<ChannelForceClosing> {
        Ok(self.alice.call(ChannelForceClose { channel_id: self.with_bob.clone() }).await?)
    }

    /// Alice starts again and is connected with Carol.
    async fn start_again(&mut self) -> Done<()> {
        self.alice.start_again().await?;
        let (carol_id, address) = (self.carol.node_id().await?, self.carol.address());
        let agreed = self.alice.until_channel_is(&self.with_carol, ChannelState::Normal);
        self.alice.reconnecting(&carol_id, &address, agreed).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn per_5_a_program_that_refuses_a_channel_costs_that_one_and_the_second_ends_the_node() -> Done<()> {
    on_regtest(async |regtest| {
        let mut trio = Trio::new(regtest).await?;
        trio.sign_what_is_refused().await?;
        trio.order("answer")?;
        let failed = trio.alice.until_channel_is(&trio.with_bob, ChannelState::Failed).await?;
        let reason = failed.reason.ok_or("a reason")?;
        assert!(reason.contains("the backup elsewhere will never have it: no room for it, ever"), "{reason}");
        assert!(reason.contains("is kept: it is published at the first deadline"), "{reason}");
        assert!(regtest.bitcoind.mempool().await?.is_empty() && failed.closing_txid.is_none(), "nothing is published");
        trio.until_backed(BackupState::Failed).await?;
        trio.paid_to_carol().await?;

        // A start meets the same refusal, and changes nothing.
        trio.alice.kill().await?;
        trio.start_again().await?;
        trio.until_backed(BackupState::Failed).await?;
        trio.paid_to_carol().await?;
        assert!(regtest.bitcoind.mempool().await?.is_empty());

        // What is kept is the commitment before the one that was refused.
        let txid = trio.force_close().await?.closing_txid.ok_or("a commitment")?;
        regtest.bitcoind.until_mempool_holds(&txid).await?;
        let outputs = regtest.bitcoind.outputs_sat(&txid).await?;
        assert_eq!(outputs.len(), OUTPUTS, "{outputs:?}");
        assert!(outputs.contains(&(PUSH_MSAT / 1000)), "Bob's balance is as it was before: {outputs:?}");
        trio.paid_to_carol().await?;

        // The second channel, while the node runs and at each start after it.
        trio.order(&trio.with_carol)?;
        let invoice = trio.carol.invoice(1_000_000, "one too many").await?;
        drop(trio.alice.send(&invoice).await);
        assert_eq!(trio.alice.until_ended().await?, Some(SECOND_REFUSAL));
        let code = match trio.alice.launch_again().await {
            Ok(()) => trio.alice.until_ended().await?,
            Err(fault) => fault.to_string().contains("exit status: 5").then_some(SECOND_REFUSAL),
        };
        assert_eq!(code, Some(SECOND_REFUSAL));
        assert_eq!(
            trio.carol.channel(&trio.with_carol).await?.state,
            ChannelState::Normal,
            "it costs no second channel"
        );

        // Out of the configuration it holds nobody up.
        std::fs::remove_file(&trio.config)?;
        trio.start_again().await?;
        trio.paid_to_carol().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn per_5_where_a_start_is_refused_what_the_backup_lacked_it_is_published_once_that_is_replaced() -> Done<()> {
    on_regtest(async |regtest| {
        let mut trio = Trio::new(regtest).await?;
        trio.sign_what_is_refused().await?;
        trio.alice.kill().await?;
        trio.order("answer")?;
        trio.start_again().await?;
        let failed = trio.alice.until_channel_is(&trio.with_bob, ChannelState::Failed).await?;
        let reason = failed.reason.ok_or("a reason")?;
        assert!(reason.contains("lacks its newest commitment") && reason.contains("Replace that backup"), "{reason}");
        assert_eq!(trio.force_close().await?.closing_txid, None);
        trio.paid_to_carol().await?;
        assert!(regtest.bitcoind.mempool().await?.is_empty());

        trio.alice.stop().await?;
        std::fs::remove_file(&trio.config)?;
        trio.start_again().await?;
        let kept = trio.alice.channel(&trio.with_bob).await?.reason.ok_or("a reason")?;
        assert!(kept.contains("is kept") && kept.contains("channel.force_close"), "{kept}");
        assert!(regtest.bitcoind.mempool().await?.is_empty());
        let txid = trio.force_close().await?.closing_txid.ok_or("a commitment")?;
        regtest.bitcoind.until_mempool_holds(&txid).await?;
        let outputs = regtest.bitcoind.outputs_sat(&txid).await?;
        assert_eq!(outputs.len(), OUTPUTS + 1, "the newest one, with its HTLC: {outputs:?}");
        assert!(outputs.contains(&(NEWEST_MSAT / 1000)), "{outputs:?}");
        Ok(())
    })
    .await
}

/// Reads what it is given and says nothing; or ends at the first line.
const HUNG: &str = "exec cat >/dev/null";
const DYING: &str = "read -r line; exit 1";

/// The programs that the node starts are the one thing of somebody else's within its reach. Nothing waits for what is not required.
#[tokio::test(flavor = "multi_thread")]
async fn rpc_8_a_program_that_hangs_or_dies_holds_up_no_call_and_no_payment() -> Done<()> {
    on_regtest(async |regtest| {
        let mut file = String::new();
        for (name, script) in [("hung", HUNG), ("dying", DYING)] {
            file += &format!(
                "[[backup]]\nname = \"{name}\"\nkind = \"command\"\nrequirement = \"follow\"\n\
                 command = [\"bash\", \"-c\", \"{script}\"]\n"
            );
        }
        std::fs::write(regtest.directory("alice")?.join("outrigger.toml"), file)?;
        let (mut alice, bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, PUSH_MSAT).await?;
        until(LIMIT, "the dying program to be told of", async || {
            let backups = alice.call(BackupStatus {}).await?.items;
            let state = |name: &str| backups.iter().find(|backup| backup.name == name).map(|backup| backup.state);
            assert_ne!(state("hung"), Some(BackupState::Complete));
            Ok((state("dying") == Some(BackupState::Troubled)).then_some(()))
        })
        .await?;
        for payment in ["one", "another"] {
            let payment = alice.pay(&bob.invoice(1_000_000, payment).await?).await?;
            assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
        }
        alice.until_idle(&opened.channel_id).await?;
        // A stop waits for neither.
        alice.stop().await?;
        Ok(())
    })
    .await
}

/// What both ends of a channel have in it, nothing being under way.
async fn balances(nodes: [&Sidecar; 2], channel_id: &str) -> Done<[u64; 2]> {
    let [one, other] = nodes;
    Ok([one.until_idle(channel_id).await?.local_msat, other.until_idle(channel_id).await?.local_msat])
}

#[tokio::test(flavor = "multi_thread")]
async fn per_2_a_program_that_is_late_with_a_channel_stalls_that_one_alone_and_completes_it_after_a_crash() -> Done<()>
{
    on_regtest(async |regtest| {
        let copies = regtest.directory("copies")?;
        let follows = format!(
            "[[backup]]\nname = \"copies\"\nkind = \"directory\"\nrequirement = \"follow\"\npath = \"{}\"\n\n",
            copies.display()
        );
        let mut trio = Trio::with(regtest, LATE, &follows).await?;
        let before = balances([&trio.alice, &trio.bob], &trio.with_bob).await?;
        assert_eq!(before.iter().sum::<u64>(), CAPACITY_SAT * 1000);
        trio.until_backed(BackupState::Complete).await?;

        trio.order(&trio.with_bob)?;
        let payment = trio.bob.send(&trio.alice.invoice(NEWEST_MSAT, "late").await?).await?;
        trio.until_late().await?;
        for _ in 0..3 {
            trio.paid_to_carol().await?;
        }
        // The one that nobody waits for has both channels.
        until(LIMIT, "the copies to be complete", async || {
            let copies = trio.backup("copies").await?;
            Ok((copies.state == BackupState::Complete && copies.lag_updates == 0).then_some(()))
        })
        .await?;
        trio.until_late().await?;
        assert_eq!(trio.bob.call(PaymentGet { payment_id: payment.clone() }).await?.state, PaymentState::Pending);

        trio.alice.kill().await?;
        trio.start_again().await?;
        trio.until_late().await?;
        trio.paid_to_carol().await?;
        assert_eq!(trio.bob.call(PaymentGet { payment_id: payment.clone() }).await?.state, PaymentState::Pending);
        assert_eq!(trio.alice.channel(&trio.with_bob).await?.state, ChannelState::Normal);

        std::fs::remove_file(trio.orders.join(&trio.with_bob))?;
        trio.until_backed(BackupState::Complete).await?;
        let (bob_id, address) = (trio.bob.node_id().await?, trio.bob.address());
        let ended = trio.alice.reconnecting(&bob_id, &address, trio.bob.payment_end(&payment)).await?;
        assert_eq!(ended.state, PaymentState::Succeeded, "{ended:?}");
        let after = balances([&trio.alice, &trio.bob], &trio.with_bob).await?;
        assert_eq!(after, [before[0] + NEWEST_MSAT, before[1] - NEWEST_MSAT]);
        let with_carol = balances([&trio.alice, &trio.carol], &trio.with_carol).await?;
        assert_eq!(with_carol.iter().sum::<u64>(), CAPACITY_SAT * 1000);
        trio.until_backed(BackupState::Complete).await?;
        assert!(regtest.bitcoind.mempool().await?.is_empty(), "nothing is closed for it");
        Ok(())
    })
    .await
}
