//! The parent's door: a message a line, on standard input and output. Whoever started the process may do everything.

use std::io::{BufRead, Read, Write};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::auth::Caller;
use super::desk::{Desk, MAX_BODY_BYTES};
use super::session::{Next, Outgoing, Session};
use super::{Backend, Doors};

/// A line, or what is wrong with it.
enum Line {
    Message(Vec<u8>),
    TooLong,
}

/// Serves a parent until its input ends, which is a stop. Its threads are not waited for: a parent that neither reads nor hangs
/// up keeps nobody from ending.
pub(super) async fn run<B: Backend>(
    doors: Arc<Doors<B>>,
    desk: Arc<Desk>,
    (input, output): (impl Read + Send + 'static, impl Write + Send + 'static),
    stop: impl Future<Output = ()>,
) {
    let (lines, heard) = mpsc::channel(1);
    let (says, said) = mpsc::channel(1);
    let threads = [thread("stdin", move || read(input, &lines)), thread("stdout", move || write(output, said))];
    if let Some(Err(fault)) = threads.into_iter().find(Result::is_err) {
        return tracing::error!(%fault, "the parent cannot be served");
    }
    let (session, outgoing) = Session::open(Caller::Owner, false);
    let _closing = session.closing();
    let hearing = async {
        hear(heard, &session, &desk).await;
        tracing::info!("the parent has closed its pipe");
        doors.request_stop();
        session.conclude().await;
        std::future::pending::<()>().await;
    };
    let concluding = async {
        stop.await;
        session.conclude().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = tell(outgoing, &says) => {}
        () = hearing => {}
        () = concluding => {}
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

async fn hear(mut heard: mpsc::Receiver<Line>, session: &Arc<Session>, desk: &Arc<Desk>) {
    loop {
        match heard.recv().await {
            Some(Line::Message(message)) => session.take(desk, message, session.room().await),
            Some(Line::TooLong) => {
                session.say(super::websocket::too_big()).await;
            }
            None => return,
        }
    }
}

async fn tell(mut outgoing: Outgoing, says: &mpsc::Sender<String>) {
    loop {
        match outgoing.next().await {
            Next::Say(text) => {
                if !matches!(outgoing.unless_over(says.send(text)).await, Some(Ok(()))) {
                    return;
                }
            }
            Next::Over(words) => {
                if let Some(text) = words {
                    let _ = says.send(text).await;
                }
                // What the thread has is written before it lets go of this.
                return;
            }
        }
    }
}

/// Reads lines until the parent is gone. Of one that is too long nothing is kept.
fn read(input: impl Read, lines: &mpsc::Sender<Line>) {
    let mut input = std::io::BufReader::new(input);
    let most = u64::from(MAX_BODY_BYTES).saturating_add(1);
    loop {
        let mut line = Vec::new();
        match input.by_ref().take(most).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let is_whole = line.last() == Some(&b'\n');
        if !is_whole && line.len() as u64 >= most {
            if skip_line(&mut input).is_err() {
                return;
            }
            if lines.blocking_send(Line::TooLong).is_err() {
                return;
            }
            continue;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if lines.blocking_send(Line::Message(line)).is_err() {
            return;
        }
    }
}

/// Passes over the rest of a line, a buffer at a time.
fn skip_line(input: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let passed = end.map_or(buffer.len(), |end| end.saturating_add(1));
        input.consume(passed);
        if end.is_some() {
            return Ok(());
        }
    }
}

fn write(mut output: impl Write, mut said: mpsc::Receiver<String>) {
    while let Some(mut text) = said.blocking_recv() {
        text.push('\n');
        if output.write_all(text.as_bytes()).and_then(|()| output.flush()).is_err() {
            return;
        }
    }
}
