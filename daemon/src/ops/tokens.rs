//! Bearer tokens of the API: 256 random bits, of which only the SHA-256 is kept, with a set of rights and an end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use scale_callback_serve::text::{hex, printable};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::caller::Caller;
use super::policy::{self, Operation};
use super::{Creation, Inner, Ops, OpsError, Session, created};
use crate::base::clock::{Clock, Timestamp};
use crate::model::permission::{Right, Rights};
use crate::store::admin::{AdminStore, IdempotencyKey, Made, TokenRow};

const PREFIX: &str = "cbt_";
const MAX_NAME: usize = 200;
/// The longest time for which a token may be valid, and the shortest.
pub const LONGEST: Duration = Duration::from_secs(366 * 86_400);
pub const SHORTEST: Duration = Duration::from_secs(60);
/// How long a token is valid unless a caller says otherwise.
pub const USUAL: Duration = Duration::from_secs(90 * 86_400);
/// How old the copy of the store's tokens may become.
const FRESH: Duration = Duration::from_secs(1);

/// What was asked of a new token.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub name: String,
    pub scope: Rights,
    pub valid_for: Duration,
}

/// The valid tokens by their hash, read at most once a second. Requests therefore never crowd the store's readers, and
/// a token that another program revokes is refused within that second.
#[derive(Default)]
pub(super) struct TokenCache {
    cached: tokio::sync::Mutex<Option<CachedTokens>>,
    /// Notified when a token was created here.
    created: tokio::sync::Notify,
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
    /// The caller that presents this token. `address` is where the request came from.
    ///
    /// # Errors
    /// `unauthenticated`, or the store's while nothing is known of its tokens.
    pub async fn authenticate(&self, token: &str, address: String) -> Result<Caller, OpsError> {
        let unknown = || OpsError::Unauthenticated("the token is unknown, revoked or expired".to_owned());
        if !token.starts_with(PREFIX) || token.len() != PREFIX.len() + 64 {
            return Err(unknown());
        }
        let row = self.0.token(&hash(token)).await?.filter(|row| row.is_valid(self.0.parts.clock.now()));
        let row = row.ok_or_else(unknown)?;
        Ok(Caller::operator(format!("token:{} ({})", row.id, row.name), address, row.scope))
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
    async fn token(&self, hash: &[u8; 32]) -> Result<Option<TokenRow>, OpsError> {
        let mut cached = self.tokens.cached.lock().await;
        if cached.as_ref().is_none_or(|cached| cached.read_at.elapsed() >= FRESH) {
            match (self.parts.admin.tokens().await, cached.as_mut()) {
                (Ok(rows), _) => {
                    let tokens = rows.into_iter().map(|row| (row.hash, row)).collect();
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
        Ok(self.parts().admin.tokens().await?)
    }

    /// Creates a token. Its value is in this answer, and is shown nowhere else.
    ///
    /// # Errors
    /// `forbidden`, also for a right that the caller lacks; `invalid_request`, `conflict`, `idempotency_mismatch`, or
    /// the store's.
    pub async fn create_token(
        &self,
        new: NewToken,
        once: Option<IdempotencyKey>,
    ) -> Result<Creation<(TokenRow, Option<Zeroizing<String>>)>, OpsError> {
        self.allow(Operation::CreateToken)?;
        policy::check_gift(&self.caller, new.scope)?;
        let (row, value) = mint(&new, self.now())?;
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
    policy::check_gift(&caller, new.scope)?;
    let (row, value) = mint(new, clock.now())?;
    let audit = caller.entry(Operation::CreateToken, &row.id, describe(&row));
    match admin.create_token(row.clone(), None, audit).await? {
        Made::Done => Ok((row, value)),
        _ => Err(OpsError::Conflict("there are as many valid tokens as there may be".to_owned())),
    }
}

fn mint(new: &NewToken, now: Timestamp) -> Result<(TokenRow, Zeroizing<String>), OpsError> {
    if new.name.is_empty() || new.name.len() > MAX_NAME || new.name.chars().any(char::is_control) {
        return Err(OpsError::invalid(format!("a token's name is 1 to {MAX_NAME} bytes of text")));
    }
    if new.valid_for < SHORTEST || new.valid_for > LONGEST {
        return Err(OpsError::invalid("a token is valid for 1 minute to 366 days"));
    }
    let value = Zeroizing::new(format!("{PREFIX}{}", hex(&super::random::<32>())));
    let row = TokenRow {
        id: format!("tok_{}", hex(&super::random::<8>())),
        name: new.name.clone(),
        scope: new.scope,
        hash: hash(&value),
        last4: value[value.len() - 4..].to_owned(),
        created_at: now,
        expires_at: now.plus(new.valid_for),
        revoked_at: None,
    };
    Ok((row, value))
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn describe(row: &TokenRow) -> String {
    format!("name={:?} scope={:?} expires={}", row.name, row.scope.name(), row.expires_at)
}

fn no_token(id: &str) -> OpsError {
    OpsError::NotFound(format!("there is no token {}", printable(id.as_bytes(), 64)))
}
