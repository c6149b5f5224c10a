//! `outriggerd init`: a seed is made once, words are taken as they were written down, and nothing is ever overwritten.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use outrigger_integration::{Bare, Done, Sidecar, on_regtest, until};
use outrigger_rpc_schema::NodeStatus;
use outrigger_rpc_schema::rendezvous::network_directory;
use serde_json::Value;

/// The node of the words `abandon` eleven times and `about` on regtest, without passphrase, by a derivation written again in Python.
const ABANDON_NODE: &str = "02f453c4d7ab22b7044c0ac7bff3fcd39bdeba17828c15500c945fb5f998b2e942";

fn abandon() -> String {
    format!("{}about", "abandon ".repeat(11))
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn init(bare: &Bare, more: &[&str], input: &str) -> Done<(Option<i32>, String, String)> {
    let arguments = [&["init", "--network", "regtest"], more].concat();
    Ok(said(&bare.run(&arguments, input)?))
}

#[test]
fn key_1_init_shows_new_words_once_and_overwrites_nothing() -> Done<()> {
    let bare = Bare::new()?;
    let (code, text, errors) = init(&bare, &["--json"], "")?;
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let made: Value = serde_json::from_str(&text)?;
    let words: Vec<&str> = made["words"].as_array().ok_or("words")?.iter().filter_map(Value::as_str).collect();
    assert_eq!((words.len(), &made["network"]), (24, &Value::from("regtest")));
    let path = bare.network_dir().join("seed");
    assert_eq!(made["seed_file"], path.display().to_string());
    assert_eq!(std::fs::read_to_string(&path)?.trim(), words.join(" "));
    assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::metadata(bare.network_dir())?.permissions().mode() & 0o077, 0);

    for more in [&["--json"][..], &[], &["--import"]] {
        let (code, text, errors) = init(&bare, more, &abandon())?;
        let expected = format!(
            "outriggerd: there is a seed already: {}. It is not overwritten, and nothing was changed: its words are in that file. For \
             another node choose another --data-dir\n",
            path.display()
        );
        assert_eq!((code, text.as_str(), errors), (Some(1), "", expected));
    }
    assert_eq!(std::fs::read_to_string(&path)?.trim(), words.join(" "));

    // People see the same words with their numbers.
    let other = Bare::new()?;
    let (code, text, _) = init(&other, &[], "")?;
    let seed = std::fs::read_to_string(other.network_dir().join("seed"))?;
    assert_eq!(code, Some(0));
    for (index, word) in seed.split_whitespace().enumerate() {
        assert!(text.contains(&format!("{:>4} {word}", index + 1)), "{text}");
    }
    Ok(())
}

#[test]
fn words_that_are_wrong_are_told_by_position_and_nothing_is_written() -> Done<()> {
    let bare = Bare::new()?;
    let unknown = abandon().replacen("abandon", "abandn", 1);
    let none =
        "0 words were given, and there are 12, 15, 18, 21 or 24 of them: look whether one is missing or there twice";
    for (input, expected) in [
        (unknown.as_str(), "word 1 is none of BIP 39's English words; did you mean abandon?"),
        ("", none),
        (
            &"abandon ".repeat(12),
            "words 1 to 12 are all words of BIP 39 and do not belong together: the checksum in word 12 is of others. One was written \
             down wrong, or two have changed places: compare each with the paper",
        ),
    ] {
        let (code, text, errors) = init(&bare, &["--import"], input)?;
        let expected = format!("outriggerd: {expected}. Nothing was written\n");
        assert_eq!((code, text.as_str(), errors), (Some(1), "", expected));
    }
    let (code, _, errors) = init(&bare, &["--import"], &"zoo ".repeat(2000))?;
    assert_eq!(
        (code, errors.as_str()),
        (Some(1), "outriggerd: the words cannot be read: there is far more than 24 words. Nothing was written\n")
    );
    // Words are no arguments: other users can read those.
    assert_eq!(init(&bare, &["--import", "abandon"], "")?.0, Some(2));
    let left: Vec<_> =
        std::fs::read_dir(bare.network_dir())?.map(|entry| entry.map(|entry| entry.file_name())).collect();
    assert_eq!(left.len(), 1, "the lock alone: {left:?}");
    Ok(())
}

#[test]
fn words_of_every_length_are_kept_as_they_are() -> Done<()> {
    let bare = Bare::new()?;
    let typed = format!("  {}\n", abandon().replace(' ', "\n").to_uppercase());
    let (code, text, errors) = init(&bare, &["--import", "--json"], &typed)?;
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let told: Value = serde_json::from_str(&text)?;
    assert_eq!((&told["node_id"], told.get("words")), (&Value::from(ABANDON_NODE), None));
    assert_eq!(std::fs::read_to_string(bare.network_dir().join("seed"))?.trim(), abandon());
    Ok(())
}

/// A terminal in which the program asks for words, and all that it has shown since.
struct Terminal {
    child: Child,
    types: ChildStdin,
    sees: ChildStdout,
    seen: Vec<u8>,
}

impl Terminal {
    /// Runs `outriggerd init --import` in a terminal of its own, `behind` it in the same shell, until it asks.
    fn asking(bare: &Bare, behind: &str) -> Done<Self> {
        let program = bare.command(&[])?.get_program().to_string_lossy().into_owned();
        let mut terminal = Command::new("script");
        terminal.args([
            "-qefc",
            &format!("trap : INT; {program} init --network regtest --import{behind}"),
            "/dev/null",
        ]);
        terminal.env_clear().env("HOME", bare.home()).env("PATH", "/usr/bin:/bin").env("SHELL", "/bin/sh");
        let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (types, sees) = (child.stdin.take().ok_or("a pipe")?, child.stdout.take().ok_or("a pipe")?);
        let mut terminal = Self { child, types, sees, seen: Vec::new() };
        while !String::from_utf8_lossy(&terminal.seen).contains("they are not shown: ") {
            let mut byte = [0];
            let seen = String::from_utf8_lossy(&terminal.seen).into_owned();
            assert_eq!(terminal.sees.read(&mut byte)?, 1, "it ended before it asked: {seen}");
            terminal.seen.extend(byte);
        }
        Ok(terminal)
    }

    /// Types this; gives all that was seen up to the end, and whether that was a good one.
    fn types(mut self, text: &[u8]) -> Done<(String, bool)> {
        self.types.write_all(text)?;
        self.sees.read_to_end(&mut self.seen)?;
        Ok((String::from_utf8(self.seen)?, self.child.wait()?.success()))
    }
}

#[test]
fn words_that_are_typed_at_a_terminal_are_not_shown() -> Done<()> {
    let bare = Bare::new()?;
    let (seen, is_made) = Terminal::asking(&bare, "")?.types(format!("{}\n", abandon()).as_bytes())?;
    assert!(is_made, "{seen}");
    assert!(seen.contains(ABANDON_NODE) && !seen.contains("abandon") && !seen.contains("about"), "{seen}");
    assert_eq!(std::fs::read_to_string(bare.network_dir().join("seed"))?.trim(), abandon());
    Ok(())
}

#[test]
fn a_terminal_shows_again_what_is_typed_where_nobody_wants_to_type_words() -> Done<()> {
    let bare = Bare::new()?;
    // Ctrl-Z does not leave a shell in a terminal that shows nothing; Ctrl-C ends it.
    let (seen, _) = Terminal::asking(&bare, "; echo code $?; stty -a")?.types(b"\x1a\x03")?;
    let (_, after) = seen.split_once("they are not shown: ").ok_or("what is asked")?;
    assert!(after.contains("outriggerd: the words cannot be read: interrupted. Nothing was written"), "{seen}");
    assert!(after.contains("code 1\r\n"), "{seen}");
    let modes: Vec<_> = after.split([' ', ';', '\r', '\n']).collect();
    assert!(modes.contains(&"echo") && !modes.contains(&"-echo") && after.contains("susp = ^Z"), "{seen}");
    assert!(!bare.network_dir().join("seed").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_words_find_their_coins_and_fit_no_other_database() -> Done<()> {
    on_regtest(async |regtest| {
        let mut first = regtest.sidecar("first").await?;
        // The coins pay an address far behind those that nobody paid.
        for _ in 0..60 {
            first.new_address().await?;
        }
        first.fund(&regtest.bitcoind).await?;
        let (node_id, balance) = (first.node_id().await?, first.balance().await?);
        first.stop().await?;
        let place = network_directory(first.directory(), "regtest");
        let words = std::fs::read_to_string(place.join("seed"))?;

        // Beside a database: the words that signed for it, and no others.
        std::fs::remove_file(place.join("seed"))?;
        let bare = Bare::new()?;
        let here = ["--data-dir", first.directory().to_str().ok_or("a path")?];
        let (code, _, errors) = init(&bare, &here, "")?;
        assert!(code == Some(1) && errors.contains("a new seed could not sign for its channels"), "{errors}");
        let (code, _, errors) = init(&bare, &[&here[..], &["--import"]].concat(), &abandon())?;
        assert!(code == Some(1) && errors.contains("these words are of another node than the database"), "{errors}");
        assert!(!place.join("seed").exists());
        let (code, _, errors) = init(&bare, &[&here[..], &["--import"]].concat(), &words)?;
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        first.start_again().await?;
        assert_eq!(first.node_id().await?, node_id);
        first.stop().await?;

        // In a new place: from the block that is said to be before the first coins.
        let directory = regtest.directory("second")?;
        let there = ["--data-dir", directory.to_str().ok_or("a path")?];
        let (code, _, errors) = init(&bare, &[&there[..], &["--import"]].concat(), &words)?;
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        let start = ["--wallet-start-height", "1"];
        let mut second = Sidecar::start(&directory, "second", &regtest.bitcoind, &start).await?;
        assert_eq!(second.node_id().await?, node_id);
        until(outrigger_integration::sidecar::LIMIT, "the coins to be found", async || {
            Ok((second.balance().await? == balance).then_some(()))
        })
        .await?;
        second.stop().await?;

        // Where that is said too late it helps all the same.
        let directory = regtest.directory("third")?;
        let there = ["--data-dir", directory.to_str().ok_or("a path")?];
        let (code, _, errors) = init(&bare, &[&there[..], &["--import"]].concat(), &words)?;
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        let mut third = Sidecar::start(&directory, "third", &regtest.bitcoind, &[]).await?;
        third.until_ready().await?;
        assert_eq!(third.balance().await?.confirmed_sat, 0);
        third.stop().await?;
        let third = Sidecar::start(&directory, "third", &regtest.bitcoind, &start).await?;
        until(outrigger_integration::sidecar::LIMIT, "the coins to be found in older blocks", async || {
            let is_over = third.call(NodeStatus {}).await?.wallet.is_none();
            Ok((is_over && third.balance().await? == balance).then_some(()))
        })
        .await
    })
    .await
}
