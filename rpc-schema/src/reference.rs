//! The reference page: every method with its parameters, its result and a call that can be tried.

use serde_json::{Map, Value};

use crate::parameter::first_sentence;
use crate::{ErrorKind, EventSubscribe, Method, MethodInfo, Parameter, methods, notifications, parameter};

const HEAD: &str = "\
# The interface of Outrigger, method by method

Made from the types in `rpc-schema/src`; a test holds it current (`UPDATE_OPENRPC=1 cargo test -p outrigger-rpc-schema` makes it
again) and another runs every example against a daemon. `openrpc.json` beside it says the same to programs.

A call is a JSON-RPC 2.0 request by `POST`, its parameters given by name. The daemon leaves its address and a cookie in the
directory of its network. The examples find them there, and take what is yours from variables of the shell:

```sh
dir=~/.outrigger/signet
```

The cookie gives every right. `token.create` makes a token of fewer rights for another program, which sends it as
`-H \"authorization: Bearer $token\"` in the place of `-u`; each method says which scope of a token allows it, and `admin` allows all.

Every amount, time and height carries its unit in its name: `_msat` is millisatoshi, `_sat` satoshi on chain, `_at` unix seconds,
`_secs` seconds, `_blocks` and `_height` blocks. A field without a value is absent, never null.
";

/// The reference page of this version of the interface, in Markdown.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## Methods\n\n");
    for method in methods() {
        let anchor = method.name.replace('.', "");
        page.push_str(&format!("- [`{}`](#{anchor}): {}\n", method.name, first_sentence(&method.summary)));
    }
    methods().iter().for_each(|method| section(method, &mut page));
    errors(&mut page);
    page
}

fn section(method: &MethodInfo, page: &mut String) {
    page.push_str(&format!("\n## {}\n\n{}\n", method.name, method.summary));
    let scopes: Vec<String> = method.scopes.iter().map(|scope| format!("`{}`", scope.name())).collect();
    let since = match method.deprecated_in {
        Some(version) => format!("Since {}; not to be used any more since {version}.", method.added_in),
        None => format!("Since {}.", method.added_in),
    };
    page.push_str(&format!("\nA token needs the scope {}. {since}\n", scopes.join(" or ")));
    if method.moves_money {
        page.push_str(
            "\nIt moves money: called without an `id`, so that nobody would hear the answer, it is refused.\n",
        );
    }
    if !method.parameters.is_empty() {
        page.push_str("\nParameters:\n\n");
        method.parameters.iter().for_each(|parameter| entry(parameter, page));
    }
    page.push_str("\nResult:\n\n");
    fields(method.result.as_value(), 0, page);
    let own = method.own_errors();
    let named = if own.is_empty() { String::new() } else { format!("{}, and ", names(&own)) };
    page.push_str(&format!("\nIts errors: {named}[those of any method](#errors).\n"));
    if method.needs_session {
        page.push_str(&format!(
            "\nOver WebSocket, or the pipe of `outriggerd --stdio`:\n\n```json\n{}\n```\n",
            call(method)
        ));
    } else {
        page.push_str(&format!("\n```sh\n{}\n```\n", curl(method)));
    }
    if method.name == EventSubscribe::NAME {
        told(method, page);
    }
}

/// The notifications that may follow the method's answer.
fn told(method: &MethodInfo, page: &mut String) {
    let name = method.name;
    page.push_str(&format!(
        "\nNotifications whose `method` is `{name}` follow, with one of these as their `params`:\n"
    ));
    for told in notifications().iter().filter(|told| told.begun_by.contains(&name)) {
        page.push_str(&format!("\n`{}`: {}\n\n", told.params_name, told.summary));
        fields(told.params.as_value(), 0, page);
        if !told.errors.is_empty() {
            page.push_str(&format!("\nIts kinds: {}.\n", names(told.errors)));
        }
    }
}

/// Kinds of errors, one after the other.
fn names(kinds: &[ErrorKind]) -> String {
    kinds.iter().map(|kind| format!("`{}`", kind.name())).collect::<Vec<_>>().join(", ")
}

/// A request for the method.
fn call(method: &MethodInfo) -> String {
    let example = Value::Object(method.example.clone());
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}","params":{example}}}"#, method.name)
}

/// A call of the method that can be pasted into a shell.
fn curl(method: &MethodInfo) -> String {
    let call = call(method);
    format!(
        "curl -sS -u \"$(cat \"$dir/.cookie\")\" -H 'content-type: application/json' \"http://$(cat \"$dir/rpc_address\")\" \
         -d @- <<END\n{call}\nEND"
    )
}

fn entry(parameter: &Parameter, page: &mut String) {
    let needed = if parameter.required { "required, " } else { "" };
    let kind = kind(&parameter.schema);
    page.push_str(&format!("- `{}` ({needed}{kind}): {}\n", parameter.name, parameter.description));
    below(&parameter.schema, 1, page);
}

/// The fields of an object, those of what is inside it indented.
fn fields(schema: &Value, depth: usize, page: &mut String) {
    let required = |name: &String| {
        let names = schema.get("required").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|required| required.as_str() == Some(name)))
    };
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    for (name, field) in properties {
        let absent = if required(name) { "" } else { ", may be absent" };
        let text = parameter::description(field);
        page.push_str(&format!("{}- `{name}` ({}{absent}): {text}\n", "  ".repeat(depth), kind(field)));
        below(field, depth.saturating_add(1), page);
    }
}

/// What is inside a value: the fields of an object or of a list's objects, or the texts that there are.
fn below(schema: &Value, depth: usize, page: &mut String) {
    let inner = schema.get("items").unwrap_or(schema);
    for option in inner.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        let name = option.get("const").and_then(Value::as_str).unwrap_or_default();
        let text = parameter::description(option);
        page.push_str(&format!("{}- `{name}`: {text}\n", "  ".repeat(depth)));
    }
    fields(inner, depth, page);
}

/// What a value is, in a word or two.
fn kind(schema: &Value) -> &'static str {
    if schema.get("oneOf").is_some() || schema.get("enum").is_some() {
        return "one of these texts";
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("integer") => "a whole number",
        Some("boolean") => "true or false",
        Some("array") => "a list",
        Some("object") => "an object",
        Some(_) | None => "a text",
    }
}

fn errors(page: &mut String) {
    page.push_str(
        "\n## Errors\n\nAn error has a `code`, a `message` for people, and `data` with `kind`, which is stable and for programs, \
         `retryable`, which says whether the same call may succeed later without anybody changing anything, `hint`, which says \
         what to do, and `parameter` where one is at fault.\n",
    );
    page.push_str(&format!(
        "\nAny method may be refused with {}. {} come where no method is found, and so with none. A newer daemon may have kinds that are \
         not here.\n\n| code | kind |\n|---|---|\n",
        names(&ErrorKind::OF_ANY_METHOD),
        names(&ErrorKind::BEFORE_ANY_METHOD),
    ));
    for kind in ErrorKind::ALL {
        let (code, name) = kind.code_and_name();
        page.push_str(&format!("| {code} | `{name}` |\n"));
    }
}
