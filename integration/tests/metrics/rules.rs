//! As much of Prometheus' language as the alert rules use, worked out over samples at the two ends of every range. What it does not know
//! is an error and never passed over: a rule that uses more needs more here.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_integration::Done;

/// Labels of a series, its name among them as `__name__`.
pub(crate) type Labels = BTreeMap<String, String>;

/// Samples by their series, at one time.
pub(crate) type Samples = BTreeMap<Labels, f64>;

/// The label that the scraper adds: which node it is.
const INSTANCE: &str = "instance";
const NAME: &str = "__name__";

/// An alert of the file.
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expression: String,
}

/// The alerts of a rule file that is written as ours is: one line for each name and each expression.
pub(crate) fn alerts(text: &str) -> Done<Vec<Alert>> {
    let mut names = text.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut expressions = text.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let mut found = Vec::new();
    loop {
        match (names.next(), expressions.next()) {
            (Some(name), Some(expression)) => {
                found.push(Alert { name: name.to_owned(), expression: expression.to_owned() });
            }
            (None, None) => return Ok(found),
            _ => return Err("an alert has one line with its expression".into()),
        }
    }
}

/// A series as it stands in an answer, of this instance.
pub(crate) fn series(written: &str, instance: &str) -> Done<Labels> {
    let (name, rest) = written.split_once('{').unwrap_or((written, "}"));
    let mut labels: Labels = [(NAME, name), (INSTANCE, instance)].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    for pair in rest.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty()) {
        let (label, value) = pair.split_once('=').ok_or(format!("no label: {written}"))?;
        labels.insert(label.to_owned(), value.trim_matches('"').to_owned());
    }
    Ok(labels)
}

/// What an expression asks for.
#[derive(Debug)]
enum Expression {
    Number(f64),
    /// A series' name, and labels with the values that they must have; over a range of so many seconds where there is one.
    Select(String, Labels, Option<f64>),
    Call(String, Vec<Expression>),
    SumBy(BTreeSet<String>, Box<Expression>),
    Compare(Box<Expression>, String, f64),
    AndOn(Box<Expression>, BTreeSet<String>, Box<Expression>),
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
}

/// Words and numbers, texts with their quotes, and signs.
fn tokens(text: &str) -> Done<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || "_.:".contains(letter);
        let length = match first {
            '"' => rest.get(1..).and_then(|more| more.find('"')).ok_or("a text without end")? + 2,
            first if is_word(first) => rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()),
            _ if ["==", ">=", "<=", "!="].iter().any(|sign| rest.starts_with(sign)) => 2,
            '(' | ')' | '{' | '}' | '[' | ']' | ',' | '=' | '>' | '<' => 1,
            other => return Err(format!("{other} in {text}").into()),
        };
        let (token, more) = rest.split_at(length);
        found.push(token.to_owned());
        rest = more.trim_start();
    }
    Ok(found)
}

impl Parser {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn take(&mut self) -> Done<String> {
        let token = self.tokens.get(self.at).cloned().ok_or("the expression ends too early")?;
        self.at += 1;
        Ok(token)
    }

    fn expect(&mut self, wanted: &str) -> Done<()> {
        let found = self.take()?;
        if found == wanted { Ok(()) } else { Err(format!("{found} in place of {wanted}").into()) }
    }

    fn expression(&mut self) -> Done<Expression> {
        let mut left = self.comparison()?;
        while self.peek() == "and" {
            self.expect("and")?;
            self.expect("on")?;
            let labels = self.labels()?;
            left = Expression::AndOn(Box::new(left), labels, Box::new(self.comparison()?));
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Done<Expression> {
        let left = self.term()?;
        if !["==", "!=", ">", "<", ">=", "<="].contains(&self.peek()) {
            return Ok(left);
        }
        let sign = self.take()?;
        Ok(Expression::Compare(Box::new(left), sign, self.take()?.parse()?))
    }

    fn term(&mut self) -> Done<Expression> {
        let word = self.take()?;
        if let Ok(number) = word.parse() {
            return Ok(Expression::Number(number));
        }
        if word == "sum" {
            self.expect("by")?;
            let labels = self.labels()?;
            self.expect("(")?;
            let inner = self.expression()?;
            self.expect(")")?;
            return Ok(Expression::SumBy(labels, Box::new(inner)));
        }
        if self.peek() == "(" {
            self.expect("(")?;
            let mut arguments = vec![self.expression()?];
            while self.peek() == "," {
                self.expect(",")?;
                arguments.push(self.expression()?);
            }
            self.expect(")")?;
            return Ok(Expression::Call(word, arguments));
        }
        let mut wanted = Labels::new();
        if self.peek() == "{" {
            self.expect("{")?;
            while self.peek() != "}" {
                let label = self.take()?;
                self.expect("=")?;
                wanted.insert(label, self.take()?.trim_matches('"').to_owned());
                if self.peek() == "," {
                    self.expect(",")?;
                }
            }
            self.expect("}")?;
        }
        let mut range = None;
        if self.peek() == "[" {
            self.expect("[")?;
            let minutes = self.take()?;
            range = Some(minutes.strip_suffix('m').ok_or("a range in minutes")?.parse::<f64>()? * 60.0);
            self.expect("]")?;
        }
        Ok(Expression::Select(word, wanted, range))
    }

    fn labels(&mut self) -> Done<BTreeSet<String>> {
        self.expect("(")?;
        let mut labels = BTreeSet::from([self.take()?]);
        while self.peek() == "," {
            self.expect(",")?;
            labels.insert(self.take()?);
        }
        self.expect(")")?;
        Ok(labels)
    }
}

fn parse(text: &str) -> Done<Expression> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
    let expression = parser.expression()?;
    if parser.peek().is_empty() { Ok(expression) } else { Err(format!("{} is left over", parser.peek()).into()) }
}

/// Fails where an expression asks for a series, a label or a label's value that no sample has: it would be silent for ever.
pub(crate) fn is_told(text: &str, samples: &Samples) -> Done<()> {
    told(&parse(text)?, samples).map(drop)
}

/// The labels that an expression's outcome may have.
fn told(expression: &Expression, samples: &Samples) -> Done<BTreeSet<String>> {
    let within = |wanted: &BTreeSet<String>, known: &BTreeSet<String>| match wanted.difference(known).next() {
        None => Ok(()),
        Some(label) => Err(format!("nothing has the label {label}")),
    };
    match expression {
        Expression::Number(_) => Ok(BTreeSet::new()),
        Expression::Select(name, wanted, _) => {
            let found = selected(name, wanted, samples);
            let (labels, _) = found.first().ok_or(format!("no sample of {name} with {wanted:?}"))?;
            Ok(labels.keys().filter(|label| *label != NAME).cloned().collect())
        }
        Expression::Call(_, arguments) => arguments.last().map_or(Ok(BTreeSet::new()), |last| told(last, samples)),
        Expression::SumBy(labels, inner) => {
            within(labels, &told(inner, samples)?)?;
            Ok(labels.clone())
        }
        Expression::Compare(inner, ..) => told(inner, samples),
        Expression::AndOn(left, labels, right) => {
            let (left, right) = (told(left, samples)?, told(right, samples)?);
            within(labels, &left)?;
            within(labels, &right)?;
            Ok(left)
        }
    }
}

fn selected(name: &str, wanted: &Labels, samples: &Samples) -> Vec<(Labels, f64)> {
    let is_wanted = |labels: &Labels| {
        labels.get(NAME).map(String::as_str) == Some(name)
            && wanted.iter().all(|(label, value)| labels.get(label) == Some(value))
    };
    samples.iter().filter(|(labels, _)| is_wanted(labels)).map(|(labels, value)| (labels.clone(), *value)).collect()
}

/// What an expression comes to now, where every range began with `before`: series with their values. An alert fires for each.
pub(crate) fn outcome(text: &str, before: &Samples, now: &Samples) -> Done<Vec<(Labels, f64)>> {
    evaluate(&parse(text)?, before, now)
}

fn evaluate(expression: &Expression, before: &Samples, now: &Samples) -> Done<Vec<(Labels, f64)>> {
    match expression {
        Expression::Select(name, wanted, None) => Ok(selected(name, wanted, now)),
        Expression::Call(name, arguments) => call(name, arguments, before, now),
        Expression::SumBy(labels, inner) => {
            let mut sums: BTreeMap<Labels, f64> = BTreeMap::new();
            for (of, value) in evaluate(inner, before, now)? {
                *sums.entry(only(of, labels)).or_default() += value;
            }
            Ok(sums.into_iter().collect())
        }
        Expression::Compare(inner, sign, number) => {
            let holds = |value: f64| match sign.as_str() {
                "==" => value == *number,
                "!=" => value != *number,
                ">" => value > *number,
                "<" => value < *number,
                ">=" => value >= *number,
                _ => value <= *number,
            };
            Ok(evaluate(inner, before, now)?.into_iter().filter(|(_, value)| holds(*value)).collect())
        }
        Expression::AndOn(left, labels, right) => {
            let matches: BTreeSet<_> =
                evaluate(right, before, now)?.into_iter().map(|(of, _)| only(of, labels)).collect();
            let left = evaluate(left, before, now)?.into_iter();
            Ok(left.filter(|(of, _)| matches.contains(&only(of.clone(), labels))).collect())
        }
        Expression::Number(_) | Expression::Select(..) => Err("a number or a range stands where series must".into()),
    }
}

fn only(mut of: Labels, labels: &BTreeSet<String>) -> Labels {
    of.retain(|label, _| labels.contains(label));
    of
}

fn call(name: &str, arguments: &[Expression], before: &Samples, now: &Samples) -> Done<Vec<(Labels, f64)>> {
    match (name, arguments) {
        ("absent", [inner]) => {
            let is_absent = evaluate(inner, before, now)?.is_empty();
            Ok(is_absent.then(|| (Labels::new(), 1.0)).into_iter().collect())
        }
        ("rate", [Expression::Select(name, wanted, Some(secs))]) => {
            let earlier: Samples = selected(name, wanted, before).into_iter().collect();
            let both = selected(name, wanted, now).into_iter().filter_map(|(mut labels, value)| {
                let rise = value - earlier.get(&labels)?;
                labels.remove(NAME);
                Some((labels, rise / secs))
            });
            Ok(both.collect())
        }
        ("histogram_quantile", [Expression::Number(quantile), inner]) => {
            let mut histograms: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for (mut labels, count) in evaluate(inner, before, now)? {
                let bound = labels.remove("le").ok_or("a bucket has a bound")?;
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse()? };
                histograms.entry(labels).or_default().push((bound, count));
            }
            Ok(histograms.into_iter().map(|(labels, buckets)| (labels, quantile_of(*quantile, buckets))).collect())
        }
        _ => Err(format!("{name} is not known here, or takes something else").into()),
    }
}

/// Within a bucket values are taken to lie evenly; beyond the last bound it is that bound. Not a number where nothing was counted.
fn quantile_of(quantile: f64, mut buckets: Vec<(f64, f64)>) -> f64 {
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    let total = buckets.last().map_or(0.0, |(_, count)| *count);
    let rank = quantile * total;
    let (mut bound_before, mut count_before) = (0.0, 0.0);
    for (bound, count) in buckets.into_iter().filter(|_| total > 0.0) {
        if count >= rank {
            let share = (rank - count_before) / (count - count_before);
            return if bound.is_finite() { bound_before + (bound - bound_before) * share } else { bound_before };
        }
        (bound_before, count_before) = (bound, count);
    }
    f64::NAN
}

#[test]
fn what_the_rules_are_worked_out_by_counts_as_prometheus_does() {
    let at = |texts: &[(&str, f64)]| -> Samples {
        texts.iter().map(|(text, value)| (series(text, "a").expect("a series"), *value)).collect()
    };
    let before = at(&[
        ("c{m=\"x\"}", 10.0),
        ("h_bucket{le=\"1\"}", 0.0),
        ("h_bucket{le=\"2\"}", 0.0),
        ("h_bucket{le=\"+Inf\"}", 0.0),
    ]);
    let now = at(&[
        ("c{m=\"x\"}", 70.0),
        ("h_bucket{le=\"1\"}", 60.0),
        ("h_bucket{le=\"2\"}", 120.0),
        ("h_bucket{le=\"+Inf\"}", 120.0),
    ]);
    let values = |text: &str| -> Vec<f64> {
        outcome(text, &before, &now).expect(text).into_iter().map(|(_, value)| value).collect()
    };
    assert_eq!(values("rate(c[1m])"), [1.0]);
    assert_eq!(values("histogram_quantile(0.75, sum by (le, instance) (rate(h_bucket[1m])))"), [1.5]);
    assert_eq!(values("histogram_quantile(0.5, sum by (le) (rate(h_bucket[1m]))) > 1"), [] as [f64; 0]);
    assert_eq!(values("absent(c) == 1"), [] as [f64; 0]);
    assert_eq!(values("absent(d) == 1"), [1.0]);
    assert_eq!(values("c > 69 and on (instance) sum by (instance) (h_bucket) > 299"), [70.0]);
    assert_eq!(values("c > 69 and on (instance) sum by (instance) (h_bucket) > 300"), [] as [f64; 0]);
    for wrong in ["rate(c)", "rat(c[1m])", "c[1m]", "c >", "c > 1 2", "sum by le (c)", "c and c", "c{m=\"x\""] {
        assert!(outcome(wrong, &before, &now).is_err(), "{wrong}");
    }
    for silent in ["c{m=\"y\"}", "c{n=\"x\"}", "d", "sum by (n) (c)", "c and on (n) c"] {
        assert!(is_told(silent, &now).is_err(), "{silent}");
    }
}
