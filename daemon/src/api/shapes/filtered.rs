//! The filters of requests about many callbacks. A request has them beside its own members. A macro writes them into each shape, because
//! serde's `flatten` can't be used together with `deny_unknown_fields`, and would make two schemas of one request in the API's document.

/// Defines the shape of a request about many callbacks: the filters, and then its own members.
macro_rules! filtered {
    ($(#[$($about:tt)*])* pub struct $shape:ident { $($own:tt)* }) => {
        $(#[$($about)*])*
        #[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $shape {
            /// Only callbacks of this team.
            pub team: Option<String>,
            /// Only callbacks of this task.
            pub task: Option<String>,
            /// Only callbacks to this origin (scheme, host and port), only those that follow a team's default URL (default:live,
            /// default:test), or only those whose task has an invalid URL of its own (none).
            pub endpoint: Option<String>,
            /// Only callbacks whose last attempt had this outcome.
            #[schema(inline, value_type = Option<OutcomeName>)]
            pub outcome: Option<String>,
            /// Only callbacks whose last attempt was answered with this HTTP status.
            #[schema(minimum = 100, maximum = 999)]
            pub status: Option<u16>,
            /// Only callbacks of live tasks, or of test tasks.
            #[schema(inline, value_type = Option<ModeName>)]
            pub mode: Option<String>,
            /// Only callbacks whose event is of this time or later: RFC 3339, or a date, which means its midnight in UTC.
            pub since: Option<String>,
            /// Only callbacks whose event is older than this time.
            pub until: Option<String>,
            /// Only callbacks with an attempt that failed at this time or later. It needs failed_until.
            pub failed_since: Option<String>,
            /// Only callbacks with an attempt that failed before this time. It needs failed_since.
            pub failed_until: Option<String>,
            $($own)*
        }
    };
}

pub(super) use filtered;
