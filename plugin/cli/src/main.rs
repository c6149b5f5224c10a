//! `outrigger-cli`: the JSON-RPC interface on the command line. It knows the schema and nothing else of the daemon.

mod arguments;
mod completions;
mod fault;
mod find;
mod follow;
mod help;
mod manual;
mod show;
mod visible;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use arguments::{Arguments, Request};
use fault::Fault;
use outrigger_rpc_schema::{EventSubscribe, Method, MethodInfo};
use serde_json::Value;

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to do where even the message cannot be written.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(fault::USAGE));
        }
    };
    match run(&arguments) {
        // Not even nothing is written where nobody reads any more: it would be tried with what could not be written before.
        Ok(text) if text.is_empty() => ExitCode::SUCCESS,
        Ok(text) => match write(&text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => failed(&Fault::Output(fault.to_string()), &arguments),
        },
        Err(fault) => failed(&fault, &arguments),
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn failed(fault: &Fault, arguments: &Arguments) -> ExitCode {
    fault.tell(arguments.json);
    ExitCode::from(fault.exit_code())
}

/// What to print.
fn run(arguments: &Arguments) -> Result<String, Fault> {
    match &arguments.request {
        Request::Overview => Ok(help::overview()),
        Request::Describe(name) => Ok(help::method(method(name)?)),
        Request::Completions(shell) => completions::script(shell).ok_or_else(|| Fault::unknown_shell(shell)),
        Request::Manual => Ok(manual::page()),
        Request::Call { method: name, words } => {
            let method = method(name)?;
            if method.name == EventSubscribe::NAME {
                let parameters = words::parameters(method, words)?;
                runtime()?.block_on(follow::run(arguments, parameters))?;
                return Ok(String::new());
            }
            let result = call(arguments, method, words)?;
            Ok(if arguments.json {
                format!("{}\n", visible::json(&result))
            } else {
                show::result(&result, show::terminal_width())
            })
        }
    }
}

fn call(arguments: &Arguments, method: &MethodInfo, words: &[String]) -> Result<Value, Fault> {
    let parameters = words::parameters(method, words)?;
    let client = find::client(arguments)?;
    Ok(runtime()?.block_on(client.call_untyped(method.name, &parameters))?)
}

fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Fault::Usage(format!("cannot start: {error}")))
}

fn method(name: &str) -> Result<&'static MethodInfo, Fault> {
    MethodInfo::named(name).ok_or_else(|| Fault::unknown_method(name))
}
