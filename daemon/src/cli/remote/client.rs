//! The connection to a daemon's API: its address, the token, and the exit status for each of its errors.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use scale_callback_serve::client::{self, ClientError, Remote as Address};
use serde_json::Value;
use zeroize::Zeroizing;

use super::super::args::Remote;
use super::super::{Failure, secret_from};
use super::calls::Call;
use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(40);

pub(super) struct Client {
    pub(super) remote: Remote,
    address: Address,
    token: Option<Zeroizing<String>>,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    pub(super) fn new(remote: &Remote) -> Result<Self, Failure> {
        let address = address(remote)?;
        let token = match &address {
            Address::Unix(_) => None,
            _ => token(remote)?,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Failure::FAILED, error.to_string()))?;
        Ok(Self { remote: remote.clone(), address, token, runtime })
    }

    /// The answer's JSON.
    pub(super) fn ask(&self, call: &Call) -> Result<Value, Failure> {
        let body = self.exchange(call.method.clone(), &call.path_at(call.next.as_deref()), call.body.as_ref())?;
        serde_json::from_slice(&body).map_err(|_| {
            Failure::new(Failure::FAILED, format!("the program that answers at {} is not callbackd", self.address))
        })
    }

    /// The answer's bytes.
    pub(super) fn bytes(&self, path: &str) -> Result<Bytes, Failure> {
        self.exchange(Method::GET, path, None)
    }

    /// Waits between two requests of a command that repeats them.
    pub(super) fn sleep(&self, time: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(time).await });
    }

    fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(&Zeroizing::new(format!("Bearer {}", token.as_str())));
            let mut value =
                value.map_err(|_| Failure::new(Failure::REFUSED, "the token holds characters that can't be sent"))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let body = match body {
            None => Bytes::new(),
            Some(value) => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Bytes::from(value.to_string())
            }
        };
        let path = format!("/admin/v1{path}");
        if path.len() > LONGEST_PATH {
            return Err(Failure::new(Failure::REFUSED, "an argument is too long"));
        }
        let answer = self.runtime.block_on(client::call(&self.address, method, &path, headers, body, TIMEOUT));
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        let problem: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        let status = match answer.status.as_u16() {
            404 | 410 => Failure::NOT_FOUND,
            401 | 403 => Failure::NOT_ALLOWED,
            408 | 500.. => Failure::FAILED,
            _ => Failure::REFUSED,
        };
        let detail = match (problem["detail"].as_str(), answer.status.as_u16()) {
            (Some(detail), _) => detail.to_owned(),
            (None, 414 | 431) => "an argument is too long".to_owned(),
            (None, _) => format!("{} answered {}", self.address, answer.status),
        };
        let mut sentence = scale_callback_serve::text::printable(detail.as_bytes(), 2_000);
        if answer.status == 401 && self.token.is_none() {
            sentence.push_str(" (name a file with one: --token-file, or the variable CALLBACKD_TOKEN_FILE)");
        }
        let failure = Failure::new(status, sentence);
        Err(if self.remote.json { failure.with_problem(problem.to_string()) } else { failure })
    }

    fn unreachable(&self, error: &ClientError) -> Failure {
        let sentence = match error {
            ClientError::Unreachable(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
                let sentence = format!("{} is for the daemon's own user and root", self.address);
                return Failure::new(Failure::NOT_ALLOWED, sentence);
            }
            ClientError::Unreachable(_) => {
                format!("no daemon listens at {}; is it running? (see --api and --config)", self.address)
            }
            other => format!("the daemon at {}: {other}", self.address),
        };
        Failure::new(Failure::UNREACHABLE, sentence)
    }
}

/// The longest path with its query. The server takes no longer head.
const LONGEST_PATH: usize = 60_000;

/// The API's address: from the argument, a variable, or the configuration.
fn address(remote: &Remote) -> Result<Address, Failure> {
    let given = remote.api.clone().or_else(|| std::env::var("CALLBACKD_API_URL").ok());
    match given {
        Some(url) => Address::parse(&url, remote.api_ca_file.clone())
            .map_err(|why| Failure::new(Failure::REFUSED, why.to_string())),
        None => {
            let config = Config::load(remote.config.as_deref());
            Ok(Address::Unix(config.map_err(|error| Failure::new(Failure::REFUSED, error.to_string()))?.api.socket))
        }
    }
}

/// The token: from a file or a variable, never from an argument.
fn token(remote: &Remote) -> Result<Option<Zeroizing<String>>, Failure> {
    if let Some(file) = &remote.token_file {
        return secret_from("--token-file", file).map(Some);
    }
    if let Ok(token) = std::env::var("CALLBACKD_TOKEN") {
        return Ok(Some(Zeroizing::new(token.trim().to_owned())));
    }
    let file = std::env::var_os("CALLBACKD_TOKEN_FILE").map(PathBuf::from);
    file.map(|file| secret_from("the variable CALLBACKD_TOKEN_FILE:", &file)).transpose()
}
