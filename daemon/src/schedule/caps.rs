//! The limits of the scheduler, as the configuration gives them.

#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// Requests under way to one endpoint: a team and an origin.
    pub endpoint: usize,
    /// Requests under way to one origin, over all teams.
    pub origin: usize,
    /// Requests under way for one team.
    pub team: usize,
    pub fast: usize,
    pub slow: usize,
    pub settling: usize,
    /// Fast permits that all unproven endpoints share. An endpoint is proven for ten minutes after a prompt answer.
    pub unproven: usize,
    /// A lane at its cap is full once at least `waiting` fresh callbacks wait there, with at least `lane_bytes` bytes.
    pub lane_bytes: usize,
    pub waiting: usize,
}
