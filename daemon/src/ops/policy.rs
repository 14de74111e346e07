//! Who may do what: one table for the API, the command line and every later way in. It is pure. Every operation asks
//! it first, before it looks at anything, and the API's document is printed from it.
//!
//! A refusal of the table says nothing about what exists: it depends on the caller and the operation alone.

use super::caller::{Caller, CallerKind};
use crate::base::clock::Timestamp;
use crate::model::permission::{Right, Rights, TeamLimit};

/// What an operation is about. It decides what a caller who is limited to some teams may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The installation as a whole. A limited caller may not do it.
    Installation,
    /// One team, which the request names. A limited caller may do it for their own teams.
    Team,
    /// Lists, and objects that are named by an id of their own. A limited caller sees those of their own teams, and all
    /// others as if they did not exist.
    Objects,
}

macro_rules! operations {
    ($($variant:ident $name:literal $right:ident $subject:ident $purpose:literal $(audited $action:literal)?;)+) => {
        /// Everything that can be asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Operation { $($variant,)+ }

        impl Operation {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name, which is the `operationId` in the API's document.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The right that an operator needs for it.
            pub fn needs(self) -> Right {
                match self { $(Self::$variant => Right::$right,)+ }
            }

            /// What it is about.
            pub fn subject(self) -> Subject {
                match self { $(Self::$variant => Subject::$subject,)+ }
            }

            /// What it does, as it follows the word "to".
            pub fn purpose(self) -> &'static str {
                match self { $(Self::$variant => $purpose,)+ }
            }

            /// What the audit calls it; `None` for what leaves no audit row.
            pub fn action(self) -> Option<&'static str> {
                match self { $(Self::$variant => operations!(@action $($action)?),)+ }
            }
        }
    };
    (@action) => { None };
    (@action $action:literal) => { Some($action) };
}

operations! {
    Status "status" Read Installation "see how the daemon is doing";
    Instances "instances" Read Installation "list the instances";
    Offsets "offsets" Read Installation "see how far each partition was read";
    AcceptOffsets "accept_offsets" Operate Installation "accept offsets" audited "offsets.accept";
    RewindOffsets "rewind_offsets" Operate Installation "read records again" audited "offsets.rewind";
    SkipOffsets "skip_offsets" Operate Installation "leave records out" audited "offsets.skip";
    AcceptClock "accept_clock" Operate Installation "accept the clock" audited "clock.accept";
    LogLevel "log_level" Read Installation "see the log level";
    SetLogLevel "set_log_level" Operate Installation "set the log level" audited "log.level";
    Delivery "delivery" Read Objects "see what is paused";
    PauseDelivery "pause_delivery" Operate Installation "pause all deliveries" audited "delivery.pause";
    ResumeDelivery "resume_delivery" Operate Installation "resume all deliveries" audited "delivery.resume";
    Teams "teams" Read Objects "list teams";
    Team "team" Read Team "see a team";
    CreateTeam "create_team" Operate Installation "create a team" audited "team.create";
    UpdateTeam "update_team" Operate Team "change a team" audited "team.update";
    CheckTeam "check_team" Operate Team "send a test callback" audited "team.check";
    SwitchAuth "switch_auth" Operate Team "switch the form of scale-callback-auth" audited "team.switch_auth";
    PauseTeam "pause_team" Operate Team "pause the deliveries of a team" audited "team.pause";
    ResumeTeam "resume_team" Operate Team "resume the deliveries of a team" audited "team.resume";
    DeleteTeam "delete_team" Operate Team "delete a team" audited "team.delete";
    Keys "keys" Read Team "list a team's keys";
    CreateKey "create_key" Operate Team "create a key" audited "key.create";
    PromoteKey "promote_key" Operate Team "promote a key" audited "key.promote";
    RevokeKey "revoke_key" Operate Team "revoke a key" audited "key.revoke";
    RevealKey "reveal_key" Secrets Team "reveal the value of a key" audited "key.reveal";
    Callbacks "callbacks" Read Objects "list callbacks";
    Callback "callback" Read Objects "see a callback";
    Attempts "attempts" Read Objects "see a callback's attempts";
    // A body holds the task's URL, whose path and query need the right to operate.
    Payload "payload" Operate Objects "see a callback's body" audited "callback.payload";
    RetryCallback "retry_callback" Operate Objects "retry a callback" audited "callback.retry";
    ResendCallback "resend_callback" Operate Objects "send a callback again" audited "callback.resend";
    CancelCallback "cancel_callback" Operate Objects "cancel a callback" audited "callback.cancel";
    RetryCallbacks "retry_callbacks" Operate Objects "retry many callbacks" audited "callback.retry_all";
    CancelCallbacks "cancel_callbacks" Operate Objects "cancel many callbacks" audited "callback.cancel_all";
    PreviewResend "preview_resend" Read Objects "count the callbacks that would be sent again";
    CreateResend "create_resend" Operate Objects "send many callbacks again" audited "resend.create";
    Resends "resends" Read Objects "list the jobs that send callbacks again";
    Resend "resend" Read Objects "see a job that sends callbacks again";
    PauseResend "pause_resend" Operate Objects "pause a job that sends callbacks again" audited "resend.pause";
    ResumeResend "resume_resend" Operate Objects "resume a job that sends callbacks again" audited "resend.resume";
    CancelResend "cancel_resend" Operate Objects "cancel a job that sends callbacks again" audited "resend.cancel";
    Task "task" Read Objects "see what happened to a task";
    DeadLetters "dead_letters" Read Objects "list dead letters";
    DeadLetter "dead_letter" Read Objects "see a dead letter";
    ResendDeadLetter "resend_dead_letter" Operate Objects "send a dead letter again" audited "dead_letter.resend";
    DiscardDeadLetter "discard_dead_letter" Operate Objects "set a dead letter aside" audited "dead_letter.discard";
    Endpoints "endpoints" Read Objects "list endpoints";
    Endpoint "endpoint" Read Team "see an endpoint";
    RetryEndpoint "retry_endpoint" Operate Team "retry the callbacks of an endpoint" audited "endpoint.retry";
    PauseEndpoint "pause_endpoint" Operate Team "pause the deliveries to an endpoint" audited "endpoint.pause";
    ResumeEndpoint "resume_endpoint" Operate Team "resume the deliveries to an endpoint" audited "endpoint.resume";
    Tokens "tokens" Read Objects "list tokens";
    CreateToken "create_token" Operate Objects "create a token" audited "token.create";
    RevokeToken "revoke_token" Operate Objects "revoke a token" audited "token.revoke";
    Audit "audit" Read Objects "read the audit";
}

impl Operation {
    /// Whether the audit names a team as the object of this operation.
    pub fn is_audited_by_team(self) -> bool {
        self.action().is_some()
            && (self.subject() == Subject::Team
                || matches!(
                    self,
                    Self::CreateTeam
                        | Self::Payload
                        | Self::RetryCallback
                        | Self::ResendCallback
                        | Self::CancelCallback
                        | Self::RetryCallbacks
                        | Self::CancelCallbacks
                        | Self::CreateResend
                        | Self::PauseResend
                        | Self::ResumeResend
                        | Self::CancelResend
                        | Self::ResendDeadLetter
                        | Self::DiscardDeadLetter
                ))
    }

    /// The operation of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|operation| operation.name() == name)
    }
}

/// Why a caller is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("to {} the right \"{}\" is needed; this caller's rights: {has}", operation.purpose(), operation.needs().name())]
    Lacks { operation: Operation, has: Rights },
    #[error("this caller is limited to some teams; to {} a token for all teams is needed", operation.purpose())]
    Installation { operation: Operation },
    #[error("this caller is limited to other teams; to {} a token for this team is needed", operation.purpose())]
    Team { operation: Operation },
    #[error("nobody can give away a right that they lack: \"{}\"; this caller's rights: {has}", right.name())]
    Gives { right: Right, has: Rights },
    #[error("a token can't be for more teams than the token that creates it")]
    GivesTeams,
    #[error("a token can't outlive the token that creates it, which is valid until {until}")]
    Outlives { until: Timestamp },
}

/// Whether a caller may do something. If it is about one team, [`check_team`] decides.
///
/// # Errors
/// Which right is missing.
pub fn check(caller: &Caller, operation: Operation) -> Result<(), Denied> {
    let CallerKind::Operator(has) = caller.kind;
    if !has.has(operation.needs()) {
        return Err(Denied::Lacks { operation, has });
    }
    match operation.subject() {
        Subject::Installation if caller.teams != TeamLimit::All => Err(Denied::Installation { operation }),
        _ => Ok(()),
    }
}

/// Whether a caller may do something for this team.
///
/// # Errors
/// Which right is missing.
pub fn check_team(caller: &Caller, operation: Operation, team: &str) -> Result<(), Denied> {
    check(caller, operation)?;
    if caller.teams.includes(team) { Ok(()) } else { Err(Denied::Team { operation }) }
}

/// Whether a caller may see the path and query of URLs, and texts that may repeat them. Customers put tokens there.
pub fn sees_urls(caller: &Caller) -> bool {
    let CallerKind::Operator(has) = caller.kind;
    has.has(Right::Operate)
}

/// What a new token may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gift {
    pub rights: Rights,
    pub teams: TeamLimit,
    pub until: Timestamp,
}

/// Whether a caller may give this to somebody else. They may give only what they have; otherwise they could create a
/// token that may do more, or for longer, and use it.
///
/// # Errors
/// What the caller lacks.
pub fn check_gift(caller: &Caller, gift: &Gift) -> Result<(), Denied> {
    let CallerKind::Operator(has) = caller.kind;
    if let Some(right) = has.lacks(gift.rights) {
        return Err(Denied::Gives { right, has });
    }
    if !caller.teams.covers(&gift.teams) {
        return Err(Denied::GivesTeams);
    }
    match caller.until.filter(|until| gift.until > *until) {
        Some(until) => Err(Denied::Outlives { until }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
