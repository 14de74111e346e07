//! What to write instead: sentences about values of the wrong type or without a unit, and about names that do not exist.

use scale_callback_serve::text::{duration, printable};
use toml::Value;

use super::explain::meant;
use super::settings::{ALLOW_KEYS, keys};
use super::size::parse_size;
use crate::base::suggest::{alternatives, nearest};

/// The longest value that a sentence repeats.
const SHOWN: usize = 64;

/// A sentence about a key that does not exist.
pub(super) fn no_such_key(key: &str) -> String {
    let own: Vec<String>;
    let names: Vec<&str> = if let Some(inner) = key.strip_prefix("egress.allow.") {
        own = nearest(inner, ALLOW_KEYS).iter().map(|name| format!("egress.allow.{name}")).collect();
        own.iter().map(String::as_str).collect()
    } else {
        meant(key)
    };
    if names.is_empty() {
        return "there is no such key".to_owned();
    }
    format!("there is no such key; did you mean {}?", alternatives(&names))
}

/// The variable of a setting: `CALLBACKD_KAFKA__BROKERS`.
fn variable_of(key: &str) -> String {
    format!("CALLBACKD_{}", key.replacen('.', "__", 1).to_uppercase())
}

/// A sentence about a variable `CALLBACKD_SECTION__KEY` of which there is no such key.
pub(super) fn no_such_variable(key: &str) -> String {
    let variables: Vec<String> = meant(key).into_iter().filter(|name| name.contains('.')).map(variable_of).collect();
    let names: Vec<&str> = variables.iter().map(String::as_str).collect();
    if names.is_empty() {
        return "there is no such key".to_owned();
    }
    format!("there is no such key; did you mean {}?", alternatives(&names))
}

/// The variable that is meant by one that differs from it only in the number of underscores. Other unknown variables may
/// belong to somebody else: Kubernetes makes some that begin with the name of a service.
pub(super) fn almost_a_variable(name: &str) -> Option<String> {
    let plain = |name: &str| name.to_uppercase().replace('_', "");
    keys().map(variable_of).find(|variable| *variable != name && plain(variable) == plain(name))
}

/// A sentence about a value of another type than the setting's default. `None` if the types agree.
pub(super) fn wrong_type(default: &Value, given: &Value) -> Option<String> {
    let said = shown(given);
    match (default, given) {
        (Value::String(default), Value::Integer(number)) => {
            let unit = unit_of(default);
            Some(match (unit, *number) {
                (Some(_), ..0) => format!("{number} is negative; write for example {default:?}"),
                (Some(Unit::Time), number) => format!("{number} has no unit; write \"{number}s\" for seconds"),
                (Some(Unit::Bytes), number) => format!("{number} has no unit; write {:?}", in_bytes(number)),
                (None, number) => format!("it is text; write \"{number}\""),
            })
        }
        (Value::String(default), Value::Float(_)) if unit_of(default).is_some() => {
            Some(format!("{said} has no unit, and only whole numbers are read; write for example {default:?}"))
        }
        (Value::String(_), Value::Array(items)) => {
            let texts: Option<Vec<_>> = items.iter().map(Value::as_str).collect();
            let joined = texts.map_or_else(|| "a,b".to_owned(), |texts| texts.join(","));
            Some(format!("it is one text, not a list; write {:?}", printable(joined.as_bytes(), SHOWN)))
        }
        (Value::String(_), Value::Boolean(_) | Value::Float(_) | Value::Datetime(_)) => {
            Some(format!("it is text; write it in quotes: \"{said}\""))
        }
        (Value::Integer(_), Value::Integer(..0)) => Some(format!("{said} is negative; write 0 or more")),
        (Value::Integer(_), Value::String(text)) if text.trim().parse::<u64>().is_ok() => {
            Some(format!("it is a number; write {} without quotes", text.trim()))
        }
        (Value::Integer(_), Value::Integer(_)) => None,
        (Value::Integer(_), _) => Some(format!("{said} is not a whole number; write for example {default}")),
        (Value::Boolean(_), Value::Boolean(_)) => None,
        (Value::Boolean(_), _) => Some(match truth(given) {
            Some(truth) => format!("it is true or false, without quotes; write {truth}"),
            None => format!("{said} is neither true nor false; write one of them, without quotes"),
        }),
        (Value::Array(_), Value::Array(_)) => None,
        (Value::Array(_), Value::String(text)) => {
            let items: Vec<_> =
                text.split(',').map(|item| format!("{:?}", printable(item.trim().as_bytes(), SHOWN))).collect();
            Some(format!("it is a list; write [{}]", items.join(", ")))
        }
        (Value::Array(_), _) => Some("it is a list; write for example [\"one\", \"two\"]".to_owned()),
        (Value::Table(_), Value::Table(_)) => None,
        // Values of tables may be passwords, so none is repeated.
        (Value::Table(_), _) => {
            Some("it is a table of names and texts; write for example { \"name\" = \"text\" }".to_owned())
        }
        _ => None,
    }
}

/// A sentence about the text of a variable that can't be read as its setting's type.
pub(super) fn wrong_text(default: &Value, text: &str) -> String {
    match default {
        Value::Table(_) => {
            "it is a JSON object of texts; write for example '{\"security.protocol\":\"ssl\"}'".to_owned()
        }
        Value::Array(_) => {
            let items = bracketed(text).unwrap_or_default().join(",");
            let items = printable(items.as_bytes(), SHOWN);
            format!("in a variable, a list is written without brackets and quotes; write {items}")
        }
        _ => {
            let given = Value::String(text.to_owned());
            let sentence = wrong_type(default, &given).filter(|_| !matches!(default, Value::Integer(_)));
            sentence.unwrap_or_else(|| format!("{} is not a whole number; write for example {default}", shown(&given)))
        }
    }
}

/// The items of a list that is written with brackets and quotes, as TOML and JSON write it. `[::1]:53` is no such list.
pub(super) fn bracketed(text: &str) -> Option<Vec<String>> {
    let table: toml::Table = format!("list = {}", text.trim()).parse().ok()?;
    let items = table.get("list")?.as_array()?;
    items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// A sentence about an egress rule that is no table. `None` if each of them is one.
pub(super) fn wrong_rule(given: &Value) -> Option<String> {
    let wrong = match given {
        Value::Array(items) => items.iter().find(|item| !item.is_table())?,
        other => other,
    };
    let said = wrong.as_str().map(|text| printable(text.as_bytes(), SHOWN));
    let is_net = |text: &str| text.contains('/') || text.parse::<std::net::IpAddr>().is_ok();
    let line = match said {
        Some(host) if !is_net(&host) => format!("host = {host:?}"),
        Some(net) => format!("net = {net:?}"),
        None => "net = \"10.20.0.0/16\"".to_owned(),
    };
    Some(format!("each rule is a table in the configuration file; write a line [[egress.allow]], and below it {line}"))
}

/// A sentence about a text that is no address with a port.
pub(super) fn not_an_address(text: &str, port: u16) -> String {
    let said = printable(text.as_bytes(), SHOWN);
    let right = text.trim().parse().map_or_else(
        |_| std::net::SocketAddr::from(([127, 0, 0, 1], port)),
        |ip: std::net::IpAddr| std::net::SocketAddr::new(ip, port),
    );
    format!("{said:?} is not an IP address with a port; write for example \"{right}\"")
}

/// A sentence about a broker that is written as a URL. `None` if it is written as the Kafka client reads it.
pub(super) fn not_a_broker(broker: &str) -> Option<String> {
    const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
    let (scheme, _) = broker.split_once("://")?;
    let is_protocol = PROTOCOLS.iter().any(|protocol| protocol.eq_ignore_ascii_case(scheme));
    let scheme = printable(scheme.as_bytes(), SHOWN);
    (!is_protocol).then(|| format!("remove {scheme}://; a broker is written \"host:port\""))
}

/// A sentence about a text that is no duration.
pub(super) fn not_a_duration(text: &str) -> String {
    let said = printable(text.as_bytes(), SHOWN);
    match repaired(text, &TIME_UNITS).filter(|text| duration(text).is_some()) {
        Some(right) => format!("{said:?} is not a duration; write {right:?}"),
        None => format!("{said:?} is not a duration; write for example \"30s\", \"5m\" or \"24h\""),
    }
}

/// A sentence about a text that is no size.
pub(super) fn not_a_size(text: &str) -> String {
    let said = printable(text.as_bytes(), SHOWN);
    match repaired(text, &SIZE_UNITS).filter(|text| parse_size(text).is_some()) {
        Some(right) => format!("{said:?} is not a size; write {right:?}"),
        None => format!("{said:?} is not a size; write for example \"64KiB\" or \"5MiB\""),
    }
}

/// Units as people write them, with ours.
const TIME_UNITS: [(&str, &[&str]); 5] = [
    ("ms", &["ms", "msec", "msecs", "millis", "milliseconds"]),
    ("s", &["", "s", "sec", "secs", "second", "seconds"]),
    ("m", &["m", "min", "mins", "minute", "minutes"]),
    ("h", &["h", "hr", "hrs", "hour", "hours"]),
    ("d", &["d", "day", "days"]),
];
const SIZE_UNITS: [(&str, &[&str]); 4] = [
    ("B", &["", "b", "byte", "bytes"]),
    ("KiB", &["k", "kb", "kib", "ki"]),
    ("MiB", &["m", "mb", "mib", "mi"]),
    ("GiB", &["g", "gb", "gib", "gi"]),
];

/// The text with our unit in the place of one that people write. A text that is a number and nothing else gets the unit of
/// the empty name.
fn repaired(text: &str, units: &[(&str, &[&str])]) -> Option<String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_lowercase();
    let (ours, _) = units.iter().find(|(_, theirs)| theirs.contains(&unit.as_str()))?;
    (!number.is_empty()).then(|| format!("{number}{ours}"))
}

#[derive(Clone, Copy)]
enum Unit {
    Time,
    Bytes,
}

/// The unit of a setting, by its default.
fn unit_of(default: &str) -> Option<Unit> {
    match (duration(default), parse_size(default)) {
        (Some(_), _) => Some(Unit::Time),
        (None, Some(_)) => Some(Unit::Bytes),
        (None, None) => None,
    }
}

/// A number of bytes in the largest unit that divides it.
fn in_bytes(number: i64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let whole = units.into_iter().find(|(_, bytes)| number > 0 && number % bytes == 0);
    whole.map_or_else(|| format!("{number}B"), |(unit, bytes)| format!("{}{unit}", number / bytes))
}

fn truth(given: &Value) -> Option<bool> {
    match given {
        Value::Integer(0) => Some(false),
        Value::Integer(1) => Some(true),
        Value::String(text) => match text.trim().to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn shown(value: &Value) -> String {
    printable(value.to_string().as_bytes(), SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        let table: toml::Table = format!("x = {text}").parse().expect("a value");
        table["x"].clone()
    }

    #[test]
    fn a_value_of_the_wrong_type_is_told_what_to_write() {
        for (default, given, sentence) in [
            ("\"10s\"", "10", "10 has no unit; write \"10s\" for seconds"),
            ("\"5MiB\"", "5242880", "5242880 has no unit; write \"5MiB\""),
            ("\"5MiB\"", "5000001", "5000001 has no unit; write \"5000001B\""),
            ("\"10s\"", "-1", "-1 is negative; write for example \"10s\""),
            ("\"10s\"", "1.5", "1.5 has no unit, and only whole numbers are read; write for example \"10s\""),
            ("\"\"", "9092", "it is text; write \"9092\""),
            ("\"\"", "[\"a:1\", \"b:2\"]", "it is one text, not a list; write \"a:1,b:2\""),
            ("512", "\"512\"", "it is a number; write 512 without quotes"),
            ("512", "-3", "-3 is negative; write 0 or more"),
            ("512", "\"many\"", "\"many\" is not a whole number; write for example 512"),
            ("512", "1.5", "1.5 is not a whole number; write for example 512"),
            ("true", "\"yes\"", "it is true or false, without quotes; write true"),
            ("true", "0", "it is true or false, without quotes; write false"),
            ("true", "\"maybe\"", "\"maybe\" is neither true nor false; write one of them, without quotes"),
            ("[\"a\"]", "\"tasks.a, tasks.b\"", "it is a list; write [\"tasks.a\", \"tasks.b\"]"),
            ("[\"a\"]", "1", "it is a list; write for example [\"one\", \"two\"]"),
            ("{}", "\"secret\"", "it is a table of names and texts; write for example { \"name\" = \"text\" }"),
        ] {
            assert_eq!(wrong_type(&value(default), &value(given)).as_deref(), Some(sentence), "{given}");
        }
        for (default, given) in
            [("\"10s\"", "\"3s\""), ("1", "2"), ("true", "false"), ("[]", "[1]"), ("{}", "{ a = 1 }")]
        {
            assert_eq!(wrong_type(&value(default), &value(given)), None, "{given}");
        }
    }

    #[test]
    fn a_unit_as_people_write_it_is_told_ours() {
        for (text, right) in
            [("10", "10s"), ("10 s", "10s"), ("5min", "5m"), ("2 hours", "2h"), ("250msec", "250ms"), ("1 day", "1d")]
        {
            assert_eq!(not_a_duration(text), format!("{text:?} is not a duration; write {right:?}"));
        }
        for (text, right) in [("5MB", "5MiB"), ("64k", "64KiB"), ("1 GiB", "1GiB"), ("1024", "1024B")] {
            assert_eq!(not_a_size(text), format!("{text:?} is not a size; write {right:?}"));
        }
        assert!(not_a_duration("soon").ends_with("write for example \"30s\", \"5m\" or \"24h\""));
        assert!(not_a_size("big").ends_with("write for example \"64KiB\" or \"5MiB\""));
    }

    #[test]
    fn a_wrong_name_is_told_the_right_one() {
        assert_eq!(no_such_key("kafka.broker"), "there is no such key; did you mean kafka.brokers?");
        assert_eq!(no_such_key("egress.allow.nett"), "there is no such key; did you mean egress.allow.net?");
        assert_eq!(no_such_key("nonsense"), "there is no such key");
        assert_eq!(no_such_variable("kafka.broker"), "there is no such key; did you mean CALLBACKD_KAFKA__BROKERS?");
        assert_eq!(almost_a_variable("CALLBACKD_KAFKA_BROKERS").as_deref(), Some("CALLBACKD_KAFKA__BROKERS"));
        assert_eq!(
            almost_a_variable("CALLBACKD_DELIVER_HEAD_TIMEOUT").as_deref(),
            Some("CALLBACKD_DELIVER__HEAD_TIMEOUT")
        );
        for others in ["CALLBACKD_API_URL", "CALLBACKD_PORT", "CALLBACKD_SERVICE_HOST", "CALLBACKD_KAFKA__BROKERS"] {
            assert_eq!(almost_a_variable(others), None, "{others}");
        }
    }
}
