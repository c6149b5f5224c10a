//! One HTTP exchange with bitcoind: bounded in time and size, and ended early when the daemon stops.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::fault::{FaultKind, RpcFault};
use super::stop::StopFlag;
use crate::clock::Clock;

/// Larger than any answer we ask for: a block of four million bytes is eight million hex digits.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// As much as the status line and headers may take.
const MAX_HEAD: usize = 16 * 1024;
/// How long one read blocks before the limits are looked at again.
const SLICE: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_secs(5);

/// What bounds one exchange.
pub(super) struct Limits<'a> {
    pub(super) deadline: Instant,
    pub(super) stop: &'a StopFlag,
    pub(super) allow_remote: bool,
}

/// An answer's status code and body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Posts `body` to bitcoind at `address` (`host:port`) on a connection of its own and reads the whole answer.
pub(super) fn post(address: &str, authorization: &str, body: &[u8], limits: &Limits<'_>) -> Result<Answer, RpcFault> {
    let mut stream = connect(address, limits)?;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).map_err(unreachable)?;
    read_answer(&mut stream, limits)
}

fn unreachable(error: std::io::Error) -> RpcFault {
    RpcFault::new(FaultKind::Unreachable, error)
}

fn malformed(what: &str) -> RpcFault {
    RpcFault::new(FaultKind::Malformed, what)
}

fn connect(address: &str, limits: &Limits<'_>) -> Result<TcpStream, RpcFault> {
    let mut last = RpcFault::new(FaultKind::Unreachable, format_args!("{address} has no address"));
    for addr in address.to_socket_addrs().map_err(unreachable)? {
        if !addr.ip().is_loopback() && !limits.allow_remote {
            last = RpcFault::new(FaultKind::Remote, format_args!("{addr} is not on this machine"));
            continue;
        }
        match TcpStream::connect_timeout(&addr, CONNECT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(SLICE)).map_err(unreachable)?;
                stream.set_write_timeout(Some(CONNECT)).map_err(unreachable)?;
                return Ok(stream);
            }
            Err(error) => last = RpcFault::new(FaultKind::Unreachable, format_args!("{addr}: {error}")),
        }
    }
    Err(last)
}

fn read_answer(stream: &mut impl Read, limits: &Limits<'_>) -> Result<Answer, RpcFault> {
    let mut received = Vec::new();
    let head = loop {
        if let Some(head) = parse_head(&received)? {
            break head;
        }
        if received.len() > MAX_HEAD {
            return Err(malformed("the answer has no end of its headers"));
        }
        if !read_more(stream, &mut received, limits)? {
            return Err(RpcFault::new(FaultKind::Unreachable, "the connection ended before an answer"));
        }
    };
    let mut body = received.split_off(head.size);
    while head.content_length.is_none_or(|length| body.len() < length) {
        if body.len() > MAX_ANSWER {
            return Err(RpcFault::new(FaultKind::TooLarge, format_args!("more than {MAX_ANSWER} bytes")));
        }
        if !read_more(stream, &mut body, limits)? {
            break;
        }
    }
    if head.content_length.is_some_and(|length| body.len() != length) {
        return Err(RpcFault::new(FaultKind::Unreachable, "the connection ended in the middle of an answer"));
    }
    Ok(Answer { status: head.status, body })
}

/// Appends what one read gives; `false` at the end of the stream.
fn read_more(stream: &mut impl Read, to: &mut Vec<u8>, limits: &Limits<'_>) -> Result<bool, RpcFault> {
    let mut chunk = [0; 16 * 1024];
    loop {
        if limits.stop.is_raised() {
            return Err(RpcFault::new(FaultKind::Stopped, "the daemon is stopping"));
        }
        if Clock::monotonic() >= limits.deadline {
            return Err(RpcFault::new(FaultKind::Timeout, "no whole answer in time"));
        }
        match stream.read(&mut chunk) {
            Ok(count) => {
                to.extend(chunk.iter().take(count));
                return Ok(count > 0);
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                _ => return Err(unreachable(error)),
            },
        }
    }
}

struct Head {
    /// Bytes up to and with the empty line.
    size: usize,
    status: u16,
    content_length: Option<usize>,
}

/// The head at the start of `received`, or `None` while its end has not come.
fn parse_head(received: &[u8]) -> Result<Option<Head>, RpcFault> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = received.get(..end).and_then(|head| std::str::from_utf8(head).ok());
    let mut lines = text.ok_or_else(|| malformed("the headers are no text"))?.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    let status = status.and_then(|status| status.parse().ok()).ok_or_else(|| malformed("the answer is not HTTP"))?;
    let mut content_length = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            content_length = Some(parse_length(value.trim())?);
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(malformed("the answer comes in chunks, as bitcoind's never do"));
        }
    }
    Ok(Some(Head { size: end.saturating_add(4), status, content_length }))
}

fn parse_length(value: &str) -> Result<usize, RpcFault> {
    let length = value.parse().map_err(|_| malformed("the answer's length is no number"))?;
    if length > MAX_ANSWER {
        return Err(RpcFault::new(FaultKind::TooLarge, format_args!("{length} bytes announced")));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Answer, FaultKind> {
        let stop = StopFlag::new();
        let limits =
            Limits { deadline: Clock::monotonic() + Duration::from_secs(60), stop: &stop, allow_remote: false };
        read_answer(&mut &*bytes, &limits).map_err(|fault| fault.kind)
    }

    #[test]
    fn an_answer_ends_where_its_length_says() {
        let answer = read(b"HTTP/1.1 500 Oops\r\ncontent-LENGTH: 2\r\nDate: now\r\n\r\n{}").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (500, b"{}".as_slice()));
        assert_eq!(read(b"HTTP/1.0 200 OK\r\n\r\n{}").unwrap().body, b"{}");
    }

    #[test]
    fn bad_input_99_broken_answers_are_faults() {
        let broken: [(&[u8], FaultKind); 7] = [
            (b"", FaultKind::Unreachable),
            (b"HTTP/1.1 200 OK\r\n", FaultKind::Unreachable),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", FaultKind::Unreachable),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", FaultKind::Malformed),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}", FaultKind::Malformed),
            (b"<html>it works</html>\r\n\r\n", FaultKind::Malformed),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2147483648\r\n\r\n{", FaultKind::TooLarge),
        ];
        for (bytes, kind) in broken {
            assert_eq!(read(bytes).unwrap_err(), kind, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn bad_input_99_an_endless_answer_is_cut_off() {
        let mut head = b"HTTP/1.1 200 OK\r\n\r\n".as_slice();
        let stop = StopFlag::new();
        let limits =
            Limits { deadline: Clock::monotonic() + Duration::from_secs(60), stop: &stop, allow_remote: false };
        let mut endless = Read::chain(&mut head, std::io::repeat(b' '));
        assert_eq!(read_answer(&mut endless, &limits).unwrap_err().kind, FaultKind::TooLarge);
        let mut headers = std::io::repeat(b'a');
        assert_eq!(read_answer(&mut headers, &limits).unwrap_err().kind, FaultKind::Malformed);
    }

    #[test]
    fn a_raised_flag_and_a_passed_deadline_end_the_wait() {
        let stop = StopFlag::new();
        let limits = Limits { deadline: Clock::monotonic(), stop: &stop, allow_remote: false };
        assert_eq!(read_answer(&mut std::io::repeat(b' '), &limits).unwrap_err().kind, FaultKind::Timeout);
        stop.raise();
        assert_eq!(read_answer(&mut std::io::repeat(b' '), &limits).unwrap_err().kind, FaultKind::Stopped);
    }

    #[test]
    fn btc_11_a_remote_bitcoind_is_refused_unless_allowed() {
        let stop = StopFlag::new();
        let limits = Limits { deadline: Clock::monotonic(), stop: &stop, allow_remote: false };
        assert_eq!(post("192.0.2.1:8332", "", b"", &limits).unwrap_err().kind, FaultKind::Remote);
    }
}
