//! `event.subscribe`: a line for each event as it comes, until the program is interrupted.

use std::io::{self, Write};

use outrigger_rpc_schema::EventSubscribe;
use serde_json::{Map, Value};

use crate::arguments::Arguments;
use crate::fault::Fault;
use crate::{find, show, visible};

/// Prints events until the daemon tells no more, which is an error, or nobody reads any more, which is the end. That the daemon is lost
/// stands on the standard error, once each time.
pub(crate) async fn run(arguments: &Arguments, parameters: Map<String, Value>) -> Result<(), Fault> {
    let asked: EventSubscribe =
        serde_json::from_value(Value::Object(parameters)).map_err(|fault| Fault::Usage(fault.to_string()))?;
    let is_json = arguments.json;
    let tell_lost = move |fault: &_| Fault::lost(fault).tell(is_json);
    let mut events = find::client(arguments)?.follow(asked).when_lost(tell_lost);
    let mut out = io::stdout();
    loop {
        // As it came: a newer daemon may know more than this program.
        let event = events.next_untyped().await?;
        let line = if is_json { visible::json(&event) } else { show::event(&event) };
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(fault) if fault.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(fault) => return Err(Fault::Output(fault.to_string())),
        }
    }
}
