//! `event.subscribe`: a line for each event as it comes, until the program is interrupted.

use std::io::{self, Write};

use outrigger_rpc_schema::{Event, EventSubscribe};
use serde_json::{Map, Value};

use crate::arguments::Arguments;
use crate::fault::Fault;
use crate::{find, show};

/// Prints events until the daemon tells no more, which is an error, or nobody reads any more, which is the end. That the daemon is lost
/// stands on the standard error, once each time.
pub(crate) async fn run(arguments: &Arguments, parameters: Map<String, Value>) -> Result<(), Fault> {
    let asked: EventSubscribe =
        serde_json::from_value(Value::Object(parameters)).map_err(|fault| Fault::Usage(fault.to_string()))?;
    let is_json = arguments.json;
    let mut events = find::client(arguments)?.follow(asked).when_lost(move |fault| {
        let fault = Fault::lost(fault);
        eprintln!("{}", if is_json { fault.json() } else { fault.to_string() });
    });
    let mut out = io::stdout();
    loop {
        let line = line(&events.next().await?, is_json)?;
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
}

fn line(event: &Event, is_json: bool) -> Result<String, Fault> {
    let value = serde_json::to_value(event).map_err(|fault| Fault::Usage(fault.to_string()))?;
    Ok(if is_json { value.to_string() } else { show::event(&value) })
}
