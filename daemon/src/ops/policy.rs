//! Who may do what: one table for the API, the command line and every later way in. It is pure. Every operation asks
//! it first, before it looks at anything, and the API's document is printed from it.
//!
//! A refusal of the table says nothing about what exists: it depends on the caller and the operation alone.

use super::caller::{Caller, CallerKind};
use crate::model::permission::{Right, Rights};

macro_rules! operations {
    ($($variant:ident $name:literal $right:ident $purpose:literal $(audited $action:literal)?;)+) => {
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
    Status "status" Read "see how the daemon is doing";
    Instances "instances" Read "list the instances";
    Offsets "offsets" Read "see how far each partition was read";
    AcceptOffsets "accept_offsets" Operate "accept offsets" audited "offsets.accept";
    AcceptClock "accept_clock" Operate "accept the clock" audited "clock.accept";
    LogLevel "log_level" Read "see the log level";
    SetLogLevel "set_log_level" Operate "set the log level" audited "log.level";
    Teams "teams" Read "list teams";
    Team "team" Read "see a team";
    CreateTeam "create_team" Operate "create a team" audited "team.create";
    UpdateTeam "update_team" Operate "change a team" audited "team.update";
    CheckTeam "check_team" Operate "send a test callback" audited "team.check";
    SwitchAuth "switch_auth" Operate "switch the form of scale-callback-auth" audited "team.switch_auth";
    Keys "keys" Read "list a team's keys";
    CreateKey "create_key" Operate "create a key" audited "key.create";
    PromoteKey "promote_key" Operate "promote a key" audited "key.promote";
    RevokeKey "revoke_key" Operate "revoke a key" audited "key.revoke";
    RevealKey "reveal_key" Secrets "reveal the value of a key" audited "key.reveal";
    Callbacks "callbacks" Read "list callbacks";
    Callback "callback" Read "see a callback";
    Attempts "attempts" Read "see a callback's attempts";
    Payload "payload" Read "see a callback's body";
    Task "task" Read "see what happened to a task";
    DeadLetters "dead_letters" Read "list dead letters";
    DeadLetter "dead_letter" Read "see a dead letter";
    Endpoints "endpoints" Read "list endpoints";
    Endpoint "endpoint" Read "see an endpoint";
    Tokens "tokens" Read "list tokens";
    CreateToken "create_token" Operate "create a token" audited "token.create";
    RevokeToken "revoke_token" Operate "revoke a token" audited "token.revoke";
    Audit "audit" Read "read the audit";
}

impl Operation {
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
    #[error("nobody can give away a right that they lack: \"{}\"; this caller's rights: {has}", right.name())]
    Gives { right: Right, has: Rights },
}

/// Whether a caller may do something.
///
/// # Errors
/// Which right is missing.
pub fn check(caller: &Caller, operation: Operation) -> Result<(), Denied> {
    match caller.kind {
        CallerKind::Operator(rights) if rights.has(operation.needs()) => Ok(()),
        CallerKind::Operator(has) => Err(Denied::Lacks { operation, has }),
    }
}

/// Whether a caller may give `rights` to somebody else. They may give only rights that they have; otherwise they could
/// create a token with more rights and use it.
///
/// # Errors
/// Which right is missing.
pub fn check_gift(caller: &Caller, rights: Rights) -> Result<(), Denied> {
    let CallerKind::Operator(has) = caller.kind;
    match has.lacks(rights) {
        None => Ok(()),
        Some(right) => Err(Denied::Gives { right, has }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn caller(rights: Rights) -> Caller {
        Caller::operator("someone", "somewhere", rights)
    }

    #[test]
    fn each_operation_has_one_name_and_one_right() {
        let names: BTreeSet<_> = Operation::ALL.iter().map(|operation| operation.name()).collect();
        assert_eq!(names.len(), Operation::ALL.len(), "two operations of one name");
        for operation in Operation::ALL {
            assert_eq!(Operation::by_name(operation.name()), Some(*operation));
            assert!(!operation.purpose().ends_with('.'), "{operation:?}");
        }
        assert_eq!(Operation::by_name("nonsense"), None);
    }

    #[test]
    fn what_needs_more_than_read_is_audited_and_nothing_else_is() {
        for operation in Operation::ALL {
            assert_eq!(operation.needs() != Right::Read, operation.action().is_some(), "{operation:?}");
        }
        let actions: BTreeSet<_> = Operation::ALL.iter().filter_map(|operation| operation.action()).collect();
        assert_eq!(actions.len(), Operation::ALL.iter().filter(|operation| operation.action().is_some()).count());
    }

    #[test]
    fn a_caller_may_do_what_its_rights_say_and_no_more() {
        let sets = [
            Rights::default(),
            Rights::READ,
            Rights::OPERATE,
            Rights::SECRETS,
            Rights::READ.and(Rights::SECRETS),
            Rights::ALL,
        ];
        for rights in sets {
            for operation in Operation::ALL {
                let expected = rights.has(operation.needs());
                assert_eq!(check(&caller(rights), *operation).is_ok(), expected, "{rights:?} {operation:?}");
            }
        }
        // The unix socket's user has every right.
        for operation in Operation::ALL {
            assert_eq!(check(&Caller::unix_user(1000), *operation), Ok(()));
        }
    }

    #[test]
    fn a_refusal_names_what_is_missing() {
        let denied = check(&caller(Rights::OPERATE), Operation::RevealKey).expect_err("it lacks secrets");
        assert_eq!(
            denied.to_string(),
            "to reveal the value of a key the right \"secrets\" is needed; this caller's rights: operate"
        );
        let denied = check_gift(&caller(Rights::OPERATE), Rights::ALL).expect_err("it lacks secrets");
        assert_eq!(
            denied.to_string(),
            "nobody can give away a right that they lack: \"secrets\"; this caller's rights: operate"
        );
        assert_eq!(check_gift(&caller(Rights::OPERATE), Rights::READ), Ok(()));
        assert!(check_gift(&caller(Rights::SECRETS), Rights::READ).is_err());
    }
}
