//! Bearer tokens of the API: 256 random bits, kept as SHA-256, with a scope and an end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Caller, Creation, Ops, OpsError, created};
use crate::base::clock::{Clock, Timestamp};
use crate::base::text::hex;
use crate::store::admin::{AdminStore, AuditEntry, IdempotencyKey, Made, Scope, TokenRow};

const PREFIX: &str = "cbt_";
const MAX_NAME: usize = 200;
/// The longest that a token may be valid.
pub const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// How long a token is valid unless said otherwise.
pub const USUAL: Duration = Duration::from_secs(90 * 86_400);
/// How old what the book holds may be.
const FRESH: Duration = Duration::from_secs(1);

/// What was asked of a new token.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub name: String,
    pub scope: Scope,
    pub valid_for: Duration,
}

/// The valid tokens by their hash, read at most once a second: requests never crowd the store's readers, and a token
/// that is revoked elsewhere is refused within that second.
#[derive(Default)]
pub struct TokenBook {
    book: tokio::sync::Mutex<Option<Book>>,
    /// A token was made here.
    made: tokio::sync::Notify,
}

struct Book {
    read_at: Instant,
    tokens: HashMap<[u8; 32], TokenRow>,
}

impl TokenBook {
    /// What was changed here counts at once.
    async fn forget(&self) {
        *self.book.lock().await = None;
    }
}

impl Ops {
    /// Whom a token names, and what they may do.
    ///
    /// # Errors
    /// `unauthenticated`, or the store's while nothing of it is known.
    pub async fn authenticate(&self, token: &str) -> Result<(String, Scope), OpsError> {
        let unknown = || OpsError::Unauthenticated("the token is unknown, revoked or expired".to_owned());
        if !token.starts_with(PREFIX) || token.len() != PREFIX.len() + 64 {
            return Err(unknown());
        }
        let hash = hash(token);
        let mut book = self.tokens.book.lock().await;
        if book.as_ref().is_none_or(|book| book.read_at.elapsed() >= FRESH) {
            match self.admin.tokens().await {
                Ok(rows) => {
                    let tokens = rows.into_iter().map(|row| (row.hash, row)).collect();
                    *book = Some(Book { read_at: Instant::now(), tokens });
                }
                // While the store is away, what is known is the best there is.
                Err(error) if book.is_none() => return Err(error.into()),
                Err(_) => {
                    if let Some(book) = book.as_mut() {
                        book.read_at = Instant::now();
                    }
                }
            }
        }
        let row = book.as_ref().and_then(|book| book.tokens.get(&hash)).filter(|row| row.is_valid(self.clock.now()));
        row.map(|row| (format!("token:{} ({})", row.id, row.name), row.scope)).ok_or_else(unknown)
    }

    /// Whether anybody could come with a token.
    ///
    /// # Errors
    /// The store's.
    pub async fn has_tokens(&self) -> Result<bool, OpsError> {
        let now = self.clock.now();
        Ok(self.admin.tokens().await?.iter().any(|token| token.is_valid(now)))
    }

    /// Waits until anybody could come with a token.
    pub async fn first_token(&self) {
        loop {
            let made = self.tokens.made.notified();
            if self.has_tokens().await.unwrap_or(false) {
                return;
            }
            // One that is made in the store by another program is seen within a second.
            let _ = tokio::time::timeout(FRESH, made).await;
        }
    }

    /// All tokens, newest first; never their values.
    ///
    /// # Errors
    /// The store's.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, OpsError> {
        Ok(self.admin.tokens().await?)
    }

    /// Makes a token. Its value is in the answer this once, and nowhere else.
    ///
    /// # Errors
    /// `invalid_request`, `conflict`, `idempotency_mismatch`, or the store's.
    pub async fn create_token(
        &self,
        caller: &Caller,
        new: NewToken,
        once: Option<IdempotencyKey>,
    ) -> Result<Creation<(TokenRow, Option<Zeroizing<String>>)>, OpsError> {
        let (row, value) = mint(&new, self.clock.now())?;
        let audit = caller.entry("token.create", &row.id, describe(&row));
        let made = self.admin.create_token(row.clone(), once, audit).await?;
        self.tokens.forget().await;
        self.tokens.made.notify_waiters();
        match created(made, || "there are as many valid tokens as there may be; revoke one first".to_owned())? {
            None => Ok(Creation::New((row, Some(value)))),
            Some(id) => {
                let earlier = self.admin.tokens().await?.into_iter().find(|token| token.id == id);
                let earlier = earlier.ok_or_else(|| no_token(&id))?;
                Ok(Creation::Repeated((earlier, None)))
            }
        }
    }

    /// Revokes a token: refused from now on.
    ///
    /// # Errors
    /// `not_found`, or the store's.
    pub async fn revoke_token(&self, caller: &Caller, id: &str) -> Result<TokenRow, OpsError> {
        let row = self.admin.revoke_token(id, caller.entry("token.revoke", id, "")).await?;
        self.tokens.forget().await;
        row.ok_or_else(|| no_token(id))
    }
}

/// Makes the first token straight in the store, while no daemon runs.
///
/// # Errors
/// `invalid_request`, `conflict`, or the store's.
pub async fn bootstrap(
    admin: &dyn AdminStore,
    clock: &dyn Clock,
    new: &NewToken,
) -> Result<(TokenRow, Zeroizing<String>), OpsError> {
    let (row, value) = mint(new, clock.now())?;
    let audit = AuditEntry {
        caller: "bootstrap".to_owned(),
        origin: "store".to_owned(),
        action: "token.create",
        object: row.id.clone(),
        change: describe(&row),
    };
    match admin.create_token(row.clone(), None, audit).await? {
        Made::Done => Ok((row, value)),
        _ => Err(OpsError::Conflict("there are as many valid tokens as there may be".to_owned())),
    }
}

fn mint(new: &NewToken, now: Timestamp) -> Result<(TokenRow, Zeroizing<String>), OpsError> {
    if new.name.is_empty() || new.name.len() > MAX_NAME || new.name.chars().any(char::is_control) {
        return Err(OpsError::InvalidRequest(format!("a token's name is 1 to {MAX_NAME} bytes of text")));
    }
    if new.valid_for < Duration::from_secs(60) || new.valid_for > LONGEST {
        return Err(OpsError::InvalidRequest("a token is valid for 1 minute to 366 days".to_owned()));
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
    format!("name={:?} scope={} expires={}", row.name, row.scope.name(), row.expires_at)
}

fn no_token(id: &str) -> OpsError {
    OpsError::NotFound(format!("there is no token {}", crate::base::text::printable(id.as_bytes(), 64)))
}
