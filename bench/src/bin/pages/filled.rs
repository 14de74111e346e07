//! The settled rows that a store is filled with, as far as questions know them: how many there are, and the id, the time and the task of
//! each. Both databases are filled with the same shares of states: of twenty callbacks, one is exhausted after three attempts, one was
//! abandoned, one was delivered by its second attempt, and the others by their first.

/// The teams of the rows, and of the events that are delivered.
pub(crate) const TEAMS: u64 = 50;
pub(crate) const ENDPOINTS_A_TEAM: u64 = 4;
/// The rows' partition has this number, and their queues have the numbers from it on, so that they are not in the way of the daemon's.
pub(crate) const NUMBERS: u64 = 1_000_000;
/// The time between the oldest and the newest row: less than rows are kept for.
const SPAN: u64 = 20 * 86_400_000;
/// The newest row is so much older than its store. Every attempt of it has ended.
const AGE: u64 = 600_000;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Filled {
    pub(crate) rows: u64,
    /// The time of the newest row and of the oldest, in milliseconds since 1970.
    pub(crate) newest: u64,
    pub(crate) oldest: u64,
}

impl Filled {
    /// So many rows, in equal distances up to now.
    pub(crate) fn until_now(rows: u64) -> Self {
        let newest = now() - AGE;
        Self { rows, newest, oldest: newest - SPAN }
    }

    /// The time of the n-th row, from the oldest one on.
    pub(crate) fn at(&self, n: u64) -> u64 {
        self.oldest + n * (self.newest - self.oldest) / self.rows
    }

    /// The id: the time, and the number for what is a hash in real ones.
    pub(crate) fn id(&self, n: u64) -> [u8; 16] {
        (u128::from(self.at(n)) << 80 | u128::from(n)).to_be_bytes()
    }

    /// The id as the API writes it.
    pub(crate) fn id_text(&self, n: u64) -> String {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let number = u128::from_be_bytes(self.id(n));
        let digit = |place: u32| char::from(ALPHABET[(number >> (5 * place) & 31) as usize]);
        format!("cb_{}", (0..26).rev().map(digit).collect::<String>())
    }
}

/// The task of the n-th row. No event of [`callbackd_bench::load`] has it.
pub(crate) fn task(n: u64) -> String {
    format!("f{n:023x}")
}

pub(crate) fn team(number: u64) -> String {
    format!("team_{number}")
}

pub(crate) fn target(endpoint: u64) -> String {
    format!("https://r{endpoint}.example:443")
}

#[expect(clippy::disallowed_methods, reason = "the rows must be of the last days whenever this runs")]
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
