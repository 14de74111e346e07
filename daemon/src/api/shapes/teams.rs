//! Teams, their keys, and the check of a team's receiver.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::PauseShape;
use super::names::{AuthFormName, HttpName, KindName, ModeName};
use super::time;
use crate::base::clock::Timestamp;
use crate::model::team::{KeyState, Team};
use crate::net::target::without_userinfo;
use crate::ops::checks::Checked;
use crate::ops::switch::Switched;
use crate::ops::teams::TeamChange;
use crate::store::admin::KeyRow;

#[derive(Debug, Serialize, ToSchema)]
pub struct TeamShape {
    pub team_id: String,
    pub name: String,
    /// Where callbacks go whose task has no URL of its own. Only scheme, host and port for callers without the right
    /// operate.
    pub default_url: Option<String>,
    /// The same for test tasks; null if they go to default_url as well.
    pub default_url_test: Option<String>,
    /// The only origins that callbacks may go to; any origin if the list is empty.
    pub allowed_origins: Vec<String>,
    /// The form of scale-callback-auth: key or hmac.
    pub auth_form: &'static str,
    /// Origins that have a form of their own.
    pub origin_forms: Vec<OriginForm>,
    /// What to do with http:// URLs: allow, hmac-only or refuse. Null follows the installation.
    pub http: Option<&'static str>,
    /// How often a callback is retried. Null follows the installation.
    pub retries: Option<u32>,
    /// For how long a callback is retried. Null follows the installation.
    pub horizon_seconds: Option<u64>,
    /// Whether the status 410 ends a callback. Null follows the installation.
    pub end_on_gone: Option<bool>,
    /// Its deliveries are paused. Pauses of single endpoints stand with the endpoints.
    pub paused: Option<PauseShape>,
    /// It was deleted then. Nothing is sent for it any more.
    pub deleted_at: Option<String>,
}

/// An origin with a form of its own.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OriginForm {
    pub origin: String,
    #[schema(value_type = AuthFormName)]
    pub auth_form: String,
}

impl TeamShape {
    pub fn new(team: &Team) -> Self {
        Self {
            team_id: team.id.to_string(),
            name: team.name.clone(),
            default_url: team.default_url.as_deref().map(without_userinfo),
            default_url_test: team.default_url_test.as_deref().map(without_userinfo),
            allowed_origins: team.allowed_origins.iter().map(ToString::to_string).collect(),
            auth_form: team.auth_form.name(),
            origin_forms: team
                .origin_forms
                .iter()
                .map(|(origin, form)| OriginForm { origin: origin.to_string(), auth_form: form.name().to_owned() })
                .collect(),
            http: team.http.map(|http| http.name()),
            retries: team.retry.retries,
            horizon_seconds: team.retry.horizon.map(|horizon| horizon.as_secs()),
            end_on_gone: team.retry.end_on_gone,
            paused: None,
            deleted_at: time(team.deleted_at),
        }
    }
}

/// What is given changes; null removes a value.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TeamPatch {
    /// Only for a new team: an id never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128)]
    pub team_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub default_url: Option<Option<String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub default_url_test: Option<Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_origins: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AuthFormName>)]
    pub auth_form: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_forms: Option<Vec<OriginForm>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<HttpName>)]
    pub http: Option<Option<String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, maximum = 1000)]
    pub retries: Option<Option<u32>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub horizon_seconds: Option<Option<u64>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bool>)]
    pub end_on_gone: Option<Option<bool>>,
}

/// Tells null from what is absent.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl From<TeamPatch> for TeamChange {
    fn from(patch: TeamPatch) -> Self {
        let forms = |forms: Vec<OriginForm>| forms.into_iter().map(|form| (form.origin, form.auth_form)).collect();
        Self {
            name: patch.name,
            default_url: patch.default_url,
            default_url_test: patch.default_url_test,
            allowed_origins: patch.allowed_origins,
            auth_form: patch.auth_form,
            origin_forms: patch.origin_forms.map(forms),
            http: patch.http,
            retries: patch.retries,
            horizon: patch.horizon_seconds.map(|seconds| seconds.map(std::time::Duration::from_secs)),
            end_on_gone: patch.end_on_gone,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct KeyShape {
    pub key_id: String,
    pub kind: &'static str,
    pub mode: &'static str,
    /// created, active or revoked.
    pub state: &'static str,
    /// The last four characters of the value.
    pub last4: String,
    pub created_at: String,
    pub promoted_at: Option<String>,
    pub revoked_at: Option<String>,
    /// When it last signed a callback, recorded about once a minute.
    pub used_at: Option<String>,
    /// Only in the answer to the key's creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl KeyShape {
    pub fn new(row: &KeyRow, now: Timestamp) -> Self {
        // A key that was promoted for a later time is active once that time has come.
        let active = row.state == KeyState::Created && row.is_used(now);
        Self {
            key_id: row.id.clone(),
            kind: row.kind.name(),
            mode: row.mode.name(),
            state: if active { KeyState::Active.name() } else { row.state.name() },
            last4: row.last4.clone(),
            created_at: row.created_at.to_string(),
            promoted_at: row.promote_at.map(|at| at.to_string()),
            revoked_at: row.revoked_at.map(|at| at.to_string()),
            used_at: row.used_at.map(|at| at.to_string()),
            value: None,
        }
    }
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKeyShape {
    #[schema(value_type = KindName)]
    pub kind: String,
    #[schema(value_type = ModeName)]
    pub mode: String,
    /// The value of a key that the customer has already. Without it a new value is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Promotion {
    /// From this time on, RFC 3339. From now on if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Revoke even the last active key of its kind and mode. Callbacks then wait for another one.
    #[serde(default)]
    pub force: bool,
}

/// A key's value. The audit says who revealed it.
#[derive(Serialize, ToSchema)]
pub struct RevealedKey {
    pub key_id: String,
    pub value: String,
}

/// What to try: where, and with which keys.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TeamCheck {
    /// The URL to try; the team's default URL if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The mode whose keys are used; test if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ModeName>)]
    pub mode: Option<String>,
}

/// What a signed test callback came to, step by step. Its event type, `callback.test`, tells the receiver that it is a
/// test.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckShape {
    /// The receiver answered with 2xx.
    pub succeeded: bool,
    pub team_id: String,
    pub origin: Option<String>,
    pub callback_id: String,
    pub mode: &'static str,
    pub steps: Vec<StepShape>,
}

/// A switch of the form of scale-callback-auth.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthSwitch {
    /// The form to switch to.
    #[schema(value_type = AuthFormName)]
    pub to: String,
    /// Switch only this origin. If absent the team is switched, except for origins that have a form of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The URL to try; the team's default URL if absent. With `origin`, it must be a URL at that origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// What a switch came to.
#[derive(Debug, Serialize, ToSchema)]
pub struct SwitchShape {
    /// Whether the new form is used from now on.
    pub switched: bool,
    /// What was done, or why nothing was.
    pub result: String,
    pub team_id: String,
    pub origin: Option<String>,
    pub from: &'static str,
    pub to: &'static str,
    /// A valid test callback in the new form, which the receiver must accept.
    pub valid: CheckShape,
    /// A forged one, which the receiver must refuse with 4xx. Null if the valid one was not accepted.
    pub forged: Option<CheckShape>,
}

impl SwitchShape {
    pub fn new(team: &str, switched: Switched) -> Self {
        Self {
            switched: switched.switched,
            result: switched.result,
            team_id: team.to_owned(),
            origin: switched.origin.map(|origin| origin.to_string()),
            from: switched.from.name(),
            to: switched.to.name(),
            valid: CheckShape::new(team, &switched.valid),
            forged: switched.forged.map(|forged| CheckShape::new(team, &forged)),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct StepShape {
    /// url, dns, egress, connect, tls or post.
    pub step: &'static str,
    pub ok: bool,
    pub duration_ms: u64,
    /// What was found, or why the step failed.
    pub detail: String,
    /// The outcome that the attempt of a callback would have here.
    pub outcome: Option<&'static str>,
    /// The status that the receiver answered.
    pub status: Option<u16>,
}

impl CheckShape {
    pub fn new(team: &str, checked: &Checked) -> Self {
        let steps = checked.steps.iter().map(|step| StepShape {
            step: step.name,
            ok: step.failed.is_none(),
            duration_ms: u64::try_from(step.took.as_millis()).unwrap_or(u64::MAX),
            detail: step.detail.clone(),
            outcome: step.failed.map(|outcome| outcome.name()),
            status: step.status,
        });
        Self {
            succeeded: checked.succeeded(),
            team_id: team.to_owned(),
            origin: checked.origin.clone(),
            callback_id: checked.callback_id.clone(),
            mode: checked.mode.name(),
            steps: steps.collect(),
        }
    }
}
