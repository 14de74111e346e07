//! Bearer tokens of the API: 256 random bits, of which only the SHA-256 is kept, with a set of rights, the teams that
//! they are for, and an end.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use scale_callback_serve::text::{hex, printable};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::caller::Caller;
use super::policy::{self, Gift, Operation};
use super::teams::no_team;
use super::unauthenticated::{Refusals, Source, Verdict};
use super::{Creation, Inner, Ops, OpsError, Session, created};
use crate::base::clock::{Clock, Timestamp};
use crate::base::labels::CredentialFault;
use crate::model::permission::{Right, Rights, TeamLimit};
use crate::store::admin::{AdminStore, IdempotencyKey, Made, TokenRow, Used};

const PREFIX: &str = "cbt_";
const MAX_NAME: usize = 200;
/// The longest time for which a token may be valid, and the shortest.
pub const LONGEST: Duration = Duration::from_secs(366 * 86_400);
pub const SHORTEST: Duration = Duration::from_secs(60);
/// How long a token is valid unless a caller says otherwise.
pub const USUAL: Duration = Duration::from_secs(90 * 86_400);
/// How old the copy of the store's tokens may become.
const FRESH: Duration = Duration::from_secs(1);
/// The most teams that one token may be limited to: a list asks for each of them.
const MOST_TEAMS: usize = 100;
/// The use of one token is recorded at most once in this time, so that requests cause few writes.
const USE_RECORDED_EVERY: Duration = Duration::from_secs(60);

/// What was asked of a new token.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub name: String,
    pub scope: Rights,
    /// The usual time if there is none, but not longer than the token of the caller.
    pub valid_for: Option<Duration>,
    /// The only teams that it is for. If there are none, it is for the teams of the caller.
    pub teams: Vec<String>,
}

/// The valid tokens by their hash, read at most once a second. Requests therefore never crowd the store's readers, and
/// a token that another program revokes is refused within that second.
#[derive(Default)]
pub(super) struct TokenCache {
    cached: tokio::sync::Mutex<Option<CachedTokens>>,
    /// Notified when a token was created here.
    created: tokio::sync::Notify,
    /// When the use of each token was recorded last. There are at most as many as there are tokens in the cache.
    recorded: Mutex<HashMap<[u8; 32], Timestamp>>,
    pub(super) refusals: Refusals,
}

struct CachedTokens {
    read_at: Instant,
    tokens: HashMap<[u8; 32], TokenRow>,
}

impl TokenCache {
    /// Reads the store again at the next question, so that a change made here counts at once.
    async fn forget(&self) {
        *self.cached.lock().await = None;
    }
}

impl Ops {
    /// The caller that presents this token, from `peer`. A wrong token is counted, and its refusal waits a moment.
    ///
    /// # Errors
    /// `unauthenticated`, or the store's while nothing is known of its tokens.
    pub async fn authenticate(&self, token: &str, peer: SocketAddr) -> Result<Caller, OpsError> {
        let now = self.0.parts.clock.now();
        let well_formed = token.starts_with(PREFIX) && token.len() == PREFIX.len() + 64;
        let found = if well_formed { self.0.token(&hash(token)).await? } else { None };
        let Some(row) = found.filter(|row| row.is_valid(now)) else {
            self.0.refuse(peer.ip()).await;
            return Err(OpsError::Unauthenticated("the token is unknown, revoked or expired".to_owned()));
        };
        self.0.record_use(&row, now);
        Ok(Caller::of_token(&row, peer.to_string()))
    }

    /// Counts a request without a token.
    pub fn came_without_token(&self) {
        self.0.parts.metrics.api_unauthenticated_total.with_label_values(&[CredentialFault::Missing.name()]).inc();
    }

    /// Waits until there is a valid token.
    pub async fn first_token(&self) {
        loop {
            let created = self.0.tokens.created.notified();
            if self.0.has_tokens().await.unwrap_or(false) {
                return;
            }
            // Another program may create a token directly in the store, so we look again from time to time.
            drop(tokio::time::timeout(FRESH, created).await);
        }
    }
}

impl Inner {
    /// Counts a wrong token, logs it unless its source was logged a moment ago, and lets its refusal wait.
    async fn refuse(&self, from: IpAddr) {
        self.parts.metrics.api_unauthenticated_total.with_label_values(&[CredentialFault::Wrong.name()]).inc();
        let Verdict { log, wait } = self.tokens.refusals.refused(Source::of(from), self.parts.clock.now());
        if let Some(count) = log {
            tracing::warn!(source = %Source::of(from), count, "requests to the API came with a wrong token");
        }
        if let Some(waiting) = wait {
            waiting.over().await;
        }
    }

    /// Records that a token was used, unless that was done a moment ago. The request does not wait for it.
    fn record_use(self: &Arc<Self>, row: &TokenRow, now: Timestamp) {
        let mut recorded = self.tokens.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        if recorded.get(&row.hash).is_some_and(|last| now.since(*last) < USE_RECORDED_EVERY && *last <= now) {
            return;
        }
        recorded.insert(row.hash, now);
        drop(recorded);
        let (inner, used) = (Arc::clone(self), vec![(Used::Token(row.id.clone()), now)]);
        tokio::spawn(async move {
            if let Err(error) = inner.parts.admin.mark_used(used).await {
                tracing::debug!(%error, "the use of a token can't be recorded now");
            }
        });
    }

    async fn token(&self, hash: &[u8; 32]) -> Result<Option<TokenRow>, OpsError> {
        let mut cached = self.tokens.cached.lock().await;
        if cached.as_ref().is_none_or(|cached| cached.read_at.elapsed() >= FRESH) {
            match (self.parts.admin.tokens().await, cached.as_mut()) {
                (Ok(rows), _) => {
                    let tokens: HashMap<_, _> = rows.into_iter().map(|row| (row.hash, row)).collect();
                    let mut recorded = self.tokens.recorded.lock().unwrap_or_else(PoisonError::into_inner);
                    recorded.retain(|hash, _| tokens.contains_key(hash));
                    drop(recorded);
                    *cached = Some(CachedTokens { read_at: Instant::now(), tokens });
                }
                (Err(error), None) => return Err(error.into()),
                // While the store is down, the cached tokens stay in use.
                (Err(_), Some(kept)) => kept.read_at = Instant::now(),
            }
        }
        Ok(cached.as_ref().and_then(|cached| cached.tokens.get(hash)).cloned())
    }

    async fn has_tokens(&self) -> Result<bool, OpsError> {
        let now = self.parts.clock.now();
        Ok(self.parts.admin.tokens().await?.iter().any(|token| token.is_valid(now)))
    }
}

impl Session {
    /// All tokens, newest first, without their values.
    ///
    /// # Errors
    /// `forbidden`, or the store's.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, OpsError> {
        self.allow(Operation::Tokens)?;
        self.tokens_of_caller().await
    }

    /// The tokens that are for no other teams than the caller.
    async fn tokens_of_caller(&self) -> Result<Vec<TokenRow>, OpsError> {
        let mut tokens = self.parts().admin.tokens().await?;
        tokens.retain(|token| self.caller.teams.covers(&token.teams));
        Ok(tokens)
    }

    /// Creates a token. Its value is in this answer, and is shown nowhere else.
    ///
    /// # Errors
    /// `forbidden`, also for a right, a team or a time that the caller does not have; `invalid_request`, `not_found`,
    /// `conflict`, `idempotency_mismatch`, or the store's.
    pub async fn create_token(
        &self,
        new: NewToken,
        once: Option<IdempotencyKey>,
    ) -> Result<Creation<(TokenRow, Option<Zeroizing<String>>)>, OpsError> {
        self.allow(Operation::CreateToken)?;
        let gift = gift(&self.caller, &new, self.now())?;
        policy::check_gift(&self.caller, &gift)?;
        known_teams(self.parts().admin.as_ref(), &gift.teams).await?;
        let (row, value) = mint(&new, gift, self.now())?;
        let audit = self.caller.entry(Operation::CreateToken, &row.id, describe(&row));
        let made = self.parts().admin.create_token(row.clone(), once, audit).await?;
        self.inner.tokens.forget().await;
        self.inner.tokens.created.notify_waiters();
        match created(made, || "there are as many valid tokens as there may be; revoke one first".to_owned())? {
            None => Ok(Creation::New((row, Some(value)))),
            Some(id) => {
                let earlier = self.parts().admin.tokens().await?.into_iter().find(|token| token.id == id);
                Ok(Creation::Repeated((earlier.ok_or_else(|| no_token(&id))?, None)))
            }
        }
    }

    /// Revokes a token: it is refused from now on.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, or the store's.
    pub async fn revoke_token(&self, id: &str) -> Result<TokenRow, OpsError> {
        self.allow(Operation::RevokeToken)?;
        if self.caller.teams != TeamLimit::All {
            let own = self.tokens_of_caller().await?.into_iter().any(|token| token.id == id);
            if !own {
                return Err(no_token(id));
            }
        }
        let row = self.parts().admin.revoke_token(id, self.caller.entry(Operation::RevokeToken, id, "")).await?;
        self.inner.tokens.forget().await;
        row.ok_or_else(|| no_token(id))
    }
}

/// Reads a scope: one right or several, with spaces between them.
///
/// # Errors
/// `invalid_request`, with the rights that there are.
pub fn scope(text: &str) -> Result<Rights, OpsError> {
    Rights::parse(text).ok_or_else(|| {
        let names: Vec<_> = Right::ALL.iter().map(|right| right.name()).collect();
        OpsError::invalid(format!("scope is one or more of {}", names.join(", ")))
    })
}

/// Creates the first token straight in the store, while no daemon runs on it.
///
/// # Errors
/// `invalid_request`, `conflict`, or the store's.
pub async fn bootstrap(
    admin: &dyn AdminStore,
    clock: &dyn Clock,
    new: &NewToken,
) -> Result<(TokenRow, Zeroizing<String>), OpsError> {
    let caller = Caller::at_the_store("bootstrap");
    policy::check(&caller, Operation::CreateToken)?;
    let gift = gift(&caller, new, clock.now())?;
    policy::check_gift(&caller, &gift)?;
    known_teams(admin, &gift.teams).await?;
    let (row, value) = mint(new, gift, clock.now())?;
    let audit = caller.entry(Operation::CreateToken, &row.id, describe(&row));
    match admin.create_token(row.clone(), None, audit).await? {
        Made::Done => Ok((row, value)),
        _ => Err(OpsError::Conflict("there are as many valid tokens as there may be".to_owned())),
    }
}

/// What a new token may do. What was not asked for is as the caller has it.
fn gift(caller: &Caller, new: &NewToken, now: Timestamp) -> Result<Gift, OpsError> {
    if new.valid_for.is_some_and(|valid_for| !(SHORTEST..=LONGEST).contains(&valid_for)) {
        return Err(OpsError::invalid("a token is valid for 1 minute to 366 days"));
    }
    let usual = now.plus(USUAL);
    let usual = caller.until.map_or(usual, |until| usual.min(until));
    let until = new.valid_for.map_or(usual, |valid_for| now.plus(valid_for));
    let asked: BTreeSet<_> = new.teams.iter().cloned().collect();
    if asked.len() > MOST_TEAMS {
        return Err(OpsError::invalid(format!("a token can be limited to at most {MOST_TEAMS} teams")));
    }
    let teams = if asked.is_empty() { caller.teams.clone() } else { TeamLimit::of(asked) };
    Ok(Gift { rights: new.scope, teams, until })
}

/// A token that is limited to a team that does not exist could do nothing, so the name is wrong.
async fn known_teams(admin: &dyn AdminStore, teams: &TeamLimit) -> Result<(), OpsError> {
    for team in teams.names().into_iter().flatten() {
        admin.team(team).await?.ok_or_else(|| no_team(team))?;
    }
    Ok(())
}

fn mint(new: &NewToken, gift: Gift, now: Timestamp) -> Result<(TokenRow, Zeroizing<String>), OpsError> {
    if new.name.is_empty() || new.name.len() > MAX_NAME || new.name.chars().any(char::is_control) {
        return Err(OpsError::invalid(format!("a token's name is 1 to {MAX_NAME} bytes of text")));
    }
    let value = Zeroizing::new(format!("{PREFIX}{}", hex(&super::random::<32>())));
    let row = TokenRow {
        id: format!("tok_{}", hex(&super::random::<8>())),
        name: new.name.clone(),
        scope: gift.rights,
        hash: hash(&value),
        last4: value[value.len() - 4..].to_owned(),
        created_at: now,
        expires_at: gift.until,
        revoked_at: None,
        teams: gift.teams,
        used_at: None,
    };
    Ok((row, value))
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn describe(row: &TokenRow) -> String {
    let teams: Vec<_> = row.teams.names().into_iter().flatten().map(String::as_str).collect();
    let teams = if row.teams == TeamLimit::All { "all".to_owned() } else { format!("[{}]", teams.join(" ")) };
    format!("name={:?} scope={:?} teams={teams} expires={}", row.name, row.scope.name(), row.expires_at)
}

fn no_token(id: &str) -> OpsError {
    OpsError::NotFound(format!("there is no token {}", printable(id.as_bytes(), 64)))
}
