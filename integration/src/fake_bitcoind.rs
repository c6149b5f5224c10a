//! What answers like a bitcoind in a state that a real one is hard to bring into.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::Done;

/// What is answered to a method: a result, or a code and words.
pub type Answer = Result<Value, (i32, &'static str)>;

/// A server on a port of its own, for as long as the process lives.
pub struct FakeBitcoind {
    address: String,
    shown: Arc<Mutex<Vec<String>>>,
}

impl FakeBitcoind {
    /// Answers every call by `answer`, given its method.
    pub fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Done<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (shown.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (seen.clone(), answer.clone());
                // A caller that hangs up is nobody's fault.
                std::thread::spawn(move || serve(stream, &seen, &*answer).ok());
            }
        });
        Ok(Self { address, shown })
    }

    /// Where it listens, as `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The port.
    pub fn port(&self) -> &str {
        self.address.rsplit(':').next().unwrap_or_default()
    }

    /// What callers have shown to be admitted, in order.
    pub fn shown(&self) -> Vec<String> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(stream: TcpStream, shown: &Mutex<Vec<String>>, answer: &dyn Fn(&str) -> Answer) -> Done<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse()?,
            "authorization" => shown.lock().unwrap_or_else(PoisonError::into_inner).push(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request: Value = serde_json::from_slice(&body)?;
    let (status, result, error) = match answer(request["method"].as_str().unwrap_or_default()) {
        Ok(result) => (200, result, Value::Null),
        Err((code, message)) => (500, Value::Null, json!({ "code": code, "message": message })),
    };
    let body = json!({ "result": result, "error": error, "id": request["id"] }).to_string();
    let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    reader.get_mut().write_all(format!("{head}{body}").as_bytes())?;
    Ok(())
}
