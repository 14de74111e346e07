//! From arguments to calls of the API.

use http::Method;
use serde_json::{Value, json};

use super::super::args::{
    AuditCommand, CallbacksCommand, ClockCommand, Command, ConfigCommand, DeadLettersCommand, DeliveryCommand,
    EndpointsCommand, Filters, InstancesCommand, KeysCommand, Letters, OffsetsCommand, PageArgs, ResendsCommand,
    TasksCommand, TeamFields, TeamsCommand, TokensCommand,
};
use super::super::{Failure, duration, secret_from};
use super::views::{self, View};
use crate::base::clock::{Clock as _, SystemClock, Timestamp};
use crate::net::target::{Target, UrlError};

/// One call of the API.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) view: View,
    /// The member of the answer that is true if it went well.
    pub(super) fails_unless: Option<&'static str>,
    /// How many documents are wanted in all, if all pages are read.
    pub(super) at_most: Option<usize>,
    /// The token of the page to start with.
    pub(super) next: Option<String>,
}

impl Call {
    /// The path for the page of this token.
    pub(super) fn path_at(&self, page: Option<&str>) -> String {
        let joint = if self.path.contains('?') { '&' } else { '?' };
        page.map_or_else(|| self.path.clone(), |page| format!("{}{joint}next_token={}", self.path, escaped(page)))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.view, View::List(_))
    }
}

pub(super) fn get(path: impl Into<String>, view: View) -> Call {
    Call { method: Method::GET, path: path.into(), body: None, view, fails_unless: None, at_most: None, next: None }
}

fn send(method: Method, path: impl Into<String>, body: Value, view: View) -> Call {
    Call { method, path: path.into(), body: Some(body), view, fails_unless: None, at_most: None, next: None }
}

pub(super) fn post(path: impl Into<String>, body: Value, view: View) -> Call {
    send(Method::POST, path, body, view)
}

/// The call for a command. If it `streams`, all pages are read: the limit is that of all documents, and each page is as
/// large as possible.
pub(super) fn of(command: Command, streams: bool) -> Result<Call, Failure> {
    let list = |path: &str, members: Vec<Member>, page: &PageArgs, columns| list(path, members, page, columns, streams);
    Ok(match command {
        Command::Status(_) => get("/status", View::Status),
        Command::Tasks(TasksCommand::Get { task }) => get(format!("/tasks/{}", escaped(&task)), View::Task),
        Command::Callbacks(CallbacksCommand::List { filters, page }) => {
            list("/callbacks", filter_members(&filters)?, &page, &views::CALLBACKS)
        }
        Command::Callbacks(CallbacksCommand::Get { id }) => get(format!("/callbacks/{}", escaped(&id)), View::Record),
        Command::Callbacks(CallbacksCommand::Attempts { id }) => {
            get(format!("/callbacks/{}/attempts", escaped(&id)), View::Attempts)
        }
        Command::Resends(ResendsCommand::List { page }) => list("/resends", Vec::new(), &page, &views::RESENDS),
        Command::Resends(command) => resends(command)?,
        Command::Endpoints(EndpointsCommand::List { team, state, page }) => {
            list("/endpoints", vec![("team", team), ("state", state)], &page, &views::ENDPOINTS)
        }
        Command::Endpoints(EndpointsCommand::Get { team, origin }) => {
            get(format!("/endpoints/{}/{}", escaped(&team), escaped(&origin)), View::Record)
        }
        Command::Endpoints(EndpointsCommand::Retry { team, origin }) => {
            post(format!("/endpoints/{}/{}/retry", escaped(&team), escaped(&origin)), json!({}), View::Record)
        }
        Command::Endpoints(EndpointsCommand::Pause { team, origin, reason }) => {
            let path = format!("/endpoints/{}/{}/pause", escaped(&team), escaped(&origin));
            post(path, json!({ "reason": reason }), View::Record)
        }
        Command::Endpoints(EndpointsCommand::Resume { team, origin }) => {
            post(format!("/endpoints/{}/{}/resume", escaped(&team), escaped(&origin)), json!({}), View::Record)
        }
        Command::Delivery(DeliveryCommand::Status) => get("/delivery", View::Delivery),
        Command::Delivery(DeliveryCommand::Pause { reason }) => {
            post("/delivery/pause", json!({ "reason": reason }), View::Record)
        }
        Command::Delivery(DeliveryCommand::Resume) => post("/delivery/resume", json!({}), View::Record),
        Command::Endpoints(EndpointsCommand::Check { team, url, mode }) => check(&team, Some(url), &mode),
        Command::DeadLetters(DeadLettersCommand::List { letters, page }) => {
            list("/dead_letters", letter_members(&letters)?, &page, &views::DEAD_LETTERS)
        }
        Command::DeadLetters(DeadLettersCommand::Get { id }) => {
            get(format!("/dead_letters/{}", escaped(&id)), View::Record)
        }
        Command::Instances(InstancesCommand::List) => get("/instances", View::List(&views::INSTANCES)),
        Command::Offsets(OffsetsCommand::Show) => get("/offsets", View::List(&views::OFFSETS)),
        Command::Offsets(OffsetsCommand::Accept { from }) => {
            post("/offsets/accept", json!({ "from": from }), View::Record)
        }
        Command::Clock(ClockCommand::Accept) => post("/clock/accept", json!({}), View::Record),
        Command::Teams(TeamsCommand::List { page }) => list("/teams", Vec::new(), &page, &views::TEAMS),
        Command::Teams(command) => teams(command)?,
        Command::Keys(command) => keys(command)?,
        Command::Tokens(command) => tokens(command)?,
        Command::Audit(AuditCommand::List { object, caller, page }) => {
            list("/audit", vec![("object", object), ("caller", caller)], &page, &views::AUDIT)
        }
        Command::Config(ConfigCommand::LogLevel { level: None }) => get("/log_level", View::Record),
        Command::Config(ConfigCommand::LogLevel { level: Some(level) }) => {
            send(Method::PUT, "/log_level", json!({ "level": level }), View::Record)
        }
        _ => return Err(Failure::new(Failure::REFUSED, "this command does not ask a daemon")),
    })
}

/// One job.
pub(super) fn resend_job(id: &str) -> Call {
    get(format!("/resends/{}", escaped(id)), View::Job)
}

fn resends(command: ResendsCommand) -> Result<Call, Failure> {
    let change = |id: &str, verb: &str, body| post(format!("/resends/{}/{verb}", escaped(id)), body, View::Job);
    Ok(match command {
        ResendsCommand::List { .. } => {
            return Err(Failure::new(Failure::REFUSED, "a list of jobs is asked for elsewhere"));
        }
        ResendsCommand::Get { id, .. } => resend_job(&id),
        ResendsCommand::Pause { id } => change(&id, "pause", json!({})),
        ResendsCommand::Resume { id, rate } => change(&id, "resume", json!({ "rate": rate })),
        ResendsCommand::Cancel { id } => change(&id, "cancel", json!({})),
    })
}

fn check(team: &str, url: Option<String>, mode: &str) -> Call {
    let mut body = json!({ "mode": mode });
    if let Some(url) = url {
        body["url"] = json!(url);
    }
    let call = post(format!("/teams/{}/check", escaped(team)), body, View::Check);
    Call { fails_unless: Some("succeeded"), ..call }
}

fn teams(command: TeamsCommand) -> Result<Call, Failure> {
    Ok(match command {
        TeamsCommand::List { .. } => {
            return Err(Failure::new(Failure::REFUSED, "a list of teams is asked for elsewhere"));
        }
        TeamsCommand::Get { team } => get(format!("/teams/{}", escaped(&team)), View::Record),
        TeamsCommand::Create { team, fields } => {
            let mut body = patch(fields)?;
            body["team_id"] = json!(team);
            post("/teams", body, View::NewTeam)
        }
        TeamsCommand::Update { team, fields, yes } => {
            let confirm = query(&[("confirm", yes.then(|| "true".to_owned()))]);
            send(Method::PATCH, format!("/teams/{}{confirm}", escaped(&team)), patch(fields)?, View::Record)
        }
        TeamsCommand::Pause { team, reason } => {
            post(format!("/teams/{}/pause", escaped(&team)), json!({ "reason": reason }), View::Record)
        }
        TeamsCommand::Resume { team } => post(format!("/teams/{}/resume", escaped(&team)), json!({}), View::Record),
        TeamsCommand::Delete { team, yes } => {
            let confirm = query(&[("confirm", yes.then(|| "true".to_owned()))]);
            Call { method: Method::DELETE, ..get(format!("/teams/{}{confirm}", escaped(&team)), View::Record) }
        }
        TeamsCommand::Check { team, url, mode } => check(&team, url, &mode),
        TeamsCommand::SwitchAuth { team, to, origin, url } => {
            let mut body = json!({ "to": to });
            for (name, value) in [("origin", origin), ("url", url)] {
                if let Some(value) = value {
                    body[name] = json!(value);
                }
            }
            let call = post(format!("/teams/{}/switch_auth", escaped(&team)), body, View::Switch);
            Call { fails_unless: Some("switched"), ..call }
        }
    })
}

/// Refuses an option that holds no URL. The API's sentence can name neither the option nor the URL, which may be secret
/// for others, but the user of this command wrote it.
fn check_url(option: &str, url: Option<&str>) -> Result<(), Failure> {
    let Some(url) = url.filter(|url| !url.is_empty()) else { return Ok(()) };
    let Err(why) = Target::parse(url) else { return Ok(()) };
    let shown = scale_callback_serve::text::printable(url.as_bytes(), 200);
    let meant = format!("https://{url}");
    let is_meant = why == UrlError::NotAUrl && !url.contains("://") && Target::parse(&meant).is_ok();
    let hint = if is_meant { format!("; did you mean https://{shown}?") } else { String::new() };
    Err(Failure::new(Failure::REFUSED, format!("{option} {shown}: {why}{hint}")))
}

/// The given fields as the API takes them. "" removes a value.
fn patch(fields: TeamFields) -> Result<Value, Failure> {
    check_url("--default-url", fields.default_url.as_deref())?;
    check_url("--default-url-test", fields.default_url_test.as_deref())?;
    let mut body = json!({});
    let nullable = |text: String| if text.is_empty() { Value::Null } else { json!(text) };
    for (name, value) in [
        ("name", fields.name.map(|name| json!(name))),
        ("default_url", fields.default_url.map(nullable)),
        ("default_url_test", fields.default_url_test.map(nullable)),
        ("auth_form", fields.auth_form.map(|form| json!(form))),
        ("http", fields.http.map(nullable)),
        ("retries", fields.retries.map(|retries| json!(retries))),
        ("horizon_seconds", fields.horizon_hours.map(|hours| json!(hours.saturating_mul(3600)))),
        ("end_on_gone", fields.end_on_gone.map(|end| json!(end))),
    ] {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    if !fields.allow_origin.is_empty() {
        let origins: Vec<_> = fields.allow_origin.into_iter().filter(|origin| !origin.is_empty()).collect();
        body["allowed_origins"] = json!(origins);
    }
    if !fields.origin_form.is_empty() {
        let given = fields.origin_form.iter().filter(|text| !text.is_empty());
        let forms = given.map(|text| match text.rsplit_once('=') {
            Some((origin, form)) => Ok(json!({ "origin": origin, "auth_form": form })),
            None => {
                Err(Failure::new(Failure::REFUSED, format!("--origin-form {text}: write ORIGIN=key or ORIGIN=hmac")))
            }
        });
        body["origin_forms"] = Value::Array(forms.collect::<Result<_, _>>()?);
    }
    Ok(body)
}

fn keys(command: KeysCommand) -> Result<Call, Failure> {
    let of = |team: &str, key: &str, verb: &str| format!("/teams/{}/keys/{}/{verb}", escaped(team), escaped(key));
    Ok(match command {
        KeysCommand::List { team } => get(format!("/teams/{}/keys", escaped(&team)), View::List(&views::KEYS)),
        KeysCommand::Create { team, kind, mode, from_file } => {
            let mut body = json!({ "kind": kind, "mode": mode });
            if let Some(file) = from_file {
                body["value"] = json!(secret_from("--from-file", &file)?.as_str());
            }
            post(format!("/teams/{}/keys", escaped(&team)), body, View::Record)
        }
        KeysCommand::Promote { key, team, at } => {
            let body = at.map_or_else(|| json!({}), |at| json!({ "at": at }));
            post(of(&team, &key, "promote"), body, View::Record)
        }
        KeysCommand::Revoke { key, team, force } => {
            post(of(&team, &key, "revoke"), json!({ "force": force }), View::Record)
        }
        KeysCommand::Reveal { key, team } => post(of(&team, &key, "reveal"), json!({}), View::Member("value")),
    })
}

fn tokens(command: TokensCommand) -> Result<Call, Failure> {
    Ok(match command {
        TokensCommand::List => get("/tokens", View::List(&views::TOKENS)),
        TokensCommand::Create(new) => {
            let mut body = json!({ "name": new.name, "scope": new.scope.replace(',', " ") });
            if let Some(valid_for) = new.valid_for.as_deref().map(duration).transpose()? {
                body["valid_for_seconds"] = json!(valid_for.as_secs());
            }
            if !new.team.is_empty() {
                body["teams"] = json!(new.team);
            }
            post("/tokens", body, if new.value_only { View::Member("value") } else { View::Record })
        }
        TokensCommand::Revoke { token } => post(format!("/tokens/{}/revoke", escaped(&token)), json!({}), View::Record),
    })
}

type Member = (&'static str, Option<String>);

pub(super) fn filter_members(filters: &Filters) -> Result<Vec<Member>, Failure> {
    let f = filters.clone();
    let [since, until] = range(f.since.as_deref(), f.until.as_deref())?;
    let [failed_since, failed_until] = failed_between(f.failed_between.as_deref())?;
    Ok(vec![
        ("team", f.team),
        ("task", f.task),
        ("endpoint", f.endpoint),
        ("state", f.state),
        ("reason", f.reason),
        ("outcome", f.outcome),
        ("status", f.status.map(|status| status.to_string())),
        ("mode", f.mode),
        failed_since,
        failed_until,
        since,
        until,
    ])
}

pub(super) fn letter_members(letters: &Letters) -> Result<Vec<Member>, Failure> {
    let l = letters.clone();
    let [since, until] = range(l.since.as_deref(), l.until.as_deref())?;
    Ok(vec![("team", l.team), ("task", l.task), ("reason", l.reason), ("state", l.state), since, until])
}

/// A time for the API. `2h` means that long before `now`; a date or a time is passed on.
pub(super) fn time(text: &str, now: Timestamp) -> Result<String, Failure> {
    if let Some(ago) = scale_callback_serve::text::duration(text) {
        // Nothing is older than time itself.
        return Ok(now.minus(ago).max(Timestamp::default()).to_string());
    }
    if text.contains('-') || text.contains(':') { Ok(text.to_owned()) } else { Err(not_a_time(text)) }
}

fn not_a_time(text: &str) -> Failure {
    let shown = scale_callback_serve::text::printable(text.as_bytes(), 64);
    let sentence = format!(
        "{shown:?} is not a time; write how long ago, \"2h\" or \"7d\", a date, \"2026-11-24\", or RFC 3339, \"2026-11-24T12:00:00Z\""
    );
    Failure::new(Failure::REFUSED, sentence)
}

/// The begin and the end of a search. Both are read at one instant, so that `--since 10m --until 10m` is one time.
fn range(since: Option<&str>, until: Option<&str>) -> Result<[Member; 2], Failure> {
    let now = SystemClock.now();
    let read = |text: Option<&str>| text.map(|text| time(text, now)).transpose();
    Ok([("since", read(since)?), ("until", read(until)?)])
}

/// The time in which an attempt must have failed. It is checked here, because the API's sentences have the names of its own two
/// members, and people gave one option.
fn failed_between(text: Option<&str>) -> Result<[Member; 2], Failure> {
    let Some(text) = text else { return Ok([("failed_since", None), ("failed_until", None)]) };
    let now = SystemClock.now();
    let named = |why: &str| Failure::new(Failure::REFUSED, format!("--failed-between: {why}"));
    let read = |text: &str| {
        let at = time(text, now).and_then(|at| Timestamp::parse(&at).ok_or_else(|| not_a_time(text)));
        at.map_err(|failure| named(&failure.sentence))
    };
    let (from, until) = text.split_once("..").unwrap_or((text, ""));
    let (from, until) = (read(from)?, if until.is_empty() { now } else { read(until)? });
    if from >= until {
        return Err(named(&format!("{from} must be earlier than {until}: nothing lies between them")));
    }
    Ok([("failed_since", Some(from.to_string())), ("failed_until", Some(until.to_string()))])
}

/// All dead letters that match, in the largest pages.
pub(super) fn all_letters(letters: &Letters) -> Result<Call, Failure> {
    let page = PageArgs { limit: None, next: None };
    Ok(list("/dead_letters", letter_members(letters)?, &page, &views::DEAD_LETTERS, true))
}

/// All changes, in the largest pages.
pub(super) fn all_audit(object: Option<String>, caller: Option<String>) -> Call {
    let page = PageArgs { limit: None, next: None };
    list("/audit", vec![("object", object), ("caller", caller)], &page, &views::AUDIT, true)
}

/// The largest page that the API gives.
pub(super) const PAGE: usize = 1_000;

fn list(path: &str, mut members: Vec<Member>, page: &PageArgs, columns: views::Columns, streams: bool) -> Call {
    let limit = if streams { Some(page.limit.unwrap_or(PAGE).clamp(1, PAGE)) } else { page.limit };
    members.push(("limit", limit.map(|limit| limit.to_string())));
    let call = get(format!("{path}{}", query(&members)), View::List(columns));
    Call { at_most: page.limit.filter(|_| streams), next: page.next.clone(), ..call }
}

/// A path segment, percent-encoded except for letters, digits and `-._~`.
pub(super) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
        path
    })
}

pub(super) fn query(members: &[(&str, Option<String>)]) -> String {
    let given: Vec<_> = members
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={}", escaped(value))))
        .collect();
    if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_holds_no_url_is_named_with_what_it_holds() {
        let told = |url: &str| check_url("--default-url", Some(url)).map_err(|failure| failure.sentence);
        let missing = told("acme.example/callbacks").expect_err("it has no scheme");
        assert!(missing.starts_with("--default-url acme.example/callbacks: it is not a URL; "), "{missing}");
        assert!(missing.ends_with("; did you mean https://acme.example/callbacks?"), "{missing}");
        let other = told("ftp://acme.example/").expect_err("another scheme");
        assert_eq!(other, "--default-url ftp://acme.example/: only https:// and http:// can be called back");
        assert_eq!(told("https://acme.example/callbacks"), Ok(()));
        assert_eq!(told(""), Ok(()), "it removes the URL");
    }

    #[test]
    fn a_time_is_how_long_ago_or_a_date_or_a_time() {
        let now = Timestamp::from_millis(1_795_953_600_000);
        assert_eq!(time("2h", now).expect("a time"), now.minus(std::time::Duration::from_secs(7_200)).to_string());
        for passed_on in ["2026-11-29", "2026-11-24T12:00:00Z", "2026-11-24t12:00:00z"] {
            assert_eq!(time(passed_on, now).expect("a time"), passed_on);
        }
        for wrong in ["soon", "", "2 h", "10"] {
            assert!(time(wrong, now).is_err_and(|failure| failure.status == Failure::REFUSED), "{wrong}");
        }
        let [(_, since), (_, until)] = range(Some("10m"), Some("10m")).expect("times");
        assert_eq!(since, until);
    }

    #[test]
    fn the_time_of_a_failure_ends_now_unless_it_is_given_and_a_mistake_names_the_option() {
        let read = |text: &str| failed_between(Some(text)).map(|members| members.map(|(_, at)| at.expect("a time")));
        assert_eq!(
            read("2026-11-24..2026-11-25T01:00:00+01:00").expect("times"),
            ["2026-11-24T00:00:00.000Z", "2026-11-25T00:00:00.000Z"]
        );
        for until_now in ["5m", "5m.."] {
            let [from, until] = read(until_now).expect("times").map(|at| Timestamp::parse(&at).expect("a time"));
            assert_eq!(until.since(from), std::time::Duration::from_secs(300), "{until_now}");
            assert!(SystemClock.now().since(until) < std::time::Duration::from_secs(60), "{until_now}");
        }
        for (wrong, why) in [
            ("soon", "\"soon\" is not a time; write how long ago"),
            ("2026-13-45..2h", "\"2026-13-45\" is not a time; "),
            ("3h..later", "\"later\" is not a time; "),
            ("..2h", "\"\" is not a time; "),
            ("2h..3h", " must be earlier than "),
            ("2026-11-24..2026-11-24", " must be earlier than "),
        ] {
            let failure = read(wrong).expect_err("it is refused");
            assert!(failure.sentence.starts_with("--failed-between: "), "{wrong}: {}", failure.sentence);
            assert!(failure.sentence.contains(why), "{wrong}: {}", failure.sentence);
            assert!(!failure.sentence.contains("failed_"), "{wrong}: {}", failure.sentence);
        }
    }
}
