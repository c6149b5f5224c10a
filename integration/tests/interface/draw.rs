//! Calls drawn from the document: such as it admits, and such as it does not.

use outrigger_integration::Dice;
use serde_json::{Map, Value, json};

use crate::known::Known;

/// Ends the process that is looked at: it is called with a parameter that it does not have, and no other way.
pub(crate) const ENDS_THE_NODE: &str = "node.stop";

/// What says how long a call waits.
const WAIT: &str = "timeout_secs";

/// What a wait that is admitted takes at the most: a longer one would only be waited for.
const LONGEST_WAIT_SECS: u64 = 2;

/// Objects and lists within each other that no message may have.
const DEPTHS: [u64; 5] = [14, 16, 17, 200, 20_000];

/// Draws calls.
pub(crate) struct Drawer<'a> {
    pub(crate) dice: Dice,
    pub(crate) known: &'a Known,
    pub(crate) document: &'a Value,
}

impl Drawer<'_> {
    /// A call of this method, or of any.
    pub(crate) fn call(&mut self, method: Option<usize>) -> Value {
        let methods = self.document["methods"].as_array().map_or(0, Vec::len);
        let index = method.unwrap_or_else(|| self.index(methods)) % methods.max(1);
        let described = &self.document["methods"][index];
        let name = described["name"].as_str().unwrap_or_default().to_owned();
        let mut given = self.admitted(described, &name);
        if name == ENDS_THE_NODE {
            given.insert("fuzz".to_owned(), json!(true));
        } else if method.is_none() && self.one_in(3) {
            self.spoil(&mut given);
        }
        let mut call = json!({ "jsonrpc": "2.0", "id": self.id(), "method": name });
        if !given.is_empty() || self.one_in(2) {
            call["params"] = Value::Object(given);
        }
        call
    }

    /// The same, which may be no JSON-RPC, or without an id.
    pub(crate) fn odd_call(&mut self) -> Value {
        let mut call = self.call(None);
        match self.dice.below(9) {
            0..3 => drop(call.as_object_mut().and_then(|call| call.remove("id"))),
            3 => call["id"] = self.any(2),
            4 => call["jsonrpc"] = if self.one_in(2) { json!("1.0") } else { json!(2.0) },
            5 => call["method"] = self.odd_method(&call["method"]),
            6 if call["method"] != ENDS_THE_NODE => call["params"] = self.any(2),
            7 => call["more"] = self.any(2),
            _ => return self.any(3),
        }
        call
    }

    /// Calls in one message.
    pub(crate) fn batch(&mut self) -> Value {
        let count = self.dice.one_of([0_u64, 1, 2, 3, 5, 8]);
        if self.one_in(6) {
            let status = |id| json!({ "jsonrpc": "2.0", "id": id, "method": "node.status" });
            return (0..self.dice.one_of([19_u64, 20, 21, 300])).map(status).collect();
        }
        let entry = |number: u64| {
            let mut entry = if self.one_in(3) { self.odd_call() } else { self.call(None) };
            if let Some(entry) = entry.as_object_mut().filter(|entry| entry.get("id").is_some_and(has_an_answer)) {
                // Each its own, so that answers are told apart.
                entry.insert("id".to_owned(), json!(number));
            }
            entry
        };
        (0..count).map(entry).collect()
    }

    /// What is nearly a call, in bytes.
    pub(crate) fn spoilt_bytes(&mut self) -> Vec<u8> {
        let call = loop {
            let call = self.call(None);
            let name = call["method"].as_str().unwrap_or_default();
            // One digit more would be waited for; one letter less would end the node.
            if name != ENDS_THE_NODE && !name.ends_with(".wait") && !name.ends_with("_wait") {
                break call;
            }
        };
        let mut bytes = call.to_string().into_bytes();
        if self.one_in(6) {
            let depth = usize::try_from(self.dice.one_of(DEPTHS)).unwrap_or_default();
            let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            return format!(r#"{{"jsonrpc":"2.0","id":1,"method":"node.status","params":{{"a":{nested}}}}}"#).into();
        }
        for _ in 0..=self.dice.below(3) {
            let at = self.index(bytes.len());
            match self.dice.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.byte()),
                2 => bytes.splice(at..at, br#"{"a":1,"a":2}"#.iter().copied()).for_each(drop),
                3 => bytes.splice(at..at, br#","id":2"#.iter().copied()).for_each(drop),
                4 => bytes.splice(at..at, [0xff, 0xfe]).for_each(drop),
                _ => {
                    let byte = self.byte();
                    if let Some(place) = bytes.get_mut(at) {
                        *place = byte;
                    }
                }
            }
        }
        bytes
    }

    /// Parameters that the document admits.
    fn admitted(&mut self, described: &Value, method: &str) -> Map<String, Value> {
        let mut given = Map::new();
        for parameter in described["params"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default();
            // Who leaves it out waits for a minute, which a few times show.
            let is_given = if name == WAIT { !self.one_in(40) } else { self.one_in(3) };
            if parameter["required"] == true || is_given {
                given.insert(name.to_owned(), self.fitting(method, name, &parameter["schema"]));
            }
        }
        given
    }

    fn spoil(&mut self, given: &mut Map<String, Value>) {
        let name = given.keys().nth(self.index(given.len())).cloned();
        match (self.dice.below(4), name) {
            (0, Some(name)) => drop(given.remove(&name)),
            (1 | 2, Some(name)) => drop(given.insert(name, self.any(3))),
            (_, _) => {
                let name = self.text();
                given.insert(name, self.any(2));
            }
        }
    }

    fn fitting(&mut self, method: &str, name: &str, schema: &Value) -> Value {
        let choices = schema["oneOf"].as_array().or_else(|| schema["enum"].as_array());
        if let Some(choices) = choices {
            let choice = choices.get(self.index(choices.len())).cloned().unwrap_or_default();
            return choice.get("const").cloned().unwrap_or(choice);
        }
        match schema["type"].as_str() {
            Some("integer") => json!(self.integer(name, schema)),
            Some("boolean") => json!(self.one_in(2)),
            Some("array") => (0..self.dice.below(4)).map(|_| self.fitting(method, name, &schema["items"])).collect(),
            Some("object") => {
                let fields = schema["properties"].as_object().into_iter().flatten();
                let is_required =
                    |name: &str| schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
                let mut object = Map::new();
                for (name, field) in fields {
                    if is_required(name) || self.one_in(2) {
                        object.insert(name.clone(), self.fitting(method, name, field));
                    }
                }
                Value::Object(object)
            }
            _ => json!(self.meant(method, name)),
        }
    }

    /// A number within the schema's range, its ends included.
    fn integer(&mut self, name: &str, schema: &Value) -> u64 {
        let widest = match schema["format"].as_str() {
            Some("uint8") => u8::MAX.into(),
            Some("uint16") => u16::MAX.into(),
            Some("uint32") => u32::MAX.into(),
            _ => u64::MAX,
        };
        let least = schema["minimum"].as_u64().unwrap_or_default();
        let mut most = schema["maximum"].as_u64().unwrap_or(widest);
        if name == WAIT {
            most = most.min(LONGEST_WAIT_SECS);
        }
        let drawn = match self.dice.below(8) {
            0 => least,
            1 => most,
            2 => least.saturating_add(1),
            3 => most.saturating_sub(1),
            4 => self.dice.below(100),
            // What amounts mostly are.
            5 | 6 => self.dice.below(1_000_000),
            _ => self.dice.below(u64::MAX) >> self.dice.below(64),
        };
        drawn.clamp(least, most)
    }

    /// A text that means something there, mostly.
    fn meant(&mut self, method: &str, name: &str) -> String {
        let number = self.dice.below(u64::MAX);
        if self.one_in(8) {
            return self.text();
        }
        match (method, name) {
            ("peer.connect", "address") => self.known.pick("peer.address", number),
            // A few of each method, so that they come again.
            (_, "idempotency_key") => Some(format!("{method} {}", number % 24)),
            ("token.create" | "token.revoke", "name") => Some(format!("token {}", number % 8)),
            _ => self.known.pick(name, number),
        }
        .unwrap_or_else(|| self.text())
    }

    /// Any text.
    fn text(&mut self) -> String {
        let length = self.dice.one_of([0_u64, 1, 7, 40, 64, 66, 128, 129, 639, 640, 5000]);
        let digits = self.dice.below(4);
        let character = |_| match digits {
            0 => char::from_digit(u32::try_from(self.dice.below(16)).unwrap_or_default(), 16).unwrap_or('0'),
            1 => char::from(b' ' + u8::try_from(self.dice.below(95)).unwrap_or_default()),
            2 => self.dice.one_of(['\0', '\n', '\u{7f}', '\u{202e}', 'é', '\u{fffd}', '😀', '"', '\\']),
            _ => self.dice.one_of(['1', ':', '.', '-', 'x', 'l', 'n', 'b', 'c']),
        };
        (0..length).map(character).collect()
    }

    /// Any value.
    fn any(&mut self, depth: u32) -> Value {
        match self.dice.below(14) {
            0 => Value::Null,
            1 => json!(self.one_in(2)),
            2 => json!(0),
            3 => json!(-1),
            4 => json!(1.5),
            5 => json!(1e300),
            6 => json!(u64::MAX),
            7 => json!(i64::MIN),
            8 => json!(u64::from(u32::MAX) + 1),
            9 => json!("1000"),
            10 | 11 => json!(self.text()),
            12 if depth > 0 => (0..self.dice.below(4)).map(|_| self.any(depth - 1)).collect(),
            13 if depth > 0 => {
                Value::Object((0..self.dice.below(4)).map(|_| (self.text(), self.any(depth - 1))).collect())
            }
            _ => json!({}),
        }
    }

    fn id(&mut self) -> Value {
        let number = self.dice.below(1000);
        match self.dice.below(6) {
            0 => json!(u64::MAX),
            1 => json!(format!("id {number}")),
            2 => json!(""),
            3 => Value::Null,
            _ => json!(number),
        }
    }

    fn odd_method(&mut self, method: &Value) -> Value {
        let name = method.as_str().unwrap_or_default();
        match self.dice.below(4) {
            0 => json!(name.to_uppercase()),
            1 => json!(format!("{name} ")),
            2 => json!(self.text()),
            _ => json!(7),
        }
    }

    pub(crate) fn one_in(&mut self, many: u64) -> bool {
        self.dice.below(many) == 0
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.dice.below(length as u64)).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.dice.below(256)).unwrap_or_default()
    }
}

/// Whether an answer can bear this id.
pub(crate) fn has_an_answer(id: &Value) -> bool {
    id.is_u64() || id.is_string() || id.is_null()
}
