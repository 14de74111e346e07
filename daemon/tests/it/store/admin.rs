//! The contract of the admin trait: every change is one transaction with its audit row, or changes nothing.

use std::sync::Arc;
use std::time::Duration;

use callbackd::base::clock::{ManualClock, Timestamp};
use callbackd::model::endpoint::Origin;
use callbackd::model::pause::{Pause, PauseScope};
use callbackd::model::permission::{Rights, TeamLimit};
use callbackd::model::sent_with::SentWith;
use callbackd::model::team::{AuthForm, HttpPolicy, KeyKind, KeyState, Mode, RetryOverride, Team};
use callbackd::store::StoreError;
use callbackd::store::admin::{
    AdminStore, AuditEntry, AuditFilter, IdempotencyKey, KeyRow, Made, TeamRows, TokenRow, Used,
};

use super::{START, opened};

/// A store under test.
struct Subject {
    name: &'static str,
    store: Arc<dyn AdminStore>,
    clock: Arc<ManualClock>,
    _folder: tempfile::TempDir,
}

async fn subjects() -> Vec<Subject> {
    let mut subjects = Vec::new();
    for name in ["memory", "sqlite", "postgres"] {
        let clock = Arc::new(ManualClock::new(START));
        let folder = tempfile::tempdir().unwrap();
        let store = opened(name, &folder, &clock).await.admin;
        subjects.push(Subject { name, store, clock, _folder: folder });
    }
    subjects
}

impl Subject {
    async fn with_team(&self) {
        let keys = vec![key("key_1", "team_a", START)];
        let made = self.store.create_team(team("team_a"), keys, None, entry("team.create", "team_a")).await.unwrap();
        assert_eq!(made, Made::Done, "{}", self.name);
    }

    /// Everything that a change may leave behind.
    async fn picture(&self) -> (i64, Vec<Team>, Vec<KeyRow>, Vec<TokenRow>, usize) {
        let store = &self.store;
        let audit = store.audit(AuditFilter::default(), None, 1_000).await.unwrap();
        (
            store.version().await.unwrap(),
            store.teams(None, 1_000).await.unwrap(),
            store.keys("team_a").await.unwrap(),
            store.tokens().await.unwrap(),
            audit.len(),
        )
    }
}

pub(super) fn team(id: &str) -> Team {
    Team {
        id: id.into(),
        name: format!("the name of {id}"),
        default_url: None,
        default_url_test: None,
        allowed_origins: Vec::new(),
        auth_form: AuthForm::Key,
        origin_forms: Vec::new(),
        http: None,
        retry: RetryOverride::default(),
        deleted_at: None,
    }
}

pub(super) fn key(id: &str, team: &str, created_at: Timestamp) -> KeyRow {
    KeyRow {
        id: id.to_owned(),
        team: team.to_owned(),
        kind: KeyKind::Hmac,
        mode: Mode::Live,
        state: KeyState::Created,
        keyring: "ring".to_owned(),
        sealed: vec![0, 255, 7],
        last4: "abcd".to_owned(),
        created_at,
        promote_at: None,
        revoked_at: None,
        used_at: None,
    }
}

pub(super) fn token(n: u8) -> TokenRow {
    TokenRow {
        id: format!("tok_{n}"),
        name: "ci".to_owned(),
        scope: Rights::OPERATE,
        hash: [n; 32],
        last4: "wxyz".to_owned(),
        created_at: START.plus(Duration::from_secs(u64::from(n))),
        expires_at: START.plus(Duration::from_secs(3_600)),
        revoked_at: None,
        teams: TeamLimit::All,
        used_at: None,
    }
}

pub(super) fn entry(action: &'static str, object: &str) -> AuditEntry {
    AuditEntry {
        caller: "ann".to_owned(),
        address: "unix".to_owned(),
        action,
        object: object.to_owned(),
        change: "what".to_owned(),
    }
}

pub(super) fn once(key: &str, request: u8) -> Option<IdempotencyKey> {
    Some(IdempotencyKey { key: key.to_owned(), fingerprint: [request; 32] })
}

#[tokio::test]
async fn a_pause_stays_as_it_began_until_it_ends() {
    for subject in subjects().await {
        let (name, admin) = (subject.name, &subject.store);
        let origin = Origin::parse("https://a.example").unwrap();
        let scopes =
            [PauseScope::All, PauseScope::Team("team_a".into()), PauseScope::Endpoint("team_a".into(), origin.clone())];
        let pause = |scope: &PauseScope, reason: &str| Pause {
            scope: scope.clone(),
            since: START,
            paused_by: "ann".to_owned(),
            reason: reason.to_owned(),
        };
        let before = admin.version().await.unwrap();
        for scope in &scopes {
            let first = admin.pause(pause(scope, "first"), entry("pause", "x")).await.unwrap();
            let second = admin.pause(pause(scope, "second"), entry("pause", "x")).await.unwrap();
            assert_eq!((&first.reason[..], &first), ("first", &second), "{name}");
        }
        assert!(admin.version().await.unwrap() > before, "{name}: instances learn of it");
        let read = admin.pauses().await.unwrap();
        assert_eq!(read.iter().map(|pause| pause.scope.clone()).collect::<Vec<_>>(), scopes, "{name}");
        assert!(admin.end_pause(scopes[0].clone(), entry("resume", "x")).await.unwrap(), "{name}");
        assert!(!admin.end_pause(scopes[0].clone(), entry("resume", "x")).await.unwrap(), "{name}");
        assert_eq!(admin.pauses().await.unwrap().len(), 2, "{name}");
    }
}

#[tokio::test]
async fn a_deleted_team_keeps_its_row_and_loses_its_keys_and_pauses() {
    for subject in subjects().await {
        let (name, admin) = (subject.name, &subject.store);
        assert_eq!(admin.delete_team("team_a", entry("delete", "team_a")).await.unwrap(), None, "{name}");
        let keys = vec![key("key_1", "team_a", START)];
        admin.create_team(team("team_a"), keys, None, entry("create", "team_a")).await.unwrap();
        let pause = Pause {
            scope: PauseScope::Team("team_a".into()),
            since: START,
            paused_by: String::new(),
            reason: String::new(),
        };
        admin.pause(pause, entry("pause", "team_a")).await.unwrap();
        let deleted = admin.delete_team("team_a", entry("delete", "team_a")).await.unwrap().unwrap();
        let at = deleted.deleted_at.unwrap();
        assert_eq!(admin.team("team_a").await.unwrap().unwrap(), deleted, "{name}");
        assert!(admin.team_with_keys("team_a").await.unwrap().is_none(), "{name}: nothing is sent for it");
        assert_eq!(admin.keys("team_a").await.unwrap()[0].revoked_at, Some(at), "{name}");
        assert!(admin.pauses().await.unwrap().is_empty(), "{name}");
        assert_eq!(admin.deleted_teams(at).await.unwrap(), ["team_a"], "{name}");
        assert!(admin.deleted_teams(at.plus(Duration::from_millis(1))).await.unwrap().is_empty(), "{name}");
        let again = admin.create_team(team("team_a"), Vec::new(), None, entry("create", "team_a")).await.unwrap();
        assert_eq!(again, Made::Exists, "{name}");
    }
}

#[tokio::test]
async fn a_team_reads_back_as_it_was_written() {
    let full = Team {
        default_url: Some("https://a.example/x?y=z".to_owned()),
        default_url_test: Some("https://test.example/".to_owned()),
        allowed_origins: vec![
            Origin::parse("https://a.example").unwrap(),
            Origin::parse("http://b.example:8080").unwrap(),
        ],
        auth_form: AuthForm::Hmac,
        origin_forms: vec![(Origin::parse("https://a.example").unwrap(), AuthForm::Key)],
        http: Some(HttpPolicy::HmacOnly),
        retry: RetryOverride {
            retries: Some(7),
            horizon: Some(Duration::from_millis(86_400_123)),
            end_on_gone: Some(false),
        },
        ..team("team_full")
    };
    for subject in subjects().await {
        let store = &subject.store;
        assert_eq!(store.team("team_full").await.unwrap(), None, "{}", subject.name);
        for team in [full.clone(), team("team_b"), team("team_a")] {
            let audit = entry("team.create", &team.id);
            assert_eq!(store.create_team(team, vec![], None, audit).await.unwrap(), Made::Done, "{}", subject.name);
        }
        assert_eq!(store.team("team_full").await.unwrap().as_ref(), Some(&full), "{}", subject.name);
        let ids = async |after: Option<&str>, limit| {
            let teams = store.teams(after.map(str::to_owned), limit).await.unwrap();
            teams.iter().map(|team| team.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(ids(None, 9).await, ["team_a", "team_b", "team_full"], "{}", subject.name);
        assert_eq!(ids(Some("team_a"), 1).await, ["team_b"], "{}", subject.name);
        assert_eq!(ids(Some("team_full"), 9).await, Vec::<String>::new(), "{}", subject.name);
    }
}

#[tokio::test]
async fn keys_belong_to_a_team_that_exists() {
    for subject in subjects().await {
        subject.with_team().await;
        let before = subject.picture().await;
        let orphan = key("key_9", "nobody", START);
        let refused = subject.store.create_key(orphan, once("k", 1), entry("key.create", "nobody"), |_| None::<()>);
        let error = refused.await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{}: {error}", subject.name);
        let keys = vec![key("key_8", "another", START)];
        let error = subject.store.create_team(team("team_b"), keys, None, entry("team.create", "team_b")).await;
        assert!(matches!(error, Err(StoreError::Refused(_))), "{}: a key of another team", subject.name);
        assert_eq!(subject.picture().await, before, "{}: nothing is left of it", subject.name);
    }
}

#[tokio::test]
async fn keys_are_listed_by_age_and_change_their_state_alone() {
    for subject in subjects().await {
        subject.with_team().await;
        let store = &subject.store;
        let later = START.plus(Duration::from_secs(1));
        for row in [key("key_3", "team_a", later), key("key_2", "team_a", START)] {
            let made = store.create_key(row, None, entry("key.create", "team_a"), |_| None::<()>).await.unwrap();
            assert_eq!(made, Ok(Made::Done), "{}", subject.name);
        }
        let ids = |keys: Vec<KeyRow>| keys.into_iter().map(|key| key.id).collect::<Vec<_>>();
        assert_eq!(ids(store.keys("team_a").await.unwrap()), ["key_1", "key_2", "key_3"], "{}", subject.name);
        assert_eq!(ids(store.some_keys().await.unwrap()), ["key_1", "key_2", "key_3"], "{}", subject.name);
        subject.clock.advance(Duration::from_secs(60));
        let changed = store.change_key("team_a", entry("key.revoke", "team_a"), |keys, now| {
            let mut key = keys.into_iter().find(|key| key.id == "key_2").ok_or("no such key")?;
            key.state = KeyState::Revoked;
            key.revoked_at = Some(now);
            Ok::<_, &str>(key)
        });
        let changed = changed.await.unwrap().unwrap();
        assert_eq!(changed.revoked_at.map(|at| at.since(START)), Some(Duration::from_secs(60)), "{}", subject.name);
        let (team, keys) = store.team_with_keys("team_a").await.unwrap().unwrap();
        assert_eq!((&*team.id, &keys[1]), ("team_a", &changed), "{}: and it reads back", subject.name);
        assert_eq!(keys[0], key("key_1", "team_a", START), "{}: the others are untouched", subject.name);
        assert_eq!(store.team_with_keys("nobody").await.unwrap(), None, "{}", subject.name);
    }
}

#[tokio::test]
async fn each_change_raises_the_version_and_writes_its_audit_row() {
    for subject in subjects().await {
        let store = &subject.store;
        let mut version = store.version().await.unwrap();
        let mut actions = Vec::new();
        let mut rises = async |action: &'static str| {
            let now = store.version().await.unwrap();
            assert!(now > version, "{}: {action} raises the version", subject.name);
            version = now;
            actions.push(action);
            let rows = store.audit(AuditFilter::default(), None, 100).await.unwrap();
            let written: Vec<_> = rows.iter().rev().map(|row| row.action.as_str()).collect();
            assert_eq!(written, actions, "{}", subject.name);
        };
        subject.with_team().await;
        rises("team.create").await;
        let update = |mut team: Team| {
            team.name = "new".to_owned();
            Ok::<_, ()>((team, "old -> new".to_owned()))
        };
        let after = store.update_team("team_a", entry("team.update", "team_a"), update).await.unwrap();
        assert_eq!(after.unwrap().unwrap().name, "new", "{}", subject.name);
        rises("team.update").await;
        let row = key("key_2", "team_a", START);
        store.create_key(row, None, entry("key.create", "team_a"), |_| None::<()>).await.unwrap().unwrap();
        rises("key.create").await;
        let decide = |keys: Vec<KeyRow>, _: Timestamp| Ok::<_, ()>(keys[0].clone());
        store.change_key("team_a", entry("key.promote", "team_a"), decide).await.unwrap().unwrap();
        rises("key.promote").await;
        store.create_token(token(1), None, entry("token.create", "tok_1")).await.unwrap();
        rises("token.create").await;
        store.revoke_token("tok_1", entry("token.revoke", "tok_1")).await.unwrap();
        rises("token.revoke").await;
        let before = store.version().await.unwrap();
        store.note(entry("key.reveal", "team_a")).await.unwrap();
        assert_eq!(store.version().await.unwrap(), before, "{}: a note changes no team", subject.name);
        let rows = store.audit(AuditFilter::default(), None, 100).await.unwrap();
        let update = rows.iter().find(|row| row.action == "team.update").unwrap();
        assert_eq!(rows[0].action, "key.reveal", "{}", subject.name);
        assert_eq!(update.change, "old -> new", "{}: what the decision says", subject.name);
        assert_eq!((&*update.caller, &*update.address, update.at), ("ann", "unix", START), "{}", subject.name);
    }
}

#[tokio::test]
async fn what_is_refused_inside_the_transaction_leaves_nothing() {
    for subject in subjects().await {
        subject.with_team().await;
        subject.store.create_token(token(1), once("t", 1), entry("token.create", "tok_1")).await.unwrap();
        let (store, before) = (&subject.store, subject.picture().await);
        let refused =
            store.update_team("team_a", entry("team.update", "team_a"), |team| Err::<(Team, String), _>(team.name));
        assert_eq!(
            refused.await.unwrap(),
            Some(Err(team("team_a").name)),
            "{}: typed, and from the store",
            subject.name
        );
        let nobody = store.update_team("nobody", entry("team.update", "nobody"), |team| Ok::<_, ()>((team, "".into())));
        assert_eq!(nobody.await.unwrap(), None, "{}", subject.name);
        let row = key("key_2", "team_a", START);
        let refuse = |keys: Vec<KeyRow>| Some(keys.len());
        let refused = store.create_key(row.clone(), once("k", 1), entry("key.create", "team_a"), refuse).await.unwrap();
        assert_eq!(refused, Err(1), "{}: decided on the keys that stand there", subject.name);
        let decide = |_: Vec<KeyRow>, now: Timestamp| Err::<KeyRow, _>(now);
        let refused = store.change_key("team_a", entry("key.revoke", "team_a"), decide).await.unwrap();
        assert_eq!(refused, Err(START), "{}: with the store's time", subject.name);
        let exists = store.create_team(team("team_a"), vec![], once("e", 1), entry("team.create", "team_a")).await;
        assert_eq!(exists.unwrap(), Made::Exists, "{}", subject.name);
        let revoked = store.revoke_token("tok_9", entry("token.revoke", "tok_9")).await.unwrap();
        assert_eq!(revoked, None, "{}", subject.name);
        let repeated = store.create_token(token(2), once("t", 1), entry("token.create", "tok_2")).await.unwrap();
        assert_eq!(repeated, Made::Repeated("tok_1".to_owned()), "{}", subject.name);
        assert_eq!(subject.picture().await, before, "{}", subject.name);
        // The refused request left no idempotency key, so it succeeds when there is room.
        let made = store.create_key(row, once("k", 2), entry("key.create", "team_a"), |_| None::<()>).await.unwrap();
        assert_eq!(made, Ok(Made::Done), "{}", subject.name);
    }
}

#[tokio::test]
async fn a_repeated_request_finds_what_it_made_for_a_day() {
    for subject in subjects().await {
        subject.with_team().await;
        let store = &subject.store;
        let create = async |n: u8, key: Option<IdempotencyKey>, caller: &str| {
            let audit = AuditEntry { caller: caller.to_owned(), ..entry("token.create", &token(n).id) };
            store.create_token(token(n), key, audit).await.unwrap()
        };
        let found =
            async |request: u8, caller: &str| store.made_before(caller, once("k", request).unwrap()).await.unwrap();
        assert_eq!(found(1, "ann").await, None, "{}", subject.name);
        assert_eq!(create(1, once("k", 1), "ann").await, Made::Done, "{}", subject.name);
        let before = subject.picture().await;
        assert_eq!(found(1, "ann").await, Some(Made::Repeated("tok_1".to_owned())), "{}", subject.name);
        assert_eq!(found(2, "ann").await, Some(Made::Mismatch), "{}", subject.name);
        assert_eq!(found(1, "bob").await, None, "{}: another caller's key", subject.name);
        assert_eq!(subject.picture().await, before, "{}: to look changes nothing", subject.name);
        assert_eq!(create(2, once("k", 1), "ann").await, Made::Repeated("tok_1".to_owned()), "{}", subject.name);
        assert_eq!(create(2, once("k", 2), "ann").await, Made::Mismatch, "{}", subject.name);
        assert_eq!(create(2, once("k", 2), "bob").await, Made::Done, "{}: another caller's key", subject.name);
        let ask = |id: &str| key(id, "team_a", START);
        let refuse = |_: Vec<KeyRow>| None::<()>;
        let made = store.create_key(ask("key_2"), once("q", 1), entry("key.create", "team_a"), refuse).await.unwrap();
        assert_eq!(made, Ok(Made::Done), "{}", subject.name);
        let full = |_: Vec<KeyRow>| Some("full");
        let again = store.create_key(ask("key_3"), once("q", 1), entry("key.create", "team_a"), full).await.unwrap();
        assert_eq!(again, Ok(Made::Repeated("key_2".to_owned())), "{}: before the decision", subject.name);
        subject.clock.advance(Duration::from_secs(86_400));
        assert_eq!(create(3, once("k", 1), "ann").await, Made::Repeated("tok_1".to_owned()), "{}", subject.name);
        subject.clock.advance(Duration::from_millis(1));
        assert_eq!(found(1, "ann").await, None, "{}: after a day it is new", subject.name);
        assert_eq!(create(3, once("k", 1), "ann").await, Made::Done, "{}: after a day it is new", subject.name);
    }
}

#[tokio::test]
async fn tokens_are_listed_newest_first_and_the_first_revocation_counts() {
    for subject in subjects().await {
        let store = &subject.store;
        for n in [1, 3, 2] {
            let made = store.create_token(token(n), None, entry("token.create", &token(n).id)).await.unwrap();
            assert_eq!(made, Made::Done, "{}", subject.name);
        }
        let listed = store.tokens().await.unwrap();
        assert_eq!(listed, [token(3), token(2), token(1)], "{}", subject.name);
        for _ in 0..2 {
            let row = store.revoke_token("tok_2", entry("token.revoke", "tok_2")).await.unwrap().unwrap();
            assert_eq!(row.revoked_at, Some(START), "{}", subject.name);
            subject.clock.advance(Duration::from_secs(9));
        }
        assert_eq!(store.tokens().await.unwrap()[1].revoked_at, Some(START), "{}", subject.name);
    }
}

#[tokio::test]
async fn the_audit_is_read_by_object_and_caller_newest_first() {
    for subject in subjects().await {
        let store = &subject.store;
        for n in 0..10 {
            let caller = if n % 3 == 0 { "bob" } else { "ann" };
            let object = if n % 2 == 0 { "team_a" } else { "team_b" };
            store.note(AuditEntry { caller: caller.to_owned(), ..entry("key.reveal", object) }).await.unwrap();
        }
        let all = store.audit(AuditFilter::default(), None, 100).await.unwrap();
        let ids: Vec<_> = all.iter().map(|row| row.id).collect();
        assert!(ids.len() == 10 && ids.is_sorted_by(|a, b| a > b), "{}: {ids:?}", subject.name);
        for object in [None, Some("team_a"), Some("nobody")] {
            for caller in [None, Some("bob")] {
                for before in [None, Some(ids[3])] {
                    let (object, caller) = (object.map(str::to_owned), caller.map(str::to_owned));
                    let filter = AuditFilter { object: object.clone(), caller: caller.clone(), of_teams: None };
                    let found = store.audit(filter, before, 3).await.unwrap();
                    let matches = all.iter().filter(|row| object.as_ref().is_none_or(|object| *object == row.object));
                    let matches = matches.filter(|row| caller.as_ref().is_none_or(|caller| *caller == row.caller));
                    let matches = matches.filter(|row| before.is_none_or(|before| row.id < before));
                    let expected: Vec<_> = matches.take(3).cloned().collect();
                    assert_eq!(found, expected, "{}: {object:?} {caller:?} {before:?}", subject.name);
                }
            }
        }
    }
}

#[tokio::test]
async fn the_audit_of_some_teams_holds_nothing_else() {
    for subject in subjects().await {
        let store = &subject.store;
        // A token, a setting and a team may have the same name.
        let rows = [
            ("team.create", "team_a"),
            ("key.reveal", "team_b"),
            ("log.level", "team_a"),
            ("token.create", "team_b"),
            ("key.reveal", "team_c"),
            ("key.reveal", "team_a"),
        ];
        for (action, object) in rows {
            store.note(entry(action, object)).await.unwrap();
        }
        let found = async |teams: &[&str], object: Option<&str>, limit| {
            let teams = teams.iter().map(|team| (*team).to_owned()).collect();
            let of_teams = Some(TeamRows { teams, actions: vec!["team.create", "key.reveal"] });
            let filter = AuditFilter { object: object.map(str::to_owned), caller: None, of_teams };
            let rows = store.audit(filter, None, limit).await.unwrap();
            rows.iter().map(|row| format!("{} {}", row.action, row.object)).collect::<Vec<_>>()
        };
        let both = ["key.reveal team_a", "key.reveal team_b", "team.create team_a"];
        assert_eq!(found(&["team_a", "team_b"], None, 9).await, both, "{}", subject.name);
        assert_eq!(found(&["team_a", "team_b"], None, 2).await, both[..2], "{}", subject.name);
        assert_eq!(found(&["team_b"], None, 9).await, both[1..2], "{}", subject.name);
        assert_eq!(found(&["team_b"], Some("team_a"), 9).await, Vec::<String>::new(), "{}", subject.name);
    }
}

#[tokio::test]
async fn limits_and_last_uses_read_back_and_a_use_is_no_change() {
    for subject in subjects().await {
        subject.with_team().await;
        let store = &subject.store;
        let teams = TeamLimit::of(["team_a".to_owned(), "team_b".to_owned()]);
        let limited = TokenRow { teams: teams.clone(), ..token(1) };
        store.create_token(limited, None, entry("token.create", "tok_1")).await.unwrap();
        store.create_token(token(2), None, entry("token.create", "tok_2")).await.unwrap();
        let (before, at) = (subject.picture().await, |seconds| START.plus(Duration::from_secs(seconds)));
        let (token, key) = (|| Used::Token("tok_1".to_owned()), || Used::Key("key_1".to_owned()));
        let nobody = [Used::Token("key_1".to_owned()), Used::Key("tok_1".to_owned())].map(|used| (used, at(1)));
        store.mark_used([vec![(token(), at(9)), (key(), at(5))], nobody.to_vec()].concat()).await.unwrap();
        store.mark_used(vec![(token(), at(3)), (key(), at(7))]).await.unwrap();
        store.mark_used(Vec::new()).await.unwrap();
        let after = subject.picture().await;
        assert_eq!((after.0, after.4), (before.0, before.4), "{}: no version and no audit row", subject.name);
        assert_eq!(after.2[0].used_at, Some(at(7)), "{}: the last use", subject.name);
        assert_eq!((&after.3[1].teams, after.3[1].used_at), (&teams, Some(at(9))), "{}", subject.name);
        assert_eq!((&after.3[0].teams, after.3[0].used_at), (&TeamLimit::All, None), "{}", subject.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_changes_are_decided_one_after_the_other() {
    for subject in subjects().await {
        subject.with_team().await;
        let version = subject.store.version().await.unwrap();
        let mut changes = Vec::new();
        for n in 0..20_u16 {
            let store = Arc::clone(&subject.store);
            changes.push(tokio::spawn(async move {
                let add = move |mut team: Team| {
                    team.allowed_origins.push(Origin::parse(&format!("https://a.example:{}", 1_000 + n)).unwrap());
                    Ok::<_, ()>((team, "one more".to_owned()))
                };
                store.update_team("team_a", entry("team.update", "team_a"), add).await.unwrap().unwrap().unwrap();
                let row = key(&format!("key_{}", n + 10), "team_a", START);
                let full = |keys: Vec<KeyRow>| (keys.len() >= 8).then_some("full");
                store.create_key(row, None, entry("key.create", "team_a"), full).await.unwrap().is_ok()
            }));
        }
        let mut made = 0;
        for change in changes {
            made += i64::from(change.await.unwrap());
        }
        let (team, keys) = subject.store.team_with_keys("team_a").await.unwrap().unwrap();
        assert_eq!(team.allowed_origins.len(), 20, "{}: no change is lost", subject.name);
        assert_eq!((made, keys.len()), (7, 8), "{}: the bound holds", subject.name);
        assert_eq!(subject.store.version().await.unwrap(), version + 20 + made, "{}", subject.name);
    }
}

#[test]
fn admin_sql_names_no_dialect() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/admin");
    let mut files = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for dialect in [
            "rusqlite",
            "sqlite",
            "INDEXED BY",
            "last_insert_rowid",
            "INSERT OR ",
            "rowid",
            "::text",
            "FOR UPDATE",
            "?1",
        ] {
            assert!(!text.contains(dialect), "{} says {dialect}", path.display());
        }
        files += 1;
    }
    assert!(files >= 6, "{files} files");
}

#[tokio::test]
async fn settings_that_callbacks_are_sent_with_are_kept_once_and_go_when_they_are_not_used() {
    for subject in subjects().await {
        let settings = |team: &str, url: Option<&str>, keys: &[&str]| SentWith {
            team: team.into(),
            mode: Mode::Test,
            url: url.map(str::to_owned),
            form: AuthForm::Hmac,
            signing_keys: keys.iter().map(ToString::to_string).collect(),
            auth_keys: vec!["key_auth".to_owned()],
        };
        let store = &subject.store;
        let (old, both) =
            (settings("team_a", Some("https://a.example/x?y=z"), &["k1", "k2"]), settings("team_b", None, &[]));
        let before = subject.picture().await;
        store.note_sent_with(vec![old.clone(), both.clone()]).await.unwrap();
        let ids = || vec![both.id(), old.id(), settings("nobody", None, &[]).id()];
        assert_eq!(store.sent_with(ids()).await.unwrap(), [both.clone(), old.clone()], "{}", subject.name);
        subject.clock.advance(Duration::from_secs(100));
        store.note_sent_with(vec![both.clone()]).await.unwrap();
        assert_eq!(store.prune_sent_with(START).await.unwrap(), 0, "{}", subject.name);
        assert_eq!(store.prune_sent_with(START.plus(Duration::from_secs(50))).await.unwrap(), 1, "{}", subject.name);
        assert_eq!(store.sent_with(ids()).await.unwrap(), [both], "{}: what is used stays", subject.name);
        assert_eq!(subject.picture().await, before, "{}: it is no change", subject.name);
    }
}
